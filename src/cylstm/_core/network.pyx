"""All layers and directions of one call: a team of threads walks over them together, each member in its rows and units.

The hot path: forward_member() and backward_member() walk over layers and directions, run_forward() and run_backward()
over steps, and each step is one call into cext/cell/lstm.h.
"""

from libc.string cimport memset

from cylstm._core.backward cimport inputs_by_steps, run_backward
from cylstm._core.direction cimport SMALL_WEIGHTS, Direction, Inputs, Outputs, member_of_h
from cylstm._core.forward cimport run_forward
from cylstm._core.gradients cimport GRADIENT_ROWS, first_state_gradients, input_gradients, weight_gradients
from cylstm._core.interrupt cimport Interrupt
from cylstm._core.kernels cimport Kernels, lanes_of, largest, real, tiles_hold
from cylstm._core.packed_rows cimport (
    FIRST, LAST, ONLY, add_states, clear_padding, fetch_states, give_input_gradients, place_states, start_gradients,
)
from cylstm._core.team cimport (
    ROWS_EACH, Member, Team, meet, meet_by_units, member_by_rows, member_by_units, part, run, threads_for,
)
from cylstm._core.ragged cimport Steps, caller_row, length

# With more weights than so many for each row, reading them takes longer than computing: members then share out units,
# so that each reads only a part of them.
cdef enum:
    WEIGHTS_A_ROW = 16384


cdef void run_network_forward(Forward* call, bint doubles) noexcept nogil:
    cdef Py_ssize_t lanes = call.k.f64.lanes if doubles else call.k.f32.lanes
    run(team_size(call.s, call.directions, call.L * call.D, call.D, lanes, call.record.inputs.ids != NULL, call.most),
        forward_f64 if doubles else forward_f32, call)


cdef void run_network_backward(Backward* call, bint doubles, int members) noexcept nogil:
    """members: team_size(), for which the scratch has room."""
    run(members, backward_f64 if doubles else backward_f32, call)


cdef bint forward_fits_tiles(const Forward* call) noexcept nogil:
    """Features of real steps and initial states: past a row's end there may be anything."""
    cdef const Inputs* inputs = &call.record.inputs
    cdef Py_ssize_t I = call.directions[0].I
    if inputs.ids == NULL and inputs.caller != NULL:
        if not rows_fit_tiles(call.k, call.s, I, <const float*>inputs.caller, inputs.row, inputs.step):
            return False
    elif inputs.ids == NULL and not tiles_hold(largest(call.k, call.s.N, I, <const float*>inputs.packed, inputs.ld)):
        return False
    return states_fit_tiles(call.k, call.L * call.D * call.s.B * call.directions[0].H, call.h0, call.c0)  # Y is H


cdef bint backward_fits_tiles(const Backward* call) noexcept nogil:
    """Gradients by outputs, of real steps, and by final states."""
    cdef Py_ssize_t H = call.directions[0].H
    if call.packed:
        if not tiles_hold(largest(call.k, call.s.N, call.D * H, <const float*>call.dy, call.dy_row)):
            return False
    elif not rows_fit_tiles(call.k, call.s, call.D * H, <const float*>call.dy, call.dy_row, call.dy_step):
        return False
    return states_fit_tiles(call.k, call.L * call.D * call.s.B * H, call.dhn, call.dcn)


cdef bint rows_fit_tiles(const Kernels* k, const Steps* s, Py_ssize_t columns, const float* rows, Py_ssize_t row,
                         Py_ssize_t step) noexcept nogil:
    cdef float most = 0
    cdef Py_ssize_t b, t
    if s.lengths == NULL and row == columns:  # time-major
        for t in range(s.T):
            most = max(most, largest(k, s.B, columns, rows + t * step, row))
    else:
        for b in range(s.B):
            most = max(most, largest(k, length(s, b), columns, rows + caller_row(s, b) * row, step))
    return tiles_hold(most)


cdef bint states_fit_tiles(const Kernels* k, Py_ssize_t size, const void* h, const void* c) noexcept nogil:
    return ((h == NULL or tiles_hold(largest(k, 1, size, <const float*>h, size)))
            and (c == NULL or tiles_hold(largest(k, 1, size, <const float*>c, size))))


cdef bint best_by_rows(const Steps* s, const Direction* directions, Py_ssize_t count, bint has_ids) noexcept nogil:
    """Whether members share out rows or units. Ids read no more of W than the rows they stand for."""
    cdef Py_ssize_t H = directions[0].H, Y = directions[0].Y, I = 0 if has_ids else directions[0].I
    if directions[0].at_norm_x >= 0:
        return True  # a row's norms are of all its units
    if count > 1:
        I = max(I, directions[count - 1].I)
    return s.B >= 2 * ROWS_EACH and 4 * H * (I + Y) <= min(<Py_ssize_t>SMALL_WEIGHTS, WEIGHTS_A_ROW * s.B)


cdef int team_size(const Steps* s, const Direction* directions, Py_ssize_t count, Py_ssize_t D, Py_ssize_t lanes,
                   bint has_ids, int most) noexcept nogil:
    """How many threads a call is worth, by its multiply-adds: `most`, or fewer."""
    cdef double work = 0, between
    cdef bint by_rows = best_by_rows(s, directions, count, has_ids)
    cdef Py_ssize_t n
    for n in range(count):
        work += 4.0 * directions[n].H * ((0 if has_ids and n < D else directions[n].I) + directions[n].Y) * s.N
    between = work if by_rows else 4.0 * directions[0].H * directions[0].Y * s.N / s.T
    return min(most, threads_for(work, between, s.B // ROWS_EACH if by_rows else directions[0].Hp // lanes))


cdef Member member(int me, int count, Team* team, Interrupt* interrupt, const Steps* s, const Direction* directions,
                   Py_ssize_t count_of_all, Py_ssize_t lanes, bint has_ids) noexcept nogil:
    if count > 1 and best_by_rows(s, directions, count_of_all, has_ids):
        return member_by_rows(me, count, team, interrupt, s, directions[0].Hp)
    return member_by_units(me, count, team, interrupt, s, directions[0].Hp, lanes)


cdef void forward_f32(void* call, int me, int count, Team* team) noexcept nogil:
    forward_member(<const Forward*>call, me, count, team, <float*>NULL)

cdef void forward_f64(void* call, int me, int count, Team* team) noexcept nogil:
    forward_member(<const Forward*>call, me, count, team, <double*>NULL)


cdef void forward_member(const Forward* call, int me, int count, Team* team, real* type_tag) noexcept nogil:
    """What one member does: all layers and directions, in its rows and units."""
    cdef const Steps* s = call.s
    cdef Steps last = s[0]
    cdef const Record* record = &call.record
    cdef Py_ssize_t L = call.L, D = call.D, H = call.directions[0].H, Hp = call.directions[0].Hp, l, d, n
    cdef Py_ssize_t Y = call.directions[0].Y, Yp = call.directions[0].Yp, DY = D * Y
    cdef Member who = member(me, count, team, call.interrupt, s, call.directions, L * D, lanes_of(call.k, type_tag),
                             record.inputs.ids != NULL)
    cdef Member of_h = member_of_h(&who, call.directions, lanes_of(call.k, type_tag))
    cdef Py_ssize_t state = s.B * H, block = s.B + s.N
    cdef bint keep = record.keep, reverse
    cdef Inputs inputs = record.inputs
    cdef Outputs outputs
    cdef const real* h0 = <const real*>call.h0
    cdef const real* c0 = <const real*>call.c0
    cdef const real* masks = <const real*>record.masks
    cdef real* h = NULL
    cdef real* c
    cdef real* gates
    cdef real* u
    cdef real* fresh
    last.two_boundaries = record.last_h != NULL
    for l in range(L):
        memset(&outputs, 0, sizeof(Outputs))
        if l < L - 1 and record.joined:
            outputs.y, outputs.packed = <real*>record.outputs + (l if keep else l % 2) * s.N * DY, True
            outputs.row, outputs.per_row = DY, record.per_row
            outputs.mask = masks + l * (s.B if record.per_row else s.N) * DY if masks != NULL else <real*>NULL
        elif l == L - 1:
            outputs.y, outputs.packed, outputs.row, outputs.step = call.y, call.packed, call.y_row, call.y_step
            s = &last
            if call.y != NULL and s.sizes != NULL and not call.packed:
                clear_padding(s, me, count, DY, call.y_row, call.y_step, <real*>call.y)
        for d in range(D):
            n, reverse = l * D + d, d == 1 or call.reverse
            gates = <real*>record.gates + (n * s.N * 4 * Hp if keep else 0)
            u = <real*>record.u + (n * s.N * Hp if keep else 0)
            fresh = <real*>record.fresh + (n * s.N * Hp if keep else 0)
            h = <real*>record.h + (n if keep else n % (2 * D)) * block * Yp
            if s.two_boundaries:
                h = <real*>record.last_h + d * 2 * s.B * Yp
            c = <real*>record.c + (n * block * Hp if keep else 0)
            place_states(s, reverse, FIRST, &of_h, Y, Yp, h0 + n * s.B * Y if h0 != NULL else NULL,
                         <const real*>call.directions[n].h0.packed, h)
            place_states(s, reverse, FIRST if keep else ONLY, &who, H, Hp, c0 + n * state if c0 != NULL else NULL,
                         <const real*>call.directions[n].c0.packed, c)
            run_forward(call.k, s, &call.directions[n], reverse, keep, &who, &of_h, &call.scratch, &inputs, &outputs,
                        n * s.T, gates, u, fresh, h, c)
            fetch_states(s, reverse, LAST, &of_h, Y, Yp, <const real*>h, <real*>call.hn + n * s.B * Y)
            fetch_states(s, reverse, LAST if keep else ONLY, &who, H, Hp, <const real*>c, <real*>call.cn + n * state)
            if outputs.y != NULL:
                outputs.y = <real*>outputs.y + Y
            if outputs.mask != NULL:
                outputs.mask = <const real*>outputs.mask + Y
            if inputs.whole:
                inputs.caller = NULL  # they are packed now
            if n < L * D - 1:
                meet_by_units(&who)
        memset(&inputs, 0, sizeof(Inputs))
        if record.joined:
            inputs.packed, inputs.ld = <real*>record.outputs + (l if keep else l % 2) * s.N * DY, DY
        else:
            inputs.packed, inputs.ld = h + s.B * Yp, Yp


# --- backward ---------------------------------------------------------------------------------------------------------

cdef void backward_f32(void* call, int me, int count, Team* team) noexcept nogil:
    backward_member(<const Backward*>call, me, count, team, <float*>NULL)

cdef void backward_f64(void* call, int me, int count, Team* team) noexcept nogil:
    backward_member(<const Backward*>call, me, count, team, <double*>NULL)


cdef void backward_member(const Backward* call, int me, int count, Team* team, real* type_tag) noexcept nogil:
    """What one member does: all layers and directions, from the last to the first, in its rows and units.

    The weights' gradients are sums over all rows: they are always shared out by units.
    """
    cdef const Steps* s = call.s
    cdef const Record* record = &call.record
    cdef Py_ssize_t D = call.D, H = call.directions[0].H, Hp = call.directions[0].Hp, l, d, n, ld_above = 0
    cdef Py_ssize_t Y = call.directions[0].Y, Yp = call.directions[0].Yp
    cdef Member who = member(me, count, team, call.interrupt, s, call.directions, call.L * D,
                             lanes_of(call.k, type_tag), record.inputs.ids != NULL)
    cdef Member of_h = member_of_h(&who, call.directions, lanes_of(call.k, type_tag))
    cdef Member summing = member_by_units(me, count, team, call.interrupt, s, Hp, lanes_of(call.k, type_tag))
    cdef Member summing_h = member_of_h(&summing, call.directions, lanes_of(call.k, type_tag))
    cdef Py_ssize_t state = s.B * H, block = s.B + s.N, rows = part(s.N, me, count)
    cdef Py_ssize_t rows_end = part(s.N, me + 1, count)
    cdef Py_ssize_t beat = 0, sums = (s.N + GRADIENT_ROWS - 1) // GRADIENT_ROWS  # of a layer: its steps, then its sums
    cdef Inputs inputs
    cdef real* dh = <real*>call.dh
    cdef real* dc = <real*>call.dc
    cdef const real* none = NULL
    cdef real* dinputs
    cdef real* dabove = NULL
    cdef real* gates
    cdef const real* h
    cdef const real* c
    cdef const real* u
    cdef const real* fresh
    cdef const Direction* direction = call.directions
    cdef bint by_steps, reverse
    for l in range(call.L - 1, -1, -1):
        direction = &call.directions[l * D]
        dinputs = <real*>(call.dinputs[(l + 1) % 2] if l > 0 else call.dx_packed if call.dx != NULL else NULL)
        inputs = inputs_of(call, l, type_tag)
        by_steps = dinputs != NULL and inputs_by_steps(s, direction)
        if dinputs != NULL and not by_steps:
            memset(dinputs + rows * direction.Ip, 0, (rows_end - rows) * direction.Ip * sizeof(real))
        for d in range(D):
            n, reverse = l * D + d, d == 1 or call.reverse
            direction = &call.directions[n]
            gates = <real*>record.gates + n * s.N * 4 * Hp
            u, fresh = <const real*>record.u + n * s.N * Hp, <const real*>record.fresh + n * s.N * Hp
            h, c = <const real*>record.h + n * block * Yp, <const real*>record.c + n * block * Hp
            place_gradients(call, &who, &of_h, l, d, <const real*>dabove, ld_above, dh, dc)
            if direction.zone_c > 0:
                place_states(s, reverse, ONLY, &who, H, Hp, none, none, <real*>call.scratch.zoned)
            if call.scratch.cut_h != NULL:
                place_states(s, reverse, ONLY, &of_h, Y, Yp, none, none, <real*>call.scratch.cut_h)
                place_states(s, reverse, ONLY, &who, H, Hp, none, none, <real*>call.scratch.cut_c)
            run_backward(call.k, s, direction, reverse, &who, &of_h, &call.scratch, beat, gates, fresh, h, c, dh,
                         dc, dinputs if by_steps else <real*>NULL, d > 0)
            beat += s.T
            fetch_states(s, reverse, FIRST, &of_h, Y, Yp, <const real*>dh, <real*>call.dh0 + n * s.B * Y)
            fetch_states(s, reverse, ONLY, &who, H, Hp, <const real*>dc, <real*>call.dc0 + n * state)
            meet(team)
            if direction.at_h0 >= 0:
                first_state_gradients(s, direction, reverse, &summing, &summing_h, &call.scratch,
                                      <const real*>NULL if call.given_h else <const real*>dh,
                                      <const real*>NULL if call.given_c else <const real*>dc, <real*>call.dflat)
            weight_gradients(call.k, s, direction, reverse, &summing, &call.scratch, call.form, beat,
                             <const real*>gates, &inputs, u, fresh, h, c, <const real*>dh, <real*>call.dflat)
            beat += sums
            if dinputs != NULL and not by_steps:
                input_gradients(call.k, s, direction, &summing, &call.scratch, beat - 1,
                                <const real*>(gates if direction.at_norm_x < 0 else direction.norm.x), dinputs)
            meet(team)
        dabove, ld_above = dinputs, direction.Ip
    if call.dx != NULL:
        if s.sizes != NULL and not call.packed:
            clear_padding(s, me, count, direction.I, call.dx_row, call.dx_step, <real*>call.dx)
        give_input_gradients(s, me, count, direction, <const real*>dabove, <const real*>record.inputs.mask, call.packed,
                             call.dx_row, call.dx_step, <real*>call.dx)


cdef Inputs inputs_of(const Backward* call, Py_ssize_t l, const real* type_tag) noexcept nogil:
    """What layer l has read: the caller's rows, or what the layer below has left."""
    cdef Inputs inputs
    cdef Py_ssize_t N = call.s.N, B = call.s.B, Yp = call.directions[0].Yp, DY = call.D * call.directions[0].Y
    if l == 0:
        return call.record.inputs
    memset(&inputs, 0, sizeof(Inputs))
    if call.record.joined:
        inputs.packed, inputs.ld = <real*>call.record.outputs + (l - 1) * N * DY, DY
    else:
        inputs.packed, inputs.ld = <real*>call.record.h + (l - 1) * (B + N) * Yp + B * Yp, Yp
    return inputs


cdef void place_gradients(const Backward* call, const Member* who, const Member* of_h, Py_ssize_t l, Py_ssize_t d,
                          const real* dabove, Py_ssize_t ld_above, real* dh, real* dc) noexcept nogil:
    """dh and dc of one direction before its steps: from the caller, or from the layer above and its dropout."""
    cdef const Steps* s = call.s
    cdef Py_ssize_t H = call.directions[0].H, Hp = call.directions[0].Hp, n = l * call.D + d
    cdef Py_ssize_t Y = call.directions[0].Y, Yp = call.directions[0].Yp, DY = call.D * Y
    cdef const real* dhn = <const real*>call.dhn
    cdef const real* dcn = <const real*>call.dcn
    cdef bint reverse = d == 1 or call.reverse
    cdef const real* mask = <const real*>call.record.masks
    if l == call.L - 1:
        start_gradients(s, reverse, call.packed, of_h, Y, Yp, <const real*>call.dy + d * Y, call.dy_row, call.dy_step,
                        <const real*>NULL, 0, False, dh)
    else:
        mask = mask + l * (s.B if call.record.per_row else s.N) * DY + d * Y if mask != NULL else NULL
        start_gradients(s, reverse, True, of_h, Y, Yp, dabove + d * Y, ld_above, 0, mask, DY, call.record.per_row, dh)
    if dhn != NULL:
        add_states(s, reverse, of_h, Y, Yp, dhn + n * s.B * Y, dh)
    place_states(s, reverse, ONLY, who, H, Hp, dcn + n * s.B * H if dcn != NULL else NULL, <const real*>NULL, dc)
