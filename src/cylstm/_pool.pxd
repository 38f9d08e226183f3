"""The threads (cext/pool.h) for Cython. One module holds them, so that the whole package shares one pool."""

cdef extern from "pool.h" nogil:
    ctypedef struct Team "cylstm_team":
        pass
    ctypedef void (*Task "cylstm_task")(void* context, int me, int count, Team* team) noexcept nogil

cdef enum:
    ALL_THREADS = 256  # as many as set_num_threads() allows

# As in pool.h. `wanted` is bounded by set_num_threads().
cdef void run(int wanted, Task task, void* context) noexcept nogil
cdef void meet(Team* team) noexcept nogil

# How many threads work of so many multiply-adds is worth, where the threads meet after each `between` of them; `pieces`
# is the most it can be cut into.
cdef int threads_for(double work, double between, Py_ssize_t pieces) noexcept nogil
