"""The LSTM over whole sequences: the forward loop with its tape, and BPTT over the same buffers.

The hot path: forward() and backward() at the end of each half of this file start a team; forward_member() and
backward_member() walk over layers and directions, run_forward() and run_backward() in _sequence.pyx over steps, and each step
is one call into cext/cell_body.h.
"""

import numpy as np

from libc.stdint cimport int64_t
from libc.string cimport memset

from cylstm._kernels cimport Kernels, lanes_of, real, tile_bytes
from cylstm._pool cimport Team, meet, run, threads_for
from cylstm._sequence cimport (
    DX_ROWS, GRADIENT_ROWS, ROWS_EACH, Cell, Member, Scratch, add_states, best_by_rows, chunk_rows, copy_outputs,
    fetch_states, input_gradients, meet_by_units, member_by_rows, member_by_units, place_states, run_backward, run_forward,
    start_gradients, weight_gradients,
)
from cylstm._steps cimport Plan, Steps
from cylstm._weights cimport Choice, Form, Moment, Weights

from cylstm.params import aligned_empty

cdef enum:
    LINE = 64  # bytes: pieces of memory begin on a cache line


cdef class Tape:
    """What one forward call leaves behind for backward.

    One allocation:  gates (N, 4Hp), h (B+N, Hp), c (B+N, Hp) for each layer and direction, then outputs (N, D*H) of the
    layers whose output is not simply their h. Without `keep`, what serves as scratch for them: the gates of one chunk of
    steps, c (B, Hp), and two layers' h in turn.
    """

    cdef Plan plan
    cdef Choice choice
    cdef Moment moment
    cdef readonly Weights weights
    cdef readonly object x, ids, masks
    cdef object memory
    cdef readonly bint keep, joined, used
    cdef readonly Py_ssize_t nbytes  # memory held, in bytes
    cdef Py_ssize_t gates_at, h_at, c_at, joined_at, scratch_at
    cdef object __weakref__

    def __init__(self, Weights weights, Plan plan, x, ids, masks, bint keep):
        self.weights, self.plan, self.keep, self.masks = weights, plan, keep, masks
        self.moment = weights.now
        self.x, self.ids, self.used = x, ids, False
        self.choice = weights.choose(plan.steps.B, plan.steps.N)
        # Python's integers, so that no size wraps around before numpy refuses it.
        item = 4 if weights.dtype == np.float32 else 8
        cells = weights.L * weights.D
        B, N, Hp = plan.steps.B, plan.steps.N, weights.Hp
        G = 4 * Hp
        self.joined = weights.D == 2 or masks is not None
        outputs = (weights.L - 1 if keep else 1) * N * weights.D * weights.H if self.joined and weights.L > 1 else 0
        rows = chunk_rows(&plan.steps, G * item)
        self.gates_at = 0
        self.h_at = (cells * N if keep else rows) * G * item
        self.c_at = self.h_at + (cells if keep else min(2, weights.L) * weights.D) * (B + N) * Hp * item
        self.joined_at = self.c_at + (cells * (B + N) if keep else B) * Hp * item
        self.scratch_at = self.joined_at + whole_lines(outputs * item)
        self.nbytes = self.scratch_at + forward_scratch(self, item, rows)
        self.memory = weights.take_memory(self.nbytes)

    def take(self):
        """Mark the tape as used: its gates are about to become gradients. Raises ValueError the second time."""
        if self.used:
            raise ValueError("tape: expected a tape that no backward call has used, got one that was")
        self.used = True

    @property
    def dropout_masks(self):
        """The masks (B, T, D*H) on the outputs of layers 0..L-2, scaled by 1/(1-p); None without dropout."""
        return None if self.masks is None else [self.plan.unpack(mask) for mask in self.masks]


def whole_lines(size):
    """size in bytes, rounded up to whole cache lines."""
    return (size + LINE - 1) // LINE * LINE


cdef forward_scratch(Tape tape, item, rows):
    """How many bytes cut_forward_scratch() cuts."""
    B, Hp, cuts = tape.plan.steps.B, tape.weights.Hp, tape.plan.steps.cut != NULL
    size = 0
    if tape.choice.steps or cuts:
        size += 2 * carried_bytes(tape.choice.steps, B, Hp, item)
    if cuts:
        size += 2 * B * Hp * item
    if tape.choice.inputs:
        size += tile_bytes(rows + 16 * (B // ROWS_EACH + 1), max(inputs for inputs, _, _ in tape.weights.sizes))
    return size


cdef Py_ssize_t carried_bytes(bint tiled, Py_ssize_t B, Py_ssize_t width, Py_ssize_t item) noexcept nogil:
    """Room for the left operand of one step's product, (B, width). Each member that has rows begins a tile of its own."""
    return tile_bytes(B + 16 * (B // ROWS_EACH + 1), width) if tiled else B * width * item


cdef Scratch cut_forward_scratch(Tape tape, char* at, Py_ssize_t item):
    cdef Scratch scratch
    cdef Py_ssize_t B = tape.plan.steps.B, Hp = tape.weights.Hp, carried = carried_bytes(tape.choice.steps, B, Hp, item)
    memset(&scratch, 0, sizeof(Scratch))
    if tape.choice.steps or tape.plan.steps.cut != NULL:
        scratch.carried[0], scratch.carried[1] = at, at + carried
        at += 2 * carried
    if tape.plan.steps.cut != NULL:
        scratch.rows, scratch.states = at, at + B * Hp * item
        at += 2 * B * Hp * item
    scratch.inputs = at
    return scratch


# --- forward ----------------------------------------------------------------------------------------------------------

# One call, for all members of its team. Arrays are of the weights' type.
cdef struct Forward:
    const Kernels* k
    const Steps* s
    const Cell* cells
    Py_ssize_t L, D, H, Hp
    bint keep
    bint joined
    char* gates         # of layer and direction 0; the next ones follow
    char* h
    char* c
    char* outputs
    Scratch scratch
    const void* x       # (N, I) packed rows, or NULL
    const int64_t* ids  # (N,)
    const void* masks   # (L-1, N, D*H), or NULL
    const void* h0      # (L*D, B, H)
    const void* c0
    void* y             # (B, T, D*H)
    void* hn
    void* cn


def forward(Weights weights, Plan plan, x, ids, h0, c0, masks, bint keep, y, hn, cn):
    """Run all layers, without the GIL; returns the tape where `keep`.

    x (N, I) packed rows, or ids (N,) int64; h0, c0 (L*D, B, H); masks (L-1, N, D*H) or None. Into y (B, T, D*H) with
    zeros already past each row's end, hn and cn (L*D, B, H), which may be h0 and c0.
    """
    tape = Tape(weights, plan, x, ids, masks, keep)
    form = weights.form(tape.moment, tape.choice, ids is not None, False)
    if weights.dtype == np.float32:
        network_forward[float](tape, form, h0, c0, y, hn, cn)
    else:
        network_forward[double](tape, form, h0, c0, y, hn, cn)
    if keep:
        return tape
    weights.give_memory(tape.memory)
    return None


cdef void network_forward(Tape tape, Form form, const real[:, :, ::1] h0, const real[:, :, ::1] c0, real[:, :, ::1] y,
                          real[:, :, ::1] hn, real[:, :, ::1] cn):
    cdef unsigned char[::1] memory = tape.memory
    cdef char* m = <char*>&memory[0]
    cdef const real[:, ::1] x = tape.x
    cdef const int64_t[::1] ids = tape.ids
    cdef const real[:, :, ::1] masks = tape.masks
    cdef Weights weights = tape.weights
    cdef Forward call
    call.k, call.s, call.cells = weights.k, &tape.plan.steps, form.cells
    call.L, call.D, call.H, call.Hp = weights.L, weights.D, weights.H, weights.Hp
    call.keep, call.joined = tape.keep, tape.joined
    call.gates, call.h, call.c = m + tape.gates_at, m + tape.h_at, m + tape.c_at
    call.outputs = m + tape.joined_at
    call.scratch = cut_forward_scratch(tape, m + tape.scratch_at, sizeof(real))
    call.x = &x[0, 0] if ids is None else NULL
    call.ids = &ids[0] if ids is not None else NULL
    call.masks = &masks[0, 0, 0] if masks is not None else NULL
    call.h0, call.c0, call.y = &h0[0, 0, 0], &c0[0, 0, 0], &y[0, 0, 0]
    call.hn, call.cn = &hn[0, 0, 0], &cn[0, 0, 0]
    with nogil:
        run(team_size(call.s, call.cells, call.L * call.D, lanes_of(call.k, <const real*>NULL)),
            forward_f32 if real is float else forward_f64, &call)


cdef int team_size(const Steps* s, const Cell* cells, Py_ssize_t count, Py_ssize_t lanes) noexcept nogil:
    """How many threads a call is worth, by its multiply-adds."""
    cdef double work = 0, between
    cdef bint by_rows = best_by_rows(s, cells[0].H)
    cdef Py_ssize_t n
    for n in range(count):
        work += 4.0 * cells[n].H * (cells[n].I + cells[n].H) * s.N
    between = work if by_rows else 4.0 * cells[0].H * cells[0].H * s.N / s.T
    return threads_for(work, between, s.B // ROWS_EACH if by_rows else cells[0].Hp // lanes)


cdef Member member(int me, int count, Team* team, const Steps* s, Py_ssize_t H, Py_ssize_t Hp,
                   Py_ssize_t lanes) noexcept nogil:
    if best_by_rows(s, H):
        return member_by_rows(me, count, team, s, Hp)
    return member_by_units(me, count, team, s, Hp, lanes)


cdef void forward_f32(void* call, int me, int count, Team* team) noexcept nogil:
    forward_member(<const Forward*>call, me, count, team, <float*>NULL)

cdef void forward_f64(void* call, int me, int count, Team* team) noexcept nogil:
    forward_member(<const Forward*>call, me, count, team, <double*>NULL)


cdef void forward_member(const Forward* call, int me, int count, Team* team, real* of_type) noexcept nogil:
    """What one member does: all layers and directions, in its rows and units."""
    cdef const Steps* s = call.s
    cdef Member who = member(me, count, team, s, call.H, call.Hp, lanes_of(call.k, of_type))
    cdef Py_ssize_t L = call.L, D = call.D, H = call.H, Hp = call.Hp, DH = D * H, l, d, n, ld_input = call.cells[0].I
    cdef Py_ssize_t state = s.B * H, block = (s.B + s.N) * Hp
    cdef const real* inputs = <const real*>call.x
    cdef const int64_t* ids = call.ids
    cdef const real* masks = <const real*>call.masks
    cdef real* h
    cdef real* c
    cdef real* gates
    cdef real* outputs
    for l in range(L):
        outputs = <real*>call.outputs + (l * s.N * DH if call.keep else 0)
        for d in range(D):
            n = l * D + d
            gates = <real*>call.gates + (n * s.N * 4 * Hp if call.keep else 0)
            h = <real*>call.h + (n if call.keep else n % (2 * D)) * block
            c = <real*>call.c + (n * block if call.keep else 0)
            place_states(s, d, False, &who, H, Hp, <const real*>call.h0 + n * state, h)
            place_states(s, d, not call.keep, &who, H, Hp, <const real*>call.c0 + n * state, c)
            run_forward(call.k, s, &call.cells[n], d, call.keep, &who, &call.scratch, inputs, ld_input, ids, gates, h, c)
            fetch_states(s, d, False, False, &who, H, Hp, <const real*>h, <real*>call.hn + n * state)
            fetch_states(s, d, False, not call.keep, &who, H, Hp, <const real*>c, <real*>call.cn + n * state)
            if l == L - 1:
                copy_outputs(s, d, False, &who, H, Hp, <const real*>h, <real*>call.y + d * H, s.T * DH, DH,
                             <const real*>NULL, 0)
            elif call.joined:
                copy_outputs(s, d, True, &who, H, Hp, <const real*>h, outputs + d * H, DH, 0,
                             masks + l * s.N * DH + d * H if masks != NULL else <const real*>NULL, DH)
            if n < L * D - 1:
                meet_by_units(&who)
        ids = NULL
        if call.joined:
            inputs, ld_input = outputs, DH
        else:
            inputs, ld_input = h + s.B * Hp, Hp


# --- backward ---------------------------------------------------------------------------------------------------------

cdef struct Backward:
    const Kernels* k
    const Steps* s
    const Cell* cells
    Py_ssize_t L, D, H, Hp
    bint joined
    bint tiled          # the weights' gradients
    char* gates         # the tape's, as in Forward
    char* h
    char* c
    char* outputs
    void* dh            # (B+N, Hp)
    void* dc            # (B, Hp)
    void* dinputs[2]    # (N, D*Hp) of layers above the first: the one above is read while this one is written
    void* dx            # (N, Ip) of the first layer, NULL where ids went in
    Scratch scratch
    const void* x
    const int64_t* ids
    const void* masks
    const void* dy      # (B, T, D*H)
    const void* dhn     # (L*D, B, H), or NULL
    const void* dcn
    void* dh0
    void* dc0
    void* dflat


def backward(Tape tape, dy, dhn, dcn, dh0, dc0, dflat):
    """BPTT through all layers, without the GIL; returns d loss / d x (N, I) packed, or None where ids went in.

    dy (B, T, D*H); dhn, dcn (L*D, B, H) or None; into dh0, dc0 (L*D, B, H) and dflat, the flat gradient buffer.
    Ends the tape: its gates become gradients, and its memory goes to the next call.
    """
    tape.take()
    cdef Weights weights = tape.weights
    form = weights.form(tape.moment, tape.choice, tape.ids is not None, True)
    dx = None
    if tape.ids is None:
        dx = aligned_empty(tape.plan.steps.N * form.cells[0].Ip, weights.dtype).reshape(-1, form.cells[0].Ip)
    if weights.dtype == np.float32:
        network_backward[float](tape, form, dx, dy, dhn, dcn, dh0, dc0, dflat)
    else:
        network_backward[double](tape, form, dx, dy, dhn, dcn, dh0, dc0, dflat)
    weights.give_memory(tape.memory)
    tape.memory = None
    return None if dx is None else dx[:, :form.cells[0].I]


cdef backward_pieces(Tape tape, Form form, item, members):
    """Name -> bytes of each piece of scratch."""
    weights, B, N, Hp = tape.weights, tape.plan.steps.B, tape.plan.steps.N, tape.weights.Hp
    cuts, G = tape.plan.steps.cut != NULL, 4 * Hp
    widest = max(inputs for inputs, _, _ in weights.sizes)
    later = weights.sizes[weights.L * weights.D - 1][1]
    pieces = {"dh": (B + N) * Hp * item, "dc": B * Hp * item}
    for n in range(min(2, weights.L - 1)):
        pieces["dinputs", n] = N * later * item
    if tape.choice.steps or cuts:
        for n in range(2):
            pieces["carried", n] = carried_bytes(tape.choice.steps, B, G, item)
    if cuts:
        pieces["rows"] = B * G * item
        pieces["states"] = B * Hp * item
    if cuts or tape.plan.steps.sizes != NULL:
        pieces["previous"] = N * Hp * item
    pieces["wide"] = G * (1 if tape.choice.gradients else max(widest, weights.H)) * item
    pieces["columns"] = weights.sizes[0][0] * G * item if tape.ids is not None else 0
    if tape.choice.gradients:
        rows = min(N, GRADIENT_ROWS)
        pieces["x_tiles"] = tile_bytes(widest, rows)
        pieces["h_tiles"] = tile_bytes(weights.H, rows)
    own = max(tile_bytes(64, min(N, GRADIENT_ROWS)) if tape.choice.gradients else 0,
              tile_bytes(min(N, DX_ROWS), G) if tape.choice.rows else 0)
    for n in range(members):
        pieces["own", n] = own
    return pieces


cdef void network_backward(Tape tape, Form form, dx, const real[:, :, ::1] dy, const real[:, :, ::1] dhn,
                           const real[:, :, ::1] dcn, real[:, :, ::1] dh0, real[:, :, ::1] dc0, real[::1] dflat):
    cdef Weights weights = tape.weights
    cdef unsigned char[::1] memory = tape.memory
    cdef char* m = <char*>&memory[0]
    cdef const real[:, ::1] x = tape.x
    cdef const int64_t[::1] ids = tape.ids
    cdef const real[:, :, ::1] masks = tape.masks
    cdef real[:, ::1] dx_view = dx
    cdef int members = team_size(&tape.plan.steps, form.cells, weights.L * weights.D,
                                 lanes_of(weights.k, <const real*>NULL))
    cdef Backward call
    memset(&call, 0, sizeof(Backward))
    call.k, call.s, call.cells = weights.k, &tape.plan.steps, form.cells
    call.L, call.D, call.H, call.Hp = weights.L, weights.D, weights.H, weights.Hp
    call.joined, call.tiled = tape.joined, tape.choice.gradients
    call.gates, call.h, call.c = m + tape.gates_at, m + tape.h_at, m + tape.c_at
    call.outputs = m + tape.joined_at
    call.x = &x[0, 0] if ids is None else NULL
    call.ids = &ids[0] if ids is not None else NULL
    call.masks = &masks[0, 0, 0] if masks is not None else NULL
    call.dx = &dx_view[0, 0] if dx is not None else NULL
    call.dy = &dy[0, 0, 0]
    call.dhn = &dhn[0, 0, 0] if dhn is not None else NULL
    call.dcn = &dcn[0, 0, 0] if dcn is not None else NULL
    call.dh0, call.dc0, call.dflat = &dh0[0, 0, 0], &dc0[0, 0, 0], &dflat[0]
    pieces = backward_pieces(tape, form, sizeof(real), members)
    starts, total = {}, 0
    for name, size in pieces.items():
        starts[name] = total
        total += whole_lines(size)
    scratch = weights.take_memory(total)
    cdef unsigned char[::1] room = scratch
    cdef char* base = <char*>&room[0]
    place_backward(&call, base, starts, members)
    with nogil:
        run(members, backward_f32 if real is float else backward_f64, &call)
    weights.give_memory(scratch)


cdef place_backward(Backward* call, char* base, starts, int members):
    """Point the call at the pieces of its scratch; what it does not need stays NULL."""
    cdef Py_ssize_t n
    call.dh, call.dc = base + <Py_ssize_t>starts["dh"], base + <Py_ssize_t>starts["dc"]
    for n in range(2):
        if ("dinputs", n) in starts:
            call.dinputs[n] = base + <Py_ssize_t>starts["dinputs", n]
        if ("carried", n) in starts:
            call.scratch.carried[n] = base + <Py_ssize_t>starts["carried", n]
    for n in range(members):
        call.scratch.own[n] = base + <Py_ssize_t>starts["own", n]
    call.scratch.wide = base + <Py_ssize_t>starts["wide"]
    call.scratch.columns = base + <Py_ssize_t>starts["columns"]
    if "rows" in starts:
        call.scratch.rows = base + <Py_ssize_t>starts["rows"]
        call.scratch.states = base + <Py_ssize_t>starts["states"]
    if "previous" in starts:
        call.scratch.previous = base + <Py_ssize_t>starts["previous"]
    if "x_tiles" in starts:
        call.scratch.x_tiles = base + <Py_ssize_t>starts["x_tiles"]
        call.scratch.h_tiles = base + <Py_ssize_t>starts["h_tiles"]


cdef void backward_f32(void* call, int me, int count, Team* team) noexcept nogil:
    backward_member(<const Backward*>call, me, count, team, <float*>NULL)

cdef void backward_f64(void* call, int me, int count, Team* team) noexcept nogil:
    backward_member(<const Backward*>call, me, count, team, <double*>NULL)


cdef void backward_member(const Backward* call, int me, int count, Team* team, real* of_type) noexcept nogil:
    """What one member does: all layers and directions, from the last to the first, in its rows and units.

    The weights' gradients are sums over all rows: they are always shared out by units.
    """
    cdef const Steps* s = call.s
    cdef Member who = member(me, count, team, s, call.H, call.Hp, lanes_of(call.k, of_type))
    cdef Member summing = member_by_units(me, count, team, s, call.Hp, lanes_of(call.k, of_type))
    cdef Py_ssize_t L = call.L, D = call.D, H = call.H, Hp = call.Hp, DH = D * H, l, d, n, ld_input, ld_above = 0
    cdef Py_ssize_t state = s.B * H, block = (s.B + s.N) * Hp, rows = s.N * me // count, rows_end = s.N * (me + 1) // count
    cdef real* dh = <real*>call.dh
    cdef real* dc = <real*>call.dc
    cdef const real* masks = <const real*>call.masks
    cdef const real* mask
    cdef const int64_t* ids
    cdef const real* inputs
    cdef real* dinputs
    cdef real* dabove = NULL
    cdef real* gates
    cdef const real* h
    cdef const real* c
    cdef const Cell* cell
    for l in range(L - 1, -1, -1):
        cell = &call.cells[l * D]
        inputs, ld_input, ids, dinputs = NULL, cell.I, NULL, <real*>call.dinputs[(l + 1) % 2]
        if l == 0:
            inputs, ids, dinputs = <const real*>call.x, call.ids, <real*>call.dx
        elif call.joined:
            inputs, ld_input = <const real*>call.outputs + (l - 1) * s.N * DH, DH
        else:
            inputs, ld_input = <const real*>call.h + (l - 1) * block + s.B * Hp, Hp
        if dinputs != NULL:
            memset(dinputs + rows * cell.Ip, 0, (rows_end - rows) * cell.Ip * sizeof(real))
        for d in range(D):
            n = l * D + d
            cell = &call.cells[n]
            gates = <real*>call.gates + n * s.N * 4 * Hp
            h, c = <const real*>call.h + n * block, <const real*>call.c + n * block
            if l == L - 1:
                start_gradients(s, d, False, &who, H, Hp, <const real*>call.dy + d * H, s.T * DH, DH, <const real*>NULL, 0,
                                dh)
            else:
                mask = masks + l * s.N * DH + d * H if masks != NULL else NULL
                start_gradients(s, d, True, &who, H, Hp, <const real*>dabove + d * H, ld_above, 0, mask, DH, dh)
            if call.dhn != NULL:
                add_states(s, d, &who, H, Hp, <const real*>call.dhn + n * state, dh)
            if call.dcn != NULL:
                place_states(s, d, True, &who, H, Hp, <const real*>call.dcn + n * state, dc)
            else:
                clear_states(s, &who, Hp, dc)
            run_backward(call.k, s, cell, d, &who, &call.scratch, gates, c, dh, dc)
            fetch_states(s, d, True, False, &who, H, Hp, <const real*>dh, <real*>call.dh0 + n * state)
            fetch_states(s, d, True, True, &who, H, Hp, <const real*>dc, <real*>call.dc0 + n * state)
            meet(team)
            weight_gradients(call.k, s, cell, d, &summing, &call.scratch, call.tiled, <const real*>gates, inputs, ld_input, ids,
                             h, <real*>call.dflat)
            if dinputs != NULL:
                input_gradients(call.k, s, cell, &summing, &call.scratch, <const real*>gates, dinputs)
            meet(team)
        dabove, ld_above = dinputs, cell.Ip


cdef void clear_states(const Steps* s, const Member* who, Py_ssize_t Hp, real* rows) noexcept nogil:
    cdef Py_ssize_t b
    for b in range(who.first_row, who.last_row):
        memset(rows + b * Hp + who.first, 0, (who.last - who.first) * sizeof(real))
