"""See gradients.pyx."""

from cylstm._core.direction cimport Direction, Inputs, Scratch
from cylstm._core.kernels cimport Kernels, real
from cylstm._core.ragged cimport Steps
from cylstm._core.team cimport Member

cdef enum:
    GRADIENT_ROWS = 512  # of one product of dgates' x: both operands, as tiles, fit into the second-level cache
    GRADIENT_UNITS = 64  # of one product of BLAS, at most: of the gradients of a projection or a highway
    DX_ROWS = 64         # of one product of dgates W

cdef void weight_gradients(const Kernels* k, const Steps* s, const Direction* direction, bint reverse,
                           const Member* who, const Scratch* scratch, int form, Py_ssize_t beat, const real* dgates,
                           const Inputs* inputs, const real* u, const real* fresh, const real* h, const real* c,
                           const real* dh, real* d) noexcept nogil
cdef void summed_products(const Member* who, Py_ssize_t beat, Py_ssize_t N, Py_ssize_t rows, Py_ssize_t columns,
                          Py_ssize_t lanes, const real* left, Py_ssize_t ldl, const real* right, Py_ssize_t ldr,
                          real* d) noexcept nogil
cdef void first_state_gradients(const Steps* s, const Direction* direction, bint reverse, const Member* who,
                                const Member* of_h, const Scratch* scratch, const real* dh, const real* dc,
                                real* d) noexcept nogil
cdef void input_gradients(const Kernels* k, const Steps* s, const Direction* direction, const Member* who,
                          const Scratch* scratch, Py_ssize_t beat, const real* dgates, real* dx) noexcept nogil
