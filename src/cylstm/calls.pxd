"""A layer called from Cython, without the GIL: see calls.pyx. Nothing but this file is needed to cimport it."""

cdef class Call:
    cdef readonly object layer
    cdef readonly Py_ssize_t batch_size   # B
    cdef readonly Py_ssize_t steps        # T
    cdef readonly bint training
    cdef object work
    cdef object spare_state
    cdef void* at_forward
    cdef void* at_backward
    cdef void* at_spare
    cdef int members
    cdef bint doubles
    cdef bint int8
    cdef bint packs
    cdef bint bounded                     # calls of this shape look whether a form holds what they are given
    cdef bint forward_fits, backward_fits  # the weights are there for calls that fit
    cdef bint ready                       # to be called: weights are borrowed
    cdef bint taped

    # x (B, T, I) -> y (B, T, D*H), hn and cn (L*D, B, H), all contiguous; with a projection, y is (B, T, D*P) and h is
    # (L*D, B, P), here and below; where directions are merged, y is (B, T, H) or (B, T, P). Of layers of different
    # widths, H is the last one's in y and the widest one's in states, whose rows have 0 beyond a narrower layer's
    # numbers. h0 and c0 NULL: zeros or, where the layer has one, its first state; y, hn or cn NULL: not wanted; hn may
    # be h0, and cn c0, which are lost then if the call is interrupted. Nothing else may overlap.
    #
    # On Python's main thread, a long call asks for the GIL every 50 ms, to hear of Ctrl-C; on others it never does.
    cdef int forward_f32(self, const float* x, const float* h0, const float* c0, float* y, float* hn,
                         float* cn) except -1 nogil
    cdef int forward_f64(self, const double* x, const double* h0, const double* c0, double* y, double* hn,
                         double* cn) except -1 nogil

    # After forward, once: d loss / d y, hn, cn (NULL for the last two: zeros) -> d loss / d x (NULL: not wanted, which
    # saves a product), h0, c0 (NULL: not wanted), and all parameters, as they lie in layer.parameters.flat.
    cdef int backward_f32(self, const float* dy, const float* dhn, const float* dcn, float* dx, float* dh0, float* dc0,
                          float* dparameters) except -1 nogil
    cdef int backward_f64(self, const double* dy, const double* dhn, const double* dcn, double* dx, double* dh0,
                          double* dc0, double* dparameters) except -1 nogil

    # One step of a stream, T = 1 and D = 1: x (B, I); h and c (L, B, H) become the next state. The step's output is the
    # last layer's h; layers with residual or highway, whose it is not, are refused.
    cdef int step_f32(self, const float* x, float* h, float* c) except -1 nogil
    cdef int step_f64(self, const double* x, double* h, double* c) except -1 nogil
