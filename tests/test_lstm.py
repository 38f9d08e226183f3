"""The layer's contract: state, ids, dropout, step, tapes, PyTorch's numbers. Bad input is in test_lstm_arguments.py."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cylstm import LSTM, State, oracle
from cylstm._core.ragged import Plan

SHAPE = dict(input_size=5, hidden_size=19, num_layers=2)
same = np.testing.assert_array_equal


def as_oracle(layer):
    return {name: values.astype(np.float64) for name, values in layer.parameters.items()}


# --- one core ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("B", [1, 2, 7])
def test_step_call_and_forward_give_the_same_bits(isa, dtype, rng, B):
    layer = LSTM(**SHAPE, dtype=dtype, seed=1)
    x = rng.standard_normal((B, 11, 5)).astype(dtype)
    start = State(*(rng.standard_normal((2, B, 19)).astype(dtype) for _ in range(2)))
    y, final = layer(x, start)
    y_forward, final_forward, _ = layer.forward(x, start)
    same(y, y_forward)
    same(final.h, final_forward.h)
    same(final.c, final_forward.c)
    state = start
    for t in range(11):
        y_t, state = layer.step(x[:, t], state)
        same(y_t, y[:, t])
    same(state.h, final.h)
    same(state.c, final.c)


def test_step_writes_into_out_even_in_place(dtype, rng):
    layer = LSTM(**SHAPE, dtype=dtype, seed=1)
    x = rng.standard_normal((6, 3, 5)).astype(dtype)
    state = layer.initial_state(3)
    expected = layer.initial_state(3)
    for x_t in x:
        y_expected, expected = layer.step(x_t, expected)
        y_t, returned = layer.step(x_t, state, out=state)
        assert returned is state
        same(y_t, y_expected)
        same(state.c, expected.c)
    assert np.abs(state.h).min() > 0


def test_long_sequences_run_chunk_by_chunk_to_the_same_bits(isa, rng):
    """Inference reuses one chunk of gates; forward keeps them all. 60 x 1000 rows are many chunks."""
    layer = LSTM(3, 33, 2, bidirectional=True, seed=1)
    x = rng.standard_normal((60, 1000, 3)).astype("float32")
    lengths = rng.integers(1, 1001, 60)
    resets = rng.random((60, 1000)) < 0.01
    y, final = layer(x, lengths=lengths, resets=resets)
    y_forward, final_forward, _ = layer.forward(x, lengths=lengths, resets=resets)
    same(y, y_forward)
    same(final.c, final_forward.c)


@pytest.mark.parametrize("lengths", [None, [2, 4, 1]])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_packed_rows_are_time_major_and_longest_first(rng, lengths, shape):
    array = rng.standard_normal((3, 4, *shape))
    plan = Plan(3, 4, None if lengths is None else np.array(lengths))
    rows = [(b, t) for t in range(4) for b in ([0, 1, 2] if lengths is None else [1, 0, 2])]
    there = [(b, t) for b, t in rows if lengths is None or t < lengths[b]]
    packed, expected = plan.pack(array), np.zeros_like(array)
    same(packed, np.array([array[place] for place in there]))
    for place in there:
        expected[place] = array[place]
    same(plan.unpack(packed), expected)


@pytest.mark.parametrize("rows", [16383, 16384, 16385, 33000])
def test_gradients_of_more_rows_than_one_product_takes(isa, rng, capfd, rows):
    """Those of a weight are a sum over all rows, some 16384 at a time."""
    layer = LSTM(2, 3, dtype="float64", seed=1)
    x, dy = rng.standard_normal((rows, 1, 2)), rng.standard_normal((rows, 1, 3))

    def gradients(part):
        return layer.backward(layer.forward(x[part])[2], dy[part]).parameters.flat

    parts = sum(gradients(slice(n, n + 1000)) for n in range(0, rows, 1000))
    np.testing.assert_allclose(gradients(slice(None)), parts, rtol=1e-11, atol=1e-10)
    assert capfd.readouterr() == ("", ""), "BLAS complains of sizes there"


def test_a_sequence_in_two_parts_carries_its_state(dtype, rng):
    layer = LSTM(**SHAPE, dtype=dtype, seed=1)
    x = rng.standard_normal((3, 10, 5)).astype(dtype)
    whole, final = layer(x)
    left, middle = layer(x[:, :4])
    right, end = layer(x[:, 4:], middle)
    same(np.concatenate([left, right], axis=1), whole)
    same(end.h, final.h)
    same(end.c, final.c)


def test_unbatched_input_is_a_batch_of_one(dtype, rng):
    layer = LSTM(**SHAPE, bidirectional=True, dtype=dtype, seed=1)
    x = rng.standard_normal((9, 5)).astype(dtype)
    y, final = layer(x)
    y_batched, final_batched = layer(x[None])
    same(y, y_batched[0])
    same(final.h, final_batched.h)
    y, _, tape = layer.forward(x, resets=np.arange(9) == 4)
    gradients = layer.backward(tape, rng.standard_normal(y.shape))
    assert gradients.x.shape == x.shape


# --- ids, dropout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "int64"])
def test_ids_are_one_hot_rows(isa, dtype, rng, kind):
    layer = LSTM(23, 19, 2, bidirectional=True, dtype=dtype, seed=1)
    ids = rng.integers(0, 20, (4, 7)).astype(kind)
    one_hot = np.eye(23, dtype=dtype)[ids]
    lengths = [7, 3, 1, 5]
    y, _, tape = layer.forward(ids, lengths=lengths)
    y_dense, _, tape_dense = layer.forward(one_hot, lengths=lengths)
    same(y, y_dense)
    dy = rng.standard_normal(y.shape).astype(dtype)
    gradients, dense = layer.backward(tape, dy), layer.backward(tape_dense, dy)
    assert gradients.x is None
    assert not gradients.parameters["weight_ih_l0"][:, 20:].any(), "of ids that do not occur"
    for name, values in gradients.parameters.items():
        np.testing.assert_allclose(values, dense.parameters[name], rtol={"float32": 1e-4, "float64": 1e-12}[dtype],
                                   atol={"float32": 1e-6, "float64": 1e-14}[dtype])  # fmt: skip
    y_t, _ = LSTM(23, 19, seed=1).step(ids[:, 0], LSTM(23, 19).initial_state(4))
    assert y_t.shape == (4, 19)
    y_t, _ = LSTM(23, 19, seed=1).step(ids[0, 0], LSTM(23, 19).initial_state(1))
    assert y_t.shape == (19,)


def test_dropout_agrees_with_the_oracle_given_its_masks(isa, dtype, rng, close):
    layer = LSTM(5, 19, 3, bidirectional=True, dropout=0.4, dtype=dtype, seed=1)
    x = rng.standard_normal((4, 6, 5)).astype(dtype)
    lengths = [6, 2, 5, 3]
    y, _, tape = layer.forward(x, lengths=lengths)
    masks = [mask.astype(float) for mask in tape.masks]
    inside = np.arange(6) < np.array(lengths)[:, None]
    values = np.unique(np.stack(masks)[:, inside])
    np.testing.assert_allclose(values, [0, 1 / 0.6], rtol=1e-6)
    expected, _, oracle_tape = oracle.forward(x.astype(float), as_oracle(layer), num_layers=3, bidirectional=True,
                                              lengths=lengths, dropout_masks=masks)  # fmt: skip
    close(y, expected)
    dy = rng.standard_normal(y.shape).astype(dtype)
    gradients = layer.backward(tape, dy)
    dx, _, dparameters = oracle.backward(oracle_tape, dy.astype(float))
    close(gradients.x, dx)
    for name, values in gradients.parameters.items():
        close(values, dparameters[name], name)


def test_dropout_is_seeded_and_only_in_forward(rng):
    x = rng.standard_normal((4, 30, 5))
    layer, twin, plain = (LSTM(**SHAPE, dropout=p, seed=1) for p in (0.5, 0.5, 0.0))
    first, second = layer.forward(x)[0], layer.forward(x)[0]
    assert np.abs(first - second).max() > 1e-3
    same(twin.forward(x)[0], first)
    same(twin.forward(x)[0], second)
    same(layer(x)[0], plain(x)[0])
    share = np.mean(layer.forward(x)[2].masks[0] == 0)
    assert 0.4 < share < 0.6


# --- gradients --------------------------------------------------------------------------------------------------------


def test_a_tape_serves_one_backward_and_its_own_layer(rng):
    layer, other = LSTM(**SHAPE, seed=1), LSTM(**SHAPE, seed=2)
    x = rng.standard_normal((2, 4, 5))
    y, _, tape = layer.forward(x)
    with pytest.raises(TypeError, match="tape: expected a tape of this layer"):
        other.backward(tape, y)
    layer.backward(tape, y)
    for use in (lambda: layer.backward(tape, y), lambda: tape.h, lambda: tape.c):
        with pytest.raises(ValueError, match="tape: expected a tape that no backward call has used"):
            use()
    _, _, tape = layer.forward(x)
    layer.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="weights that forward saw"):
        layer.backward(tape, y)


def test_two_tapes_at_once_do_not_disturb_each_other(isa, rng):
    layer = LSTM(**SHAPE, dtype="float64", seed=1)
    held = layer.parameters["weight_hh_l0"]  # a view that lives makes every call pack anew
    xs, dys = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((2, 3, 6, 19))
    alone = []
    for x, dy in zip(xs, dys, strict=True):
        alone.append(layer.backward(layer.forward(x)[2], dy).parameters.flat.copy())
    tapes = [layer.forward(x)[2] for x in xs]
    for n in (1, 0):
        same(layer.backward(tapes[n], dys[n]).parameters.flat, alone[n])
    assert held.any()


@pytest.mark.parametrize("kind", ["features", "ids"])
@pytest.mark.parametrize("shape", [(1, 8), (3, 1), (3, 8), "time-major"])
def test_changing_the_input_after_forward_changes_nothing(rng, kind, shape):
    """Where no transposition is needed nothing forces a copy; the tape must not share the caller's memory."""
    B, T = (3, 8) if shape == "time-major" else shape
    layer = LSTM(**SHAPE, seed=1)
    x = rng.integers(0, 5, (T, B)) if kind == "ids" else rng.standard_normal((T, B, 5)).astype("float32")
    x, resets = x.swapaxes(0, 1), rng.random((T, B)).swapaxes(0, 1) < 0.4
    if shape != "time-major":
        x, resets = x.copy(), resets.copy()
    dy = rng.standard_normal((B, T, 19))
    expected = layer.backward(layer.forward(x, resets=resets)[2], dy).parameters.flat
    _, _, tape = layer.forward(x, resets=resets)
    x[...], resets[...] = 10**8 if kind == "ids" else 7, False
    same(layer.backward(tape, dy).parameters.flat, expected)


def test_many_threads_on_one_layer_get_the_bits_of_one(rng):
    """With a view alive every call asks whether to pack anew; nothing that is computed with may be written to."""
    layer = LSTM(33, 65, 2, seed=1)
    held = layer.parameters["weight_hh_l0"]
    x, dy = rng.standard_normal((7, 20, 33)).astype("float32"), rng.standard_normal((7, 20, 65)).astype("float32")

    def gradient(_):
        y, _, tape = layer.forward(x)
        return y, layer.backward(tape, dy).parameters.flat

    expected = gradient(None)
    with ThreadPoolExecutor(4) as pool:
        for y, flat in pool.map(gradient, range(60)):
            same(y, expected[0])
            same(flat, expected[1])
    assert held.any()


def test_gradients_go_into_a_buffer_of_the_callers(rng):
    layer = LSTM(**SHAPE, seed=1)
    x, dy = rng.standard_normal((3, 6, 5)), rng.standard_normal((3, 6, 19))
    first = layer.backward(layer.forward(x)[2], dy)
    again = layer.backward(layer.forward(x)[2], dy, out=copy.deepcopy(first.parameters))
    same(again.parameters.flat, first.parameters.flat)


@pytest.mark.parametrize(
    ("case", "layers", "bidirectional"),
    [("one", 1, False), ("both", 2, True), ("ragged", 1, False), ("ragged both", 2, True)],
)
def test_values_and_gradients_are_torchs(isa, dtype, close, case, layers, bidirectional):
    """Against the frozen trace (torch_trace.py), so that layer and oracle cannot be wrong together."""
    trace = np.load(Path(__file__).parent / "data" / "torch_trace.npz")
    t = {name.removeprefix(f"{case}/"): trace[name] for name in trace.files if name.startswith(f"{case}/")}
    layer = LSTM(t["x"].shape[2], t["hn"].shape[2], layers, bidirectional=bidirectional, dtype=dtype)
    for name, values in layer.parameters.items():
        values[...] = t[f"weights/{name}"]
    y, final, tape = layer.forward(t["x"], (t["h0"], t["c0"]), lengths=t.get("lengths"))
    gradients = layer.backward(tape, t["dy"], (t["dhn"], t["dcn"]))
    got = dict(y=y, hn=final.h, cn=final.c, dx=gradients.x, dh0=gradients.state.h, dc0=gradients.state.c)
    for name, values in {**got, **{f"gradients/{n}": v for n, v in gradients.parameters.items()}}.items():
        close(values, t[name], name)


def test_state_is_a_plain_value(rng):
    layer = LSTM(**SHAPE, seed=1)
    _, state = layer(rng.standard_normal((4, 3, 5)))
    twin = state.copy()
    state.reset([1, 3])
    assert not state.h[:, [1, 3]].any() and not state.c[:, [1, 3]].any()
    same(state.c[:, [0, 2]], twin.c[:, [0, 2]])
    assert twin.h[:, 1].any()
    state.reset()
    assert not state.h.any() and not state.c.any()


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_independent_and_draw_the_same(rng, clone):
    layer = LSTM(**SHAPE, dropout=0.3, bias=False, dtype="float64", seed=1)
    x = rng.standard_normal((3, 6, 5))
    twin = clone(layer)
    same(twin(x)[0], layer(x)[0])
    same(twin.forward(x)[0], layer.forward(x)[0])
    before = layer(x)[0]
    twin.parameters["weight_hh_l1"][:] *= 2
    same(layer(x)[0], before)
    assert np.abs(twin(x)[0] - before).max() > 1e-4


@pytest.mark.parametrize("layers", [4, 5])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_many_layers_without_a_tape_give_the_bits_of_those_with_one(isa, dtype, rng, layers, bidirectional):
    """Outputs of a layer lie where those of the last but one did."""
    layer = LSTM(5, 7, layers, bidirectional=bidirectional, dtype=dtype, seed=1)
    x = rng.standard_normal((3, 6, 5)).astype(dtype)
    for lengths in (None, [6, 2, 4]):
        y, final, _ = layer.forward(x, lengths=lengths)
        same(layer(x, lengths=lengths)[0], y)
        same(np.stack(layer(x, lengths=lengths)[1]), np.stack(final))


@pytest.mark.parametrize("size", [(3, 5), (40, 5), (3, 160)])
def test_gradients_of_nothing_are_zero(isa, dtype, rng, size):
    """To the last bit, whatever memory held."""
    B, H = size
    layer = LSTM(5, H, 2, bidirectional=True, dtype=dtype, seed=1)
    y, _, tape = layer.forward(rng.standard_normal((B, 4, 5)).astype(dtype))
    gradients = layer.backward(tape, np.zeros_like(y))
    assert not gradients.x.any() and not gradients.parameters.flat.any() and not np.stack(gradients.state).any()
