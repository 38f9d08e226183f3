"""Copies between the caller's order of rows and the packed one (ragged.pxd): before and after the steps, initial and
final states, the gradients of outputs and inputs, padding; and at each step, what goes in, what comes out, and
what `resets` cut off.

Every function is called by all members of a team at once and does its member's part.
"""

from libc.string cimport memcpy, memset

from cylstm._core.direction cimport CONCAT, MEAN, PRODUCT, SUM, Direction, Inputs, Outputs
from cylstm._core.kernels cimport Kernels, left_bytes, pack_left, packs_left, real
from cylstm._core.ragged cimport Steps, alive, caller_row, first_slot, is_cut, last_slot, length, offset, slot
from cylstm._core.team cimport Member, last_alive, part, tiles_before


cdef inline Py_ssize_t slot_of(const Steps* s, bint reverse, Boundary boundary, Py_ssize_t b) noexcept nogil:
    """Where the state of packed row b lies."""
    return b if boundary == ONLY else first_slot(s, reverse, b) if boundary == FIRST else last_slot(s, reverse, b)


cdef inline void begin_anew(const real* first, Py_ssize_t at, Py_ssize_t size, real* row) noexcept nogil:
    """So many bytes of a row, from `at` on, as of one that begins: first (Hp,), or zeros for NULL."""
    if first != NULL:
        memcpy(row + at, first + at, size)
    else:
        memset(row + at, 0, size)


cdef void place_states(const Steps* s, bint reverse, Boundary boundary, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                       const real* state, Py_ssize_t ld, const real* first, real* rows) noexcept nogil:
    """state (B, H) in the caller's order, rows `ld` apart -> each row's boundary, zeros in the padding. For NULL it is
    first (Hp,) in each row, or zeros."""
    cdef Py_ssize_t b, last = min(who.last, H)
    cdef real* row
    for b in range(who.first_row, who.last_row):
        row = rows + slot_of(s, reverse, boundary, b) * Hp
        if state == NULL:
            begin_anew(first, who.first, (who.last - who.first) * sizeof(real), row)
            continue
        place_row(who, last, state + caller_row(s, b) * ld, row)


cdef void fetch_states(const Steps* s, bint reverse, Boundary boundary, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                       const real* rows, Py_ssize_t ld, real* state) noexcept nogil:
    """Each row's boundary -> state (B, ld) in the caller's order, 0 beyond H."""
    cdef Py_ssize_t b
    for b in range(who.first_row, who.last_row):
        fetch_row(who, H, Hp, rows + slot_of(s, reverse, boundary, b) * Hp, ld, state + caller_row(s, b) * ld)


cdef void clear_padding(const Steps* s, int me, int count, Py_ssize_t width, Py_ssize_t row, Py_ssize_t step,
                        real* y) noexcept nogil:
    """y (B, T, width) in the caller's order = 0 past the end of each row, this member's share of the rows."""
    cdef Py_ssize_t b, t, steps = 1
    for b in range(part(s.B, me, count), part(s.B, me + 1, count)):
        t = length(s, b)
        if step == width:
            steps = max(1, s.T - t)  # they lie one after the other
        while t < s.T:
            memset(y + caller_row(s, b) * row + t * step, 0, steps * width * sizeof(real))
            t += steps


cdef void start_gradients(const Steps* s, bint reverse, bint packed, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                          const real* dy, Py_ssize_t row, Py_ssize_t step, const real* mask, Py_ssize_t mask_row,
                          bint per_row, real* dh) noexcept nogil:
    """The reverse of copying outputs: dh at each boundary = dy, and zero where no step ends."""
    cdef Py_ssize_t t, b, j, at, last = min(who.last, H), size = (who.last - who.first) * sizeof(real)
    cdef real* target
    cdef const real* kept
    for b in range(who.first_row, who.last_row):
        memset(dh + first_slot(s, reverse, b) * Hp + who.first, 0, size)
    for t in range(s.T):
        target = dh + (slot(s, t if reverse else t + 1) + who.first_row) * Hp
        for b in range(who.first_row, last_alive(s, who, t)):
            at = (offset(s, t) + b) * row if packed else caller_row(s, b) * row + t * step
            memcpy(target + who.first, dy + at + who.first, (last - who.first) * sizeof(real))
            if mask != NULL:
                kept = mask + (caller_row(s, b) if per_row else offset(s, t) + b) * mask_row
                for j in range(who.first, last):
                    target[j] *= kept[j]
            memset(target + last, 0, (who.last - last) * sizeof(real))
            target += Hp


cdef void add_states(const Steps* s, bint reverse, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* dstate,
                     Py_ssize_t ld, real* dh) noexcept nogil:
    """dh at the boundary where each row ends += d loss / d (final h), (B, H) in the caller's order, rows `ld` apart."""
    cdef Py_ssize_t b, j
    cdef real* target
    cdef const real* source
    for b in range(who.first_row, who.last_row):
        target, source = dh + last_slot(s, reverse, b) * Hp, dstate + caller_row(s, b) * ld
        for j in range(who.first, min(who.last, H)):
            target[j] += source[j]


cdef void give_input_gradients(const Steps* s, int me, int count, const Direction* direction, const real* dx,
                               const real* mask, bint packed, Py_ssize_t row, Py_ssize_t step,
                               real* caller) noexcept nogil:
    """dx (N, Ip) packed -> the caller's (B, T, I), or (N, I), this member's share of the steps."""
    cdef Py_ssize_t t, b, i, at, I = direction.I
    cdef const real* kept
    for t in range(part(s.T, me, count), part(s.T, me + 1, count)):
        for b in range(alive(s, t)):
            at = (offset(s, t) + b) * row if packed else caller_row(s, b) * row + t * step
            memcpy(caller + at, dx + (offset(s, t) + b) * direction.Ip, I * sizeof(real))
            if mask != NULL:
                kept = mask + caller_row(s, b) * I
                for i in range(I):
                    caller[at + i] *= kept[i]


# --- step by step ---


cdef void copy_outputs(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* h,
                       const real* gates, const Outputs* outputs) noexcept nogil:
    """h of this member's rows after step t, while it is in the cache. gates (., Hp): of a highway, or NULL."""
    cdef Py_ssize_t b, j, at, last = min(who.last, H), row = outputs.row
    cdef real* y = <real*>outputs.y
    cdef const real* kept
    if outputs.finishes:
        finish_outputs(s, t, who, H, Hp, h, gates, outputs)
        return
    for b in range(who.first_row, last_alive(s, who, t)):
        at = (offset(s, t) + b) * row if outputs.packed else caller_row(s, b) * row + t * outputs.step
        if outputs.mask == NULL:
            memcpy(y + at + who.first, h + who.first, (last - who.first) * sizeof(real))
        else:
            kept = <const real*>outputs.mask + (caller_row(s, b) * row if outputs.per_row else at)
            for j in range(who.first, last):
                y[at + j] = h[j] * kept[j]
        h += Hp


cdef void finish_outputs(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t H, Py_ssize_t Hp, const real* h,
                         const real* gates, const Outputs* outputs) noexcept nogil:
    """The same where more becomes of h than a copy: y = mask (merge(y, h) + skip), or gate h + (1 - gate) skip."""
    cdef Py_ssize_t b, j, at, row = outputs.row
    cdef int merge = outputs.merge
    cdef real value
    cdef real* y
    cdef real* plain
    cdef const real* kept
    cdef const real* skip
    for b in range(who.first_row, last_alive(s, who, t)):
        at = (offset(s, t) + b) * row if outputs.packed else caller_row(s, b) * row + t * outputs.step
        y = <real*>outputs.y + at
        plain = <real*>outputs.plain + at if outputs.plain != NULL else NULL
        skip = <const real*>outputs.skip + (offset(s, t) + b) * outputs.skip_row if outputs.skip != NULL else NULL
        kept = NULL
        if outputs.mask != NULL:
            kept = <const real*>outputs.mask + (caller_row(s, b) * row if outputs.per_row else at)
        for j in range(who.first, min(who.last, H)):
            value = h[j]
            if merge == PRODUCT:
                value = y[j] * value
            elif merge != CONCAT:
                value = y[j] + value if merge == SUM else (y[j] + value) / 2
            if gates != NULL:
                value = skip[j] + gates[j] * (value - skip[j])
            elif skip != NULL:
                value += skip[j]
            if plain != NULL:
                plain[j] = value
            y[j] = value * kept[j] if kept != NULL else value
        h += Hp
        if gates != NULL:
            gates += Hp


cdef void part_gradients(const Steps* s, bint reverse, int merge, const Member* who, Py_ssize_t H, Py_ssize_t Hp,
                         const real* other, real* dh) noexcept nogil:
    """dh at each boundary, which has dy of merged outputs, becomes that of one direction: dy / 2 of a mean, dy times
    the other direction's h of a product."""
    cdef Py_ssize_t t, _b, j
    cdef real* target
    cdef const real* factor
    for t in range(s.T if merge == MEAN or merge == PRODUCT else 0):
        target = dh + (slot(s, t if reverse else t + 1) + who.first_row) * Hp
        factor = other + (slot(s, t + 1 if reverse else t) + who.first_row) * Hp
        for _b in range(who.first_row, last_alive(s, who, t)):
            for j in range(who.first, min(who.last, H)):
                target[j] *= factor[j] if merge == PRODUCT else <real>0.5
            target += Hp
            factor += Hp


cdef void sum_gradients(const Steps* s, int me, int count, Py_ssize_t width, bint packed, const real* dy,
                        Py_ssize_t row, Py_ssize_t step, const real* mask, bint per_row, bint add,
                        real* sums) noexcept nogil:
    """sums (N, width) packed = dy, or += mask * dy where `add`, this member's share of the steps."""
    cdef Py_ssize_t t, b, j, n
    cdef const real* source
    cdef const real* kept
    cdef real* target
    for t in range(part(s.T, me, count), part(s.T, me + 1, count)):
        for b in range(alive(s, t)):
            n = offset(s, t) + b
            source = dy + (n * row if packed else caller_row(s, b) * row + t * step)
            target = sums + n * width
            if not add:
                memcpy(target, source, width * sizeof(real))
                continue
            kept = mask + (caller_row(s, b) if per_row else n) * width if mask != NULL else NULL
            for j in range(width):
                target[j] += source[j] * kept[j] if kept != NULL else source[j]


cdef void pack_inputs(const Steps* s, const Inputs* inputs, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t first,
                      Py_ssize_t last, Py_ssize_t I, real* x) noexcept nogil:
    """The packed rows first..last, which lie in the steps t0..t1-1, from the caller's (B, T, I)."""
    cdef Py_ssize_t t, b, n, i
    cdef const real* row
    cdef const real* kept
    for t in range(t0, t1):
        for n in range(max(first, offset(s, t)), min(last, offset(s, t) + alive(s, t))):
            b = caller_row(s, n - offset(s, t))
            row = <const real*>inputs.caller + b * inputs.row + t * inputs.step
            if inputs.mask == NULL:
                memcpy(x + (n - first) * inputs.ld, row, I * sizeof(real))
            else:
                kept = <const real*>inputs.mask + b * I
                for i in range(I):
                    x[(n - first) * inputs.ld + i] = row[i] * kept[i]


cdef void copy_uncut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t first, Py_ssize_t last,
                     Py_ssize_t width, const real* rows, const real* anew, real* copy) noexcept nogil:
    """Columns first..last of this member's rows alive at step t; of those that the step before does not reach, what
    they begin anew with (width,), or zeros for NULL."""
    cdef Py_ssize_t b, size = (last - first) * sizeof(real)
    for b in range(who.first_row, last_alive(s, who, t)):
        if is_cut(s, t + 1 if reverse else t, b):
            begin_anew(anew, first, size, copy + b * width)
        else:
            memcpy(copy + b * width + first, rows + b * width + first, size)


cdef void copy_cut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t width, const real* rows,
                   real* copy) noexcept nogil:
    """This member's units of those rows which the step before does not reach."""
    cdef Py_ssize_t b
    for b in range(who.first_row, last_alive(s, who, t)):
        if is_cut(s, t + 1 if reverse else t, b):
            memcpy(copy + b * width + who.first, rows + b * width + who.first, (who.last - who.first) * sizeof(real))


cdef void clear_cut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t width,
                    real* rows) noexcept nogil:
    """The same = 0."""
    cdef Py_ssize_t b
    for b in range(who.first_row, last_alive(s, who, t)):
        if is_cut(s, t + 1 if reverse else t, b):
            memset(rows + b * width + who.first, 0, (who.last - who.first) * sizeof(real))


cdef void add_cut(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t width, const real* rows,
                  real* sums) noexcept nogil:
    """sums += the same."""
    cdef Py_ssize_t b, j
    for b in range(who.first_row, last_alive(s, who, t)):
        if is_cut(s, t + 1 if reverse else t, b):
            for j in range(b * width + who.first, b * width + who.last):
                sums[j] += rows[j]


cdef void copy_masked(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t first, Py_ssize_t last,
                      Py_ssize_t H, Py_ssize_t width, const real* rows, const real* mask, const real* anew,
                      real* copy) noexcept nogil:
    """copy_uncut() times the mask (B, H), in the caller's order; 0 in the padding."""
    cdef Py_ssize_t b, j, end = min(last, H)
    cdef const real* kept
    cdef const real* source
    for b in range(who.first_row, last_alive(s, who, t)):
        source = anew if is_cut(s, t + 1 if reverse else t, b) else rows + b * width
        if source == NULL:
            memset(copy + b * width + first, 0, (last - first) * sizeof(real))
            continue
        kept = mask + caller_row(s, b) * H
        for j in range(first, end):
            copy[b * width + j] = source[j] * kept[j]
        memset(copy + b * width + end, 0, (last - end) * sizeof(real))


cdef void set_aside(const Steps* s, Py_ssize_t t, const Member* who, Py_ssize_t width, real* rows,
                    real* copy) noexcept nogil:
    """This member's units of its rows alive at step t, which are 0 then: for a sum that is to be masked."""
    cdef Py_ssize_t b, size = (who.last - who.first) * sizeof(real)
    for b in range(who.first_row, last_alive(s, who, t)):
        memcpy(copy + b * width + who.first, rows + b * width + who.first, size)
        memset(rows + b * width + who.first, 0, size)


cdef void add_masked(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t H, Py_ssize_t width,
                     const real* copy, const real* mask, real* sums, real* rows) noexcept nogil:
    """rows = what was set aside + mask * rows. Where the step before is not reached, mask * rows are the first state's:
    they are added to `sums`, or nothing for NULL."""
    cdef Py_ssize_t b, j
    cdef const real* kept
    for b in range(who.first_row, last_alive(s, who, t)):
        kept = mask + caller_row(s, b) * H
        if is_cut(s, t + 1 if reverse else t, b):
            if sums != NULL:
                for j in range(who.first, min(who.last, H)):
                    sums[b * width + j] += kept[j] * rows[b * width + j]
            memcpy(rows + b * width + who.first, copy + b * width + who.first, (who.last - who.first) * sizeof(real))
            continue
        for j in range(who.first, min(who.last, H)):
            rows[b * width + j] = copy[b * width + j] + kept[j] * rows[b * width + j]


cdef void add_masked_gates(const Steps* s, Py_ssize_t t, bint reverse, const Member* who, Py_ssize_t H,
                           Py_ssize_t width, const real* parts, const real* masks, real* sums,
                           real* rows) noexcept nogil:
    """rows += the sum of masks (4, B, H), in the caller's order, times parts (4, B, width). What add_masked() gives to
    the first state goes there."""
    cdef Py_ssize_t b, j, of_mask = s.B * H, of_part = s.B * width
    cdef const real* kept
    cdef const real* found
    cdef real* to
    for b in range(who.first_row, last_alive(s, who, t)):
        kept, found = masks + caller_row(s, b) * H, parts + b * width
        to = (sums if is_cut(s, t + 1 if reverse else t, b) else rows)
        if to == NULL:
            continue
        to += b * width
        for j in range(who.first, min(who.last, H)):
            to[j] += ((kept[j] * found[j] + kept[of_mask + j] * found[of_part + j])
                      + (kept[2 * of_mask + j] * found[2 * of_part + j]
                         + kept[3 * of_mask + j] * found[3 * of_part + j]))


cdef const void* carry(const Kernels* k, const Steps* s, Py_ssize_t t, bint reverse, bint cut, int form,
                       const Member* who, Py_ssize_t first, Py_ssize_t last, Py_ssize_t K, Py_ssize_t width,
                       const real* rows, const real* mask, const real* anew, char* carried,
                       real* scratch) noexcept nogil:
    """This member's rows alive at step t as the left operand of a product by weights of this form: where nothing
    crosses, `anew`, as copy_uncut has it; times the mask (B, K) or, with NULL, as they are. It adds the columns
    first..last of K; after a meeting the whole is there.
    """
    cdef real* copy = scratch if packs_left(form) else <real*>carried
    cdef Py_ssize_t row = who.first_row
    if mask != NULL:
        copy_masked(s, t, reverse, who, first, last, K, width, rows, mask, anew, copy)
        rows = copy
    elif cut:
        copy_uncut(s, t, reverse, who, first, last, width, rows, anew, copy)
        rows = copy
    if not packs_left(form):
        return rows + row * width
    carried += left_bytes(form, 16 * tiles_before(who), K)
    pack_left(k, form, False, last_alive(s, who, t) - row, K, first, last, rows + row * width, width, <real>1, carried)
    return carried
