"""Metrics of `evaluate`: by hand, in loops over tokens; what counts in the loss counts in them."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from cylstm import Model, loss_and_gradients, losses, metrics

B, T, I = 6, 9, 3
LENGTHS = np.array([9, 4, 0, 7, 1, 9])
REAL = np.arange(T) < LENGTHS[:, None]
QUANTILES = losses.Quantiles([0.2, 0.5, 0.9])
OF_NUMBERS = {"mse": 2, "mae": 2, "huber": 2, "gaussian": 4, "quantiles": 6}


def made(loss, O, **options):
    return Model(
        I, 5, O, **{"loss": QUANTILES if loss == "quantiles" else loss, "dtype": "float64", "seed": 2, **options}
    )


def tokens(model, x, y, weights=None, **options):
    """Targets, outputs and weights of what is real, token by token."""
    outputs, _ = model(x, lengths=LENGTHS, **options)
    weights = np.ones((B, T)) if weights is None else weights
    return [(y[b, t], outputs[b, t], weights[b, t]) for b in range(B) for t in range(LENGTHS[b])]


def numbers_of(loss, outputs):
    """What is foretold of each of two numbers."""
    return {"gaussian": outputs[[0, 2]] if loss == "gaussian" else None,
            "quantiles": outputs[[1, 4]] if loss == "quantiles" else None}.get(loss, outputs)  # fmt: skip


def by_hand(triples):
    """mae, rmse, mape and r2 of (target, number, weight), those of each output in a list."""
    all_of_them = [triple for output in triples for triple in output]
    total = sum(w for _, _, w in all_of_them)
    mean = lambda of_each: sum(w * of_each(t, y) for t, y, w in all_of_them) / total  # noqa: E731
    ratios = []
    for output in triples:
        middle = sum(w * t for t, _, w in output) / sum(w for _, _, w in output)
        ratios.append(sum(w * (y - t) ** 2 for t, y, w in output) / sum(w * (t - middle) ** 2 for t, _, w in output))
    return {"mae": mean(lambda t, y: abs(y - t)), "rmse": math.sqrt(mean(lambda t, y: (y - t) ** 2)),
            "mape": mean(lambda t, y: abs(y - t) / abs(t)), "r2": 1 - sum(ratios) / len(ratios)}  # fmt: skip


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("loss", OF_NUMBERS)
def test_numbers(rng, loss, missing):
    model, x, weights = made(loss, OF_NUMBERS[loss]), rng.standard_normal((B, T, I)), rng.random((B, T))
    weights[0, :3] = 0
    y = rng.normal([40, -3], size=(B, T, 2))
    if missing:
        y[rng.random(y.shape) < 0.3] = np.nan
    y[~REAL] = 1e9
    found = model.evaluate(x, y, lengths=LENGTHS, sample_weight=weights, missing="skip" if missing else "error",
                           metrics=["mae", "rmse", "mape", "r2"], batch_size=2)  # fmt: skip
    triples = [[(t[n], numbers_of(loss, out)[n], w) for t, out, w in tokens(model, x, y, weights)
                if not np.isnan(t[n])] for n in range(2)]  # fmt: skip
    expected = by_hand(triples)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-11)
    if loss == "mae":
        assert found["mae"] == pytest.approx(found["loss"], rel=1e-12)


def test_coverage_is_the_share_between_the_outer_quantiles(rng):
    model, x, weights = made("quantiles", 6), rng.standard_normal((B, T, I)), rng.random((B, T))
    y = 0.3 * rng.standard_normal((B, T, 2))
    y[1, 2, 0] = np.nan
    found = model.evaluate(x, y, lengths=LENGTHS, sample_weight=weights, missing="skip", metrics=["coverage"])
    inside = whole = 0.0
    for t, out, w in tokens(model, x, y, weights):
        for n in range(2):
            if not np.isnan(t[n]):
                whole += w
                inside += w * (out[3 * n] <= t[n] <= out[3 * n + 2])
    assert 0 < inside < whole and found["coverage"] == pytest.approx(inside / whole, rel=1e-12)


def of_class(triples, k):
    """Weights of tokens that are k, that were taken for k, and that were so rightly."""
    return (sum(w for t, _, w in triples if t == k), sum(w for _, out, w in triples if out.argmax() == k),
            sum(w for t, out, w in triples if t == k == out.argmax()))  # fmt: skip


@pytest.mark.parametrize("given", ["plain", "sample_weight", "class_weight", "ignore"])
def test_classes(rng, given):
    model, x, y = made("cross_entropy", 6), rng.standard_normal((B, T, I)), rng.integers(0, 4, (B, T))
    model.parameters["head.bias"][5] = -20
    y[~REAL] = -5
    weights, options = np.ones((B, T)), {}
    if given == "sample_weight":
        options["sample_weight"] = weights = rng.random((B, T))
    elif given == "class_weight":
        options["class_weight"] = {0: 3, 2: 0.5}
        weights = np.array([3, 1, 0.5, 1])[np.where(REAL, y, 0)]
    elif given == "ignore":
        y[rng.random((B, T)) < 0.3] = -100
        options["ignore"] = -100
    names = ["precision", "recall", "f1", "top_1", "top_3"]
    found = model.evaluate(x, y, lengths=LENGTHS, **options, metrics=names, batch_size=4)
    triples = [(t, out, w) for t, out, w in tokens(model, x, y, weights) if t != -100]
    sums = [of_class(triples, k) for k in range(6)]
    sums = [(true, taken, right) for true, taken, right in sums if true + taken > 0]
    assert len(sums) == 5  # a class that occurs nowhere is no part of the mean
    whole = sum(w for _, _, w in triples)
    expected = {
        "precision": np.mean([right / taken if taken else 0 for _, taken, right in sums]),
        "recall": np.mean([right / true if true else 0 for true, _, right in sums]),
        "f1": np.mean([2 * right / (true + taken) for true, taken, right in sums]),
        "top_1": found["accuracy"],
        "top_3": sum(w for t, out, w in triples if t in np.argsort(out)[-3:]) / whole,
    }
    assert {name: found[name] for name in names} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("O", [1, 3])
def test_binary_classes_are_those_of_each_output(rng, O):
    model, x = made("binary_cross_entropy", O), rng.standard_normal((B, T, I))
    y, weights = rng.integers(0, 2, (B, T, O)).astype(float), rng.random((B, T))
    y[rng.random(y.shape) < 0.2] = np.nan
    names = ["precision", "recall", "f1"]
    found = model.evaluate(x, y, lengths=LENGTHS, sample_weight=weights, missing="skip", metrics=names, batch_size=2)
    each = []
    for n in range(O):
        there = [(t[n] == 1, out[n] > 0, w) for t, out, w in tokens(model, x, y, weights) if not np.isnan(t[n])]
        right = sum(w for t, taken, w in there if t and taken)
        precision, recall = right / sum(w for _, taken, w in there if taken), right / sum(w for t, _, w in there if t)
        each.append((precision, recall, 2 * precision * recall / (precision + recall)))
    assert [found[name] for name in names] == pytest.approx(np.mean(each, axis=0), rel=1e-12)


def test_of_equal_outputs_the_first_is_the_highest():
    sums = metrics.as_metrics(["top_1", "top_2"], losses.CrossEntropy(), 4)
    outputs = np.array([[1.0, 3, 3, 0], [2, 2, 2, 2]])
    for targets, expected in [([1, 0], (1, 1)), ([2, 1], (0, 1)), ([0, 3], (0, 0)), ([2, 0], (0.5, 1))]:
        both = [metric.begin() for metric in sums]
        for one in both:
            one.add(np.array(targets), outputs, np.ones(2))
        assert tuple(one.value() for one in both) == expected


@pytest.mark.parametrize("form", ["lengths", "mask", "list"])
def test_a_function_gets_what_counts_and_nothing_else(rng, form):
    model, x, weights = made("mse", 2), rng.standard_normal((B, T, I)), rng.random((B, T))
    y = rng.standard_normal((B, T, 2))
    y[0, 2], y[3, 1, 0], weights[1, :2] = np.nan, np.nan, 0
    mask = REAL if form == "lengths" else rng.random((B, T)) < 0.6
    options = {"lengths": LENGTHS} if form == "lengths" else {"mask": mask}
    data = x, y
    if form == "list":
        options, data = {}, tuple([row[keep] for row, keep in zip(a, mask, strict=True)] for a in (x, y))
        options["sample_weight"] = [row[keep] for row, keep in zip(weights, mask, strict=True)]
    else:
        options["sample_weight"] = weights
    seen = {}

    def own(targets, outputs, w):
        seen.update(targets=targets, outputs=outputs, weights=w)
        return 3.5

    found = model.evaluate(*data, **options, missing="skip", metrics=[own], batch_size=2)
    assert found["own"] == 3.5 and found["tokens"] == len(seen["targets"])
    outputs = model(x, mask=mask)[0]
    counts = mask & (weights > 0) & ~np.isnan(y).all(axis=-1)
    order = np.argsort(seen["weights"])  # the rows come sorted by their lengths
    expected = np.argsort(weights[counts])
    np.testing.assert_allclose(seen["weights"][order], weights[counts][expected], rtol=1e-14)
    np.testing.assert_array_equal(seen["targets"][order], y[counts][expected])
    np.testing.assert_allclose(seen["outputs"][order], outputs[counts][expected], rtol=1e-12, atol=1e-14)
    assert np.isnan(seen["targets"]).sum() == counts[3, 1]  # of a token with another number


def test_ignored_classes_are_none_of_a_functions(rng):
    model, x, y = made("cross_entropy", 4), rng.standard_normal((B, T, I)), rng.integers(0, 4, (B, T))
    seen = []

    def share(targets, outputs):
        seen.extend(targets)
        return np.mean(targets == outputs.argmax(axis=-1))

    found = model.evaluate(x, y, ignore=2, metrics=[share], batch_size=4)
    assert found["share"] == pytest.approx(found["accuracy"], rel=1e-12)
    assert sorted(seen) == sorted(y[y != 2])


def keyword(targets, outputs, *, scale=2.0, sample_weight=None):
    return scale * float(np.sum(sample_weight))


def plain(targets, outputs, scale=2.0):
    return scale * len(targets)


def test_weights_go_where_a_function_takes_them(rng):
    model, x, y, weights = made("mse", 1), rng.standard_normal((B, T, I)), np.ones((B, T, 1)), rng.random((B, T))
    found = model.evaluate(x, y, lengths=LENGTHS, sample_weight=weights, metrics=[
        keyword, plain, ("third", lambda targets, outputs, anything: anything.sum())])  # fmt: skip
    assert found["keyword"] == pytest.approx(2 * weights[REAL].sum(), rel=1e-12)
    assert found["plain"] == 2 * REAL.sum()  # a third argument that has its own value keeps it
    assert found["third"] == pytest.approx(weights[REAL].sum(), rel=1e-12)


@pytest.mark.parametrize("options", [dict(output="last"), dict(output="last", bidirectional=True)])
def test_rows_are_what_counts_in_a_model_of_the_last_step(rng, options):
    model, x, y = made("mse", 2, **options), rng.standard_normal((B, T, I)), rng.standard_normal((B, 2))
    found = model.evaluate(x, y, lengths=LENGTHS, metrics=["mae", "r2"], batch_size=2)
    outputs, _ = model(x, lengths=LENGTHS)
    assert found["mae"] == pytest.approx(np.abs(outputs - y).mean(), rel=1e-12)
    ratios = ((outputs - y) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert found["r2"] == pytest.approx(1 - ratios.mean(), rel=1e-12)


def test_pieces_of_steps_and_of_outputs_change_nothing(rng, monkeypatch):
    """A long stream is evaluated in pieces; so are many outputs of one piece."""
    model, x, y = made("cross_entropy", 6), rng.standard_normal((2, 300, I)), rng.integers(0, 6, (2, 300))
    names = ["f1", "top_2", ("mean", lambda targets, outputs: float(outputs.mean()))]
    whole, rows = model.evaluate(x, y, metrics=names), []
    monkeypatch.setattr("cylstm.batches.AT_ONCE", 64)
    monkeypatch.setattr(metrics, "AT_ONCE", 60)
    made_of = loss_and_gradients.head_outputs
    monkeypatch.setattr(loss_and_gradients, "head_outputs", lambda *a: rows.append(len(a[-1])) or made_of(*a))
    assert model.evaluate(x, y, metrics=names) == pytest.approx(whole, rel=1e-11)
    assert sum(rows) == 600 and max(rows) == 10


def test_without_metrics_no_output_is_made(rng, monkeypatch):
    monkeypatch.setattr(loss_and_gradients, "head_outputs", None)
    made("mse", 1).evaluate(rng.standard_normal((B, T, I)), rng.standard_normal((B, T, 1)))


def r2_of(targets, outputs, size=3):
    (metric,) = metrics.as_metrics(["r2"], losses.SquaredError(), 1)
    sums, targets, outputs = metric.begin(), np.array(targets)[:, None], np.array(outputs)[:, None]
    for n in range(0, len(targets), size):
        sums.add(targets[n : n + size], outputs[n : n + size], np.full(len(targets[n : n + size]), 0.1))
    return sums.value()


def test_r2_where_targets_are_all_the_same_or_far_from_zero(rng):
    assert r2_of([0.1] * 7, [0.1] * 7) == 1 and r2_of([0.1] * 7, [0.1] * 6 + [0.2]) == 0
    assert math.isnan(r2_of([0.1], [0.2])) and math.isnan(r2_of([np.nan, 1.0], [0.2, 0.3]))
    targets = rng.standard_normal(500)
    outputs = targets + 0.1 * rng.standard_normal(500)
    expected = 1 - ((outputs - targets) ** 2).sum() / ((targets - targets.mean()) ** 2).sum()
    assert r2_of(targets, outputs) == pytest.approx(expected, rel=1e-12)
    assert r2_of(targets + 1e6, outputs + 1e6) == pytest.approx(expected, rel=1e-7)


def test_float32_is_summed_in_float64(rng):
    """As many numbers as float32 could no longer count one by one."""
    (metric,) = metrics.as_metrics(["mae"], losses.SquaredError(), 1)
    sums, targets = metric.begin(), np.zeros((1 << 20, 1), "f4")
    for _ in range(40):
        sums.add(targets, targets + np.float32(0.1), np.ones(len(targets)))
    assert sums.value() == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    rmse, r2 = (metric.begin() for metric in metrics.as_metrics(["rmse", "r2"], losses.SquaredError(), 1))
    for one in (rmse, r2):  # squares that float32 does not hold
        one.add(np.array([[1e25], [3e25]], "f4"), np.array([[2e25], [2e25]], "f4"), np.ones(2))
    assert rmse.value() == pytest.approx(1e25, rel=1e-6) and r2.value() == pytest.approx(0, abs=1e-6)


def refused(error, message, loss="cross_entropy", O=4, **options):
    return pytest.param(loss, O, options, error, message, id=message[:60])


def one(targets):
    return 0


@pytest.mark.parametrize(("loss", "O", "options", "error", "message"), [
    refused(TypeError, "metrics: expected functions or names of 'precision', 'recall', 'f1', 'top_k', 'auc' with "
                       "loss='cross_entropy', got 'mae'", metrics=["mae"]),
    refused(TypeError, "metrics: expected functions or names of 'mae', 'rmse', 'r2', 'mape' with loss='mse', "
                       "got 'precision'", "mse", metrics=["precision"]),
    refused(TypeError, "names of 'precision', 'recall', 'f1', 'auc' with loss='binary_cross_entropy', got 'top_2'",
            "binary_cross_entropy", metrics=["top_2"]),
    refused(TypeError, "with loss='mse', got 'coverage'", "mse", metrics=["coverage"]),
    refused(TypeError, "functions or names of 'label_error' with loss='ctc', got 'auc'", "ctc", metrics=["auc"]),
    refused(TypeError, r"quantiles: expected 0.5 among them, the median, got \(0.1, 0.9\)",
            losses.Quantiles([0.1, 0.9]), metrics=["mae"]),
    refused(TypeError, r"quantiles: expected at least two, got \(0.5,\)", losses.Quantiles([0.5]),
            metrics=["coverage"]),
    refused(ValueError, "metrics: expected functions or names of 'mae', 'rmse', 'r2', 'mape', 'coverage', 'precision', "
                        r"'recall', 'f1', 'top_k', 'auc', 'label_error' \(any k, as 'top_3'\), got 'f2'",
            metrics=["f1", "f2"]),
    refused(ValueError, "got 'top_k'", metrics=["top_k"]),
    refused(ValueError, "metrics: expected 'top_1' to 'top_4' with 4 classes, got 'top_5'", metrics=["top_5"]),
    refused(ValueError, "got 'top_0'", metrics=["top_0"]),
    refused(ValueError, "functions or names of .*, got 'top_١'", metrics=["top_١"]),
    refused(ValueError, "metrics: expected no 'accuracy', which is there without", metrics=["accuracy"]),
    refused(ValueError, "expected another name than 'f1', which is given twice", metrics=["f1", ("f1", plain)]),
    refused(ValueError, "expected another name than 'seconds', which is taken", metrics=[("seconds", plain)]),
    refused(TypeError, "metrics: expected a list of names or functions, got str 'f1'", metrics="f1"),
    refused(TypeError, "metrics: expected names, functions or pairs .*, got int 3", metrics=[3]),
    refused(TypeError, r"expected one\(targets, outputs\) or one\(targets, outputs, weights\), got one\(targets\)",
            metrics=[one]),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_computed(monkeypatch, rng, loss, O, options, error, message):
    model, x, y = made(loss, O), rng.standard_normal((2, T, I)), None
    width = model.loss.width(O)
    y = [[1, 2], [3]] if loss == "ctc" else np.ones((2, T, *width), int if model.loss.of_classes else float)
    monkeypatch.setattr("cylstm.loss_and_gradients.batch_of", None)
    with pytest.raises(error, match=message):
        model.evaluate(x, y, **options)
    with pytest.raises(error, match=message):
        model.fit(x, y, **options)


def test_what_is_no_number_is_said_so(rng):
    model, x, y = made("mse", 2), rng.standard_normal((2, T, I)), rng.standard_normal((2, T, 2))
    with pytest.raises(TypeError, match=r"metrics: expected a number of each, got float64 \(2,\)"):
        model.evaluate(x, y, metrics=[("each", lambda targets, outputs: np.abs(targets - outputs).mean(axis=0))])


@pytest.mark.parametrize("found", ["3", b"3", np.ma.masked, None, [0.5], np.array([0.5]), 1j, 10**400,
                                   np.timedelta64(3, "ns")])  # fmt: skip
def test_only_real_numbers_are_a_metric(rng, found):
    model, x, y = made("mse", 2), rng.standard_normal((2, T, I)), rng.standard_normal((2, T, 2))
    with pytest.raises(TypeError, match=r"^metrics: expected a number of own, got .*$"):
        model.evaluate(x, y, metrics=[("own", lambda targets, outputs: found)])


@pytest.mark.parametrize("found", [3, 0.5, True, np.float32(0.5), np.int8(-3), np.array(0.5), np.ma.array(0.5),
                                   Fraction(1, 4), 10**300])  # fmt: skip
def test_numbers_of_all_kinds_are_one(rng, found):
    model, x, y = made("mse", 2), rng.standard_normal((2, T, I)), rng.standard_normal((2, T, 2))
    assert model.evaluate(x, y, metrics=[("own", lambda targets, outputs: found)])["own"] == float(found)


def test_a_number_that_another_library_does_not_give_is_said_so(rng):
    class WithGradient:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

        def __repr__(self):
            return "tensor(0.5,\n       grad_fn=<MeanBackward0>)"

    model, x, y = made("mse", 2), rng.standard_normal((2, T, I)), rng.standard_normal((2, T, 2))
    expected = r"^metrics: expected a number of own, got WithGradient tensor\(0.5, grad_fn=<MeanBackward0>\)$"
    with pytest.raises(TypeError, match=expected):
        model.evaluate(x, y, metrics=[("own", lambda targets, outputs: WithGradient())])


def test_a_generator_may_write_to_its_arrays_again(rng):
    model, x = made("mse", 2), rng.standard_normal((3, 2, T, I))
    y, weights = rng.standard_normal((3, 2, T, 2)), rng.random((3, 2, T)) + 0.1

    def rewritten():
        buffers = [np.empty_like(part[0]) for part in (x, y, weights)]
        for parts in zip(x, y, weights, strict=True):
            for buffer, part in zip(buffers, parts, strict=True):
                buffer[...] = part
            yield dict(zip(("x", "y", "sample_weight"), buffers, strict=True))

    def own(targets, outputs, weights):
        return float((weights[:, None] * np.abs(targets - outputs)).sum() / weights.sum() / 2)

    found = model.evaluate(rewritten, metrics=[own, "mae"])
    assert found["own"] == pytest.approx(found["mae"], rel=1e-12)


def test_auc_needs_scikit_learn_and_says_so(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    monkeypatch.setattr("cylstm.loss_and_gradients.batch_of", None)
    with pytest.raises(ImportError, match=r"^metrics: expected scikit-learn for 'auc' \(pip install scikit-learn\)"):
        made("cross_entropy", 4).evaluate(rng.standard_normal((2, T, I)), np.ones((2, T), int), metrics=["auc"])
