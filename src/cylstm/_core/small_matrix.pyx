"""A matrix in fewer bits as the right operand of products: packed once for the kernels in use (cext/kernels.h)."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc

import numpy as np

from cylstm._core.choice cimport unit_for
from cylstm._core.kernels cimport (
    BFLOAT16, FLOAT16, INT8, PANELS, active, left_bytes, left_operand, pack_right, right_bytes,
)
from cylstm._core.memory cimport fitting

# Of SmallParameters' precisions; None: of Parameters.
SMALL_FORMS = {None: PANELS, "float16": FLOAT16, "bfloat16": BFLOAT16, "int8": INT8}


cdef class SmallMatrix:
    """weight (O, F), a parameter of SmallParameters. Of int8, a row of h has steps of 1/127 of its largest number."""

    def __init__(self, parameters, str name):
        self.parameters, self.name, self.stored = parameters, name, parameters.stored[name]
        self.O, self.F = self.stored.shape
        self.small, self.k = SMALL_FORMS[parameters.precision], NULL

    cdef int prepare(self) except -1:
        """Pack it, unless it is for the kernels in use."""
        cdef const Kernels* k = active()
        cdef float[:, ::1] block
        cdef unsigned char[::1] target
        cdef Py_ssize_t first, used
        if self.k == k:
            return 0
        cdef Py_ssize_t lanes = k.f32.lanes, panel = 4 * lanes, padded = (self.O + panel - 1) // panel * panel
        given = self.parameters.numbers(self.name)
        memory = fitting(None, right_bytes(self.small, self.F, padded, sizeof(float)))
        target = memory
        block = np.zeros((self.F + 1, panel), np.float32)
        for first in range(0, padded, panel):
            used = min(panel, self.O - first)
            block.base[:self.F, :used] = given[first:first + used].T
            block.base[:, used:] = 0
            if self.small == INT8:
                block.base[self.F, :used] = self.parameters.scales[self.name][first:first + used]
            pack_right(k, self.small, False, self.F, panel, &block[0, 0], panel,
                       &target[0] + right_bytes(self.small, self.F, first, sizeof(float)))
        self.padded, self.memory, self.packed, self.k = padded, memory, &target[0], k
        return 0

    cdef int rows(self, const float* h, Py_ssize_t N, const float* bias, float* outputs) except -1:
        """outputs (N, O) = h (N, F) weight' + bias (O,), NULL for none: of a few rows."""
        self.prepare()
        cdef int form = unit_for(self.small, N, self.F)
        cdef Py_ssize_t left = (left_bytes(form, N, self.F) + 63) // 64 * 64
        cdef char* room = <char*>PyMem_Malloc(left + N * self.padded * sizeof(float) + 64)
        cdef char* start = <char*>((<size_t>room + 63) & ~<size_t>63)
        cdef const void* A
        if room == NULL:
            raise MemoryError
        with nogil:
            A = left_operand(self.k, form, False, N, self.F, 0, self.F, h, self.F, 0, start)
            small_outputs(self.k, form, N, self.F, self.padded, 0, self.O, A, self.packed, bias, <float*>(start + left),
                          outputs, self.O)
        PyMem_Free(room)
        return 0
