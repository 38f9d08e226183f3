"""Models that learn by CTC: losses, gradients, weights and labels through `Model`."""

import numpy as np
import pytest

from cylstm import Adam, Model, oracle
from cylstm.ctc import ctc_greedy
from cylstm.losses import CTC

I, H, O, B, T = 3, 7, 5, 4, 9
LABELS = [[1, 2, 2], [3], [], [1, 3, 1, 2]]
LENGTHS = np.array([9, 4, 2, 7])


def made(loss="ctc", **options):
    return Model(I, H, O, loss=loss, dtype="float64", seed=1, bidirectional=True, **options)


def by_the_oracle(model, x, labels, lengths, weights, blank=0):
    """The weighted mean over rows, and its gradients."""
    parameters = {name: values.copy() for name, values in model.parameters.items()}
    inside = {name.removeprefix("lstm."): values for name, values in parameters.items() if name.startswith("lstm.")}
    total, gradients = 0.0, {name: np.zeros_like(values) for name, values in parameters.items()}
    for row, target, end, weight in zip(x, labels, lengths, weights / weights.sum(), strict=True):
        h, _, tape = oracle.forward(row[None, :end], inside, None, bidirectional=True)
        logits = h[0] @ parameters["head.weight"].T + parameters["head.bias"]
        loss, slopes = oracle.ctc_loss(logits, np.array(target, int), blank)
        total += weight * loss
        slopes = weight * slopes
        gradients["head.weight"] += slopes.T @ h[0]
        gradients["head.bias"] += slopes.sum(axis=0)
        for name, values in oracle.backward(tape, (slopes @ parameters["head.weight"])[None])[2].items():
            gradients[f"lstm.{name}"] += values
    return total, gradients


@pytest.mark.parametrize("given_as", ["lengths", "list", "mask"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blank", [0, 4])
def test_losses_and_gradients_are_the_oracles(isa, rng, given_as, weighted, blank):
    model, labels = made(CTC(blank=blank)), [np.array(row, int) - (blank == 4) for row in LABELS]
    x, weights = rng.standard_normal((B, T, I)), rng.exponential(1, B) if weighted else np.ones(B)
    loss, gradients = by_the_oracle(model, x, labels, LENGTHS, weights, blank)
    options = dict(lengths=LENGTHS)
    real = np.arange(T) < LENGTHS[:, None]
    if given_as == "list":
        x, options = [row[keep] for row, keep in zip(x, real, strict=True)], {}
    if given_as == "mask":
        left = np.full_like(x, np.nan)
        left[real[:, ::-1]] = x[real]
        x, options = left, dict(mask=real[:, ::-1])
    if weighted:
        options["sample_weight"] = weights
    found = model.loss_and_gradients(x, labels, **options)
    assert found.loss == pytest.approx(loss, rel=1e-11) and found.tokens == B
    for name, values in found.gradients.items():
        np.testing.assert_allclose(values, gradients[name], rtol=1e-9, atol=1e-12 * np.abs(gradients[name]).max())
    assert model.evaluate(x, labels, batch_size=3, **options)["loss"] == pytest.approx(loss, rel=1e-11)


def test_it_learns_what_nobody_has_aligned(rng):
    """Each label shows for a step or two somewhere in the sequence."""
    x, labels = [], []
    for _ in range(200):
        row, target = 0.1 * rng.standard_normal((rng.integers(12, 20), I)), rng.integers(1, 4, rng.integers(1, 5))
        places = np.sort(rng.choice(len(row) // 2, len(target), replace=False)) * 2
        for place, label in zip(places, target, strict=True):
            row[place : place + rng.integers(1, 3), label - 1] += 2
        x.append(row)
        labels.append(target)
    model = Model(I, 24, 4, loss="ctc", bidirectional=True, seed=1)
    history = model.fit(x, labels, epochs=12, batch_size=20, optimizer=Adam(1e-2), progress=False,
                        validation=(x[:20], labels[:20]))  # fmt: skip
    assert history.validation_loss[-1] < 0.1 * history.validation_loss[0]
    found = model.predict(x)
    right = [np.array_equal(row, target) for row, target in zip(found, labels, strict=True)]
    assert np.mean(right) > 0.9
    outputs, _ = model(x[:3])
    for row, expected in zip(ctc_greedy(outputs), found, strict=False):
        np.testing.assert_array_equal(row.labels, expected)


def test_labels_of_arrays_masks_and_single_sequences(rng):
    model = made()
    model.parameters["head.weight"][:] *= 20
    x, mask = rng.standard_normal((B, T, I)), rng.random((B, T)) < 0.6
    mask[2] = False
    rows = model.predict([row[keep] for row, keep in zip(x, mask, strict=True)])
    for given, expected in ((model.predict(x, mask=mask), rows), (model.predict(x, lengths=LENGTHS), [
            model.predict(row[:end]) for row, end in zip(x, LENGTHS, strict=True)])):  # fmt: skip
        assert len(given) == B
        for got, labels in zip(given, expected, strict=True):
            np.testing.assert_array_equal(got, labels)
    assert len(rows[2]) == 0 and any(map(len, rows))


def test_it_is_kept_in_files_and_resumes(rng, tmp_path):
    x, labels = rng.standard_normal((B, T, I)), LABELS
    options = dict(batch_size=2, progress=False, seed=1)
    whole, other = made(CTC(blank=0)), made(CTC(blank=0))
    whole.fit(x, labels, epochs=3, **options)
    made(CTC(blank=0)).fit(x, labels, epochs=2, checkpoint=tmp_path / "c", **options)
    other.fit(x, labels, epochs=3, resume=tmp_path / "c", **options)
    np.testing.assert_array_equal(other.parameters.flat, whole.parameters.flat)
    whole.save(tmp_path / "m")
    assert Model.load(tmp_path / "m").loss == CTC()
    with pytest.raises(ValueError, match="resume: expected the same run as in"):
        made().fit(x, [[1], *labels[1:]], epochs=3, resume=tmp_path / "c", **options)


X = np.random.default_rng(1).standard_normal((2, 3, I))


@pytest.mark.parametrize(("y", "options", "error", "message"), [
    ([[1, 1, 2], [1]], {}, ValueError, r"y\[0\]: expected labels for which 3 steps will do, got 3 that take 4"),
    ([[1], [1, 2, 3]], dict(lengths=[3, 2]), ValueError, r"y\[1\]: expected labels for which 2 steps will do, got 3"),
    ([[1, 0], [1]], {}, ValueError, r"y\[0\]\[1\]: expected a label in 0\.\.4 other than the blank 0, got 0"),
    ([[1], [5]], {}, ValueError, r"y\[1\]\[0\]: expected a label in 0\.\.4 other than the blank 0, got 5"),
    ([[1.5], [1]], {}, TypeError, r"y\[0\]: expected integer labels, got float64 \(1,\)"),
    ([[1]], {}, ValueError, "y: expected the labels of 2 rows, as many as x, got 1"),
    (3, {}, TypeError, "y: expected the labels of 2 rows, got int 3"),
    ([1, 2], {}, ValueError, r"y\[0\]: expected labels \(L,\), got \(\)"),
    ([[1], [2]], dict(ignore=2), TypeError, "missing, ignore: expected 'error' and None with loss='ctc'"),
    ([[1], [2]], dict(class_weight="balanced"), TypeError, "class_weight: expected None with loss='ctc'"),
    ([[1], [2]], dict(sample_weight=np.ones((2, 3))), ValueError, r"sample_weight: expected \(2,\), got \(2, 3\)"),
])  # fmt: skip
def test_what_goes_wrong_is_named(y, options, error, message):
    model = made()
    for call in (model.fit, model.evaluate, model.loss_and_gradients):
        with pytest.raises(error, match=message):
            call(X, y, **options)
    with pytest.raises(ValueError, match="output: expected 'sequence' with loss='ctc', got 'last'"):
        made(output="last")
    with pytest.raises(ValueError, match=r"blank: expected a class in 0\.\.4, got int 5"):
        made(CTC(blank=5))
    with pytest.raises(ValueError, match=r"tbptt: expected a model of one direction .* and a loss of steps, got Model"):
        Model(I, H, O, loss="ctc").fit(X, [[1], [2]], tbptt=2)


def test_rows_that_are_too_short_count_nothing_on_request():
    x, labels = np.concatenate([X, X]), [[1, 1, 2], [1], [2, 1], [3]]
    model = made(CTC(zero_infinity=True))
    whole = model.loss_and_gradients(x, labels)
    rest = model.loss_and_gradients(x[1:], labels[1:])
    assert whole.loss == pytest.approx(rest.loss * 3 / 4, rel=1e-12)
    np.testing.assert_allclose(whole.gradients.flat, rest.gradients.flat * 3 / 4, rtol=1e-9, atol=1e-14)
