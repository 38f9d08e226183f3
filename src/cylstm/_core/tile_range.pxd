"""See tile_range.pyx."""

from cylstm._core.network cimport Backward, Forward

cdef bint forward_fits_tiles(const Forward* call) noexcept nogil
cdef bint backward_fits_tiles(const Backward* call) noexcept nogil

# Whether no number of h is beyond -1..1, which int8 has. What is no number stays so by its c, which is none either.
cdef inline bint within_one(const float* h, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t n
    cdef bint all_are = True
    for n in range(count):
        all_are &= not (h[n] < -1 or h[n] > 1)
    return all_are
