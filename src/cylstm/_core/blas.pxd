"""Row-major matrix products. The one place that knows which BLAS there is; it runs on the caller's thread only."""

from cylstm._core.kernels cimport real

# C (m, n) = alpha op(A) op(B) + beta C; op(A) is (m, k), op(B) is (k, n), and `transpose_` says that the stored
# matrix is the transpose of it. ld* are distances between stored rows. m, n, k and ld* fit in 32 bits.
cdef void gemm(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, real alpha, const real* A,
               Py_ssize_t lda, const real* B, Py_ssize_t ldb, real beta, real* C, Py_ssize_t ldc) noexcept nogil
