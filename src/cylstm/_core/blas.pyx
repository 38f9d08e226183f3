"""scipy-openblas32 (Accelerate on macOS), behind the contract of blas.pxd; and a linear layer of few rows."""

cimport numpy as np
from libc.string cimport memcpy

from math import prod

import numpy

from cylstm._core.small_matrix cimport SmallMatrix

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

    weight (O, F), bias (O,) or None : contiguous arrays of one type, read at each call; or weight is a SmallMatrix.
    tail : the shape of a row's
    outputs, O numbers. `head.linear` is for many rows, with threads, and gives the same bits.
    """

    cdef readonly object weight, bias
    cdef SmallMatrix small
    cdef tuple tail
    cdef Py_ssize_t F, O
    cdef int type_number

    def __init__(self, weight not None, np.ndarray bias, tuple tail):
        if isinstance(weight, SmallMatrix):
            self.small = weight
            self.weight, self.bias, self.tail = self.small.stored, bias, tail
            self.O, self.F, self.type_number = self.small.O, self.small.F, np.NPY_FLOAT32
            return
        self.set_weight(weight, bias, tail)

    cdef int set_weight(self, np.ndarray weight, np.ndarray bias, tuple tail) except -1:
        cdef bint right = np.PyArray_NDIM(weight) == 2 and np.PyArray_ISCARRAY_RO(weight) \
            and np.PyArray_TYPE(weight) in (np.NPY_FLOAT32, np.NPY_FLOAT64) and np.PyArray_SIZE(weight) > 0
        if right and bias is not None:
            right = (np.PyArray_NDIM(bias) == 1 and np.PyArray_ISCARRAY_RO(bias)
                     and np.PyArray_TYPE(bias) == np.PyArray_TYPE(weight)
                     and np.PyArray_DIM(bias, 0) == np.PyArray_DIM(weight, 0))
        if not right or not 1 <= len(tail) <= 3 or prod(tail) != np.PyArray_DIM(weight, 0) or min(tail) < 1:
            raise ValueError("weight, bias, tail: expected contiguous arrays of one floating type, (O, F) and (O,), "
                             f"and the shape of O numbers, got {describe(weight)}, {describe(bias)}, {tail}")
        self.weight, self.bias, self.tail = weight, bias, tail
        self.O, self.F = np.PyArray_DIM(weight, 0), np.PyArray_DIM(weight, 1)
        self.type_number = np.PyArray_TYPE(weight)
        return 0

    def rows(self, np.ndarray h not None, out=None):
        """Outputs (N, *tail) of h (N, F), or (*tail) of h (F,): contiguous and of the weights' type. out : an array to
        write them into, which shares no memory with h or the weights. Raises ValueError for other arrays."""
        cdef int batched = np.PyArray_NDIM(h) - 1, n
        cdef Py_ssize_t N = np.PyArray_DIM(h, 0) if batched else 1
        cdef np.npy_intp shape[4]
        cdef np.ndarray outputs
        if (batched not in (0, 1) or np.PyArray_TYPE(h) != self.type_number or not np.PyArray_ISCARRAY_RO(h)
                or np.PyArray_DIM(h, batched) != self.F):
            raise ValueError(f"h: expected a contiguous {self.dtype} (N, {self.F}), got {describe(h)}")
        if out is None:
            shape[0] = N
            for n in range(len(self.tail)):
                shape[1 + n] = self.tail[n]
            outputs = np.PyArray_EMPTY(len(self.tail) + batched, &shape[1 - batched], self.type_number, 0)
        else:
            if not self.holds(out, h, batched) or overlap(out, h):
                self.check(out, (N,) if batched else (), (h,))
            outputs = out
        if self.small is not None:
            self.small.rows(<const float*>np.PyArray_DATA(h), N,
                            <const float*>NULL if self.bias is None
                            else <const float*>np.PyArray_DATA(<np.ndarray>self.bias),
                            <float*>np.PyArray_DATA(outputs))
        elif self.type_number == np.NPY_FLOAT64:
            few_rows[double](self, np.PyArray_DATA(h), N, np.PyArray_DATA(outputs), NULL)
        else:
            few_rows[float](self, np.PyArray_DATA(h), N, np.PyArray_DATA(outputs), NULL)
        return outputs

    @property
    def dtype(self):
        """Of features, bias and outputs."""
        return numpy.dtype(numpy.float64 if self.type_number == np.NPY_FLOAT64 else numpy.float32)

    def check(self, out, tuple rows, tuple others=()):
        """ValueError unless `out` is an array (*rows, *tail) that C can write, in memory of its own: none of the
        weights', nor of the contiguous arrays `others`."""
        if not self.holds(out, rows, len(rows)):
            expected = f"outputs, a writable, contiguous {self.dtype} {rows + self.tail}"
            raise ValueError(f"out: expected {expected}, got {describe(out)}")
        if self.bias is not None:
            others += (self.bias,)
        for other in (self.weight, *others):
            if overlap(<np.ndarray?>out, <np.ndarray?>other):
                raise ValueError("out: expected outputs in memory of their own, got some of the state's, the weights' "
                                 "or other outputs'")

    def takes(self, out, x_t, h, c):
        """Whether `check` would pass for features x_t (*rows, I) and a state, in the usual case: False may mean that it
        would, too."""
        if not np.PyArray_CheckExact(x_t) or not np.PyArray_CheckExact(h) or not np.PyArray_CheckExact(c):
            return False
        if np.PyArray_TYPE(<np.ndarray>x_t) != self.type_number or not self.holds(out, x_t, np.PyArray_NDIM(x_t) - 1):
            return False
        return not (overlap(out, h) or overlap(out, c) or overlap(out, self.weight)
                    or (self.bias is not None and overlap(out, self.bias)))

    cdef bint holds(self, out, rows, Py_ssize_t lead):
        """Whether `out` is such an array, wherever it lies. rows : its first `lead` sizes, or an array with these."""
        cdef Py_ssize_t n, rank = len(self.tail)
        cdef np.ndarray array
        if not np.PyArray_CheckExact(out):
            return False
        array = out
        if (np.PyArray_TYPE(array) != self.type_number or not np.PyArray_ISCARRAY(array)
                or np.PyArray_NDIM(array) != lead + rank):
            return False
        for n in range(lead):
            if np.PyArray_DIM(array, n) != (np.PyArray_DIM(rows, n) if np.PyArray_CheckExact(rows)
                                            else <Py_ssize_t>rows[n]):
                return False
        for n in range(rank):
            if np.PyArray_DIM(array, lead + n) != <Py_ssize_t>self.tail[n]:
                return False
        return True


cdef bint overlap(np.ndarray a, np.ndarray b):
    """Whether two contiguous arrays share memory."""
    cdef char* first = <char*>np.PyArray_DATA(a)
    cdef char* second = <char*>np.PyArray_DATA(b)
    return first < second + np.PyArray_NBYTES(b) and second < first + np.PyArray_NBYTES(a)


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
