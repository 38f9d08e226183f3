"""See forward.pyx."""

from cylstm._core.direction cimport Direction, Factor, Inputs, Outputs, Scratch
from cylstm._core.kernels cimport Kernels, real
from cylstm._core.ragged cimport Steps
from cylstm._core.team cimport Member

cdef Py_ssize_t rows_at_once(const Steps* s, Py_ssize_t I, Py_ssize_t row_bytes) noexcept nogil
cdef void run_forward(const Kernels* k, const Steps* s, const Direction* direction, bint reverse, bint keep,
                      const Member* who, const Member* of_h, const Scratch* scratch, const Inputs* inputs,
                      const Outputs* outputs, Py_ssize_t beat, real* gates, real* u, real* fresh, real* shares, real* h,
                      real* c) noexcept nogil
cdef void project(const Kernels* k, const Factor* factor, const Member* who, Py_ssize_t first, Py_ssize_t last,
                  Py_ssize_t rows, Py_ssize_t K, const real* left, Py_ssize_t ld, Py_ssize_t width,
                  real* out) noexcept nogil
