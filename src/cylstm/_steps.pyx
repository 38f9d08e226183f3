"""Building a Plan: sorting the rows of a batch by length and packing `resets` (see _steps.pxd for the picture)."""

import numpy as np


cdef class Plan:
    """The steps of one call, for B rows of at most T steps.

    lengths: int64 (B,), each in 1..T, or None for T everywhere. resets: bool (B, T) or None. Both were checked before.
    """

    def __init__(self, Py_ssize_t B, Py_ssize_t T, lengths=None, resets=None):
        cdef const int64_t[::1] view
        cdef const uint8_t[::1] cut_view
        self.steps.B, self.steps.T, self.steps.N = B, T, B * T
        if lengths is not None and not (lengths == T).all():
            self.order = np.argsort(-lengths, kind="stable").astype(np.int64)
            self.lengths = np.ascontiguousarray(lengths[self.order], dtype=np.int64)
            # Rows alive at step t: those longer than t.
            ends = np.bincount(self.lengths, minlength=T + 1)
            self.sizes = (B - np.cumsum(ends)[:T]).astype(np.int64)
            self.offsets = np.concatenate(([0], np.cumsum(self.sizes))).astype(np.int64)
            self.steps.N = int(self.offsets[T])
            view = self.order
            self.steps.order = &view[0]
            view = self.lengths
            self.steps.lengths = &view[0]
            view = self.sizes
            self.steps.sizes = &view[0]
            view = self.offsets
            self.steps.offsets = &view[0]
        if resets is not None and resets.any():
            self.cut = np.array(self.pack(resets), order="C").view(np.uint8)  # the caller's may change
            cut_view = self.cut
            self.steps.cut = &cut_view[0]

    @property
    def rows(self):
        """N, the number of steps of all rows together."""
        return self.steps.N

    def pack(self, array):
        """(B, T, ...) in the caller's order -> (N, ...) packed."""
        if self.order is None:
            return np.swapaxes(array, 0, 1).reshape(self.steps.N, *array.shape[2:])
        time_major = np.swapaxes(array, 0, 1)[:, self.order]
        return time_major[np.arange(self.steps.B) < self.sizes[:, None]]

    def unpack(self, packed):
        """(N, ...) packed -> (B, T, ...) in the caller's order, 0 past the end of each row."""
        B, T = self.steps.B, self.steps.T
        out = np.zeros((B, T, *packed.shape[1:]), packed.dtype)
        if self.order is None:
            out[:] = np.swapaxes(packed.reshape(T, B, *packed.shape[1:]), 0, 1)
        else:
            step, row = np.nonzero(np.arange(B) < self.sizes[:, None])
            out[self.order[row], step] = packed
        return out
