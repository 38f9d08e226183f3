"""The C kernels on their own: errors of the elementwise functions, dispatch, agreement between products."""

import ctypes
import itertools
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
import raw

from cylstm import LSTM, oracle
from cylstm._core import kernels

# In units of the last place, as stated in cext/kernels.def.
LARGEST_ERROR = {"exp": 1.1, "sigmoid": 2.5, "tanh": 2.5}
EXACT = {
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
RANGE = {"float32": 86.0, "float64": 707.0}


def awkward_numbers(rng, dtype):
    """Uniform over the range, log-uniform to 0, near the odd multiples of ln 2 / 2 where the reduction switches."""
    top = RANGE[dtype]
    smallest = {"float32": -37, "float64": -300}[dtype]
    x = np.concatenate([
        rng.uniform(-top, top, 100_000),
        rng.uniform(-2, 2, 100_000),
        rng.choice([-1, 1], 50_000) * 10.0 ** rng.uniform(smallest, 1.9, 50_000),
        (np.arange(-100, 100) + 0.5)[:, None].repeat(50, 1).ravel() * np.log(2) + rng.normal(0, 1e-6, 10_000),
    ])  # fmt: skip
    return x.astype(dtype)


@pytest.mark.parametrize("function", ["exp", "sigmoid", "tanh"])
def test_elementwise_error_is_what_the_header_says(isa, dtype, rng, function):
    x = awkward_numbers(rng, dtype)
    exact = EXACT[function](x.astype(np.longdouble))
    got = kernels.elementwise(function, x)
    ulp = np.spacing(np.abs(exact).astype(dtype)).astype(np.longdouble)
    error = np.abs(got - exact) / ulp
    worst = int(error.argmax())
    assert error[worst] <= LARGEST_ERROR[function], f"{function}({x[worst]!r}) is {error[worst]:.2f} ULP off"


@pytest.mark.parametrize(("function", "low", "high"), [("exp", 0, None), ("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_elementwise_limits(isa, dtype, function, low, high):
    x = np.array([-np.inf, -1e5, 1e5, np.inf, np.nan, 0.5, -0.25], dtype)
    got = kernels.elementwise(function, x)
    tiny = {"float32": 2e-38, "float64": 1e-307}[dtype]
    np.testing.assert_allclose(got[:2], low, atol=tiny)
    if high is not None:
        np.testing.assert_array_equal(got[2:4], high)
    else:
        assert (got[2:4] > {"float32": 1e38, "float64": 8e307}[dtype]).all()
    assert np.isnan(got[4])
    np.testing.assert_allclose(got[5:], EXACT[function](x[5:].astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 15, 16, 17, 31, 33])
def test_elementwise_of_every_length(isa, dtype, rng, n):
    x = rng.standard_normal(n + 1).astype(dtype)[1:]  # and of any alignment
    np.testing.assert_allclose(kernels.elementwise("tanh", x), np.tanh(x), rtol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"isa: expected one of 'baseline'.*got 'mmx'"):
        kernels.use("mmx")
    with pytest.raises(ValueError, match="function: expected"):
        kernels.elementwise("cosh", np.full(3, 0.5))


@pytest.mark.parametrize("name", kernels.available())
def test_the_environment_chooses_the_instruction_set(name):
    """Of the kernels, and of BLAS."""
    code = "import cylstm, cylstm._core.blas; print(cylstm.instruction_set(), cylstm._core.blas.description())"
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    command, environment = [sys.executable, "-c", code], {**environment, "CYLSTM_ISA": name}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found, blas = answer.split(maxsplit=1)
    assert found == name
    if "OpenBLAS" in blas and "avx2" in kernels.available():
        core = {"baseline": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX", "amx": "SkylakeX"}[name]
        assert core in blas
        environment["OPENBLAS_CORETYPE"] = "Sandybridge"
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert "Sandybridge" in answer, "what the caller asks for does not count"


def test_an_unknown_instruction_set_in_the_environment_is_named():
    command, environment = [sys.executable, "-c", "import cylstm"], {**os.environ, "CYLSTM_ISA": "mmx"}
    *_, error = subprocess.run(command, env=environment, capture_output=True, text=True).stderr.splitlines()
    assert error.startswith("ValueError: CYLSTM_ISA: expected one of 'baseline'") and error.endswith("got 'mmx'")


@pytest.mark.parametrize("rows", [2, 3, 5, 7, 12, 13])
def test_a_row_has_the_same_bits_alone_and_in_a_batch(isa, dtype, rng, rows):
    """Sums run over k in one order whatever the number of rows. Tiles, which serve larger batches, have another."""
    layer = LSTM(130, 37, dtype=dtype, seed=3)
    x = rng.standard_normal((rows, 4, 130)).astype(dtype)
    together, _ = layer(x)
    tiled = isa == "amx" and dtype == "float32" and rows >= 12
    for row in range(rows):
        alone, _ = layer(x[row])
        if tiled:
            np.testing.assert_allclose(alone, together[row], rtol=0, atol=2e-6)
        else:
            np.testing.assert_array_equal(alone, together[row])
    if tiled:
        again, _ = layer(np.concatenate([rng.standard_normal((19, 4, 130)).astype(dtype), x]))
        np.testing.assert_array_equal(again[19:], together)


def test_saturated_gates_agree_with_the_oracle(isa, dtype, close):
    """Pre-activations up to infinity: the sigmoids that share a division may not overflow together."""
    sizes = [0.5, -3.0, 44.0, -44.0, 400.0, -400.0, 1e30, -1e30, np.inf, -np.inf]
    x = np.array(np.meshgrid(*[sizes] * 4)).reshape(1, 4, -1).swapaxes(1, 2).astype(dtype)[:, ::7].copy()
    x[np.isinf(x)] = np.sign(x[np.isinf(x)]) * np.finfo(dtype).max
    T = x.shape[1]
    layer = LSTM(4, 1, dtype=dtype, seed=1)
    layer.parameters["weight_ih_l0"][:], layer.parameters["weight_hh_l0"][:] = np.eye(4), 0.01
    layer.parameters["bias_l0"][:] = 0
    parameters = {name: values.astype(np.float64) for name, values in layer.parameters.items()}
    resets = np.zeros((1, T), bool)
    resets[0, ::5] = True  # a cell that grows by one at each step says less
    y, (_, cn) = layer(x, resets=resets)
    expected, state, _ = oracle.forward(x.astype(np.float64), parameters, num_layers=1, resets=resets)
    assert T > 1000 and np.abs(expected).max() > 0.9
    close(y, expected, "y")
    # A gate is closed from where 1 - sigmoid says nothing any more; the oracle goes on down to 0.
    np.testing.assert_allclose(cn, state[1], rtol=1e-5, atol={"float32": 1e-18, "float64": 1e-150}[dtype])


def test_nan_in_an_output_gate_stays_in_it(isa, dtype):
    layer = LSTM(2, 18, dtype=dtype, seed=1)
    layer.parameters["bias_l0"][3 * 18 + 5] = np.nan
    y, (h, c) = layer(np.random.default_rng(1).standard_normal((3, 1, 2)).astype(dtype))  # h would carry it on
    assert np.isnan(y[..., 5]).all() and np.isnan(h[..., 5]).all()
    assert np.isfinite(np.delete(y, 5, axis=-1)).all() and np.isfinite(c).all()


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFC00001, 0x7F800001, 0xFF80FFFF])
def test_every_nan_passes_through(isa, bits):
    """Quiet or signalling, of any payload, also where floats are cut into parts."""
    x = np.random.default_rng(1).standard_normal((16, 2, 24)).astype(np.float32)
    x.view(np.uint32)[3, 0, 5] = bits
    y, _ = LSTM(24, 20, seed=1)(x)
    assert np.isnan(y[3]).all()
    assert np.isfinite(np.delete(y, 3, axis=0)).all()


SMALL = {4, 5, 8, 11}  # float16, bfloat16, int8, floats rounded to bfloat16; and by units of their own:
CUT_FORMS = {
    "baseline": SMALL, "avx2": SMALL | {9}, "avx512": SMALL | {6, 9}, "amx": SMALL | {6, 9} | {raw.TILES, 7, 10, 12},
}  # fmt: skip


def test_every_name_in_a_table_is_a_kernel_of_its_own():
    for isa in kernels.available():
        for dtype in ("float32", "float64"):
            found = raw.addresses(isa, dtype)
            missing = {name for name, address in found.items() if address is None}
            assert missing == (set() if (isa, dtype) == ("amx", "float32") else raw.TILE_KERNELS)
            assert raw.cut_forms(isa, dtype) == (CUT_FORMS[isa] if dtype == "float32" else set())
            assert len(set(found.values()) - {None}) == len(found) - len(missing)


def test_packed_weights_are_where_the_header_says_with_zeros_around_them(isa, dtype, rng):
    """And back again, of some units; nothing is written past the end."""
    lanes = raw.lanes(isa, dtype)
    sizes = sorted({1, lanes // 2, lanes - 1, lanes, lanes + 1, 2 * lanes + 3, 5 * lanes + 1})
    for H, K in itertools.product(sizes, sizes):
        Hp, Kp = (-(-size // lanes) * lanes for size in (H, K))
        W = rng.standard_normal((4 * H, K)).astype(dtype)
        padded = np.zeros((4, Hp, Kp), dtype)
        padded[:, :H, :K] = W.reshape(4, H, K)
        rows = padded.reshape(4, -1, lanes, Kp).swapaxes(0, 1).reshape(4 * Hp, Kp)

        def packed(name, n, expected, *form, W=W, H=H, K=K):
            out = np.full(expected.size + 1, np.nan, dtype)
            raw.call(isa, dtype, name, *form, W, H, K, n, out)
            np.testing.assert_array_equal(out, [*expected.ravel(), np.nan], f"{name} {H=} {K=} {n=}")

        for panel in range(Hp // lanes):
            of_panel = rows[4 * lanes * panel :, :K][: 4 * lanes]
            packed("pack_gates", panel, of_panel.T, raw.PANELS)
            if panel == H // lanes and 2 * (H % lanes) <= lanes:  # a half or a quarter of each gate's lanes
                most = lanes // 4 if 4 * (H % lanes) <= lanes else lanes // 2
                of_panel = of_panel.reshape(4, lanes, K)[:, :most].reshape(4 * most, K)
            packed("pack_gates", panel, of_panel.T, raw.NARROW)
        for block in range(-(-K // (4 * lanes))):
            packed("pack_columns", block, rows[:, 4 * lanes * block :][:, : 4 * lanes])
        for first in range(0, Hp, lanes):
            last = first + lanes if first % (2 * lanes) else Hp
            units = np.arange(4 * H) % H
            expected = np.where(((first <= units) & (units < last))[:, None], W, np.nan)
            for name, given in (("unpack_rows", rows[:, :K]), ("unpack_columns", rows[:, :K].T)):
                got = np.full_like(W, np.nan)
                raw.call(isa, dtype, name, np.ascontiguousarray(given), H, K, first, last, got)
                np.testing.assert_array_equal(got, expected, f"{name} {H=} {K=} {first=}")


@pytest.mark.parametrize(
    "N, H, I, Y", [(1, 5, 3, 5), (7, 20, 1, 20), (70, 50, 53, 50), (530, 37, 16, 37), (41, 24, 9, 10)]
)
@pytest.mark.parametrize("apart", [False, True])
def test_gradients_of_weights(isa, dtype, rng, N, H, I, Y, apart):
    """Added to what is there, of all units and of some; h the same for all gates, or each gate's own."""
    lanes = raw.lanes(isa, dtype)
    Hp, resolution = -(-H // lanes) * lanes, np.finfo(dtype).eps
    dz = np.zeros((N, 4, Hp), dtype)
    dz[..., :H] = rng.standard_normal((N, 4, H))
    dgates = np.ascontiguousarray(dz.reshape(N, 4, -1, lanes).swapaxes(1, 2)).reshape(N, 4 * Hp)
    x, hs = rng.standard_normal((N, I + 2)).astype(dtype), rng.standard_normal((4, N, Y + 3)).astype(dtype)
    scratch = np.empty(3 * 16 * 64 * 4 + min(N, 256) * 128, "u1")
    for first, last, with_x, with_h in (
        (0, Hp, True, True),
        (lanes, Hp, True, True),
        (0, lanes, False, True),
        (0, Hp, True, False),
    ):
        given = [rng.standard_normal((4 * H, *tail)).astype(dtype) for tail in ((I,), (Y,), ())]
        dW, dR, db = (start.copy() for start in given)
        raw.call(isa, dtype, "weight_gradients", 0, N, H, first, last, dgates, I * with_x, x, I + 2, dW, Y,
                 hs if with_h else None, Y + 3, hs[0].nbytes * apart, dR, db if with_x else None, scratch)  # fmt: skip
        expected = [start.astype(float) for start in given]
        for gate in range(4):
            rows, d = slice(gate * H + first, gate * H + min(last, H)), dz[:, gate, first : min(last, H)].astype(float)
            expected[0][rows] += d.T @ x[:, :I] * with_x
            expected[1][rows] += d.T @ hs[gate if apart else 0, :, :Y] * with_h
            expected[2][rows] += d.sum(0) * with_x
        for got, right in zip((dW, dR, db), expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=0, atol=40 * resolution * N**0.5)


def before_forbidden_memory(array):
    """A copy, behind whose last byte nobody may read."""
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, size + mmap.PAGESIZE), np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(memory.ctypes.data + size), mmap.PAGESIZE, 0) == 0
    copy = memory[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_nothing_is_read_behind_the_weights_of_others(isa, dtype, rng):
    """The kernels that take (4H, K) as its owner has it, which is not padded; one that reads on is killed."""
    lanes = raw.lanes(isa, dtype)
    for H, K in itertools.product((1, lanes - 1, lanes, lanes + 1), (1, lanes - 1, lanes, 2 * lanes + 1)):
        H, K = max(1, H), max(1, K)
        Hp, blocks = -(-H // lanes) * lanes, -(-K // (4 * lanes))
        W, A = (before_forbidden_memory(rng.standard_normal((n, K)).astype(dtype)) for n in (4 * H, 3))
        C = np.zeros((3, 4 * Hp), dtype)
        raw.call(isa, dtype, "product", raw.ROWS, 3, K, 4 * H, 0, 4 * Hp, A, K, W, None, C, 4 * Hp)
        got = C.reshape(3, -1, 4, lanes).swapaxes(1, 2).reshape(3, 4, Hp)
        np.testing.assert_allclose(got[..., :H], (A @ W.T).reshape(3, 4, H), rtol=1e-4, atol=1e-4)
        assert not got[..., H:].any()
        out = np.empty((4 * Hp, 4 * lanes * blocks + K), dtype)
        for panel in range(Hp // lanes):
            for form in (raw.PANELS, raw.NARROW):
                raw.call(isa, dtype, "pack_gates", form, W, H, K, panel, out)
        for block in range(blocks):
            raw.call(isa, dtype, "pack_columns", W, H, K, block, out)
