"""The layer behind cylstm.torch's modules: its weights are those of a torch module, whoever writes to them, and are
told by their addresses at each call. Nothing here knows torch: arrays and numbers come in.

Torch counts the changes of a tensor, but not all of them. So a call on a few rows and steps reads the weights where
they lie, and a longer one compares them with the copy from which the packed ones were made: it takes many times as
long.
"""

cimport cython
cimport numpy as np
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

import numpy

from cylstm._core.interrupt cimport Interrupt, begin, finish
from cylstm._core.kernels cimport PANELS, UNPACKED, Kernels, pack_gates, real
from cylstm._core.layer cimport Layer
from cylstm._core.masks cimport point_at_masks
from cylstm._core.tape cimport Tape
from cylstm._core.network cimport Backward, Forward, run_network_backward, run_network_forward, team_size
from cylstm._core.direction cimport OUTPUTS, Direction
from cylstm._core.ragged cimport Plan, Steps
from cylstm._core.packed_weights cimport Weights
from cylstm._core.arena cimport Work

from cylstm.cell import CellType, layout
from cylstm.drops import Masks
from cylstm.locks import Lock
from cylstm.parameters import Parameters

np.import_array()

cdef extern from *:
    """
    #undef I  /* a letter of ours, which <complex.h>, brought in by NumPy's headers, takes */
    """

cdef enum:
    SHORT = 16  # steps of rows, from which on packed weights are used: comparing them takes as long as a few steps


cdef class Module(Layer):
    """I, H, L, D as everywhere; bias: whether there are two of them; P: of a projection, or 0; dtype: float32 or
    float64; rounded: whether products of float32 are of numbers rounded to bfloat16; small: the SmallParameters of a
    layer that runs and no more, which has no other weights and is given no addresses.

    Addresses are those of weight_ih (4H, I), weight_hh (4H, Y), with a bias bias_ih and bias_hh (4H,), and with a
    projection weight_hr (P, H) of each layer and direction in turn, of the module's dtype and contiguous. Y is P with a
    projection and H without. They must stay valid during the call.
    """

    cdef object lock   # of the copy of the weights, and of what is packed from it
    cdef bint bias
    cdef Py_ssize_t each  # addresses of a layer and direction

    def __init__(self, I, H, L, D, bias, P, dtype, rounded=False, small=None):
        cell = CellType(bias=bias, proj_size=P)
        parameters = Parameters(layout(I, H, L, D, cell), dtype) if small is None else small
        Layer.__init__(self, I, H, L, D, cell, 0.0, numpy.dtype(dtype), parameters, None)
        self.rounded = rounded
        self.lock, self.bias, self.each = Lock(), bias, (4 if bias else 2) + (P > 0)

    def run(self, x, h, c, addresses, bint batch_first, lengths, masks, resets, bint keep, int most):
        """y, the final h and c, and the tape for `backward`, or None without `keep`.

        x : (T, B, I), with batch_first (B, T, I); or (N, I), packed, with the lengths int64 (B,), longest first.
        h, c : (L*D, B, Y) and (L*D, B, H), or None for zeros. masks : of dropout, (L-1, N, D*Y) in packed order, or
            None.
        resets : bool (B, T) or None. most : threads.

        y (T, B, D*Y) or (N, D*Y), h and c are new; arrays that go in must not be written to before backward.
        """
        cdef np.ndarray array = self.float_array("x", x), y, hn, cn
        cdef Py_ssize_t B, T, N, row, step, width = self.num_directions * self.h_size, item = self.item
        cdef bint packed = lengths is not None, in_order, plain
        if packed:
            if np.PyArray_STRIDE(array, 0) != self.input_size * item:
                array = numpy.ascontiguousarray(array)
            T, N, B = lengths[0], np.PyArray_DIM(array, 0), len(lengths)
            row, step, in_order = 0, 0, True
        else:
            B, T = np.PyArray_DIM(array, not batch_first), np.PyArray_DIM(array, batch_first)
            row = np.PyArray_STRIDE(array, not batch_first) // item
            step = np.PyArray_STRIDE(array, batch_first) // item
            N, in_order = B * T, (B == 1 or row == self.input_size) and (T == 1 or step == B * self.input_size)
        plain = not keep and N < SHORT and self.h_size == self.hidden_size \
            and not (self._weights.rounded or self._weights.small)
        cdef Plan plan = None if lengths is None and resets is None else Plan(B, T, lengths, resets)
        cdef Work work = self.shelf.take(self._weights, B, T, plan, False, keep, OUTPUTS if masks is not None else 0,
                                         not in_order)
        self._point_at(work, "x", array, False, in_order, row, step)
        work.x = array
        cdef Forward* call = &work.forward
        if masks is not None:
            point_at_masks(work, Masks(outputs=masks))
        h, c = self._state(h, B, self.h_size), self._state(c, B, self.hidden_size)
        if h is not None:
            self.check_range("hx", h, c)
        call.h0 = np.PyArray_DATA(<np.ndarray>h) if h is not None else NULL
        call.c0 = np.PyArray_DATA(<np.ndarray>c) if c is not None else NULL
        y = self.empty(T, B, width) if not packed else numpy.empty((N, width), self.dtype)
        hn = self.empty(self.num_layers * self.num_directions, B, self.h_size)
        cn = self.empty(self.num_layers * self.num_directions, B, self.hidden_size)
        call.y, call.y_row, call.y_step, call.packed = np.PyArray_DATA(y), width, B * width, packed
        call.hn, call.cn, call.most = np.PyArray_DATA(hn), np.PyArray_DATA(cn), most
        cdef Interrupt interrupt
        begin(&interrupt)
        call.interrupt = &interrupt
        _biases = self._lend(work, addresses, plain, most)
        with nogil:
            run_network_forward(call, work.doubles)
        finish(&interrupt)
        if not keep:
            self.shelf.put(work)
            return y, hn, cn, None
        cdef Tape tape = Tape.__new__(Tape)
        tape.layer, tape.work, tape.batched, tape.plan, tape.kept_masks = self, work, True, work.plan, work.masks
        tape.nbytes = work.memory.nbytes
        return y, hn, cn, tape

    def __reduce__(self):
        return _nothing, ()  # made again from the module's weights

    cdef _state(self, state, Py_ssize_t B, Py_ssize_t width):
        if state is None or self.is_state_array(state, B, width):
            return state
        return numpy.ascontiguousarray(state, self.dtype)

    cdef _lend(self, Work work, addresses, bint plain, int most):
        """Point the call at the weights of now; what is returned holds a part of them."""
        if plain:
            return self._lend_rows(work, addresses)
        cdef bint fits_tiles = work.forward_fits()
        with self.lock.held:
            if not self._weights.small:
                self._follow(work.directions, addresses)
            self._weights.most = most
            work.weights = self._weights
            work.lend(self._weights, fits_tiles)
        return None

    cdef np.ndarray _lend_rows(self, Work work, addresses):
        """The weights as they lie; biases are added and packed for this call alone."""
        cdef Direction* directions = work.directions
        cdef Py_ssize_t count = self.num_layers * self.num_directions, H = self.hidden_size, n, each = self.each
        cdef np.ndarray biases = self.empty(1, count, 4 * directions[0].Hp + 4 * H)  # packed, and as they are
        cdef char* target = <char*>np.PyArray_DATA(biases)
        work.spent = False
        for n in range(count):
            directions[n].W.packed, directions[n].W.form = address(addresses, n * each), UNPACKED
            directions[n].W.columns = 4 * H
            directions[n].R.packed, directions[n].R.form = address(addresses, n * each + 1), UNPACKED
            directions[n].b.packed = target
            if not self.bias:
                memset(target, 0, 4 * directions[0].Hp * self.item)
            elif work.doubles:
                add_and_pack[double](work.k, &directions[n], <const double*>address(addresses, n * each + 2),
                                     <const double*>address(addresses, n * each + 3), <double*>target)
            else:
                add_and_pack[float](work.k, &directions[n], <const float*>address(addresses, n * each + 2),
                                    <const float*>address(addresses, n * each + 3), <float*>target)
            target += (4 * directions[0].Hp + 4 * H) * self.item
        return biases

    cdef int _follow(self, const Direction* directions, addresses) except -1:
        """Copy the weights where they are not what they were: over those of the last call, or, where a call or a tape
        needs these still, into new memory."""
        cdef bint rounded = self._weights.rounded
        if self._copy(directions, addresses, True):
            if self._weights.in_use():
                self.parameters = Parameters(self.parameters.layout, self.dtype)
                self._weights = Weights(self.input_size, self.hidden_size, self.num_layers, self.num_directions,
                                        self._weights.cell, self.item == 8, self.parameters)
                self._weights.rounded = rounded
            self._copy(directions, addresses, False)
            self.parameters.touch()
        return 0

    cdef bint _copy(self, const Direction* directions, addresses, bint compare_only) except *:
        """Whether any weight differs from the copy, which is then changed unless `compare_only`."""
        cdef np.ndarray flat = self._weights.flat
        cdef char* own = <char*>np.PyArray_DATA(flat)
        cdef Py_ssize_t H = self.hidden_size, Y = self.h_size, item = self.item, n, each = self.each
        cdef const char* W
        cdef const char* R
        cdef const char* proj
        cdef const char* b
        cdef const char* b_hh
        cdef bint differ = False
        for n in range(self.num_layers * self.num_directions):
            W, R = address(addresses, n * each), address(addresses, n * each + 1)
            proj = address(addresses, (n + 1) * each - 1)  # the last, if there is a projection
            with nogil:
                differ |= copy_values(own + directions[n].at_W * item, W, 4 * H * directions[n].I * item, compare_only)
                differ |= copy_values(own + directions[n].at_R * item, R, 4 * H * Y * item, compare_only)
                if directions[n].at_proj >= 0:
                    differ |= copy_values(own + directions[n].at_proj * item, proj, Y * H * item, compare_only)
            if self.bias:
                b, b_hh = address(addresses, n * each + 2), address(addresses, n * each + 3)
                if item == 8:
                    differ |= copy_sums(<double*>own + directions[n].at_b, <const double*>b, <const double*>b_hh, 4 * H,
                                        compare_only)
                else:
                    differ |= copy_sums(<float*>own + directions[n].at_b, <const float*>b, <const float*>b_hh, 4 * H,
                                        compare_only)
            if differ and compare_only:
                return True
        return differ

    def backward(self, Tape tape not None, dy, dh, dc, bint input_gradient, bint batch_first, int most):
        """Gradients of x, of the initial h and c, and of the weights in the order of the addresses, all new, with the
        weights that forward had; or None where the tape is spent: forward has to run again.

        dy : as y came out, or None for zeros; dh, dc likewise. The gradient of x is None without `input_gradient`.
        """
        cdef Work work
        with cython.critical_section(tape):
            work, tape.work = tape.work, None
        if work is None:
            return None
        cdef Steps* s = &work.plan.steps
        cdef Backward* call = &work.backward
        cdef bint packed = work.forward.packed
        cdef Py_ssize_t width = self.num_directions * self.h_size, item = self.item, I = self.input_size
        cdef int members = team_size(s, work.directions, self.num_layers * self.num_directions, self.num_directions,
                                     work.k.f64.lanes if work.doubles else work.k.f32.lanes, False, most)
        if members > work.members:
            work.lay_out_backward(work.weights, members)
        if dy is None:
            dy = self.empty(s.T, s.B, width) if not packed else numpy.empty((s.N, width), self.dtype)
            dy.fill(0)
        cdef np.ndarray array = self.float_array("dy", dy), dx = None
        call.record, call.packed = work.forward.record, packed
        call.dy, call.dy_row = np.PyArray_DATA(array), np.PyArray_STRIDE(array, not packed) // item
        call.dy_step = np.PyArray_STRIDE(array, 0) // item
        if packed:
            call.dy_row = np.PyArray_STRIDE(array, 0) // item
        dh, dc = self._state(dh, s.B, self.h_size), self._state(dc, s.B, self.hidden_size)
        call.dhn = np.PyArray_DATA(<np.ndarray>dh) if dh is not None else NULL
        call.dcn = np.PyArray_DATA(<np.ndarray>dc) if dc is not None else NULL
        cdef np.ndarray dh0 = self.empty(self.num_layers * self.num_directions, s.B, self.h_size)
        cdef np.ndarray dc0 = self.empty(self.num_layers * self.num_directions, s.B, self.hidden_size)
        call.dh0, call.dc0, call.dx = np.PyArray_DATA(dh0), np.PyArray_DATA(dc0), NULL
        if input_gradient:
            dx = numpy.empty((s.N, I), self.dtype) if packed else self.empty(s.T, s.B, I)
            call.dx, call.dx_row, call.dx_step = np.PyArray_DATA(dx), I, s.B * I
        cdef Py_ssize_t size = self.parameters.size, count = self.num_layers * self.num_directions
        cdef np.npy_intp length = size + self.bias * 4 * self.hidden_size * count
        cdef np.ndarray flat = np.PyArray_EMPTY(1, &length, self.type_number, 0)
        call.dflat = np.PyArray_DATA(flat)
        work.weights.most = most
        work.take_backward_forms(work.weights, work.backward_fits(), input_gradient)
        cdef Interrupt interrupt
        begin(&interrupt)
        call.interrupt, work.spent = &interrupt, True
        with nogil:
            run_network_backward(call, work.doubles, members)
        finish(&interrupt)
        if dx is not None and batch_first and not packed:
            dx = dx.swapaxes(0, 1)
        gradients = self._views(work.directions, flat, size)
        self.shelf.put(work)
        return dx, dh0, dc0, gradients

    cdef list _views(self, const Direction* directions, np.ndarray flat, Py_ssize_t end):
        """The flat gradients cut into those of each weight; the two biases, which are always added, have equal ones."""
        cdef Py_ssize_t G = 4 * self.hidden_size, item = self.item, n
        cdef char* data = <char*>np.PyArray_DATA(flat)
        cdef list views = []
        for n in range(self.num_layers * self.num_directions):
            views.append(self._view(flat, directions[n].at_W, G, directions[n].I))
            views.append(self._view(flat, directions[n].at_R, G, self.h_size))
            if self.bias:
                memcpy(data + end * item, data + directions[n].at_b * item, G * item)
                views.append(self._view(flat, directions[n].at_b, G, 0))
                views.append(self._view(flat, end, G, 0))
                end += G
            if directions[n].at_proj >= 0:
                views.append(self._view(flat, directions[n].at_proj, self.h_size, self.hidden_size))
        return views

    cdef np.ndarray _view(self, np.ndarray flat, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t columns):
        cdef np.npy_intp shape[2]
        shape[0], shape[1] = rows, columns
        cdef np.ndarray view = np.PyArray_SimpleNewFromData(2 if columns else 1, shape, self.type_number,
                                                            <char*>np.PyArray_DATA(flat) + start * self.item)
        np.set_array_base(view, flat)
        return view


def _nothing():
    """What a copy of a module's layer is."""


cdef const char* address(addresses, Py_ssize_t n) except NULL:
    return <const char*><uintptr_t>addresses[n]


def packed_lengths(const int64_t[::1] sizes, Py_ssize_t N):
    """int64 (B,) steps of each row, longest first, from the numbers of rows alive at each step; None where they are not
    those of N packed rows."""
    cdef Py_ssize_t t, b = 0, total = 0, T = sizes.shape[0]
    cdef int64_t last = sizes[0] if T > 0 else 0
    for t in range(T):
        if not 0 < sizes[t] <= last:
            return None
        last = sizes[t]
        total += last
    if T == 0 or total != N:
        return None
    lengths = numpy.empty(sizes[0], numpy.int64)
    cdef int64_t[::1] out = lengths
    for t in range(T - 1, -1, -1):
        while b < sizes[t]:
            out[b] = t + 1
            b += 1
    return lengths


cdef bint copy_values(char* to, const char* values, Py_ssize_t size, bint compare_only) noexcept nogil:
    """Whether they differ, bit by bit; to = values unless `compare_only`."""
    if memcmp(to, values, size) == 0:
        return False
    if not compare_only:
        memcpy(to, values, size)
    return True


cdef bint copy_sums(real* to, const real* a, const real* b, Py_ssize_t n, bint compare_only) noexcept nogil:
    """The same with the values a + b."""
    cdef Py_ssize_t j
    cdef real total
    cdef bint differ = False
    for j in range(n):
        total = a[j] + b[j]
        if memcmp(&total, &to[j], sizeof(real)) != 0:
            differ = True
            if not compare_only:
                to[j] = total
    return differ


cdef void add_and_pack(const Kernels* k, const Direction* direction, const real* a, const real* b,
                       real* target) noexcept nogil:
    """a + b in panels, at the start of target; behind them is room for the sums."""
    cdef Py_ssize_t j, lanes = k.f32.lanes if real is float else k.f64.lanes
    cdef real* sums = target + 4 * direction.Hp
    for j in range(4 * direction.H):
        sums[j] = a[j] + b[j]
    for j in range(direction.Hp // lanes):
        pack_gates(k, PANELS, sums, direction.H, 1, j, target + j * 4 * lanes)
