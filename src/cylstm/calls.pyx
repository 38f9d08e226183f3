"""Calls from Cython: a layer bound to B rows of T steps, which then runs without the GIL, from pointers to pointers.

    from cylstm.calls cimport Call

    cdef Call call = Call(layer, B, T)
    with nogil:
        call.forward_f32(&x[0, 0, 0], NULL, NULL, &y[0, 0, 0], NULL, NULL)

The methods for Cython and their shapes are in calls.pxd. They check no sizes; they raise (and return -1) where the
layer is of the other type, where there is nothing to go backward from, and when Ctrl-C stops them.
"""

from cylstm._core.direction cimport ZONED_C, ZONED_H
from cylstm._core.interrupt cimport Interrupt, begin, finish
from cylstm._core.kernels cimport INT8, active
from cylstm._core.memory cimport LARGEST
from cylstm._core.network cimport Backward, Forward, run_network_backward, run_network_forward, team_size
from cylstm._core.tile_range cimport backward_fits_tiles, forward_fits_tiles, within_one
from cylstm._core.team cimport ALL_THREADS
from cylstm._core.ragged cimport Plan, planned
from cylstm._core.packed_weights cimport Weights
from cylstm._core.arena cimport Work

from cylstm._core.layer import Layer
from cylstm.checks import describe, positive_int
from cylstm.precision import expect_gradients
from cylstm._core.memory import aligned_empty


cdef int zoned(layer) except -1:
    """Which of zoneout's means a call takes."""
    return layer.drops.drawn & (ZONED_C | ZONED_H)


cdef class Call:
    """One layer for calls of one shape, with all memory that they take: they allocate nothing.

    layer : LSTM, of either type, without dropout where `training`. batch_size, steps : B and T.
    lengths, resets : as for `lstm(x)`, the same for all calls.
    training : whether forward keeps what backward needs.

    Calls use the layer's weights as they were when this was made or last told to `refresh`. One thread at a time may
    use a Call; any number of them, in any number of threads, may share a layer. Raises TypeError or ValueError.
    """

    def __init__(self, layer, batch_size, steps, *, lengths=None, resets=None, training=False):
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected an LSTM, got {describe(layer)}")
        cdef Py_ssize_t B = positive_int("batch_size", batch_size), T = positive_int("steps", steps)
        if <double>(B + 1) * (T + 1) > LARGEST:
            raise ValueError(f"batch_size, steps: expected at most {LARGEST} steps in all, got {B} x {T}")
        if training:
            expect_gradients(layer.parameters, "layer")
        if training and layer.drops.drawn:
            drops = {"dropout": layer.dropout, **layer.drops.config}
            told = ", ".join(f"{name}={value}" for name, value in drops.items() if value and not isinstance(value, str))
            raise ValueError(f"layer: expected one without dropout, got {told}")
        self.layer, self.batch_size, self.steps, self.training = layer, B, T, training
        cdef Plan plan = planned(B, T, lengths, resets, True)
        cdef Weights weights = layer._weights
        if weights is None:
            raise RuntimeError(f"layer: expected LSTM.__init__ to have run, got {type(layer).__name__} without")
        cdef Work work = Work(weights)
        # Where the rows lie one after the other in time-major order, they are read there; a tape needs its own.
        self.packs = self.training or lengths is not None or (B > 1 and T > 1)
        work.lay_out(weights, Plan(B, T) if plan is None else plan, False, self.training, zoned(layer), self.packs)
        self.members = team_size(&work.plan.steps, work.directions, weights.L * weights.D, weights.D,
                                 work.k.f64.lanes if work.doubles else work.k.f32.lanes, False, ALL_THREADS)
        if self.training:
            work.lay_out_backward(weights, self.members)
        # For final states, or gradients of initial ones, that nobody wants.
        self.spare_state = aligned_empty(weights.L * weights.D * B * (weights.Y + weights.H), layer.dtype).view("u1")
        cdef unsigned char[::1] spare = self.spare_state
        self.at_spare, self.doubles, self.int8 = &spare[0], work.doubles, weights.small == INT8
        self.work, self.at_forward, self.at_backward = work, &work.forward, &work.backward
        self.refresh()

    def refresh(self):
        """Take the layer's weights as they are now, packed by this or by another call."""
        cdef Work work = self.work
        cdef Weights weights = self.layer._weights
        self.ready = self.taped = False
        work.give_back()
        if active() != work.k:  # panels of other widths
            raise ValueError("refresh: expected the instruction set that the call was made for, but another is in use")
        if zoned(self.layer) != work.masked:
            raise ValueError("refresh: expected a layer with zoneout, or without, as the call was made for, "
                             f"got zoneout={self.layer.zoneout}")
        if weights.rounded != work.rounded:
            raise ValueError(f"refresh: expected a layer with the precision that the call was made for, "
                             f"got {self.layer.precision!r}")
        work.zone_out(self.layer.drops["zoneout"])
        work.lend(weights, True)
        take_forms(self, True, True)
        self.bounded = work.choice.bounded

    cdef int forward_f32(self, const float* x, const float* h0, const float* c0, float* y, float* hn,
                         float* cn) except -1 nogil:
        return forward(self, False, x, h0, c0, y, hn, cn)

    cdef int forward_f64(self, const double* x, const double* h0, const double* c0, double* y, double* hn,
                         double* cn) except -1 nogil:
        return forward(self, True, x, h0, c0, y, hn, cn)

    cdef int backward_f32(self, const float* dy, const float* dhn, const float* dcn, float* dx, float* dh0, float* dc0,
                          float* dparameters) except -1 nogil:
        return backward(self, False, dy, dhn, dcn, dx, dh0, dc0, dparameters)

    cdef int backward_f64(self, const double* dy, const double* dhn, const double* dcn, double* dx, double* dh0,
                          double* dc0, double* dparameters) except -1 nogil:
        return backward(self, True, dy, dhn, dcn, dx, dh0, dc0, dparameters)

    cdef int step_f32(self, const float* x, float* h, float* c) except -1 nogil:
        return step(self, False, x, h, c)

    cdef int step_f64(self, const double* x, double* h, double* c) except -1 nogil:
        return step(self, True, x, h, c)


cdef int check(Call call, bint doubles) except -1 nogil:
    if not call.ready:
        with gil:
            raise RuntimeError("call: expected one that is made and refreshed, got one where that failed")
    if doubles != call.doubles:
        with gil:
            raise TypeError(f"layer: expected one of the call's type, got {call.layer!r}")
    return 0


cdef int stopped(Interrupt* interrupt) except -1 with gil:
    return finish(interrupt)


cdef int take_forms(Call call, bint forward_fits, bint backward_fits) except -1 with gil:
    """The weights for calls that are given what fits tiles, or does not."""
    cdef Work work = call.work
    cdef Weights weights = call.layer._weights
    call.ready = False
    work.packed.borrow_again()  # all forms at once, which otherwise may share memory
    try:
        work.take_forms(weights, forward_fits)
        if call.training:
            work.take_backward_forms(weights, backward_fits, True)
    finally:
        work.packed.give_back()
    call.forward_fits, call.backward_fits, call.ready = forward_fits, backward_fits, True
    return 0


cdef int forward(Call call, bint doubles, const void* x, const void* h0, const void* c0, void* y, void* hn,
                 void* cn) except -1 nogil:
    check(call, doubles)
    cdef Forward* f = <Forward*>call.at_forward
    cdef Interrupt interrupt
    cdef Py_ssize_t I = f.directions[0].I, item = 8 if doubles else 4
    cdef Py_ssize_t state = f.L * f.D * f.s.B * f.Y * item
    if call.packs:
        f.record.inputs.caller, f.record.inputs.row, f.record.inputs.step = x, f.s.T * I, I
    else:
        f.record.inputs.packed, f.record.inputs.ld, f.record.inputs.caller = <void*>x, I, NULL
    if call.int8 and h0 != NULL and not within_one(<const float*>h0, <const float*>c0, f.L * f.D * f.s.B * f.Y):
        with gil:
            raise ValueError("h0: expected numbers within -1..1, which int8 has at steps of 1/127, got others")
    f.h0, f.c0, f.y = h0, c0, y
    f.hn = hn if hn != NULL else call.at_spare
    f.cn = cn if cn != NULL else <char*>call.at_spare + state
    cdef bint fits
    if call.bounded:
        fits = forward_fits_tiles(f)
        if fits != call.forward_fits:
            take_forms(call, fits, fits)
    begin(&interrupt)
    f.interrupt = &interrupt
    call.taped = False
    run_network_forward(f, doubles)
    if interrupt.error != NULL:
        return stopped(&interrupt)
    call.taped = call.training
    return 0


cdef int backward(Call call, bint doubles, const void* dy, const void* dhn, const void* dcn, void* dx, void* dh0,
                  void* dc0, void* dparameters) except -1 nogil:
    check(call, doubles)
    cdef Forward* f = <Forward*>call.at_forward
    cdef Backward* b = <Backward*>call.at_backward
    cdef Interrupt interrupt
    cdef Py_ssize_t width = f.y_step, item = 8 if doubles else 4
    if not call.taped:
        with gil:
            raise RuntimeError("backward: expected a forward call with training=True before each, got none")
    b.record = f.record
    b.given_h, b.given_c = f.h0 != NULL, f.c0 != NULL
    b.dy, b.dy_row, b.dy_step, b.dhn, b.dcn = dy, f.s.T * width, width, dhn, dcn
    b.dx, b.dx_row, b.dx_step, b.dflat = dx, f.s.T * f.directions[0].I, f.directions[0].I, dparameters
    b.dh0 = dh0 if dh0 != NULL else call.at_spare
    b.dc0 = dc0 if dc0 != NULL else <char*>call.at_spare + f.L * f.D * f.s.B * f.Y * item
    cdef bint fits
    if call.bounded:
        fits = call.forward_fits and backward_fits_tiles(b)
        if fits != call.backward_fits:
            take_forms(call, call.forward_fits, fits)
    begin(&interrupt)
    b.interrupt = &interrupt
    call.taped = False
    run_network_backward(b, doubles, call.members)
    return stopped(&interrupt) if interrupt.error != NULL else 0


cdef int step(Call call, bint doubles, const void* x, void* h, void* c) except -1 nogil:
    check(call, doubles)
    cdef Forward* f = <Forward*>call.at_forward
    if f.s.T > 1 or f.D > 1 or f.reverse:
        with gil:
            got = f"{f.s.T} and {f.D}" + " (reverse)" * f.reverse
            raise ValueError(f"step: expected a call of one step and direction, got {got}")
    if f.residual or f.highway:
        with gil:
            raise ValueError("step: expected a layer whose outputs are its state's h, got one with "
                             + ("residual" if f.residual else "highway"))
    return forward(call, doubles, x, h, c, NULL, h, c)
