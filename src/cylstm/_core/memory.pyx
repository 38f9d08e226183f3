"""See memory.pxd."""

cimport numpy as np
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uintptr_t
from libc.string cimport memcmp

import numpy

np.import_array()

cdef enum:
    ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector


def aligned_empty(size, dtype):
    """An uninitialised 1-D array of `size` elements whose first one lies on a cache line."""
    dtype = numpy.dtype(dtype)
    return aligned_bytes(size * dtype.itemsize).view(dtype)


cdef aligned_bytes(size):
    cdef np.ndarray raw = numpy.empty(size + ALIGNMENT, numpy.uint8)
    cdef Py_ssize_t start = <Py_ssize_t>(-<uintptr_t>np.PyArray_DATA(raw) % <uintptr_t>ALIGNMENT)
    return raw[start : start + size]


def same_bytes(a, b):
    """Whether two contiguous arrays hold the same bytes; nothing is allocated for the answer."""
    cdef Py_buffer first, second
    PyObject_GetBuffer(a, &first, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(b, &second, PyBUF_SIMPLE)
        same = first.len == second.len and memcmp(first.buf, second.buf, first.len) == 0
        PyBuffer_Release(&second)
        return same
    finally:
        PyBuffer_Release(&first)


cdef fitting(memory, double size):
    """`memory` where it has `size` bytes or more, but not over twice as many; otherwise new memory, which begins on a
    cache line. Raises MemoryError for more than any machine has."""
    if size >= TOO_MANY:
        raise MemoryError(f"expected a call of less than {TOO_MANY:.0e} bytes, got a larger one")
    size = max(1, size)
    if memory is not None and size <= memory.nbytes <= 2 * size + 65536:
        return memory
    return aligned_bytes(int(size))
