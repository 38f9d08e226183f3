"""See packing.pyx."""

from cylstm._core.direction cimport Direction
from cylstm._core.kernels cimport Kernels, real
from cylstm._core.team cimport Team

cdef enum:
    LINE = 64                  # bytes of a cache line

cdef enum Way:
    GATES,   # by the team, in blocks of 4 * lanes columns
    BLOCKS,  # (rows, columns), its elements so far apart, in column blocks
    PADDED   # (rows, K) -> (rows, columns)

# One matrix to be packed.
cdef struct Packing:
    const Kernels* k
    Way way
    bint doubles
    Py_ssize_t start     # of the source in all parameters, in reals; -1 for zeros
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
    Py_ssize_t k_apart, column_apart

# One matrix by one thread; whether the form holds it.
cdef bint pack_alone(const Packing* packing) noexcept nogil
cdef void pack_rows(const Packing* packing) noexcept nogil
cdef void pack_f32(void* packing, int me, int count, Team* team) noexcept nogil
cdef void pack_f64(void* packing, int me, int count, Team* team) noexcept nogil
cdef bint vectors_fit_tiles(const Kernels* k, const Direction* directions, Py_ssize_t count) noexcept nogil
cdef void pack_blocks(Py_ssize_t lanes, Py_ssize_t K, Py_ssize_t columns, Py_ssize_t k_apart, Py_ssize_t column_apart,
                      const real* source, real* target) noexcept nogil

# How matrices were packed, so that others of their shapes can be packed into the same memory, without the GIL.
cdef class Again:
    cdef Py_ssize_t count
    cdef Packing* packings
    cdef list held           # memory that they use
    cdef int note(self, const Packing* packing) except -1

# The same of parameters that begin at `flat`; whether their forms hold them.
cdef bint pack_again(const Packing* packings, Py_ssize_t count, const char* flat) noexcept nogil
