"""The estimators of cylstm.sklearn: scikit-learn's own checks, and what they do beside a model of cylstm."""

import copy
import functools
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks

import cylstm
from cylstm.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler

SMALL = dict(hidden_size=8, epochs=3, random_state=0)
# Why each check fails that does; of scikit-learn 1.9, 169 are made in all.
FAILING = {
    "check_sample_weight_equivalence_on_dense_data": "a row twice may be in two batches, one of weight 2 is in one",
}


def failing(estimator):
    return {} if isinstance(estimator, SequenceScaler) else FAILING


@parametrize_with_checks(
    [LSTMClassifier(hidden_size=16, epochs=30), LSTMRegressor(hidden_size=16, epochs=30), SequenceScaler()],
    expected_failed_checks=failing,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", [LSTMClassifier, LSTMRegressor])
def test_weights_are_repetitions_where_all_rows_are_one_batch(kind):
    estimator = kind(hidden_size=8, epochs=20, batch_size=10**6, dtype="float64")
    check_sample_weight_equivalence_on_dense_data(kind.__name__, estimator)


@pytest.fixture
def x(rng):
    """40 sequences of 1 to 9 steps with 3 features."""
    return [rng.standard_normal((T, 3)) for T in [1, 9, *rng.integers(2, 9, 38)]]


def first_is_positive(x):
    return np.array(["low", "high"])[[int(row[0, 0] > 0) for row in x]]


def running_sum(x):
    return [1e6 + 1e4 * np.cumsum(row[:, 0]) for row in x]


def flat(values):
    return np.concatenate([np.asarray(row).ravel() for row in values])


# --- what goes in, and what comes out ---------------------------------------------------------------------------------


def test_it_learns_classes_of_sequences(x):
    y = first_is_positive(x)
    classifier = LSTMClassifier(hidden_size=16, epochs=60, random_state=0).fit(x, y)
    assert classifier.classes_.tolist() == ["high", "low"] and classifier.n_features_in_ == 3
    assert classifier.score(x, y) == 1 == np.mean(classifier.predict(x) == y)
    found = classifier.predict_proba(x)
    assert found.shape == (40, 2) and np.array_equal(classifier.classes_[found.argmax(axis=1)], y)
    assert classifier.n_iter_ == len(classifier.history_) == 60


def test_it_learns_numbers_of_steps_in_their_own_unit(x):
    y = running_sum(x)
    regressor = LSTMRegressor(hidden_size=16, output="sequence", epochs=60, random_state=0).fit(x, y)
    found = regressor.predict(x)
    assert [row.shape for row in found] == [row.shape for row in y]
    assert (
        regressor.score(x, y) == pytest.approx(r2_score(flat(y), flat(found)), rel=1e-12)
        and regressor.score(x, y) > 0.9
    )


def test_a_model_of_ones_own_has_the_same_numbers(x):
    y = np.array([row[:, 1].sum() for row in x])
    regressor = LSTMRegressor(**SMALL).fit(x, y)
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    model = cylstm.Model(3, 8, 1, output="last", loss="mse", seed=seed)
    scaled = ((y - y.mean()) / y.std())[:, None]
    history = model.fit([row.astype("float32") for row in x], scaled, epochs=3, optimizer=cylstm.Adam(1e-2), seed=seed,
                        progress=False)  # fmt: skip
    assert history.train_loss == pytest.approx(regressor.history_.train_loss, rel=1e-6)
    np.testing.assert_allclose(regressor.predict(x), model.predict(x)[:, 0] * y.std() + y.mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_changes_no_number(x, dtype):
    classifier = LSTMClassifier(**SMALL, bidirectional=True, dtype=dtype).fit(x, first_is_positive(x))
    together = classifier.predict_proba(x)
    assert together.dtype == dtype
    for n in (0, 1, 7):
        assert np.array_equal(classifier.predict_proba(x[n : n + 1])[0], together[n])


def test_an_array_a_list_and_an_array_of_arrays_are_the_same(rng):
    x, y = rng.standard_normal((20, 5, 2)), np.arange(20) % 3
    objects = np.empty(20, object)
    objects[:] = list(x)
    as_array, *others = (LSTMClassifier(**SMALL).fit(given, y).predict_proba(given) for given in (x, list(x), objects))
    assert all(np.array_equal(as_array, other) for other in others)


def test_rows_of_a_table_are_sequences_with_one_feature(rng):
    table, y = rng.standard_normal((20, 6)), np.arange(20) % 2
    classifier = LSTMClassifier(**SMALL).fit(table, y)
    assert classifier.n_features_in_ == 6 and classifier.model_.input_size == 1
    ragged = LSTMClassifier(**SMALL).fit([row[: 3 + n % 2] for n, row in enumerate(table)], y)  # and so are 1-D arrays
    assert ragged.n_features_in_ == 1
    assert np.array_equal(
        classifier.predict_proba(table),
        LSTMClassifier(**SMALL).fit(table[..., None], y).predict_proba(table[..., None]),
    )


@pytest.mark.parametrize("labels", [[3, -7], [True, False], ["é", "z"], [2.0, 1.0], np.array(["a", "b"], object)])
def test_labels_come_back_as_they_are(x, labels):
    y = np.asarray(labels)[np.arange(40) % 2]
    found = LSTMClassifier(**SMALL).fit(x, y).predict(x)
    assert found.dtype == y.dtype and set(found) <= set(y)


@pytest.mark.parametrize("as_list", [True, False])
def test_labels_of_steps(rng, as_list):
    x = rng.standard_normal((12, 7, 2))
    y = np.where(x[..., 0] > 0, "up", "down")
    given = (list(x), list(y)) if as_list else (x, y)
    classifier = LSTMClassifier(hidden_size=8, output="sequence", epochs=60, random_state=0).fit(*given)
    found, probabilities = classifier.predict(given[0]), classifier.predict_proba(given[0])
    assert isinstance(found, list) == isinstance(probabilities, list) == as_list
    assert np.shape(found) == (12, 7) and np.shape(probabilities) == (12, 7, 2)
    assert classifier.score(*given) == accuracy_score(y.ravel(), np.ravel(found)) > 0.9


@pytest.mark.parametrize("output, shape", [("last", (12,)), ("last", (12, 1)), ("last", (12, 2)),
                                           ("sequence", (12, 7)), ("sequence", (12, 7, 1)),
                                           ("sequence", (12, 7, 3))])  # fmt: skip
def test_numbers_have_the_shape_of_y(rng, output, shape):
    x, y = rng.standard_normal((12, 7, 2)), rng.standard_normal(shape)
    regressor = LSTMRegressor(**SMALL, output=output).fit(x, y)
    assert regressor.predict(x).shape == shape and regressor.score(x, y) < 1
    if output == "sequence":
        ragged = [row[: 2 + n % 5] for n, row in enumerate(x)], [row[: 2 + n % 5] for n, row in enumerate(y)]
        found = LSTMRegressor(**SMALL, output=output).fit(*ragged).predict(ragged[0])
        assert [row.shape for row in found] == [row.shape for row in ragged[1]]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_a_row_of_weight_0_changes_nothing(rng):
    x, y = rng.standard_normal((16, 5, 2)), 1e3 * rng.standard_normal(16)
    weights = np.arange(16) % 4
    one = LSTMRegressor(**SMALL).fit(x, y, weights)
    y[weights == 0] = 1e9
    two = LSTMRegressor(**SMALL).fit(x, y, weights)
    assert np.array_equal(one.predict(x), two.predict(x))
    assert one.score(x, y, weights) == r2_score(y, one.predict(x), sample_weight=weights)


def test_constant_targets_stay_what_they_are(x):
    for weights in (None, np.arange(40)):
        found = LSTMRegressor(hidden_size=8, epochs=20, random_state=0).fit(x, np.full(40, 1e6), weights).predict(x)
        np.testing.assert_allclose(found, 1e6, atol=0.5)


def test_weights_of_steps_and_of_sequences(x):
    y = running_sum(x)
    options = dict(**SMALL, output="sequence")
    weights = np.arange(40) % 3
    rows = LSTMRegressor(**options).fit(x, y, weights)
    steps = LSTMRegressor(**options).fit(
        x, y, [np.full(len(row), weight) for row, weight in zip(x, weights, strict=True)]
    )
    assert all(map(np.array_equal, rows.predict(x), steps.predict(x)))
    counted = np.repeat(weights, list(map(len, x)))
    assert rows.score(x, y, weights) == pytest.approx(r2_score(flat(y), flat(rows.predict(x)), sample_weight=counted))


def test_class_weights_are_weights_of_rows(rng):
    x, y = rng.standard_normal((30, 4, 2)), np.array(["a", "b", "b"])[np.arange(30) % 3]
    given = {"balanced": "balanced", "dict": {"a": 1.5, "b": 0.75}, "none": None}
    fitted = {
        name: LSTMClassifier(**SMALL, class_weight=weights).fit(x, y).predict_proba(x)
        for name, weights in given.items()
    }
    by_rows = LSTMClassifier(**SMALL).fit(x, y, np.where(y == "a", 1.5, 0.75)).predict_proba(x)
    np.testing.assert_allclose(fitted["balanced"], by_rows, rtol=1e-5)
    np.testing.assert_allclose(fitted["dict"], by_rows, rtol=1e-5)
    assert np.abs(fitted["none"] - by_rows).max() > 1e-3
    assert LSTMClassifier(**SMALL, class_weight={"a": 1, "b": 2, "c": 3}).fit(x, y).classes_.tolist() == ["a", "b"]


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_seed_makes_the_same_bits(x):
    y = first_is_positive(x)
    options = dict(SMALL, dropout=0.3, num_layers=2, model_options={"recurrent_dropout": 0.2})
    one, two = (LSTMClassifier(**options).fit(x, y).predict_proba(x) for _ in range(2))
    other = LSTMClassifier(**options | {"random_state": 1}).fit(x, y).predict_proba(x)
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_a_warm_start_goes_on(x):
    y = first_is_positive(x)
    whole = LSTMClassifier(**SMALL | {"epochs": 5}).fit(x, y)
    parts = LSTMClassifier(**SMALL | {"epochs": 2}, warm_start=True).fit(x, y)
    parts.set_params(epochs=3).fit(x, y)
    assert np.array_equal(parts.predict_proba(x), whole.predict_proba(x))
    parts.set_params(learning_rate=1e-9)
    np.testing.assert_allclose(parts.fit(x, y).predict_proba(x), whole.predict_proba(x), atol=1e-5)
    assert parts.optimizer_.lr.rate == 1e-9


def test_partial_fits_are_epochs(x):
    y = first_is_positive(x)
    whole = LSTMClassifier(**SMALL).fit(x, y)
    parts = LSTMClassifier(**SMALL)
    for _ in range(3):
        parts.partial_fit(x, y, classes=["low", "high"])
    assert np.array_equal(parts.predict_proba(x), whole.predict_proba(x))
    regressor = LSTMRegressor(**SMALL).partial_fit(x[:20], y[:20] == "low").partial_fit(x[20:], y[20:] == "low")
    assert regressor.target_scaler_.center == np.mean(y[:20] == "low")  # of the first


@pytest.mark.parametrize("optimizer", [cylstm.Adam, functools.partial(cylstm.SGD, momentum=0.9), cylstm.SGD])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])
def test_a_copy_goes_on_as_the_original_does(x, optimizer, again):
    y = first_is_positive(x)
    options = SMALL | {"model_options": {"recurrent_dropout": 0.2}, "learning_rate": cylstm.Cosine(0.05, 9)}
    original = LSTMClassifier(**options, optimizer=optimizer).fit(x, y)
    copied = again(original)
    assert np.array_equal(copied.predict_proba(x), original.predict_proba(x))
    for estimator in (original, copied):
        estimator.partial_fit(x, y)
    assert np.array_equal(copied.predict_proba(x), original.predict_proba(x))
    assert not hasattr(clone(original), "model_")


def test_early_stopping_goes_back_to_the_best_weights(rng):
    x, y = rng.standard_normal((60, 4, 2)), np.arange(60) % 2  # nothing to be learnt
    options = dict(
        hidden_size=16, epochs=200, early_stopping=True, n_iter_no_change=4, learning_rate=0.03, random_state=0
    )
    classifier = LSTMClassifier(**options, validation_fraction=0.25).fit(x, y)
    losses = classifier.history_.validation_loss
    assert classifier.n_iter_ == len(losses) < 200 and np.argmin(losses) == len(losses) - 5
    shorter = LSTMClassifier(**options | {"epochs": len(losses) - 4}, validation_fraction=0.25).fit(x, y)
    assert np.array_equal(shorter.predict_proba(x), classifier.predict_proba(x))


def test_what_is_held_out_has_its_share_of_each_class_and_weights(x, monkeypatch):
    seen = {}

    def fit(model, x, y, **options):
        seen.update(options, x=x, y=y)
        return original(model, x, y, **options)

    original = cylstm.Model.fit
    monkeypatch.setattr(cylstm.Model, "fit", fit)
    y, weights = np.arange(40) % 4 == 0, np.arange(40) + 1.0
    for random_state in range(4):
        options = dict(hidden_size=2, epochs=1, random_state=random_state, early_stopping=True, validation_fraction=0.2)
        LSTMClassifier(**options).fit(x, y, weights)
        held_out = seen["validation"]
        assert len(seen["x"]) == 32 and np.bincount(held_out["y"]).tolist() == [6, 2]
    together = np.concatenate([seen["sample_weight"], held_out["sample_weight"]])
    assert sorted(together) == weights.tolist()
    assert [len(row) for row in held_out["x"]] == [len(x[int(w) - 1]) for w in held_out["sample_weight"]]


def test_other_arguments_of_a_model(x):
    y = first_is_positive(x)
    options = SMALL | {"num_layers": 2}
    classifier = LSTMClassifier(**options, model_options={"layer_norm": "ba", "residual": True}).fit(x, y)
    assert classifier.model_.layer_norm == "ba" and classifier.model_.residual


# --- what cannot be ---------------------------------------------------------------------------------------------------


def ones(*shape):
    return np.ones(shape)


@pytest.mark.parametrize("options, X, y, said", [
    ({}, [ones(3, 2), ones(4, 3)], [0, 1], r"X\[1\]: expected \(T, 2\), got float64 \(4, 3\)"),
    ({}, [ones(3, 2), ones(3, 2) * np.nan], [0, 1], r"X\[1\]\[0, 0\]: expected a finite number, got nan"),
    ({}, [ones(3, 2), ones(3, 2) * 1e300], [0, 1], r"X\[1\]\[0, 0\]: expected a number that float32 holds"),
    ({}, ones(2, 3, 2) * np.nan, [0, 1], "Input X contains NaN"),
    ({}, ones(2, 0, 2), [0, 1], r"X: expected at least one step and feature, got \(2, 0, 2\)"),
    ({}, ones(2, 3, 2), [0, 1, 1], "y: expected 2 labels, as many as X has sequences, got 3"),
    ({}, ones(2, 3, 2), [0.5, 1.2], "Unknown label type"),
    ({"output": "sequence"}, ones(2, 3, 2), [[0, 1], [1, 1]], r"y\[0\]: expected 3 steps, as X\[0\] has"),
    ({"output": "first"}, ones(2, 3, 2), [0, 1], "output: expected one of 'last', 'sequence'"),
    ({"loss": "mse"}, ones(2, 3, 2), [0, 1], "loss: expected one of 'cross_entropy', got 'mse'"),
    ({"class_weight": {"a": 1}}, ones(2, 3, 2), [0, 1], r"class_weight: expected labels of y, list \[0, 1\], got"),
    ({"model_options": {"labels": [0, 1]}}, ones(2, 3, 2), [0, 1], "model_options: expected none .* got 'labels'"),
    ({"validation_fraction": 2, "early_stopping": True}, ones(9, 3, 2), [0, 1, 0] * 3, "validation_fraction: expected"),
    ({"epochs": 0}, ones(2, 3, 2), [0, 1], "epochs: expected an integer >= 1, got 0"),
    ({"dtype": "int8"}, ones(2, 3, 2), [0, 1], "dtype: expected"),
])  # fmt: skip
def test_what_cannot_be_is_said(options, X, y, said):
    with pytest.raises(ValueError, match=said):
        LSTMClassifier(**SMALL | options).fit(X, y)


def test_what_is_none_of_them_is_said(x):
    y = first_is_positive(x)
    with pytest.raises(TypeError, match="optimizer: expected a class, or a function of the learning rate"):
        LSTMClassifier(**SMALL, optimizer=cylstm.Adam(0.1)).fit(x, y)
    with pytest.raises(TypeError, match="early_stopping: expected True or False, got str 'yes'"):
        LSTMClassifier(**SMALL, early_stopping="yes").fit(x, y)
    with pytest.raises(TypeError, match=r"X\[1\]: expected numbers, got <U1"):
        LSTMClassifier(**SMALL).fit([ones(1, 1), np.array([["a"]])], [0, 1])
    with pytest.raises(ValueError, match="y: expected 40 rows, as many as X has sequences, got 3"):
        LSTMRegressor(**SMALL).fit(x, [1, 2, 3])
    with pytest.raises(ValueError, match=r"y\[1\]\[2\]: expected a finite number, got inf"):
        steps = running_sum(x)
        steps[1][2] = np.inf
        LSTMRegressor(**SMALL, output="sequence").fit(x, steps)
    with pytest.raises(NotFittedError):
        LSTMRegressor().predict(x)


def test_what_was_fitted_otherwise_is_said(x, rng):
    y = first_is_positive(x)
    classifier = LSTMClassifier(**SMALL, warm_start=True).fit(x, y)
    with pytest.raises(ValueError, match="X: expected 3 features, as fit had, got 2"):
        classifier.predict([row[:, :2] for row in x])
    with pytest.raises(ValueError, match=r"X: expected \(N, T, 3\), as fit had, got float64 \(5, 3\)"):
        classifier.predict(rng.standard_normal((5, 3)))
    with pytest.raises(
        ValueError, match=r"y\[0\]: expected one of the classes before, list \['high', 'low'\], got other"
    ):
        classifier.fit(x, np.where(y == y[0], "other", y))
    with pytest.raises(ValueError, match=r"y\[0\]: expected one of the classes before, list \['high', 'low'\], got 1"):
        classifier.fit(x, np.ones(40, int))
    with pytest.raises(ValueError, match=r"y\[0\]: expected one of the classes before, list \['0', '1', .*, got 1"):
        LSTMClassifier(**SMALL).partial_fit(x, np.ones(40, int), classes=[str(n) for n in range(40)])
    with pytest.raises(ValueError, match="hidden_size: expected int 8, which the model was made with, got int 9"):
        classifier.set_params(hidden_size=9).fit(x, y)
    with pytest.raises(
        ValueError, match=r"classes: expected those before, list \['high', 'low'\], got list \['a', 'b'\]"
    ):
        classifier.set_params(hidden_size=8).partial_fit(x, y, classes=["a", "b"])
    with pytest.raises(ValueError, match="classes: expected all labels in the first call to partial_fit"):
        LSTMClassifier().partial_fit(x, y)
    with pytest.raises(ValueError, match="class_weight: expected a dict or None with partial_fit"):
        LSTMClassifier(class_weight="balanced").partial_fit(x, y, classes=["high", "low"])
    regressor = LSTMRegressor(**SMALL).partial_fit(x, y == "low")
    with pytest.raises(ValueError, match="y: expected 1 outputs, without an axis, as before, got 2 outputs"):
        regressor.partial_fit(x, rng.standard_normal((40, 2)))
