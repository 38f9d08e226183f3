"""The rows of a batch for CTC.

Logits of all rows stand in one array (N, V): row b has lengths[b] steps from starts[b] on, and its labels, where it is
given any, are labels[ends[b]:ends[b + 1]]. A row is one piece of work, whoever does it, so that the bits do not depend
on the number of threads.
"""

from libc.stdint cimport int64_t

from cylstm._core.interrupt cimport Interrupt
from cylstm._core.kernels cimport Kernels
from cylstm._core.team cimport Task

# What all calls have in common; the structures of each begin with it.
cdef struct Rows:
    Interrupt* interrupt
    const Kernels* k
    Py_ssize_t B, V, blank
    const void* logits      # (N, V)
    const int64_t* starts   # (B,)
    const int64_t* lengths
    const int64_t* labels
    const int64_t* ends     # (B + 1,)
    char* own               # of each member, so many bytes
    Py_ssize_t own_bytes

cdef int set_rows(Rows* rows, Py_ssize_t N, Py_ssize_t V, const int64_t[::1] starts, const int64_t[::1] lengths,
                  Py_ssize_t blank) except -1
# `task` on all rows by a team that is worth so many multiply-adds, with so many bytes for each member.
cdef int run_rows(Rows* rows, Task task, void* call, double work, double room) except -1
