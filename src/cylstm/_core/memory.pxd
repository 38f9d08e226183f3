"""Memory that goes from one use to the next: fresh memory costs a page fault for each 4 kB."""

cpdef enum:
    LARGEST = 2147483647  # rows or columns of one matrix: what a 32-bit BLAS can take

cdef extern from *:
    """
    /* bytes: more than any machine has, and few enough for sums to be exact in double precision */
    #define TOO_MANY 1125899906842624.0
    """
    const double TOO_MANY

cdef fitting(memory, double size)
