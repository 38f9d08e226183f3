"""The tape of a call of a layer."""

from cylstm._core.arena cimport Work
from cylstm._core.ragged cimport Plan

# What `forward` keeps for `backward`: inputs, gates, h and c of every step, and the dropout masks.
cdef class Tape:
    cdef readonly object layer  # the Layer that made it
    cdef Work work           # None once backward has used it
    cdef bint batched, per_row
    cdef object kept_masks   # cylstm.drops.Masks, or None
    cdef Plan plan
    cdef readonly Py_ssize_t nbytes
    cdef _after_steps(self, bint of_c)
