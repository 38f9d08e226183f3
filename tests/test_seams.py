"""Where one part of a model meets another: masks and losses of one's own, heads and batches, labels and text, `out` and
the state; what each case names was once wrong, or refused too late."""

import enum

import numpy as np
import pytest

from cylstm import SGD, Head, Model, Vocabulary, data
from cylstm._core.blas import Linear
from cylstm._core.ragged import table_rows
from cylstm.batches import batch_of
from cylstm.training.dataset import Dataset

I, H, O, B, T = 3, 4, 2, 5, 6


def some_data(rng, *tail):
    return rng.standard_normal((B, T, I)), rng.standard_normal((B, T, *(tail or (O,))))


@pytest.mark.parametrize("kept", [np.ones(T, bool), np.arange(T) % 2 == 0, np.arange(T) > 1])
def test_a_mask_that_leaves_every_row_as_many_steps(rng, kept):
    model, (x, y) = Model(I, H, O, loss="mse", dtype="float64", seed=1), some_data(rng)
    mask = np.tile(kept, (B, 1))
    outputs, _, tape = model.forward(x, mask=mask)
    found = model.backward(tape, outputs - y)
    inner, _, other = model.forward(x[:, kept])
    expected = model.backward(other, inner - y[:, kept])
    np.testing.assert_array_equal(found.parameters.flat, expected.parameters.flat)
    np.testing.assert_array_equal(found.x[:, kept], expected.x)
    assert (found.x[:, ~kept] == 0).all()


def test_targets_of_a_horizon_the_wrong_way_round(rng):
    model = Model(I, H, O, loss="mse", horizon=3, output="last", seed=1)
    x, y = rng.standard_normal((B, T, I)), rng.standard_normal((B, 3, O))
    assert model.evaluate(x, y)["loss"] > 0
    single = Model(I, H, 1, loss="mse", horizon=3, output="last", seed=1)
    assert single.evaluate(x, y[..., 0]) == single.evaluate(x, y[..., :1])
    for other in (y.swapaxes(1, 2), y.reshape(B, 6), y.reshape(B, 1, 6)):
        with pytest.raises(ValueError, match=r"y: expected \(5, 3, 2\), got"):
            model.evaluate(x, other)
    series = Model(I, H, 6, loss="mse", output="last", seed=1)  # without one, steps and features are one row of numbers
    assert series.evaluate(x, y) == series.evaluate(x, y.reshape(B, 6))


def test_ragged_targets_of_a_row_without_a_step(rng):
    model = Model(I, H, O, loss="mse", horizon=3, seed=1, dtype="float64")
    x, y = [rng.standard_normal((n, I)) for n in (3, 0, 2)], [rng.standard_normal((n, 3, O)) for n in (3, 0, 2)]
    expected = model.evaluate(x, y)
    assert model.evaluate(x, [y[0], [], y[2]]) == expected


@pytest.mark.parametrize("output", ["sequence", "last"])
@pytest.mark.parametrize("batched", [True, False])
def test_long_rows_go_in_pieces_of_steps(rng, output, batched, monkeypatch):
    model = Model(I, H, O, loss="mse", output=output, num_layers=2, dtype="float64", seed=1)
    x, resets = rng.standard_normal((2, 50, I)), rng.random((2, 50)) < 0.1
    options = [dict(lengths=[50, 23]), dict(resets=resets), dict(mask=rng.random((2, 50)) < 0.8), {}]
    if not batched:
        x, options = x[0], [dict(resets=resets[0]), dict(mask=rng.random(50) < 0.8), {}]
    state = model.initial_state(2 if batched else 1)
    state.h[...], state.c[...] = 0.3, -0.2
    whole = [model(x, state, **option) for option in options]
    monkeypatch.setattr("cylstm.batches.AT_ONCE", 9)
    for option, (outputs, final) in zip(options, whole, strict=True):
        found, found_final = model(x, state, **option)
        np.testing.assert_allclose(found, outputs, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(np.stack(found_final), np.stack(final), rtol=1e-12)
    with pytest.raises(ValueError, match="resets: expected"):
        model(x, resets=resets[:, :3])


def test_an_id_in_a_long_row_is_named_by_its_place(rng, monkeypatch):
    model = Model(I, H, O, loss="mse", embeddings={1: (5, 2)}, seed=1)
    x = rng.standard_normal((40, I))
    x[:, 1] = 2
    x[33, 1] = 7
    monkeypatch.setattr("cylstm.batches.AT_ONCE", 9)
    with pytest.raises(ValueError, match=r"x\[33, 1\]: expected an id in 0\.\.4, got 7"):
        model(x)


def test_a_step_that_cannot_write_its_outputs_writes_nothing(rng):
    model = Model(I, H, {"a": Head(2, loss="mse"), "b": Head(2, loss="mse")}, seed=1)
    one = Model(I, 4, 4, loss="mse", seed=1)
    x = rng.standard_normal((B, I)).astype("f4")
    each = np.empty((B, 2), "f4")
    for m, wrong in [(model, lambda s: {"a": each, "b": None}), (model, lambda s: {"a": each, "b": each}),
                     (one, lambda s: np.empty((B, 3), "f4")), (one, lambda s: s.h[0]), (one, lambda s: None),
                     (one, lambda s: s.c.reshape(B, 4))]:  # fmt: skip
        _, state = m.step(x, None)
        before, weights = np.stack(state), m.parameters.flat.copy()
        with pytest.raises((TypeError, ValueError), match="out: expected outputs"):
            m.step(x, state, out=(wrong(state), state))
        np.testing.assert_array_equal(np.stack(state), before)
        np.testing.assert_array_equal(m.parameters.flat, weights)
    square = Model(I, H, H, loss="mse", seed=1)
    with pytest.raises(ValueError, match="out: expected outputs in memory of their own"):
        square.step(x[0], None, out=(square.parameters["head.bias"], square.initial_state()))


class Sky(enum.StrEnum):
    CLEAR = "clear"
    CLOUD = "cloud"


@pytest.mark.parametrize("labels", [list(Sky), ["a", "a\0"], ["a\0", "b"], [2**63 + 1, 2**63 + 3], [True, 0.5]])
def test_labels_come_back_as_they_are(rng, labels, tmp_path):
    model = Model(I, H, 2, labels=labels, seed=1)
    x = rng.standard_normal((B, T, I)) * 3
    found = model.predict(x)
    assert set(found.ravel().tolist()) <= set(labels) and len(set(map(type, found.ravel().tolist()))) <= 2
    assert model.evaluate(x, found)["accuracy"] == 1
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(Model.load(tmp_path / "m").predict(x), found)


@pytest.mark.parametrize("labels", [{"a", "b"}, {"a": 1, "b": 0}, iter("ab"), np.array("ab"), ["a", "\ud800"]])
def test_labels_need_an_order_and_letters(labels):
    with pytest.raises((TypeError, ValueError), match="labels: expected"):
        Model(I, H, 2, labels=labels)


def test_labels_that_are_missing_or_ignored(rng):
    model = Model(I, H, 1, loss="binary_cross_entropy", labels=["no", "yes"], dtype="float64", seed=1)
    plain = Model(I, H, 1, loss="binary_cross_entropy", dtype="float64", seed=1)
    x, ids = rng.standard_normal((B, T, I)), rng.integers(0, 2, (B, T, 1))
    y, numbers = np.array(["no", "yes"], object)[ids], ids.astype(float)
    y[1, 2], numbers[1, 2] = np.nan, np.nan
    assert model.evaluate(x, y, missing="skip") == plain.evaluate(x, numbers, missing="skip")
    with pytest.raises(ValueError, match=r"y\[1, 2, 0\]: expected one of 'no', 'yes', got float nan"):
        model.evaluate(x, y)
    classes = Model(I, H, 2, labels=["no", "yes"], seed=1)
    with pytest.raises(TypeError, match=r"ignore: expected a label, a string or a number, got list \['no'\]"):
        classes.evaluate(x, y[..., 0], ignore=["no"])


def test_text_is_of_tokens_without_labels():
    vocabulary = Vocabulary("abcd")
    ids = np.array([[0, 1, 2, 3, 1]])
    model = Model(4, H, 4, vocabulary=vocabulary, labels=[3, 2, 1, 0], seed=1)
    with pytest.raises(ValueError, match="model: expected one of its vocabulary's next tokens"):
        data.evaluate_text(model, ids[:, :-1], ids[:, 1:])
    several = Model(4, H, {"a": Head(4)}, seed=1)
    for one in (model, several):
        for ban in ((), 1):
            with pytest.raises(ValueError, match="generate: expected a model of one direction with cross_entropy"):
                one.generate([0], 3, ban=ban)


def test_what_counts_beside_batches_is_of_each_head_and_of_the_run(rng, tmp_path):
    heads = {"a": Head(2), "b": Head(2)}
    x, ids = rng.standard_normal((B, T, I)), rng.integers(0, 2, (B, T))
    batches = [(x, {"a": ids, "b": 1 - ids})]
    with pytest.raises(ValueError, match="class_weight: expected a dict or None with batches, which"):
        Model(I, H, heads, seed=1).fit(batches, class_weight={"a": "balanced"})
    path, options = tmp_path / "run.ckpt", dict(progress=False)
    Model(I, H, 2, seed=1).fit([(x, ids)], epochs=1, checkpoint=path, class_weight={0: 9.0}, **options)
    for other in (dict(), dict(ignore=0), dict(class_weight={1: 9.0})):
        with pytest.raises(ValueError, match="resume: expected the same run as in"):
            Model(I, H, 2, seed=1).fit([(x, ids)], epochs=2, resume=path, **other, **options)
    Model(I, H, 2, seed=1).fit([(x, ids)], epochs=2, resume=path, class_weight={0: 9.0}, **options)
    y = {"a": ids, "b": ids}
    Model(I, H, heads, seed=1).fit(x, y, epochs=1, checkpoint=path, ignore={"a": 0}, **options)
    with pytest.raises(ValueError, match="resume: expected the same run as in"):
        Model(I, H, heads, seed=1).fit(x, y, epochs=2, resume=path, ignore={"b": 0}, **options)


@pytest.mark.parametrize("given, message", [
    ({"a": {}}, r"output_size\['a'\]: expected a dict of output_size, loss, .*, got one of nothing"),
    ({"a": {"size": 2}}, r"output_size\['a'\]: expected a dict of output_size, .*, got one of size"),
    ({"\ud800": 2}, "output_size: expected names of heads, without a dot"),
])  # fmt: skip
def test_heads_of_dicts_that_say_something_else(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Model(I, H, given)
    with pytest.raises(TypeError, match=r"labels: expected the default with several heads, .* got <U1"):
        Model(I, H, {"a": Head(2)}, labels=np.array(["x", "y"]))


F4 = np.ones((4, 2), "f4")


@pytest.mark.parametrize("weight, bias, tail", [
    (np.ones((4, 2), "u1"), None, (4,)), (np.ones((4, 2), "f2"), None, (4,)), (np.ones((4, 2), object), None, (4,)),
    (np.ones(4, "f4"), None, (4,)), (np.ones((4, 2, 1), "f4"), None, (4,)), (F4.T, None, (2,)), (F4, None, (3,)),
    (F4, None, ()), (F4, None, (2, 2, 2)), (F4, None, (-2, -2)), (F4, None, (-2, 1, -2)), (F4, None, (1, 1, 1, 4)),
    (F4, np.ones(3, "f4"), (4,)), (F4, np.ones((4, 1), "f4"), (4,)), (F4, np.ones(4), (4,)),
])  # fmt: skip
def test_a_linear_layer_of_other_arrays_is_refused(weight, bias, tail):
    with pytest.raises(ValueError, match="weight, bias, tail: expected contiguous arrays of one floating type"):
        Linear(weight, bias, tail)


@pytest.mark.parametrize("tail", [(12,), (3, 4), (2, 3, 2)])
def test_a_linear_layer_has_outputs_of_any_shape(rng, dtype, tail):
    weight, bias, h = (rng.standard_normal(shape).astype(dtype) for shape in ((12, 7), (12,), (5, 7)))
    layer, expected = Linear(weight, bias, tail), (h.astype(float) @ weight.T + bias).reshape(5, *tail)
    out = np.full_like(expected, np.nan, dtype)
    for found in (layer.rows(h), layer.rows(h, out), out, np.stack([layer.rows(row) for row in h])):
        assert found.dtype == dtype and found.shape == (5, *tail)
        np.testing.assert_allclose(found, expected, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize("table", [
    np.array(1.0), np.ones(4), np.ones((4, 2, 2)), np.ones((4, 2), object), np.ones((4, 2), "i8"),
    np.ones((4, 2))[::-1], np.ones((4, 4))[:, :2], np.asfortranarray(np.ones((4, 2))),
    np.broadcast_to(np.arange(2.0), (4, 2)),
])  # fmt: skip
def test_another_table_is_refused(table):
    with pytest.raises(ValueError, match="table: expected a contiguous one of floating-point numbers"):
        table_rows("x", table, np.array([3]))


def test_targets_that_change_after_they_were_checked(rng):
    """What goes to the kernels is a copy that is checked again; its places are those of the tokens that count."""
    model, y = Model(I, H, O, seed=1), np.zeros((2, 3), np.int64)
    checked = Dataset(model, rng.standard_normal((2, 3, I)), y, [3, 2])
    y[1, 1] = 9
    with pytest.raises(ValueError, match=r"^counted y\[4\]: expected ids in 0\.\.1, got 9"):
        batch_of(model, checked.part(slice(None)))


@pytest.mark.parametrize("form", ["arrays", "batches"])
def test_several_batches_of_several_heads_are_one_large_one(rng, form):
    """Each head's mean is over what counts for it in all of them, however unequal that is."""
    heads = {"a": Head(2, loss="mse"), "b": Head(3, weight=0.3), "end": Head(1, loss="mae", output="last", weight=2.0)}
    x, lengths = rng.standard_normal((6, 8, I)), np.array([8, 1, 7, 2, 3, 8])
    y = {"a": rng.standard_normal((6, 8, 2)), "b": rng.integers(0, 3, (6, 8)), "end": rng.standard_normal((6, 1)) * 5}
    y["a"][:4][rng.random((4, 8, 2)) < 0.7] = np.nan
    y["b"][4:] = -1
    losses, weights = [], []
    options = dict(epochs=1, optimizer=SGD(0.1), clip_norm=None, progress=False, ignore={"b": -1}, missing="skip")
    for several in (False, True):
        model = Model(I, H, heads, dtype="float64", seed=1)
        options["callbacks"] = [lambda event: event.kind == "update" and losses.append(event.loss)]
        if form == "batches" and several:
            given = [({"x": x[n : n + 2], "y": {name: of[n : n + 2] for name, of in y.items()},
                       "lengths": lengths[n : n + 2]}) for n in (0, 2, 4)]  # fmt: skip
            model.fit(given, accumulate=3, **options)
        else:
            model.fit(x, y, lengths=lengths, batch_size=2 if several else 6, accumulate=3 if several else 1,
                      shuffle=False, **options)  # fmt: skip
        weights.append(model.parameters.flat.copy())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12) and len(losses) == 2
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-10, atol=1e-13)
