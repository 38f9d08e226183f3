"""How many threads a call may use, and what each does (see team.pxd)."""

from libc.stdint cimport uintptr_t

from cylstm._core.kernels cimport BFLOAT16_TILES, INT8_TILES, ROUNDED_TILES, TILES
from cylstm._core.ragged cimport length

from cylstm.checks import positive_int
from cylstm.processors import default_threads

cdef extern from "pool.h" nogil:
    void cylstm_run(int wanted, Task task, void* context)
    void cylstm_run_in_a_row(int asleep, int awake, Task task, void* context)
    void cylstm_meet(Team* team)
    ctypedef struct OpenMP "cylstm_openmp":
        void* parallel
        void* me
        void* count
    void cylstm_borrow(const OpenMP* openmp)
    void cylstm_full_teams(int always)

cdef int allowed = 1

# Waking a thread costs some microseconds, and each step a meeting of a fraction of one: measured, a thread more pays
# from about so many multiply-adds on.
cdef double WORTH_WAKING = 2e6
cdef double WORTH_SHARING = 120e3  # with threads that are awake
cdef double WORTH_MEETING = 40e3

# What a step costs beside its rows, in rows: most weights pass by while rows are multiplied, tiles of them are loaded
# for 16 rows at once, however few there are.
cdef enum:
    STEP_ROWS = 1
    STEP_ROWS_OF_TILES = 4


cdef void run(int wanted, Task task, void* context) noexcept nogil:
    cylstm_run(min(wanted, allowed), task, context)


cdef void run_in_a_row(int asleep, int awake, Task task, void* context) noexcept nogil:
    cylstm_run_in_a_row(min(asleep, allowed), min(awake, allowed), task, context)


cdef void meet(Team* team) noexcept nogil:
    cylstm_meet(team)


cdef int threads_for(double work, double between, Py_ssize_t pieces, bint awake=False) noexcept nogil:
    cdef double most = min(work / (WORTH_SHARING if awake else WORTH_WAKING), between / WORTH_MEETING)
    return <int>max(1, min(<Py_ssize_t>min(most, 256.0), min(pieces, allowed)))


cdef Member member_by_units(int me, int count, Team* team, Interrupt* interrupt, const Steps* s, Py_ssize_t Hp,
                            Py_ssize_t lanes) noexcept nogil:
    cdef Member who
    who.me, who.count, who.team, who.interrupt, who.by_rows = me, count, team, interrupt, False
    who.first, who.last = part(Hp // lanes, me, count) * lanes, part(Hp // lanes, me + 1, count) * lanes
    who.first_row, who.last_row = 0, s.B
    return who


cdef Member member_by_rows(int me, int count, Team* team, Interrupt* interrupt, const Steps* s,
                           Py_ssize_t Hp, int form) noexcept nogil:
    """As much work for each, not as many rows: those of a ragged batch are sorted by length. form: of R."""
    cdef Member who
    cdef bint tiled = form in (TILES, ROUNDED_TILES, BFLOAT16_TILES, INT8_TILES)
    cdef Py_ssize_t step_rows = STEP_ROWS_OF_TILES if tiled else STEP_ROWS
    cdef Py_ssize_t longest = length(s, 0) if s.lengths != NULL else s.T
    cdef Py_ssize_t low = (1 + step_rows) * longest, high = s.N + step_rows * longest, limit
    cdef int _n
    who.me, who.count, who.team, who.interrupt, who.by_rows = me, count, team, interrupt, True
    who.first, who.last = 0, Hp
    who.first_row, who.last_row = part(s.B, me, count), part(s.B, me + 1, count)
    if s.lengths == NULL:
        return who
    while low < high:  # the least work of one member with which they get through all rows
        limit = (low + high) // 2
        who.last_row = 0
        for _n in range(count):
            who.last_row = rows_worth(s, limit, who.last_row, step_rows)
        if who.last_row < s.B:
            low = limit + 1
        else:
            high = limit
    who.last_row = 0
    for _n in range(me + 1):
        who.first_row = who.last_row
        who.last_row = rows_worth(s, high, who.first_row, step_rows)
    return who


cdef Py_ssize_t rows_worth(const Steps* s, Py_ssize_t work, Py_ssize_t row, Py_ssize_t step_rows) noexcept nogil:
    """The row up to which the rows from `row` on are so much work: one for each of their steps, and step_rows for each
    step of the longest."""
    if row < s.B:
        work -= step_rows * length(s, row)
    while row < s.B and length(s, row) <= work:
        work -= length(s, row)
        row += 1
    return row


cdef void meet_by_units(const Member* who) noexcept nogil:
    if not who.by_rows:
        meet(who.team)


def set_num_threads(n):
    """Let each call use up to n threads, the calling one among them. Results are the same bits for every n.

    They are started when first needed and sleep between calls, but for some microseconds after each; a call that finds
    them at work for another Python thread runs on its own thread alone, and where other processes keep them from
    running, fewer are used for a while. At import n is the environment variable CYLSTM_NUM_THREADS or, without it,
    OMP_NUM_THREADS (by which joblib, Dask and Ray tell their workers their share), or the number of processors that
    this process may use: of its affinity mask or, where that is less, as many whole ones as the quota of its control
    group (a container's) is worth. "Many models, many workers" in the manual has more. Raises TypeError or ValueError.
    """
    global allowed
    allowed = min(positive_int("n", n), 256)


def num_threads():
    """How many threads a call may use; see set_num_threads."""
    return allowed


def borrow(parallel, me, count):
    """Make teams of another library's threads from now on (cext/pool.h): the addresses of libgomp's GOMP_parallel,
    omp_get_thread_num and omp_get_num_threads; or three zeros, for threads of our own again. Not while a call is under
    way."""
    cdef OpenMP openmp
    openmp.parallel, openmp.me = <void*><uintptr_t>parallel, <void*><uintptr_t>me
    openmp.count = <void*><uintptr_t>count
    cylstm_borrow(&openmp if openmp.parallel != NULL else NULL)


def full_teams(always):
    """Whether teams stay as large as is wanted where other processes keep their members from running (cext/crowd.h), as
    tests of many members want it. Not while a call is under way."""
    cylstm_full_teams(bool(always))


set_num_threads(default_threads())
