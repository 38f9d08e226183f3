"""Activations of dense layers: their errors, their slopes, and what comes of numbers that are none."""

import numpy as np
import pytest
from gradcheck import check_gradients
from test_kernels import RANGE, awkward_numbers

from cylstm._core import updates
from cylstm.activations import KINDS, numbers_of

EXACT = {
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, z / 100),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-abs(z))),
    "softsign": lambda z: z / (1 + abs(z)),
    "gelu_tanh": lambda z: z / (1 + np.exp(-2 * np.sqrt(2 / np.longdouble(np.pi)) * (z + 44715 * z**3 / 10**6))),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "exponential": np.exp,
    "thresholded_relu": lambda z: np.where(z > 1, z, 0),
    "relu6": lambda z: np.clip(z, 0, 6),
    "hard_sigmoid": lambda z: np.clip(z / 5 + np.longdouble(0.5), 0, 1),
}
# In units of the last place, as stated in cext/kernels.def; for gelu_tanh of |z| / 10, for hard_sigmoid of beta
# where that is larger.
LARGEST_ERROR = {"elu": 1.5, "softplus": 3, "softsign": 1.5, "silu": 3.5, "tanh": 2.5, "sigmoid": 2.5, "gelu_tanh": 3.5,
                 "relu": 0, "leaky_relu": 1.5, "exponential": 2.5, "thresholded_relu": 0, "relu6": 0,
                 "hard_sigmoid": 1}  # fmt: skip


@pytest.fixture(params=EXACT)
def name(request):
    return request.param


def activated(name, z):
    y = np.full_like(z, np.nan)
    updates.activate(name, z, y)
    return y


def slope(name, z, d=1):
    d = np.full_like(z, d)
    updates.activate_backward(name, z, d)
    return d


def test_every_kind_is_tested():
    assert {numbers_of(name).kind for name in EXACT} == set(range(len(KINDS)))


def test_errors_are_what_the_header_says(isa, dtype, rng, name):
    z = awkward_numbers(rng, dtype)
    with np.errstate(over="ignore"):
        exact = EXACT[name](z.astype(np.longdouble))
    size = np.abs(exact)
    if name == "gelu_tanh":
        size = np.maximum(size, abs(z) / 10)
    if name == "hard_sigmoid":
        size = np.maximum(size, 0.5)  # its beta
    error = np.abs(activated(name, z) - exact) / np.spacing(size.astype(dtype)).astype(np.longdouble)
    worst = int(error.argmax())
    assert error[worst] <= LARGEST_ERROR[name], f"{name}({z[worst]!r}) is {error[worst]:.2f} ULP off"


def test_slopes_are_differences(isa, rng, name):
    z = rng.uniform(-6, 6, 203)
    z[abs(z) < 0.02] = 0.5  # where some have a step
    weights = rng.standard_normal(203)
    check_gradients(lambda: (weights * activated(name, z)).sum(), {"z": z}, {"z": slope(name, z, weights)})


def test_slopes_in_single_precision_are_those_in_double(isa, rng, name):
    z = awkward_numbers(rng, "float32")[::7]
    z = np.clip(z, -20, 1 if name == "exponential" else 20)
    np.testing.assert_allclose(slope(name, z), slope(name, z.astype(float)), rtol=0, atol=3e-6)


def test_slopes_where_there_is_a_step(isa, dtype):
    zero = np.zeros(3, dtype)
    slopes = {"relu": 0, "leaky_relu": 0.01, "elu": 1, "softsign": 1, "tanh": 1, "sigmoid": 0.25, "softplus": 0.5,
              "silu": 0.5, "gelu_tanh": 0.5, "relu6": 0, "hard_sigmoid": 0.2, "exponential": 1}  # fmt: skip
    for name, expected in slopes.items():
        np.testing.assert_allclose(slope(name, zero, 2), 2 * expected, rtol=1e-6)


# Limits far to the left and to the right, with slopes of 0; of others they are 0 and z, with slopes 0 and 1.
LEFT = {"tanh": -1, "elu": -1, "softsign": -1}
RIGHT = {"tanh": 1, "sigmoid": 1, "softsign": 1, "relu6": 6, "hard_sigmoid": 1}
PIECES = "relu", "leaky_relu", "thresholded_relu", "relu6", "hard_sigmoid"  # of lines: their slopes are 1 or less


@pytest.mark.parametrize("name", [name for name in EXACT if name != "exponential"])
def test_far_out(isa, dtype, name):
    """The limits, from beyond where exponentials end up to infinity, where softsign's quotient is none."""
    top, tiny = RANGE[dtype], {"float32": 1e-35, "float64": 1e-300}[dtype]
    z = np.array([1.1 * top, 2 * top, 50 * top, 1e30, np.inf][: 4 if name == "softsign" else 5], dtype)
    rtol = {"rtol": 2 / top if name == "softsign" else 1e-6}
    left = -z * np.float32(0.01) if name == "leaky_relu" else np.full_like(z, LEFT.get(name, 0))
    right = np.full_like(z, RIGHT[name]) if name in RIGHT else z
    np.testing.assert_allclose(activated(name, -z), left, atol=tiny, **rtol)
    np.testing.assert_allclose(activated(name, z), right, **rtol)
    atol = 2 / top**2 if name == "softsign" else 10_000 * tiny
    np.testing.assert_allclose(slope(name, -z), 0.01 if name == "leaky_relu" else 0, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(slope(name, z), 0 if name in RIGHT else 1, rtol=1e-6, atol=atol)


def test_exponentials_end_where_the_kernels_do(isa, dtype):
    z = np.array([-np.inf, -2 * RANGE[dtype], 2 * RANGE[dtype], np.inf], dtype)
    ends = np.exp(np.array([-1.0, -1.0, 1.0, 1.0]) * RANGE[dtype])
    for found in (activated("exponential", z), slope("exponential", z)):
        np.testing.assert_array_less(found[:2], ends[:2])
        assert np.isfinite(found).all() and (found[2:] > ends[2:]).all()


def test_nan_stays_nan(isa, dtype, name):
    z = np.array([1.5, np.nan, -2.5, -np.nan, 0.5, -0.25, np.nan], dtype)
    np.testing.assert_array_equal(np.isnan(activated(name, z)), np.isnan(z))
    assert np.isfinite(slope(name, z)[~np.isnan(z)]).all()
    if name not in PIECES:
        np.testing.assert_array_equal(np.isnan(slope(name, z)), np.isnan(z))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 15, 16, 17, 33, 65_537, 140_000])
def test_of_every_length_in_place_and_in_threads(isa, dtype, rng, name, n):
    """The last two are cut into pieces; nothing is written past the end."""
    room = rng.standard_normal(n + 2).astype(dtype)
    z, whole = room[1:-1].copy(), room.copy()
    updates.activate(name, room[1:-1], room[1:-1])
    assert room[0] == whole[0] and room[-1] == whole[-1]
    np.testing.assert_array_equal(room[1:-1], activated(name, z))
    np.testing.assert_allclose(room[1:-1], EXACT[name](z.astype(float)), rtol=1e-5, atol=1e-6)
    alone = np.concatenate([slope(name, z[start : start + 1]) for start in range(0, n, 1 + n // 50)])
    np.testing.assert_array_equal(slope(name, z)[:: 1 + n // 50], alone)


def test_unequal_lengths_and_unknown_names_are_refused(dtype):
    for call in (updates.activate, updates.activate_backward):
        with pytest.raises(ValueError, match="z, out: expected as many numbers each, got 3 and 4"):
            call("relu", np.ones(3, dtype), np.ones(4, dtype))
        with pytest.raises(KeyError):
            call("swish", np.ones(3, dtype), np.ones(3, dtype))
        call("relu", np.ones(0, dtype), np.ones(0, dtype))
