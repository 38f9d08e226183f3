"""scipy-openblas32 (Accelerate on macOS), behind the contract of blas.pxd; and a linear layer of few rows."""

cimport numpy as np
from libc.string cimport memcpy

import numpy

from cylstm.checks import describe

np.import_array()

cdef extern from "blas.h" nogil:
    int ROW_MAJOR, TRANSPOSED, PLAIN
    void cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int)
    void cblas_dgemm(int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*, int)
    void use_one_thread()
    const char* blas_description()


cdef void gemm(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, real alpha, const real* A,
               Py_ssize_t lda, const real* B, Py_ssize_t ldb, real beta, real* C, Py_ssize_t ldc) noexcept nogil:
    cdef int op_a = TRANSPOSED if transpose_a else PLAIN
    cdef int op_b = TRANSPOSED if transpose_b else PLAIN
    if real is float:
        cblas_sgemm(ROW_MAJOR, op_a, op_b, <int>m, <int>n, <int>k, alpha, A, <int>lda, B, <int>ldb, beta, C, <int>ldc)
    else:
        cblas_dgemm(ROW_MAJOR, op_a, op_b, <int>m, <int>n, <int>k, alpha, A, <int>lda, B, <int>ldb, beta, C, <int>ldc)


def description():
    """The BLAS in use, in its own words."""
    return blas_description().decode()


def multiply_add(real[:, ::1] a, real[:, ::1] b, real[:, ::1] c, bint transpose_a, bint transpose_b, real alpha,
                 real beta):
    """c = alpha op(a) op(b) + beta c in place, for the tests."""
    cdef Py_ssize_t k = a.shape[0] if transpose_a else a.shape[1]
    cdef Py_ssize_t m = a.shape[1] if transpose_a else a.shape[0]
    cdef Py_ssize_t n = b.shape[0] if transpose_b else b.shape[1]
    if (b.shape[1] if transpose_b else b.shape[0]) != k or c.shape[0] != m or c.shape[1] != n:
        raise ValueError("shapes do not match")
    gemm(transpose_a, transpose_b, m, n, k, alpha, &a[0, 0], a.shape[1], &b[0, 0], b.shape[1], beta, &c[0, 0],
         c.shape[1])


cdef class Linear:
    """A linear layer whose weights stay where they are, for the few rows of a step: it costs little beside its product.

    weight (O, F), bias (O,) or None : contiguous arrays of one type, read at each call. tail : the shape of a row's
    outputs, O numbers. `head.linear` is for many rows, with threads, and gives the same bits.
    """

    cdef readonly object weight, bias
    cdef tuple tail
    cdef Py_ssize_t F, O
    cdef int type_number

    def __init__(self, np.ndarray weight not None, bias, tuple tail):
        for array in (weight,) if bias is None else (weight, bias):
            if not np.PyArray_ISCARRAY_RO(array) or array.dtype != weight.dtype or len(array) != len(weight):
                raise ValueError("weight, bias: expected contiguous arrays of one type, (O, F) and (O,), got others")
        self.weight, self.bias, self.tail = weight, bias, tail
        self.O, self.F = np.PyArray_DIM(weight, 0), np.PyArray_DIM(weight, 1)
        self.type_number = np.PyArray_TYPE(weight)

    def rows(self, np.ndarray h not None, out=None):
        """Outputs (N, *tail) of h (N, F), or (*tail) of h (F,): contiguous and of the weights' type. out : an array to
        write them into. Raises ValueError for other arrays."""
        cdef int batched = np.PyArray_NDIM(h) - 1, n
        cdef Py_ssize_t N = np.PyArray_DIM(h, 0) if batched else 1
        cdef np.npy_intp shape[4]
        cdef np.ndarray outputs
        if (batched not in (0, 1) or np.PyArray_TYPE(h) != self.type_number or not np.PyArray_ISCARRAY_RO(h)
                or np.PyArray_DIM(h, batched) != self.F):
            raise ValueError(f"h: expected a contiguous {self.weight.dtype} (N, {self.F}), got {describe(h)}")
        if out is None:
            shape[0] = N
            for n in range(len(self.tail)):
                shape[1 + n] = self.tail[n]
            outputs = np.PyArray_EMPTY(len(self.tail) + batched, &shape[1 - batched], self.type_number, 0)
        else:
            if not self.holds(out, N, batched):
                expected = f"outputs, a writable, contiguous {self.weight.dtype} {(N, *self.tail)[1 - batched:]}"
                raise ValueError(f"out: expected {expected}, got {describe(out)}")
            outputs = out
        if self.type_number == np.NPY_FLOAT64:
            few_rows[double](self, np.PyArray_DATA(h), N, np.PyArray_DATA(outputs), NULL)
        else:
            few_rows[float](self, np.PyArray_DATA(h), N, np.PyArray_DATA(outputs), NULL)
        return outputs

    cdef bint holds(self, out, Py_ssize_t N, bint batched):
        """Whether `out` is an array (N, *tail) or, not batched, (*tail) that C can write."""
        cdef Py_ssize_t n, rank = len(self.tail)
        cdef np.ndarray array
        if type(out) is not numpy.ndarray:
            return False
        array = out
        if (np.PyArray_TYPE(array) != self.type_number or not np.PyArray_ISCARRAY(array)
                or np.PyArray_NDIM(array) != batched + rank or (batched and np.PyArray_DIM(array, 0) != N)):
            return False
        for n in range(rank):
            if np.PyArray_DIM(array, batched + n) != <Py_ssize_t>self.tail[n]:
                return False
        return True


cdef void few_rows(Linear layer, const void* h, Py_ssize_t N, void* outputs, real* type_tag):
    cdef const real* weight = <const real*>np.PyArray_DATA(<np.ndarray>layer.weight)
    cdef real* z = <real*>outputs
    cdef Py_ssize_t n
    if layer.bias is not None:
        for n in range(N):
            memcpy(z + n * layer.O, np.PyArray_DATA(<np.ndarray>layer.bias), layer.O * sizeof(real))
    gemm[real](False, True, N, layer.O, layer.F, 1, <const real*>h, layer.F, weight, layer.F, layer.bias is not None, z,
               layer.O)


use_one_thread()
