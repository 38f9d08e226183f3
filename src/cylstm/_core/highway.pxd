"""See highway.pyx."""

from cylstm._core.direction cimport Direction, Inputs, Scratch
from cylstm._core.kernels cimport Kernels, real
from cylstm._core.ragged cimport Steps
from cylstm._core.team cimport Member

cdef void shares_of_h(const Kernels* k, const Direction* direction, const Member* of_h, Py_ssize_t rows, const real* x,
                      Py_ssize_t ld, real* shares) noexcept nogil
cdef void part_highway(const Steps* s, const Direction* direction, bint reverse, const Member* of_h,
                       const Scratch* scratch, const real* shares, const real* h, const real* carried, Py_ssize_t ld,
                       real* dh) noexcept nogil
cdef void highway_gradients(const Kernels* k, const Steps* s, const Direction* direction, const Member* who,
                            const Member* of_h, const Scratch* scratch, Py_ssize_t beat, const Inputs* inputs,
                            Py_ssize_t at, real* dx, real* d) noexcept nogil
