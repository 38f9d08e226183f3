"""See layer.pyx."""

cimport numpy as np

from cylstm._core.arguments cimport Arguments
from cylstm._core.ragged cimport Plan
from cylstm._core.packed_weights cimport Weights
from cylstm._core.arena cimport Shelf, Work

cdef class Layer(Arguments):
    cdef object generator
    cdef readonly object drops   # cylstm.drops.Drops
    cdef int drawn               # the masks that forward draws (direction.pxd)
    cdef readonly Weights _weights
    cdef Shelf shelf
    cdef bint whole_rows     # a direction begins at their end
    cdef bint own_outputs    # outputs are not the last layer's part of h
    cdef object state_type   # of the states that it returns

    cdef _run(self, x, state, lengths, resets, bint keep)
    cdef int _forward(self, Work work) except -1
    cdef np.ndarray _last_rows(self, np.ndarray h, Py_ssize_t B, bint batched)
    cdef _backward(self, Work work, bint batched, np.ndarray array, dstate, gradients, bint input_gradient)
    cdef int _check_dy(self, Tape tape, np.ndarray dy) except -1
    cdef int _point_at(self, Work work, name, np.ndarray array, bint has_ids, bint in_order, Py_ssize_t row,
                       Py_ssize_t step) except -1
    cdef tuple _point_at_state(self, Work work, name, state, Py_ssize_t B)
    cdef int _point_at_masks(self, Work work, masks) except -1
    cdef list _sizes(self)
    cdef int _mask_gradients(self, Work work, np.ndarray flat) except -1

# What `forward` keeps for `backward`: inputs, gates, h and c of every step, and the dropout masks.
cdef class Tape:
    cdef readonly Layer layer
    cdef Work work           # None once backward has used it
    cdef bint batched, per_row
    cdef object kept_masks   # cylstm.drops.Masks, or None
    cdef Plan plan
    cdef readonly Py_ssize_t nbytes
    cdef _after_steps(self, bint of_c)
