"""What another library would do: whole sequences forward and backward, and streams, in typed loops without the GIL."""

cimport numpy as np  # its headers define macros that must not meet names of ours
import numpy

from cpython.object cimport PyObject

from cylstm.calls cimport Call

cdef extern from "gate.h":
    int gate(const char* isa, Py_ssize_t n, const double* x, double* y) except 0

cdef extern from "<pthread.h>":
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t*, const void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)

np.import_array()


def train(Call call, double[:, :, ::1] x, double[:, :, ::1] h0, double[:, :, ::1] c0, double[:, :, ::1] dy,
          double[:, :, ::1] dhn, double[:, :, ::1] dcn, bint given=True):
    """Outputs, final state, and the gradients of all there is, from one pass forward and one backward. given: whether
    the first of them gets h0 and c0."""
    y, dx, dflat = numpy.empty_like(dy), numpy.empty_like(x), numpy.empty_like(call.layer.parameters.flat)
    hn, cn, dh0, dc0 = numpy.empty_like(h0), numpy.empty_like(c0), numpy.empty_like(h0), numpy.empty_like(c0)
    cdef double[:, :, ::1] y_, dx_, hn_, cn_, dh0_, dc0_
    cdef double[::1] dflat_ = dflat
    y_, dx_, hn_, cn_, dh0_, dc0_ = y, dx, hn, cn, dh0, dc0
    cdef double* h = &h0[0, 0, 0] if given else NULL
    cdef double* c = &c0[0, 0, 0] if given else NULL
    with nogil:
        call.forward_f64(&x[0, 0, 0], h, c, &y_[0, 0, 0], &hn_[0, 0, 0], &cn_[0, 0, 0])
        call.backward_f64(&dy[0, 0, 0], &dhn[0, 0, 0], &dcn[0, 0, 0], &dx_[0, 0, 0], &dh0_[0, 0, 0], &dc0_[0, 0, 0],
                          &dflat_[0])
    return dict(y=y, hn=hn, cn=cn, dx=dx, dh0=dh0, dc0=dc0, dflat=dflat)


def outputs(Call call, float[:, :, ::1] x, Py_ssize_t width, float[:, :, ::1] h0=None):
    """The least that one can ask for: y alone, from a state of zeros or, where it is given, h0 with c0 = 0."""
    y = numpy.empty((x.shape[0], x.shape[1], width), "f4")
    cdef float[:, :, ::1] y_ = y
    cdef const float* h = NULL
    if h0 is not None:
        h = &h0[0, 0, 0]
    with nogil:
        call.forward_f32(&x[0, 0, 0], h, NULL, &y_[0, 0, 0], NULL, NULL)
    return y


cdef struct Task:
    PyObject* call
    const float* x
    float* y

cdef void* perform(void* task) noexcept nogil:
    cdef Task* t = <Task*>task
    (<Call>t.call).forward_f32(t.x, NULL, NULL, t.y, NULL, NULL)
    return NULL


def outputs_of_a_thread(Call call, float[:, :, ::1] x, Py_ssize_t width):
    """The same from a thread that Python knows nothing of, while this one waits for it and keeps the GIL."""
    y = numpy.empty((x.shape[0], x.shape[1], width), "f4")
    cdef float[:, :, ::1] y_ = y
    cdef Task task = Task(<PyObject*>call, &x[0, 0, 0], &y_[0, 0, 0])
    cdef pthread_t thread
    if pthread_create(&thread, NULL, perform, &task) or pthread_join(thread, NULL):
        raise RuntimeError("no thread")
    return y


def parameter_gradients(Call call, double[:, :, ::1] dy):
    """The least that one can ask for after a pass forward."""
    dflat = numpy.empty_like(call.layer.parameters.flat)
    cdef double[::1] dflat_ = dflat
    with nogil:
        call.backward_f64(&dy[0, 0, 0], NULL, NULL, NULL, NULL, NULL, &dflat_[0])
    return dflat


def stream(Call call, double[:, :, ::1] x, double[:, :, ::1] h, double[:, :, ::1] c):
    """Step by step over x (T, B, I): h of the last layer after each, (T, B, H); h and c become the final state."""
    y = numpy.empty((x.shape[0], h.shape[1], h.shape[2]))
    cdef double[:, :, ::1] y_ = y
    cdef Py_ssize_t t
    for t in range(x.shape[0]):
        with nogil:
            call.step_f64(&x[t, 0, 0], &h[0, 0, 0], &c[0, 0, 0])
            y_[t] = h[h.shape[0] - 1]
    return y


def sigmoid(bytes isa, double[::1] x):
    """By C code that took the kernels from cylstm.h."""
    y = numpy.empty(x.shape[0])
    cdef double[::1] y_ = y
    cdef const char* name = NULL
    if isa:
        name = isa
    gate(name, x.shape[0], &x[0], &y_[0])
    return y
