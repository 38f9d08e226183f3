"""See packing.pyx."""

from cylstm._core.direction cimport Direction
from cylstm._core.kernels cimport Kernels, real
from cylstm._core.team cimport Team

cdef enum:
    LINE = 64                  # bytes of a cache line

# One matrix to be packed: by the team, in blocks of 4 * lanes columns.
cdef struct Packing:
    const Kernels* k
    bint backward
    int form
    bint cut
    Py_ssize_t H, K, lanes
    Py_ssize_t rows      # of the packed factor, and its columns
    Py_ssize_t columns
    Py_ssize_t blocks
    const char* source
    const char* scales   # (4H,), of whole numbers; or NULL
    char* target
    char* scratch        # of each member: one block before it is cut; in the last line, its largest weight
    Py_ssize_t room      # bytes

cdef void pack_f32(void* packing, int me, int count, Team* team) noexcept nogil
cdef void pack_f64(void* packing, int me, int count, Team* team) noexcept nogil
cdef bint vectors_fit_tiles(const Kernels* k, const Direction* directions, Py_ssize_t count) noexcept nogil
cdef void pack_blocks(Py_ssize_t lanes, Py_ssize_t K, Py_ssize_t columns, Py_ssize_t k_apart, Py_ssize_t column_apart,
                      const real* source, real* target) noexcept nogil
