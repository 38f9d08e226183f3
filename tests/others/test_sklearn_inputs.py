"""What the estimators of cylstm.sklearn take their data for (masks, names of columns, rows, types, weights), and what a
`fit` leaves behind: after another, after one that failed, and in a copy."""

import copy
import functools
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


# --- what goes in ---------------------------------------------------------------------------------------------------


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


def test_exchanged_columns_are_said(x):
    pandas, y = pytest.importorskip("pandas"), labels(x)

    def frames(names):
        return [pandas.DataFrame(row, columns=["a", "b"])[names] for row in x]

    for given in (frames(["a", "b"]), pandas.Series(frames(["a", "b"]))):
        classifier, scaler = LSTMClassifier(**SMALL).fit(given, y), SequenceScaler().fit(given)
        assert classifier.feature_names_in_.tolist() == scaler.feature_names_in_.tolist() == ["a", "b"]
        assert np.array_equal(classifier.predict_proba(given), classifier.predict_proba(x))
        for act in (classifier.predict, scaler.transform, functools.partial(classifier.partial_fit, y=y)):
            with pytest.raises(ValueError, match=r"X: expected the columns \['a', 'b'\], as fit had, got \['b', 'a'\]"):
                act(frames(["b", "a"]))
    mixed = [x[0], *frames(["a", "b"])[1:9], *frames(["b", "a"])[9:]]
    with pytest.raises(ValueError, match=r"X\[9\]: expected the columns \['a', 'b'\], as before, got \['b', 'a'\]"):
        classifier.fit(mixed, y)
    with pytest.raises(ValueError, match=r"y\[9\]: expected the columns \['a', 'b'\], as before, got \['b', 'a'\]"):
        LSTMRegressor(**SMALL, output="sequence").fit(list(x), mixed)
    assert not hasattr(classifier.fit(list(x), y), "feature_names_in_")


@pytest.mark.parametrize("way", ["arrays", "objects", "lists"])
def test_rows_of_one_length_are_no_table_by_chance(rng, way):
    ragged = [rng.standard_normal(T) for T in (3, 5, 5, 4, 5, 5)]
    objects = np.empty(6, object)
    objects[:] = ragged
    given = {"arrays": ragged, "objects": objects, "lists": [row.tolist() for row in ragged]}[way]
    classifier = LSTMClassifier(**SMALL).fit(given, [0, 1] * 3)
    together = classifier.predict_proba(given)
    assert np.array_equal(classifier.predict_proba(given[:1]), together[:1])
    assert np.array_equal(classifier.predict_proba(given[1:3]), together[1:3])
    if way != "lists":
        alike = LSTMClassifier(**SMALL).fit(given[1:3], [0, 1])
        assert alike.n_features_in_ == 1 and alike.predict(given).shape == (6,)


def test_what_was_fitted_on_a_table_takes_its_rows_in_a_list(rng):
    table, y = rng.standard_normal((8, 5)), [0, 1] * 4
    for given in (table, table.tolist()):
        classifier = LSTMClassifier(**SMALL).fit(given, y)
        assert classifier.n_features_in_ == 5
        found = classifier.predict_proba(table)
        assert np.array_equal(classifier.predict_proba(list(table)), found)
        assert np.array_equal(classifier.predict_proba(table.tolist()), found)
        assert np.array_equal(classifier.predict_proba(list(table)[:1]), found[:1])


@pytest.mark.parametrize("dtypes", [("U1", object), (object, "U1"), (object, object)])
def test_labels_in_an_array_of_objects_are_those_of_another_type(x, dtypes):
    y, names = labels(x), np.array(["a", "b"])
    expected = LSTMClassifier(**SMALL).partial_fit(x, y, classes=names).partial_fit(x, y).predict_proba(x)
    classifier = LSTMClassifier(**SMALL, warm_start=True).partial_fit(x, y.astype(dtypes[1]), names.astype(dtypes[0]))
    assert np.array_equal(classifier.partial_fit(x, y.astype(dtypes[1])).predict_proba(x), expected)
    for values in (y.astype(object), y):
        assert classifier.fit(x, values).classes_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"y\[1\]: expected one of the classes before, list \['a', 'b'\], got c"):
        classifier.fit(x, np.array(["a", "c"] * 10, object))


def test_labels_in_a_series_are_taken(x):
    pandas, y = pytest.importorskip("pandas"), labels(x)
    classifier = LSTMClassifier(**SMALL).partial_fit(x, pandas.Series(y), classes=["a", "b"])
    assert set(classifier.partial_fit(x, pandas.Series(y, dtype=object)).predict(x)) <= {"a", "b"}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_the_scaler_keeps_every_floating_type(x, dtype):
    x = x.astype(dtype)
    for given in (x, x[..., 0]):
        scaler = SequenceScaler().fit(given)
        assert scaler.transform(given).dtype == scaler.inverse_transform(given).dtype == dtype
    assert SequenceScaler().fit(x).transform(list(x))[0].dtype == dtype


# --- targets that count with weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1.0, 1e200, 1e-200, 1e307])
@pytest.mark.parametrize("weight", [1.0, 1e-320, 1e307])
def test_equal_weights_scale_as_none_do(x, unit, weight):
    y = np.stack([x[:, -1, 0] / 4, np.full(20, 1 / 3)], axis=1) * unit
    without = LSTMRegressor(**SMALL).fit(x, y).target_scaler_
    regressor = LSTMRegressor(**SMALL, output="sequence")
    weighted = regressor._targets(y.repeat(5, axis=0).reshape(20, 5, 2), x, np.full((20, 5), weight), known=False)
    assert np.abs(weighted).max() < 10
    np.testing.assert_allclose(regressor.target_scaler_.center, without.center, rtol=1e-12)
    np.testing.assert_allclose(regressor.target_scaler_.scale, without.scale, rtol=1e-12)
    assert regressor.target_scaler_.scale[1] == 1 and regressor.target_scaler_.center[1] == y[0, 1]


def test_weighted_targets_have_mean_0_and_deviation_1(x, rng):
    y, weights = 1e200 * rng.standard_normal(20), np.arange(20) % 4
    y[weights == 0] = 1e202
    regressor = LSTMRegressor(**SMALL).fit(x, y, weights)
    scaled = (y[weights > 0] - regressor.target_scaler_.center) / regressor.target_scaler_.scale
    assert np.average(scaled, weights=weights[weights > 0]) == pytest.approx(0, abs=1e-12)
    assert np.average(scaled**2, weights=weights[weights > 0]) == pytest.approx(1)
    assert np.isfinite(regressor.predict(x)).all()


@pytest.mark.parametrize("shape", [(20,), (20, 5)])
def test_weights_that_are_all_0_are_said(x, shape):
    regressor = LSTMRegressor(**SMALL, output="sequence")
    for weights in (np.zeros(shape), list(np.zeros(shape)) if len(shape) > 1 else np.zeros(shape, int)):
        with pytest.raises(ValueError, match="sample_weight: expected at least one weight above zero, got none"):
            regressor.fit(x, x[..., 0], weights)
    with pytest.raises(ValueError, match=r"sample_weight\[3\]: expected a finite number, got inf"):
        LSTMRegressor(**SMALL).fit(x, x[:, 0, 0], np.where(np.arange(20) == 3, np.inf, 1))


# --- what a fit leaves behind ----------------------------------------------------------------------------------------


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
