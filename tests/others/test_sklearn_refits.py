"""What `fit` of the estimators of cylstm.sklearn leaves behind: after another, after one that failed, and in a copy."""

import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

import cylstm
from cylstm.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler

SMALL = dict(hidden_size=4, epochs=2, random_state=0)


@pytest.fixture
def x(rng):
    """20 sequences of 5 steps with 2 features."""
    return rng.standard_normal((20, 5, 2))


def labels(x):
    return np.where(x[:, -1, 0] > 0, "a", "b")


def interrupted(*args, **options):
    raise KeyboardInterrupt


def test_a_fit_that_fails_leaves_the_model_with_its_own_labels_units_and_features(x, monkeypatch):
    classifier = LSTMClassifier(**SMALL).fit(x, labels(x))
    found = classifier.predict(x)
    with pytest.raises(ValueError, match="lr: expected"):
        classifier.set_params(learning_rate=-1).fit(x, np.where(found == "a", 10, 20))
    assert np.array_equal(classifier.predict(x), found) and classifier.classes_.tolist() == ["a", "b"]
    regressor = LSTMRegressor(**SMALL).fit(x, x[:, -1, 0])
    numbers = regressor.predict(x)
    monkeypatch.setattr(cylstm.Model, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        regressor.fit(x[..., :1], 1e6 * x[:, -1])
    monkeypatch.undo()
    assert np.array_equal(regressor.predict(x), numbers) and regressor.n_features_in_ == 2


def test_a_first_fit_that_fails_leaves_nothing(x):
    classifier = LSTMClassifier(**SMALL, clip_norm=-1)
    for fit in (classifier.fit, lambda x, y: classifier.partial_fit(x, y, classes=["a", "b"])):
        with pytest.raises(ValueError, match="clip_norm: expected"):
            fit(x, labels(x))
        assert vars(classifier) == vars(LSTMClassifier(**SMALL, clip_norm=-1))


def test_a_scaler_whose_fit_fails_is_what_it_was(x):
    scaler = SequenceScaler().fit(x)
    with pytest.raises(ValueError, match="values: expected at least one number of feature 0, got none"):
        scaler.fit(np.full((3, 4), np.nan))
    assert scaler.n_features_in_ == 2 and scaler.transform(x).shape == x.shape


def test_a_shallow_copy_shares_nothing_that_learns(x):
    y = labels(x)
    original = LSTMClassifier(**SMALL).fit(x, y)
    copied, found = copy.copy(original), original.predict_proba(x)
    copied.partial_fit(x, y)
    assert np.array_equal(original.predict_proba(x), found)
    assert np.array_equal(original.partial_fit(x, y).predict_proba(x), copied.predict_proba(x))


def test_a_warm_start_sees_the_whole_of_an_argument(x):
    sizes = [2] * 24 + [2]
    classifier = LSTMClassifier(sizes, num_layers=25, epochs=1, random_state=0, warm_start=True).fit(x, labels(x))
    classifier.set_params(hidden_size=list(sizes)).fit(x, labels(x))
    for other in ([*sizes[:-1], 3], sizes):
        sizes[-1] = 3  # in place, too
        with pytest.raises(ValueError, match=r"hidden_size: expected list .*, which the model was made with, got list"):
            classifier.set_params(hidden_size=other).fit(x, labels(x))


@pytest.mark.parametrize("make", [
    lambda: dict(loss=cylstm.losses.CrossEntropy(0.1)),
    lambda: dict(model_options={"after": [cylstm.Dense(3, "relu")], "recurrent_dropout": 0.1}),
])  # fmt: skip
def test_arguments_that_say_the_same_go_on(x, make):
    classifier = LSTMClassifier(**SMALL, warm_start=True, **make()).fit(x, labels(x))
    pickle.loads(pickle.dumps(classifier)).set_params(**make()).fit(x, labels(x))
    with pytest.raises(ValueError, match=r"expected .*, which the model was made with, got"):
        classifier.set_params(loss="cross_entropy", model_options={}).fit(x, labels(x))
