"""One direction of one layer over all steps; see _sequence.pyx for what each function takes and gives."""

from libc.stdint cimport int64_t

from cylstm._kernels cimport Kernels, real
from cylstm._steps cimport Steps

# Gates of as many steps as fit into this many bytes are computed by one product before their steps run.
cdef enum:
    CHUNK_BYTES = 524288

# One direction of one layer. Everything is in reals.
cdef struct Cell:
    Py_ssize_t I          # inputs
    Py_ssize_t H          # hidden units
    Py_ssize_t Hp         # H rounded up to whole vectors
    Py_ssize_t Ip         # I likewise
    Py_ssize_t W          # where the parameters lie in the flat buffer: weight_ih, ...
    Py_ssize_t R          # weight_hh
    Py_ssize_t b          # bias, -1 without
    Py_ssize_t W_panels   # where the packed weights lie in Weights.buffer: gate panels of W, R and b
    Py_ssize_t R_panels
    Py_ssize_t b_panels
    Py_ssize_t W_columns  # column blocks, for backward
    Py_ssize_t R_columns

cdef void run_forward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, bint keep,
                      Py_ssize_t chunk_rows, const real* P, const real* x, Py_ssize_t ldx,
                      const int64_t* ids, real* gates, real* h, real* c,
                      real* scratch) noexcept nogil
cdef bint copy_uncut(const Steps* s, Py_ssize_t t, bint reverse, Py_ssize_t width, const real* rows,
                     real* copy) noexcept nogil
cdef void run_backward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const real* P, real* gates,
                       const real* c, real* dh, real* dc, real* scratch) noexcept nogil
cdef void weight_gradients(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const real* dgates,
                           const real* x, Py_ssize_t ldx, const int64_t* ids, const real* h, real* previous,
                           real* wide, real* d) noexcept nogil
cdef void place_states(const Steps* s, bint reverse, bint one_boundary, Py_ssize_t H, Py_ssize_t Hp, const real* state,
                       real* rows) noexcept nogil
cdef void fetch_states(const Steps* s, bint reverse, bint at_start, bint one_boundary, Py_ssize_t H, Py_ssize_t Hp,
                       const real* rows, real* state) noexcept nogil
cdef void copy_outputs(const Steps* s, bint reverse, bint packed, Py_ssize_t H, Py_ssize_t Hp, const real* h, real* y,
                       Py_ssize_t row, Py_ssize_t step) noexcept nogil
cdef void add_outputs(const Steps* s, bint reverse, bint packed, Py_ssize_t H, Py_ssize_t Hp, const real* dy,
                      Py_ssize_t row, Py_ssize_t step, real* dh) noexcept nogil
cdef void add_states(const Steps* s, bint reverse, Py_ssize_t H, Py_ssize_t Hp, const real* dstate,
                     real* dh) noexcept nogil
cdef void multiply_rows(Py_ssize_t rows, Py_ssize_t width, real* y, Py_ssize_t ldy, const real* mask) noexcept nogil
