"""Building a Plan: sorting the rows of a batch by length and packing `resets` (see _steps.pxd for the picture)."""

import numpy as np


cdef class Plan:
    """The steps of one call, for B rows of at most T steps.

    lengths: int64 (B,), each in 1..T, or None for T everywhere. resets: bool (B, T) or None. Both were checked before.
    """

    def __init__(self, Py_ssize_t B, Py_ssize_t T, lengths=None, resets=None):
        cdef const uint8_t[::1] cut_view
        self.steps.B, self.steps.T, self.steps.N = B, T, B * T
        if lengths is not None:
            self.sort(lengths)
        if resets is not None and resets.any():
            self.cut = np.array(self.pack(resets), order="C").view(np.uint8)  # the caller's may change
            cut_view = self.cut
            self.steps.cut = &cut_view[0]

    cdef int sort(self, const int64_t[::1] lengths) except -1:
        """Sort by counting: rows of one length stay in the caller's order."""
        cdef Py_ssize_t B = self.steps.B, T = self.steps.T, t, b, before = 0
        cdef int64_t[::1] view
        cdef int64_t* sizes
        cdef int64_t* offsets
        cdef int64_t* order
        cdef int64_t* sorted_lengths
        for b in range(B):
            if lengths[b] < T:
                break
        else:
            return 0
        self.table = np.zeros(2 * (T + B) + 1, np.int64)
        view = self.table
        sizes, offsets = &view[0], &view[T]
        order, sorted_lengths = offsets + T + 1, offsets + T + 1 + B
        for b in range(B):
            sizes[lengths[b] - 1] += 1  # rows that end with this step
        for t in range(T - 1, -1, -1):
            offsets[t] = before  # where these rows begin in the order, for now
            before += sizes[t]
            sizes[t] = before  # those alive at it
        for b in range(B):
            t = lengths[b] - 1
            order[offsets[t]], sorted_lengths[offsets[t]] = b, t + 1
            offsets[t] += 1
        offsets[0] = 0
        for t in range(T):
            offsets[t + 1] = offsets[t] + sizes[t]
        self.steps.sizes, self.steps.offsets = sizes, offsets
        self.steps.order, self.steps.lengths, self.steps.N = order, sorted_lengths, offsets[T]
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
        return np.arange(self.steps.B) < self.table[:self.steps.T, None]

    def pack(self, array):
        """(B, T, ...) in the caller's order -> (N, ...) packed."""
        if self.steps.order == NULL:
            return np.swapaxes(array, 0, 1).reshape(self.steps.N, *array.shape[2:])
        time_major = np.swapaxes(array, 0, 1)[:, self.order()]
        return time_major[self.alive()]

    def unpack(self, packed):
        """(N, ...) packed -> (B, T, ...) in the caller's order, 0 past the end of each row."""
        B, T = self.steps.B, self.steps.T
        out = np.zeros((B, T, *packed.shape[1:]), packed.dtype)
        if self.steps.order == NULL:
            out[:] = np.swapaxes(packed.reshape(T, B, *packed.shape[1:]), 0, 1)
        else:
            step, row = np.nonzero(self.alive())
            out[self.order()[row], step] = packed
        return out
