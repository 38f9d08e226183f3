"""Copies between the caller's order of rows and the packed one (_steps.pxd), before and after the steps: initial and
final states, the gradients of outputs and inputs, padding. What is copied step by step is in _sequence.pyx.

Every function is called by all members of a team at once and does its member's part.
"""

from libc.string cimport memcpy, memset

from cylstm._kernels cimport real
from cylstm._sequence cimport Cell, Member, last_alive, part
from cylstm._steps cimport Steps, alive, caller_row, first_slot, last_slot, length, offset, slot


cdef void place_states(const Steps* s, bint reverse, bint one_boundary, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                       const real* state, real* rows) noexcept nogil:
    """state (B, H) in the caller's order -> the boundary where each row begins, zeros in the padding and for NULL."""
    cdef Py_ssize_t b, last = min(who.last, H)
    cdef real* row
    for b in range(who.first_row, who.last_row):
        row = rows + (b if one_boundary else first_slot(s, reverse, b)) * Hp
        if state == NULL:
            memset(row + who.first, 0, (who.last - who.first) * sizeof(real))
            continue
        memcpy(row + who.first, state + caller_row(s, b) * H + who.first, (last - who.first) * sizeof(real))
        memset(row + last, 0, (who.last - last) * sizeof(real))


cdef void fetch_states(const Steps* s, bint reverse, bint at_start, bint one_boundary, const Member* who, Py_ssize_t H,
                       Py_ssize_t Hp, const real* rows, real* state) noexcept nogil:
    """The boundary where each row ends (or starts) -> state (B, H) in the caller's order."""
    cdef Py_ssize_t b, n, size = (min(who.last, H) - who.first) * sizeof(real)
    for b in range(who.first_row, who.last_row):
        n = b if one_boundary else first_slot(s, reverse, b) if at_start else last_slot(s, reverse, b)
        memcpy(state + caller_row(s, b) * H + who.first, rows + n * Hp + who.first, size)


cdef void clear_padding(const Steps* s, int me, int count, Py_ssize_t width, Py_ssize_t row, Py_ssize_t step,
                        real* y) noexcept nogil:
    """y (B, T, width) in the caller's order = 0 past the end of each row, this member's share of the rows."""
    cdef Py_ssize_t b, t
    for b in range(part(s.B, me, count), part(s.B, me + 1, count)):
        for t in range(length(s, b), s.T):
            memset(y + caller_row(s, b) * row + t * step, 0, width * sizeof(real))


cdef void start_gradients(const Steps* s, bint reverse, bint packed, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                          const real* dy, Py_ssize_t row, Py_ssize_t step, const real* mask, Py_ssize_t mask_row,
                          real* dh) noexcept nogil:
    """The reverse of copying outputs: dh at each boundary = dy, and zero where no step ends."""
    cdef Py_ssize_t t, b, j, at, last = min(who.last, H), size = (who.last - who.first) * sizeof(real)
    cdef real* target
    cdef const real* kept
    for b in range(who.first_row, who.last_row):
        memset(dh + first_slot(s, reverse, b) * Hp + who.first, 0, size)
    for t in range(s.T):
        target = dh + (slot(s, t if reverse else t + 1) + who.first_row) * Hp
        for b in range(who.first_row, last_alive(s, who, t)):
            at = (offset(s, t) + b) * row if packed else caller_row(s, b) * row + t * step
            memcpy(target + who.first, dy + at + who.first, (last - who.first) * sizeof(real))
            if mask != NULL:
                kept = mask + (offset(s, t) + b) * mask_row
                for j in range(who.first, last):
                    target[j] *= kept[j]
            memset(target + last, 0, (who.last - last) * sizeof(real))
            target += Hp


cdef void add_states(const Steps* s, bint reverse, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* dstate,
                     real* dh) noexcept nogil:
    """dh at the boundary where each row ends += d loss / d (final h), (B, H) in the caller's order."""
    cdef Py_ssize_t b, j
    cdef real* target
    cdef const real* source
    for b in range(who.first_row, who.last_row):
        target, source = dh + last_slot(s, reverse, b) * Hp, dstate + caller_row(s, b) * H
        for j in range(who.first, min(who.last, H)):
            target[j] += source[j]


cdef void give_input_gradients(const Steps* s, int me, int count, const Cell* cell, const real* dx, bint packed,
                               Py_ssize_t row, Py_ssize_t step, real* caller) noexcept nogil:
    """dx (N, Ip) packed -> the caller's (B, T, I), or (N, I), this member's share of the steps."""
    cdef Py_ssize_t t, b, at, I = cell.I
    for t in range(part(s.T, me, count), part(s.T, me + 1, count)):
        for b in range(alive(s, t)):
            at = (offset(s, t) + b) * row if packed else caller_row(s, b) * row + t * step
            memcpy(caller + at, dx + (offset(s, t) + b) * cell.Ip, I * sizeof(real))
