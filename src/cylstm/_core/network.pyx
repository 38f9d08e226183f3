"""All layers and directions of one call: a team of threads walks over them together, each member in its rows and units.

The hot path: forward_member() and backward_member() walk over layers and directions, run_forward() and run_backward()
over steps, and each step is one call into cext/cell/lstm.h.
"""

from libc.string cimport memset

from cylstm._core.apart cimport fetch_apart, place_apart
from cylstm._core.backward cimport inputs_by_steps, run_backward
from cylstm._core.direction cimport CONCAT, SMALL_WEIGHTS, Direction, Inputs, Outputs, member_of_h
from cylstm._core.forward cimport run_forward
from cylstm._core.gradients cimport GRADIENT_ROWS, first_state_gradients, input_gradients, weight_gradients
from cylstm._core.highway cimport highway_gradients, part_highway
from cylstm._core.interrupt cimport Interrupt
from cylstm._core.kernels cimport lanes_of, real
from cylstm._core.packed_rows cimport (
    FIRST, LAST, ONLY, add_states, clear_padding, fetch_states, give_input_gradients, part_gradients, place_states,
    start_gradients, sum_gradients,
)
from cylstm._core.team cimport (
    ROWS_EACH, Member, Team, meet, meet_by_units, member_by_rows, member_by_units, part, run,
    run_in_a_row, threads_for,
)
from cylstm._core.ragged cimport Steps

# With more weights than so many for each row, reading them takes longer than computing: members then share out units,
# so that each reads only a part of them.
cdef enum:
    WEIGHTS_A_ROW = 16384


cdef void run_network_forward(Forward* call, bint doubles) noexcept nogil:
    cdef Py_ssize_t lanes = call.k.f64.lanes if doubles else call.k.f32.lanes
    cdef int awake
    cdef int asleep = team_size(call.s, call.directions, call.L * call.D, call.D, lanes, call.record.inputs.ids != NULL,
                                call.most, &awake)
    run_in_a_row(asleep, awake, forward_f64 if doubles else forward_f32, call)


cdef void run_network_backward(Backward* call, bint doubles, int members) noexcept nogil:
    """members: team_size(), for which the scratch has room."""
    run(members, backward_f64 if doubles else backward_f32, call)


cdef bint best_by_rows(const Steps* s, const Direction* directions, Py_ssize_t count, bint has_ids) noexcept nogil:
    """Whether members share out rows or units. Ids read no more of W than the rows they stand for."""
    cdef Py_ssize_t H = directions[0].H, Y = directions[0].Y, I = 0 if has_ids else directions[0].I, n, most
    if directions[0].at_norm_x >= 0:
        return True  # a row's norms are of all its units
    if s.B < 2 * ROWS_EACH:
        return False
    if count > 1:
        I = max(I, directions[count - 1].I)
    most = 4 * H * (I + Y)
    for n in range(1, count):
        if directions[n].H != H:
            most = max(most, 4 * directions[n].H * (directions[n].I + directions[n].Y))
    return most <= min(<Py_ssize_t>SMALL_WEIGHTS, WEIGHTS_A_ROW * s.B)


cdef int team_size(const Steps* s, const Direction* directions, Py_ssize_t count, Py_ssize_t D, Py_ssize_t lanes,
                   bint has_ids, int most, int* awake=NULL) noexcept nogil:
    """How many threads a call is worth, by its multiply-adds: `most`, or fewer. awake : how many if they are."""
    cdef double work = 0, recurrent = 0
    cdef bint by_rows = best_by_rows(s, directions, count, has_ids)
    cdef Py_ssize_t n, pieces = 0
    for n in range(count):
        pieces = max(pieces, directions[n].Hp // lanes)
        recurrent += 4.0 * directions[n].H * directions[n].Y
        work += 4.0 * directions[n].H * (0 if has_ids and n < D else directions[n].I)
    work, recurrent = (work + recurrent) * s.N, recurrent * s.N / s.T / count  # in all, and between two meetings
    if by_rows:
        recurrent, pieces = work, s.B // ROWS_EACH
    if awake != NULL:
        awake[0] = min(most, threads_for(work, recurrent, pieces, True))
    return min(most, threads_for(work, recurrent, pieces))


cdef Member member(int me, int count, Team* team, Interrupt* interrupt, const Steps* s, const Direction* directions,
                   Py_ssize_t count_of_all, Py_ssize_t lanes, bint has_ids, int form) noexcept nogil:
    """form: of the recurrent weights that the call multiplies by."""
    if count > 1 and best_by_rows(s, directions, count_of_all, has_ids):
        return member_by_rows(me, count, team, interrupt, s, directions[0].Hp, form)
    return member_by_units(me, count, team, interrupt, s, directions[0].Hp, lanes)


cdef void share_units(Member* who, Py_ssize_t Hp, Py_ssize_t lanes) noexcept nogil:
    """The same member in a layer of another width."""
    who.first, who.last = 0, Hp
    if not who.by_rows:
        who.first = part(Hp // lanes, who.me, who.count) * lanes
        who.last = part(Hp // lanes, who.me + 1, who.count) * lanes


cdef void forward_f32(void* call, int me, int count, Team* team) noexcept nogil:
    forward_member(<const Forward*>call, me, count, team, <float*>NULL)

cdef void forward_f64(void* call, int me, int count, Team* team) noexcept nogil:
    forward_member(<const Forward*>call, me, count, team, <double*>NULL)


cdef void forward_member(const Forward* call, int me, int count, Team* team, real* type_tag) noexcept nogil:
    """What one member does: all layers and directions, in its rows and units."""
    cdef const Steps* s = call.s
    cdef Steps last = s[0]
    cdef const Record* record = &call.record
    cdef Py_ssize_t L = call.L, D = call.D, Hp = call.directions[0].Hp, l, d, n, at
    cdef const Direction* direction
    cdef Member who = member(me, count, team, call.interrupt, s, call.directions, L * D, lanes_of(call.k, type_tag),
                             record.inputs.ids != NULL, call.directions[0].R.form)
    cdef Member of_h = member_of_h(&who, call.directions, lanes_of(call.k, type_tag))
    cdef Py_ssize_t h_state = s.B * call.Y, c_state = s.B * call.H, h_block = (s.B + s.N) * call.Yp
    cdef bint keep = record.keep, reverse
    cdef Inputs inputs = record.inputs
    cdef Outputs outputs, part_of
    cdef const Outputs* own = &outputs
    cdef const real* h0 = <const real*>call.h0
    cdef const real* c0 = <const real*>call.c0
    cdef real* h = NULL
    cdef real* c
    cdef real* gates
    cdef real* u
    cdef real* fresh
    last.two_boundaries = record.last_h != NULL
    for l in range(L):
        direction = &call.directions[l * D]
        if direction.Hp != Hp:
            Hp = direction.Hp
            share_units(&who, Hp, lanes_of(call.k, type_tag))
            of_h = member_of_h(&who, direction, lanes_of(call.k, type_tag))
        outputs_of(call, l, &inputs, &outputs, type_tag)
        if l == L - 1:
            s = &last
            if call.y != NULL and s.sizes != NULL and not call.packed:
                clear_padding(s, me, count, direction.O, call.y_row, call.y_step, <real*>call.y)
        for d in range(D):
            n, reverse = l * D + d, d == 1 or call.reverse
            direction = &call.directions[n]
            at = n * s.N * call.Hp if keep else 0
            gates, u, fresh = <real*>record.gates + 4 * at, <real*>record.u + at, <real*>record.fresh + at
            h = <real*>record.h + (n if keep else n % (2 * D)) * h_block
            if s.two_boundaries:
                h = <real*>record.last_h + d * 2 * s.B * call.Yp
            c = <real*>record.c + (n * (s.B + s.N) * call.Hp if keep else 0)
            if call.apart.h != NULL:
                place_apart(&of_h, direction.Y, direction.Yp, call.apart.h, n * call.apart.h_layer, h)
                place_apart(&who, direction.H, Hp, call.apart.c, n * call.apart.c_layer, c)
            else:
                place_states(s, reverse, FIRST, &of_h, direction.Y, direction.Yp,
                             h0 + n * h_state if h0 != NULL else NULL, call.Y, <const real*>direction.h0.packed, h)
                place_states(s, reverse, FIRST if keep else ONLY, &who, direction.H, Hp,
                             c0 + n * c_state if c0 != NULL else NULL, call.H, <const real*>direction.c0.packed, c)
            if D == 2:
                part_of = outputs_of_direction(&outputs, d, direction.Y, type_tag)
                own = &part_of
            run_forward(call.k, s, direction, reverse, keep, &who, &of_h, &call.scratch, &inputs, own,
                        n * s.T, gates, u, fresh, <real*>record.highway + (n * s.N * call.Yp if keep else 0), h, c)
            if call.apart.h != NULL:
                fetch_apart(&of_h, direction.Y, direction.Yp, <const real*>h + s.B * direction.Yp, call.Y, call.apart.h,
                            n * call.apart.h_layer)
                fetch_apart(&who, direction.H, Hp, <const real*>c, call.H, call.apart.c, n * call.apart.c_layer)
            else:
                fetch_states(s, reverse, LAST, &of_h, direction.Y, direction.Yp, <const real*>h, call.Y,
                             <real*>call.hn + n * h_state)
                fetch_states(s, reverse, LAST if keep else ONLY, &who, direction.H, Hp, <const real*>c, call.H,
                             <real*>call.cn + n * c_state)
            if inputs.whole:
                inputs.caller = NULL  # they are packed now
            if call.uneven:  # who shares out rows is in another layer else, in the same memory
                meet(team)
            elif n < L * D - 1:
                meet_by_units(&who)
        memset(&inputs, 0, sizeof(Inputs))
        if record.joined:
            inputs.packed = <real*>record.outputs + (l if keep else l % 2) * s.N * call.O
            inputs.ld = direction.O
        else:
            inputs.packed, inputs.ld = h + s.B * direction.Yp, direction.Yp


cdef inline void outputs_of(const Forward* call, Py_ssize_t l, const Inputs* inputs, Outputs* outputs,
                            const real* type_tag) noexcept nogil:
    """Where the outputs of layer l go, which reads `inputs`, and what becomes of them."""
    cdef const Record* record = &call.record
    cdef const Direction* direction = &call.directions[l * call.D]
    cdef Py_ssize_t N = call.s.N, O = direction.O
    memset(outputs, 0, sizeof(Outputs))
    if l == call.L - 1:
        outputs.y, outputs.packed, outputs.row, outputs.step = call.y, call.packed, call.y_row, call.y_step
    elif record.joined:
        outputs.y, outputs.packed = <real*>record.outputs + (l if record.keep else l % 2) * N * call.O, True
        outputs.row, outputs.per_row = O, record.per_row
        if record.masks != NULL:
            outputs.mask = <const real*>record.masks + direction.below * (call.s.B if record.per_row else N)
        if record.plain != NULL:
            outputs.plain = <real*>record.plain + l % 2 * N * O
    if call.merge != CONCAT or call.residual or call.highway:
        outputs.merge = call.merge
        if (call.residual or call.highway) and l > 0:
            outputs.skip, outputs.skip_row = inputs.packed, inputs.ld
            if record.plain != NULL:
                outputs.skip, outputs.skip_row = <real*>record.plain + (l - 1) % 2 * N * O, O
        outputs.finishes = outputs.merge != CONCAT or outputs.skip != NULL or outputs.plain != NULL


cdef Outputs outputs_of_direction(const Outputs* outputs, Py_ssize_t d, Py_ssize_t Y,
                                  const real* type_tag) noexcept nogil:
    """The same for direction d: a part of each output, or, where they are merged, first a copy and then the whole."""
    cdef Outputs own = outputs[0]
    cdef Py_ssize_t at = 0
    if own.merge != CONCAT:
        if d == 0:
            own.merge, own.finishes, own.mask, own.skip, own.plain = CONCAT, False, NULL, NULL, NULL
        return own
    if d == 1:
        at = Y
    if own.y != NULL:
        own.y = <real*>own.y + at
    if own.mask != NULL:
        own.mask = <const real*>own.mask + at
    if own.skip != NULL:
        own.skip = <const real*>own.skip + at
    if own.plain != NULL:
        own.plain = <real*>own.plain + at
    return own


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
    cdef Py_ssize_t D = call.D, Hp = call.directions[0].Hp, l, d, n, ld_above = 0, lanes = lanes_of(call.k, type_tag)
    cdef Member who = member(me, count, team, call.interrupt, s, call.directions, call.L * D,
                             lanes_of(call.k, type_tag), record.inputs.ids != NULL, call.directions[0].R_back.form)
    cdef Member of_h = member_of_h(&who, call.directions, lanes_of(call.k, type_tag))
    cdef Member summing = member_by_units(me, count, team, call.interrupt, s, Hp, lanes_of(call.k, type_tag))
    cdef Member summing_h = member_of_h(&summing, call.directions, lanes_of(call.k, type_tag))
    cdef Py_ssize_t h_state = s.B * call.Y, c_state = s.B * call.H, block = s.B + s.N, rows = part(s.N, me, count)
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
        if direction.Hp != Hp:
            Hp = direction.Hp
            share_units(&who, Hp, lanes)
            share_units(&summing, Hp, lanes)
            of_h, summing_h = member_of_h(&who, direction, lanes), member_of_h(&summing, direction, lanes)
        dinputs = <real*>(call.dinputs[(l + 1) % 2] if l > 0 else call.dx_packed if call.dx != NULL else NULL)
        inputs = inputs_of(call, l, type_tag)
        by_steps = dinputs != NULL and inputs_by_steps(s, direction)
        if call.residual:
            sum_above(call, l, me, count, <const real*>dabove, ld_above)
            meet(team)
        if dinputs != NULL and not by_steps:
            memset(dinputs + rows * direction.Ip, 0, (rows_end - rows) * direction.Ip * sizeof(real))
        for d in range(D):
            n, reverse = l * D + d, d == 1 or call.reverse
            direction = &call.directions[n]
            gates = <real*>record.gates + n * s.N * 4 * call.Hp
            u, fresh = <const real*>record.u + n * s.N * call.Hp, <const real*>record.fresh + n * s.N * call.Hp
            h, c = <const real*>record.h + n * block * call.Yp, <const real*>record.c + n * block * call.Hp
            place_gradients(call, &who, &of_h, l, d, <const real*>dabove, ld_above, dh, dc)
            if direction.zone_c > 0:
                place_states(s, reverse, ONLY, &who, direction.H, Hp, none, 0, none, <real*>call.scratch.zoned)
            if call.scratch.cut_h != NULL:
                place_states(s, reverse, ONLY, &of_h, direction.Y, direction.Yp, none, 0, none,
                             <real*>call.scratch.cut_h)
                place_states(s, reverse, ONLY, &who, direction.H, Hp, none, 0, none, <real*>call.scratch.cut_c)
            run_backward(call.k, s, direction, reverse, &who, &of_h, &call.scratch, beat, gates, fresh, h, c, dh,
                         dc, dinputs if by_steps else <real*>NULL, d > 0)
            beat += s.T
            fetch_states(s, reverse, FIRST, &of_h, direction.Y, direction.Yp, <const real*>dh, call.Y,
                         <real*>call.dh0 + n * h_state)
            fetch_states(s, reverse, ONLY, &who, direction.H, Hp, <const real*>dc, call.H,
                         <real*>call.dc0 + n * c_state)
            meet(team)
            if direction.at_h0 >= 0:
                first_state_gradients(s, direction, reverse, &summing, &summing_h, &call.scratch,
                                      <const real*>NULL if call.given_h else <const real*>dh,
                                      <const real*>NULL if call.given_c else <const real*>dc, <real*>call.dflat)
            weight_gradients(call.k, s, direction, reverse, &summing, &call.scratch, call.form, beat,
                             <const real*>gates, &inputs, u, fresh, h, c, <const real*>dh, <real*>call.dflat)
            beat += sums
            if dinputs != NULL and not by_steps:
                input_gradients(call.k, s, direction, &summing, &call.scratch, beat - 1, <const real*>gates, dinputs)
            if direction.at_highway >= 0:
                highway_gradients(call.k, s, direction, &summing, &summing_h, &call.scratch, beat - 1, &inputs,
                                  d * direction.Y, dinputs, <real*>call.dflat)
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
    cdef Py_ssize_t N = call.s.N, B = call.s.B, Yp
    if l == 0:
        return call.record.inputs
    memset(&inputs, 0, sizeof(Inputs))
    if call.record.joined:
        inputs.packed = <real*>call.record.outputs + (l - 1) * N * call.O
        inputs.ld = call.directions[l * call.D].I
    else:
        Yp = call.directions[l - 1].Yp
        inputs.packed, inputs.ld = <real*>call.record.h + (l - 1) * (B + N) * call.Yp + B * Yp, Yp
    return inputs


cdef void place_gradients(const Backward* call, const Member* who, const Member* of_h, Py_ssize_t l, Py_ssize_t d,
                          const real* dabove, Py_ssize_t ld_above, real* dh, real* dc) noexcept nogil:
    """dh and dc of one direction before its steps: from the caller, or from the layer above and its dropout."""
    cdef const Steps* s = call.s
    cdef Py_ssize_t n = l * call.D + d
    cdef const Direction* direction = &call.directions[n]
    cdef Py_ssize_t Y = direction.Y, Yp = direction.Yp, O = direction.O
    cdef Py_ssize_t at = d * Y if call.merge == CONCAT else 0
    cdef const real* dhn = <const real*>call.dhn
    cdef bint reverse = d == 1 or call.reverse
    cdef const real* mask = <const real*>call.record.masks
    cdef Inputs inputs
    if call.residual:
        start_gradients(s, reverse, True, of_h, Y, Yp, <const real*>call.dsums + at, O, 0, <const real*>NULL, 0, False,
                        dh)
    elif l == call.L - 1:
        start_gradients(s, reverse, call.packed, of_h, Y, Yp, <const real*>call.dy + at, call.dy_row, call.dy_step,
                        <const real*>NULL, 0, False, dh)
    else:
        mask = mask + direction.below * (s.B if call.record.per_row else s.N) + at if mask != NULL else NULL
        start_gradients(s, reverse, True, of_h, Y, Yp, dabove + at, ld_above, 0, mask, O, call.record.per_row, dh)
    if direction.at_highway >= 0:
        inputs = inputs_of(call, l, dh)
        part_highway(s, direction, reverse, of_h, &call.scratch,
                     <const real*>call.record.highway + n * s.N * call.Yp,
                     <const real*>call.record.h + n * (s.B + s.N) * call.Yp, <const real*>inputs.packed + at,
                     inputs.ld, dh)
    if call.merge != CONCAT:
        part_gradients(s, reverse, call.merge, of_h, Y, Yp,
                       <const real*>call.record.h + (n + 1 - 2 * d) * (s.B + s.N) * call.Yp, dh)
    if dhn != NULL:
        add_states(s, reverse, of_h, Y, Yp, dhn + n * s.B * call.Y, call.Y, dh)
    place_states(s, reverse, ONLY, who, direction.H, direction.Hp,
                 <const real*>call.dcn + n * s.B * call.H if call.dcn != NULL else NULL, call.H, <const real*>NULL, dc)


cdef void sum_above(const Backward* call, Py_ssize_t l, int me, int count, const real* dabove,
                    Py_ssize_t ld_above) noexcept nogil:
    """With residuals: d loss / d outputs of layer l before their dropout, from those of the layer above, which had them
    added to its own, and by its inputs; of the last layer from the caller. This member's share of the steps."""
    cdef const real* mask = <const real*>call.record.masks
    if l == call.L - 1:
        sum_gradients(call.s, me, count, call.O, call.packed, <const real*>call.dy, call.dy_row, call.dy_step,
                      <const real*>NULL, False, False, <real*>call.dsums)
    else:
        mask = mask + l * (call.s.B if call.record.per_row else call.s.N) * call.O if mask != NULL else NULL
        sum_gradients(call.s, me, count, call.O, True, dabove, ld_above, 0, mask, call.record.per_row, True,
                      <real*>call.dsums)
