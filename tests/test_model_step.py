"""Single steps of a model: the bits of a sequence's steps, written where the caller says, from weights as they are."""

import numpy as np
import pytest

from cylstm import Head, Model, State

I, H, O, V, E, B, T = 5, 7, 3, 9, 4, 3, 6
KINDS = {
    "features": dict(),
    "ids": dict(embedding_size=E),
    "no bias": dict(head_bias=False, num_layers=2),
    "horizon": dict(horizon=2),
    "double": dict(dtype="float64"),
}


def made(kind, **options):
    options = {**KINDS[kind], **options}
    model = Model(V if "embedding_size" in options else I, H, O, loss="mse", seed=2, **options)
    if model.head_bias:
        model.parameters["head.bias"][...] = np.arange(1, 1 + model.parameters["head.bias"].size)
    return model


def some_inputs(rng, model, *shape):
    return rng.integers(0, V, shape) if model.embedding_size else rng.standard_normal((*shape, I)).astype(model.dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [(), (1,), (B,)])
@pytest.mark.parametrize("into", ["nothing", "state", "both"])
def test_steps_are_those_of_a_sequence(isa, rng, kind, rows, into):
    model = made(kind)
    x = some_inputs(rng, model, *rows, T)
    start = State(*rng.standard_normal((2, model.num_layers, rows[0] if rows else 1, H)).astype(model.dtype))
    expected, final = model(x, start)
    state = start.copy()
    out = {"nothing": None, "state": state}.get(into) or (np.empty_like(expected[..., 0, :] if kind != "horizon" else
                                                                        expected[..., 0, :, :]), state)  # fmt: skip
    out = None if into == "nothing" else out
    for t in range(T):
        given = x[:, t] if rows else x[t]
        outputs, state = model.step(given, state, out=out)
        wanted = expected[:, t] if rows else expected[t]
        assert outputs.shape == wanted.shape and outputs.dtype == model.dtype
        np.testing.assert_allclose(outputs, wanted, rtol=2e-5 if model.dtype == "f4" else 1e-12, atol=1e-6)
        if into == "both":
            assert outputs is out[0] and state is out[1]
            outputs[...] = np.nan  # nobody reads what was there
        if into == "state":
            assert state is out
    np.testing.assert_allclose(np.stack(state), np.stack(final), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("order", ["yhc", "hyc", "hcy"])
def test_outputs_may_begin_where_the_state_ends(rng, order):
    """And end where it begins: memory that only touches is not shared."""
    model, x = made("features"), rng.standard_normal(I)
    expected, final = model.step(x, None)
    room, ends = np.full(O + 2 * H, np.nan, "f4"), np.cumsum([O if name == "y" else H for name in order])
    parts = dict(zip(order, np.split(room, ends[:-1]), strict=True))
    state = State(parts["h"].reshape(1, 1, H), parts["c"].reshape(1, 1, H))
    model.step(x, None, out=(parts["y"], state))
    for name, values in {"y": expected, "h": final.h, "c": final.c}.items():
        np.testing.assert_array_equal(parts[name], values.ravel())
    closer = 1 if order[0] == "y" else ends[order.index("y")] - O - 1
    with pytest.raises(ValueError, match="out: expected outputs in memory of their own"):
        model.step(x, None, out=(room[closer : closer + O], state))


def test_several_heads_write_into_a_dict(rng):
    model = Model(I, H, {"a": Head(2, loss="mse"), "b": Head(4, horizon=3)}, seed=2)
    x = rng.standard_normal((B, I)).astype("f4")
    expected, state = model.step(x, None)
    out = ({name: np.full_like(values, np.nan) for name, values in expected.items()}, model.initial_state(B))
    outputs, final = model.step(x, None, out=out)
    assert final is out[1]
    for name, values in expected.items():
        assert outputs[name] is out[0][name]
        np.testing.assert_array_equal(outputs[name], values)
    np.testing.assert_array_equal(np.stack(final), np.stack(state))
    with pytest.raises(TypeError, match="out: expected a dict of outputs of a, b, got float32"):
        model.step(x, None, out=(expected["a"], state))


def test_weights_are_read_as_they_are(rng):
    """Through a view that somebody holds, by an update, and back."""
    model = made("ids", dtype="float64")
    ids, view = rng.integers(0, V, B), model.parameters["head.weight"]
    for name in ("head.weight", "head.bias", "embedding.weight", "lstm.bias_l0"):
        before, _ = model.step(ids, None)
        model.parameters[name][...] += 0.5
        after, _ = model.step(ids, None)
        assert not np.allclose(before, after)
        np.testing.assert_allclose(after, model(ids[:, None])[0][:, 0], rtol=1e-12)
    assert view is not None


@pytest.mark.parametrize("ids", [
    3, np.int64(3), np.int32(3), np.array(3), np.array([3, 8, 0]), np.array([3, 8, 0], "u1"), [3, 8, 0],
    np.array([3, 1, 8, 1, 0])[::2],
])  # fmt: skip
def test_ids_come_in_any_form(ids):
    model = made("ids")
    found, _ = model.step(ids, None)
    plain = np.asarray(ids)
    expected = model(plain[..., None])[0][..., 0, :]
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("ids, error, message", [
    (9, ValueError, r"x_t: expected ids in 0\.\.8, got 9"),
    (-1, ValueError, r"x_t: expected ids in 0\.\.8, got -1"),
    (np.array([3, -2, 1]), ValueError, r"x_t\[1\]: expected ids in 0\.\.8, got -2"),
    (np.array([3, 9, 1]), ValueError, r"x_t\[1\]: expected ids in 0\.\.8, got 9"),
    (2.0, TypeError, "x_t: expected integer ids, got float64"),
    (True, TypeError, "x_t: expected integer ids, got bool"),
    (np.array([[1]]), ValueError, r"x_t: expected .*, got \(1, 1, 4\)"),
])  # fmt: skip
def test_what_are_no_ids_is_named(ids, error, message):
    with pytest.raises(error, match=message):
        made("ids").step(ids, None)


@pytest.mark.parametrize("outputs", [
    np.empty(3), np.empty((1, 3), "f4"), np.empty(2, "f4"), np.empty(6, "f4")[::2], np.frombuffer(bytes(12), "f4"),
    [0, 0, 0],
])  # fmt: skip
def test_outputs_that_cannot_be_written_are_named(rng, outputs):
    model = made("features")
    with pytest.raises(ValueError, match=r"out: expected outputs, a writable, contiguous float32 \(3,\), got"):
        model.step(rng.standard_normal(I), None, out=(outputs, model.initial_state()))
