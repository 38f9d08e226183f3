"""Products by weights in fewer bits, kernel by kernel: every instruction set, every unit that a form may take, rows and
numbers of k that fill no block."""

import ctypes

import numpy as np
import pytest
import raw
from small_numbers import UNITS, bfloat16, float16, int8_rows, int8_sums, int8_weights, units_of

from cylstm._core.memory import aligned_empty

ROWS = 1, 2, 3, 4, 5, 6, 17, 33, 70
DEPTHS = 1, 3, 30, 65, 128, 300


def room(size, dtype="f4"):
    """On a cache line, and never what a kernel may read unwritten."""
    memory = aligned_empty(size, dtype)
    memory.view("u1")[:] = 0x5A
    return memory


def packed_left(isa, form, precision, A, bound):
    rows, K = A.shape
    out = room(rows * (K + 200))
    raw.call(isa, "float32", "pack_left", form, 0, rows, K, 0, K, A, K, ctypes.c_float(bound), out)
    return A if precision == "float16" else out


def packed_right(isa, form, precision, weights):
    """weights (columns, K) in panels."""
    (columns, K), wide = weights.shape, 4 * raw.lanes(isa, "float32")
    padded = {"float16": K, "bfloat16": -(-K // 32) * 32, "int8": -(-K // 64) * 64 + 8}[precision]
    parts = []
    for first in range(0, columns, wide):
        part = weights[first : first + wide]
        numbers, scales = int8_weights(part) if precision == "int8" else (part, np.zeros(len(part)))
        numbers = float16(numbers) if precision == "float16" else numbers
        P = np.ascontiguousarray(np.vstack([numbers.T, scales]), np.float32)
        out = room(padded * len(part), {"int8": "i1"}.get(precision, "u2"))
        raw.call(isa, "float32", "pack_right", form, 0, K, len(part), P, len(part), out)
        parts.append(out.view("u1"))
    whole = room(sum(map(len, parts)), "u1")
    whole[:] = np.concatenate(parts)
    return whole


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("K", DEPTHS)
def test_products_are_what_numpy_says(isa, precision, rng, K):
    for form in units_of(precision):
        check_products(isa, precision, form, rng, K)


def check_products(isa, precision, number, rng, K):
    lanes = raw.lanes(isa, "float32")
    columns = 12 * lanes  # three panels
    weights = (rng.standard_normal((columns, K)) * rng.uniform(0.01, 3, (columns, 1))).astype("f4")
    P = packed_right(isa, number, precision, weights)
    for rows in ROWS:
        A = (rng.standard_normal((rows, K)) * rng.uniform(0.01, 30, (rows, 1))).astype("f4")
        A[0, :] *= 0 if rows > 2 else 1
        bound = 0.0 if rows % 2 else 50.0
        left = packed_left(isa, number, precision, A, bound)
        for first, last in ((0, columns), (4 * lanes, 8 * lanes), (4 * lanes, columns)):
            for bias in (None, rng.standard_normal(columns).astype("f4")):
                C = rng.standard_normal((rows, columns)).astype("f4")
                start = C.copy() if bias is None else np.broadcast_to(bias, C.shape)
                expected = C.copy()
                part = slice(first, last)
                raw.call(isa, "float32", "product", number, rows, K, columns, first, last, left, K, P, bias, C, columns)
                if precision == "int8":
                    expected[:, part] = int8_sums(start, A, weights, bound or None)[:, part]
                    np.testing.assert_array_equal(C, expected)
                    continue
                a, w = (A, float16(weights)) if precision == "float16" else (bfloat16(A), bfloat16(weights))
                a, w = a.astype(float), w.astype(float)
                expected = expected.astype(float)
                expected[:, part] = (start + a @ w.T)[:, part]
                # each of K additions rounds to half a unit in the last place of a sum, which this bounds
                most = np.abs(start) + np.abs(a) @ np.abs(w).T
                assert (np.abs(C - expected) <= (K + 1) * 2.0**-24 * most).all()


def test_all_units_of_int8_give_the_same_bits(isa, rng):
    rows, K, columns = 21, 333, 3 * 64
    weights, A = rng.standard_normal((columns, K)).astype("f4"), rng.standard_normal((rows, K)).astype("f4")
    found = []
    for number in units_of("int8"):
        C = np.zeros((rows, columns), "f4")
        left, P = packed_left(isa, number, "int8", A, 0.0), packed_right(isa, number, "int8", weights)
        raw.call(isa, "float32", "product", number, rows, K, columns, 0, columns, left, K, P, None, C, columns)
        found.append(C)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    assert np.ptp(found[0]) > 1


def test_the_largest_sums_of_int8(isa, rng):
    """All of a row and a column at their ends: as many as fit into 32 bits."""
    K, columns = 65536, 4 * raw.lanes(isa, "float32")
    weights = np.where(rng.random((columns, K)) < 0.001, -1, 1).astype("f4")
    weights[1] *= -1
    A = np.ones((2, K), "f4")
    A[1] *= -1
    for number in units_of("int8"):
        C = np.zeros((2, columns), "f4")
        left, P = packed_left(isa, number, "int8", A, 0.0), packed_right(isa, number, "int8", weights)
        raw.call(isa, "float32", "product", number, 2, K, columns, 0, columns, left, K, P, None, C, columns)
        np.testing.assert_array_equal(C, int8_sums(np.zeros_like(C), A, weights))


def bits_of_left(isa, precision, A, bound=0.0):
    return packed_left(isa, UNITS[precision][precision], precision, A, bound)


def test_rounding_to_bfloat16(isa, rng):
    """To the nearest, halves to even, signs, subnormal numbers, infinity and NaN; zeros past K."""
    awkward = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, -1.00390625, 3.3895314e38, 3.4e38, 1e-40, -1e-45, np.inf]
    A = np.concatenate([awkward, [-np.inf], rng.standard_normal(25)]).astype("f4")[None]
    K = A.shape[1]
    found = bits_of_left(isa, "bfloat16", A).view("u2")[:64]
    with np.errstate(over="ignore"):
        expected = bfloat16(A[0])
    np.testing.assert_array_equal((found[:K].astype("u4") << 16).view("f4"), expected)
    np.testing.assert_array_equal(np.signbit((found[:K].astype("u4") << 16).view("f4")), np.signbit(A[0]))
    assert (found[K:] == 0).all()
    nan = np.array([[np.nan, np.uint32(0x7FFFFFFF).view("f4"), np.uint32(0xFF800001).view("f4")]], "f4")
    assert np.isnan((bits_of_left(isa, "bfloat16", nan).view("u2")[:3].astype("u4") << 16).view("f4")).all()


def test_steps_of_int8(isa, rng):
    """Halves to even; a bound; rows of zeros, of numbers too small for a scale, and of NaN and infinity."""
    A = np.zeros((6, 37), "f4")
    A[0, :8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -127]
    A[1] = rng.standard_normal(37)
    A[2] = 1e-40
    A[3, 5] = np.nan
    A[4, 6] = -np.inf
    found = bits_of_left(isa, "int8", A).view("f4")[: 6 * 32].reshape(6, 32)
    q, scales = int8_rows(A[:3])
    for n in range(3):
        np.testing.assert_array_equal(found[n].view("u1")[:37].astype(int) - 128, q[n])
        assert found[n, 16] == scales[n]
    assert found[0].view("u1")[1:8].tolist() == [128, 130, 130, 128, 126, 254, 1]
    assert np.isnan(found[3:5, 16]).all() and found[2, 16] == found[5, 16] == 0
    bounded = bits_of_left(isa, "int8", A[:1] / 100, 1.0).view("f4")[:32]
    assert bounded[16] == np.float32(1) / np.float32(127) and bounded.view("u1")[0] == 255  # 1.27, cut to 1


def test_a_float16_of_any_kind_comes_back(isa):
    """All finite ones, as weights: packed and read again by a product with 1."""
    every = np.arange(65536, dtype="u2").view("f2")
    every = every[np.isfinite(every)].astype("f4")
    lanes = raw.lanes(isa, "float32")
    weights = every[: len(every) // (4 * lanes) * 4 * lanes, None]
    P, C = packed_right(isa, 4, "float16", weights), np.zeros((1, len(weights)), "f4")
    raw.call(isa, "float32", "product", 4, 1, 1, len(weights), 0, len(weights), np.ones((1, 1), "f4"), 1, P, None, C,
             len(weights))  # fmt: skip
    np.testing.assert_array_equal(C[0], weights[:, 0])
