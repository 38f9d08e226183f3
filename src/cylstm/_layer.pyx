"""The edge between Python and the arithmetic: calls come in here, are checked, and go on to _network.pyx.

What is as it should be already, an array of the layer's type in the right shape, passes after a few comparisons; the
rest goes through checks.py, which converts it or says what is wrong with it.
"""

cimport numpy as np
from libc.stdint cimport int64_t

import numpy

from cylstm._network cimport Backward, run_network_backward, run_network_forward, team_size
from cylstm._sequence cimport Inputs
from cylstm._steps cimport Plan, Steps, alive, caller_row, offset
from cylstm._weights cimport Weights
from cylstm._work cimport Shelf, Work

from cylstm.checks import as_float_array, describe, plain_array, positive_int
from cylstm.params import Parameters
from cylstm.state import Gradients, State

np.import_array()

cdef extern from *:
    """
    #undef I  /* a letter of ours, which <complex.h>, brought in by NumPy's headers, takes */
    """

cpdef enum:
    LARGEST = 2147483647  # rows or columns of one matrix: what a 32-bit BLAS can take


cdef class Layer

cdef class Tape:
    """What `forward` keeps for `backward`: inputs, gates, h and c of every step, and the dropout masks."""

    cdef readonly Layer layer
    cdef Work work           # None once backward has used it
    cdef bint batched
    cdef object kept_masks
    cdef Plan plan
    cdef readonly Py_ssize_t nbytes

    @property
    def masks(self):
        """List of the L-1 dropout masks (B, T, D*H), scaled by 1/(1-p); None without dropout."""
        return None if self.kept_masks is None else [self.plan.unpack(mask) for mask in self.kept_masks]


cdef class Layer:
    """The running part of `LSTM`, which has the constructor and the documentation."""

    cdef readonly Py_ssize_t input_size, hidden_size, num_layers, num_directions
    cdef readonly object dtype, parameters
    cdef readonly double dropout
    cdef public object rng
    cdef Weights weights
    cdef Shelf shelf
    cdef int type_number
    cdef Py_ssize_t item

    def __init__(self, Py_ssize_t I, Py_ssize_t H, Py_ssize_t L, Py_ssize_t D, bint bias, double dropout, dtype,
                 parameters,
                 rng):
        self.input_size, self.hidden_size, self.num_layers, self.num_directions = I, H, L, D
        self.dropout, self.dtype, self.parameters, self.rng = dropout, dtype, parameters, rng
        self.weights = Weights(I, H, L, D, bias, dtype == numpy.float64, parameters)
        self.type_number = np.NPY_FLOAT64 if self.weights.doubles else np.NPY_FLOAT32
        self.item = 8 if self.weights.doubles else 4
        self.shelf = Shelf()

    # --- running --------------------------------------------------------------------------------------------------

    def __call__(self, x, state=None, *, lengths=None, resets=None):
        """Run over whole sequences and keep nothing: y and the final state.

        x : (B, T, I) or (T, I) floats of any precision, or (B, T) or (T,) integer ids standing for one-hot rows.
            Any strided view will do; time-major data go in as `x.swapaxes(0, 1)`.
        state : State or None (zeros), each array (L*D, B, H); B is 1 for unbatched input.
        lengths : (B,) integers in 1..T, in any order. y is 0 past each row's end, the final state is the one at each
            row's own end, and the reverse direction begins there.
        resets : (B, T) or, unbatched, (T,) booleans. Where true, nothing flows between steps t-1 and t in either
            direction: the forward state, the initial one included, is zero before step t.

        Returns y (B, T, D*H) or (T, D*H) and the final State.

        Raises TypeError or ValueError naming the argument. Numbers that are not finite pass through to y.
        """
        return self._run(x, state, lengths, resets, False)

    def forward(self, x, state=None, *, lengths=None, resets=None):
        """The same as `lstm(x)`, with dropout, and with a third result: the tape that `backward` needs."""
        return self._run(x, state, lengths, resets, True)

    cdef _run(self, x, state, lengths, resets, bint keep):
        cdef bint has_ids = False, masked = keep and self.dropout > 0 and self.num_layers > 1
        cdef np.ndarray array = self._input("x", x, &has_ids), y, h, c
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
        if lengths is not None:
            lengths = check_lengths(lengths, B, T)
        if resets is not None:
            resets = check_resets(resets, B, T, batched)
        # Where the rows lie one after the other in time-major order, they are read there; a tape needs its own.
        cdef bint in_order = not keep and lengths is None and (B == 1 or row == self.input_size) \
            and (T == 1 or step == B * self.input_size)
        cdef Work work = self.shelf.take(self.weights, B, T, lengths, resets, has_ids, keep, masked,
                                         not has_ids and not in_order)
        self._point_at(work, "x", array, has_ids, in_order, row, step)
        _initial = self._point_at_state(work, "state", state, B)
        if masked:
            work.masks = self._masks(work.plan)
            work.forward.record.masks = np.PyArray_DATA(<np.ndarray>work.masks)
        y = self._empty(B, T, self.num_directions * self.hidden_size)
        h = self._empty(self.num_layers * self.num_directions, B, self.hidden_size)
        c = self._empty(self.num_layers * self.num_directions, B, self.hidden_size)
        work.forward.y, work.forward.hn, work.forward.cn = np.PyArray_DATA(y), np.PyArray_DATA(h), np.PyArray_DATA(c)
        self._forward(work)
        final = State(h, c)
        if not batched:
            y = y[0]
        if not keep:
            self.shelf.put(work)
            return y, final
        cdef Tape tape = Tape.__new__(Tape)
        tape.layer, tape.work, tape.batched, tape.plan, tape.kept_masks = self, work, batched, work.plan, work.masks
        tape.nbytes = work.memory.nbytes
        return y, final, tape

    cdef int _forward(self, Work work) except -1:
        work.lend(self.weights)
        with nogil:
            run_network_forward(&work.forward, work.doubles)
        return 0

    def step(self, x_t, state, *, out=None):
        """One step of a stream: y_t (B, D*H) or (H,) and the next state.

        x_t : (B, I) or (I,) floats, or (B,) or scalar integer ids. state : State (L, B, H), or None for zeros.
        out : State to write the next state into, which may be `state` itself. Nothing is allocated then: y_t is a view
            of the last layer's `out.h`, and the next step with the same `out` overwrites it.

        Raises ValueError where the layer is bidirectional: its reverse direction needs the whole sequence.
        """
        cdef bint has_ids = False, batched
        cdef np.ndarray array, y, h, c
        cdef Py_ssize_t B, row, L = self.num_layers
        cdef np.npy_intp shape[2]
        if self.num_directions == 2:
            raise ValueError("step: expected a layer of one direction, got a bidirectional one")
        array = self._input("x_t", x_t, &has_ids)
        batched = np.PyArray_NDIM(array) == (1 if has_ids else 2)
        B = np.PyArray_DIM(array, 0) if batched else 1
        if B == 0:
            raise ValueError(f"x_t: expected at least one row, got {(<object>array).shape}")
        row = np.PyArray_STRIDE(array, 0) // self.item if batched else 0
        cdef bint in_order = B == 1 or row == self.input_size
        cdef Work work = self.shelf.take(self.weights, B, 1, None, None, has_ids, False, False,
                                         not has_ids and not in_order)
        self._point_at(work, "x_t", array, has_ids, in_order, row, 0)
        _initial = self._point_at_state(work, "state", state, B)
        if out is None:
            h, c = self._empty(L, B, self.hidden_size), self._empty(L, B, self.hidden_size)
            out = State(h, c)
            shape[0], shape[1] = B, self.hidden_size
            y = np.PyArray_EMPTY(1 + batched, &shape[1 - batched], self.type_number, 0)
            work.forward.y = np.PyArray_DATA(y)
        else:
            h, c = self._check_out(out, B)
            y = self._last_rows(h, B, batched)
            work.forward.y = NULL
        work.forward.hn, work.forward.cn = np.PyArray_DATA(h), np.PyArray_DATA(c)
        self._forward(work)
        self.shelf.put(work)
        return y, out

    cdef np.ndarray _last_rows(self, np.ndarray h, Py_ssize_t B, bint batched):
        """The last layer's part of h (L, B, H), as a view (B, H) or (H,)."""
        cdef np.npy_intp shape[2]
        cdef char* data = <char*>np.PyArray_DATA(h) + (self.num_layers - 1) * B * self.hidden_size * self.item
        shape[0], shape[1] = B, self.hidden_size
        cdef np.ndarray y = np.PyArray_SimpleNewFromData(1 + batched, &shape[1 - batched], self.type_number, data)
        np.set_array_base(y, h)
        return y

    def initial_state(self, batch_size=1):
        """A state of zeros, arrays (L*D, B, H)."""
        self._expect_init()
        shape = (self.num_layers * self.num_directions, positive_int("batch_size", batch_size), self.hidden_size)
        return State(numpy.zeros(shape, self.dtype), numpy.zeros(shape, self.dtype))

    def backward(self, tape, dy, dstate=None, *, out=None):
        """Backpropagation through time (Werbos 1990): the gradients of a loss whose gradients by y and state are given.

        tape : from `forward`, whose weights must not have changed since; it serves one backward.
        dy : d loss / d y, of y's shape; what stands past a row's end is ignored.
        dstate : d loss / d final state, a State, or None for zeros.
        out : Parameters of this layer's layout to overwrite with the gradients, instead of new ones.

        Returns Gradients(x, state, parameters).
        Raises TypeError or ValueError naming the argument, and ValueError for a tape already used.
        """
        if not isinstance(tape, Tape) or (<Tape>tape).layer is not self:
            raise TypeError(f"tape: expected a tape of this layer, got {describe(tape)}")
        cdef Tape given = tape
        cdef np.ndarray array = self._float_array("dy", dy)
        self._check_dy(given, array)
        gradients = Parameters(self.parameters.layout, self.dtype) if out is None else out
        if out is not None:
            self._check_gradients(out)
        cdef Work work = given.work
        if work is None:
            raise ValueError("tape: expected a tape that no backward call has used, got one that was")
        given.work = None  # nobody else may have it: its gates are about to become gradients
        try:
            return self._backward(work, given.batched, array, dstate, gradients)
        except BaseException:
            given.work = work
            raise

    cdef _backward(self, Work work, bint batched, np.ndarray array, dstate, gradients):
        cdef Steps* s = &work.plan.steps
        cdef np.ndarray flat, h, c, dx = None
        if work.packed.version != self.weights.version():
            raise ValueError("tape: expected the weights that forward saw, but they have changed since")
        cdef int members = team_size(s, work.cells, self.num_layers * self.num_directions, self.num_directions,
                                     work.k.f64.lanes if work.doubles else work.k.f32.lanes, work.has_ids)
        if members > work.members:
            work.lay_out_backward(self.weights, members)
        cdef Backward* call = &work.backward
        call.dhn = call.dcn = NULL
        dh, dc = None, None
        if dstate is not None:
            dh, dc = self._state("dstate", dstate, s.B)
            call.dhn, call.dcn = np.PyArray_DATA(<np.ndarray>dh), np.PyArray_DATA(<np.ndarray>dc)
        call.record = work.forward.record
        call.dy = np.PyArray_DATA(array)
        call.dy_row = np.PyArray_STRIDE(array, 0) // self.item if batched else 0
        call.dy_step = np.PyArray_STRIDE(array, batched) // self.item
        h = self._empty(self.num_layers * self.num_directions, s.B, self.hidden_size)
        c = self._empty(self.num_layers * self.num_directions, s.B, self.hidden_size)
        call.dh0, call.dc0 = np.PyArray_DATA(h), np.PyArray_DATA(c)
        call.dx = NULL
        if not work.has_ids:
            dx = self._empty(s.B, s.T, self.input_size)
            call.dx = np.PyArray_DATA(dx)
        flat = gradients.flat
        call.dflat = np.PyArray_DATA(flat)
        self.weights.fill_backward(work.packed, work.cells, work.choice, work.has_ids)
        with nogil:
            run_network_backward(call, work.doubles, members)
        self.shelf.put(work)
        gradients.touch()
        if dx is not None and not batched:
            dx = dx[0]
        return Gradients(dx, State(h, c), gradients)

    cdef int _check_dy(self, Tape tape, np.ndarray dy) except -1:
        cdef Py_ssize_t width = self.num_directions * self.hidden_size, rank = 2 + tape.batched
        cdef Steps* s = &tape.plan.steps
        if (np.PyArray_NDIM(dy) != rank or np.PyArray_DIM(dy, rank - 1) != width or np.PyArray_DIM(dy, rank - 2) != s.T
                or (tape.batched and np.PyArray_DIM(dy, 0) != s.B)):
            raise ValueError(f"dy: expected {(s.B, s.T, width)[1 - tape.batched:]}, got {(<object>dy).shape}")
        return 0

    cdef int _check_gradients(self, out) except -1:
        if not isinstance(out, Parameters):
            raise TypeError(f"out: expected Parameters, got {describe(out)}")
        if numpy.may_share_memory(out.flat, self.parameters.flat):
            raise ValueError("out: expected memory of its own, got the layer's parameters")
        if out.layout != self.parameters.layout or out.dtype != self.dtype:
            raise ValueError(f"out: expected {self.parameters!r}, got {out!r}")
        return 0

    # --- what comes in --------------------------------------------------------------------------------------------

    cdef int _expect_init(self) except -1:
        if self.weights is None:
            raise RuntimeError(f"{type(self).__name__}: expected LSTM.__init__ to have run")
        return 0

    cdef np.ndarray _input(self, name, x, bint* has_ids):
        """Features (..., I) of the layer's type, or integers; of a rank that a call (or, for x_t, a step) takes."""
        cdef np.ndarray array
        cdef Py_ssize_t rank, less = 1 if name == "x_t" else 0
        self._expect_init()
        if not self._is_float_array(x):
            x = plain_array(name, x)
            has_ids[0] = x.dtype.kind in "iu"
            if not has_ids[0]:
                x = self._float_array(name, x)
        array = x
        rank = np.PyArray_NDIM(array) + less
        if not has_ids[0]:
            if rank not in (2, 3) or np.PyArray_DIM(array, rank - less - 1) != self.input_size:
                expected = f"(B, {self.input_size}) or ({self.input_size},)" if less else \
                    f"(B, T, {self.input_size}) or (T, {self.input_size})"
                raise ValueError(f"{name}: expected {expected}, got {x.shape}")
        elif rank not in (1, 2):
            if less:
                raise ValueError(f"x_t: expected ids (B,) or a single id, got {x.shape}")
            raise ValueError(f"{name}: expected ids (B, T) or (T,), or features in floating point, got {describe(x)}")
        return array

    cdef bint _is_float_array(self, x):
        """Whether x is an array of the layer's type that C can read along its last axis."""
        cdef np.ndarray array
        cdef Py_ssize_t rank, n
        if type(x) is not numpy.ndarray:
            return False
        array = x
        rank = np.PyArray_NDIM(array)
        if np.PyArray_TYPE(array) != self.type_number or not np.PyArray_ISBEHAVED_RO(array) or rank == 0:
            return False
        if np.PyArray_STRIDE(array, rank - 1) != self.item and np.PyArray_DIM(array, rank - 1) != 1:
            return False
        for n in range(rank - 1):
            if np.PyArray_STRIDE(array, n) % self.item:
                return False
        return True

    cdef np.ndarray _float_array(self, name, x):
        if not self._is_float_array(x):
            x = numpy.ascontiguousarray(as_float_array(name, x, self.dtype)).reshape(numpy.shape(x))
        return x

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
        arrays = self._state(name, state, B)
        work.forward.h0 = np.PyArray_DATA(<np.ndarray>arrays[0])
        work.forward.c0 = np.PyArray_DATA(<np.ndarray>arrays[1])
        return arrays

    cdef bint _is_state_array(self, x, Py_ssize_t B):
        """Whether x is a contiguous array (L*D, B, H) of the layer's type."""
        cdef np.ndarray array
        if type(x) is not numpy.ndarray:
            return False
        array = x
        return (np.PyArray_TYPE(array) == self.type_number and np.PyArray_NDIM(array) == 3
                and np.PyArray_DIM(array, 0) == self.num_layers * self.num_directions and np.PyArray_DIM(array, 1) == B
                and np.PyArray_DIM(array, 2) == self.hidden_size and np.PyArray_ISCARRAY_RO(array))

    cdef tuple _state(self, name, state, Py_ssize_t B):
        try:
            h, c = state
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected a State(h, c), got {describe(state)}") from None
        if not self._is_state_array(h, B):
            h = self._state_array(f"{name}.h", h, B)
        if not self._is_state_array(c, B):
            c = self._state_array(f"{name}.c", c, B)
        return h, c

    cdef _state_array(self, name, array, Py_ssize_t B):
        array = as_float_array(name, array, self.dtype)
        expected = (self.num_layers * self.num_directions, B, self.hidden_size)
        if array.shape != expected:
            raise ValueError(f"{name}: expected {expected}, got {array.shape}")
        return numpy.ascontiguousarray(array)

    cdef tuple _check_out(self, out, Py_ssize_t B):
        try:
            h, c = out
        except (TypeError, ValueError):
            raise TypeError(f"out: expected a State(h, c), got {describe(out)}") from None
        for part, array in (("h", h), ("c", c)):
            if not self._is_state_array(array, B) or not np.PyArray_ISWRITEABLE(<np.ndarray>array):
                expected = (self.num_layers * self.num_directions, B, self.hidden_size)
                raise ValueError(
                    f"out.{part}: expected a writable, contiguous {self.dtype} {expected}, got {describe(array)}")
        cdef char* h_data = <char*>np.PyArray_DATA(<np.ndarray>h)
        cdef char* c_data = <char*>np.PyArray_DATA(<np.ndarray>c)
        if abs(h_data - c_data) < np.PyArray_NBYTES(<np.ndarray>h):
            raise ValueError("out: expected two arrays, got h and c in the same memory")
        return h, c

    cdef np.ndarray _empty(self, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c):
        cdef np.npy_intp shape[3]
        shape[0], shape[1], shape[2] = a, b, c
        return np.PyArray_EMPTY(3, shape, self.type_number, 0)

    cdef _masks(self, Plan plan):
        """Dropout masks (L-1, N, D*H) in packed order, scaled by 1/(1-p) (Srivastava et al. 2014)."""
        shape = (self.num_layers - 1, plan.rows, self.num_directions * self.hidden_size)
        kept = self.rng.random(shape, numpy.float32) >= self.dropout
        return kept.astype(self.dtype) / self.dtype.type(1 - self.dropout)


cpdef check_lengths(lengths, Py_ssize_t B, Py_ssize_t T):
    """B integers in 1..T as int64; TypeError or ValueError for anything else."""
    lengths = numpy.atleast_1d(numpy.asarray(lengths))
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {describe(lengths)}")
    if lengths.shape != (B,):
        raise ValueError(f"lengths: expected ({B},), got {lengths.shape}")
    lengths = numpy.array(lengths, numpy.int64)
    cdef const int64_t[::1] view = lengths
    cdef Py_ssize_t b
    for b in range(B):
        if view[b] < 1 or view[b] > T:
            raise ValueError(f"lengths: expected lengths in 1..{T}, got {view[b]}")
    return lengths


cdef check_resets(resets, Py_ssize_t B, Py_ssize_t T, bint batched):
    """Booleans (B, T) or, unbatched, (T,) as (B, T)."""
    resets = numpy.asarray(resets)
    if resets.dtype != bool:
        raise TypeError(f"resets: expected booleans, got {describe(resets)}")
    expected = (B, T)[1 - batched:]
    if resets.shape != expected:
        raise ValueError(f"resets: expected {expected}, got {resets.shape}")
    return resets.reshape(B, T)


cdef packed_ids(name, np.ndarray ids, Steps* s, Py_ssize_t V):
    """Ids (B, T), (T,), (B,) or () -> a packed copy (N,) of those that are no padding: each in 0..V-1, or ValueError.

    A copy is checked: the kernels trust it, and so does backward.
    """
    if np.PyArray_TYPE(ids) == np.NPY_UINT64:
        ids = numpy.asarray(numpy.minimum(ids, numpy.uint64(2**63 - 1)))
    if np.PyArray_TYPE(ids) != np.NPY_INT64 or not np.PyArray_ISBEHAVED_RO(ids):
        ids = numpy.array(ids, numpy.int64)
    cdef np.npy_intp N = s.N
    cdef np.ndarray packed = np.PyArray_EMPTY(1, &N, np.NPY_INT64, 0)
    cdef int64_t* target = <int64_t*>np.PyArray_DATA(packed)
    cdef const char* source = <const char*>np.PyArray_DATA(ids)
    # With one axis, either B or T is 1.
    cdef Py_ssize_t rank = np.PyArray_NDIM(ids), t, b, row = np.PyArray_STRIDE(ids, 0) if rank else 0
    cdef Py_ssize_t step = np.PyArray_STRIDE(ids, rank - 1) if rank else 0
    cdef int64_t n, bad = 0
    with nogil:
        for t in range(s.T):
            for b in range(alive(s, t)):
                n = (<const int64_t*>(source + caller_row(s, b) * row + t * step))[0]
                target[offset(s, t) + b] = n
                if not 0 <= n < V:
                    bad = n if bad == 0 else bad
    if bad != 0:
        raise ValueError(f"{name}: expected ids in 0..{V - 1}, got {bad}")
    return packed
