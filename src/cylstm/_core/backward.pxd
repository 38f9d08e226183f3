"""See backward.pyx."""

from cylstm._core.direction cimport Direction, Scratch
from cylstm._core.kernels cimport Kernels, real
from cylstm._core.ragged cimport Steps
from cylstm._core.team cimport Member

cdef bint inputs_by_steps(const Steps* s, const Direction* direction) noexcept nogil
cdef void run_backward(const Kernels* k, const Steps* s, const Direction* direction, bint reverse, const Member* who,
                       const Member* of_h, const Scratch* scratch, Py_ssize_t beat, real* gates,
                       const real* fresh, const real* h, const real* c, real* dh, real* dc, real* dx,
                       bint add) noexcept nogil
