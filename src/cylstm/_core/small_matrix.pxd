"""A matrix in fewer bits as the right operand of products: outputs = h weight' + bias."""

from libc.string cimport memcpy, memset

from cylstm._core.kernels cimport Kernels, product

# For one instruction set; nothing of it changes, so that who holds it may read it while another one is made.
cdef class Panels:
    cdef const Kernels* k
    cdef Py_ssize_t padded            # O in whole panels
    cdef object memory
    cdef const void* packed

cdef class SmallMatrix:
    cdef readonly Py_ssize_t O, F
    cdef readonly object stored       # (O, F), as SmallParameters keep it
    cdef object scales                # (O,), of int8; or None
    cdef int small                    # the form that it is packed in
    cdef Panels now
    cdef Panels panels(self)
    cdef Panels pack(self, const Kernels* k)
    cdef int rows(self, const float* h, Py_ssize_t N, const float* bias, float* outputs) except -1


# Rows of weight (O, F), an array or a SmallMatrix.
cdef inline Py_ssize_t outputs_of(weight) except -1:
    return (<SmallMatrix>weight).O if isinstance(weight, SmallMatrix) else weight.shape[0]


# outputs (rows, width), `ldo` apart, = A (rows, K) . P + bias (width,), NULL for none, in the columns of P (K, padded)
# from `first`, a multiple of 64, on. room: for rows * (width in whole panels).
cdef inline void small_outputs(const Kernels* k, int form, Py_ssize_t rows, Py_ssize_t K, Py_ssize_t padded,
                               Py_ssize_t first, Py_ssize_t width, const void* A, const void* P, const float* bias,
                               float* room, float* outputs, Py_ssize_t ldo) noexcept nogil:
    cdef Py_ssize_t panel = 4 * k.f32.lanes, whole = (width + panel - 1) // panel * panel, n
    cdef float* target = outputs if width == whole else room
    cdef Py_ssize_t ld = ldo if width == whole else whole
    for n in range(rows):
        if bias != NULL:
            memcpy(target + n * ld, bias, width * sizeof(float))
            memset(target + n * ld + width, 0, (whole - width) * sizeof(float))
        else:
            memset(target + n * ld, 0, whole * sizeof(float))
    product(k, form, rows, K, padded, first, first + whole, A, K, P, <const float*>NULL, target - first, ld)
    if width != whole:
        for n in range(rows):
            memcpy(outputs + n * ldo, room + n * whole, width * sizeof(float))
