"""Operands of products, taken as they lie or packed on the way."""

from cylstm._core.kernels cimport Kernels, is_cut, left_bytes, pack_left, pack_right, packs_left, real

# The operands of a product of this form, in the order of its arguments: A (rows, K), its columns first..last, and
# P (K, columns). Each is taken as it lies, or packed at `room`, which takes left_bytes() or right_bytes().
# bound: of |A|, 0 where none is known. Returns where it is.
cdef inline const void* left_operand(const Kernels* k, int form, bint transposed, Py_ssize_t rows, Py_ssize_t K,
                                     Py_ssize_t first, Py_ssize_t last, const real* A, Py_ssize_t lda,
                                     real bound, void* room) noexcept nogil:
    if not packs_left(form):
        return A
    pack_left(k, form, transposed, rows, K, first, last, A, lda, bound, room)
    return room

# Where the rows of a left operand (., K) are from this one on, a multiple of 16: A's, or packed.
cdef inline const void* rows_from(int form, Py_ssize_t row, const real* A, Py_ssize_t lda, const char* packed,
                                  Py_ssize_t K) noexcept nogil:
    return <const void*>(packed + left_bytes(form, row, K)) if packs_left(form) else <const void*>(A + row * lda)

cdef inline const void* right_operand(const Kernels* k, int form, bint transposed, Py_ssize_t K, Py_ssize_t columns,
                                      const real* P, Py_ssize_t ldp, void* room) noexcept nogil:
    if not is_cut(form):
        return P
    pack_right(k, form, transposed, K, columns, P, ldp, room)
    return room
