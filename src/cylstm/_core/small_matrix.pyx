"""A matrix in fewer bits as the right operand of products: packed once for the kernels in use (cext/kernels.h)."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc

import numpy as np

from cylstm._core.choice cimport unit_for
from cylstm._core.kernels cimport (
    BFLOAT16, FLOAT16, INT8, PANELS, active, left_bytes, pack_right, right_bytes,
)
from cylstm._core.operands cimport left_operand
from cylstm._core.memory cimport fitting

# Of SmallParameters' precisions; None: of Parameters.
SMALL_FORMS = {None: PANELS, "float16": FLOAT16, "bfloat16": BFLOAT16, "int8": INT8}


cdef class Panels:
    pass


cdef class SmallMatrix:
    """weight (O, F) of a precision: `stored`, times `scales` (O,) where these are not None. Of int8, a row of h has
    steps of 1/127 of its largest number."""

    def __init__(self, str precision not None, stored not None, scales):
        self.stored, self.scales, self.small = stored, scales, SMALL_FORMS[precision]
        self.O, self.F = stored.shape

    cdef Panels panels(self):
        """Packed for the kernels in use; the caller holds it for as long as it reads there."""
        cdef Panels now
        with cython.critical_section(self):  # where there is no GIL
            now = self.now
            if now is None or now.k != active():
                now = self.now = self.pack(active())
        return now

    cdef Panels pack(self, const Kernels* k):
        cdef Panels made = Panels.__new__(Panels)
        cdef Py_ssize_t panel = 4 * k.f32.lanes, padded = (self.O + panel - 1) // panel * panel, first, used
        cdef float[:, ::1] block = np.zeros((self.F + 1, panel), np.float32)
        cdef unsigned char[::1] target
        made.k, made.padded = k, padded
        made.memory = target = fitting(None, right_bytes(self.small, self.F, padded, sizeof(float)))
        for first in range(0, padded, panel):
            used = min(panel, self.O - first)
            block.base[:self.F, :used] = expanded(self.stored[first:first + used]).T
            block.base[:, used:] = 0
            if self.scales is not None:
                block.base[self.F, :used] = self.scales[first:first + used]
            pack_right(k, self.small, False, self.F, panel, &block[0, 0], panel,
                       &target[0] + right_bytes(self.small, self.F, first, sizeof(float)))
        made.packed = &target[0]
        return made

    cdef int rows(self, const float* h, Py_ssize_t N, const float* bias, float* outputs) except -1:
        """outputs (N, O) = h (N, F) weight' + bias (O,), NULL for none: of a few rows."""
        cdef Panels of = self.panels()
        cdef int form = unit_for(self.small, N, self.F)
        cdef Py_ssize_t left = (left_bytes(form, N, self.F) + 63) // 64 * 64
        cdef char* room = <char*>PyMem_Malloc(left + N * of.padded * sizeof(float) + 64)
        cdef char* start = <char*>((<size_t>room + 63) & ~<size_t>63)
        cdef const void* A
        if room == NULL:
            raise MemoryError
        with nogil:
            A = left_operand(of.k, form, False, N, self.F, 0, self.F, h, self.F, 0, start)
            small_outputs(of.k, form, N, self.F, of.padded, 0, self.O, A, of.packed, bias, <float*>(start + left),
                          outputs, self.O)
        PyMem_Free(room)
        return 0


def expanded(stored):
    """float32 of numbers as SmallParameters keep them, without their scales."""
    if stored.dtype == np.uint16:  # a bfloat16's bits
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32, copy=False)
