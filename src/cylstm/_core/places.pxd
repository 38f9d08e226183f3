"""States that lie apart; see places.pyx."""

cimport numpy as np

from cylstm._core.arguments cimport Arguments
from cylstm._core.apart cimport Apart

# Where the states of B rows lie: rows of a pool, or states one by one.
cdef class Places:
    cdef Apart apart
    cdef Py_ssize_t B, h_bytes, c_bytes  # of the memory behind each of apart.h and apart.c that is one row's alone
    cdef np.ndarray pool_h, pool_c  # what holds them: None where it is
    cdef list states
    cdef bint maybe_again    # of rows: whether one may have come twice

    cdef int room(self, Py_ssize_t B) except -1
    cdef int point_at_rows(self, Arguments layer, pool, rows, bint batched) except -1
    cdef int point_at_states(self, Arguments layer, list states) except -1
    cdef bint point_at(self, const char* given, Py_ssize_t stride, Py_ssize_t N) noexcept
    cdef Py_ssize_t again(self, Py_ssize_t count, Py_ssize_t* other) except -2
    cdef name(self, Py_ssize_t n)
    cdef int check_range(self, Arguments layer) except -1
    cdef bint meet(self, np.ndarray x)

cdef bint lie_apart(state)
cdef Places places_of(Arguments layer, state, rows, Py_ssize_t B, bint batched)
