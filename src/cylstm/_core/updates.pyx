"""One pass over flat buffers, by a team of threads: clipping, optimisers, activations of dense layers.

Buffers are cut into pieces of one size whatever the number of threads, so that sums have the same bits.
"""

import numpy as np

from libc.math cimport sqrt
from libc.string cimport memset

from cylstm._core.kernels cimport (
    activate as activate_kernel, activate_backward as activate_backward_kernel, activation_of,
    active, adam as adam_kernel, real, sgd as sgd_kernel, sum_squares as sum_squares_kernel,
)
from cylstm._core.team cimport Team, part, run, threads_for

cdef enum:
    COST = 20           # of one element in multiply-adds (team.pyx), being read from memory


cdef void pass_f32(void* flat, int me, int count, Team* team) noexcept nogil:
    pass_share(<const Flat*>flat, me, count, <float*>NULL)

cdef void pass_f64(void* flat, int me, int count, Team* team) noexcept nogil:
    pass_share(<const Flat*>flat, me, count, <double*>NULL)


cdef void pass_share(const Flat* f, int me, int count, real* type_tag) noexcept nogil:
    cdef Py_ssize_t pieces = (f.n + AT_ONCE - 1) // AT_ONCE, piece, start, n
    cdef real* p
    cdef real* m
    cdef real* v
    cdef const real* g
    for piece in range(part(pieces, me, count), part(pieces, me + 1, count)):
        start = piece * AT_ONCE
        n = min(<Py_ssize_t>AT_ONCE, f.n - start)
        g = <const real*>f.g + start
        if f.what == SQUARES:
            f.sums[piece] = sum_squares_kernel(f.k, n, g)
            continue
        p, m, v = <real*>f.p + start, <real*>f.m, <real*>f.v + start
        if f.what == ACTIVATION:
            activate_kernel(f.k, &f.activation, n, g, p)
        elif f.what == SLOPE:
            activate_backward_kernel(f.k, &f.activation, n, g, p)
        elif f.what == ADAM:
            adam_kernel(f.k, n, p, g, m + start, v, f.step_size, f.correction, f.beta1, f.beta2, f.eps, f.lr, f.decay,
                        f.decoupled, f.gscale)
        else:
            sgd_kernel(f.k, n, p, g, m + start if m != NULL else <real*>NULL, f.lr, f.momentum, f.nesterov, f.decay,
                       f.gscale)


cdef void run_pass(Flat* f, const real* type_tag) noexcept nogil:
    f.k = active()
    run(threads_for(<double>COST * f.n, 1e9, (f.n + AT_ONCE - 1) // AT_ONCE),
        pass_f32 if real is float else pass_f64, f)


cdef double squares(const real* g, Py_ssize_t n, double* sums) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t piece
    cdef Flat f
    if n == 0:
        return 0.0
    memset(&f, 0, sizeof(Flat))
    f.what, f.n, f.g, f.sums = SQUARES, n, g, sums
    run_pass(&f, g)
    for piece in range((n + AT_ONCE - 1) // AT_ONCE):
        total += sums[piece]
    return total


def sum_squares(const real[::1] flat):
    """The sum of squares, summed in double precision in a fixed order."""
    cdef double total
    cdef Py_ssize_t pieces = (flat.shape[0] + AT_ONCE - 1) // AT_ONCE
    cdef double one_sum[1]
    cdef double* at = one_sum
    cdef double[::1] sums = None
    if flat.shape[0] == 0:
        return 0.0
    if pieces > 1:
        sums = np.empty(pieces)
        at = &sums[0]
    with nogil:
        total = squares(&flat[0], flat.shape[0], at)
    return total


cdef void scale_flat(real* flat, Py_ssize_t n, double factor) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        flat[j] *= <real>factor


def scale_inplace(real[::1] flat, double factor):
    """flat *= factor."""
    if flat.shape[0]:
        with nogil:
            scale_flat(&flat[0], flat.shape[0], factor)


cdef Flat sgd_flat(double lr, double momentum, bint nesterov, double decay, double gscale) noexcept nogil:
    cdef Flat f
    memset(&f, 0, sizeof(Flat))
    f.what, f.lr, f.momentum, f.nesterov, f.decay, f.gscale = SGD, lr, momentum, nesterov, decay, gscale
    return f


cdef Flat adam_flat(Py_ssize_t t, double lr, double beta1, double beta2, double eps, double decay, bint decoupled,
                    double gscale) noexcept nogil:
    cdef Flat f
    memset(&f, 0, sizeof(Flat))
    f.what, f.step_size, f.correction = ADAM, lr / (1 - beta1 ** t), 1 / sqrt(1 - beta2 ** t)
    f.lr, f.beta1, f.beta2, f.eps, f.gscale = lr, beta1, beta2, eps, gscale
    f.decay, f.decoupled = decay, decoupled
    return f


def sgd(real[::1] p, const real[::1] g, real[::1] m, double lr, double momentum, bint nesterov, double weight_decay,
        double gscale):
    """One update of p in place by the gradient gscale * g, as torch.optim.SGD. m is None where momentum is 0."""
    cdef Flat f
    if g.shape[0] != p.shape[0] or (momentum and m is None) or (m is not None and m.shape[0] != p.shape[0]):
        raise ValueError(f"gradient, moments: expected {p.shape[0]} numbers each, for this optimizer")
    if p.shape[0] == 0:
        return
    f = sgd_flat(lr, momentum, nesterov, weight_decay, gscale)
    f.n, f.p, f.g, f.m = p.shape[0], &p[0], &g[0], &m[0] if m is not None else NULL
    with nogil:
        run_pass(&f, &g[0])


def adam(real[::1] p, const real[::1] g, real[::1] m, real[::1] v, Py_ssize_t t, double lr, double beta1, double beta2,
         double eps, double weight_decay, bint decoupled, double gscale):
    """Update number t (from 1) of p in place by the gradient gscale * g, as torch.optim.Adam or, decoupled, AdamW."""
    cdef Flat f
    if m is None or v is None or not g.shape[0] == m.shape[0] == v.shape[0] == p.shape[0]:
        raise ValueError(f"gradient, moments: expected {p.shape[0]} numbers each, for this optimizer")
    if t < 1:
        raise ValueError(f"moments.updates: expected the number of updates so far, got {t - 1}")
    if p.shape[0] == 0:
        return
    f = adam_flat(t, lr, beta1, beta2, eps, weight_decay, decoupled, gscale)
    f.n, f.p, f.g, f.m, f.v = p.shape[0], &p[0], &g[0], &m[0], &v[0]
    with nogil:
        run_pass(&f, &g[0])


def activate(activation, const real[::1] z, real[::1] y):
    """y = f(z), which may be in the same memory; activation: as `cylstm.activations.as_activation` gives it."""
    pass_activation(activation, z, y, ACTIVATION)


def activate_backward(activation, const real[::1] z, real[::1] d):
    """d *= f'(z): from d loss / d f(z) to d loss / d z."""
    pass_activation(activation, z, d, SLOPE)


cdef pass_activation(activation, const real[::1] z, real[::1] out, Pass what):
    cdef Flat f
    if out.shape[0] != z.shape[0]:
        raise ValueError(f"z, out: expected as many numbers each, got {z.shape[0]} and {out.shape[0]}")
    if z.shape[0] == 0:
        return
    memset(&f, 0, sizeof(Flat))
    f.what, f.n, f.p, f.g, f.activation = what, z.shape[0], &out[0], &z[0], activation_of(activation)
    with nogil:
        run_pass(&f, &z[0])
