"""One direction of one layer over all steps, backward: the gates' gradients, and those of the states. See forward.pyx;
the weights' gradients, sums over all steps, are in gradients.pyx.

Every function is called by all members of a team at once and does its member's part.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from cylstm._core.forward cimport project
from cylstm._core.direction cimport (
    SMALL_WEIGHTS, Direction, Scratch, by_gates, gate_bytes, norm_of, step_beats, step_of,
)
from cylstm._core.interrupt cimport goes_on
from cylstm._core.kernels cimport (
    Kernels, Norm, Step, cell_backward, lanes_of, left_bytes, norm_backward, packs_left, part_gates, product, real,
    zone_row_backward,
)
from cylstm._core.operands cimport left_operand
from cylstm._core.ragged cimport Steps, is_cut, offset, slot
from cylstm._core.packed_rows cimport (
    add_cut, add_masked, add_masked_gates, carry, clear_cut, copy_cut, copy_uncut, has_cut, set_aside,
)
from cylstm._core.team cimport Member, last_alive, meet_by_units, part, tiles_before

cdef enum:
    DX_BATCH = 8  # rows: with fewer, one product over the rows of many steps is faster than one at each step


cdef bint inputs_by_steps(const Steps* s, const Direction* direction) noexcept nogil:
    """Whether dx is computed step by step, from the operand that dgates R has there already: where both weights stay in
    the second-level cache."""
    if by_gates(direction) and packs_left(direction.R_back.form):
        return False
    return (s.B >= DX_BATCH and direction.at_norm_x < 0 and direction.W_back.form == direction.R_back.form
            and 4 * direction.H * (direction.Y + direction.I) <= SMALL_WEIGHTS)


cdef void run_backward(const Kernels* k, const Steps* s, const Direction* direction, bint reverse, const Member* who,
                       const Member* of_h, const Scratch* scratch, Py_ssize_t beat, real* gates,
                       const real* fresh, const real* h, const real* c, real* dh, real* dc, real* dx,
                       bint add) noexcept nogil:
    """Gate values -> gate gradients. dh (B+N, Yp) comes with d loss / d h from above at each boundary and zero
    elsewhere; dc (B, Hp) with d loss / d (final c). Both end as the gradients of the initial state, at its boundary;
    at the others, dh ends as what each step's h has of gradient. of_h: the same member's share of h.

    dx (N, Ip) = dgates W, or += where `add`; NULL where input_gradients() does that (inputs_by_steps).
    """
    cdef Py_ssize_t Hp = direction.Hp, G = 4 * direction.Hp, n, t, b, source, target, rows, row = who.first_row
    cdef Py_ssize_t Yp = direction.Yp
    cdef Py_ssize_t lanes = lanes_of(k, dh), first = 0, last = direction.Ip, every = step_beats(s, direction)
    cdef const real* c_prev
    cdef const void* operand
    cdef real* dx_t
    cdef real* du
    cdef real* dgates
    cdef real* kept = <real*>(scratch.rows if direction.at_proj >= 0 else scratch.states)
    cdef bint cut, normed = direction.at_norm_x >= 0
    cdef Norm norm
    cdef Step step = step_of(direction, who, gates)
    if normed:
        norm = norm_of(direction, gates, 0, row)
        memset(norm.sums, 0, (who.last_row - row) * norm.sums_row * sizeof(real))
    if not who.by_rows:
        first = part(direction.Ip // lanes, who.me, who.count) * lanes
        last = part(direction.Ip // lanes, who.me + 1, who.count) * lanes
    for n in range(s.T):
        if not goes_on(who.interrupt, who.me, beat + n, every):
            return
        t = n if reverse else s.T - 1 - n
        source, target = slot(s, t + 1 if reverse else t) + row, slot(s, t if reverse else t + 1) + row
        rows = last_alive(s, who, t) - row
        c_prev = c + source * Hp
        dgates = gates + (offset(s, t) + row) * G
        cut = has_cut(s, t, reverse)
        if cut:
            copy_uncut(s, t, reverse, who, who.first, who.last, Hp, c_prev - row * Hp,
                       <const real*>direction.c0.packed, <real*>scratch.states)
            c_prev = <real*>scratch.states + row * Hp
        step.B, step.c_prev, step.c, step.gates = rows, c_prev, <void*>(c + target * Hp), dgates
        step.dh, step.dc = dh + target * Yp, dc + row * Hp
        if direction.zone_h > 0:
            pass_by(k, s, t, reverse, of_h, direction.Y, Yp, direction.new_h, dh + (target - row) * Yp,
                    dh + (source - row) * Yp, <real*>scratch.cut_h)
        if direction.proj_clip > 0:  # where zoneout has kept another h, there is no gradient of this one
            clear_clipped(s, t, of_h, Yp, direction.proj_clip, h + (target - row) * Yp, dh + (target - row) * Yp)
        if direction.zone_c > 0:
            pass_by(k, s, t, reverse, who, direction.H, Hp, direction.new_c, dc, <real*>scratch.zoned,
                    <real*>scratch.zoned)
            step.c = <void*>(fresh + (offset(s, t) + row) * Hp)
        if direction.at_proj >= 0:
            du = <real*>scratch.du + row * Hp
            project(k, &direction.proj_back, who, who.first, who.last, rows, direction.Y,
                    <const real*>dh + target * Yp, Yp, Hp, du)
            step.dh = du
        if normed:
            norm = norm_of(direction, gates, offset(s, t) + row, row)
            norm_backward(k, real is double, &step, &norm)
            dgates = <real*>norm.h
        else:
            cell_backward(k, real is double, &step)
        if direction.zone_c > 0:
            come_back(s, t, who, Hp, <real*>scratch.zoned, dc)
        if cut:
            if scratch.cut_c != NULL:
                add_cut(s, t, reverse, who, Hp, <const real*>dc, <real*>scratch.cut_c)
            clear_cut(s, t, reverse, who, Hp, dc)
        if cut and direction.mask == NULL:
            copy_cut(s, t, reverse, of_h, Yp, dh + (source - row) * Yp, kept)
            if scratch.cut_h != NULL:
                clear_cut(s, t, reverse, of_h, Yp, dh + (source - row) * Yp)
        if by_gates(direction):
            operand = dgates
            carry_gates(k, s, direction, who, scratch, rows, dgates, <char*>scratch.carried[n % 2])
        else:
            operand = carry(k, s, t, reverse, False, direction.R_back.form, who, 4 * who.first, 4 * who.last, G, G,
                            <const real*>dgates - row * G, <const real*>NULL, <const real*>NULL,
                            <char*>scratch.carried[n % 2], <real*>NULL)
        meet_by_units(who)
        if by_gates(direction):
            recurrent_gradients_by_gates(k, s, direction, t, reverse, of_h, rows,
                                         <const char*>scratch.carried[n % 2], scratch, dh + (source - row) * Yp)
        elif direction.mask != NULL:
            set_aside(s, t, of_h, Yp, dh + (source - row) * Yp, kept)
            product(k, direction.R_back.form, rows, G, Yp, of_h.first, of_h.last, operand, G, direction.R_back.packed,
                    <const real*>NULL, dh + source * Yp, Yp)
            add_masked(s, t, reverse, of_h, direction.Y, Yp, <const real*>kept, <const real*>direction.mask,
                       <real*>scratch.cut_h, dh + (source - row) * Yp)
        else:
            product(k, direction.R_back.form, rows, G, Yp, of_h.first, of_h.last, operand, G, direction.R_back.packed,
                    <const real*>NULL, dh + source * Yp, Yp)
        if cut and direction.mask == NULL:
            if scratch.cut_h != NULL:
                add_cut(s, t, reverse, of_h, Yp, <const real*>dh + (source - row) * Yp, <real*>scratch.cut_h)
            copy_cut(s, t, reverse, of_h, Yp, <const real*>kept, dh + (source - row) * Yp)
        if dx != NULL:
            dx_t = dx + (offset(s, t) + row) * direction.Ip
            for b in range(0 if add else rows):
                memset(dx_t + b * direction.Ip + first, 0, (last - first) * sizeof(real))
            product(k, direction.W_back.form, rows, G, direction.Ip, first, last, operand, G, direction.W_back.packed,
                    <const real*>NULL, dx_t, direction.Ip)


cdef void carry_gates(const Kernels* k, const Steps* s, const Direction* direction, const Member* who,
                      const Scratch* scratch, Py_ssize_t rows, real* dgates, char* carried) noexcept nogil:
    """carry() of dgates (rows, 4Hp), as four left operands, one of each gate."""
    cdef Py_ssize_t Hp = direction.Hp, gate, apart = scratch.apart_bytes // sizeof(real)
    cdef int form = direction.R_back.form
    cdef real* copy = <real*>carried + who.first_row * Hp
    if packs_left(form):
        copy, apart = <real*>scratch.apart + who.first_row * Hp, s.B * Hp
    part_gates(k, False, rows, direction.H, who.first, who.last, dgates, copy, apart)
    for gate in range(4):
        left_operand(k, form, False, rows, direction.H, who.first, who.last, <const real*>copy + gate * apart, Hp,
                     <real>0,
                     carried + gate * scratch.apart_bytes + left_bytes(form, 16 * tiles_before(who), direction.H))


cdef void recurrent_gradients_by_gates(const Kernels* k, const Steps* s, const Direction* direction, Py_ssize_t t,
                                       bint reverse, const Member* of_h, Py_ssize_t rows, const char* carried,
                                       const Scratch* scratch, real* dh) noexcept nogil:
    """dh += the sum over gates of m (dz R), dz being what carry_gates() has made."""
    cdef Py_ssize_t Hp = direction.Hp, Yp = direction.Yp, gate, row = of_h.first_row, b
    cdef int form = direction.R_back.form
    cdef Py_ssize_t factor = gate_bytes(direction, form, True, sizeof(real))
    cdef Py_ssize_t before = left_bytes(form, 16 * tiles_before(of_h), direction.H)
    cdef real* sums = <real*>scratch.apart
    cdef real* own
    if direction.at_proj >= 0:  # other members' copies of dgates may lie where sums of another width would
        sums += 4 * s.B * Hp
    if not packs_left(form):
        before = row * Hp * sizeof(real)
    for gate in range(4):
        own = sums + (gate * s.B + row) * Yp
        for b in range(rows):
            memset(own + b * Yp + of_h.first, 0, (of_h.last - of_h.first) * sizeof(real))
        product(k, form, rows, direction.H, Yp, of_h.first, of_h.last, carried + gate * scratch.apart_bytes + before,
                Hp, <const char*>direction.R_back.packed + gate * factor, <const real*>NULL, own, Yp)
    add_masked_gates(s, t, reverse, of_h, direction.Y, Yp, <const real*>sums, <const real*>direction.mask,
                     <real*>scratch.cut_h, dh)


cdef void pass_by(const Kernels* k, const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t H,
                  Py_ssize_t width, const uint8_t* new, real* rows, real* before, real* anew) noexcept nogil:
    """The reverse of zone_out(): gradients by what was kept go from `rows` to those `before` the step or, where that
    does not reach it, to those of what began `anew`, or nowhere for NULL."""
    cdef Py_ssize_t b, at
    cdef real* past
    for b in range(who.first_row, last_alive(s, who, t)):
        at = b * width + who.first
        past = anew if is_cut(s, t + 1 if reverse else t, b) else before
        zone_row_backward(k, min(who.last, H) - who.first, new + (offset(s, t) + b) * H + who.first, rows + at,
                          past + at if past != NULL else NULL)


cdef void come_back(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t width, real* past,
                    real* rows) noexcept nogil:
    """rows += what was set aside, which is 0 then."""
    cdef Py_ssize_t b, j
    for b in range(who.first_row, last_alive(s, who, t)):
        for j in range(b * width + who.first, b * width + who.last):
            rows[j] += past[j]
            past[j] = 0


cdef void clear_clipped(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t width, double most,
                        const real* rows, real* d) noexcept nogil:
    """d = 0 where clip_rows() has cut: where rows reach its bounds."""
    cdef Py_ssize_t b, j
    cdef real high = <real>most, zero = 0
    for b in range(who.first_row, last_alive(s, who, t)):
        for j in range(b * width + who.first, b * width + who.last):
            d[j] = d[j] if -high < rows[j] < high else zero
