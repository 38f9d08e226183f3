"""One direction of one layer over all steps, forward. Boundaries, slots and packed rows are explained in ragged.pxd,
members in team.pxd.

Every function is called by all members of a team at once and does its member's part.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from cylstm._core.direction cimport (
    Direction, Factor, Inputs, Outputs, Scratch, by_gates, gate_bytes, norm_of, step_beats, step_of,
)
from cylstm._core.highway cimport shares_of_h
from cylstm._core.interrupt cimport goes_on
from cylstm._core.kernels cimport (
    PANELS, Kernels, Norm, Step, cell_forward, gather, left_bytes, norm_forward, norm_gates, pack_left,
    packs_left, part_gates, product, real, zone_row,
)
from cylstm._core.ragged cimport Steps, is_cut, offset, slot
from cylstm._core.packed_rows cimport carry, copy_outputs, copy_uncut, has_cut, pack_inputs
from cylstm._core.team cimport Member, last_alive, meet_by_units, part, tiles_before

# The gates' share of x is computed for several steps by one product, before these steps run: of so many rows, for which
# weights that no cache holds are then read once. Where the first-level cache holds them, of fewer: fresh memory for the
# gates of many rows costs a first call more than the product.
cdef enum:
    INPUT_GATES_ROWS = 256
    FEW_GATES_ROWS = 64
    SMALL_INPUT_WEIGHTS = 32768  # bytes


cdef Py_ssize_t rows_at_once(const Steps* s, Py_ssize_t I, Py_ssize_t row_bytes) noexcept nogil:
    """How many packed rows of gates, of so many bytes, one product of I inputs makes: whole steps where all rows are
    alive."""
    cdef Py_ssize_t rows = FEW_GATES_ROWS if I * row_bytes <= SMALL_INPUT_WEIGHTS else INPUT_GATES_ROWS
    return min(s.N, max(s.B, rows // s.B * s.B))


cdef void run_forward(const Kernels* k, const Steps* s, const Direction* direction, bint reverse, bint keep,
                      const Member* who, const Member* of_h, const Scratch* scratch, const Inputs* inputs,
                      const Outputs* outputs, Py_ssize_t beat, real* gates, real* u, real* fresh, real* shares,
                      real* h, real* c) noexcept nogil:
    """Gates, h and c of every step; with a projection u = o tanh(c), with zoneout the fresh c, with a highway shares
    of h in the outputs as well. Boundary 0 (or each row's last one, in reverse) of h and c holds the initial state.
    beat: of the first step (interrupt.pxd). of_h: the same member's share of h.

    Without `keep`, gates holds one chunk and c one boundary, both used again and again, as u, fresh and shares one
    step.
    """
    cdef Py_ssize_t Hp = direction.Hp, G = 4 * direction.Hp, T = s.T, t0, t1, t, n, first, source, target, rows, gate
    cdef Py_ssize_t Y = direction.Y, Yp = direction.Yp, done = 0, at
    cdef Py_ssize_t steps = max(1, rows_at_once(s, direction.I, G * <Py_ssize_t>sizeof(real)) // s.B)
    cdef Py_ssize_t row = who.first_row, every = step_beats(s, direction)
    cdef const real* c_prev
    cdef real* chunk
    cdef real* share = NULL
    cdef bint cut, normed = direction.at_norm_x >= 0
    cdef bint more = (direction.at_proj >= 0 or normed or direction.zone_c > 0 or direction.zone_h > 0
                      or by_gates(direction))
    cdef Norm norm
    cdef Step step = step_of(direction, who, gates)
    step.kept = keep
    if who.by_rows:
        steps = 1  # the rows of one member lie together only within a step
    while done < T:
        t0 = max(0, T - done - steps) if reverse else done
        t1 = T - done if reverse else min(T, done + steps)
        first = offset(s, t0) + row
        chunk = gates + first * G if keep else gates + row * G
        rows = last_alive(s, who, t0) - row if who.by_rows else offset(s, t1) - first
        if normed:
            norm = norm_of(direction, gates, first if keep else row, row)
            input_gates(k, s, direction, who, scratch, inputs, t0, t1, rows, <real*>norm.x)
            norm_gates(k, rows, direction.H, norm.eps, <const real*>norm.x_gain, <const real*>norm.bias,
                       <const real*>norm.x, <real*>norm.x, <real*>norm.moments, 0, chunk)
        else:
            input_gates(k, s, direction, who, scratch, inputs, t0, t1, rows, chunk)
        for n in range(t1 - t0):
            if not goes_on(who.interrupt, who.me, beat + done + n, every):
                return
            t = t1 - 1 - n if reverse else t0 + n
            source, target = slot(s, t + 1 if reverse else t) + row, slot(s, t if reverse else t + 1) + row
            rows = last_alive(s, who, t) - row
            cut = has_cut(s, t, reverse)
            step.h_prev = carry(k, s, t, reverse, cut, direction.R.form, of_h, of_h.first, of_h.last, Y, Yp,
                                h + (source - row) * Yp, <const real*>direction.mask, <const real*>direction.h0.packed,
                                <char*>scratch.carried[(done + n) % 2], <real*>scratch.rows)
            for gate in range(1, 4 if by_gates(direction) else 1):
                carry(k, s, t, reverse, cut, direction.R.form, of_h, of_h.first, of_h.last, Y, Yp,
                      h + (source - row) * Yp, <const real*>direction.mask + gate * s.B * Y,
                      <const real*>direction.h0.packed,
                      <char*>scratch.carried[(done + n) % 2] + gate * scratch.apart_bytes, <real*>scratch.rows)
            c_prev = c + source * Hp if keep else c + row * Hp
            if cut:
                copy_uncut(s, t, reverse, who, who.first, who.last, Hp, c_prev - row * Hp,
                           <const real*>direction.c0.packed, <real*>scratch.states)
                c_prev = <real*>scratch.states + row * Hp
            meet_by_units(who)
            step.B, step.c_prev, step.gates = rows, c_prev, chunk + (offset(s, t) + row - first) * G
            step.c, step.h = c + target * Hp if keep else c + row * Hp, h + target * Yp
            if more:
                if normed:
                    at = offset(s, t) + row
                    norm = norm_of(direction, gates, at if keep else at + row - first, row)
                step_with_more(k, s, direction, reverse, t, who, of_h, scratch, &norm, &step,
                               u + offset(s, t) * Hp if keep else u, fresh + offset(s, t) * Hp if keep else fresh,
                               h + (source - row) * Yp, h + (target - row) * Yp,
                               c + (source - row) * Hp if keep else c, c + (target - row) * Hp if keep else c)
            else:
                cell_forward(k, real is double, &step)
            if direction.at_highway >= 0:
                at = offset(s, t) + row
                share = shares + (at if keep else row) * Yp
                shares_of_h(k, direction, of_h, rows, <const real*>inputs.packed + at * inputs.ld, inputs.ld, share)
            if outputs.y != NULL:
                copy_outputs(s, t, of_h, Y, Yp, h + target * Yp, <const real*>share, outputs)
        done += t1 - t0


cdef void step_with_more(const Kernels* k, const Steps* s, const Direction* direction, bint reverse, Py_ssize_t t,
                         const Member* who, const Member* of_h, const Scratch* scratch, const Norm* norm, Step* step,
                         real* u, real* fresh, const real* h_before, real* h_after, const real* c_before,
                         real* c_after) noexcept nogil:
    """One step of a cell with layer norms, a projection, zoneout or a mask of h for each gate. u, fresh, and h and c
    before and after it: of the batch's first row."""
    cdef Py_ssize_t Hp = direction.Hp, Yp = direction.Yp, row = who.first_row
    if direction.at_proj >= 0:
        step.h = u + row * Hp
    if direction.zone_c > 0:
        step.c = fresh + row * Hp
    if direction.at_norm_x >= 0:
        recurrent_rows(k, s, direction, who, scratch, step, <const real*>direction.b.packed,  # which is 0
                       <real*>norm.product)
        norm_forward(k, real is double, step, norm)
    elif by_gates(direction):
        recurrent_rows(k, s, direction, who, scratch, step, <const real*>NULL, <real*>step.gates)
        step.Y, step.form = 0, PANELS  # nothing is left to be added
        cell_forward(k, real is double, step)
        step.Y, step.form = direction.Y, direction.R.form
    else:
        cell_forward(k, real is double, step)
    if direction.at_proj >= 0:
        project(k, &direction.proj, who, of_h.first, of_h.last, step.B, direction.H, <const real*>step.h, Hp, Yp,
                h_after + row * Yp)
    if direction.proj_clip > 0:
        clip_rows(s, t, of_h, Yp, direction.proj_clip, h_after)
    if direction.zone_c > 0:
        zone_out(k, s, t, reverse, who, direction.H, Hp, direction.zone_c, direction.new_c, c_before,
                 <const real*>direction.c0.packed, fresh, c_after)
    if direction.zone_h > 0:
        zone_out(k, s, t, reverse, of_h, direction.Y, Yp, direction.zone_h, direction.new_h, h_before,
                 <const real*>direction.h0.packed, h_after, h_after)


cdef void clip_rows(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t width, double most,
                    real* rows) noexcept nogil:
    """-most <= rows <= most, this member's units of its rows alive at step t; what is no number stays so."""
    cdef Py_ssize_t b, j
    cdef real high = <real>most, low = -high
    for b in range(who.first_row, last_alive(s, who, t)):
        for j in range(b * width + who.first, b * width + who.last):
            rows[j] = high if rows[j] > high else low if rows[j] < low else rows[j]


cdef void zone_out(const Kernels* k, const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t H,
                   Py_ssize_t width, double share, const uint8_t* new, const real* before, const real* anew,
                   const real* fresh, real* after) noexcept nogil:
    """after = what step t has made, `fresh`, where `new` (N, H) says so, and elsewhere what it began with, zeros for
    NULL; where `new` is NULL, the mean of both, with this share of the latter. after may be fresh or before."""
    cdef Py_ssize_t b, at, n = min(who.last, H) - who.first
    cdef const uint8_t* taken = NULL
    cdef const real* old
    for b in range(who.first_row, last_alive(s, who, t)):
        at = b * width + who.first
        old = before + at
        if is_cut(s, t + 1 if reverse else t, b):
            old = anew + who.first if anew != NULL else NULL
        if new != NULL:
            taken = new + (offset(s, t) + b) * H + who.first
        zone_row(k, n, share, taken, old, fresh + at, after + at)


cdef void project(const Kernels* k, const Factor* factor, const Member* who, Py_ssize_t first, Py_ssize_t last,
                  Py_ssize_t rows, Py_ssize_t K, const real* left, Py_ssize_t ld, Py_ssize_t width,
                  real* out) noexcept nogil:
    """out (rows, width) = left (rows, K), `ld` apart, by a projection's factor: the columns first..last, once all
    members have made their part of `left`. Forward h = u R_p', backward du = dh R_p."""
    cdef Py_ssize_t b
    meet_by_units(who)
    for b in range(rows):
        memset(out + b * width + first, 0, (last - first) * sizeof(real))
    product(k, factor.form, rows, K, width, first, last, left, ld, factor.packed, <const real*>NULL, out, width)


cdef void recurrent_rows(const Kernels* k, const Steps* s, const Direction* direction, const Member* who,
                         const Scratch* scratch, const Step* step, const real* bias, real* out) noexcept nogil:
    """out (rows, 4Hp) = bias + h_prev R', or += h_prev R' for NULL, in this member's units. Of each gate's own h_prev
    where they have masks of their own: by way of rows gate by gate, whose products are as wide as can be."""
    cdef Py_ssize_t G = 4 * direction.Hp, Hp = direction.Hp, Yp = direction.Yp, gate, apart = s.B * Hp
    cdef const Factor* R = &direction.R
    cdef Py_ssize_t factor = gate_bytes(direction, R.form, False, sizeof(real))
    cdef real* rows = <real*>scratch.apart + who.first_row * Hp
    if not by_gates(direction):
        product(k, R.form, step.B, direction.Y, R.columns, 4 * who.first, 4 * who.last, step.h_prev, Yp, R.packed,
                bias, out, G)
        return
    if bias == NULL:
        part_gates(k, False, step.B, direction.H, who.first, who.last, out, rows, apart)
    for gate in range(4):
        product(k, R.form, step.B, direction.Y, Hp, who.first, who.last,
                <const char*>step.h_prev + gate * scratch.apart_bytes, Yp, <const char*>R.packed + gate * factor, bias,
                rows + gate * apart, Hp)
    part_gates(k, True, step.B, direction.H, who.first, who.last, out, rows, apart)


cdef void input_gates(const Kernels* k, const Steps* s, const Direction* direction, const Member* who,
                      const Scratch* scratch, const Inputs* inputs, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t rows,
                      real* gates) noexcept nogil:
    """gates (rows, 4Hp) = x W' + b in this member's units, for the steps t0..t1-1."""
    cdef Py_ssize_t G = 4 * direction.Hp, blocks, first = 0, last = rows
    cdef bint packs = packs_left(direction.W.form)
    cdef Py_ssize_t packed = offset(s, t0) + who.first_row
    cdef real* x
    cdef const void* left
    cdef char* own
    if inputs.ids != NULL:
        gather(k, direction.W.form, rows, direction.H, direction.I, who.first, who.last, inputs.ids + packed,
               direction.W.packed, <const real*>direction.b.packed, gates)
        return
    if inputs.caller == NULL or inputs.whole:
        x = <real*>inputs.packed + packed * inputs.ld
    else:
        x = <real*>inputs.packed + who.first_row * inputs.ld
    left = x
    if not who.by_rows and (packs or inputs.caller != NULL):
        blocks = (rows + 15) // 16
        first, last = 16 * part(blocks, who.me, who.count), min(rows, 16 * part(blocks, who.me + 1, who.count))
    if inputs.caller != NULL:
        pack_inputs(s, inputs, t0, t1, packed + first, packed + last, direction.I, x + first * inputs.ld)
    if packs:
        left = own = <char*>scratch.inputs + 16 * tiles_before(who) * scratch.input_bytes
        pack_left(k, direction.W.form, False, last - first, direction.I, 0, direction.I, x + first * inputs.ld,
                  inputs.ld, 0, own + left_bytes(direction.W.form, first, direction.I))
    if packs or inputs.caller != NULL:
        meet_by_units(who)
    product(k, direction.W.form, rows, direction.I, direction.W.columns, 4 * who.first, 4 * who.last,
            left, inputs.ld, direction.W.packed, <const real*>direction.b.packed, gates, G)
