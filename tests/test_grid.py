"""Outputs, states and every gradient of the compiled layer against the oracle, over awkward sizes.

The sizes follow an orthogonal array: 121 combinations in which every pair of values of every pair of T, B, I, H occurs.
"""

import numpy as np
import pytest
from against_oracle import answered, exact

from cylstm import LSTM

SIZES = [1, 2, 3, 5, 7, 16, 17, 33, 50, 64, 65]


def combinations(first):
    """(T, B, I, H) with T = SIZES[first]."""
    count = len(SIZES)
    return [(SIZES[first], SIZES[n], SIZES[(first + n) % count], SIZES[(first + 2 * n) % count]) for n in range(count)]


def awkward_layout(array, rng):
    """The same numbers: contiguous, a view of a time-major array, every second row of a larger one, or read-only."""
    kind = rng.integers(4)
    if kind == 1:
        return np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
    if kind == 2:
        larger = np.repeat(array, 2, axis=0)
        return larger[::2]
    if kind == 3:
        array = array.copy()
        array.flags.writeable = False
    return array


@pytest.mark.parametrize("first", range(len(SIZES)))
def test_agrees_with_the_oracle(isa, dtype, close, first):
    rng = np.random.default_rng([20260, first])
    for T, B, I, H in combinations(first):
        layers, directions = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        lengths = rng.integers(0, T + 1, B) if rng.random() < 0.6 else None
        resets = rng.random((B, T)) < 0.15 if rng.random() < 0.6 else None
        what = f"{T=} {B=} {I=} {H=} L={layers} D={directions} {lengths=} resets={resets is not None}"
        layer = LSTM(I, H, layers, bidirectional=directions == 2, bias=bool(rng.random() < 0.8), dtype=dtype, seed=rng)
        parameters = {name: values.astype(np.float64) for name, values in layer.parameters.items()}
        x = rng.standard_normal((B, T, I)).astype(dtype)
        h0, c0, dh, dc = (rng.standard_normal((layers * directions, B, H)).astype(dtype) for _ in range(4))
        dy = rng.standard_normal((B, T, directions * H)).astype(dtype)

        start = awkward_layout(h0, rng), awkward_layout(c0, rng)
        cuts = None if resets is None else awkward_layout(resets, rng)
        y, (hn, cn), tape = layer.forward(awkward_layout(x, rng), start, lengths=lengths, resets=cuts)
        gradients = layer.backward(tape, awkward_layout(dy, rng), (awkward_layout(dh, rng), awkward_layout(dc, rng)))
        expected_y, expected_state, _, dx, dstate, dparameters = answered(
            x.astype(float), parameters, exact((h0, c0)), dy.astype(float), exact((dh, dc)), num_layers=layers,
            bidirectional=directions == 2, lengths=lengths, resets=resets)  # fmt: skip

        close(y, expected_y, what)
        y, state = layer(x, (h0, c0), lengths=lengths, resets=resets)
        close(y, expected_y, f"without a tape {what}")
        close(np.stack(state), np.stack(expected_state), f"without a tape {what}")
        close(hn, expected_state[0], what)
        close(cn, expected_state[1], what)
        close(gradients.x, dx, f"dx {what}")
        close(gradients.state.h, dstate[0], f"dh0 {what}")
        close(gradients.state.c, dstate[1], f"dc0 {what}")
        assert gradients.parameters.keys() == dparameters.keys()
        for name, values in gradients.parameters.items():
            close(values, dparameters[name], f"{name} {what}")
