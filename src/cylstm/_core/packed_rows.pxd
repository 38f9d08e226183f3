"""Copies between the caller's order of rows and the packed one."""

from libc.string cimport memcpy, memset

from cylstm._core.direction cimport Direction, Inputs, Outputs
from cylstm._core.kernels cimport Kernels, real
from cylstm._core.ragged cimport Steps, alive, is_cut
from cylstm._core.team cimport Member

# At which boundary between steps a row's states are: where the row begins, where it ends, or the only one that is kept.
cdef enum Boundary:
    FIRST, LAST, ONLY

cdef void place_states(const Steps* s, bint reverse, Boundary boundary, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                       const real* state, Py_ssize_t ld, const real* first, real* rows) noexcept nogil
cdef void fetch_states(const Steps* s, bint reverse, Boundary boundary, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                       const real* rows, Py_ssize_t ld, real* state) noexcept nogil
cdef void clear_padding(const Steps* s, int me, int count, Py_ssize_t width, Py_ssize_t row, Py_ssize_t step,
                        real* y) noexcept nogil
cdef void start_gradients(const Steps* s, bint reverse, bint packed, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                          const real* dy, Py_ssize_t row, Py_ssize_t step, const real* mask, Py_ssize_t mask_row,
                          bint per_row, real* dh) noexcept nogil
cdef void give_input_gradients(const Steps* s, int me, int count, const Direction* direction, const real* dx,
                               const real* mask, bint packed, Py_ssize_t row, Py_ssize_t step,
                               real* caller) noexcept nogil
cdef void add_states(const Steps* s, bint reverse, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* dstate,
                     Py_ssize_t ld, real* dh) noexcept nogil
cdef void copy_outputs(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* h,
                       const real* gates, const Outputs* outputs) noexcept nogil
cdef void finish_outputs(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* h,
                         const real* gates, const Outputs* outputs) noexcept nogil
cdef void part_gradients(const Steps* s, bint reverse, int merge, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                         const real* other, real* dh) noexcept nogil
cdef void sum_gradients(const Steps* s, int me, int count, Py_ssize_t width, bint packed, const real* dy,
                        Py_ssize_t row, Py_ssize_t step, const real* mask, bint per_row, bint add,
                        real* sums) noexcept nogil
cdef void pack_inputs(const Steps* s, const Inputs* inputs, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t first,
                      Py_ssize_t last, Py_ssize_t I, real* x) noexcept nogil
cdef void copy_uncut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t first, Py_ssize_t last,
                     Py_ssize_t width, const real* rows, const real* anew, real* copy) noexcept nogil
cdef void copy_cut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t width, const real* rows,
                   real* copy) noexcept nogil
cdef void clear_cut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t width,
                    real* rows) noexcept nogil
cdef void add_cut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t width, const real* rows,
                  real* sums) noexcept nogil
cdef void copy_masked(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t first, Py_ssize_t last,
                      Py_ssize_t H, Py_ssize_t width, const real* rows, const real* mask, const real* anew,
                      real* copy) noexcept nogil
cdef void set_aside(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t width, real* rows,
                    real* copy) noexcept nogil
cdef void add_masked(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t H, Py_ssize_t width,
                     const real* copy, const real* mask, real* sums, real* rows) noexcept nogil
cdef void add_masked_gates(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t H,
                           Py_ssize_t width, const real* parts, const real* masks, real* sums,
                           real* rows) noexcept nogil
cdef const void* carry(const Kernels* k, const Steps* s, Py_ssize_t t, bint reverse, bint cut, int form,
                       const Member* who, Py_ssize_t first, Py_ssize_t last, Py_ssize_t K, Py_ssize_t width,
                       const real* rows, const real* mask, const real* anew, char* carried,
                       real* scratch) noexcept nogil

# This member's units of one row: state (H,) -> row (Hp,), zeros from unit `last` on, and back, zeros beyond H.
cdef inline void place_row(const Member* who, Py_ssize_t last, const real* state, real* row) noexcept nogil:
    memcpy(row + who.first, state + who.first, (last - who.first) * sizeof(real))
    memset(row + last, 0, (who.last - last) * sizeof(real))

cdef inline void fetch_row(const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* row, Py_ssize_t ld,
                           real* state) noexcept nogil:
    memcpy(state + who.first, row + who.first, (min(who.last, H) - who.first) * sizeof(real))
    if ld > H and who.last == Hp:
        memset(state + H, 0, (ld - H) * sizeof(real))

# Whether anything ends between step t and the step before it.
cdef inline bint has_cut(const Steps* s, Py_ssize_t t, bint reverse) noexcept nogil:
    cdef Py_ssize_t b
    if s.cut != NULL:
        for b in range(alive(s, t)):
            if is_cut(s, t + 1 if reverse else t, b):
                return True
    return False
