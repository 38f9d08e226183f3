"""Where the kernels round: the arithmetic that cext/vector.h states, whichever compiler made them of it.

A compiler left to itself makes one multiply-add of a product and a sum in one loop and two instructions in the next:
then a result depends on which loop a row, a column or an element comes to.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import raw

from cylstm._core import kernels

DIGITS = {"float32": 24, "float64": 53}
FUSED = [name for name in kernels.available() if name != "baseline"]


def fma(a, b, c):
    """a b + c, rounded once."""

    def rounded(x):
        step = Fraction(2) ** (math.frexp(float(x))[1] - DIGITS[c.dtype.name])
        return float(round(x / step) * step)

    exactly = np.frompyfunc(Fraction, 1, 1)
    return np.frompyfunc(rounded, 1, 1)(exactly(a) * exactly(b) + exactly(c)).astype(c.dtype)


def test_the_reference_rounds_once(dtype):
    tiny = 2.0 ** -(DIGITS[dtype] - 1)
    a, b, c = (np.array([x], dtype) for x in (1 + tiny, 1 - tiny, -1))
    assert fma(a, b, c) == -(tiny**2) and a * b + c == 0
    a, b, c = (np.array([x], dtype) for x in (1 + tiny, 1.5, tiny**2))  # beside the middle of two neighbours
    assert fma(a, b, c) == 1.5 + 2 * tiny and fma(a, b, -c) == 1.5 + tiny


@pytest.mark.parametrize("K", [1, 6])
def test_every_tile_multiplies_and_adds_in_one_way(isa, dtype, rng, K):
    """Each number of rows, under each number of vectors of columns, in whole blocks of columns and in a narrow one."""
    lanes = raw.lanes(isa, dtype)
    rows, columns, block = 13, 10 * lanes, 4 * lanes
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    A, P, bias = draw(rows, K), draw(K, columns), draw(columns)
    packed = np.concatenate([P[:, j : j + block].ravel() for j in range(0, columns, block)])
    once = twice = np.broadcast_to(bias, (rows, columns))
    for k in range(K):
        once, twice = fma(A[:, k : k + 1], P[k], once), A[:, k : k + 1] * P[k] + twice
    assert (once != twice).any()
    found = set()
    for n in range(1, rows + 1):
        for first in range(0, columns, lanes):
            for last in range(first + lanes, columns + 1, lanes):
                C = np.full((n, columns), np.nan, dtype)
                raw.call(isa, dtype, "product", 0, n, K, columns, first, last, A, K, packed, bias, C, columns)
                got, here = C[:, first:last], np.s_[:n, first:last]
                ways = {"once": np.array_equal(got, once[here]), "twice": np.array_equal(got, twice[here])}
                assert any(ways.values()), f"{n} rows, columns {first} to {last}"
                found |= {way for way in ways if ways[way] and once[here].tobytes() != twice[here].tobytes()}
    assert len(found) == 1
    assert isa == "baseline" or found == {"once"}


def mapped(isa, dtype, function, x):
    y = np.empty_like(x)
    raw.call(isa, dtype, f"map_{function}", len(x), x, y)
    return y


@pytest.mark.parametrize("function", ["exp", "sigmoid", "tanh"])
def test_a_function_has_the_same_bits_wherever_its_argument_lies(isa, dtype, rng, function):
    x = rng.uniform(-9, 9, 333).astype(dtype)
    alone = [mapped(isa, dtype, function, x[n : n + 1]) for n in range(len(x))]
    np.testing.assert_array_equal(mapped(isa, dtype, function, x), np.concatenate(alone))


# Moments kept, and the numbers behind them in kernels.def: such that what is rounded early reaches the last bits.
OPTIMISERS = {
    "sgd": (0, (1.3, 0.0, 0, 0.9, 0.7)),
    "sgd momentum": (1, (1.3, 0.9, 0, 0.9, 0.7)),
    "sgd nesterov": (1, (1.3, 0.9, 1, 0.9, 0.7)),
    "adam": (2, (1.1, 1.7, 0.3, 0.4, 0.2, 0.1, 0.9, 0, 0.7)),
    "adam decoupled": (2, (1.1, 1.7, 0.3, 0.4, 0.2, 0.1, 0.9, 1, 0.7)),
}


def updated(isa, dtype, name, p, g, *moments):
    """All that an update writes, of copies."""
    name, (used, numbers) = name.split()[0], OPTIMISERS[name]
    buffers = [p.copy(), g.copy(), *(m.copy() for m in moments[:used])]
    raw.call(isa, dtype, name, len(p), *buffers, *([None] if used == 0 else []), *numbers)
    return np.array(buffers)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_update_has_the_same_bits_wherever_its_parameter_lies(isa, dtype, rng, name):
    buffers = np.abs(rng.standard_normal((4, 333))).astype(dtype)
    alone = [updated(isa, dtype, name, *buffers[:, n : n + 1]) for n in range(buffers.shape[1])]
    np.testing.assert_array_equal(updated(isa, dtype, name, *buffers), np.concatenate(alone, axis=1))


@pytest.mark.skipif(len(FUSED) < 2, reason="needs two instruction sets with a multiply-add")
def test_sets_with_a_multiply_add_give_the_same_bits(dtype, rng):
    """Where a number is computed from others by itself; sums across lanes differ."""
    x = rng.uniform(-20, 20, 10_000).astype(dtype)
    buffers = np.abs(rng.standard_normal((4, 1000))).astype(dtype)

    def results(isa):
        functions = [mapped(isa, dtype, function, x) for function in ("exp", "sigmoid", "tanh")]
        return functions + [updated(isa, dtype, name, *buffers) for name in OPTIMISERS]

    first, *others = map(results, FUSED)
    for other in others:
        for got, expected in zip(other, first, strict=True):
            np.testing.assert_array_equal(got, expected)
