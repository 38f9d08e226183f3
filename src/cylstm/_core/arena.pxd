"""What one call works in, kept for the next call of the same shape; see arena.pyx."""

from cylstm._core.kernels cimport Kernels
from cylstm._core.network cimport Backward, Forward
from cylstm._core.direction cimport Direction
from cylstm._core.ragged cimport Plan
from cylstm._core.packed_weights cimport Choice, Packed, Weights

cdef class Work:
    cdef Weights weights     # of a call whose layer may have others meanwhile; or None
    cdef Packed packed       # borrowed for one call, or until the backward call
    cdef Plan plan
    cdef Choice choice                    # of the shape, for which there is room
    cdef Choice used                      # by this call: none, where tiles do not hold what it is given
    cdef const Kernels* k
    cdef Direction* directions
    cdef Forward forward
    cdef Backward backward
    cdef readonly bint keep, has_ids, packs, doubles, rounded
    cdef readonly int masked              # the masks that the call has (direction.pxd)
    cdef bint spent                       # its gates have become gradients, or began to
    cdef Py_ssize_t item, members
    cdef Py_ssize_t Hp, Yp, Ip            # of the widest layers
    cdef readonly Py_ssize_t nbytes       # held, in bytes
    cdef object memory, scratch    # of the forward call, to be kept for a backward one; of the backward call
    cdef object x, ids             # arrays that the call points into
    cdef object masks              # the same, cylstm.drops.Masks, or None
    cdef list update_masks         # those of g (B, Hp), in packed order
    cdef bint fits(self, const Kernels* k, Py_ssize_t B, Py_ssize_t T, bint has_ids, bint keep, int masked,
                   bint packs, bint rounded) noexcept
    cdef int lay_out(self, Weights weights, Plan plan, bint has_ids, bint keep, int masked, bint packs) except -1
    cdef void widest(self, Weights weights) noexcept
    cdef int lay_out_backward(self, Weights weights, int members) except -1
    cdef int zone_out(self, shares) except -1
    cdef int lend(self, Weights weights, bint fits_tiles) except -1
    cdef bint forward_fits(self) noexcept
    cdef bint backward_fits(self) noexcept
    cdef int take_forms(self, Weights weights, bint fits_tiles) except -1
    cdef int take_backward_forms(self, Weights weights, bint fits_tiles, bint to_inputs) except -1
    cdef after_steps(self, bint of_c)
    cdef void give_back(self) noexcept

# The works of one layer between calls.
cdef class Shelf:
    cdef list works
    cdef Work take(self, Weights weights, Py_ssize_t B, Py_ssize_t T, Plan plan, bint has_ids, bint keep,
                   int masked, bint packs)
    cdef int put(self, Work work) except -1
