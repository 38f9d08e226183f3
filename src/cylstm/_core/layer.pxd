"""See layer.pyx."""

cimport numpy as np

from cylstm._core.arguments cimport Arguments
from cylstm._core.packed_weights cimport Weights
from cylstm._core.arena cimport Shelf, Work
from cylstm._core.tape cimport Tape

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
    cdef int _forward(self, Work work, bint stops) except -1
    cdef np.ndarray _last_rows(self, np.ndarray h, Py_ssize_t B, bint batched)
    cdef _backward(self, Work work, bint batched, np.ndarray array, dstate, gradients, bint input_gradient)
    cdef int _check_dy(self, Tape tape, np.ndarray dy) except -1
    cdef int _point_at(self, Work work, name, np.ndarray array, bint has_ids, bint in_order, Py_ssize_t row,
                       Py_ssize_t step) except -1
    cdef tuple _point_at_state(self, Work work, name, state, Py_ssize_t B)
    cdef list _sizes(self)
