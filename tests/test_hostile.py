"""Whatever array comes in: an exception that names it, or the right answer. Never a crash, never memory without bound.

The arrays are Hypothesis's: zero-length axes, any dtype and byte order, negative and zero strides, rows that overlap,
data that are not aligned or may not be written to. The right answer is the oracle's, for the same numbers.
"""

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

import cylstm
from cylstm import LSTM, Model, State, oracle

I, H = 3, 5
REFUSALS = (TypeError, ValueError)
LAYERS = {
    (dtype, D): LSTM(I, H, 2, bidirectional=D == 2, dtype=dtype, seed=1)
    for dtype in ("float32", "float64")
    for D in (1, 2)
}
MODEL = Model(7, 4, 3, embedding_size=3, seed=1)
profile = settings(max_examples=400, deadline=None, derandomize=True,
                   suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])  # fmt: skip

FLOATS = st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<f2", "longdouble"])
INTEGERS = st.sampled_from(["<i8", ">i8", "<i4", ">u2", "<u8", "i1"])
OTHERS = st.sampled_from(["?", "<c8", "<M8[s]", "S3", "<U2", "O"])
SIZES = st.sampled_from([0, 1, 1, 2, 3, 3, 4, 5, 5, 6])


@st.composite
def strided(draw, shape, dtype):
    """Numbers of this shape and type in some memory layout."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal(shape) if dtype.kind in "fc" else rng.integers(0, 7, shape)
    with np.errstate(all="ignore"):
        values = values.astype(dtype)
    layout = draw(
        st.sampled_from(["C", "F", "time-major", "reversed", "steps", "overlap", "unaligned", "read-only", "broadcast"])
    )
    if layout == "F":
        return np.asfortranarray(values)
    if layout == "time-major" and values.ndim >= 2:
        return np.ascontiguousarray(values.swapaxes(0, 1)).swapaxes(0, 1)
    if layout == "reversed" and values.ndim:
        return values[::-1].copy()[::-1] if values.ndim == 1 else values[::-1, ..., ::-1].copy()[::-1, ..., ::-1]
    if layout == "steps" and values.ndim:
        return np.repeat(values, 3, axis=-1)[..., ::3]
    if layout == "overlap" and values.ndim >= 2 and values.size:
        flat = values.ravel()  # each row begins one element after the one before
        strides = (dtype.itemsize,) * values.ndim
        return np.lib.stride_tricks.as_strided(flat, [min(n, 3) for n in shape], strides) if flat.size >= 9 else values
    if layout == "unaligned":
        raw = np.zeros(values.nbytes + 1, np.uint8)[1:].view(dtype) if dtype.kind not in "O" else values.ravel().copy()
        raw = raw[: values.size].reshape(shape)
        raw[...] = values
        return raw
    if layout == "read-only":
        values.flags.writeable = False
    if layout == "broadcast" and values.ndim and values.shape[0] > 1:
        return np.broadcast_to(values[:1], shape)
    return values


def shapes(*usual):
    """The usual shapes most of the time, with one size changed now and then, or any shape at all."""
    changed = st.tuples(st.sampled_from(usual), st.integers(0, 3), SIZES).map(
        lambda drawn: tuple(drawn[2] if n == drawn[1] else size for n, size in enumerate(drawn[0]))
    )
    return st.one_of(st.sampled_from(usual), st.sampled_from(usual), changed, st.lists(SIZES, max_size=5).map(tuple))


ANY = st.one_of(FLOATS, FLOATS, FLOATS, INTEGERS, OTHERS)


def arrays(shape, dtype=ANY):
    return st.tuples(shape, dtype).flatmap(lambda drawn: strided(*drawn))


def as_double(array):
    return np.asarray(array, np.float64)


def expect_close(got, expected, bound):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max(initial=0) <= bound * max(1, np.abs(expected).max(initial=0))


@profile
@given(layer=st.sampled_from(list(LAYERS)), data=st.data())
def test_a_layer_gives_the_oracles_numbers_or_refuses(layer, data):
    dtype, D = layer
    layer, L = LAYERS[layer], 2
    B, T = data.draw(st.sampled_from([(2, 3), (3, 1), (1, 6), (5, 3)]))
    x = data.draw(arrays(shapes((B, T, I), (B, T, I), (T, I))))
    draw_state = arrays(shapes((L * D, B, H)), FLOATS)
    state = data.draw(st.none() | st.tuples(draw_state, draw_state))
    lengths = data.draw(st.none() | arrays(shapes((B,)), st.one_of(INTEGERS, OTHERS)).map(lambda given: given))
    resets = data.draw(st.none() | st_np.arrays(bool, st.sampled_from([(B, T), (T,)])))
    try:
        y, final, tape = layer.forward(x, state, lengths=lengths, resets=resets)
    except REFUSALS as error:
        assert any(str(error).startswith(name) for name in ("x", "state", "lengths", "resets")), error
        return
    if np.asarray(x).dtype.kind in "iu":  # ids stand for one-hot rows
        given_x = np.eye(I)[np.clip(np.asarray(x).astype(np.int64), 0, I - 1)]
    else:
        given_x = as_double(np.asarray(x).astype(dtype))
    batched = given_x.ndim == 3
    if resets is not None and not batched:
        resets = resets[None]
    cast = None if state is None else tuple(as_double(np.asarray(part).astype(dtype)) for part in state)
    expected_y, expected_final, expected_tape = oracle.forward(
        given_x if batched else given_x[None], {name: as_double(p) for name, p in layer.parameters.items()}, cast,
        num_layers=L, bidirectional=D == 2, lengths=lengths, resets=resets)  # fmt: skip
    bound = 1e-11 if dtype == "float64" else 1e-5
    expect_close(y, expected_y if batched else expected_y[0], bound)
    expect_close(final.h, expected_final[0], bound)
    expect_close(final.c, expected_final[1], bound)

    dy = data.draw(arrays(shapes(y.shape, y.shape, y.shape), FLOATS))
    try:
        gradients = layer.backward(tape, dy)
    except REFUSALS as error:
        assert str(error).startswith("dy"), error
        return
    dy = as_double(np.asarray(dy).astype(dtype))
    dx, _, parameters = oracle.backward(expected_tape, dy if batched else dy[None])
    if gradients.x is not None:
        expect_close(gradients.x, dx if batched else dx[0], 10 * bound)
    for name, expected in parameters.items():
        expect_close(gradients.parameters[name], expected, 10 * bound)


@profile
@given(data=st.data())
def test_a_step_gives_the_bits_of_a_call_or_refuses(data):
    layer, B = LAYERS["float32", 1], data.draw(st.sampled_from([1, 4]))
    x = data.draw(arrays(shapes((B, I), (B, I), (I,))))
    draw_state = arrays(shapes((2, B, H)), st.sampled_from(["<f4", "<f4", "<f8", ">f4"]))
    state, out = (
        data.draw(st.none() | st.tuples(draw_state, draw_state)),
        data.draw(st.none() | st.tuples(draw_state, draw_state)),
    )
    kept = None if state is None else State(*(np.array(part) for part in state))
    try:
        y, final = layer.step(x, state, out=None if out is None else State(*out))
    except REFUSALS as error:
        assert any(str(error).startswith(name) for name in ("x_t", "state", "out")), error
        return
    x = np.asarray(x)
    ids = x.dtype.kind in "iu"
    rows = x.reshape(-1, 1) if ids else x.reshape(-1, 1, I)
    expected, expected_final = layer(rows, kept)
    assert np.array_equal(y.reshape(-1, H), expected[:, 0])
    assert np.array_equal(final.h, expected_final.h) and np.array_equal(final.c, expected_final.c)


@profile
@given(data=st.data())
def test_a_model_learns_from_right_data_and_refuses_the_rest(data):
    B, T = data.draw(st.sampled_from([(2, 3), (1, 4)]))
    ids = data.draw(arrays(shapes((B, T), (B, T)), st.one_of(INTEGERS, INTEGERS, FLOATS, OTHERS)))
    y = data.draw(arrays(shapes((B, T), (B, T)), st.one_of(INTEGERS, INTEGERS, FLOATS, OTHERS)))
    lengths = data.draw(st.none() | arrays(shapes((B,)), INTEGERS))
    try:
        result = MODEL.loss_and_gradients(ids, y, lengths=lengths)
    except REFUSALS as error:
        assert any(str(error).startswith(name) for name in ("x", "y", "lengths")), error
        return
    assert np.isfinite(result.loss) and np.isfinite(result.gradients.flat).all()
    clean = np.array(ids, np.int64), np.array(y, np.int64), None if lengths is None else np.array(lengths, np.int64)
    expected = MODEL.loss_and_gradients(clean[0], clean[1], lengths=clean[2])
    assert result.loss == expected.loss and np.array_equal(result.gradients.flat, expected.gradients.flat)


HUGE = 2**31


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: LSTM(I, H)(np.broadcast_to(np.float32(1), (2**20, 2**20, I))), "x: expected at most"),
        (lambda: LSTM(I, H)(np.broadcast_to(np.float32(1), (2**40, I))), "x: expected at most"),
        (lambda: LSTM(I, H)(np.broadcast_to(np.int8(1), (2**33, 2))), "x: expected at most"),
        (lambda: LSTM(HUGE, HUGE), "input_size, hidden_size: expected less than"),
        (lambda: LSTM(I, 2**29), "input_size, hidden_size: expected less than"),
        (lambda: LSTM(2**30, 2**28), "Unable to allocate|expected|larger"),
        (lambda: LSTM(I, H, 2**40), "num_layers: expected"),
        (lambda: Model(2**40, 5, 2**40, embedding_size=2**20), "expected|Unable|larger"),
        (lambda: LSTM(I, H).initial_state(2**60), "expected|Unable|too big|larger"),
        (lambda: cylstm.calls.Call(LSTM(I, H), 2**40, 2**40), "batch_size, steps: expected at most"),
    ],
)
def test_sizes_beyond_all_memory_are_refused_at_once(call, message):
    import cylstm.calls  # noqa: F401

    tracemalloc.start()
    try:
        with pytest.raises((ValueError, MemoryError), match=message) as raised:
            call()
        # What the system refuses is counted, too.
        assert issubclass(raised.type, MemoryError) or tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_memory_that_overlaps(rng):
    """What is written must not be what is still to be read."""
    layer = LSTM(H, H, seed=1)
    both = rng.standard_normal((2, 1, 4, H)).astype("f4")
    h, c = both.copy()
    expected, final = layer.step(h[0], (h, c))
    state = State(*both)
    y, _ = layer.step(state.h[0], state, out=state)  # x_t is the state that is overwritten
    assert np.array_equal(y, expected) and np.array_equal(state.h, final.h) and np.array_equal(state.c, final.c)
    shared = np.zeros((3, 1, 4, H), "f4").ravel()
    h, c = shared[: 4 * H].reshape(1, 4, H), shared[2 * H : 6 * H].reshape(1, 4, H)
    with pytest.raises(ValueError, match="out: expected two arrays, got h and c in the same memory"):
        layer.step(both[0, 0], None, out=State(h, c))
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        layer.backward(layer.forward(both[0])[2], both[0], out=layer.parameters)
