"""See memory.pxd."""

from cylstm.parameters import aligned_empty


cdef fitting(memory, double size):
    """So many bytes on a cache line: what there is, if that is large enough and not far too large, or new."""
    if size >= TOO_MANY:
        raise MemoryError(f"expected a call of less than {TOO_MANY:.0e} bytes, got a larger one")
    size = max(1, size)
    if memory is not None and size <= memory.nbytes <= 2 * size + 65536:
        return memory
    return aligned_empty(int(size), "u1")
