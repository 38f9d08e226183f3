"""Building a Plan, rows sorted by length and `resets` packed, and packing ids (see ragged.pxd for the picture)."""

cimport numpy as np
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

import numpy

from cylstm.checks import as_ids, check_lengths, check_resets, describe

np.import_array()


cdef class Plan:
    """The steps of one call, for B rows of at most T steps.

    lengths: int64 (B,), each in 0..T, or None for T everywhere. resets: bool (B, T) or None. Both were checked before.
    """

    def __init__(self, Py_ssize_t B, Py_ssize_t T, lengths=None, resets=None):
        cdef const uint8_t[::1] cut_view
        self.steps.B, self.steps.T, self.steps.N = B, T, B * T
        if lengths is not None:
            self.sort(lengths)
            if self.steps.sizes != NULL:
                self.lengths = lengths
        if resets is not None and resets.any():
            self.cut = numpy.array(self.pack(resets), order="C").view(numpy.uint8)  # the caller's may change
            cut_view = self.cut
            self.steps.cut = &cut_view[0]

    cdef int sort(self, given) except -1:
        cdef const int64_t[::1] lengths = given
        cdef Py_ssize_t B = self.steps.B, T = self.steps.T, b
        cdef int64_t[::1] view
        for b in range(B):
            if lengths[b] < T:
                break
        else:
            return 0
        self.table = numpy.empty(2 * (T + B) + 1, numpy.int64)
        view = self.table
        sort_rows(&self.steps, &lengths[0], &view[0])
        return 0

    @property
    def rows(self):
        """N, the number of steps of all rows together."""
        return self.steps.N

    def order(self):
        """(B,) the caller's row of each packed one, where they are sorted."""
        return self.table[2 * self.steps.T + 1:][:self.steps.B]

    def alive(self):
        """(T, B) whether a packed row is alive at a step, where they are sorted."""
        return numpy.arange(self.steps.B) < self.table[:self.steps.T, None]

    def past_ends(self):
        """(B, T) whether a step is past the end of its row, in the caller's order; None where every row has T steps."""
        return None if self.lengths is None else numpy.arange(self.steps.T) >= self.lengths[:, None]

    def pack(self, array):
        """(B, T, ...) in the caller's order -> (N, ...) packed."""
        if self.steps.order == NULL:
            return numpy.swapaxes(array, 0, 1).reshape(self.steps.N, *array.shape[2:])
        time_major = numpy.swapaxes(array, 0, 1)[:, self.order()]
        return time_major[self.alive()]

    def unpack(self, packed):
        """(N, ...) packed -> (B, T, ...) in the caller's order, 0 past the end of each row."""
        B, T = self.steps.B, self.steps.T
        out = numpy.zeros((B, T, *packed.shape[1:]), packed.dtype)
        if self.steps.order == NULL:
            out[:] = numpy.swapaxes(packed.reshape(T, B, *packed.shape[1:]), 0, 1)
        else:
            step, row = numpy.nonzero(self.alive())
            out[self.order()[row], step] = packed
        return out


cdef void sort_rows(Steps* steps, const int64_t* lengths, int64_t* table) noexcept nogil:
    """Sort by counting: rows of one length stay in the caller's order."""
    cdef Py_ssize_t B = steps.B, T = steps.T, t, b, n, before = 0, empty
    cdef int64_t* sizes = table
    cdef int64_t* offsets = table + T
    cdef int64_t* order = offsets + T + 1
    cdef int64_t* sorted_lengths = order + B
    memset(sizes, 0, T * sizeof(int64_t))
    for b in range(B):
        if lengths[b] > 0:
            sizes[lengths[b] - 1] += 1  # rows that end with this step
    for t in range(T - 1, -1, -1):
        offsets[t] = before  # where these rows begin in the order, for now
        before += sizes[t]
        sizes[t] = before  # those alive at it
    empty = before  # rows of length 0 come behind all others
    for b in range(B):
        t = lengths[b] - 1
        n = offsets[t] if t >= 0 else empty
        order[n], sorted_lengths[n] = b, t + 1
        if t >= 0:
            offsets[t] += 1
        else:
            empty += 1
    offsets[0] = 0
    for t in range(T):
        offsets[t + 1] = offsets[t] + sizes[t]
    steps.sizes, steps.offsets = sizes, offsets
    steps.order, steps.lengths, steps.N = order, sorted_lengths, offsets[T]


cpdef Plan planned(Py_ssize_t B, Py_ssize_t T, lengths, resets, bint batched=True):
    """lengths (B,) in 0..T or None; resets (B, T) or, unbatched, (T,) or None. Raises TypeError or ValueError."""
    if (lengths is None and resets is None) or B == 0 or T == 0:
        return None
    if lengths is not None:
        given = plain_lengths(lengths, B, T)
        lengths = check_lengths(lengths, B, T) if given is None else given
    if resets is not None:
        resets = check_resets(resets, B, T, batched)
    return Plan(B, T, lengths, resets)


cdef plain_lengths(lengths, Py_ssize_t B, Py_ssize_t T):
    """A copy of what check_lengths() would take as it is, in a tenth of its time; or None."""
    cdef np.ndarray array
    cdef const int64_t* given
    cdef Py_ssize_t b
    if not np.PyArray_CheckExact(lengths) or np.PyArray_TYPE(lengths) != np.NPY_INT64:
        return None
    array = np.PyArray_NewCopy(lengths, np.NPY_CORDER)
    if np.PyArray_NDIM(array) != 1 or np.PyArray_DIM(array, 0) != B or not np.PyArray_ISBEHAVED_RO(array):
        return None
    given = <const int64_t*>np.PyArray_DATA(array)
    for b in range(B):
        if not 0 <= given[b] <= T:
            return None
    return array


def table_rows(name, np.ndarray table not None, ids):
    """Rows (..., E) of a contiguous table (V, E) by ids (...), each in 0..V-1; of one id, a view.

    Raises TypeError for what are no integers, ValueError for ids that are out of range and for another table.
    """
    cdef Py_ssize_t V, bytes, b, n
    cdef np.npy_intp shape[2]
    cdef np.ndarray rows
    cdef const int64_t* given
    if (np.PyArray_NDIM(table) != 2 or not np.PyArray_ISCARRAY_RO(table)
            or np.PyArray_TYPE(table) not in (np.NPY_FLOAT32, np.NPY_FLOAT64)):
        raise ValueError(f"table: expected a contiguous one of floating-point numbers (V, E), got {describe(table)}")
    V, bytes = np.PyArray_DIM(table, 0), np.PyArray_DIM(table, 1) * np.PyArray_ITEMSIZE(table)
    if isinstance(ids, (int, numpy.integer)) and not isinstance(ids, bool) and 0 <= ids < V:
        return table[ids]
    if (np.PyArray_CheckExact(ids) and np.PyArray_TYPE(ids) == np.NPY_INT64 and np.PyArray_NDIM(ids) == 1
            and np.PyArray_ISCARRAY_RO(ids)):
        shape[0], shape[1] = np.PyArray_DIM(ids, 0), np.PyArray_DIM(table, 1)
        rows = np.PyArray_EMPTY(2, shape, np.PyArray_TYPE(table), 0)
        given = <const int64_t*>np.PyArray_DATA(<np.ndarray>ids)
        for b in range(shape[0]):
            n = given[b]  # once: another thread may be writing
            if not 0 <= n < V:
                break
            memcpy(<char*>np.PyArray_DATA(rows) + b * bytes, <char*>np.PyArray_DATA(table) + n * bytes, bytes)
        else:
            return rows
    return table[as_ids(name, ids, V)]


cdef packed_ids(name, ids, Steps* s, Py_ssize_t V):
    """Ids (B, T), (T,), (B,) or () -> a packed copy (N,) of those that are no padding: each in 0..V-1, or ValueError.

    A copy is checked: the kernels trust it, and so does backward.
    """
    cdef np.ndarray array
    cdef bint unsigned = np.PyArray_TYPE(ids) == np.NPY_UINT64  # those beyond int64 become negative
    if np.PyArray_TYPE(ids) != np.NPY_INT64 or not np.PyArray_ISBEHAVED_RO(ids):
        ids = numpy.array(ids, numpy.int64)
    array = ids
    cdef np.npy_intp N = s.N
    cdef np.ndarray packed = np.PyArray_EMPTY(1, &N, np.NPY_INT64, 0)
    cdef int64_t* target = <int64_t*>np.PyArray_DATA(packed)
    cdef const char* source = <const char*>np.PyArray_DATA(array)
    # With one axis, either B or T is 1.
    cdef Py_ssize_t rank = np.PyArray_NDIM(array), t, b, row = np.PyArray_STRIDE(array, 0) if rank else 0
    cdef Py_ssize_t step = np.PyArray_STRIDE(array, rank - 1) if rank else 0
    cdef int64_t n, bad = 0, bad_t = 0, bad_b = 0
    with nogil:
        for t in range(s.T):
            for b in range(alive(s, t)):
                n = (<const int64_t*>(source + caller_row(s, b) * row + t * step))[0]
                target[offset(s, t) + b] = n
                if not 0 <= n < V and bad == 0:
                    bad, bad_t, bad_b = n, t, caller_row(s, b)
    if bad != 0:
        where = f"[{bad_b}, {bad_t}]" if rank == 2 else f"[{max(bad_b, bad_t)}]" if rank == 1 else ""
        got = f"{<uint64_t>bad}" if unsigned else f"{bad}"
        raise ValueError(f"{name}{where}: expected ids in 0..{V - 1}, got {got}")
    return packed
