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

cdef inline bint any_tiles(Choice choice) noexcept nogil:
    return choice.inputs or choice.steps or choice.rows or choice.gradients

# What was packed from the parameters as they were at one version. A call borrows it and keeps the weights it began
# with: with others of it still borrowed, an update packs into new memory.
cdef class Packed:
    cdef const Kernels* k
    cdef long long version
    cdef int users           # changed by add() alone: calls, and tapes that wait for their backward
    cdef list arrays         # per cell, kind and form: memory, or None
    cdef const void** at     # the same, NULL where not packed from this version, &too_much where tiles do not hold them
    cdef void borrow_again(self) noexcept
    cdef void give_back(self) noexcept
    cdef spare(self, Py_ssize_t n, int kind)

# Columns of `offsets`.
cdef Py_ssize_t WEIGHT_IH, WEIGHT_HH, BIASES, PEEPHOLE

cdef class Weights:
    cdef readonly Py_ssize_t I, H, L, D
    cdef readonly bint doubles
    cdef readonly object cell      # cylstm.cell.CellType
    cdef const Py_ssize_t[:, ::1] offsets  # cylstm.cell.offsets()
    cdef object flat, parameters, lock
    cdef Packed now
    cdef int most            # threads that pack
    cdef long long version(self)
    cdef Packed borrow(self)
    cdef bint in_use(self)
    cdef int fill_forward(self, Packed packed, Cell* cells, Choice choice, bint ids) except -1
    cdef int fill_backward(self, Packed packed, Cell* cells, Choice choice, bint to_inputs) except -1
    cdef int take(self, Packed packed, const Cell* cell, Py_ssize_t n, int kind, bint tiled, Factor* factor) except -1
    cdef int _pad(self, Packed packed, const Cell* cell, Py_ssize_t slot) except -1
    cdef int _pack(self, Packed packed, const Cell* cell, Py_ssize_t n, int kind, bint tiled) except -1

cdef Choice choose(const Kernels* k, bint doubles, Py_ssize_t H, Py_ssize_t B, Py_ssize_t N) noexcept nogil
