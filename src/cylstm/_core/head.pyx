"""The linear head with its loss, for a team of threads: outputs = h weight' + bias, in chunks of rows.

Outputs of all rows never exist at once. The work is cut into pieces whose sizes do not depend on the number of threads,
so that the bits do not either; each member of the team takes its share of the pieces of each stage:

    1  outputs            h weight' + bias          pieces of rows and of columns
    2  loss, d outputs    row by row                pieces of rows
    3  dh = d outputs . weight                      pieces of rows and of columns
       dweight += d outputs' h, dbias               pieces of rows of weight
"""

import numpy as np

from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cylstm._core.blas cimport gemm
from cylstm._core.choice cimport unit_for
from cylstm._core.interrupt cimport Interrupt, begin, finish, goes_on, goes_on_alone
from cylstm._core.kernels cimport (
    BFLOAT16_TILES, BLAS, ROUNDED_TILES, TILES, active, column_sums, has_form, is_bounded, is_cut,
    largest, left_bytes, pack_left, pack_right, packs_left, product, real, right_bytes, row_loss, row_loss_named,
    tiles_hold,
)
from cylstm._core.operands cimport left_operand, right_operand, rows_from
from cylstm._core.memory cimport fitting
from cylstm._core.small_matrix cimport Panels, SmallMatrix, outputs_of, small_outputs
from cylstm._core.team cimport Team, meet, part, run, threads_for

from cylstm._core.memory import aligned_empty

cdef enum:
    # A chunk's outputs stay in the second-level cache or, where rows are long, outnumber the weights enough that
    # reading those once per chunk does not count; but they take no more than MOST_OUTPUT_BYTES.
    OUTPUT_BYTES = 1048576
    MOST_OUTPUT_BYTES = 67108864
    OUTPUT_ROWS = 64        # at least
    BLOCK_ROWS = 128       # of h; of weight and its columns, so many:
    BLOCK_OUTPUTS = 256
    ACROSS = 64            # columns of dh, of packed operands
    # Without a loss only the tiles of h need bounds: so many multiply-adds in a chunk.
    MULTIPLY_ADDS = 1 << 30
    OUTPUT_ROWS_ALONE = 256
    DEEP = 2048            # outputs, in one product of packed operands that sums over them
    # Tiles are faster than BLAS once cutting the weights into them, twice, is paid for.
    TILED_CHUNK = 64
    TILED_WIDTH = 16


def linear(const real[:, ::1] h, weight, const real[::1] bias, bint rounded=False):
    """h (N, F), weight (O, F), an array or a SmallMatrix, bias (O,) or None -> h weight' + bias, (N, O). rounded: of
    numbers rounded to bfloat16, where the processor has units for it."""
    cdef Py_ssize_t N = h.shape[0], O = outputs_of(weight)
    out = aligned_empty(N * O, np.float32 if real is float else np.float64).reshape(N, O)
    cdef real[:, ::1] view = out
    cdef Head head
    memset(&head, 0, sizeof(Head))
    if N:
        head.N, head.F, head.O = N, h.shape[1], O
        cut_outputs(&head)
        head.outputs, head.k, head.rounded = &view[0, 0], active(), rounded
        run_head(&head, h, weight, bias, 0, [], <real*>NULL)
    return out


def loss(kind, const real[:, ::1] h, weight, const real[::1] bias, targets, *,
         const real[::1] weights=None, Py_ssize_t groups=1, list spare=None, double scale=0.0,
         real[:, ::1] dh=None, real[:, ::1] dweight=None, real[::1] dbias=None, bint rounded=False):
    """Sums over rows: of w times a loss of h weight' + bias, of w, of w times hits; with dh also the gradients.

    kind: a losses.Loss. h (N, F), weight (O, F), without dh also a SmallMatrix, bias (O,) or None; w: weights (N,), 1
    where there are none. targets: from kind.converted(), (N,) int64 or (N, M) reals; that they are in range is the
    caller's to check. groups: the O outputs of a row are so many targets' outputs, one behind the other; then there are
    N * groups targets and weights. Where dh (N, F) is given, dh, dweight and dbias receive scale * d sum / d each.
    Rows go in chunks, so that (N, O) outputs never exist at once. spare: a list in which the memory of one call waits
    for the next. rounded: as for linear(). Raises ValueError for shapes that do not fit and for an unknown kernel.
    """
    cdef Py_ssize_t N = h.shape[0], O = outputs_of(weight), F = h.shape[1], item = sizeof(real), pieces
    cdef tuple width = kind.width(O // max(groups, <Py_ssize_t>1))
    cdef const int64_t[::1] classes = None if width else targets
    cdef const real[:, ::1] values = targets if width else None
    cdef const double[::1] parameters = np.array(kind.parameters, np.float64) if kind.parameters else None
    cdef double total, count, hits
    cdef Head head
    if N == 0:
        raise ValueError("h: expected at least one row, got none")
    if (groups < 1 or O % groups or targets.shape != (N * groups, *width)
            or (weights is not None and weights.shape[0] != N * groups)
            or (dh is not None and (dweight is None or dh.shape[0] != N or dh.shape[1] != F
                                    or dweight.shape[0] != O or dweight.shape[1] != F
                                    or (dbias is not None and dbias.shape[0] != O)))):
        raise ValueError(
            f"targets, weights, dh, dweight, dbias: expected shapes for h {(N, F)} and {O} outputs, got others")
    memset(&head, 0, sizeof(Head))
    take_loss(&head, kind, groups)
    head.N, head.F, head.O = N, F, O
    head.gradient, head.scale, head.rounded = dh is not None, scale, rounded
    if classes is not None:
        head.targets, head.target_bytes = <const char*>&classes[0], groups * sizeof(int64_t)
    else:
        head.targets, head.target_bytes = <const char*>&values[0, 0], groups * values.shape[1] * item
    head.weights = &weights[0] if weights is not None else NULL
    head.parameters = &parameters[0] if parameters is not None else NULL
    if dh is not None:
        head.dh, head.dweight = &dh[0, 0], &dweight[0, 0]
        head.dbias = &dbias[0] if dbias is not None else NULL
    pieces = cut_rows(&head, item)
    spare = [] if spare is None else spare
    # The memory has to outlive the reading of the sums.
    memory = run_head(&head, h, weight, bias, pieces, spare, <real*>NULL)
    sums_of(&head, pieces, &total, &count, &hits)
    if not spare:
        spare.append(memory)
    return total, count, hits


cdef int take_loss(Head* head, kind, Py_ssize_t groups) except -1:
    cdef bytes kernel = kind.kernel.encode()
    head.k, head.piece, head.groups, head.unread = active(), kind.piece, groups, not kind.reads_outputs
    head.loss = row_loss_named(head.k, kernel)
    if head.loss.f32 == NULL:
        raise ValueError(f"kernel: expected a loss of kernels.def, got {kind.kernel!r}")
    return 0


cdef Py_ssize_t cut_rows(Head* head, Py_ssize_t item) noexcept nogil:
    cdef Py_ssize_t row = head.O * item, wanted
    wanted = min(max(<Py_ssize_t>OUTPUT_BYTES // row, 2 * head.F), <Py_ssize_t>MOST_OUTPUT_BYTES // row)
    wanted = max(<Py_ssize_t>OUTPUT_ROWS, wanted) // head.piece * head.piece
    head.chunk = min(head.N, max(head.piece, wanted))
    return (head.N + head.piece - 1) // head.piece


cdef void cut_outputs(Head* head) noexcept nogil:
    cdef Py_ssize_t wanted = MULTIPLY_ADDS // (head.F * head.O) // BLOCK_ROWS * BLOCK_ROWS
    head.chunk = min(head.N, max(<Py_ssize_t>OUTPUT_ROWS_ALONE, wanted))


cdef int form_of(const Head* head, const real* type_tag) noexcept nogil:
    if head.chunk < TILED_CHUNK or head.F < TILED_WIDTH or head.O < TILED_WIDTH:
        return BLAS
    if head.rounded and has_form(BFLOAT16_TILES, type_tag):
        return ROUNDED_TILES
    if (has_form(TILES, type_tag) and tiles_hold(largest(head.k, head.N, head.F, <const real*>head.h, head.F))
            and tiles_hold(largest(head.k, head.O, head.F, <const real*>head.weight, head.F))):
        return TILES
    return BLAS


cdef Py_ssize_t lay_out_head(Head* head, int members, Py_ssize_t pieces, bint outputs, Py_ssize_t item,
                             char* memory) noexcept nogil:
    cdef Py_ssize_t chunk = head.chunk, F = head.F, O = head.O, h_right = 0, d_left = 0, at_outputs = 0
    cdef Py_ssize_t h_left = left_bytes(head.form, chunk, F)
    head.own_bytes = max(BLOCK_OUTPUTS * item * (1 if head.packed == NULL else <Py_ssize_t>BLOCK_ROWS),
                         right_bytes(head.form, F, BLOCK_OUTPUTS, item))
    if head.gradient:
        h_right, d_left = right_bytes(head.form, chunk, F, item), left_bytes(head.form, chunk, min(O, <Py_ssize_t>DEEP))
        head.own_bytes = max(head.own_bytes, left_bytes(head.form, BLOCK_OUTPUTS, chunk),
                             right_bytes(head.form, min(O, <Py_ssize_t>DEEP), ACROSS, item))
    if outputs:
        at_outputs = (chunk * O * item + 63) // 64 * 64
    if memory != NULL:
        if outputs:
            head.outputs = memory
        head.h_left = memory + at_outputs
        head.h_right = head.h_left + h_left
        head.d_left = head.h_right + h_right
        head.own = head.d_left + d_left
        head.losses = <double*>(head.own + members * head.own_bytes)
        head.counts, head.hits, head.most = head.losses + pieces, head.losses + 2 * pieces, head.losses + 3 * pieces
    return at_outputs + h_left + h_right + d_left + members * head.own_bytes + 32 * pieces


cdef void sums_of(const Head* head, Py_ssize_t pieces, double* total, double* count, double* hits) noexcept nogil:
    cdef Py_ssize_t n
    total[0] = count[0] = hits[0] = 0
    for n in range(pieces):
        total[0], count[0], hits[0] = total[0] + head.losses[n], count[0] + head.counts[n], hits[0] + head.hits[n]


cdef run_head(Head* head, const real[:, ::1] h, given, const real[::1] bias, Py_ssize_t pieces, list spare,
              real* type_tag):
    """pieces: so many sums, for which there is no room yet, nor for outputs; or 0. Returns the memory."""
    cdef SmallMatrix small = given if real is float and isinstance(given, SmallMatrix) else None
    cdef const real[:, ::1] weight = given if small is None else None
    cdef Panels panels
    cdef Py_ssize_t N = h.shape[0], F = h.shape[1], O = outputs_of(given), item = sizeof(real)
    if ((weight.shape[1] if small is None else small.F) != F or (bias is not None and bias.shape[0] != O)
            or (head.gradient and small is not None)):
        raise ValueError(f"weight, bias: expected {(O, F)} and {(O,)} for h {(N, F)}, got others")
    cdef double work = <double>head.chunk * F * O
    cdef int members = threads_for(work * (3 if head.gradient else 1), work, 256)
    head.h, head.weight = &h[0, 0], &weight[0, 0] if small is None else NULL
    if small is None:
        head.form = form_of(head, type_tag)
    else:
        panels = small.panels()
        head.k, head.form = panels.k, unit_for(small.small, head.chunk, F)
        head.packed, head.padded = panels.packed, panels.padded
    cdef const unsigned char[::1] zeros = np.zeros(max(F, O) * item, np.uint8)
    kept = None
    if spare:
        try:
            kept = spare.pop()
        except IndexError:
            pass  # without the GIL, another thread may have come in between
    memory = fitting(kept, lay_out_head(head, members, pieces, pieces > 0, item, NULL))
    cdef unsigned char[::1] view = memory
    lay_out_head(head, members, pieces, pieces > 0, item, <char*>&view[0])
    head.zeros = &zeros[0]
    head.bias = &bias[0] if bias is not None else head.zeros
    cdef Interrupt interrupt
    begin(&interrupt)
    head.interrupt = &interrupt
    with nogil:
        run(members, head_f32 if real is float else head_f64, head)
    finish(&interrupt)
    return memory


cdef void head_f32(void* head, int me, int count, Team* team) noexcept nogil:
    head_member(<const Head*>head, me, count, team, <float*>NULL)

cdef void head_f64(void* head, int me, int count, Team* team) noexcept nogil:
    head_member(<const Head*>head, me, count, team, <double*>NULL)


cdef void head_member(const Head* p, int me, int count, Team* team, real* type_tag) noexcept nogil:
    """What one member does: chunk after chunk, its share of each stage.

    A chunk may take seconds, so that Ctrl-C is heard between pieces: the rest of them is left out, and the next chunk.
    """
    cdef Py_ssize_t n, start, rows
    cdef int form
    for n in range((p.N + p.chunk - 1) // p.chunk):
        if not goes_on(p.interrupt, me, n, 1):
            return
        start = n * p.chunk
        rows = min(p.chunk, p.N - start)
        if packs_left(p.form):
            pack_h(p, start, rows, me, count, type_tag)
            meet(team)
        if not p.unread:
            outputs_share(p, start, rows, me, count, type_tag)
        if p.piece:
            meet(team)
            losses_share(p, start, rows, me, count, type_tag)
        if p.gradient:
            meet(team)
            form = p.form if holds_d(p, start, rows) else BLAS
            dh_share(p, form, start, rows, me, count, team, type_tag)
            dweight_share(p, form, start, rows, me, count, type_tag)
        meet(team)  # the next chunk's outputs and packed operands go where these are


# C (rows, columns) = start + A (rows, K) . P (K, columns), with both packed in a form that is cut, or for BLAS as they
# lie, transposed where it says so. start: (columns), p.zeros for 0, or NULL for what C holds.
cdef inline void multiply(const Head* p, int form, bint transposed_a, bint transposed_p, Py_ssize_t rows, Py_ssize_t K,
                          Py_ssize_t columns, const void* A, Py_ssize_t lda, const void* P, Py_ssize_t ldp,
                          const real* start, real* C, Py_ssize_t ldc) noexcept nogil:
    cdef Py_ssize_t n
    cdef bint of_zeros = start == <const real*>p.zeros
    if form != BLAS:
        product(p.k, form, rows, K, columns, 0, columns, A, lda, P, start, C, ldc)
        return
    if start != NULL and not of_zeros:
        for n in range(rows):
            memcpy(C + n * ldc, start, columns * sizeof(real))
    gemm[real](transposed_a, transposed_p, rows, columns, K, 1, <const real*>A, lda, <const real*>P, ldp,
               0 if of_zeros else 1, C, ldc)


cdef void pack_h(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count, real* type_tag) noexcept nogil:
    """h as the left operand of outputs and, for dweight, as the right one."""
    cdef const real* h = <const real*>p.h + start * p.F
    cdef Py_ssize_t down = (rows + 15) // 16, across = (p.F + 63) // 64, first, last
    first, last = 16 * part(down, me, count), min(rows, 16 * part(down, me + 1, count))
    if first < last:
        pack_left(p.k, p.form, False, last - first, p.F, 0, p.F, h + first * p.F, p.F, 0,
                  p.h_left + left_bytes(p.form, first, p.F))
    first, last = 64 * part(across, me, count), min(p.F, 64 * part(across, me + 1, count))
    if p.gradient and first < last:
        pack_right(p.k, p.form, False, rows, last - first, h + first, p.F,
                   p.h_right + right_bytes(p.form, rows, first, 0))


cdef void outputs_share(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count,
                        real* type_tag) noexcept nogil:
    cdef const real* h = <const real*>p.h + start * p.F
    cdef const void* P = NULL
    cdef real* outputs = <real*>p.outputs + (0 if p.piece else start * p.O)
    cdef Py_ssize_t down = (rows + BLOCK_ROWS - 1) // BLOCK_ROWS, across = (p.O + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS
    cdef Py_ssize_t piece, r, o, height, width, of_P = -1
    for piece in range(part(down * across, me, count), part(down * across, me + 1, count)):
        r, o = piece % down * BLOCK_ROWS, piece // down * BLOCK_OUTPUTS
        height, width = min(<Py_ssize_t>BLOCK_ROWS, rows - r), min(<Py_ssize_t>BLOCK_OUTPUTS, p.O - o)
        if not goes_on_alone(p.interrupt, me, start // p.chunk):
            return
        if p.packed != NULL:
            small_outputs(p.k, p.form, height, p.F, p.padded, o, width, rows_from(p.form, r, h, p.F, p.h_left, p.F),
                          p.packed, <const float*>p.bias + (0 if p.bias == p.zeros else o),
                          <float*>(p.own + me * p.own_bytes), <float*>outputs + r * p.O + o, p.O)
            continue
        if of_P != o:  # these outputs' weights serve all pieces of rows
            P = right_operand(p.k, p.form, True, p.F, width, <const real*>p.weight + o * p.F, p.F,
                              p.own + me * p.own_bytes)
            of_P = o
        multiply(p, p.form, False, True, height, p.F, width, rows_from(p.form, r, h, p.F, p.h_left, p.F), p.F, P, p.F,
                 <const real*>p.bias + (0 if p.bias == p.zeros else o), outputs + r * p.O + o, p.O)


cdef void losses_share(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count,
                       real* type_tag) noexcept nogil:
    cdef Py_ssize_t pieces = (rows + p.piece - 1) // p.piece, piece, r, height, n
    cdef real* z
    cdef const real* weights
    for piece in range(part(pieces, me, count), part(pieces, me + 1, count)):
        r = piece * p.piece
        height, n = min(p.piece, rows - r), start // p.piece + piece
        z = <real*>p.outputs + r * p.O
        weights = <const real*>p.weights + (start + r) * p.groups if p.weights != NULL else NULL
        p.counts[n] = p.hits[n] = 0
        p.losses[n] = row_loss(p.loss, height * p.groups, p.O // p.groups, z,
                               p.targets + (start + r) * p.target_bytes, weights, p.parameters, <real>p.scale,
                               p.gradient, &p.counts[n], &p.hits[n])
        if is_bounded(p.form) and p.gradient:
            p.most[n] = largest(p.k, height, p.O, z, p.O)


cdef bint holds_d(const Head* p, Py_ssize_t start, Py_ssize_t rows) noexcept nogil:
    """Whether the form holds a chunk's d outputs: every member finds the same."""
    cdef double most = 0
    cdef Py_ssize_t n
    if not is_bounded(p.form):
        return True
    for n in range(start // p.piece, start // p.piece + (rows + p.piece - 1) // p.piece):
        most = max(most, p.most[n])
    return tiles_hold(most)


cdef void dh_share(const Head* p, int form, Py_ssize_t start, Py_ssize_t rows, int me, int count, Team* team,
                   real* type_tag) noexcept nogil:
    """Packed operands DEEP outputs at a time, which are few enough for the cache."""
    cdef bint cut = is_cut(form)
    cdef Py_ssize_t most_deep = min(p.O, <Py_ssize_t>DEEP) if cut else p.O
    cdef Py_ssize_t most_high = rows if cut else min(rows, <Py_ssize_t>BLOCK_ROWS)
    cdef Py_ssize_t most_wide = ACROSS if cut else BLOCK_OUTPUTS
    cdef Py_ssize_t down = (rows + most_high - 1) // most_high, across = (p.F + most_wide - 1) // most_wide
    cdef Py_ssize_t tall = (rows + 15) // 16, n, piece, r, o, f, deep, height, width
    cdef Py_ssize_t first = 16 * part(tall, me, count), last = min(rows, 16 * part(tall, me + 1, count))
    cdef const real* z
    cdef const void* P
    for n in range((p.O + most_deep - 1) // most_deep):
        o = n * most_deep
        z, deep = <const real*>p.outputs + o, min(most_deep, p.O - o)
        if cut:
            if o > 0:
                meet(team)  # nobody reads the last ones any more
            if first < last:
                pack_left(p.k, form, False, last - first, deep, 0, deep, z + first * p.O, p.O, 0,
                          p.d_left + left_bytes(form, first, deep))
            meet(team)
        for piece in range(part(down * across, me, count), part(down * across, me + 1, count)):
            r, f = piece % down * most_high, piece // down * most_wide
            height, width = min(most_high, rows - r), min(most_wide, p.F - f)
            if not goes_on_alone(p.interrupt, me, start // p.chunk):
                break  # but meet the others
            P = right_operand(p.k, form, False, deep, width, <const real*>p.weight + o * p.F + f, p.F,
                              p.own + me * p.own_bytes)
            multiply(p, form, False, False, height, deep, width, rows_from(form, r, z, p.O, p.d_left, deep), p.O, P,
                     p.F, <const real*>p.zeros if o == 0 else <const real*>NULL, <real*>p.dh + (start + r) * p.F + f,
                     p.F)


cdef void dweight_share(const Head* p, int form, Py_ssize_t start, Py_ssize_t rows, int me, int count,
                        real* type_tag) noexcept nogil:
    cdef Py_ssize_t pieces = (p.O + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS, piece, o, width, j
    cdef char* own = p.own + me * p.own_bytes
    cdef const void* h = <const real*>p.h + start * p.F
    cdef const void* dz
    cdef const real* z
    cdef real* dbias
    cdef real* sums = <real*>own
    if is_cut(form):
        h = p.h_right
    for piece in range(part(pieces, me, count), part(pieces, me + 1, count)):
        o = piece * BLOCK_OUTPUTS
        width = min(<Py_ssize_t>BLOCK_OUTPUTS, p.O - o)
        if not goes_on_alone(p.interrupt, me, start // p.chunk):
            return
        z = <const real*>p.outputs + o
        dz = left_operand(p.k, form, True, width, rows, 0, rows, z, p.O, 0, own)
        multiply(p, form, True, False, width, rows, p.F, dz, p.O, h, p.F,
                 <const real*>p.zeros if start == 0 else <const real*>NULL, <real*>p.dweight + o * p.F, p.F)
        if p.dbias != NULL:
            dbias = <real*>p.dbias + o
            column_sums(p.k, rows, width, z, p.O, sums)
            for j in range(width):
                dbias[j] = sums[j] if start == 0 else dbias[j] + sums[j]
