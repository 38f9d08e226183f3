"""Copies between the caller's order of rows and the packed one."""

from cylstm._kernels cimport real
from cylstm._sequence cimport Cell, Member
from cylstm._steps cimport Steps

cdef void place_states(const Steps* s, bint reverse, bint one_boundary, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                       const real* state, real* rows) noexcept nogil
cdef void fetch_states(const Steps* s, bint reverse, bint at_start, bint one_boundary, const Member* who, Py_ssize_t H,
                       Py_ssize_t Hp, const real* rows, real* state) noexcept nogil
cdef void clear_padding(const Steps* s, int me, int count, Py_ssize_t width, Py_ssize_t row, Py_ssize_t step,
                        real* y) noexcept nogil
cdef void start_gradients(const Steps* s, bint reverse, bint packed, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                          const real* dy, Py_ssize_t row, Py_ssize_t step, const real* mask, Py_ssize_t mask_row,
                          real* dh) noexcept nogil
cdef void give_input_gradients(const Steps* s, int me, int count, const Cell* cell, const real* dx, bint packed,
                               Py_ssize_t row, Py_ssize_t step, real* caller) noexcept nogil
cdef void add_states(const Steps* s, bint reverse, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* dstate,
                     real* dh) noexcept nogil
