"""scipy-openblas32 (Accelerate on macOS), behind the contract of blas.pxd."""

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


use_one_thread()
