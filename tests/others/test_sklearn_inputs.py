"""What cylstm.sklearn takes its data for: masks, names of columns, lists of rows, types of labels and numbers."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from cylstm.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler

SMALL = dict(hidden_size=4, epochs=2, random_state=0)


@pytest.fixture
def x(rng):
    """20 sequences of 5 steps with 2 features."""
    return rng.standard_normal((20, 5, 2))


def labels(x):
    return np.where(x[:, -1, 0] > 0, "a", "b")


def masked(values):
    return np.ma.masked_greater(values, np.median(values))


def test_a_mask_is_refused_where_it_would_be_lost(x):
    y, numbers = labels(x), x[:, -1, 0]
    hidden = np.ma.MaskedArray(y, mask=y == "b")
    classifier, regressor = LSTMClassifier(**SMALL).fit(x, y), LSTMRegressor(**SMALL).fit(x, numbers)
    scaler = SequenceScaler().fit(x)
    steps = LSTMRegressor(**SMALL, output="sequence").fit(x, x[..., 0])
    for name, act in [
        ("X", lambda: LSTMClassifier(**SMALL).fit(masked(x), y)),
        ("X", lambda: LSTMRegressor(**SMALL).fit(masked(x[..., 0]), numbers)),
        ("X", lambda: classifier.predict(masked(x))),
        ("X", lambda: SequenceScaler().fit(masked(x))),
        ("X", lambda: scaler.transform(masked(x))),
        ("X", lambda: scaler.transform([x[0], masked(x[1])])),
        ("y", lambda: LSTMClassifier(**SMALL).fit(x, hidden)),
        ("y", lambda: LSTMRegressor(**SMALL).fit(x, masked(numbers))),
        ("y", lambda: steps.fit(x, masked(x[..., 0]))),
        ("y", lambda: steps.fit(x, list(masked(x[..., 0])))),
        ("y", lambda: classifier.score(x, hidden)),
        ("y", lambda: regressor.score(x, masked(numbers))),
        ("classes", lambda: LSTMClassifier(**SMALL).partial_fit(x, y, classes=hidden)),
        ("sample_weight", lambda: classifier.fit(x, y, masked(np.arange(20.0)))),
        ("sample_weight", lambda: regressor.score(x, numbers, masked(np.arange(20.0)))),
        ("sample_weight", lambda: steps.fit(x, x[..., 0], masked(x[..., 0] ** 2))),
    ]:
        with pytest.raises(TypeError, match=rf"{name}: expected an array without a mask, got a masked one"):
            act()
