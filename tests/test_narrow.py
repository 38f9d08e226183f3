"""Layers whose last panel of units is narrow, or is not.

A wider layer in which the other units' weights are 0 has whole panels with every instruction set, and the same bits.
"""

import numpy as np
import pytest

from cylstm import LSTM, State, set_num_threads

WIDE = 16  # lanes of the widest vector
SIZES = [1, 2, 3, 4, 5, 8, 9, 12, 17, 20, 24, 25, 33, 36, 40, 50, 66]
ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 40]


def rounded_up(H):
    return -(-H // WIDE) * WIDE


def widened(array, H):
    """H units on an array's last axis, followed by zeros."""
    return np.concatenate([array, np.zeros((*array.shape[:-1], rounded_up(H) - H), array.dtype)], axis=-1)


def narrow_and_whole(I, H, L, D, dtype):
    narrow = LSTM(I, H, L, bidirectional=D == 2, dtype=dtype, seed=H)
    whole = LSTM(I, rounded_up(H), L, bidirectional=D == 2, dtype=dtype)
    for name, values in narrow.parameters.items():
        wide = whole.parameters[name]
        wide[...] = 0
        by_gate = values.reshape(4, H, -1)
        if name.startswith("weight_hh") or (name.startswith("weight_ih") and "l0" not in name):
            by_gate = widened(by_gate.reshape(4, H, -1, H), H).reshape(4, H, -1)
        wide.reshape(4, rounded_up(H), -1)[:, :H] = by_gate
    return narrow, whole


def of_units(y, H, D):
    return y.reshape(*y.shape[:-1], D, -1)[..., :H].reshape(*y.shape[:-1], D * H)


def drawn(rng, B, T, I, H, L, D, dtype):
    x = rng.standard_normal((B, T, I)).astype(dtype)
    return x, State(*rng.standard_normal((2, L * D, B, H)).astype(dtype))


@pytest.mark.parametrize("H", SIZES)
def test_bits_are_those_of_whole_panels(isa, dtype, H):
    for B in ROWS:
        rng = np.random.default_rng(B)
        I, T, L, D = 1 + B % 6, 3 + B % 3, 1 + B // 2 % 2, 1 + B % 2
        narrow, whole = narrow_and_whole(I, H, L, D, dtype)
        x, start = drawn(rng, B, T, I, H, L, D, dtype)
        options = {
            "lengths": rng.integers(1, T + 1, B) if B % 3 == 0 else None,
            "resets": rng.random((B, T)) < 0.3 if B % 4 > 1 else None,
        }
        expected, (h, c) = whole(x, State(widened(start.h, H), widened(start.c, H)), **options)
        for threads in (1, 3):
            set_num_threads(threads)
            for got in (narrow(x, start, **options), narrow.forward(x, start, **options)):
                np.testing.assert_array_equal(got[0], of_units(expected, H, D), f"{B=} {threads=}")
                np.testing.assert_array_equal(got[1].h, h[..., :H])
                np.testing.assert_array_equal(got[1].c, c[..., :H])


@pytest.mark.parametrize("H", [200, 204, 260])
def test_threads_that_share_the_units_of_few_rows(isa, dtype, H, rng):
    """Members begin at odd panels, or have the narrow one alone."""
    layer = LSTM(4, H, 2, dtype=dtype, seed=1)
    for B in (1, 2, 5):
        x, start = drawn(rng, B, 40, 4, H, 2, 1, dtype)
        set_num_threads(1)
        expected, (h, c) = layer(x, start)
        for threads in (1, 2, 3, 5, 7):
            set_num_threads(threads)
            for y, state in (layer(x, start), layer.forward(x, start)[:2]):
                np.testing.assert_array_equal(y, expected, f"{B=} {threads=}")
                np.testing.assert_array_equal(state.h, h)
                np.testing.assert_array_equal(state.c, c)


@pytest.mark.parametrize("H", [3, 8, 20, 24, 40, 66])
def test_steps_rows_and_ids_have_the_bits_of_the_whole_call(isa, dtype, H, rng):
    for B in (1, 2, 5, 8, 13):
        layer, (x, start) = LSTM(4, H, 2, dtype=dtype, seed=1), drawn(rng, B, 6, 4, H, 2, 1, dtype)
        y, (h, c) = layer(x, start)
        state = start
        for t in range(x.shape[1]):
            y_t, state = layer.step(x[:, t], state)
            np.testing.assert_array_equal(y_t, y[:, t])
        np.testing.assert_array_equal(state.h, h)
        np.testing.assert_array_equal(state.c, c)
        row = B // 2
        alone, _ = layer(x[row], State(start.h[:, row : row + 1], start.c[:, row : row + 1]))
        np.testing.assert_array_equal(alone, y[row])
        ids = rng.integers(0, 4, (B, 6))
        np.testing.assert_array_equal(layer(ids)[0], layer(np.eye(4, dtype=dtype)[ids])[0])


@pytest.mark.parametrize("H", [5, 8, 20, 40])
def test_numbers_that_are_not_finite_stay_in_their_row(isa, dtype, H, rng):
    """Rows share vectors."""
    layer, (x, start) = LSTM(4, H, dtype=dtype, seed=1), drawn(rng, 9, 5, 4, H, 1, 1, dtype)
    expected, _ = layer(x, start)
    for bad in (np.nan, np.inf, -np.inf):
        x[4, 2, 1] = bad
        y, _ = layer(x, start)
        np.testing.assert_array_equal(np.delete(y, 4, axis=0), np.delete(expected, 4, axis=0))
        np.testing.assert_array_equal(y[4, :2], expected[4, :2])
        assert not np.array_equal(y[4, 2:], expected[4, 2:])
