"""See memory.pxd."""

from cylstm.parameters import aligned_empty


cdef fitting(memory, double size):
    """`memory` where it has `size` bytes or more, but not over twice as many; otherwise new memory, which begins on a
    cache line. Raises MemoryError for more than any machine has."""
    if size >= TOO_MANY:
        raise MemoryError(f"expected a call of less than {TOO_MANY:.0e} bytes, got a larger one")
    size = max(1, size)
    if memory is not None and size <= memory.nbytes <= 2 * size + 65536:
        return memory
    return aligned_empty(int(size), "u1")
