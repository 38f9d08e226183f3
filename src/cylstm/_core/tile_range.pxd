"""See tile_range.pyx."""

from cylstm._core.network cimport Backward, Forward

cdef bint forward_fits_tiles(const Forward* call) noexcept nogil
cdef bint backward_fits_tiles(const Backward* call) noexcept nogil

# Whether all numbers of h are within -1..1, as int8 has them.
cdef inline bint within_one(const float* h, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t n
    cdef bint all_are = True
    for n in range(count):
        all_are &= -1 <= h[n] <= 1
    return all_are
