"""See interrupt.pxd."""

import os
import threading

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef extern from "<time.h>" nogil:
    """
    #ifdef _WIN32 /* whose older C library lacks timespec_get */
    #define WIN32_LEAN_AND_MEAN
    #include <windows.h>
    static double cylstm_clock(void) { return 1e-3 * (double)GetTickCount64(); }
    #else
    static double cylstm_clock(void)
    {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
    #endif
    """
    double cylstm_clock()

# Asking takes the GIL, for which one may have to wait 5 ms (sys.getswitchinterval) where other threads want it as well.
cdef double SECONDS_BETWEEN = 0.05

# Known without the GIL: a thread that Python handles no signals on never asks for it.
cdef unsigned long main_thread = threading.main_thread().ident


def _forked():
    """In a child, the thread that forked is the main one."""
    global main_thread
    main_thread = PyThread_get_thread_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


cdef void begin(Interrupt* call) noexcept nogil:
    call.end, call.asked, call.error = NEVER, 0, NULL
    call.silent = PyThread_get_thread_ident() != main_thread


cdef void ask(Interrupt* call, Py_ssize_t beat) noexcept nogil:
    """Let Python handle its signals, if it is time to; the next beat is the last one where a handler raises."""
    cdef double now
    if call.silent:
        return
    now = cylstm_clock()
    if call.asked == 0:
        call.asked = now
    elif abs(now - call.asked) >= SECONDS_BETWEEN:
        if raises(call):
            cylstm_set_beat(&call.end, beat + 1)
        call.asked = cylstm_clock()  # a handler slower than its signals come does not keep the call from going on


cdef bint raises(Interrupt* call) noexcept with gil:
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        Py_INCREF(error)
        call.error, call.silent = <void*>error, True
        return True
    return False


cdef int finish(Interrupt* call) except -1:
    """At the end of a call, with the GIL: raise what a handler raised in the middle of it."""
    if call.error == NULL:
        return 0
    error = <object>call.error
    Py_DECREF(error)
    call.error = NULL
    raise error
