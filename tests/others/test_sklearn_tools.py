"""The estimators of cylstm.sklearn in scikit-learn's tools, on sequences of different lengths."""

import json
import runpy
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from cylstm.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler
from examples import loading, sequences

SMALL = dict(hidden_size=12, epochs=20, random_state=0)


@pytest.fixture
def x(rng):
    """90 sequences of 2 to 6 steps with 3 features that are no numbers to learn from as they are."""
    return [rng.normal([500, -3, 0], [100, 1, 1e-4], (T, 3)) for T in rng.integers(2, 7, 90)]


@pytest.fixture
def y(x):
    return np.array(["low", "high"])[[int(row[:, 0].mean() > 500) for row in x]]


def pipeline(**options):
    return make_pipeline(SequenceScaler(), LSTMClassifier(**SMALL | options))


def test_in_a_pipeline_and_cross_validation(x, y):
    found = cross_val_score(pipeline(), x, y, cv=3)
    assert found.mean() > 0.8
    objects = np.empty(90, object)
    objects[:] = x
    assert np.array_equal(cross_val_score(pipeline(), objects, y, cv=3), found)
    assert cross_val_score(pipeline(), x, y, cv=3, scoring="roc_auc").mean() > 0.8
    assert cross_val_predict(pipeline(), x, y, cv=3, method="predict_proba").shape == (90, 2)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_grid_search_has_the_same_numbers_with_two_jobs(x, y, backend):
    joblib = pytest.importorskip("joblib")
    grid = {"lstmclassifier__hidden_size": [2, 12], "sequencescaler__kind": ["robust", "min-max"]}
    alone = GridSearchCV(pipeline(), grid, cv=2).fit(x, y)
    with joblib.parallel_backend(backend):
        both = GridSearchCV(pipeline(), grid, cv=2, n_jobs=2).fit(x, y)
    assert np.array_equal(alone.cv_results_["mean_test_score"], both.cv_results_["mean_test_score"])
    assert alone.best_params_ == both.best_params_ and alone.best_score_ > 0.6
    assert np.array_equal(alone.predict_proba(x), both.predict_proba(x))


def test_calibration(x, y):
    for ensemble in (True, False):
        calibrated = CalibratedClassifierCV(pipeline(), cv=2, ensemble=ensemble).fit(x, y)
        assert np.mean(calibrated.predict(x) == y) > 0.8
        np.testing.assert_allclose(calibrated.predict_proba(x).sum(axis=1), 1, rtol=1e-6)
    weighted = CalibratedClassifierCV(LSTMClassifier(**SMALL), cv=2).fit(x, y, sample_weight=np.arange(90) + 1.0)
    assert weighted.predict(x).shape == (90,)


def test_steps_in_cross_validation(x):
    labels = [np.where(row[:, 0] > 500, "above", "below") for row in x]
    steps = pipeline(output="sequence")
    assert cross_val_score(steps, x, labels, cv=3).mean() > 0.8
    grid = {"lstmclassifier__hidden_size": [2, 12]}
    assert GridSearchCV(steps, grid, cv=KFold(2)).fit(x, labels).best_params_ == {"lstmclassifier__hidden_size": 12}
    numbers = [row[:, :2] * 7 for row in x]
    regressor = make_pipeline(SequenceScaler(), LSTMRegressor(**SMALL, output="sequence"))
    assert cross_val_score(regressor, x, numbers, cv=3).mean() > 0.5


def test_votes_and_transformed_targets(x, y):
    votes = VotingClassifier([("one", pipeline()), ("two", pipeline(random_state=1))], voting="soft")
    assert votes.fit(x, y).score(x, y) > 0.8
    target = np.exp([row[:, 1].mean() for row in x])
    regressor = make_pipeline(SequenceScaler(), LSTMRegressor(**SMALL))
    found = TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp).fit(x, target)
    assert found.score(x, target) > 0.5


def test_data_frames_and_series_of_arrays(x):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.stack([row[:2, 0] for row in x]), columns=["first", "second"], index=range(7, 97))
    frame = frame / 100 - 5
    y = np.where(frame.sum(axis=1) > 0, "above", "below")
    classifier = LSTMClassifier(**SMALL).fit(frame, pandas.Series(y, dtype="category"))
    assert classifier.feature_names_in_.tolist() == ["first", "second"]
    assert np.mean(classifier.predict(frame) == y) > 0.8
    assert not hasattr(classifier.fit(x, y), "feature_names_in_")
    of_arrays = pandas.Series(x, index=range(7, 97))
    numbers = pandas.Series([row[:, 0] for row in x], index=range(7, 97))
    weights = pandas.Series(np.arange(90) + 1.0, index=range(7, 97))
    regressor = LSTMRegressor(**SMALL, output="sequence")
    found = regressor.fit(of_arrays, numbers, weights).predict(of_arrays)
    expected = LSTMRegressor(**SMALL, output="sequence").fit(x, list(numbers), weights.to_numpy()).predict(x)
    assert all(map(np.array_equal, found, expected))


# --- the scaler -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, same", [("standard", StandardScaler), ("robust", RobustScaler),
                                        ("min-max", MinMaxScaler)])  # fmt: skip
def test_the_scaler_does_what_scikit_learns_do_with_all_steps(x, kind, same):
    x[3][1, 2] = np.nan
    scaler, table = SequenceScaler(kind).fit(x), np.concatenate(x)
    np.testing.assert_allclose(np.concatenate(scaler.transform(x)), same().fit_transform(table), rtol=1e-9, atol=1e-12)
    for found, row in zip(scaler.inverse_transform(scaler.transform(x)), x, strict=True):
        np.testing.assert_allclose(found, row, rtol=1e-9, atol=1e-12)


def test_the_scaler_keeps_shapes_and_types(rng):
    x = rng.normal(5, 2, (6, 4, 3)).astype("float32")
    scaler = SequenceScaler().fit(x)
    assert scaler.transform(x).dtype == np.float32 and scaler.transform(x).shape == x.shape
    assert isinstance(scaler.transform(list(x)), list) and scaler.transform(x.astype(int)).dtype == np.float64
    np.testing.assert_allclose(scaler.transform(x).mean(axis=(0, 1)), 0, atol=1e-6)
    table = SequenceScaler().fit(x[..., 0])  # rows of a table are sequences with one feature
    assert table.center_.shape == (1,) and table.transform(x[..., 0]).shape == (6, 4)
    assert np.array_equal(table.transform(x[..., 0]), SequenceScaler().fit_transform(x[..., :1])[..., 0])


def test_what_the_scaler_cannot_do_is_said(x):
    with pytest.raises(ValueError, match="kind: expected one of 'standard', 'robust', 'min-max', got str 'max'"):
        SequenceScaler("max").fit(x)
    with pytest.raises(ValueError, match="X: expected 3 features, as fit had, got 2"):
        SequenceScaler().fit(x).transform([row[:, :2] for row in x])
    with pytest.raises(ValueError, match=r"X\[2\]\[0, 1\]: expected a finite number, got inf"):
        x[2][0, 1] = np.inf
        SequenceScaler().fit(x)


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_tells_classes_apart(monkeypatch, capsys, x, y):
    monkeypatch.setattr(loading, "japanese_vowels", lambda: [(x[:60], y[:60]), (x[60:], y[60:])])
    monkeypatch.setattr(sequences, "SEEDS", range(2))
    monkeypatch.setattr(sequences, "RECIPES", {"japanese_vowels": dict(epochs=20, rate=0.01, input_dropout=0.1)})
    monkeypatch.setattr(sys, "argv", ["with_cylstm", "japanese_vowels"])
    runpy.run_module("examples.sequences.with_cylstm")
    name, median, *_ = capsys.readouterr().out.split()
    assert name == "japanese_vowels" and float(median) > 0.8


# --- imports ----------------------------------------------------------------------------------------------------------


def test_scikit_learn_is_imported_on_request_only():
    code = "import json, sys, cylstm; cylstm.Model; print(json.dumps('sklearn' in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) is False


def test_without_it_the_error_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import cylstm.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: cylstm.sklearn: expected scikit-learn >= 1.6 (pip install 'cylstm[sklearn]')" in run.stderr
