"""Online learners as river's own functions use them: needs river and what its checks need, and is skipped without."""

import numpy as np
import pytest

from cylstm import online

river = pytest.importorskip("river")
pytest.importorskip("sklearn")  # by river's checks
pytestmark = pytest.mark.filterwarnings("ignore")  # its own

from river import base, checks, compose, evaluate, metrics, preprocessing  # noqa: E402


class FixedFeatures:
    """Of river's checks it passes all but one: there a feature is new after the first step, which is an error here."""

    def _unit_test_skips(self):
        return {"check_emerging_features"}


class Regressor(FixedFeatures, online.OnlineRegressor, base.Regressor):
    """As docs/online.md has it."""


class Classifier(FixedFeatures, online.OnlineClassifier, base.Classifier):
    """As docs/online.md has it."""

    _multiclass = True


class Detector(FixedFeatures, online.AnomalyDetector, base.AnomalyDetector):
    """As docs/online.md has it."""


SMALL = dict(hidden_size=4, window=8, every=4, seed=1)


@pytest.fixture
def series(rng):
    """y of a step hangs on x of the step before; whether that was large, and steps that do not belong there."""
    x = rng.standard_normal((800, 2))
    x[:, 1] = 100 * x[:, 1] + 1000
    return [({"a": a, "b": b}, last) for (a, b), (last, _) in zip(x[1:], x[:-1], strict=True)]


def test_progressive_validation(series):
    model = preprocessing.StandardScaler() | Regressor(8, window=8, every=4, seed=1)
    found = evaluate.progressive_val_score(series, model, metrics.MAE() + metrics.R2())
    assert found[1].get() > 0.3  # 0 for the mean, from the first step on
    alone = evaluate.progressive_val_score(series, Regressor(8, window=8, every=4, seed=1), metrics.R2())
    assert alone.get() > 0.3


def test_progressive_validation_of_labels_and_their_probabilities(series):
    labelled = [(x, "high" if y > 0 else "low") for x, y in series]
    for metric, least in ((metrics.Accuracy(), 0.7), (metrics.CrossEntropy(), None)):
        model = compose.Pipeline(preprocessing.StandardScaler(), Classifier(2, 8, window=8, every=4, seed=1))
        found = evaluate.progressive_val_score(labelled, model, metric).get()
        assert found > least if least else found < 0.65  # log 2 = 0.69 knows nothing


def test_progressive_validation_of_scores():
    wave = np.sin(0.4 * np.arange(1500))
    strange = np.arange(1500) % 50 == 49
    dataset = [({"a": -value if odd else value}, bool(odd)) for value, odd in zip(wave, strange, strict=True)]
    model = preprocessing.StandardScaler() | Detector(8, **SMALL)
    assert evaluate.progressive_val_score(dataset, model, metrics.ROCAUC(), print_every=0).get() > 0.7


@pytest.mark.parametrize("kind", [Regressor, Classifier, Detector])
def test_rivers_checks(kind, series, monkeypatch):
    if kind is Detector:  # river would download a data set; its checks drop three features
        known = [(x | {"c": 0.0, "d": 1, "e": True}, abs(x["a"]) > 2) for x, _ in series]
        monkeypatch.setattr(checks, "_yield_datasets", lambda model, scale=1: [known])
    checks.check_estimator(kind(**SMALL))
