"""What follows from the gates' gradients of all steps together: the gradients of one direction's weights, and of its
inputs where backward.pyx has not made them step by step; and the gradient of an embedding.

Every function but embedding_gradient is called by all members of a team at once and does its member's part.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cylstm._core.blas cimport gemm
from cylstm._core.choice cimport TILED_INPUTS
from cylstm._core.direction cimport Direction, Inputs, Scratch, by_gates
from cylstm._core.interrupt cimport goes_on, goes_on_alone
from cylstm._core.kernels cimport (
    PANELS, Kernels, Norm, active, column_sums, is_cut, lanes_of, pack_right, peephole_gradients, product, real,
    right_bytes, scatter_add, unpack_columns, unpack_rows, weight_gradients as gradients_of_rows,
)
from cylstm._core.operands cimport left_operand
from cylstm._core.ragged cimport Steps, alive, first_slot, offset, slot
from cylstm._core.packed_rows cimport copy_masked, copy_uncut, has_cut
from cylstm._core.team cimport Member, Team, meet, part, run, threads_for

cdef enum:
    BLAS_ROWS = 16384    # rows of one product of BLAS, at most: nothing interrupts it


cdef void weight_gradients(const Kernels* k, const Steps* s, const Direction* direction, bint reverse,
                           const Member* who, const Scratch* scratch, int form, Py_ssize_t beat, const real* dgates,
                           const Inputs* inputs, const real* u, const real* fresh, const real* h, const real* c,
                           const real* dh, real* d) noexcept nogil:
    """dW = dgates' x, dR = dgates' h_prev, db = column sums, with a projection dR_p = dh' u, each over all N rows, into
    the flat gradients d; h_prev is masked where it was. With layer norms, dgates are gradients by x W' alone, dR is of
    those by h R', and db has been summed step by step.

    `who` is a member by units. All members come with dgates, inputs, u, h and dh complete.
    """
    cdef Py_ssize_t G = 4 * direction.Hp, Yp = direction.Yp, t, first = 4 * who.first
    cdef Py_ssize_t columns = 4 * (who.last - who.first), gate
    cdef real* wide = <real*>scratch.columns
    cdef real* previous = <real*>scratch.previous
    cdef const real* x = <const real*>inputs.packed
    cdef const int64_t* ids = inputs.ids
    cdef const real* by_h = dgates
    cdef real* db = d + direction.at_b if direction.at_b >= 0 else <real*>NULL
    cdef Py_ssize_t h_apart = s.N * Yp if by_gates(direction) else 0
    if direction.at_norm_x >= 0:
        by_h, db = <const real*>direction.norm.h, <real*>NULL
        norm_gradients(k, s.B, direction, who, d)
    if direction.at_P >= 0:
        sum_peephole_gradients(k, s, direction, reverse, who, scratch, dgates, fresh, c, d + direction.at_P)
    if direction.at_proj >= 0:
        projection_gradients(k, s, direction, reverse, who, scratch, beat, u, dh, d + direction.at_proj)
    if direction.mask == NULL and s.cut == NULL and (reverse or s.sizes == NULL):
        h += s.B * Yp if reverse else 0  # packed row n starts from state row n (or B + n): no copy needed
    else:
        for t in range(part(s.T, who.me, who.count), part(s.T, who.me + 1, who.count)):
            for gate in range(direction.masks if direction.mask != NULL else 0):
                copy_masked(s, t, reverse, who, 0, Yp, direction.Y, Yp, h + slot(s, t + 1 if reverse else t) * Yp,
                            <const real*>direction.mask + gate * s.B * direction.Y, <const real*>direction.h0.packed,
                            previous + (gate * s.N + offset(s, t)) * Yp)
            if direction.mask == NULL:
                copy_uncut(s, t, reverse, who, 0, Yp, Yp, h + slot(s, t + 1 if reverse else t) * Yp,
                           <const real*>direction.h0.packed, previous + offset(s, t) * Yp)
        h = previous
        meet(who.team)
    if ids != NULL:
        for t in range(direction.I):
            memset(wide + t * G + first, 0, columns * sizeof(real))
        scatter_add(k, s.N, columns, ids, dgates + first, G, wide + first, G)
        unpack_columns(k, <const real*>wide, direction.H, direction.I, who.first, who.last, d + direction.at_W)
    gradients_by_rows(k, form, s.N, direction, who, scratch, beat, dgates, by_h, x if ids == NULL else NULL, inputs.ld,
                      h, h_apart, d, db)


cdef void projection_gradients(const Kernels* k, const Steps* s, const Direction* direction, bint reverse,
                               const Member* who, const Scratch* scratch, Py_ssize_t beat, const real* u,
                               const real* dh, real* d) noexcept nogil:
    """dR_p (P, H) = dh' u."""
    cdef Py_ssize_t H = direction.H, Hp = direction.Hp, Y = direction.Y, Yp = direction.Yp, lanes = lanes_of(k, u), t
    cdef real* packed = <real*>scratch.dh_packed
    if reverse and s.sizes != NULL:
        for t in range(part(s.T, who.me, who.count), part(s.T, who.me + 1, who.count)):
            memcpy(packed + offset(s, t) * Yp, dh + slot(s, t) * Yp, alive(s, t) * Yp * sizeof(real))
        dh = packed
        meet(who.team)
    else:
        dh += 0 if reverse else s.B * Yp  # packed row n ends in state row B + n (or n)
    summed_products(who, beat, s.N, Y, H, lanes, <const real*>dh, Yp, u, Hp, d)


cdef void summed_products(const Member* who, Py_ssize_t beat, Py_ssize_t N, Py_ssize_t rows, Py_ssize_t columns,
                          Py_ssize_t lanes, const real* left, Py_ssize_t ldl, const real* right, Py_ssize_t ldr,
                          real* d) noexcept nogil:
    """d (rows, columns) = left' right of N rows, some columns after the others. How BLAS adds depends on the size of
    the product, so the pieces are the same for any number of members."""
    cdef Py_ssize_t panels = (columns + lanes - 1) // lanes, first, width, n, block, row
    cdef Py_ssize_t pieces = (panels * lanes + GRADIENT_UNITS - 1) // GRADIENT_UNITS
    for n in range(part(pieces, who.me, who.count), part(pieces, who.me + 1, who.count)):
        first = panels * n // pieces * lanes
        width = min(columns, panels * (n + 1) // pieces * lanes) - first
        if N == 0:  # rows of length 0 alone
            for row in range(rows):
                memset(d + row * columns + first, 0, width * sizeof(real))
        for block in range((N + BLAS_ROWS - 1) // BLAS_ROWS):
            row = block * BLAS_ROWS
            if not goes_on_alone(who.interrupt, who.me, beat):
                return
            gemm[real](True, False, rows, width, min(<Py_ssize_t>BLAS_ROWS, N - row), 1, left + row * ldl, ldl,
                       right + row * ldr + first, ldr, 0 if row == 0 else 1, d + first, columns)


cdef void norm_gradients(const Kernels* k, Py_ssize_t B, const Direction* direction, const Member* who,
                         real* d) noexcept nogil:
    """Of layer norms' gains and shift, and of the bias, `who`'s units: sums over rows of what each has gathered at its
    steps, made in a row of their own behind those."""
    cdef const Norm* norm = &direction.norm
    cdef Py_ssize_t H = direction.H, Hp = direction.Hp, first = who.first, last = who.last, n
    cdef real* rows = <real*>norm.sums
    cdef real* sums = rows + B * norm.sums_row
    cdef Py_ssize_t[3] starts = [0, 4 * Hp, 10 * Hp]
    cdef Py_ssize_t[3] targets = [direction.at_norm_x, direction.at_norm_h, direction.at_b]
    for n in range(2 if direction.at_b < 0 else 3):
        column_sums(k, B, 4 * (last - first), <const real*>rows + starts[n] + 4 * first, norm.sums_row,
                    sums + starts[n] + 4 * first)
        unpack_rows(k, <const real*>sums + starts[n], H, 1, first, last, d + targets[n])
    for n in range(2):
        column_sums(k, B, last - first, <const real*>rows + (8 + n) * Hp + first, norm.sums_row,
                    sums + (8 + n) * Hp + first)
        memcpy(d + direction.at_norm_c + n * H + first, sums + (8 + n) * Hp + first,
               (min(last, H) - first) * sizeof(real))


cdef void sum_peephole_gradients(const Kernels* k, const Steps* s, const Direction* direction, bint reverse,
                                 const Member* who, const Scratch* scratch, const real* dgates, const real* fresh,
                                 const real* c, real* d) noexcept nogil:
    """Of `who`'s units, step by step, into d (3, H)."""
    cdef Py_ssize_t Hp = direction.Hp, t, gate
    cdef const real* c_prev
    cdef const real* c_seen
    for gate in range(3):
        memset(d + gate * direction.H + who.first, 0, (min(who.last, direction.H) - who.first) * sizeof(real))
    for t in range(s.T):
        c_prev = c + slot(s, t + 1 if reverse else t) * Hp
        if has_cut(s, t, reverse):
            copy_uncut(s, t, reverse, who, who.first, who.last, Hp, c_prev, <const real*>direction.c0.packed,
                       <real*>scratch.states)
            c_prev = <const real*>scratch.states
        c_seen = fresh + offset(s, t) * Hp if direction.zone_c > 0 else c + slot(s, t if reverse else t + 1) * Hp
        peephole_gradients(k, alive(s, t), direction.H, who.first, who.last, dgates + offset(s, t) * 4 * Hp, c_prev,
                           c_seen, d)


cdef void first_state_gradients(const Steps* s, const Direction* direction, bint reverse, const Member* who,
                                const Member* of_h, const Scratch* scratch, const real* dh, const real* dc,
                                real* d) noexcept nogil:
    """dh0 (Y,) and dc0 (H,), the shares of `of_h` and `who`, a member by units: sums over rows of the gradients at cuts
    and, unless NULL, at their beginnings: dh (B+N, Yp) at the first boundaries, dc (B, Hp)."""
    cdef Py_ssize_t Hp = direction.Hp, Yp = direction.Yp, b
    cdef Py_ssize_t last = min(who.last, direction.H), last_h = min(of_h.last, direction.Y)
    cdef real* dh0 = d + direction.at_h0
    cdef real* dc0 = d + direction.at_c0
    memset(dh0 + of_h.first, 0, max(0, last_h - of_h.first) * sizeof(real))
    memset(dc0 + who.first, 0, (last - who.first) * sizeof(real))
    for b in range(s.B):
        if scratch.cut_h != NULL:
            add_row(of_h.first, last_h, <const real*>scratch.cut_h + b * Yp, dh0)
            add_row(who.first, last, <const real*>scratch.cut_c + b * Hp, dc0)
        if dh != NULL:
            add_row(of_h.first, last_h, dh + first_slot(s, reverse, b) * Yp, dh0)
        if dc != NULL:
            add_row(who.first, last, dc + b * Hp, dc0)


cdef inline void add_row(Py_ssize_t first, Py_ssize_t last, const real* row, real* sums) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(first, last):
        sums[j] += row[j]


cdef void gradients_by_rows(const Kernels* k, int form, Py_ssize_t N, const Direction* direction, const Member* who,
                            const Scratch* scratch, Py_ssize_t beat, const real* dgates, const real* by_h,
                            const real* x, Py_ssize_t ldx, const real* h, Py_ssize_t h_apart, real* d,
                            real* db) noexcept nogil:
    """dW = dgates' x, dR = by_h' h and db = sums of dgates, chunk by chunk of rows. No dW where x is NULL, no db where
    that is. h_apart: reals from one gate's h to the next one's, 0 where they are the same."""
    cdef Py_ssize_t I = direction.I if x != NULL else 0, H = direction.H, Y = direction.Y, G = 4 * direction.Hp, start
    cdef Py_ssize_t units = min(who.last, H) - who.first, chunk, rows, gate, apart = h_apart * sizeof(real)
    # Tiles of dgates serve dR, too, but with layer norms: they would cost more than few columns of x take.
    cdef int form_of_x = PANELS if by_h != dgates and I < TILED_INPUTS else form
    cdef char* own = scratch.own + who.me * scratch.own_bytes
    cdef const void* x_now
    cdef const void* h_now
    for gate in range(4):
        memset(d + direction.at_W + (gate * H + who.first) * I, 0, units * I * sizeof(real))
        memset(d + direction.at_R + (gate * H + who.first) * Y, 0, units * Y * sizeof(real))
        if db != NULL:
            memset(db + gate * H + who.first, 0, units * sizeof(real))
    for chunk in range((N + GRADIENT_ROWS - 1) // GRADIENT_ROWS):
        start = chunk * GRADIENT_ROWS
        rows = min(<Py_ssize_t>GRADIENT_ROWS, N - start)
        x_now, h_now = x + start * ldx if I > 0 else NULL, h + start * direction.Yp
        if is_cut(form):
            if not goes_on(who.interrupt, who.me, beat + chunk, 1):
                return
            if start > 0:
                meet(who.team)  # nobody reads the last chunk's operands any more
            if I > 0 and is_cut(form_of_x):
                pack_share(k, form, who, rows, I, <const real*>x_now, ldx, scratch.x_packed)
                x_now = scratch.x_packed
            apart = right_bytes(form, rows, H, 0) if h_apart else 0
            for gate in range(4 if h_apart else 1):
                pack_share(k, form, who, rows, H, <const real*>h_now + gate * h_apart, direction.Yp,
                           <char*>scratch.h_packed + gate * apart)
            h_now = scratch.h_packed
            meet(who.team)
        elif not goes_on_alone(who.interrupt, who.me, beat):
            return
        if by_h != dgates and I > 0:
            gradients_of_rows(k, form_of_x, rows, H, who.first, who.last, dgates + start * G, I, x_now, ldx,
                              d + direction.at_W, Y, NULL, 0, 0, <real*>NULL, <real*>NULL, own)
        gradients_of_rows(k, form, rows, H, who.first, who.last, by_h + start * G, I if by_h == dgates else 0, x_now,
                          ldx, d + direction.at_W, Y, h_now, direction.Yp, apart, d + direction.at_R, db, own)


cdef void pack_share(const Kernels* k, int form, const Member* who, Py_ssize_t K, Py_ssize_t columns, const real* P,
                     Py_ssize_t ldp, void* out) noexcept nogil:
    """This member's columns of P (K, columns) as a right operand, in whole groups of 64 columns."""
    cdef Py_ssize_t groups = (columns + 63) // 64
    cdef Py_ssize_t first = 64 * part(groups, who.me, who.count)
    cdef Py_ssize_t last = min(columns, 64 * part(groups, who.me + 1, who.count))
    if first < last:
        pack_right(k, form, False, K, last - first, P + first, ldp, <char*>out + right_bytes(form, K, first, 0))


cdef void input_gradients(const Kernels* k, const Steps* s, const Direction* direction, const Member* who,
                          const Scratch* scratch, Py_ssize_t beat, const real* dgates, real* dx) noexcept nogil:
    """dx (N, Ip) += dgates W, this member's rows."""
    cdef Py_ssize_t G = 4 * direction.Hp, blocks = (s.N + DX_ROWS - 1) // DX_ROWS, block, start, rows
    cdef const void* operand
    for block in range(part(blocks, who.me, who.count), part(blocks, who.me + 1, who.count)):
        if not goes_on_alone(who.interrupt, who.me, beat):
            return
        start = block * DX_ROWS
        rows = min(<Py_ssize_t>DX_ROWS, s.N - start)
        operand = left_operand(k, direction.W_back.form, False, rows, G, 0, G, dgates + start * G, G, <real>0,
                               scratch.own + who.me * scratch.own_bytes)
        product(k, direction.W_back.form, rows, G, direction.Ip, 0, direction.Ip, operand, G, direction.W_back.packed,
                <const real*>NULL, dx + start * direction.Ip, direction.Ip)


# --- the gradient of an embedding -------------------------------------------------------------------------------------

cdef enum:
    COLUMNS = 64         # to one member at least
    EMBEDDING_COST = 20  # of one element in multiply-adds (team.pyx), being read from memory

# Each member takes some columns of all rows, so that nobody adds where another one does.
cdef struct Scatter:
    const Kernels* k
    Py_ssize_t V, E, N
    const int64_t* ids
    const void* rows
    void* out
    bint add


def embedding_gradient(real[:, ::1] out, const int64_t[::1] ids, const real[:, ::1] rows, bint add=False):
    """out (V, E) = the sums of the rows (N, E)[n] with ids[n] = v, in the order of n, and 0 where there are none; or
    added to what is there."""
    cdef Scatter s
    s.add = add
    s.k, s.V, s.E, s.N, s.out = active(), out.shape[0], out.shape[1], ids.shape[0], &out[0, 0]
    s.ids, s.rows = &ids[0] if s.N else NULL, &rows[0, 0] if s.N else NULL
    with nogil:
        run(threads_for(<double>EMBEDDING_COST * (s.V + s.N) * s.E, 1e9, (s.E + COLUMNS - 1) // COLUMNS),
            scatter_f32 if real is float else scatter_f64, &s)


cdef void scatter_f32(void* s, int me, int count, Team* team) noexcept nogil:
    scatter_share(<const Scatter*>s, me, count, <float*>NULL)

cdef void scatter_f64(void* s, int me, int count, Team* team) noexcept nogil:
    scatter_share(<const Scatter*>s, me, count, <double*>NULL)


cdef void scatter_share(const Scatter* s, int me, int count, real* type_tag) noexcept nogil:
    cdef Py_ssize_t pieces = (s.E + COLUMNS - 1) // COLUMNS, v
    cdef Py_ssize_t first = COLUMNS * part(pieces, me, count), last = min(s.E, COLUMNS * part(pieces, me + 1, count))
    for v in range(0 if s.add else s.V):
        memset(<real*>s.out + v * s.E + first, 0, (last - first) * sizeof(real))
    if s.N:
        scatter_add(s.k, s.N, last - first, s.ids, <const real*>s.rows + first, s.E, <real*>s.out + first, s.E)
