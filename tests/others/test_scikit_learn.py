"""Metrics beside scikit-learn's of the same names: needs it, and is skipped without."""

import numpy as np
import pytest

from cylstm import Model, losses

sk = pytest.importorskip("sklearn.metrics")

B, T, I = 7, 11, 3
LENGTHS = np.array([11, 4, 0, 7, 1, 9, 10])
REAL = np.arange(T) < LENGTHS[:, None]


@pytest.fixture
def data(rng):
    weights = rng.random((B, T))
    weights[0, :2] = 0
    return rng.standard_normal((B, T, I)), weights


def made(loss, O):
    return Model(I, 6, O, loss=loss, dtype="float64", seed=4)


def of_tokens(model, x, y, weights):
    counts = REAL & (weights > 0)
    return y[counts], model(x, lengths=LENGTHS)[0][counts], weights[counts]


def evaluated(model, x, y, weights, names, **options):
    options = dict(lengths=LENGTHS, sample_weight=weights, batch_size=3) | options
    found = model.evaluate(x, y, metrics=names, **options)
    return [found[name] for name in names]


@pytest.mark.parametrize("loss, O", [("mse", 1), ("mse", 3), ("gaussian", 6), (losses.Quantiles([0.1, 0.5]), 4)])
def test_numbers(rng, data, loss, O):
    model, (x, weights) = made(loss, O), data
    y = rng.normal(3, 2, (B, T, *model.loss.width(O)))
    found = evaluated(model, x, y, weights, ["mae", "rmse", "r2", "mape"])
    t, outputs, w = of_tokens(model, x, y, weights)
    y = model.loss.numbers(outputs)
    functions = (sk.mean_absolute_error, sk.mean_squared_error, sk.r2_score, sk.mean_absolute_percentage_error)
    expected = [function(t, y, sample_weight=w) for function in functions]
    expected[1] **= 0.5
    assert found == pytest.approx(expected, rel=1e-11)


def test_numbers_of_zero_and_of_one_value(data):
    model, (x, weights) = made("mse", 1), data
    for value in (0.0, 0.1):
        y = np.full((B, T, 1), value)
        found = evaluated(model, x, y, weights, ["r2", "mape"])
        t, outputs, w = of_tokens(model, x, y, weights)
        expected = [sk.r2_score(t, outputs, sample_weight=w)]
        assert value or expected == [0.0]  # scikit-learn's own mean of 0.1 is off by a rounding
        assert found[0] == 0 and found[1] == pytest.approx(
            sk.mean_absolute_percentage_error(t, outputs, sample_weight=w), rel=1e-11)  # fmt: skip


@pytest.mark.parametrize("O", [2, 5])
def test_classes(rng, data, O):
    model, (x, weights) = made("cross_entropy", O), data
    y = rng.integers(0, O, (B, T))
    names = ["precision", "recall", "f1", "auc", *["top_2"] * (O > 2)]
    found = evaluated(model, x, y, weights, names)
    t, outputs, w = of_tokens(model, x, y, weights)
    options = dict(average="macro", sample_weight=w, zero_division=0)
    p = model.loss.probabilities(outputs)
    expected = [f(t, outputs.argmax(axis=-1), **options) for f in (sk.precision_score, sk.recall_score, sk.f1_score)]
    if O == 2:
        expected += [sk.roc_auc_score(t, p[:, 1], sample_weight=w)]
    else:
        expected += [sk.roc_auc_score(t, p, multi_class="ovr", sample_weight=w),
                     sk.top_k_accuracy_score(t, outputs, k=2, sample_weight=w)]  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("O", [1, 3])
def test_binary_classes(rng, data, O):
    model, (x, weights) = made("binary_cross_entropy", O), data
    y = rng.integers(0, 2, (B, T, O)).astype(float)
    found = evaluated(model, x, y, weights, ["precision", "recall", "f1", "auc"])
    t, outputs, w = of_tokens(model, x, y, weights)
    average = "binary" if O == 1 else "macro"
    both = (t[:, 0], outputs[:, 0] > 0) if O == 1 else (t, outputs > 0)
    expected = [f(*both, average=average, sample_weight=w) for f in (sk.precision_score, sk.recall_score, sk.f1_score)]
    assert found == pytest.approx([*expected, sk.roc_auc_score(t, outputs, sample_weight=w)], rel=1e-11)


def test_missing_targets_are_left_out_of_each_outputs_area(rng, data):
    model, (x, weights) = made("binary_cross_entropy", 2), data
    y = rng.integers(0, 2, (B, T, 2)).astype(float)
    y[rng.random(y.shape) < 0.3] = np.nan
    (found,) = evaluated(model, x, y, weights, ["auc"], missing="skip")
    t, outputs, w = of_tokens(model, x, y, weights)
    there = ~np.isnan(t)
    expected = [sk.roc_auc_score(t[keep, n], outputs[keep, n], sample_weight=w[keep]) for n, keep in enumerate(there.T)]
    assert found == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_class_without_a_curve_is_no_part_of_the_area(rng, data):
    model, (x, weights) = made("cross_entropy", 4), data
    y = rng.integers(0, 3, (B, T))  # none is of class 3
    (found,) = evaluated(model, x, y, weights, ["auc"])
    t, outputs, w = of_tokens(model, x, y, weights)
    p = model.loss.probabilities(outputs)
    assert found == pytest.approx(np.mean([sk.roc_auc_score(t == k, p[:, k], sample_weight=w) for k in range(3)]))
    assert np.isnan(evaluated(model, x, np.full((B, T), 2), weights, ["auc"]))


def test_its_functions_are_metrics(rng, data):
    model, (x, weights) = made("mse", 2), data
    y = rng.normal(3, 2, (B, T, 2))
    found = model.evaluate(x, y, lengths=LENGTHS, sample_weight=weights, metrics=[
        sk.mean_absolute_error, sk.r2_score, "mae", "r2"])  # fmt: skip
    assert found["mean_absolute_error"] == pytest.approx(found["mae"], rel=1e-11)
    assert found["r2_score"] == pytest.approx(found["r2"], rel=1e-11)
