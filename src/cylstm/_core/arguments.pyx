"""The edge between Python and the arithmetic: what a layer is given is checked here, once.

What is as it should be already, an array of the layer's type in the right shape, passes after a few comparisons; the
rest goes through checks.py, which converts it or says what is wrong with it.
"""

cimport numpy as np

from cylstm._core.memory cimport LARGEST
from cylstm._core.tile_range cimport within_one

import numpy

from cylstm.checks import as_float_array, describe, plain_array

np.import_array()

cdef extern from *:
    """
    #undef I  /* a letter of ours, which <complex.h>, brought in by NumPy's headers, takes */
    """


cdef class Arguments:
    """A layer's sizes and type, and what they ask of arrays."""

    cdef void set_up(self, Py_ssize_t I, Py_ssize_t H, Py_ssize_t Y, Py_ssize_t O, Py_ssize_t L, Py_ssize_t D, dtype,
                     parameters):
        self.input_size, self.hidden_size, self.num_layers, self.num_directions, self.h_size = I, H, L, D, Y
        self.output_size, self.dtype, self.parameters = O, dtype, parameters
        self.type_number = np.NPY_FLOAT64 if dtype == numpy.float64 else np.NPY_FLOAT32
        self.item = 8 if self.type_number == np.NPY_FLOAT64 else 4

    cdef int expect_init(self) except -1:
        if self.item == 0:
            raise RuntimeError(f"{type(self).__name__}: expected LSTM.__init__ to have run")
        return 0

    cdef np.ndarray features(self, name, x, bint* has_ids):
        """Features (..., I) of the layer's type, or integers; of a rank that a call (or, for x_t, a step) takes."""
        cdef np.ndarray array
        cdef Py_ssize_t rank, less = 1 if name == "x_t" else 0
        self.expect_init()
        if not self.is_float_array(x):
            x = plain_array(name, x)
            has_ids[0] = x.dtype.kind in "iu"
            if has_ids[0] and self.embedded:
                raise TypeError(f"{name}: expected what the model makes of its inputs, {self.input_size} "
                                f"floating-point numbers each (ids go into the model itself), got {describe(x)}")
            if x.size > LARGEST and x.size > LARGEST * (1 if has_ids[0] else <double>self.input_size):
                raise ValueError(f"{name}: expected at most {LARGEST} steps in all, got {x.shape}")
            if not has_ids[0]:
                x = self.float_array(name, x)
        array = x
        rank = np.PyArray_NDIM(array) + less
        if not has_ids[0]:
            if rank not in (2, 3) or np.PyArray_DIM(array, rank - less - 1) != self.input_size:
                expected = f"(B, {self.input_size}) or ({self.input_size},)" if less else \
                    f"(B, T, {self.input_size}) or (T, {self.input_size})"
                raise ValueError(f"{name}: expected {expected}, got {x.shape}")
        elif rank not in (1, 2):
            if less:
                raise ValueError(f"x_t: expected ids (B,) or a single id, got {x.shape}")
            raise ValueError(f"{name}: expected ids (B, T) or (T,), or features in floating point, got {describe(x)}")
        return array

    cdef bint is_float_array(self, x):
        """Whether x is an array of the layer's type that C can read along its last axis."""
        cdef np.ndarray array
        cdef Py_ssize_t rank, n
        if not np.PyArray_CheckExact(x):
            return False
        array = x
        rank = np.PyArray_NDIM(array)
        if np.PyArray_TYPE(array) != self.type_number or not np.PyArray_ISBEHAVED_RO(array) or rank == 0:
            return False
        if np.PyArray_STRIDE(array, rank - 1) != self.item and np.PyArray_DIM(array, rank - 1) != 1:
            return False
        for n in range(rank - 1):
            if np.PyArray_STRIDE(array, n) % self.item:
                return False
        return True

    cdef np.ndarray float_array(self, name, x):
        if not self.is_float_array(x):
            x = as_float_array(name, x, self.dtype)
            x = numpy.ascontiguousarray(x).reshape(x.shape)
        return x

    cdef bint is_state_array(self, x, Py_ssize_t B, Py_ssize_t width):
        """Whether x is a contiguous array (L*D, B, width) of the layer's type, of any B for -1."""
        cdef np.ndarray array
        if not np.PyArray_CheckExact(x):
            return False
        array = x
        return (np.PyArray_TYPE(array) == self.type_number and np.PyArray_NDIM(array) == 3
                and np.PyArray_DIM(array, 0) == self.num_layers * self.num_directions
                and (np.PyArray_DIM(array, 1) == B or B < 0)
                and np.PyArray_DIM(array, 2) == width and np.PyArray_ISCARRAY_RO(array))

    cdef bint holds_state(self, x, Py_ssize_t B, Py_ssize_t width):
        """Whether it may be written to as well."""
        return self.is_state_array(x, B, width) and np.PyArray_ISWRITEABLE(<np.ndarray>x)

    cdef tuple state(self, name, state, Py_ssize_t B):
        h, c = pair(name, state)
        if not self.is_state_array(h, B, self.h_size):
            h = self.state_array(f"{name}.h", h, B, self.h_size)
        if not self.is_state_array(c, B, self.hidden_size):
            c = self.state_array(f"{name}.c", c, B, self.hidden_size)
        return h, c

    cdef state_array(self, name, array, Py_ssize_t B, Py_ssize_t width):
        array = as_float_array(name, array, self.dtype)
        expected = (self.num_layers * self.num_directions, B, width)
        if array.shape != expected:
            raise ValueError(f"{name}: expected {expected}, got {array.shape}")
        return numpy.ascontiguousarray(array)

    cdef int check_range(self, name, np.ndarray h, np.ndarray c) except -1:
        """ValueError for a state that int8 does not hold."""
        if self.bytes_of_h and not within_one(<const float*>np.PyArray_DATA(h), <const float*>np.PyArray_DATA(c),
                                              np.PyArray_SIZE(h)):
            raise beyond_int8(f"{name}.h")
        return 0

    cdef tuple check_out(self, name, out, Py_ssize_t B):
        """A State to write into, of B rows, or of any number for -1."""
        h, c = pair(name, out)
        self.check_out_array(name, "h", h, B, self.h_size)
        self.check_out_array(name, "c", c, B if B >= 0 else np.PyArray_DIM(h, 1), self.hidden_size)
        cdef char* h_data = <char*>np.PyArray_DATA(<np.ndarray>h)
        cdef char* c_data = <char*>np.PyArray_DATA(<np.ndarray>c)
        if (h_data < c_data + np.PyArray_NBYTES(<np.ndarray>c)
                and c_data < h_data + np.PyArray_NBYTES(<np.ndarray>h)):
            raise ValueError(f"{name}: expected two arrays, got h and c in the same memory")
        return h, c

    cdef int check_out_array(self, name, part, array, Py_ssize_t B, Py_ssize_t width) except -1:
        if not self.holds_state(array, B, width):
            expected = f"({self.num_layers * self.num_directions}, {B if B >= 0 else 'N'}, {width})"
            raise ValueError(
                f"{name}.{part}: expected a writable, contiguous {self.dtype} {expected}, got {describe(array)}")
        return 0

    cdef np.ndarray empty(self, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c):
        cdef np.npy_intp shape[3]
        shape[0], shape[1], shape[2] = a, b, c
        return np.PyArray_EMPTY(3, shape, self.type_number, 0)


cdef tuple pair(name, state):
    """h and c of a State, or of whatever else has two things."""
    if isinstance(state, tuple) and len(<tuple>state) == 2:
        return <tuple>state  # unpacked without an iterator
    try:
        h, c = state
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a State(h, c), got {describe(state)}") from None
    return h, c


cdef beyond_int8(name):
    return ValueError(f"{name}: expected numbers within -1..1, which int8 has at steps of 1/127, got others")


cdef int check_overlap(const void* h0, const void* c0, np.ndarray h, np.ndarray c) except -1:
    """ValueError where the next state, h and c, goes over a part of the last one: over all of it, it may."""
    cdef char* given[2]
    cdef char* taken[2]
    cdef Py_ssize_t sizes[2]
    cdef Py_ssize_t apart
    cdef int n, m
    given[0], given[1] = <char*>h0, <char*>c0
    taken[0], taken[1] = <char*>np.PyArray_DATA(h), <char*>np.PyArray_DATA(c)
    if taken[0] == given[0] and taken[1] == given[1]:  # as in most streams
        return 0
    sizes[0], sizes[1] = np.PyArray_NBYTES(h), np.PyArray_NBYTES(c)
    for n in range(2):
        for m in range(2):
            apart = taken[n] - given[m]
            if given[m] != NULL and -sizes[n] < apart < sizes[m] and (apart != 0 or sizes[n] != sizes[m]):
                raise ValueError("out: expected the memory of `state` or other memory, got a part of it")
    return 0
