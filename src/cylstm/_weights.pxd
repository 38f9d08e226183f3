"""The weights of a network packed for one instruction set, in the forms that calls have asked for so far."""

from cylstm._kernels cimport Kernels
from cylstm._sequence cimport Cell, Factor

# Which of the four products of a call are products of tiles: x W' and h R' forward, dgates R and dgates W backward,
# and, in one go, dgates' x and dgates' h.
cdef struct Choice:
    bint inputs      # x W'
    bint steps       # h R', dgates R
    bint rows        # dgates W
    bint gradients   # dgates' x, dgates' h

cdef class Form:
    """Cells whose factors point into arrays that this object keeps."""
    cdef Cell* cells      # (L*D,)
    cdef object arrays

# The parameters at one moment, and what was packed from them; another moment, another object. So a call keeps the weights
# that it began with, whatever is updated meanwhile.
cdef class Moment:
    cdef object flat, factors, forms

cdef class Weights:
    cdef const Kernels* k
    cdef readonly Py_ssize_t L, D, H, Hp
    cdef readonly object dtype
    cdef Moment now
    cdef object sizes, spare
    cdef Choice choose(self, Py_ssize_t B, Py_ssize_t N)
    cdef Form form(self, Moment moment, Choice choice, bint ids, bint backward)
    cdef Factor _factor(self, Moment moment, Form form, n, kind, bint tiled)
    cdef take_memory(self, size)
    cdef give_memory(self, memory)
