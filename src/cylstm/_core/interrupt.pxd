"""Ctrl-C in the middle of a call.

Python hears of signals when it is asked, and hands them to its main thread only. So the member of a team that is the
calling thread asks now and then, and if something was raised, the others have to know: they meet at each step, and who
left alone would leave them waiting. They count beats instead, each the same ones (the steps of all layers one after
the other), and all leave at the same beat, the one after that at which the caller asked. Between the two they meet.
"""

cdef extern from * nogil:
    """
    #define cylstm_beat(end) __atomic_load_n(end, __ATOMIC_RELAXED)
    #define cylstm_set_beat(end, value) __atomic_store_n(end, value, __ATOMIC_RELAXED)
    """
    Py_ssize_t cylstm_beat(const Py_ssize_t* end)
    void cylstm_set_beat(Py_ssize_t* end, Py_ssize_t value)
    Py_ssize_t NEVER "PY_SSIZE_T_MAX"

cdef struct Interrupt:
    Py_ssize_t end      # the first beat that nobody comes to
    double asked        # when, in s; 0 before the first time
    bint silent         # do not ask: on other threads than the main one nobody answers
    void* error         # what was raised, owned

cdef void begin(Interrupt* call) noexcept nogil
cdef void ask(Interrupt* call, Py_ssize_t beat) noexcept nogil
cdef int finish(Interrupt* call) except -1

# Whether there is still something to do at this beat. `every`: a power of two of beats between two looks at the clock.
cdef inline bint goes_on(Interrupt* call, int me, Py_ssize_t beat, Py_ssize_t every) noexcept nogil:
    if me == 0 and beat & (every - 1) == every - 1:
        ask(call, beat)
    return beat < cylstm_beat(&call.end)

# The same where members do not meet until the work between two beats is over: each may leave when it likes.
cdef inline bint goes_on_alone(Interrupt* call, int me, Py_ssize_t beat) noexcept nogil:
    if me == 0:
        ask(call, beat)
    return cylstm_beat(&call.end) == NEVER

# How many beats of so many multiply-adds to let pass between two looks at the clock.
cdef inline Py_ssize_t beats_between(double work) noexcept nogil:
    cdef Py_ssize_t every = 1
    while every < 1048576 and every * work < 4e6:
        every *= 2
    return every
