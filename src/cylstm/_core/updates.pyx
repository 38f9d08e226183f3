"""One pass over flat buffers, by a team of threads: clipping, optimisers, activations of dense layers.

Buffers are cut into pieces of one size whatever the number of threads, so that sums have the same bits.
"""

import numpy as np

from libc.math cimport sqrt
from libc.string cimport memset

from cylstm._core.kernels cimport (
    Activation, Kernels, activate as activate_kernel, activate_backward as activate_backward_kernel, activation_of,
    active, adam as adam_kernel, real, sgd as sgd_kernel, sum_squares as sum_squares_kernel,
)
from cylstm._core.team cimport Team, part, run, threads_for

cdef enum:
    AT_ONCE = 65536     # elements
    COST = 20           # of one element in multiply-adds (team.pyx), being read from memory

cdef enum Pass:
    SQUARES, SGD, ADAM, ACTIVATION, SLOPE

# One pass over n elements; what a pass does not use is NULL or 0.
cdef struct Flat:
    const Kernels* k
    Pass what
    Py_ssize_t n
    void* p
    const void* g
    void* m
    void* v
    double* sums        # of squares, of each piece
    double lr, momentum, step_size, correction, beta1, beta2, eps, decay, gscale
    bint nesterov, decoupled
    Activation activation


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


def sum_squares(const real[::1] flat):
    """The sum of squares, summed in double precision in a fixed order."""
    cdef double total = 0
    cdef Py_ssize_t piece, pieces = (flat.shape[0] + AT_ONCE - 1) // AT_ONCE
    cdef double one_sum[1]
    cdef double[::1] sums = None
    cdef Flat f
    if flat.shape[0] == 0:
        return 0.0
    memset(&f, 0, sizeof(Flat))
    f.what, f.n, f.g, f.sums = SQUARES, flat.shape[0], &flat[0], one_sum
    if pieces > 1:
        sums = np.empty(pieces)
        f.sums = &sums[0]
    with nogil:
        run_pass(&f, &flat[0])
        for piece in range(pieces):
            total += f.sums[piece]
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
    cdef Flat f
    if g.shape[0] != p.shape[0] or (momentum and m is None) or (m is not None and m.shape[0] != p.shape[0]):
        raise ValueError(f"gradient, moments: expected {p.shape[0]} numbers each, for this optimizer")
    if p.shape[0] == 0:
        return
    memset(&f, 0, sizeof(Flat))
    f.what, f.n, f.p, f.g, f.m = SGD, p.shape[0], &p[0], &g[0], &m[0] if m is not None else NULL
    f.lr, f.momentum, f.nesterov, f.decay, f.gscale = lr, momentum, nesterov, weight_decay, gscale
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
    memset(&f, 0, sizeof(Flat))
    f.what, f.n, f.p, f.g, f.m, f.v = ADAM, p.shape[0], &p[0], &g[0], &m[0], &v[0]
    f.step_size, f.correction = lr / (1 - beta1 ** t), 1 / sqrt(1 - beta2 ** t)
    f.lr, f.beta1, f.beta2, f.eps, f.gscale = lr, beta1, beta2, eps, gscale
    f.decay, f.decoupled = weight_decay, decoupled
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
