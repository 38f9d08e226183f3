"""One direction of one layer over all steps, forward and backward, and the copies between the caller's order of rows
and the packed one. Boundaries, slots and packed rows are explained in _steps.pxd.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cylstm._blas cimport gemm
from cylstm._kernels cimport (
    Kernels, cell_backward, cell_forward, column_sums, gather, product, real, scatter_add, unpack_columns, unpack_rows,
)
from cylstm._steps cimport Steps, alive, caller_row, first_slot, is_cut, last_slot, offset, slot


cdef void run_forward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, bint keep,
                      Py_ssize_t chunk_rows, const real* P, const real* x, Py_ssize_t ldx,
                      const int64_t* ids, real* gates, real* h, real* c,
                      real* scratch) noexcept nogil:
    """Gates, h and c of every step. Boundary 0 (or each row's last one, in reverse) of h and c holds the initial state.

    x (N, I) or ids (N,). Without `keep`, gates holds one chunk and c one boundary, both used again and again.
    """
    cdef Py_ssize_t Hp = cell.Hp, G = 4 * cell.Hp, T = s.T, chunk_steps, t0, t1, t, n, first, rows, source, target
    cdef const real* h_prev
    cdef const real* c_prev
    cdef real* chunk
    cdef bint any_cut
    chunk_steps = max(1, min(chunk_rows, CHUNK_BYTES // (G * <Py_ssize_t>sizeof(real))) // s.B)
    cdef Py_ssize_t done = 0
    while done < T:
        t0 = max(0, T - done - chunk_steps) if reverse else done
        t1 = T - done if reverse else min(T, done + chunk_steps)
        done += t1 - t0
        first, rows = offset(s, t0), offset(s, t1) - offset(s, t0)
        chunk = gates + first * G if keep else gates
        if ids != NULL:
            gather(k, rows, cell.H, cell.I, ids + first, P + cell.W_panels, P + cell.b_panels, chunk)
        else:
            product(k, rows, cell.I, G, x + first * ldx, ldx, P + cell.W_panels, P + cell.b_panels, chunk, G)
        for n in range(t1 - t0):
            t = t1 - 1 - n if reverse else t0 + n
            source, target = slot(s, t + 1 if reverse else t), slot(s, t if reverse else t + 1)
            h_prev = h + source * Hp
            c_prev = c + source * Hp if keep else c
            if s.cut != NULL:
                any_cut = copy_uncut(s, t, reverse, Hp, h_prev, scratch)
                if any_cut:
                    copy_uncut(s, t, reverse, Hp, c_prev, scratch + s.B * Hp)
                    h_prev, c_prev = scratch, scratch + s.B * Hp
            cell_forward(k, alive(s, t), cell.H, P + cell.R_panels, h_prev, c_prev, chunk + (offset(s, t) - first) * G,
                         c + target * Hp if keep else c, h + target * Hp)


cdef bint copy_uncut(const Steps* s, Py_ssize_t t, bint reverse, Py_ssize_t width, const real* rows,
                     real* copy) noexcept nogil:
    """The rows alive at step t, zero where nothing reaches step t from the step before it. Returns whether any is."""
    cdef Py_ssize_t b
    cdef bint any_cut = False
    for b in range(alive(s, t)):
        if is_cut(s, t + 1 if reverse else t, b):
            memset(copy + b * width, 0, width * sizeof(real))
            any_cut = True
        else:
            memcpy(copy + b * width, rows + b * width, width * sizeof(real))
    return any_cut


cdef void run_backward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const real* P, real* gates,
                       const real* c, real* dh, real* dc, real* scratch) noexcept nogil:
    """Gate values -> gate gradients. dh (B+N, Hp) comes with d loss / d h from above at each boundary and zero
    elsewhere; dc (B, Hp) with d loss / d (final c). Both end as the gradients of the initial state, at its boundary.
    """
    cdef Py_ssize_t Hp = cell.Hp, G = 4 * cell.Hp, n, t, b, source, target
    cdef const real* c_prev
    cdef real* step
    for n in range(s.T):
        t = n if reverse else s.T - 1 - n
        source, target = slot(s, t + 1 if reverse else t), slot(s, t if reverse else t + 1)
        c_prev = c + source * Hp
        step = gates + offset(s, t) * G
        if s.cut != NULL and copy_uncut(s, t, reverse, Hp, c_prev, scratch):
            c_prev = scratch
        cell_backward(k, alive(s, t), cell.H, c_prev, c + target * Hp, dh + target * Hp, step, dc)
        if c_prev == scratch:
            copy_uncut(s, t, reverse, G, step, scratch + 2 * s.B * Hp)
            step = scratch + 2 * s.B * Hp
            for b in range(alive(s, t)):
                if is_cut(s, t + 1 if reverse else t, b):
                    memset(dc + b * Hp, 0, Hp * sizeof(real))
        product(k, alive(s, t), G, Hp, step, G, P + cell.R_columns, <const real*>NULL, dh + source * Hp, Hp)


cdef void weight_gradients(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const real* dgates,
                           const real* x, Py_ssize_t ldx, const int64_t* ids, const real* h, real* previous,
                           real* wide, real* d) noexcept nogil:
    """dW = dgates' x, dR = dgates' h_prev, db = column sums, each over all N rows at once, into the flat gradients d.

    Scratch: previous (N, Hp), wide (4Hp, max(I, H, 1)).
    """
    cdef Py_ssize_t G = 4 * cell.Hp, Hp = cell.Hp, t
    if ids != NULL:
        memset(wide, 0, G * cell.I * sizeof(real))
        scatter_add(k, s.N, G, ids, dgates, wide)
        unpack_columns(k, wide, cell.H, cell.I, d + cell.W)
    else:
        gemm[real](True, False, G, cell.I, s.N, 1, dgates, G, x, ldx, 0, wide, cell.I)
        unpack_rows(k, wide, cell.H, cell.I, d + cell.W)
    if s.cut == NULL and (reverse or s.sizes == NULL):
        h += s.B * Hp if reverse else 0  # packed row n starts from state row n (or B + n): no copy needed
    else:
        for t in range(s.T):
            copy_uncut(s, t, reverse, Hp, h + slot(s, t + 1 if reverse else t) * Hp, previous + offset(s, t) * Hp)
        h = previous
    gemm[real](True, False, G, cell.H, s.N, 1, dgates, G, h, Hp, 0, wide, cell.H)
    unpack_rows(k, wide, cell.H, cell.H, d + cell.R)
    if cell.b >= 0:
        column_sums(k, s.N, G, dgates, wide)
        unpack_rows(k, wide, cell.H, 1, d + cell.b)


# --- between the caller's arrays and the packed rows ------------------------------------------------------------------


cdef void place_states(const Steps* s, bint reverse, bint one_boundary, Py_ssize_t H, Py_ssize_t Hp, const real* state,
                       real* rows) noexcept nogil:
    """state (B, H) in the caller's order -> the boundary where each row begins, with zeros in the padding."""
    cdef Py_ssize_t b
    cdef real* row
    for b in range(s.B):
        row = rows + (b if one_boundary else first_slot(s, reverse, b)) * Hp
        memcpy(row, state + caller_row(s, b) * H, H * sizeof(real))
        memset(row + H, 0, (Hp - H) * sizeof(real))


cdef void fetch_states(const Steps* s, bint reverse, bint at_start, bint one_boundary, Py_ssize_t H, Py_ssize_t Hp,
                       const real* rows, real* state) noexcept nogil:
    """The boundary where each row ends (or starts) -> state (B, H) in the caller's order."""
    cdef Py_ssize_t b, n
    for b in range(s.B):
        n = b if one_boundary else first_slot(s, reverse, b) if at_start else last_slot(s, reverse, b)
        memcpy(state + caller_row(s, b) * H, rows + n * Hp, H * sizeof(real))


cdef void copy_outputs(const Steps* s, bint reverse, bint packed, Py_ssize_t H, Py_ssize_t Hp, const real* h, real* y,
                       Py_ssize_t row, Py_ssize_t step) noexcept nogil:
    """h after each step -> y, in packed rows `row` reals apart, or at y[b * row + t * step] in the caller's order."""
    cdef Py_ssize_t t, b
    cdef const real* source
    for t in range(s.T):
        source = h + slot(s, t if reverse else t + 1) * Hp
        for b in range(alive(s, t)):
            memcpy(y + ((offset(s, t) + b) * row if packed else caller_row(s, b) * row + t * step), source + b * Hp,
                   H * sizeof(real))


cdef void add_outputs(const Steps* s, bint reverse, bint packed, Py_ssize_t H, Py_ssize_t Hp, const real* dy,
                      Py_ssize_t row, Py_ssize_t step, real* dh) noexcept nogil:
    """The reverse of copy_outputs: dh at each boundary += dy."""
    cdef Py_ssize_t t, b, j
    cdef const real* source
    cdef real* target
    for t in range(s.T):
        target = dh + slot(s, t if reverse else t + 1) * Hp
        for b in range(alive(s, t)):
            source = dy + ((offset(s, t) + b) * row if packed else caller_row(s, b) * row + t * step)
            for j in range(H):
                target[j] += source[j]
            target += Hp


cdef void add_states(const Steps* s, bint reverse, Py_ssize_t H, Py_ssize_t Hp, const real* dstate,
                     real* dh) noexcept nogil:
    """dh at the boundary where each row ends += d loss / d (final h), (B, H) in the caller's order."""
    cdef Py_ssize_t b, j
    cdef real* target
    cdef const real* source
    for b in range(s.B):
        target, source = dh + last_slot(s, reverse, b) * Hp, dstate + caller_row(s, b) * H
        for j in range(H):
            target[j] += source[j]


cdef void multiply_rows(Py_ssize_t rows, Py_ssize_t width, real* y, Py_ssize_t ldy, const real* mask) noexcept nogil:
    """y (rows, width) *= mask (rows, width), the rows of y lying ldy apart."""
    cdef Py_ssize_t n, j
    for n in range(rows):
        for j in range(width):
            y[n * ldy + j] *= mask[n * width + j]
