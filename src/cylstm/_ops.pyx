"""What a model needs besides the LSTM: the linear head with its losses, embedding gradients, optimisers."""

import numpy as np

from libc.math cimport sqrt
from libc.stdint cimport int64_t

from cylstm._blas cimport gemm
from cylstm._kernels cimport (
    Kernels, active, adam as adam_kernel, binary_cross_entropy, column_sums, real, scatter_add, sgd as sgd_kernel,
    softmax_cross_entropy, squared_error, sum_squares as sum_squares_kernel,
)

from cylstm.params import aligned_empty

# Logits of this many bytes exist at once, whatever the number of rows: what the second-level cache holds.
cdef Py_ssize_t CHUNK_BYTES = 1024 * 1024

cdef enum Kind:
    CROSS_ENTROPY, SQUARED_ERROR, BINARY

KINDS = {"cross_entropy": CROSS_ENTROPY, "mse": SQUARED_ERROR, "binary_cross_entropy": BINARY}


def linear(const real[:, ::1] h, const real[:, ::1] weight, const real[::1] bias):
    """h (N, F), weight (O, F), bias (O,) or None -> h weight' + bias, (N, O)."""
    N, O = h.shape[0], weight.shape[0]
    out = aligned_empty(N * O, np.float32 if real is float else np.float64).reshape(N, O)
    cdef real[:, ::1] view = out
    if N:
        with nogil:
            affine(h.shape[0], h.shape[1], weight.shape[0], &h[0, 0], &weight[0, 0],
                   &bias[0] if bias is not None else NULL, &view[0, 0])
    return out


cdef void affine(Py_ssize_t N, Py_ssize_t F, Py_ssize_t O, const real* h, const real* weight, const real* bias,
                 real* out) noexcept nogil:
    cdef Py_ssize_t n, j
    for n in range(N if bias != NULL else 0):
        for j in range(O):
            out[n * O + j] = bias[j]
    gemm[real](False, True, N, O, F, 1, h, F, weight, F, 1 if bias != NULL else 0, out, O)


def loss(str kind, const real[:, ::1] h, const real[:, ::1] weight, const real[::1] bias, targets, *, double scale=0.0,
         real[:, ::1] dh=None, real[:, ::1] dweight=None, real[::1] dbias=None):
    """The sum over rows of a loss of h weight' + bias, and the hits among them; with dh also the gradients.

    h (N, F), weight (O, F), bias (O,) or None. kind "cross_entropy": targets (N,) int64 class ids, a hit is an argmax
    that is the target; "mse" and "binary_cross_entropy" (of logits): targets (N, O), each row's loss is the mean over
    its O outputs, a hit is an output on the right side of 1/2 (binary only).
    Where dh (N, F) is given, dh, dweight and dbias receive scale * d sum / d each.
    Rows go in chunks, so that (N, O) outputs never exist at once. Shapes are the caller's to check.
    """
    cdef int which = KINDS[kind]
    cdef Py_ssize_t N = h.shape[0], O = weight.shape[0]
    cdef Py_ssize_t rows = max(1, min(N, CHUNK_BYTES // (O * <Py_ssize_t>sizeof(real))))
    cdef real[::1] logits = aligned_empty(rows * O, np.float32 if real is float else np.float64)
    cdef real[::1] sums = np.zeros(O, np.float32 if real is float else np.float64)
    cdef const int64_t[::1] classes = targets if which == CROSS_ENTROPY else None
    cdef const real[:, ::1] values = targets if which != CROSS_ENTROPY else None
    cdef int64_t hits = 0
    cdef double total = 0
    if N == 0:
        raise ValueError("h: expected at least one row, got none")
    with nogil:
        total = loss_by_chunks(which, rows, h, weight, bias, classes, values, scale, dh, dweight, dbias, logits, sums,
                               &hits)
    return total, hits


cdef double loss_by_chunks(int which, Py_ssize_t chunk, const real[:, ::1] h, const real[:, ::1] weight,
                           const real[::1] bias, const int64_t[::1] classes, const real[:, ::1] values, double scale,
                           real[:, ::1] dh, real[:, ::1] dweight, real[::1] dbias, real[::1] logits, real[::1] sums,
                           int64_t* hits) noexcept nogil:
    cdef const Kernels* k = active()
    cdef Py_ssize_t N = h.shape[0], F = h.shape[1], O = weight.shape[0], start, rows, n, j
    cdef bint gradient = dh is not None
    cdef double total = 0
    cdef real* z = &logits[0]
    for n in range((N + chunk - 1) // chunk):
        start = n * chunk
        rows = min(chunk, N - start)
        affine(rows, F, O, &h[start, 0], &weight[0, 0], &bias[0] if bias is not None else NULL, z)
        if which == CROSS_ENTROPY:
            total += softmax_cross_entropy(k, rows, O, z, &classes[start], <real>scale, gradient, hits)
        elif which == SQUARED_ERROR:
            total += squared_error(k, rows, O, z, &values[start, 0], <real>scale, gradient, hits)
        else:
            total += binary_cross_entropy(k, rows, O, z, &values[start, 0], <real>scale, gradient, hits)
        if not gradient:
            continue
        gemm[real](False, False, rows, F, O, 1, z, O, &weight[0, 0], F, 0, &dh[start, 0], F)
        gemm[real](True, False, O, F, rows, 1, z, O, &h[start, 0], F, 0 if start == 0 else 1, &dweight[0, 0], F)
        if dbias is not None:
            column_sums(k, rows, O, <const real*>z, O, &sums[0])
            for j in range(O):
                dbias[j] = sums[j] if start == 0 else dbias[j] + sums[j]
    return total


def scatter_add_rows(real[:, ::1] out, const int64_t[::1] ids, const real[:, ::1] rows):
    """out (V, E)[ids[n]] += rows (N, E)[n], in the order of n: the gradient of an embedding."""
    if ids.shape[0]:
        with nogil:
            scatter_add(active(), ids.shape[0], out.shape[1], &ids[0], &rows[0, 0], rows.shape[1], &out[0, 0],
                        out.shape[1])


def sum_squares(const real[::1] flat):
    """The sum of squares, summed in double precision in a fixed order."""
    cdef double total = 0
    if flat.shape[0]:
        with nogil:
            total = sum_squares_kernel(active(), flat.shape[0], &flat[0])
    return total


def scale_inplace(real[::1] flat, double factor):
    """flat *= factor."""
    cdef Py_ssize_t j
    with nogil:
        for j in range(flat.shape[0]):
            flat[j] *= <real>factor


def sgd(real[::1] p, const real[::1] g, real[::1] m, double lr, double momentum, bint nesterov, double weight_decay,
        double gscale):
    """One update of p in place by the gradient gscale * g, as torch.optim.SGD. m is None where momentum is 0."""
    if p.shape[0]:
        with nogil:
            sgd_kernel(active(), p.shape[0], &p[0], &g[0], &m[0] if m is not None else NULL, lr, momentum, nesterov,
                       weight_decay, gscale)


def adam(real[::1] p, const real[::1] g, real[::1] m, real[::1] v, Py_ssize_t t, double lr, double beta1, double beta2,
         double eps, double weight_decay, bint decoupled, double gscale):
    """Update number t (from 1) of p in place by the gradient gscale * g, as torch.optim.Adam or, decoupled, AdamW."""
    cdef double step_size = lr / (1 - beta1 ** t), correction = 1 / sqrt(1 - beta2 ** t)
    if p.shape[0]:
        with nogil:
            adam_kernel(active(), p.shape[0], &p[0], &g[0], &m[0], &v[0], step_size, correction, beta1, beta2, eps, lr,
                        weight_decay, decoupled, gscale)
