"""States that lie apart: one step of B rows reads and writes each of them in its own place."""

from cylstm._core.kernels cimport real
from cylstm._core.team cimport Member

# Of a layer with one direction. Each row's h and c of all layers, in reals of the layer's type.
cdef struct Apart:
    char** h            # (B,) where each row's h of the first layer lies; NULL where states lie together
    char** c
    Py_ssize_t h_layer  # from one layer's to the next one's, in reals
    Py_ssize_t c_layer

cdef void place_apart(const Member* who, Py_ssize_t H, Py_ssize_t Hp, char* const* states, Py_ssize_t at,
                      real* rows) noexcept nogil
cdef void fetch_apart(const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* rows, Py_ssize_t ld,
                      char* const* states, Py_ssize_t at) noexcept nogil

# Asks for memory that is wanted soon, where no processor guesses that it is.
cdef extern from * nogil:
    """
    #define cylstm_fetch_soon(address) __builtin_prefetch(address)
    """
    void fetch_soon "cylstm_fetch_soon"(const void* address)
