"""See tile_range.pyx."""

from cylstm._core.direction cimport Direction
from cylstm._core.kernels cimport Kernels
from cylstm._core.network cimport Backward, Forward

cdef bint forward_fits_tiles(const Forward* call) noexcept nogil
cdef bint backward_fits_tiles(const Backward* call) noexcept nogil
cdef bint vectors_fit_tiles(const Kernels* k, const Direction* directions, Py_ssize_t count) noexcept nogil
