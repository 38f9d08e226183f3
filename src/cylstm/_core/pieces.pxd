"""Where the pieces of one allocation lie."""

from cylstm._core.direction cimport Direction
from cylstm._core.kernels cimport left_bytes, right_bytes
from cylstm._core.memory cimport TOO_MANY

cdef enum:
    LINE = 64         # bytes: pieces begin on a cache line

# Pieces of one allocation. Sizes are worked out in double precision, where no product can wrap around.
cdef struct Pieces:
    double end

cdef inline Py_ssize_t place(Pieces* pieces, double size) noexcept nogil:
    """Where a piece of so many bytes begins."""
    cdef Py_ssize_t start = <Py_ssize_t>min(pieces.end, TOO_MANY)
    if size > 0:
        pieces.end = <double>((<Py_ssize_t>min(pieces.end + size, TOO_MANY) + LINE - 1) // LINE * LINE)
    return start


# So many bytes and what is left of the last line.
cdef inline Py_ssize_t lines(double size) noexcept nogil:
    return (<Py_ssize_t>min(size, TOO_MANY) + LINE - 1) // LINE * LINE


cdef inline double left_room(int form, Py_ssize_t rows, Py_ssize_t K) noexcept nogil:
    """Bytes for a left operand (rows, K) beside weights of this form; 0 where it is taken as it lies."""
    return <double>left_bytes(form, rows, 1) * left_bytes(form, 1, K) / max(1, left_bytes(form, 1, 1))


cdef inline double right_room(int form, Py_ssize_t K, Py_ssize_t columns) noexcept nogil:
    """The same for a right operand (K, columns), in a form that is cut or taken as it lies."""
    return <double>right_bytes(form, K, 1, 0) * right_bytes(form, 1, columns, 0) / max(1, right_bytes(form, 1, 1, 0))


# Where the memory of layer norms begins, in bytes: x and h (rows, 4Hp) and moments (rows, 4) of all directions in turn,
# and one step's product (B, 4Hp), which stays in the cache.
cdef struct Norms:
    Py_ssize_t x, h, moments, product, Hp


cdef inline void place_norms(Norms* norms, Pieces* pieces, bint normed, double rows, Py_ssize_t B,
                             Py_ssize_t Hp, Py_ssize_t item) noexcept:
    norms.x, norms.h = place(pieces, normed * rows * 4 * Hp * item), place(pieces, normed * rows * 4 * Hp * item)
    norms.moments, norms.Hp = place(pieces, normed * rows * 4 * item), Hp
    norms.product = place(pieces, <double>normed * B * 4 * Hp * item)


cdef inline void point_norms(const Norms* norms, char* memory, Direction* directions, Py_ssize_t count,
                             Py_ssize_t rows, Py_ssize_t item) noexcept:
    """rows: of each direction; 0 where they all use the same ones in turn."""
    cdef Py_ssize_t n, start
    for n in range(count):
        start = n * rows * 4 * item
        directions[n].norm.x = memory + norms.x + start * norms.Hp
        directions[n].norm.h = memory + norms.h + start * norms.Hp
        directions[n].norm.product = memory + norms.product
        directions[n].norm.moments = memory + norms.moments + start
