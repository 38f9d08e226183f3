"""A ragged batch in packed, time-major order: which rows are alive at each step, and where their states lie."""

from libc.stdint cimport int64_t, uint8_t

# Rows are sorted by length, longest first, so that the rows alive at step t are the first sizes[t] ones.
#
#   packed rows (inputs, gates, outputs):  step t, row b  ->  offset(t) + b            N rows in all
#   states, at the boundaries of steps:    boundary 0 has B rows, boundary t+1 has sizes[t]; boundary t starts at
#                                          slot(t) = 0 for t = 0 and B + offset(t-1) after         B + N rows in all
#
# Forward, step t reads boundary t and writes boundary t+1. In the reverse direction it reads t+1 and writes t, and a
# row of length n starts from boundary n: the two directions differ in nothing else. A row of length 0 has boundary 0
# alone, where its initial state is its final one.
#
# cut[offset(t) + b] says that nothing crosses boundary t of row b (the caller's `resets`).
cdef struct Steps:
    Py_ssize_t B
    Py_ssize_t T
    Py_ssize_t N
    const int64_t* sizes     # (T,)   NULL where every row is alive at every step
    const int64_t* offsets   # (T+1,) NULL likewise
    const int64_t* order     # (B,)   packed row b is the caller's row order[b]; NULL likewise
    const int64_t* lengths   # (B,)   in packed order; NULL likewise
    const uint8_t* cut       # (N,)   NULL without resets
    bint two_boundaries      # only the states before and after one step are there, 2B rows, used in turn

cdef class Plan:
    cdef Steps steps
    cdef object table  # sizes, offsets, order, lengths
    cdef readonly object cut
    cdef readonly object lengths  # (B,) in the caller's order; None where every row has T steps
    cdef int sort(self, lengths) except -1

# Steps of B rows of at most T steps by their lengths (B,) in 0..T; table: of 2 (T + B) + 1 numbers, which they keep.
cdef void sort_rows(Steps* steps, const int64_t* lengths, int64_t* table) noexcept nogil

# The Plan of a call's lengths and resets, which it checks; None without any.
cpdef Plan planned(Py_ssize_t B, Py_ssize_t T, lengths, resets, bint batched=*)

cdef packed_ids(name, ids, Steps* s, Py_ssize_t V)

cdef inline Py_ssize_t alive(const Steps* s, Py_ssize_t t) noexcept nogil:
    return s.sizes[t] if s.sizes != NULL else s.B

cdef inline Py_ssize_t offset(const Steps* s, Py_ssize_t t) noexcept nogil:
    return s.offsets[t] if s.offsets != NULL else t * s.B

cdef inline Py_ssize_t slot(const Steps* s, Py_ssize_t t) noexcept nogil:
    if s.two_boundaries:
        return t % 2 * s.B
    return s.B + offset(s, t - 1) if t > 0 else 0

cdef inline Py_ssize_t length(const Steps* s, Py_ssize_t b) noexcept nogil:
    return s.lengths[b] if s.lengths != NULL else s.T

cdef inline Py_ssize_t caller_row(const Steps* s, Py_ssize_t b) noexcept nogil:
    return s.order[b] if s.order != NULL else b

# Whether nothing crosses boundary t for packed row b.
cdef inline bint is_cut(const Steps* s, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
    return s.cut != NULL and t < s.T and b < alive(s, t) and s.cut[offset(s, t) + b]

cdef inline Py_ssize_t first_slot(const Steps* s, bint reverse, Py_ssize_t b) noexcept nogil:
    return slot(s, length(s, b)) + b if reverse else b

cdef inline Py_ssize_t last_slot(const Steps* s, bint reverse, Py_ssize_t b) noexcept nogil:
    return b if reverse else slot(s, length(s, b)) + b
