"""The LSTM over whole sequences: packed weights, the forward loop with its tape, and BPTT over the same buffers.

The hot path: forward() and backward() at the end of this file walk over layers and directions, run_forward() and
run_backward() in _sequence.pyx over steps, and each step is one call into cext/cell_body.h.
"""

import numpy as np

from libc.stdint cimport int64_t
from libc.string cimport memset

from cylstm._kernels cimport Kernels, active, pack_columns, pack_gates, product, real
from cylstm._sequence cimport (
    CHUNK_BYTES, Cell, add_outputs, add_states, copy_outputs, fetch_states, multiply_rows, place_states, run_backward,
    run_forward, weight_gradients,
)
from cylstm._steps cimport Plan, Steps

from cylstm.params import aligned_empty


cdef class Weights:
    """All weights of a network packed for one instruction set, as cext/kernels.h shows."""

    cdef const Kernels* k
    cdef Cell[::1] cells      # (L*D,)
    cdef readonly Py_ssize_t L, D, H, Hp
    cdef readonly object dtype, buffer
    cdef readonly Py_ssize_t users  # calls that compute with these weights now
    cdef Py_ssize_t forward_size
    cdef bint has_columns

    def __init__(self, Py_ssize_t I, Py_ssize_t H, Py_ssize_t L, Py_ssize_t D, bint bias, dtype):
        self.k = active()
        self.dtype = np.dtype(dtype)
        self.L, self.D, self.H = L, D, H
        cdef Py_ssize_t lanes = self.k.f32.lanes if self.dtype == np.float32 else self.k.f64.lanes
        cdef Py_ssize_t flat = 0, packed = 0, n, G
        cdef Cell cell
        self.Hp = (H + lanes - 1) // lanes * lanes
        G = 4 * self.Hp
        self.cells = np.empty(L * D * sizeof(Cell), np.uint8).view(CELL_DTYPE)
        for n in range(L * D):
            cell.I = I if n < D else D * H
            cell.H, cell.Hp, cell.Ip = H, self.Hp, (cell.I + lanes - 1) // lanes * lanes
            cell.W, cell.R, cell.b = flat, flat + 4 * H * cell.I, -1
            flat += 4 * H * (cell.I + H)
            if bias:
                cell.b = flat
                flat += 4 * H
            cell.W_panels, cell.R_panels, cell.b_panels = packed, packed + G * cell.I, packed + G * (cell.I + H)
            packed += G * (cell.I + H + 1)
            self.cells[n] = cell
        self.forward_size = packed
        for n in range(L * D):
            self.cells[n].W_columns, self.cells[n].R_columns = packed, packed + G * self.cells[n].Ip
            packed += G * (self.cells[n].Ip + self.Hp)
        self.buffer = aligned_empty(packed, dtype)
        self.has_columns = False

    def current(self):
        """Whether these were packed for the instruction set in use."""
        return self.k == active()

    def pack(self, flat):
        """Pack the parameters (one flat buffer); what only backward needs follows when backward asks for it."""
        self._pack_into(self.buffer, flat)
        self.has_columns = False

    def holds(self, flat):
        """Whether packing these parameters would change nothing."""
        again = aligned_empty(self.forward_size, self.dtype)
        self._pack_into(again, flat)
        return bool((again.view(np.uint8) == self.buffer[:self.forward_size].view(np.uint8)).all())

    cdef _pack_into(self, buffer, flat):
        if self.dtype == np.float32:
            pack_forward[float](self, buffer, flat)
        else:
            pack_forward[double](self, buffer, flat)

    def pack_for_backward(self, flat):
        """Pack what backward needs, once after each pack()."""
        if self.has_columns:
            return
        if self.dtype == np.float32:
            pack_backward[float](self, flat)
        else:
            pack_backward[double](self, flat)
        self.has_columns = True


CELL_DTYPE = np.dtype([(name, np.intp) for name in (
    "I", "H", "Hp", "Ip", "W", "R", "b", "W_panels", "R_panels", "b_panels", "W_columns", "R_columns")])


cdef void pack_forward(Weights weights, real[::1] packed, const real[::1] flat):
    cdef real* P = &packed[0]
    cdef const real* p = &flat[0]
    cdef const Kernels* k = weights.k
    cdef Py_ssize_t n
    cdef Cell* cell
    for n in range(weights.cells.shape[0]):
        cell = &weights.cells[n]
        pack_gates(k, p + cell.W, cell.H, cell.I, P + cell.W_panels)
        pack_gates(k, p + cell.R, cell.H, cell.H, P + cell.R_panels)
        if cell.b >= 0:
            pack_gates(k, p + cell.b, cell.H, 1, P + cell.b_panels)
        else:
            memset(P + cell.b_panels, 0, 4 * cell.Hp * sizeof(real))


cdef void pack_backward(Weights weights, const real[::1] flat):
    cdef real[::1] packed = weights.buffer
    cdef real* P = &packed[0]
    cdef const real* p = &flat[0]
    cdef Py_ssize_t n
    cdef Cell* cell
    for n in range(weights.cells.shape[0]):
        cell = &weights.cells[n]
        pack_columns(weights.k, p + cell.W, cell.H, cell.I, P + cell.W_columns)
        pack_columns(weights.k, p + cell.R, cell.H, cell.H, P + cell.R_columns)


cdef class Tape:
    """What one forward call leaves behind. With `keep` it holds all that backward needs; without, scratch only.

    One allocation:  gates (N, 4Hp), h (B+N, Hp), c (B+N, Hp) for each layer and direction; outputs (N, D*H) of the
    layers whose output is not simply their h; x (N, I). Without `keep`: the gates of one chunk of steps, c (B, Hp),
    and two layers' h in turn.
    """

    cdef Plan plan
    cdef readonly Weights weights
    cdef readonly object x, ids, masks, memory
    cdef readonly bint keep, joined, used
    cdef Py_ssize_t chunk_rows, gates_at, h_at, c_at, joined_at, scratch_at
    cdef object __weakref__

    def __init__(self, Weights weights, Plan plan, x, ids, masks, bint keep):
        self.weights, self.plan, self.keep, self.masks = weights, plan, keep, masks
        self.x, self.ids, self.used = x, ids, False
        # Python's integers, so that no size wraps around before numpy refuses it.
        cells = weights.L * weights.D
        B, N, G, Hp = plan.steps.B, plan.steps.N, 4 * weights.Hp, weights.Hp
        self.joined = weights.D == 2 or masks is not None
        outputs = (weights.L - 1 if keep else 1) * N * weights.D * weights.H if self.joined and weights.L > 1 else 0
        rows = N
        if not keep:
            rows = min(N, max(B, CHUNK_BYTES // (G * weights.dtype.itemsize) // B * B))
        sizes = [(cells if keep else 1) * rows * G,
                 (cells if keep else min(2, weights.L) * weights.D) * (B + N) * Hp,
                 cells * (B + N) * Hp if keep else B * Hp,
                 outputs,
                 B * (2 * Hp + G)]
        starts = [sum(sizes[:n]) for n in range(6)]
        self.memory = aligned_empty(starts[5], weights.dtype)
        self.chunk_rows = rows
        self.gates_at, self.h_at, self.c_at, self.joined_at, self.scratch_at = starts[:5]

    @property
    def nbytes(self):
        """Memory held, in bytes."""
        return self.memory.nbytes

    def take(self):
        """Mark the tape as used: its gates are about to become gradients. Raises ValueError the second time."""
        if self.used:
            raise ValueError("tape: expected a tape that no backward call has used, got one that was")
        self.used = True

    @property
    def dropout_masks(self):
        """The masks (B, T, D*H) on the outputs of layers 0..L-2, scaled by 1/(1-p); None without dropout."""
        return None if self.masks is None else [self.plan.unpack(mask) for mask in self.masks]


# --- forward ----------------------------------------------------------------------------------------------------------


def forward(Weights weights, Plan plan, x, ids, h0, c0, masks, bint keep, y, hn, cn):
    """Run all layers, without the GIL; returns the tape where `keep`.

    x (N, I) packed rows, or ids (N,) int64; h0, c0 (L*D, B, H); masks (L-1, N, D*H) or None. Into y (B, T, D*H) with
    zeros already past each row's end, hn and cn (L*D, B, H), which may be h0 and c0.
    """
    tape = Tape(weights, plan, x, ids, masks, keep)
    weights.users += 1
    try:
        if weights.dtype == np.float32:
            network_forward[float](tape, h0, c0, y, hn, cn)
        else:
            network_forward[double](tape, h0, c0, y, hn, cn)
    finally:
        weights.users -= 1
    return tape if keep else None


cdef void network_forward(Tape tape, const real[:, :, ::1] h0, const real[:, :, ::1] c0, real[:, :, ::1] y,
                          real[:, :, ::1] hn, real[:, :, ::1] cn):
    cdef Weights weights = tape.weights
    cdef real[::1] memory = tape.memory
    cdef const real[::1] packed = weights.buffer
    cdef const real[:, ::1] x = tape.x
    cdef const int64_t[::1] ids = tape.ids
    cdef const real[:, :, ::1] masks = tape.masks
    cdef const Steps* s = &tape.plan.steps
    cdef const Kernels* k = weights.k
    cdef Py_ssize_t L = weights.L, D = weights.D, H = weights.H, Hp = weights.Hp, DH = D * H, l, d, n, ld_input = 0
    cdef bint keep = tape.keep, joined = tape.joined
    cdef real* m = &memory[0]
    cdef const real* P = &packed[0]
    cdef const real* inputs = NULL
    cdef const int64_t* first_ids = NULL
    cdef Cell* cell
    cdef real* h
    cdef real* c
    cdef real* outputs
    if ids is None:
        inputs, ld_input = &x[0, 0], x.shape[1]
    else:
        first_ids = &ids[0]
    with nogil:
        for l in range(L):
            for d in range(D):
                n = l * D + d
                cell = &weights.cells[n]
                h, c = hidden(tape, m, n), cells(tape, m, n)
                place_states(s, d, False, H, Hp, &h0[n, 0, 0], h)
                place_states(s, d, not keep, H, Hp, &c0[n, 0, 0], c)
                run_forward(k, s, cell, d, keep, tape.chunk_rows, P, inputs, ld_input, first_ids, gates(tape, m, n),
                            h, c, m + tape.scratch_at)
                fetch_states(s, d, False, False, H, Hp, h, &hn[n, 0, 0])
                fetch_states(s, d, False, not keep, H, Hp, c, &cn[n, 0, 0])
            first_ids = NULL
            if l == L - 1:
                for d in range(D):
                    copy_outputs(s, d, False, H, Hp, hidden(tape, m, l * D + d), &y[0, 0, 0] + d * H, s.T * DH, DH)
            elif joined:
                outputs = joined_outputs(tape, m, l)
                for d in range(D):
                    copy_outputs(s, d, True, H, Hp, hidden(tape, m, l * D + d), outputs + d * H, DH, 0)
                if masks is not None:
                    multiply_rows(s.N, DH, outputs, DH, &masks[l, 0, 0])
                inputs, ld_input = outputs, DH
            else:
                inputs, ld_input = hidden(tape, m, l) + s.B * Hp, Hp


# Where the tape keeps what belongs to layer and direction n; without `keep`, where the scratch for it lies.

cdef inline real* gates(Tape tape, real* m, Py_ssize_t n) noexcept nogil:
    return m + tape.gates_at + (n * tape.plan.steps.N * 4 * tape.weights.Hp if tape.keep else 0)

cdef inline real* hidden(Tape tape, real* m, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t block = (tape.plan.steps.B + tape.plan.steps.N) * tape.weights.Hp
    return m + tape.h_at + (n if tape.keep else n % (2 * tape.weights.D)) * block

cdef inline real* cells(Tape tape, real* m, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t block = (tape.plan.steps.B + tape.plan.steps.N) * tape.weights.Hp
    return m + tape.c_at + (n * block if tape.keep else 0)

cdef inline real* joined_outputs(Tape tape, real* m, Py_ssize_t l) noexcept nogil:
    return m + tape.joined_at + (l * tape.plan.steps.N * tape.weights.D * tape.weights.H if tape.keep else 0)


# --- backward ---------------------------------------------------------------------------------------------------------


def backward(Tape tape, dy, dhn, dcn, dh0, dc0, dflat):
    """BPTT through all layers, without the GIL; returns d loss / d x (N, I) packed, or None where ids went in.

    dy (B, T, D*H); dhn, dcn (L*D, B, H) or None; into dh0, dc0 (L*D, B, H) and dflat, the flat gradient buffer.
    Ends the tape: its gates become gradients.
    """
    tape.take()
    cdef Weights weights = tape.weights
    # Python's integers, so that no size wraps around before numpy refuses it.
    B, N, Hp, G = tape.plan.steps.B, tape.plan.steps.N, weights.Hp, 4 * weights.Hp
    widest = max([weights.cells[n].Ip for n in range(weights.L * weights.D)])
    first = weights.cells[0].Ip if tape.ids is None else 0
    later = weights.cells[weights.D].Ip if weights.L > 1 else 0
    sizes = [(B + N) * Hp, B * Hp, N * Hp, G * max(widest, Hp), N * first, N * later, N * later if weights.L > 2 else 0]
    starts = np.array([sum(sizes[:n]) for n in range(len(sizes) + 1)], np.intp)
    scratch = aligned_empty(sum(sizes), weights.dtype)
    dx = None
    if tape.ids is None:
        dx = scratch[starts[4]:starts[5]].reshape(N, first)
    weights.users += 1
    try:
        if weights.dtype == np.float32:
            network_backward[float](tape, scratch, starts, dy, dhn, dcn, dh0, dc0, dflat)
        else:
            network_backward[double](tape, scratch, starts, dy, dhn, dcn, dh0, dc0, dflat)
    finally:
        weights.users -= 1
    return None if dx is None else dx[:, :weights.cells[0].I]


cdef void network_backward(Tape tape, real[::1] scratch, const Py_ssize_t[::1] starts, const real[:, :, ::1] dy,
                           const real[:, :, ::1] dhn, const real[:, :, ::1] dcn, real[:, :, ::1] dh0,
                           real[:, :, ::1] dc0, real[::1] dflat):
    cdef Weights weights = tape.weights
    cdef real[::1] memory = tape.memory
    cdef const real[::1] packed = weights.buffer
    cdef const real[:, ::1] x = tape.x
    cdef const int64_t[::1] ids = tape.ids
    cdef const real[:, :, ::1] masks = tape.masks
    cdef const Steps* s = &tape.plan.steps
    cdef const Kernels* k = weights.k
    cdef Py_ssize_t L = weights.L, D = weights.D, H = weights.H, Hp = weights.Hp, G = 4 * weights.Hp, DH = D * H
    cdef Py_ssize_t l, d, n, ld_input, ld_above = 0
    cdef real* m = &memory[0]
    cdef const real* P = &packed[0]
    cdef real* dh = &scratch[0]
    cdef real* dc = dh + starts[1]
    cdef const int64_t* first_ids
    cdef const real* inputs
    cdef real* dinputs
    cdef real* dabove = NULL
    cdef Cell* cell
    with nogil:
        for l in range(L - 1, -1, -1):
            inputs, ld_input, first_ids, dinputs = NULL, 0, NULL, NULL
            if l > 0:
                # Two buffers in turn: what comes from the layer above is read while this layer's is written.
                dinputs = dh + starts[5 + l % 2 if L > 2 else 5]
                if tape.joined:
                    inputs, ld_input = joined_outputs(tape, m, l - 1), DH
                else:
                    inputs, ld_input = hidden(tape, m, l - 1) + s.B * Hp, Hp
            elif ids is None:
                dinputs = dh + starts[4]
                inputs, ld_input = &x[0, 0], x.shape[1]
            else:
                first_ids = &ids[0]
            cell = &weights.cells[l * D]
            if dinputs != NULL:
                memset(dinputs, 0, s.N * cell.Ip * sizeof(real))
            for d in range(D):
                n = l * D + d
                cell = &weights.cells[n]
                memset(dh, 0, (s.B + s.N) * Hp * sizeof(real))
                if l == L - 1:
                    add_outputs(s, d, False, H, Hp, &dy[0, 0, 0] + d * H, s.T * DH, DH, dh)
                else:
                    add_outputs(s, d, True, H, Hp, <const real*>dabove + d * H, ld_above, 0, dh)
                if dhn is not None:
                    add_states(s, d, H, Hp, &dhn[n, 0, 0], dh)
                if dcn is not None:
                    place_states(s, d, True, H, Hp, &dcn[n, 0, 0], dc)
                else:
                    memset(dc, 0, s.B * Hp * sizeof(real))
                run_backward(k, s, cell, d, P, gates(tape, m, n), cells(tape, m, n), dh, dc, m + tape.scratch_at)
                fetch_states(s, d, True, False, H, Hp, dh, &dh0[n, 0, 0])
                fetch_states(s, d, True, True, H, Hp, dc, &dc0[n, 0, 0])
                weight_gradients(k, s, cell, d, gates(tape, m, n), inputs, ld_input, first_ids, hidden(tape, m, n),
                                 dh + starts[2], dh + starts[3], &dflat[0])
                if dinputs != NULL:
                    product(k, s.N, G, cell.Ip, gates(tape, m, n), G, P + cell.W_columns, <const real*>NULL, dinputs,
                            cell.Ip)
            if l > 0 and masks is not None:
                multiply_rows(s.N, DH, dinputs, cell.Ip, &masks[l - 1, 0, 0])
            dabove, ld_above = dinputs, cell.Ip
