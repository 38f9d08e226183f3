"""What can be wrong with data, weights and masks, or odd about them: said by name and place, or counted rightly."""

import numpy as np
import pytest

from cylstm import LSTM, Model, State
from cylstm._core.ragged import Plan

I, H, O, B, T = 3, 7, 6, 5, 8


def made(kind):
    return Model(I, H, O, loss=kind, dtype="float64", seed=3)


def some_data(rng, N=B):
    return rng.standard_normal((N, T, I)), rng.random((N, T, O))


X, Y = np.random.default_rng(4).standard_normal((3, 4, I)), np.random.default_rng(5).integers(0, O, (3, 4))


CLASSES, WEIGHTS = "cross_entropy", "sample_weight"


@pytest.mark.parametrize(("kind", "options", "error", "message"), [
    (CLASSES, {WEIGHTS: np.ones((3, 3))}, ValueError, r"sample_weight: expected \(3,\) or \(3, 4\), got \(3, 3\)"),
    (CLASSES, {WEIGHTS: [1, -2, 3]}, ValueError, r"sample_weight\[1\]: expected a number >= 0, got -2"),
    (CLASSES, {WEIGHTS: [1, 2, np.inf]}, ValueError, r"sample_weight\[2\]: expected a number >= 0, got inf"),
    (CLASSES, {WEIGHTS: ["a", "b", "c"]}, TypeError, "sample_weight: expected numbers, got <U1"),
    (CLASSES, {WEIGHTS: np.zeros(3)}, ValueError, "y: expected at least one target that counts, got none"),
    (CLASSES, dict(mask=np.zeros((3, 4), bool)), ValueError, "x: expected at least one step that counts, got none"),
    (CLASSES, dict(mask=np.ones((3, 4))), TypeError, "mask: expected booleans, got float64"),
    (CLASSES, dict(mask=np.ones((4, 3), bool)), ValueError, r"mask: expected \(3, 4\), got \(4, 3\)"),
    (CLASSES, dict(class_weight={6: 1}), ValueError, r"class_weight: expected classes in 0\.\.5, got int 6"),
    (CLASSES, dict(class_weight={"a": 1}), ValueError, r"class_weight: expected classes in 0\.\.5, got str 'a'"),
    (CLASSES, dict(class_weight={1: -1}), ValueError, r"class_weight\[1\]: expected a number in \[0, inf\), got -1"),
    (CLASSES, dict(class_weight=[1, 2]), TypeError, "class_weight: expected a dict of numbers by class, 'balanced' or"),
    (CLASSES, dict(class_weight="even"), ValueError, "class_weight: expected one of 'balanced', got str 'even'"),
    (CLASSES, dict(ignore=1.5), TypeError, "ignore: expected an integer or None, got float 1.5"),
    (CLASSES, dict(missing=True), ValueError, "missing: expected one of 'error', 'skip', got bool True"),
    ("mse", dict(ignore=3), TypeError, r"ignore: expected None with loss='mse', whose targets are numbers \(missing="),
    ("mse", dict(class_weight="balanced"), TypeError, "class_weight: expected None with loss='mse', whose targets are"),
    ("binary_cross_entropy", dict(class_weight={1: 2}), TypeError,
     "class_weight: expected None with loss='binary_cross_entropy' of 6"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["loss_and_gradients", "evaluate", "fit"])
def test_what_counts_is_checked_before_anything_changes(method, kind, options, error, message):
    model = made(kind)
    y = Y if model.loss.of_classes else np.full((3, 4, O), 0.5)
    before = model.parameters.flat.copy()
    with pytest.raises(error, match=message):
        getattr(model, method)(X, y, **options)
    np.testing.assert_array_equal(model.parameters.flat, before)


def test_what_counts_of_lists_is_named_by_row():
    model, x, y = made("cross_entropy"), [X[0], X[1, :2]], [Y[0], Y[1, :2]]
    for options, message in [
        (dict(sample_weight=[np.ones(4), np.ones(3)]), r"sample_weight\[1\]: expected \(2,\), got \(3,\)"),
        (dict(sample_weight=[np.ones(4), [1.0, np.nan]]), r"sample_weight\[1\]\[1\]: expected a number >= 0, got nan"),
        (dict(sample_weight=[np.ones(4)]), r"sample_weight: expected 2 rows, as many as x, got 1"),
        (dict(mask=[np.ones(4, bool), np.ones(4, bool)]), r"mask\[1\]: expected \(2,\), got \(4,\)"),
        (dict(mask=np.ones((2, 4), bool)), r"mask: expected a list of 2 arrays, as x is one, got bool \(2, 4\)"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            model.evaluate(x, y, **options)
    rows = model.evaluate(x, y, sample_weight=[2.0, 1.0])
    assert rows == model.evaluate(x, y, sample_weight=[np.full(4, 2.0), np.ones(2)])
    mask = [np.array([True, False, True, True]), np.array([False, False])]
    assert model.evaluate(x, y, mask=mask)["tokens"] == 3


def test_nan_inputs_are_named_unless_a_mask_leaves_them_out(rng):
    model = made("mse")
    x, y = some_data(rng)
    x[3, 5, 0] = np.nan
    for call in (model.fit, model.evaluate, model.loss_and_gradients):
        with pytest.raises(ValueError, match=r"x\[3, 5, 0\]: expected a finite number, got nan"):
            call(x, y)
    mask = ~np.isnan(x).any(axis=-1)
    assert model.evaluate(x, y, mask=mask)["tokens"] == B * T - 1
    with pytest.raises(ValueError, match=r"validation x\[3, 5, 0\]: expected a finite number"):
        model.fit(x, y, mask=mask, validation=dict(x=x, y=y), progress=False)
    with pytest.raises(ValueError, match=r"validation: expected .* or a dict of x, y and lengths, mask"):
        model.fit(x, y, mask=mask, validation=dict(x=x, y=y, weights=3), progress=False)


@pytest.mark.parametrize("size", [1e-300, 1e-50, 1e-45, 1.0, 1e39, 1e300])
def test_weights_that_a_small_type_does_not_hold_count_alike(rng, size):
    model = Model(I, H, O, loss="mse", seed=1)
    x, y = rng.standard_normal((B, T, I)), rng.random((B, T, O))
    weights = np.array([1.0, 3, 0, 2, 1])
    expected = model.loss_and_gradients(x, y, sample_weight=weights)
    found = model.loss_and_gradients(x, y, sample_weight=weights * size)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.weight == pytest.approx(size * expected.weight, rel=1e-12)
    np.testing.assert_allclose(found.gradients.flat, expected.gradients.flat, rtol=1e-5, atol=1e-8)
    assert model.evaluate(x, y, sample_weight=weights * size)["loss"] == pytest.approx(expected.loss, rel=1e-6)


def test_a_batch_of_missing_targets_is_left_out_whatever_its_weights(rng):
    model = made("mse")
    x, y = some_data(rng, 4)
    y[:2] = np.nan
    history = model.fit(x, y, missing="skip", sample_weight=np.full(4, 0.1), batch_size=2, shuffle=False, epochs=1,
                        progress=False)  # fmt: skip
    assert history.updates == [1] and np.isfinite(history.train_loss).all()


def test_validation_and_single_sequences_are_named_as_they_came(rng):
    model = made("mse")
    x, y = some_data(rng)
    for wrong, message in [
        (dict(mask=np.ones((2, T), bool)), r"validation mask: expected \(5, 8\), got \(2, 8\)"),
        (dict(sample_weight=[1.0]), r"validation sample_weight: expected \(5,\) or \(5, 8\), got \(1,\)"),
        (dict(lengths=[1]), r"validation lengths: expected \(5,\), got \(1,\)"),
        (dict(resets=np.ones((5, 2), bool)), r"validation resets: expected \(5, 8\), got \(5, 2\)"),
        (dict(weights=[1]), r"validation: expected .* or a dict of x, y and .*, got one of x, y, weights"),
        (dict(state=State(*np.full((2, 1, B, H), np.nan))), r"validation state.h\[0, 0, 0\]: expected a finite number"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, validation=dict(x=x, y=y, **wrong), progress=False)
    for wrong, message in [
        (dict(mask=np.ones(3, bool)), r"mask: expected \(8,\), got \(3,\)"),
        (dict(sample_weight=[1.0, 2]), r"sample_weight: expected \(8,\), got \(2,\)"),
        (dict(sample_weight=[1.0] * 7 + [-1]), r"sample_weight\[7\]: expected a number >= 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.evaluate(x[0], y[0], **wrong)
    kept = np.arange(T) > 2
    alone = model.evaluate(x[0], y[0], mask=kept, sample_weight=np.arange(T))
    assert alone["loss"] == model.evaluate(x[:1, 3:], y[:1, 3:], sample_weight=np.arange(3.0, T)[None])["loss"]


def test_empty_lists_are_empty_rows():
    model = Model(5, H, 3, seed=1)
    x, y, mask = [[], [1, 2], []], [[], [1, 0], []], [[], [True, False], []]
    assert model.evaluate(x, y, mask=mask)["tokens"] == 1
    outputs, _ = model(x, mask=mask)
    assert [len(row) for row in outputs] == [0, 2, 0] and not outputs[1][1].any()


def test_rows_of_several_types_keep_their_numbers(rng, monkeypatch):
    ids, features = Model(300, 4, 3, seed=1), Model(3, 4, 2, loss="mse", seed=1)
    rows = [np.array([1, 2, 3], "u1"), np.array([257, 2])]
    for at_once in (100, 1):
        monkeypatch.setattr("cylstm.batches.AT_ONCE", at_once)
        found, _ = ids(rows)
        np.testing.assert_array_equal(found[1], ids(np.array([257, 2]))[0])
        numbers = [rng.standard_normal((3, 3)).astype("f2"), 1e5 * rng.standard_normal((2, 3))]
        np.testing.assert_array_equal(features(numbers)[0][1], features(numbers[1])[0])
    with pytest.raises(TypeError, match="x: expected rows of one kind, got integers in some and floating-point"):
        ids([np.array([1, 2, 3]), np.array([1.7, 2.2])])


def test_inputs_of_the_wrong_rank_reach_no_memory():
    model, ids = Model(3, 4, 2, loss="mse", seed=1), Model(5, 4, 3, seed=1)
    for call, message in [
        (lambda: model([np.ones(3)] * 20), r"x\[0\]: expected \(T, 3\), got \(3,\)"),
        (
            lambda: model([np.ones(3), np.ones(2)], mask=[[True, False, False], [False, True]]),
            r"x\[0\]: expected \(T, 3\)",
        ),
        (lambda: model(np.ones(3), mask=[True] * 3), r"x: expected \(B, T, 3\) or \(T, 3\), got \(3,\)"),
        (
            lambda: ids(np.ones((2, 3, 4), int), mask=np.ones((2, 3), bool)),
            r"x: expected \(B, T\) or \(T,\), got \(2, 3, 4",
        ),
        (lambda: ids(np.zeros((0, 3), int), mask=np.ones((0, 3), bool)), r"x: expected at least one row and one step"),
        (lambda: ids(3, mask=True), r"x: expected \(B, T\) or \(T,\), got \(\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_plan_of_other_sizes_is_refused():
    layer = LSTM(3, 4, seed=1)
    with pytest.raises(ValueError, match=r"x: expected 20 rows of 3 steps, as the plan has, got \(3, 3\)"):
        layer(np.ones((3, 3), "f4"), lengths=Plan(20, 3, np.arange(20) % 3))


def test_masked_arrays_within_a_list_are_refused():
    model = Model(I, H, 2, loss="mse", output="last", seed=1)
    x, hidden = np.zeros((4, T, I)), [np.ma.array([1.0, 2.0], mask=True)] * 4
    for options in (dict(y=hidden), dict(y=np.zeros((4, 2)), sample_weight=[np.ma.array(1.0, mask=True)] * 4)):
        with pytest.raises(TypeError, match="expected an array without a mask, got a masked one"):
            model.evaluate(x, **options)


def test_other_parts_of_the_same_bytes_are_other_data(rng, tmp_path):
    x, y, part = rng.standard_normal((4, T, I)), rng.random((4, T, O)), rng.random((4, T)) < 0.3
    made("mse").fit(x, y, resets=part, epochs=1, checkpoint=tmp_path / "c", progress=False)
    for other in (dict(sample_weight=part), dict(sample_weight=part.astype("u1"))):
        with pytest.raises(ValueError, match=r"resume: expected the same run as in .* with data="):
            made("mse").fit(x, y, epochs=2, resume=tmp_path / "c", progress=False, **other)


@pytest.mark.parametrize("form", ["lengths", "mask", "one"])
@pytest.mark.parametrize("what", ["x", "y", "target"])
def test_the_place_of_what_is_out_of_range_is_that_of_the_first_that_counts(rng, form, what):
    """Also where it lies behind the rows that are looked at together."""
    kind = dict(loss="binary_cross_entropy") if what == "target" else {}
    model = Model(5, 4, 5, seed=1, **kind)
    B, T = 3, 200_000
    x = rng.integers(0, 5, (B, T)).astype("i4")
    y = rng.random((B, T, 5), np.float32) if what == "target" else rng.integers(0, 5, (B, T)).astype("i1")
    keep = np.ones((B, T), bool)
    keep[0, 100] = keep[2, 0] = False
    lengths = np.array([T, T, T - 5])
    wrong = x if what == "x" else y
    for place in ((0, 100), (2, 0), (2, T - 2), (2, T - 7)):
        wrong[place] = 9
    first = {"lengths": "0, 100", "mask": f"2, {T - 7}", "one": f"{T - 7}"}[form]
    if form == "one":
        x, y, options = x[2], y[2], {"mask": keep[2] & (np.arange(T) < T - 5)}
    else:
        options = {"lengths": lengths, **({"mask": keep} if form == "mask" else {})}
    expected = r", 0\]: expected a target in \[0, 1\]" if what == "target" else r"\]: expected ids in 0\.\.4"
    with pytest.raises(ValueError, match=rf"^{what[0] if what != 'target' else 'y'}\[{first}{expected}, got 9"):
        model.evaluate(x, y, **options)
