"""What cylstm.sklearn takes its data for: masks, names of columns, lists of rows, types of labels and numbers."""

import functools

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
