"""See tile_range.pyx."""

from cylstm._core.network cimport Backward, Forward

cdef bint forward_fits_tiles(const Forward* call) noexcept nogil
cdef bint backward_fits_tiles(const Backward* call) noexcept nogil
