"""See tile_range.pyx."""

from cylstm._core.network cimport Backward, Forward

cdef bint forward_fits_tiles(const Forward* call) noexcept nogil
cdef bint backward_fits_tiles(const Backward* call) noexcept nogil

# Whether no number of a state's h is beyond -1..1, which int8 has. What is no number has to be none in c either, which
# keeps it so: the bytes of h know none.
cdef inline bint within_one(const float* h, const float* c, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t n
    cdef bint all_are = True
    for n in range(count):
        all_are &= -1 <= h[n] <= 1 or (h[n] != h[n] and c != NULL and c[n] != c[n])
    return all_are
