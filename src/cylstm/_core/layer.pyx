"""Calls of a layer: they come in here, are checked (arguments.pyx), and go on to network.pyx."""

cimport cython
cimport numpy as np
from libc.stdint cimport int64_t

import numpy

from cylstm._core.arguments cimport Arguments, check_overlap, meets
from cylstm._core.interrupt cimport Interrupt, begin, finish
from cylstm._core.memory cimport LARGEST
from cylstm._core.network cimport Backward, run_network_backward, run_network_forward, team_size
from cylstm._core.team cimport ALL_THREADS
from cylstm._core.direction cimport INPUTS, PER_ROW, WEIGHTS, ZONED_C, ZONED_H, Inputs
from cylstm._core.ragged cimport Plan, Steps, packed_ids, planned
from cylstm._core.kernels cimport INT8
from cylstm._core.packed_weights cimport FIRST_C, FIRST_H, Weights
from cylstm._core.arena cimport Shelf, Work
from cylstm._core.masks cimport mask_gradients, point_at_masks
from cylstm._core.places cimport Places, lie_apart, places_of
from cylstm._core.tape cimport Tape

from cylstm.checks import describe, positive_int
from cylstm.cell import hidden_sizes
from cylstm.drops import Drops
from cylstm.parameters import Parameters, check_gradients
from cylstm.precision import expect_gradients
from cylstm.state import Gradients, LearntState, State

np.import_array()

cdef extern from *:
    """
    #undef I  /* a letter of ours, which <complex.h>, brought in by NumPy's headers, takes */
    """


cdef class Layer(Arguments):
    """The running part of `LSTM`, which has the constructor and the documentation."""

    def __init__(self, Py_ssize_t I, H, Py_ssize_t L, Py_ssize_t D, cell, dropout, dtype, parameters, rng):
        if self._weights is not None:
            raise RuntimeError(f"{type(self).__name__}: expected __init__ to run once")
        sizes = hidden_sizes(H, L)
        H, last = max(sizes), sizes[L - 1]
        self.set_up(I, H, cell.width(H), cell.output_size(last, D), L, D, dtype, parameters)
        self.generator = rng
        self.drops = Drops(L)
        self.dropout = dropout
        self._weights = Weights(I, sizes, L, D, cell, self.item == 8, parameters)
        self.bytes_of_h = self._weights.small == INT8
        self.shelf = Shelf()
        self.whole_rows = D == 2 or cell.reverse
        self.own_outputs = cell.residual or cell.highway or cell.width(last) < self.h_size
        self.state_type = LearntState if cell.first_state else State

    @property
    def dropout(self):
        """Share of each layer's outputs, but the last one's, that `forward` sets to 0."""
        return self.drops["dropout"]

    @dropout.setter
    def dropout(self, value):
        self._drop("dropout", value)

    def _drop(self, name, value):
        """Change a share of what `forward` drops (cylstm/drops.py)."""
        self.drops.change(name, value)
        self.drawn = self.drops.drawn

    @property
    def rng(self):
        """The numpy.random.Generator of the dropout masks."""
        with cython.critical_section(self):  # without the GIL, another thread may let go of it in between
            return self.generator

    @rng.setter
    def rng(self, value):
        if not isinstance(value, numpy.random.Generator):
            raise TypeError(f"rng: expected a numpy.random.Generator, got {describe(value)}")
        with cython.critical_section(self):
            self.generator = value

    @property
    def rounded(self):
        """Whether products are of numbers rounded to bfloat16, the weights staying in float32."""
        return self._weights.rounded

    @rounded.setter
    def rounded(self, bint value):
        if value and (self.item == 8 or self._weights.small):
            raise ValueError("rounded: expected weights in float32, got others")
        self._weights.rounded = value

    # --- running --------------------------------------------------------------------------------------------------

    def __call__(self, x, state=None, *, lengths=None, resets=None):
        """Run over whole sequences and keep nothing: y and the final state.

        x : (B, T, I) or (T, I) floats of any precision, or (B, T) or (T,) integer ids standing for one-hot rows.
            Any strided view will do; time-major data go in as `x.swapaxes(0, 1)`.
        state : State or None (that of `initial_state`), each array (L*D, B, H); B is 1 for unbatched input. With a
            projection (proj_size = P), h is (L*D, B, P) and y (B, T, D*P).
        lengths : (B,) integers in 0..T, in any order. y is 0 past each row's end, the final state is the one at each
            row's own end, and the reverse direction begins there; with 0, it is the initial state.
        resets : (B, T) or, unbatched, (T,) booleans. Where true, nothing flows between steps t-1 and t in either
            direction: the state before step t, the initial one included, is that of `initial_state`.

        Returns y (B, T, O) or (T, O), O = `output_size`: D*H or, where directions are merged, H; and the final State.

        Raises TypeError or ValueError naming the argument. Numbers that are not finite pass through to y.
        """
        return self._run(x, state, lengths, resets, False)

    def forward(self, x, state=None, *, lengths=None, resets=None):
        """The same as `lstm(x)`, with dropout, and with a third result: the tape that `backward` needs."""
        return self._run(x, state, lengths, resets, True)

    cdef _run(self, x, state, lengths, resets, bint keep):
        cdef bint has_ids = False
        if keep and self._weights.small:
            expect_gradients(self.parameters, "forward")
        cdef int masked = self.drawn if keep else self.drawn & (ZONED_C | ZONED_H)
        cdef np.ndarray array = self.features("x", x, &has_ids), y, h, c
        cdef Py_ssize_t B, T, row, step
        cdef bint batched = np.PyArray_NDIM(array) == (2 if has_ids else 3)
        B = np.PyArray_DIM(array, 0) if batched else 1
        T = np.PyArray_DIM(array, batched)
        row = np.PyArray_STRIDE(array, 0) // self.item if batched else 0
        step = np.PyArray_STRIDE(array, batched) // self.item
        if B == 0 or T == 0:
            raise ValueError(f"x: expected at least one row and one step, got {(<object>array).shape}")
        if <double>(B + 1) * (T + 1) > LARGEST:
            raise ValueError(f"x: expected at most {LARGEST} steps in all, got {B} x {T}")
        if has_ids and masked & INPUTS:
            raise ValueError(f"input_dropout: expected 0 where ids go in, got {self.drops['input_dropout']:g}")
        # A model has checked and sorted its rows, and gives the Plan that it made of them.
        cdef Plan plan = lengths if isinstance(lengths, Plan) else planned(B, T, lengths, resets, batched)
        if plan is not None and (plan.steps.B != B or plan.steps.T != T):
            raise ValueError(f"x: expected {plan.steps.B} rows of {plan.steps.T} steps, as the plan has, "
                             f"got {(<object>array).shape}")
        # Where the rows lie one after the other in time-major order, they are read there; a tape needs its own.
        cdef bint in_order = not keep and (plan is None or plan.steps.sizes == NULL) \
            and (B == 1 or row == self.input_size) and (T == 1 or step == B * self.input_size)
        cdef Work work = self.shelf.take(self._weights, B, T, plan, has_ids, keep, masked, not has_ids and not in_order)
        self._point_at(work, "x", array, has_ids, in_order, row, step)
        _initial = self._point_at_state(work, "state", state, B)
        if masked & (ZONED_C | ZONED_H):
            work.zone_out(self.drops["zoneout"])
        if masked and keep:
            point_at_masks(work, self.drops.masks(masked, self.rng, B, work.plan.rows, self.input_size,
                                                  self.num_directions, self._sizes(), self.dtype))
        y = self.empty(B, T, self.output_size)
        h = self.empty(self.num_layers * self.num_directions, B, self.h_size)
        c = self.empty(self.num_layers * self.num_directions, B, self.hidden_size)
        work.forward.y, work.forward.hn, work.forward.cn = np.PyArray_DATA(y), np.PyArray_DATA(h), np.PyArray_DATA(c)
        self._forward(work, True)
        final = tuple.__new__(self.state_type, (h, c))  # as its own __new__ does, without a call from Python
        if not batched:
            y = y[0]
        if not keep:
            self.shelf.put(work)
            return y, final
        cdef Tape tape = Tape.__new__(Tape)
        tape.layer, tape.work, tape.batched, tape.plan, tape.kept_masks = self, work, batched, work.plan, work.masks
        tape.nbytes, tape.per_row = work.memory.nbytes, masked & PER_ROW != 0
        return y, final, tape

    cdef int _forward(self, Work work, bint stops) except -1:
        """stops: whether Ctrl-C may end it in the middle."""
        cdef Interrupt interrupt
        cdef bint fits_tiles = work.forward_fits()
        begin(&interrupt)
        interrupt.silent = interrupt.silent or not stops
        work.forward.interrupt = &interrupt
        work.lend(self._weights, fits_tiles)
        with nogil:
            run_network_forward(&work.forward, work.doubles)
        return finish(&interrupt)

    def step(self, x_t, state, *, rows=None, out=None):
        """One step of a stream: y_t (B, D*H) or (H,) and the next state.

        x_t : (B, I) or (I,) floats, or (B,) or scalar integer ids.
        state : State (L, B, H), or None to begin. Or, of streams whose states lie apart, a list of B of them, each of
            one row; or, with `rows`, a pool (L, N, H) of states. These take the step where they lie and are what is
            returned; y_t is an array of its own then, and there is no `out`.
        rows : (B,) integers in 0..N-1, or one for x_t (I,): the rows of the pool that take the step, each once and in
            any order. Nobody reads or writes the others.
        out : State to write the next state into, which may be `state` itself. Nothing is allocated then: y_t is a view
            of the last layer's `out.h`, and the next step with the same `out` overwrites it. With `residual` or
            `highway`, or where the last layer is narrower than others, y_t is an array of its own.

        A step is never left half done: Ctrl-C is heard when it is over.
        Raises TypeError or ValueError naming the argument, and ValueError where the layer is bidirectional or reverse,
        which needs the whole sequence.
        """
        cdef bint has_ids = False, overlaps = False, batched
        cdef np.ndarray array, y, h, c
        cdef Places places = None
        cdef Py_ssize_t B, row, L = self.num_layers
        cdef np.npy_intp shape[2]
        if self.whole_rows:
            got = "a bidirectional one" if self.num_directions == 2 else "a reverse one"
            raise ValueError(f"step: expected a layer of one direction, forward, got {got}")
        array = self.features("x_t", x_t, &has_ids)
        batched = np.PyArray_NDIM(array) == (1 if has_ids else 2)
        B = np.PyArray_DIM(array, 0) if batched else 1
        if B == 0:
            raise ValueError(f"x_t: expected at least one row, got {(<object>array).shape}")
        if rows is not None or (type(state) is not self.state_type and lie_apart(state)):
            if out is not None:
                raise ValueError("out: expected None, as these states are overwritten where they lie, "
                                 f"got {describe(out)}")
            places = places_of(self, state, rows, B, batched)
            overlaps = not has_ids and places.meet(array)
        elif out is not None:
            h, c = self.check_out("out", out, B)
            overlaps = not has_ids and (meets(array, <char*>np.PyArray_DATA(h), np.PyArray_NBYTES(h))
                                        or meets(array, <char*>np.PyArray_DATA(c), np.PyArray_NBYTES(c)))
        if overlaps:  # some members of a team may still be reading it when others are done
            array = array.copy()
        row = np.PyArray_STRIDE(array, 0) // self.item if batched else 0
        cdef bint in_order = B == 1 or row == self.input_size
        cdef int masked = self.drawn & (ZONED_C | ZONED_H)
        cdef bint packs = not has_ids and not in_order
        cdef Work work = self.shelf.take(self._weights, B, 1, None, has_ids, False, masked, packs)
        if masked:
            work.zone_out(self.drops["zoneout"])
        self._point_at(work, "x_t", array, has_ids, in_order, row, 0)
        cdef bint own = out is None or self.own_outputs
        if places is not None:
            work.forward.apart, out = places.apart, state
        else:
            _initial = self._point_at_state(work, "state", state, B)
            if out is None:
                h, c = self.empty(L, B, self.h_size), self.empty(L, B, self.hidden_size)
                out = tuple.__new__(self.state_type, (h, c))
            else:
                check_overlap(work.forward.h0, work.forward.c0, h, c)
            work.forward.hn, work.forward.cn = np.PyArray_DATA(h), np.PyArray_DATA(c)
        if own:
            shape[0], shape[1] = B, self.output_size
            y = np.PyArray_EMPTY(1 + batched, &shape[1 - batched], self.type_number, 0)
            work.forward.y = np.PyArray_DATA(y)
        else:
            y = self._last_rows(h, B, batched)
            work.forward.y = NULL
        self._forward(work, False)
        self.shelf.put(work)
        return y, out

    cdef np.ndarray _last_rows(self, np.ndarray h, Py_ssize_t B, bint batched):
        """The last layer's part of h (L, B, Y), as a view (B, Y) or (Y,)."""
        cdef np.npy_intp shape[2]
        cdef char* data = <char*>np.PyArray_DATA(h) + (self.num_layers - 1) * B * self.h_size * self.item
        shape[0], shape[1] = B, self.h_size
        cdef np.ndarray y = np.PyArray_SimpleNewFromData(1 + batched, &shape[1 - batched], self.type_number, data)
        np.set_array_base(y, h)
        return y

    def initial_state(self, batch_size=1):
        """The State (L*D, B, H), with a projection h (L*D, B, P), that rows begin with: zeros or, with `first_state`, a
        copy of what is learnt."""
        self.expect_init()
        shape = self.num_layers * self.num_directions, positive_int("batch_size", batch_size)
        h, c = (numpy.zeros((*shape, width), self.dtype) for width in (self.h_size, self.hidden_size))
        state = self.state_type(h, c)
        if self._weights.cell.first_state:
            sizes = self._sizes()
            for n, row in enumerate(numpy.asarray(self._weights.offsets)):
                for part, column in ((state.h, FIRST_H), (state.c, FIRST_C)):
                    width = sizes[n // self.num_directions][1 if column == FIRST_H else 0]
                    part[n, :, :width] = self._weights.numbers(row[column], width)
        return state

    def backward(self, tape, dy, dstate=None, *, out=None, input_gradient=True):
        """Backpropagation through time (Werbos 1990): the gradients of a loss whose gradients by y and state are given.

        tape : from `forward`, whose weights must not have changed since; it serves one backward.
        dy : d loss / d y, of y's shape; what stands past a row's end is ignored.
        dstate : d loss / d final state, a State, or None for zeros.
        out : Parameters of this layer's layout to overwrite with the gradients, instead of new ones.
        input_gradient : False saves the product that d loss / d x takes; it is None then, as for ids.

        Returns Gradients(x, state, parameters).
        Raises TypeError or ValueError naming the argument, and ValueError for a tape already used.
        """
        if not isinstance(tape, Tape) or (<Tape>tape).layer is not self:
            raise TypeError(f"tape: expected a tape of this layer, got {describe(tape)}")
        cdef Tape given = tape
        cdef np.ndarray array = self.float_array("dy", dy)
        self._check_dy(given, array)
        gradients = Parameters(self.parameters.layout, self.dtype) if out is None else out
        if out is not None:
            check_gradients(out, self.parameters)
        cdef Work work
        with cython.critical_section(given):  # nobody else may have it: its gates are about to become gradients
            work, given.work = given.work, None
        if work is None:
            raise ValueError("tape: expected a tape that no backward call has used, got one that was")
        try:
            return self._backward(work, given.batched, array, dstate, gradients, input_gradient)
        except BaseException:
            if not work.spent:
                with cython.critical_section(given):
                    given.work = work
            raise

    cdef _backward(self, Work work, bint batched, np.ndarray array, dstate, gradients, bint input_gradient):
        cdef Steps* s = &work.plan.steps
        cdef np.ndarray flat, h, c, dx = None
        cdef Interrupt interrupt
        if work.packed.version != self._weights.version():
            raise ValueError("tape: expected the weights that forward saw, but they have changed since")
        cdef int members = team_size(s, work.directions, self.num_layers * self.num_directions, self.num_directions,
                                     work.k.f64.lanes if work.doubles else work.k.f32.lanes, work.has_ids, ALL_THREADS)
        if members > work.members:
            work.lay_out_backward(self._weights, members)
        cdef Backward* call = &work.backward
        call.dhn = call.dcn = NULL
        dh, dc = None, None
        if dstate is not None:
            dh, dc = self.state("dstate", dstate, s.B)
            call.dhn, call.dcn = np.PyArray_DATA(<np.ndarray>dh), np.PyArray_DATA(<np.ndarray>dc)
        call.record = work.forward.record
        call.given_h, call.given_c = work.forward.h0 != NULL, work.forward.c0 != NULL
        call.dy = np.PyArray_DATA(array)
        call.dy_row = np.PyArray_STRIDE(array, 0) // self.item if batched else 0
        call.dy_step = np.PyArray_STRIDE(array, batched) // self.item
        h = self.empty(self.num_layers * self.num_directions, s.B, self.h_size)
        c = self.empty(self.num_layers * self.num_directions, s.B, self.hidden_size)
        call.dh0, call.dc0 = np.PyArray_DATA(h), np.PyArray_DATA(c)
        call.dx, call.packed = NULL, False
        if input_gradient and not work.has_ids:
            dx = self.empty(s.B, s.T, self.input_size)
            call.dx, call.dx_row, call.dx_step = np.PyArray_DATA(dx), s.T * self.input_size, self.input_size
        flat = gradients.raw()
        call.dflat = np.PyArray_DATA(flat)
        work.take_backward_forms(self._weights, work.backward_fits(), dx is not None)
        begin(&interrupt)
        call.interrupt, work.spent = &interrupt, True
        with nogil:
            run_network_backward(call, work.doubles, members)
        if work.masked & WEIGHTS:
            mask_gradients(work, flat)
        gradients.touch()
        finish(&interrupt)
        self.shelf.put(work)
        if dx is not None and not batched:
            dx = dx[0]
        return Gradients(dx, State(h, c), gradients)

    cdef int _check_dy(self, Tape tape, np.ndarray dy) except -1:
        cdef Py_ssize_t width = self.output_size, rank = 2 + tape.batched
        cdef Steps* s = &tape.plan.steps
        if (np.PyArray_NDIM(dy) != rank or np.PyArray_DIM(dy, rank - 1) != width or np.PyArray_DIM(dy, rank - 2) != s.T
                or (tape.batched and np.PyArray_DIM(dy, 0) != s.B)):
            raise ValueError(f"dy: expected {(s.B, s.T, width)[1 - tape.batched:]}, got {(<object>dy).shape}")
        return 0

    cdef int _point_at(self, Work work, name, np.ndarray array, bint has_ids, bint in_order, Py_ssize_t row,
                       Py_ssize_t step) except -1:
        """Tell the call where its inputs are."""
        cdef Inputs* inputs = &work.forward.record.inputs
        if has_ids:
            work.ids = packed_ids(name, array, &work.plan.steps, self.input_size)
            inputs.ids = <const int64_t*>np.PyArray_DATA(<np.ndarray>work.ids)
        elif in_order:
            inputs.packed, inputs.ld, inputs.caller = np.PyArray_DATA(array), self.input_size, NULL
        else:
            inputs.caller, inputs.row, inputs.step = np.PyArray_DATA(array), row, step
        return 0

    cdef tuple _point_at_state(self, Work work, name, state, Py_ssize_t B):
        """Tell the call where its initial state is; returns the arrays, to be held until it is over."""
        if state is None:
            work.forward.h0 = work.forward.c0 = NULL
            return None, None
        arrays = self.state(name, state, B)
        self.check_range(name, arrays[0], arrays[1])
        work.forward.h0 = np.PyArray_DATA(<np.ndarray>arrays[0])
        work.forward.c0 = np.PyArray_DATA(<np.ndarray>arrays[1])
        return arrays

    cdef list _sizes(self):
        """H, Y and O of each layer."""
        return [tuple(row) for row in numpy.asarray(self._weights.sizes).tolist()]
