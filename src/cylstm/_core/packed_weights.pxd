"""The weights of a network packed for one instruction set, in the forms that calls have asked for so far."""

from cylstm._core.choice cimport Choice
from cylstm._core.kernels cimport Kernels
from cylstm._core.direction cimport Direction, Factor
from cylstm._core.packing cimport Again, Packing

# What was packed from the parameters as they were at one version. A call borrows it and keeps the weights it began
# with: with others of it still borrowed, an update packs into new memory.
cdef class Packed:
    cdef const Kernels* k
    cdef long long version
    cdef int users           # changed by add() alone: calls, and tapes that wait for their backward
    cdef object masks        # (L*D, 4H, Y), of a call that drops elements of weight_hh; or None
    cdef list arrays         # per direction, operand and form: memory, or None
    cdef const void** at     # the same, NULL where not packed from this version, &too_much where tiles do not hold them
    cdef Again again         # where somebody wants to know how; or None
    cdef int note(self, const Packing* packing) except -1
    cdef void borrow_again(self) noexcept
    cdef void give_back(self) noexcept
    cdef spare(self, Py_ssize_t n, int operand)

# Columns of `offsets`.
cdef Py_ssize_t WEIGHT_IH, WEIGHT_HH, BIASES, PEEPHOLE, FIRST_H, FIRST_C, WEIGHT_HR, NORM_IH, NORM_HH, NORM_C
cdef Py_ssize_t HIGHWAY, HIGHWAY_BIAS

cdef class Weights:
    cdef readonly Py_ssize_t I, H, L, D, Y, O  # H, Y and O of the widest layer
    cdef const Py_ssize_t[:, ::1] sizes        # (L, 3): those of each
    cdef readonly int merge        # of the directions (direction.pxd)
    cdef readonly bint doubles
    cdef readonly object cell      # cylstm.cell.CellType
    cdef readonly int small        # the form of its matrices, PANELS for float32 and float64
    cdef bint rounded              # whether products of float32 are in bfloat16
    cdef bint bounded              # whether its gates and outputs are, so that tiles hold them
    cdef const Py_ssize_t[:, ::1] offsets  # cylstm.cell.offsets()
    cdef object flat, parameters, lock
    cdef Packed now
    cdef Packed dropped     # the last of those that are masked
    cdef int most            # threads that pack
    cdef long long version(self)
    cdef numbers(self, Py_ssize_t start, Py_ssize_t size)
    cdef Packed borrow(self)
    cdef Packed borrow_masked(self, masks)
    cdef bint in_use(self)
    cdef int fill_forward(self, Packed packed, Direction* directions, Choice choice, bint ids) except -1
    cdef int fill_backward(self, Packed packed, Direction* directions, Choice choice, bint to_inputs) except -1
    cdef int take(self, Packed packed, const Direction* direction, Py_ssize_t n, int operand, int form,
                  Factor* factor) except -1
    cdef int take_norms(self, Packed packed, Direction* direction, Py_ssize_t n) except -1
    cdef int _pad(self, Packed packed, Py_ssize_t slot, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t width,
                  Py_ssize_t padded) except -1
    cdef int _pack_matrix(self, Packed packed, Py_ssize_t slot, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t width,
                          bint backward) except -1
    cdef int _pack_rows(self, Packed packed, Py_ssize_t slot, Packing* packing, memory, Py_ssize_t numbers,
                        Py_ssize_t room) except -1
    cdef int _pack_gates(self, Packed packed, const Direction* direction, Py_ssize_t n, Py_ssize_t slot, int form,
                         bint backward) except -1
    cdef int _pack(self, Packed packed, const Direction* direction, Py_ssize_t n, int operand, int form) except -1
