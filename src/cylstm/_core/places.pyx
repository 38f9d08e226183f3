"""States that lie apart, in a pool or one by one: checked here, and pointed at, so that a step overwrites them where
they lie. What is read, the numbers of rows and the list of states, is read once: another thread may be writing."""

cimport numpy as np
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint64_t, uintptr_t

import numpy

from cylstm._core.apart cimport fetch_soon
from cylstm._core.arguments cimport Arguments, beyond_int8, meets
from cylstm._core.tile_range cimport within_one

from cylstm.checks import describe, plain_array, refuse
from cylstm.state import State

np.import_array()

cdef enum:
    AHEAD = 8    # states
    MARKED = 64  # rows of a pool for each that takes a step

cdef extern from *:
    """
    #undef I  /* a letter of ours, which <complex.h>, brought in by NumPy's headers, takes */
    """


cdef bint lie_apart(state):
    """Whether a step is given states one by one."""
    if not isinstance(state, (list, tuple)) or isinstance(state, State):
        return False
    return isinstance(next(iter(state), None), State)


cdef Places places_of(Arguments layer, state, rows, Py_ssize_t B, bint batched):
    """Where the states of a step's B rows lie. Raises TypeError or ValueError naming the argument."""
    cdef Places places = Places.__new__(Places)
    places.room(B)
    if rows is not None:
        places.point_at_rows(layer, state, rows, batched)
    else:
        states = list(state)
        if not batched or len(states) != B:
            got = f"{B} of them" if batched else "a single row"
            raise ValueError(f"x_t: expected {len(states)} rows, one for each state, got {got}")
        places.point_at_states(layer, states)
    if layer.bytes_of_h:
        places.check_range(layer)
    return places


cdef class Places:
    """Where the states of B rows lie."""

    def __dealloc__(self):
        PyMem_Free(self.apart.h)

    cdef int room(self, Py_ssize_t B) except -1:
        self.apart.h = <char**>PyMem_Malloc(2 * B * sizeof(char*))
        if self.apart.h == NULL:
            raise MemoryError
        self.B, self.apart.c = B, self.apart.h + B
        return 0

    cdef int point_at_rows(self, Arguments layer, pool, rows, bint batched) except -1:
        cdef np.ndarray h, c, numbers = None
        cdef Py_ssize_t N, b, other
        h, c = layer.check_out("state", pool, -1)
        self.pool_h, self.pool_c = h, c
        N = np.PyArray_DIM(h, 1)
        self.h_bytes, self.c_bytes = layer.h_size * layer.item, layer.hidden_size * layer.item
        self.apart.h_layer, self.apart.c_layer = N * layer.h_size, N * layer.hidden_size
        if type(rows) is (list if batched else int):
            numbers = of_ints(list(rows) if batched else [rows], self.B)
        elif (np.PyArray_CheckExact(rows) and np.PyArray_TYPE(rows) == np.NPY_INT64 and np.PyArray_ISBEHAVED_RO(rows)
                and np.PyArray_NDIM(rows) == 1 and batched and np.PyArray_DIM(rows, 0) == self.B):
            numbers = rows
        if numbers is None:
            numbers = self_made(rows, self.B, N, batched)
        if not self.point_at(<const char*>np.PyArray_DATA(numbers), np.PyArray_STRIDE(numbers, 0), N):
            numbers = self_made(rows, self.B, N, batched)  # which says what is wrong
            self.point_at(<const char*>np.PyArray_DATA(numbers), np.PyArray_STRIDE(numbers, 0), N)
        b = self.again(self.B, &other) if self.maybe_again else -1
        if b >= 0:
            n = (self.apart.h[b] - <char*>np.PyArray_DATA(h)) // self.h_bytes
            raise ValueError(f"rows[{b}]: expected another row than rows[{other}], got {n} again")
        return 0

    cdef bint point_at(self, const char* given, Py_ssize_t stride, Py_ssize_t N) noexcept:
        """False where a number is not in 0..N-1. Whether one may come again is known at once in a pool that is not too
        large to mark its rows."""
        cdef char* h = <char*>np.PyArray_DATA(self.pool_h)
        cdef char* c = <char*>np.PyArray_DATA(self.pool_c)
        cdef Py_ssize_t b
        cdef int64_t n
        cdef char* seen = <char*>PyMem_Calloc(N, 1) if self.B > 1 and N // MARKED <= self.B else NULL
        cdef bint inside = True, again = seen == NULL and self.B > 1
        for b in range(self.B):
            n = (<const int64_t*>(given + b * stride))[0]
            if not 0 <= n < N:
                inside = False
                break
            self.apart.h[b], self.apart.c[b] = h + n * self.h_bytes, c + n * self.c_bytes
            if seen != NULL:
                again |= seen[n]
                seen[n] = True
        PyMem_Free(seen)
        self.maybe_again = again
        return inside

    cdef int point_at_states(self, Arguments layer, list states) except -1:
        cdef Py_ssize_t b, other, L = layer.num_layers
        self.states = states  # which hold the arrays
        self.apart.h_layer, self.apart.c_layer = layer.h_size, layer.hidden_size
        self.h_bytes, self.c_bytes = L * layer.h_size * layer.item, L * layer.hidden_size * layer.item
        for b in range(self.B):
            if b + AHEAD < self.B:
                look_ahead(states[b + AHEAD])
            state = states[b]
            if type(state) is not State and not isinstance(state, State):
                raise TypeError(f"state[{b}]: expected a State, got {describe(state)}")
            h, c = <tuple>state
            if not layer.holds_state(h, 1, layer.h_size) or not layer.holds_state(c, 1, layer.hidden_size):
                layer.check_out(f"state[{b}]", state, 1)  # which says what is wrong
            self.apart.h[b] = <char*>np.PyArray_DATA(<np.ndarray>h)
            self.apart.c[b] = <char*>np.PyArray_DATA(<np.ndarray>c)
        b = self.again(2 * self.B, &other)
        if b >= 0:
            raise ValueError(f"{self.name(b)}: expected memory of its own, got some of {self.name(other)}'s")
        return 0

    cdef name(self, Py_ssize_t n):
        """Of states one by one, the n-th h, and then c."""
        return f"state[{n % self.B}].{'h' if n < self.B else 'c'}"

    cdef Py_ssize_t again(self, Py_ssize_t count, Py_ssize_t* other) except -2:
        """The first of so many h, and then c, that shares memory with one before it, which is `other`; or -1.

        Each is entered in a table by the piece of memory in which it begins and, if that is another, the one in which
        it ends. Pieces are larger than each of them, so that two that share memory share a piece.
        """
        cdef char** starts = self.apart.h
        cdef Py_ssize_t most = max(self.h_bytes, self.c_bytes), n, m, size, found = -1
        cdef int shift = 2, bits = 2, end
        cdef uint64_t key, place, slots
        cdef Py_ssize_t* table
        while (<Py_ssize_t>1 << shift) < 4 * most:  # most of them in one piece alone
            shift += 1
        while (<Py_ssize_t>1 << bits) <= 2 * count:  # some place is always empty
            bits += 1
        slots = <uint64_t>1 << bits
        table = <Py_ssize_t*>PyMem_Calloc(slots, sizeof(Py_ssize_t))
        if table == NULL:
            raise MemoryError
        for n in range(count):
            size = self.h_bytes if n < self.B else self.c_bytes
            for end in range(2):
                if end == 1 and <uintptr_t>(starts[n] + size - 1) >> shift == key:
                    break
                key = <uintptr_t>(starts[n] + end * (size - 1)) >> shift
                place = key * <uint64_t>0x9E3779B97F4A7C15 >> (64 - bits)
                while table[place] != 0:
                    m = table[place] - 1
                    if (m != n and starts[n] < starts[m] + (self.h_bytes if m < self.B else self.c_bytes)
                            and starts[m] < starts[n] + size):
                        found, other[0] = n, m
                        break
                    place = (place + 1) & (slots - 1)
                table[place] = n + 1
            if found >= 0:
                break
        PyMem_Free(table)
        return found

    cdef int check_range(self, Arguments layer) except -1:
        cdef Py_ssize_t b, n
        for b in range(self.B):
            for n in range(layer.num_layers):
                if not within_one(<const float*>self.apart.h[b] + n * self.apart.h_layer,
                                  <const float*>self.apart.c[b] + n * self.apart.c_layer, layer.h_size):
                    raise beyond_int8(f"state.h, row {b} of the step")
        return 0

    cdef bint meet(self, np.ndarray x):
        """Whether x may share memory with the states, or with the pool that holds them."""
        cdef Py_ssize_t n
        if self.pool_h is not None:
            return (meets(x, <char*>np.PyArray_DATA(self.pool_h), np.PyArray_NBYTES(self.pool_h))
                    or meets(x, <char*>np.PyArray_DATA(self.pool_c), np.PyArray_NBYTES(self.pool_c)))
        for n in range(2 * self.B):
            if meets(x, self.apart.h[n], self.h_bytes if n < self.B else self.c_bytes):
                return True
        return False


cdef inline int look_ahead(state) except -1:
    """Ask for the arrays of a state that is looked at soon."""
    if type(state) is State:
        h, c = <tuple>state
        fetch_soon(<void*>h)
        fetch_soon(<void*>c)
    return 0


cdef np.ndarray of_ints(list rows, Py_ssize_t B):
    """B Python integers as an array, without NumPy's search for what a list may hold; None for anything else."""
    cdef np.npy_intp length = B
    cdef np.ndarray numbers = np.PyArray_EMPTY(1, &length, np.NPY_INT64, 0)
    cdef int64_t* number = <int64_t*>np.PyArray_DATA(numbers)
    cdef Py_ssize_t b
    cdef int overflow = 0
    if len(rows) != B:
        return None
    for b in range(B):
        row = rows[b]
        if type(row) is not int:
            return None
        number[b] = PyLong_AsLongLongAndOverflow(row, &overflow)
        if overflow:
            return None
    return numbers


cdef np.ndarray self_made(rows, Py_ssize_t B, Py_ssize_t N, bint batched):
    """The numbers of rows (B,) as int64, a copy."""
    array = numpy.array(plain_array("rows", rows))
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"rows: expected integers, got {describe(array)}")
    if array.shape != ((B,) if batched else ()):
        expected = f"{(B,)}, a row of the pool for each of x_t" if batched else "one integer, as x_t is one row"
        raise ValueError(f"rows: expected {expected}, got {array.shape}")
    refuse("rows", array, (array < 0) | (array >= N), f"rows of the pool, 0..{N - 1}")
    return array.astype(numpy.int64).reshape(B)
