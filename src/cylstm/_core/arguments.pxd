"""See arguments.pyx."""

cimport numpy as np

cdef class Arguments:
    cdef readonly Py_ssize_t input_size, hidden_size, num_layers, num_directions
    cdef readonly Py_ssize_t h_size  # Y, the numbers of h: P with a projection, H without
    cdef readonly Py_ssize_t output_size  # O, the numbers of y: D*Y, or Y where directions are merged
    cdef readonly object dtype, parameters
    cdef public bint embedded      # its inputs are what a model makes of its own, never ids
    cdef bint bytes_of_h   # whether kernels take h in steps of 1/127
    cdef int type_number
    cdef Py_ssize_t item   # bytes of one number; 0 before set_up

    cdef void set_up(self, Py_ssize_t I, Py_ssize_t H, Py_ssize_t Y, Py_ssize_t O, Py_ssize_t L, Py_ssize_t D, dtype,
                     parameters)
    cdef int expect_init(self) except -1
    cdef np.ndarray features(self, name, x, bint* has_ids)
    cdef bint is_float_array(self, x)
    cdef np.ndarray float_array(self, name, x)
    cdef bint is_state_array(self, x, Py_ssize_t B, Py_ssize_t width)
    cdef bint holds_state(self, x, Py_ssize_t B, Py_ssize_t width)
    cdef tuple state(self, name, state, Py_ssize_t B)
    cdef state_array(self, name, array, Py_ssize_t B, Py_ssize_t width)
    cdef int check_range(self, name, np.ndarray h, np.ndarray c) except -1
    cdef int check_out_array(self, name, part, array, Py_ssize_t B, Py_ssize_t width) except -1
    cdef tuple check_out(self, name, out, Py_ssize_t B)
    cdef np.ndarray empty(self, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c)

cdef beyond_int8(name)
# Whether x, of any strides, may share memory with what begins there and has so many bytes.
cdef inline bint meets(np.ndarray x, const char* start, Py_ssize_t size) noexcept:
    cdef const char* first = <const char*>np.PyArray_DATA(x)
    cdef const char* end = first + np.PyArray_ITEMSIZE(x)
    cdef Py_ssize_t n, length
    for n in range(np.PyArray_NDIM(x)):
        length = (np.PyArray_DIM(x, n) - 1) * np.PyArray_STRIDE(x, n)
        if length < 0:
            first += length
        else:
            end += length
    return first < start + size and start < end

cdef int check_overlap(const void* h0, const void* c0, np.ndarray h, np.ndarray c) except -1
