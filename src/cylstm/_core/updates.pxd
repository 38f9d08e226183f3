"""See updates.pyx."""

from cylstm._core.kernels cimport Activation, Kernels, real

cdef enum:
    AT_ONCE = 65536     # elements

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

cdef void run_pass(Flat* f, const real* type_tag) noexcept nogil

# The sum of squares, summed in double precision in a fixed order; sums: room for one of each AT_ONCE elements.
cdef double squares(const real* g, Py_ssize_t n, double* sums) noexcept nogil

# An optimiser's settings, but for those of one update: p, g, m, v and n.
cdef Flat sgd_flat(double lr, double momentum, bint nesterov, double decay, double gscale) noexcept nogil
cdef Flat adam_flat(Py_ssize_t t, double lr, double beta1, double beta2, double eps, double decay, bint decoupled,
                    double gscale) noexcept nogil
cdef void scale_flat(real* flat, Py_ssize_t n, double factor) noexcept nogil
