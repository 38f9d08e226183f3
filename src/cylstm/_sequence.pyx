"""One direction of one layer over all steps, forward and backward. Boundaries, slots and packed rows are explained in
_steps.pxd, members and scratch in _sequence.pxd.

Every function is called by all members of a team at once and does its member's part.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cylstm._blas cimport gemm
from cylstm._interrupt cimport Interrupt, beats_between, goes_on, goes_on_alone
from cylstm._kernels cimport (
    TILES, Kernels, Step, cell_backward, cell_forward, column_sums, gather, lanes_of, left_bytes, left_operand,
    peephole_gradients, product, real, right_bytes, scatter_add, split_columns, unpack_columns, unpack_rows,
    weight_gradients as tiled_gradients,
)
from cylstm._pool cimport Team, meet
from cylstm._steps cimport Steps, alive, caller_row, is_cut, length, offset, slot


cdef Py_ssize_t chunk_rows(const Steps* s, Py_ssize_t row_bytes) noexcept nogil:
    """How many packed rows of gates one product makes: whole steps where all rows are alive."""
    return min(s.N, max(s.B, max(<Py_ssize_t>CHUNK_ROWS, CHUNK_BYTES // row_bytes) // s.B * s.B))


cdef bint best_by_rows(const Steps* s, const Cell* cells, Py_ssize_t count, bint has_ids) noexcept nogil:
    """cells: all `count` of a call. Ids read no more of W than the rows they stand for."""
    cdef Py_ssize_t H = cells[0].H, I = max(0 if has_ids else cells[0].I, cells[count - 1].I if count > 1 else 0)
    return s.B >= 2 * ROWS_EACH and 4 * H * (I + H) <= min(<Py_ssize_t>SMALL_WEIGHTS, WEIGHTS_A_ROW * s.B)


cdef Member member_by_units(int me, int count, Team* team, Interrupt* interrupt, const Steps* s, Py_ssize_t Hp,
                            Py_ssize_t lanes) noexcept nogil:
    cdef Member who
    who.me, who.count, who.team, who.interrupt, who.by_rows = me, count, team, interrupt, False
    who.first, who.last = part(Hp // lanes, me, count) * lanes, part(Hp // lanes, me + 1, count) * lanes
    who.first_row, who.last_row = 0, s.B
    return who


cdef Member member_by_rows(int me, int count, Team* team, Interrupt* interrupt, const Steps* s,
                           Py_ssize_t Hp) noexcept nogil:
    """As much work for each, not as many rows: those of a ragged batch are sorted by length."""
    cdef Member who
    cdef Py_ssize_t low = (1 + STEP_ROWS) * s.T, high = s.N + STEP_ROWS * s.T, limit
    cdef int _n
    who.me, who.count, who.team, who.interrupt, who.by_rows = me, count, team, interrupt, True
    who.first, who.last = 0, Hp
    who.first_row, who.last_row = part(s.B, me, count), part(s.B, me + 1, count)
    if s.lengths == NULL:
        return who
    while low < high:  # the least work of one member with which they get through all rows
        limit = (low + high) // 2
        who.last_row = 0
        for _n in range(count):
            who.last_row = rows_worth(s, limit, who.last_row)
        if who.last_row < s.B:
            low = limit + 1
        else:
            high = limit
    who.last_row = 0
    for _n in range(me + 1):
        who.first_row = who.last_row
        who.last_row = rows_worth(s, high, who.first_row)
    return who


cdef Py_ssize_t rows_worth(const Steps* s, Py_ssize_t work, Py_ssize_t row) noexcept nogil:
    """Up to where rows from this one on are so much work: steps of rows, and STEP_ROWS more for each step."""
    if row < s.B:
        work -= STEP_ROWS * length(s, row)
    while row < s.B and length(s, row) <= work:
        work -= length(s, row)
        row += 1
    return row


cdef void meet_by_units(const Member* who) noexcept nogil:
    if not who.by_rows:
        meet(who.team)


# Tiles hold 16 rows: members that share out rows have tiles of their own, with room for them in between.
cdef inline Py_ssize_t tiles_before(const Member* who) noexcept nogil:
    return (who.first_row + 15) // 16 + who.me if who.by_rows else 0


# --- forward ----------------------------------------------------------------------------------------------------------


cdef void run_forward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, bint keep, const Member* who,
                      const Scratch* scratch, const Inputs* inputs, const Outputs* outputs, Py_ssize_t beat,
                      real* gates, real* h, real* c) noexcept nogil:
    """Gates, h and c of every step. Boundary 0 (or each row's last one, in reverse) of h and c holds the initial state.
    beat: of the first step (_interrupt.pxd).

    Without `keep`, gates holds one chunk and c one boundary, both used again and again.
    """
    cdef Py_ssize_t Hp = cell.Hp, G = 4 * cell.Hp, T = s.T, t0, t1, t, n, first, source, target, rows, done = 0
    cdef Py_ssize_t steps = chunk_rows(s, G * <Py_ssize_t>sizeof(real)) // s.B, row = who.first_row
    cdef Py_ssize_t every = step_beats(s, cell)
    cdef const real* c_prev
    cdef real* chunk
    cdef bint cut
    cdef Step step = step_of(cell, who)
    if who.by_rows:
        steps = 1  # the rows of one member lie together only within a step
    while done < T:
        t0 = max(0, T - done - steps) if reverse else done
        t1 = T - done if reverse else min(T, done + steps)
        first = offset(s, t0) + row
        chunk = gates + first * G if keep else gates + row * G
        rows = last_alive(s, who, t0) - row if who.by_rows else offset(s, t1) - first
        input_gates(k, s, cell, who, scratch, inputs, t0, t1, rows, chunk)
        for n in range(t1 - t0):
            if not goes_on(who.interrupt, who.me, beat + done + n, every):
                return
            t = t1 - 1 - n if reverse else t0 + n
            source, target = slot(s, t + 1 if reverse else t) + row, slot(s, t if reverse else t + 1) + row
            rows = last_alive(s, who, t) - row
            cut = has_cut(s, t, reverse)
            step.h_prev = carry(k, s, t, reverse, cut, cell.R.form, who, who.first, who.last, cell.H, Hp,
                                h + (source - row) * Hp, <char*>scratch.carried[(done + n) % 2], <real*>scratch.rows)
            c_prev = c + source * Hp if keep else c + row * Hp
            if cut:
                copy_uncut(s, t, reverse, who, who.first, who.last, Hp, c_prev - row * Hp, <real*>scratch.states)
                c_prev = <real*>scratch.states + row * Hp
            meet_by_units(who)
            step.B, step.c_prev, step.gates = rows, c_prev, chunk + (offset(s, t) + row - first) * G
            step.c, step.h = c + target * Hp if keep else c + row * Hp, h + target * Hp
            cell_forward(k, real is double, &step)
            if outputs.y != NULL:
                copy_outputs(s, t, who, cell.H, Hp, h + target * Hp, outputs)
        done += t1 - t0


cdef Step step_of(const Cell* cell, const Member* who) noexcept nogil:
    """What is the same in all steps."""
    cdef Step step
    memset(&step, 0, sizeof(Step))
    step.H, step.first, step.last, step.flags, step.clip = cell.H, who.first, who.last, cell.flags, cell.clip
    step.form, step.R, step.peepholes = cell.R.form, cell.R.packed, cell.P.packed
    return step


cdef Py_ssize_t step_beats(const Steps* s, const Cell* cell) noexcept nogil:
    return beats_between(4.0 * cell.H * (cell.I + cell.H) * s.N / s.T)


cdef void copy_outputs(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* h,
                       const Outputs* outputs) noexcept nogil:
    """h of this member's rows after step t, while it is in the cache."""
    cdef Py_ssize_t b, j, at, last = min(who.last, H), row = outputs.row
    cdef real* y = <real*>outputs.y
    cdef const real* kept
    for b in range(who.first_row, last_alive(s, who, t)):
        at = (offset(s, t) + b) * row if outputs.packed else caller_row(s, b) * row + t * outputs.step
        if outputs.mask == NULL:
            memcpy(y + at + who.first, h + who.first, (last - who.first) * sizeof(real))
        else:
            kept = <const real*>outputs.mask + at
            for j in range(who.first, last):
                y[at + j] = h[j] * kept[j]
        h += Hp


cdef void input_gates(const Kernels* k, const Steps* s, const Cell* cell, const Member* who, const Scratch* scratch,
                      const Inputs* inputs, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t rows, real* gates) noexcept nogil:
    """gates (rows, 4Hp) = x W' + b in this member's units, for the steps t0..t1-1."""
    cdef Py_ssize_t G = 4 * cell.Hp, blocks = (rows + 15) // 16, first = 0, last = rows
    cdef bint packs_left = left_bytes(cell.W.form, 1, 1) > 0
    cdef Py_ssize_t packed = offset(s, t0) + who.first_row
    cdef real* x
    cdef char* own = <char*>scratch.inputs + 16 * tiles_before(who) * scratch.input_bytes
    if inputs.ids != NULL:
        gather(k, rows, cell.H, cell.I, who.first, who.last, inputs.ids + packed, <const real*>cell.W.packed,
               <const real*>cell.b.packed, gates)
        return
    if inputs.caller == NULL or inputs.whole:
        x = <real*>inputs.packed + packed * inputs.ld
    else:
        x = <real*>inputs.packed + who.first_row * inputs.ld
    if not who.by_rows and (packs_left or inputs.caller != NULL):
        first, last = 16 * part(blocks, who.me, who.count), min(rows, 16 * part(blocks, who.me + 1, who.count))
    if inputs.caller != NULL:
        pack_inputs(s, inputs, t0, t1, packed + first, packed + last, cell.I, x + first * inputs.ld)
    left_operand(k, cell.W.form, last - first, cell.I, 0, cell.I, x + first * inputs.ld, inputs.ld,
                 own + left_bytes(cell.W.form, first, cell.I))
    if packs_left or inputs.caller != NULL:
        meet_by_units(who)
    product(k, cell.W.form, rows, cell.I, cell.W.columns, 4 * who.first, 4 * who.last,
            <const void*>own if packs_left else <const void*>x, inputs.ld, cell.W.packed, <const real*>cell.b.packed,
            gates, G)


cdef void pack_inputs(const Steps* s, const Inputs* inputs, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t first,
                      Py_ssize_t last, Py_ssize_t I, real* x) noexcept nogil:
    """The packed rows first..last, which lie in the steps t0..t1-1, from the caller's (B, T, I)."""
    cdef Py_ssize_t t, b, n
    cdef const real* row
    for t in range(t0, t1):
        for n in range(max(first, offset(s, t)), min(last, offset(s, t) + alive(s, t))):
            b = caller_row(s, n - offset(s, t))
            row = <const real*>inputs.caller + b * inputs.row + t * inputs.step
            memcpy(x + (n - first) * inputs.ld, row, I * sizeof(real))


cdef bint has_cut(const Steps* s, Py_ssize_t t, bint reverse) noexcept nogil:
    """Whether anything ends between step t and the step before it."""
    cdef Py_ssize_t b
    if s.cut != NULL:
        for b in range(alive(s, t)):
            if is_cut(s, t + 1 if reverse else t, b):
                return True
    return False


cdef const void* carry(const Kernels* k, const Steps* s, Py_ssize_t t, bint reverse, bint cut, int form,
                       const Member* who, Py_ssize_t first, Py_ssize_t last, Py_ssize_t K, Py_ssize_t width,
                       const real* rows, char* carried, real* scratch) noexcept nogil:
    """This member's rows alive at step t as the left operand of a product by weights of this form: zero where nothing
    crosses. It adds the columns first..last of K; after a meeting the whole is there.
    """
    cdef real* copy = scratch if left_bytes(form, 1, 1) else <real*>carried
    cdef Py_ssize_t row = who.first_row
    if cut:
        copy_uncut(s, t, reverse, who, first, last, width, rows, copy)
        rows = copy
    carried += left_bytes(form, 16 * tiles_before(who), K)
    return left_operand(k, form, last_alive(s, who, t) - row, K, first, last, rows + row * width, width, carried)


cdef void copy_uncut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t first, Py_ssize_t last,
                     Py_ssize_t width, const real* rows, real* copy) noexcept nogil:
    """Columns first..last of this member's rows alive at step t, zero where the step before does not reach them."""
    cdef Py_ssize_t b, size = (last - first) * sizeof(real)
    for b in range(who.first_row, last_alive(s, who, t)):
        if is_cut(s, t + 1 if reverse else t, b):
            memset(copy + b * width + first, 0, size)
        else:
            memcpy(copy + b * width + first, rows + b * width + first, size)


cdef void copy_cut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t width, const real* rows,
                   real* copy) noexcept nogil:
    """This member's units of those rows which the step before does not reach."""
    cdef Py_ssize_t b
    for b in range(who.first_row, last_alive(s, who, t)):
        if is_cut(s, t + 1 if reverse else t, b):
            memcpy(copy + b * width + who.first, rows + b * width + who.first, (who.last - who.first) * sizeof(real))


# --- backward ---------------------------------------------------------------------------------------------------------


cdef bint inputs_by_steps(const Steps* s, const Cell* cell) noexcept nogil:
    """Whether dx is computed step by step, from the operand that dgates R has there already: where both weights stay in
    the second-level cache."""
    return (s.B >= DX_BATCH and cell.W_back.form == cell.R_back.form
            and 4 * cell.H * (cell.H + cell.I) <= SMALL_WEIGHTS)


cdef void run_backward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const Member* who,
                       const Scratch* scratch, Py_ssize_t beat, real* gates, const real* c, real* dh, real* dc,
                       real* dx, bint add) noexcept nogil:
    """Gate values -> gate gradients. dh (B+N, Hp) comes with d loss / d h from above at each boundary and zero
    elsewhere; dc (B, Hp) with d loss / d (final c). Both end as the gradients of the initial state, at its boundary.

    dx (N, Ip) = dgates W, or += where `add`; NULL where input_gradients() does that (inputs_by_steps).
    """
    cdef Py_ssize_t Hp = cell.Hp, G = 4 * cell.Hp, n, t, b, source, target, rows, row = who.first_row
    cdef Py_ssize_t lanes = lanes_of(k, dh), first = 0, last = cell.Ip, every = step_beats(s, cell)
    cdef const real* c_prev
    cdef const void* operand
    cdef real* dx_t
    cdef real* dgates
    cdef bint cut
    cdef Step step = step_of(cell, who)
    if not who.by_rows:
        first = part(cell.Ip // lanes, who.me, who.count) * lanes
        last = part(cell.Ip // lanes, who.me + 1, who.count) * lanes
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
            copy_uncut(s, t, reverse, who, who.first, who.last, Hp, c_prev - row * Hp, <real*>scratch.states)
            c_prev = <real*>scratch.states + row * Hp
        step.B, step.c_prev, step.c, step.gates = rows, c_prev, <void*>(c + target * Hp), dgates
        step.dh, step.dc = dh + target * Hp, dc + row * Hp
        cell_backward(k, real is double, &step)
        if cut:
            for b in range(row, row + rows):
                if is_cut(s, t + 1 if reverse else t, b):
                    memset(dc + b * Hp + who.first, 0, (who.last - who.first) * sizeof(real))
            copy_cut(s, t, reverse, who, Hp, dh + (source - row) * Hp, <real*>scratch.states)
        operand = carry(k, s, t, reverse, False, cell.R_back.form, who, 4 * who.first, 4 * who.last, G, G,
                        <const real*>dgates - row * G, <char*>scratch.carried[n % 2], <real*>NULL)
        meet_by_units(who)
        product(k, cell.R_back.form, rows, G, Hp, who.first, who.last, operand, G, cell.R_back.packed,
                <const real*>NULL, dh + source * Hp, Hp)
        if cut:
            copy_cut(s, t, reverse, who, Hp, <const real*>scratch.states, dh + (source - row) * Hp)
        if dx != NULL:
            dx_t = dx + (offset(s, t) + row) * cell.Ip
            for b in range(0 if add else rows):
                memset(dx_t + b * cell.Ip + first, 0, (last - first) * sizeof(real))
            product(k, cell.W_back.form, rows, G, cell.Ip, first, last, operand, G, cell.W_back.packed,
                    <const real*>NULL, dx_t, cell.Ip)


cdef void weight_gradients(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const Member* who,
                           const Scratch* scratch, int form, Py_ssize_t beat, const real* dgates,
                           const Inputs* inputs, const real* h, const real* c, real* d) noexcept nogil:
    """dW = dgates' x, dR = dgates' h_prev, db = column sums, each over all N rows at once, into the flat gradients d.

    `who` is a member by units. All members come with dgates, inputs and h complete.
    """
    cdef Py_ssize_t G = 4 * cell.Hp, Hp = cell.Hp, t, first = 4 * who.first, columns = 4 * (who.last - who.first)
    cdef Py_ssize_t pieces = (Hp + GRADIENT_UNITS - 1) // GRADIENT_UNITS, n
    cdef real* wide = <real*>scratch.columns
    cdef real* previous = <real*>scratch.previous
    cdef const real* x = <const real*>inputs.packed
    cdef const int64_t* ids = inputs.ids
    if cell.at_P >= 0:
        sum_peephole_gradients(k, s, cell, reverse, who, scratch, dgates, c, d + cell.at_P)
    if s.cut == NULL and (reverse or s.sizes == NULL):
        h += s.B * Hp if reverse else 0  # packed row n starts from state row n (or B + n): no copy needed
    else:
        for t in range(part(s.T, who.me, who.count), part(s.T, who.me + 1, who.count)):
            copy_uncut(s, t, reverse, who, 0, Hp, Hp, h + slot(s, t + 1 if reverse else t) * Hp,
                       previous + offset(s, t) * Hp)
        h = previous
        meet(who.team)
    if ids != NULL:
        for t in range(cell.I):
            memset(wide + t * G + first, 0, columns * sizeof(real))
        scatter_add(k, s.N, columns, ids, dgates + first, G, wide + first, G)
        unpack_columns(k, <const real*>wide, cell.H, cell.I, who.first, who.last, d + cell.at_W)
    if form == TILES:
        gradients_of_tiles(k, s.N, cell, who, scratch, beat, dgates, x if ids == NULL else NULL, inputs.ld, h, d)
        return
    for n in range(part(2 * pieces, who.me, who.count), part(2 * pieces, who.me + 1, who.count)):
        if n < pieces and ids == NULL:
            gradients_of_piece(k, s.N, cell, who, scratch, beat, n, pieces, dgates, cell.I, x, inputs.ld,
                               d + cell.at_W, <real*>NULL)
        elif n >= pieces:
            gradients_of_piece(k, s.N, cell, who, scratch, beat, n - pieces, pieces, dgates, cell.H, h, Hp,
                               d + cell.at_R, d + cell.at_b if cell.at_b >= 0 else <real*>NULL)


cdef void sum_peephole_gradients(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const Member* who,
                                 const Scratch* scratch, const real* dgates, const real* c, real* d) noexcept nogil:
    """Of `who`'s units, step by step, into d (3, H)."""
    cdef Py_ssize_t Hp = cell.Hp, t, gate
    cdef const real* c_prev
    for gate in range(3):
        memset(d + gate * cell.H + who.first, 0, (min(who.last, cell.H) - who.first) * sizeof(real))
    for t in range(s.T):
        c_prev = c + slot(s, t + 1 if reverse else t) * Hp
        if has_cut(s, t, reverse):
            copy_uncut(s, t, reverse, who, who.first, who.last, Hp, c_prev, <real*>scratch.states)
            c_prev = <const real*>scratch.states
        peephole_gradients(k, alive(s, t), cell.H, who.first, who.last, dgates + offset(s, t) * 4 * Hp, c_prev,
                           c + slot(s, t if reverse else t + 1) * Hp, d)


cdef void gradients_of_piece(const Kernels* k, Py_ssize_t N, const Cell* cell, const Member* who,
                             const Scratch* scratch, Py_ssize_t beat, Py_ssize_t n, Py_ssize_t pieces,
                             const real* dgates, Py_ssize_t K, const real* P, Py_ssize_t ldp, real* dweights,
                             real* dbias) noexcept nogil:
    """dweights = dgates' P, P (N, K), for the nth of `pieces` pieces of the units, and their dbias, or NULL.

    How BLAS adds depends on the size of the product, so the pieces are the same for any number of members.
    """
    cdef Py_ssize_t lanes = lanes_of(k, dgates), panels = cell.Hp // lanes, G = 4 * cell.Hp
    cdef Py_ssize_t unit = panels * n // pieces * lanes, last = panels * (n + 1) // pieces * lanes
    cdef real* sums = <real*>(scratch.own + who.me * scratch.own_bytes)
    cdef Py_ssize_t block, row
    dgates += 4 * unit
    for block in range((N + PIECE_ROWS - 1) // PIECE_ROWS):
        row = block * PIECE_ROWS
        if not goes_on_alone(who.interrupt, who.me, beat):
            return
        gemm[real](True, False, 4 * (last - unit), K, min(<Py_ssize_t>PIECE_ROWS, N - row), 1, dgates + row * G, G,
                   P + row * ldp, ldp, 0 if row == 0 else 1, sums, K)
    unpack_rows(k, <const real*>sums - 4 * unit * K, cell.H, K, unit, last, dweights)
    if dbias != NULL:
        column_sums(k, N, 4 * (last - unit), dgates, G, sums)
        unpack_rows(k, <const real*>sums - 4 * unit, cell.H, 1, unit, last, dbias)


cdef void gradients_of_tiles(const Kernels* k, Py_ssize_t N, const Cell* cell, const Member* who,
                             const Scratch* scratch, Py_ssize_t beat, const real* dgates, const real* x,
                             Py_ssize_t ldx, const real* h, real* d) noexcept nogil:
    """dW += dgates' x, dR += dgates' h and db += sums of dgates, chunk by chunk of rows; x NULL where ids went in."""
    cdef Py_ssize_t I = cell.I if x != NULL else 0, H = cell.H, Hp = cell.Hp, start, rows, gate
    cdef Py_ssize_t units = min(who.last, H) - who.first, chunk
    for gate in range(4):
        memset(d + cell.at_W + (gate * H + who.first) * I, 0, units * I * sizeof(real))
        memset(d + cell.at_R + (gate * H + who.first) * H, 0, units * H * sizeof(real))
        if cell.at_b >= 0:
            memset(d + cell.at_b + gate * H + who.first, 0, units * sizeof(real))
    for chunk in range((N + GRADIENT_ROWS - 1) // GRADIENT_ROWS):
        if not goes_on(who.interrupt, who.me, beat + chunk, 1):
            return
        start = chunk * GRADIENT_ROWS
        rows = min(<Py_ssize_t>GRADIENT_ROWS, N - start)
        if start > 0:
            meet(who.team)  # nobody reads the last chunk's tiles any more
        if I > 0:
            split_share(k, who, rows, I, x + start * ldx, ldx, scratch.x_tiles)
        split_share(k, who, rows, H, h + start * Hp, Hp, scratch.h_tiles)
        meet(who.team)
        tiled_gradients(k, rows, H, who.first, who.last, dgates + start * 4 * Hp, I, scratch.x_tiles, d + cell.at_W,
                        scratch.h_tiles, d + cell.at_R, d + cell.at_b if cell.at_b >= 0 else <real*>NULL,
                        scratch.own + who.me * scratch.own_bytes)


cdef void split_share(const Kernels* k, const Member* who, Py_ssize_t K, Py_ssize_t columns, const real* P,
                      Py_ssize_t ldp, void* tiles) noexcept nogil:
    """This member's columns of P (K, columns) as tiles, in whole groups of 64 columns."""
    cdef Py_ssize_t groups = (columns + 63) // 64
    cdef Py_ssize_t first = 64 * part(groups, who.me, who.count)
    cdef Py_ssize_t last = min(columns, 64 * part(groups, who.me + 1, who.count))
    if first < last:
        split_columns(k, False, K, last - first, P + first, ldp, <char*>tiles + right_bytes(TILES, K, first, 0))


cdef void input_gradients(const Kernels* k, const Steps* s, const Cell* cell, const Member* who, const Scratch* scratch,
                          Py_ssize_t beat, const real* dgates, real* dx) noexcept nogil:
    """dx (N, Ip) += dgates W, this member's rows."""
    cdef Py_ssize_t G = 4 * cell.Hp, blocks = (s.N + DX_ROWS - 1) // DX_ROWS, block, start, rows
    cdef const void* operand
    for block in range(part(blocks, who.me, who.count), part(blocks, who.me + 1, who.count)):
        if not goes_on_alone(who.interrupt, who.me, beat):
            return
        start = block * DX_ROWS
        rows = min(<Py_ssize_t>DX_ROWS, s.N - start)
        operand = left_operand(k, cell.W_back.form, rows, G, 0, G, dgates + start * G, G,
                               scratch.own + who.me * scratch.own_bytes)
        product(k, cell.W_back.form, rows, G, cell.Ip, 0, cell.Ip, operand, G, cell.W_back.packed,
                <const real*>NULL, dx + start * cell.Ip, cell.Ip)
