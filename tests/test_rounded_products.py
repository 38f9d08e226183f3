"""Products of training in bfloat16, kernel by kernel: operands are rounded, whatever their shapes, and sums are not."""

import ctypes

import numpy as np
import pytest
import raw
from small_numbers import bfloat16

from cylstm._core import kernels
from cylstm._core.memory import aligned_empty

ROUNDED, ROUNDED_TILES = 11, 12
ROWS = 1, 5, 16, 21, 40, 64, 70
DEPTHS = 1, 31, 64, 130


def room(size):
    """On a cache line, and never what a kernel may read unwritten."""
    memory = aligned_empty(int(size), "u1")
    memory[:] = 0x5A
    return memory


def tiles_of(rows, K):
    """Bytes of either operand."""
    return -(-rows // 16) * -(-K // 32) * 1024


def packed_right(isa, form, transposed, weights):
    """weights (K, columns)."""
    K, columns = weights.shape
    if form == ROUNDED_TILES:
        out, given = room(tiles_of(columns, K)), np.ascontiguousarray(weights.T if transposed else weights)
        raw.call(isa, "float32", "pack_right", form, int(transposed), K, columns, given, given.shape[1], out)
        return out
    wide, parts = 4 * raw.lanes(isa, "float32"), []
    for first in range(0, columns, wide):
        part = np.ascontiguousarray(weights[:, first : first + wide])
        out = room(part.nbytes)
        raw.call(isa, "float32", "pack_right", form, 0, K, part.shape[1], part, part.shape[1], out)
        parts.append(out)
    whole = room(sum(map(len, parts)))
    whole[:] = np.concatenate(parts)
    return whole


def expect_sums(C, start, left, right, terms):
    """C = start + left right but for what so many additions may round, each to half a unit in the last place."""
    a, w = left.astype(float), right.astype(float)
    most = np.abs(start) + np.abs(a) @ np.abs(w)
    assert (np.abs(C - (start + a @ w)) <= (terms + 1) * 2.0**-24 * most).all()


@pytest.mark.parametrize("K", DEPTHS)
@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_of_rounded_numbers(isa, rng, K, transposed):
    lanes = raw.lanes(isa, "float32")
    forms = () if transposed else (ROUNDED,)  # whose operands are never transposed
    for form in (*forms, ROUNDED_TILES) if "bfloat16_tiles" in kernels.units() else forms:
        columns = 9 * lanes if form == ROUNDED else 9 * 16 + 5
        weights = (rng.standard_normal((K, columns)) * rng.uniform(0.01, 3, (1, columns))).astype("f4")
        P = packed_right(isa, form, transposed, weights)
        for rows in ROWS:
            A = (rng.standard_normal((rows, K)) * rng.uniform(0.01, 30, (rows, 1))).astype("f4")
            left, rounded = A, A
            if form == ROUNDED_TILES:
                left, rounded = room(tiles_of(rows, K)), bfloat16(A)
                given = np.ascontiguousarray(A.T if transposed else A)
                raw.call(isa, "float32", "pack_left", form, int(transposed), rows, K, 0, K, given, given.shape[1],
                         ctypes.c_float(0), left)  # fmt: skip
            for first, last in ((0, columns), (4 * lanes, 8 * lanes), (5 * 16, columns)):
                for bias in (None, rng.standard_normal(columns).astype("f4")):
                    C = rng.standard_normal((rows, columns)).astype("f4")
                    start = C.astype(float) if bias is None else np.broadcast_to(bias, C.shape).astype(float)
                    kept, part = C.copy(), slice(first, last)
                    raw.call(
                        isa, "float32", "product", form, rows, K, columns, first, last, left, K, P, bias, C, columns
                    )
                    expect_sums(C[:, part], start[:, part], rounded, bfloat16(weights[:, part]), K)
                    outside = np.delete(np.arange(columns), part)
                    np.testing.assert_array_equal(C[:, outside], kept[:, outside])


@pytest.mark.parametrize("form", [raw.TILES, ROUNDED_TILES])
@pytest.mark.parametrize("N, H, I", [(1, 20, 7), (31, 48, 40), (70, 33, 21), (130, 64, 64)])
def test_gradients_of_weights(rng, form, N, H, I):
    """Of all units and of some; h the same for all gates, or each gate's own; db of what is not rounded."""
    if "bfloat16_tiles" not in kernels.units():
        pytest.skip("needs tiles")
    parts, Hp = 3 if form == raw.TILES else 1, -(-H // 16) * 16
    of = (lambda values: values) if form == raw.TILES else bfloat16
    dz = np.zeros((N, 4, Hp), "f4")
    dz[..., :H] = rng.standard_normal((N, 4, H))
    dgates = np.ascontiguousarray(dz.reshape(N, 4, Hp // 16, 16).swapaxes(1, 2)).reshape(N, 4 * Hp)
    x, hs = rng.standard_normal((N, I)).astype("f4"), rng.standard_normal((4, N, H)).astype("f4")

    def packed(rows):
        out = room(parts * tiles_of(rows.shape[1], N))
        raw.call("amx", "float32", "pack_right", form, 0, N, rows.shape[1], rows, rows.shape[1], out)
        return out

    for first, last, apart in ((0, Hp, False), (16, Hp, False), (0, Hp, True)):
        dW, dR, db = (rng.standard_normal((4 * H, *tail)).astype("f4") for tail in ((I,), (H,), ()))
        start = [given.astype(float) for given in (dW, dR, db)]
        each = [packed(h) for h in hs]
        of_h = room(sum(map(len, each)))
        of_h[:] = np.concatenate(each)
        raw.call("amx", "float32", "weight_gradients", form, N, H, first, last, dgates, I, packed(x), I, dW, H, of_h,
                 H, len(each[0]) if apart else 0, dR, db, room(4 * parts * tiles_of(16, N)))  # fmt: skip
        for gate in range(4):
            rows = slice(gate * H + first, gate * H + min(last, H))
            d = dz[:, gate, first : min(last, H)]
            h = hs[gate if apart else 0]
            expect_sums(dW[rows], start[0][rows], of(d).T, of(x), 2 * N + 6)
            expect_sums(dR[rows], start[1][rows], of(d).T, of(h), 2 * N + 6)
            expect_sums(db[rows][None], start[2][rows][None], np.ones((1, N)), d, 2 * N + 6)
            np.testing.assert_array_equal(dW[gate * H : gate * H + first], start[0][gate * H : gate * H + first])
