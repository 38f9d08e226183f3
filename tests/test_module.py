"""The layer behind cylstm.torch's modules against the oracle: weights told by address, whoever writes to them, in
short calls (which read them as they lie) and long ones; torch's orders of rows; dropout masks from outside."""

import numpy as np
import pytest

from cylstm import LSTM, oracle
from cylstm._core.torch_layer import Module, packed_lengths

SIZES = [1, 2, 3, 5, 7, 16, 17, 33, 50, 64, 65]


class Weights:
    """A module's weights with two biases, in float64 under the oracle's names, and as memory of their own."""

    def __init__(self, I, H, L, D, bias, dtype, rng):
        self.bias, self.H = bias, H
        layout = LSTM.layout(I, H, L, bidirectional=D == 2, bias=bias)
        self.arrays, self.names = [], []
        for name, shape in layout.items():
            for _ in range(2 if name.startswith("bias") else 1):
                self.arrays.append(rng.standard_normal(shape).astype(dtype) * 0.5)
                self.names.append(name)

    def addresses(self):
        return [array.ctypes.data for array in self.arrays]

    def parameters(self):
        """The two biases added in the arrays' type, as the compiled code does."""
        sums = {}
        for name, array in zip(self.names, self.arrays, strict=True):
            sums[name] = sums[name] + array if name in sums else array
        return {name: values.astype(np.float64) for name, values in sums.items()}


def setting(rng, dtype, T, B, I, H):
    L, D, bias = int(rng.integers(1, 4)), int(rng.integers(1, 3)), bool(rng.random() < 0.8)
    module, weights = Module(I, H, L, D, bias, 0, dtype), Weights(I, H, L, D, bias, dtype, rng)
    x = rng.standard_normal((B, T, I)).astype(dtype)
    h, c = rng.standard_normal((2, L * D, B, H)).astype(dtype)
    return module, weights, x, h, c, dict(num_layers=L, bidirectional=D == 2)


def widened(*arrays):
    return tuple(array.astype(np.float64) for array in arrays)


@pytest.mark.parametrize("rows", [(1, 1), (3, 1), (1, 15), (15, 1), (2, 7), (4, 4), (5, 9)])
def test_short_and_long_calls_agree_with_the_oracle(isa, dtype, close, rows):
    B, T = rows
    rng = np.random.default_rng([20261, B, T])
    for n, I in enumerate(SIZES):
        H = SIZES[(3 * n + B) % len(SIZES)]
        module, weights, x, h, c, options = setting(rng, dtype, T, B, I, H)
        resets = rng.random((B, T)) < 0.2 if n % 3 == 0 else None
        expected, (hn, cn), _ = oracle.forward(
            *widened(x), weights.parameters(), widened(h, c), resets=resets, **options
        )
        for batch_first, given in ((True, x), (False, np.ascontiguousarray(x.swapaxes(0, 1)))):
            y, *final, tape = module.run(
                given, h, c, weights.addresses(), batch_first, None, None, resets, False, 2
            )  # fmt: skip
            assert tape is None
            assert y.flags.c_contiguous
            close(y.swapaxes(0, 1), expected, f"{rows} {I=} {H=} {batch_first=}")
            close(final[0], hn)
            close(final[1], cn)


@pytest.mark.parametrize("bias_only", [False, True])
@pytest.mark.parametrize("steps", [1, 5, 15, 16, 40])
def test_every_write_is_seen(isa, dtype, close, steps, bias_only):
    rng = np.random.default_rng([20262, steps])
    module, weights, x, h, c, options = setting(rng, dtype, steps, 1, 7, 33)
    weights.arrays = [np.ascontiguousarray(array) for array in weights.arrays]
    for name, array in zip(weights.names, weights.arrays, strict=True):
        if bias_only and not name.startswith("bias"):
            continue
        before = module.run(x, h, c, weights.addresses(), True, None, None, None, False, 2)[0]
        array.flat[-1] += 0.5
        y = module.run(x, h, c, weights.addresses(), True, None, None, None, False, 2)[0]
        assert not np.array_equal(y, before), name
        close(y.swapaxes(0, 1), oracle.forward(*widened(x), weights.parameters(), widened(h, c), **options)[0], name)


def test_a_row_alone_has_the_bits_of_the_row_in_a_batch(isa, dtype):
    rng = np.random.default_rng(20263)
    module, weights, x, h, c, _ = setting(rng, dtype, 2, 7, 5, 50)
    y = module.run(x, h, c, weights.addresses(), True, None, None, None, False, 2)[0]
    for b in range(7):
        row = slice(b, b + 1)
        alone = module.run(x[row], h[:, row], c[:, row], weights.addresses(), True, None, None, None, False, 1)[0]
        np.testing.assert_array_equal(alone[:, 0], y[:, b])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_short_calls_have_the_same_bits_for_any_number_of_threads(isa, dtype, threads):
    rng = np.random.default_rng(20264)
    module, weights, x, h, c, _ = setting(rng, dtype, 3, 5, 300, 400)
    expected = module.run(x, h, c, weights.addresses(), True, None, None, None, False, 1)[0]
    got = module.run(x, h, c, weights.addresses(), True, None, None, None, False, threads)[0]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("given", ["all", "dy", "states"])
def test_gradients_agree_with_the_oracle(isa, dtype, close, batch_first, given):
    rng = np.random.default_rng([20265, batch_first])
    for T, B, I, H in [(1, 1, 3, 5), (4, 3, 17, 33), (9, 6, 1, 16), (3, 40, 50, 65)]:
        module, weights, x, h, c, options = setting(rng, dtype, T, B, I, H)
        D = 1 + options["bidirectional"]
        dy = rng.standard_normal((T, B, D * H)).astype(dtype) if given != "states" else None
        dh, dc = rng.standard_normal((2, *h.shape)).astype(dtype) if given != "dy" else (None, None)
        _, _, oracle_tape = oracle.forward(*widened(x), weights.parameters(), widened(h, c), **options)
        zeros = np.zeros((B, T, D * H))
        expected_dx, expected_state, expected = oracle.backward(
            oracle_tape, zeros if dy is None else dy.swapaxes(0, 1).astype(float),
            widened(np.zeros_like(h) if dh is None else dh, np.zeros_like(c) if dc is None else dc))  # fmt: skip
        x_given = x if batch_first else np.ascontiguousarray(x.swapaxes(0, 1))
        tape = module.run(x_given, h, c, weights.addresses(), batch_first, None, None, None, True, 2)[3]
        dx, dh0, dc0, parts = module.backward(tape, dy, dh, dc, True, batch_first, 2)
        close(dx if batch_first else dx.swapaxes(0, 1), expected_dx, "dx")
        close(dh0, expected_state[0])
        close(dc0, expected_state[1])
        for name, values in zip(weights.names, parts, strict=True):
            close(values, expected[name], name)
        assert module.backward(tape, dy, dh, dc, True, batch_first, 2) is None


def test_backward_has_the_weights_that_forward_had(dtype):
    """Though others have come meanwhile, and others again have taken their memory."""
    rng = np.random.default_rng(20266)
    module, weights, x, h, c, _ = setting(rng, dtype, 4, 5, 3, 7)
    tapes = [module.run(x, h, c, weights.addresses(), True, None, None, None, True, 2)[3] for _ in range(2)]
    expected = module.backward(tapes[0], None, h, c, True, True, 2)
    for _ in range(3):
        weights.arrays[1][2, 3] += 1
        module.run(x, h, c, weights.addresses(), True, None, None, None, True, 2)
    got = module.backward(tapes[1], None, h, c, True, True, 2)
    for a, b in zip([*got[:3], *got[3]], [*expected[:3], *expected[3]], strict=True):
        np.testing.assert_array_equal(a, b)


def test_packed_rows(isa, dtype, close):
    rng = np.random.default_rng(20267)
    lengths = np.array([9, 9, 6, 2, 1])
    B, T = len(lengths), lengths[0]
    module, weights, x, h, c, options = setting(rng, dtype, T, B, 5, 17)
    D = 1 + options["bidirectional"]
    dy = rng.standard_normal((B, T, D * 17)).astype(dtype)
    expected, state, oracle_tape = oracle.forward(
        *widened(x), weights.parameters(), widened(h, c), lengths=lengths, **options
    )
    expected_dx, _, expected_parts = oracle.backward(oracle_tape, *widened(dy), widened(h, c))
    there = np.arange(T)[:, None] < lengths
    packed, sizes = x.swapaxes(0, 1)[there], there.sum(1)
    found = packed_lengths(sizes, len(packed))
    np.testing.assert_array_equal(found, lengths)
    y, hn, cn, tape = module.run(packed, h, c, weights.addresses(), False, found, None, None, True, 2)
    close(y, expected.swapaxes(0, 1)[there])
    close(hn, state[0])
    close(cn, state[1])
    dx, *_, parts = module.backward(tape, dy.swapaxes(0, 1)[there], h, c, True, False, 2)
    close(dx, expected_dx.swapaxes(0, 1)[there])
    for name, values in zip(weights.names, parts, strict=True):
        close(values, expected_parts[name], name)


@pytest.mark.parametrize("sizes, rows", [([2, 3], 5), ([3, 0], 3), ([3, 2], 4), ([], 0), ([2, -1], 1), ([2, 2], 5)])
def test_sizes_that_are_none_of_packed_rows(sizes, rows):
    assert packed_lengths(np.array(sizes, np.int64), rows) is None


@pytest.mark.parametrize("keep", [False, True])
def test_masks_from_outside(isa, dtype, close, keep):
    rng = np.random.default_rng(20268)
    T, B, I, H, L = 4, 3, 5, 17, 3
    module, weights = Module(I, H, L, 2, True, 0, dtype), Weights(I, H, L, 2, True, dtype, rng)
    x, masks = rng.standard_normal((T, B, I)).astype(dtype), rng.random((L - 1, T, B, 2 * H)).astype(dtype)
    expected = oracle.forward(
        x.swapaxes(0, 1).astype(float), weights.parameters(), None, num_layers=L, bidirectional=True,
        dropout_masks=list(masks.swapaxes(1, 2).astype(float)))[0]  # fmt: skip
    y = module.run(x, None, None, weights.addresses(), False, None, masks, None, keep, 2)[0]
    close(y.swapaxes(0, 1), expected)


@pytest.mark.parametrize("broken", [None, "x", "h", "dy"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_finite_gives_what_the_layer_gives(isa, broken, packed):
    """Tiles leave such calls to the other kernels here as they do there."""
    rng = np.random.default_rng(20264)
    T, B, I, H = 5, 20, 40, 24
    module, weights = Module(I, H, 2, 1, True, 0, "float32"), Weights(I, H, 2, 1, True, "float32", rng)
    layer = LSTM(I, H, 2)
    for name, values in weights.parameters().items():
        layer.parameters[name][:] = values
    x, dy = (rng.standard_normal((B, T, n)).astype("f4") for n in (I, H))
    h, c = rng.standard_normal((2, 2, B, H)).astype("f4")
    lengths = np.sort(rng.integers(1, T + 1, B))[::-1].copy() if packed else None
    if broken is not None:
        {"x": x, "h": h, "dy": dy}[broken][1, 0, 3] = np.inf
    y, final, tape = layer.forward(x, (h, c), lengths=lengths)
    expected = layer.backward(tape, dy)
    alive = [(b, t) for t in range(T) for b in range(B) if not packed or lengths[b] > t]

    def given(array):
        return np.stack([array[b, t] for b, t in alive]) if packed else np.ascontiguousarray(array.swapaxes(0, 1))

    got, hn, cn, tape = module.run(given(x), h, c, weights.addresses(), False, lengths, None, None, True, 2)
    dx, dh, dc, gradients = module.backward(tape, given(dy), None, None, True, False, 2)
    pairs = [(got, given(y)), (hn, final.h), (cn, final.c), (dx, given(expected.x)), (dh, expected.state.h)]
    pairs += [(dc, expected.state.c)]
    pairs += [(values, expected.parameters[name]) for name, values in zip(weights.names, gradients, strict=True)]
    for found, wanted in pairs:
        np.testing.assert_array_equal(found, wanted)
    assert np.isfinite(got).all()
