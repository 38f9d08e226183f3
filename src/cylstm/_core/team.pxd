"""The team of threads that works on a call: the pool (cext/pool.h), its members, and what each of them does. One module
holds the pool, so that the whole package shares one."""

from cylstm._core.interrupt cimport Interrupt
from cylstm._core.ragged cimport Steps, alive

cdef extern from "pool.h" nogil:
    ctypedef struct Team "cylstm_team":
        pass
    ctypedef void (*Task "cylstm_task")(void* context, int me, int count, Team* team) noexcept nogil

cdef enum:
    ALL_THREADS = 256  # as many as set_num_threads() allows

# As in pool.h. `wanted` is bounded by set_num_threads().
cdef void run(int wanted, Task task, void* context) noexcept nogil
cdef void run_in_a_row(int asleep, int awake, Task task, void* context) noexcept nogil
cdef void meet(Team* team) noexcept nogil

# How many threads work of so many multiply-adds is worth, where the threads meet after each `between` of them; `pieces`
# is the most it can be cut into. awake: of threads that are.
cdef int threads_for(double work, double between, Py_ssize_t pieces, bint awake=*) noexcept nogil

# What one member of a team computes: the hidden units first..last of the rows first_row..last_row of the batch. The
# work is shared out in one of two ways:
#   by units: all rows, whole vectors of units. Each member reads its part of the weights only, which then stay in its
#             cache; at each step everybody needs h (forward) or the gates' gradients (backward) from everybody, so they
#             meet.
#   by rows:  all units, some rows. No meeting within a layer, and no cache line that two members write to.
cdef struct Member:
    int me
    int count
    Team* team
    Interrupt* interrupt
    Py_ssize_t first
    Py_ssize_t last
    Py_ssize_t first_row
    Py_ssize_t last_row
    bint by_rows

cdef enum:
    ROWS_EACH = 4        # each member gets as many at least, where rows are shared out

# The first of the pieces, numbered from 0, that are this member's; part(pieces, me + 1, count) is the next one's.
cdef inline Py_ssize_t part(Py_ssize_t pieces, int me, int count) noexcept nogil:
    return pieces * me // count

# The rows of this member that are alive at step t: from first_row to here, none where it is less.
cdef inline Py_ssize_t last_alive(const Steps* s, const Member* who, Py_ssize_t t) noexcept nogil:
    return max(who.first_row, min(who.last_row, alive(s, t)))

# Tiles hold 16 rows: members that share out rows have tiles of their own, and begin after so many.
cdef inline Py_ssize_t tiles_before(const Member* who) noexcept nogil:
    return (who.first_row + 15) // 16 + who.me if who.by_rows else 0

cdef Member member_by_units(int me, int count, Team* team, Interrupt* interrupt, const Steps* s, Py_ssize_t Hp,
                            Py_ssize_t lanes) noexcept nogil
cdef Member member_by_rows(int me, int count, Team* team, Interrupt* interrupt, const Steps* s,
                           Py_ssize_t Hp, int form) noexcept nogil
cdef void meet_by_units(const Member* who) noexcept nogil
