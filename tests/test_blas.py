"""Row-major products of BLAS: every real type, transposed or not, with and without what C held before."""

import itertools

import numpy as np
import pytest

from cylstm._core import blas


@pytest.mark.parametrize(("transpose_a", "transpose_b"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (1.5, -0.25), (-2.0, 1.0)])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 7, 5), (3, 1, 65), (17, 50, 33), (130, 64, 257)])
def test_product(dtype, rng, transpose_a, transpose_b, alpha, beta, m, n, k):
    a, b, c = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (m, n)))
    expected = alpha * (a.astype(float) @ b.astype(float)) + beta * c
    stored_a = np.ascontiguousarray(a.T) if transpose_a else a
    stored_b = np.ascontiguousarray(b.T) if transpose_b else b
    blas.multiply_add(stored_a, stored_b, c, transpose_a, transpose_b, alpha, beta)
    bound = {"float32": 2e-6, "float64": 3e-15}[dtype] * np.sqrt(k) * max(1, abs(alpha))
    np.testing.assert_allclose(c, expected, rtol=0, atol=bound * np.abs(expected).max())


def test_zero_beta_ignores_what_was_there(dtype, rng):
    a, b = rng.standard_normal((3, 4)).astype(dtype), rng.standard_normal((4, 5)).astype(dtype)
    c = np.full((3, 5), np.nan, dtype)
    blas.multiply_add(a, b, c, False, False, 1, 0)
    np.testing.assert_allclose(c, a.astype(float) @ b, rtol=1e-5)


def test_shapes_that_do_not_match_are_refused(rng):
    a, b, c = rng.standard_normal((3, 4)), rng.standard_normal((5, 6)), rng.standard_normal((3, 6))
    with pytest.raises(ValueError, match="shapes do not match"):
        blas.multiply_add(a, b, c, False, False, 1, 0)


def test_it_says_what_it_is():
    assert "OpenBLAS" in blas.description() or blas.description() == "Accelerate"
