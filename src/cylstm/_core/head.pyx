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
from cylstm._core.interrupt cimport Interrupt, begin, finish, goes_on, goes_on_alone
from cylstm._core.kernels cimport (
    TILES, Kernels, RowLoss, active, column_sums, has_tiles, largest, left_bytes, product, real, right_bytes, row_loss,
    row_loss_named, split_columns, split_rows, tiles_hold,
)
from cylstm._core.memory cimport fitting
from cylstm._core.team cimport Team, meet, part, run, threads_for

from cylstm.parameters import aligned_empty

cdef enum:
    # A chunk's outputs stay in the second-level cache or, where rows are long, outnumber the weights enough that
    # reading those once per chunk does not count; but they take no more than MOST_OUTPUT_BYTES.
    OUTPUT_BYTES = 1048576
    MOST_OUTPUT_BYTES = 67108864
    OUTPUT_ROWS = 64        # at least
    BLOCK_ROWS = 128       # of h; of weight and its columns, so many:
    BLOCK_OUTPUTS = 256
    # Without a loss only the tiles of h need bounds: so many multiply-adds in a chunk.
    MULTIPLY_ADDS = 1 << 30
    OUTPUT_ROWS_ALONE = 256
    DEEP = 2048            # outputs, in one product of tiles that sums over them
    # Tiles are faster than BLAS once cutting the weights into them, twice, is paid for.
    TILED_CHUNK = 64
    TILED_WIDTH = 16

# One call. Arrays are of the same real type, row-major; h (N, F), weight (O, F).
cdef struct Head:
    Interrupt* interrupt
    const Kernels* k
    RowLoss loss            # NULLs: outputs are all that is wanted
    Py_ssize_t piece        # rows that the loss gets at a time; chunks are whole pieces
    bint gradient
    bint tiled              # d outputs, which come to be within, decide chunk by chunk whether they are
    Py_ssize_t N, F, O
    Py_ssize_t chunk        # rows
    const void* h
    const void* weight
    const void* bias        # (O,), zeros where there is none
    const char* targets     # rows of so many bytes
    Py_ssize_t target_bytes
    const void* weights     # (N,), or NULL
    const double* parameters
    double scale
    void* outputs           # (chunk, O); without a loss, (N, O)
    void* dh                # (N, F)
    void* dweight           # (O, F)
    void* dbias             # (O,), or NULL
    double* losses          # sums of each piece of rows
    double* counts          # of weights
    double* hits
    double* most            # of d outputs, the largest
    const void* zeros       # (max(F, O),)
    char* h_rows            # tiles of a chunk: h as left and as right operand, DEEP columns of d outputs
    char* h_columns
    char* d_rows
    char* own               # of each member: a piece of weight, or of d outputs, as tiles or as sums
    Py_ssize_t own_bytes


def linear(const real[:, ::1] h, const real[:, ::1] weight, const real[::1] bias):
    """h (N, F), weight (O, F), bias (O,) or None -> h weight' + bias, (N, O)."""
    cdef Py_ssize_t N = h.shape[0], O = weight.shape[0], wanted
    out = aligned_empty(N * O, np.float32 if real is float else np.float64).reshape(N, O)
    cdef real[:, ::1] view = out
    cdef Head head
    memset(&head, 0, sizeof(Head))
    if N:
        wanted = MULTIPLY_ADDS // (h.shape[1] * O) // BLOCK_ROWS * BLOCK_ROWS
        head.outputs, head.chunk = &view[0, 0], min(N, max(<Py_ssize_t>OUTPUT_ROWS_ALONE, wanted))
        head.k = active()
        run_head(&head, h, weight, bias, 0, [], <real*>NULL)
    return out


def loss(kind, const real[:, ::1] h, const real[:, ::1] weight, const real[::1] bias, targets, *,
         const real[::1] weights=None, list spare=None, double scale=0.0,
         real[:, ::1] dh=None, real[:, ::1] dweight=None, real[::1] dbias=None):
    """Sums over rows: of w times a loss of h weight' + bias, of w, of w times hits; with dh also the gradients.

    kind: a losses.Loss. h (N, F), weight (O, F), bias (O,) or None; w: weights (N,), 1 where there are none.
    targets: from kind.converted(), (N,) int64 or (N, M) reals; that they are in range is the caller's to check.
    Where dh (N, F) is given, dh, dweight and dbias receive scale * d sum / d each.
    Rows go in chunks, so that (N, O) outputs never exist at once. spare: a list in which the memory of one call waits
    for the next. Raises ValueError for shapes that do not fit and for a kernel that there is not.
    """
    cdef Py_ssize_t N = h.shape[0], O = weight.shape[0], F = h.shape[1], item = sizeof(real), n, wanted, pieces
    cdef tuple width = kind.width(O)
    cdef const int64_t[::1] classes = None if width else targets
    cdef const real[:, ::1] values = targets if width else None
    cdef const double[::1] parameters = np.array(kind.parameters, np.float64) if kind.parameters else None
    cdef bytes kernel = kind.kernel.encode()
    cdef Head head
    if N == 0:
        raise ValueError("h: expected at least one row, got none")
    if (targets.shape != (N, *width) or (weights is not None and weights.shape[0] != N)
            or (dh is not None and (dweight is None or dh.shape[0] != N or dh.shape[1] != F
                                    or dweight.shape[0] != O or dweight.shape[1] != F
                                    or (dbias is not None and dbias.shape[0] != O)))):
        raise ValueError(
            f"targets, weights, dh, dweight, dbias: expected shapes for h {(N, F)} and {O} outputs, got others")
    memset(&head, 0, sizeof(Head))
    head.k, head.piece = active(), kind.piece
    head.loss = row_loss_named(head.k, kernel)
    if head.loss.f32 == NULL:
        raise ValueError(f"kernel: expected a loss of kernels.def, got {kind.kernel!r}")
    head.gradient, head.scale = dh is not None, scale
    if classes is not None:
        head.targets, head.target_bytes = <const char*>&classes[0], sizeof(int64_t)
    else:
        head.targets, head.target_bytes = <const char*>&values[0, 0], values.shape[1] * item
    head.weights = &weights[0] if weights is not None else NULL
    head.parameters = &parameters[0] if parameters is not None else NULL
    if dh is not None:
        head.dh, head.dweight = &dh[0, 0], &dweight[0, 0]
        head.dbias = &dbias[0] if dbias is not None else NULL
    wanted = min(max(<Py_ssize_t>OUTPUT_BYTES // (O * item), 2 * F), <Py_ssize_t>MOST_OUTPUT_BYTES // (O * item))
    head.chunk = min(N, max(head.piece, max(<Py_ssize_t>OUTPUT_ROWS, wanted) // head.piece * head.piece))
    pieces = (N + head.piece - 1) // head.piece
    spare = [] if spare is None else spare
    # The memory has to outlive the reading of the sums.
    memory = run_head(&head, h, weight, bias, pieces, spare, <real*>NULL)
    cdef double total = 0, count = 0, hits = 0
    for n in range(pieces):
        total, count, hits = total + head.losses[n], count + head.counts[n], hits + head.hits[n]
    if not spare:
        spare.append(memory)
    return total, count, hits


cdef run_head(Head* head, const real[:, ::1] h, const real[:, ::1] weight, const real[::1] bias,
              Py_ssize_t pieces, list spare, real* type_tag):
    """pieces: so many sums, for which there is no room yet, nor for outputs; or 0. Returns the memory."""
    cdef Py_ssize_t N = h.shape[0], F = h.shape[1], O = weight.shape[0], chunk = head.chunk, item = sizeof(real)
    cdef Py_ssize_t tiles_of_h = 0, tiles_of_columns = 0, tiles_of_d = 0
    if weight.shape[1] != F or (bias is not None and bias.shape[0] != O):
        raise ValueError(f"weight, bias: expected {(O, F)} and {(O,)} for h {(N, F)}, got others")
    cdef double work = <double>chunk * F * O
    cdef int members = threads_for(work * (3 if head.gradient else 1), work, 256)
    head.N, head.F, head.O = N, F, O
    head.tiled = (has_tiles(head.k, type_tag) and chunk >= TILED_CHUNK and F >= TILED_WIDTH and O >= TILED_WIDTH
                  and tiles_hold(largest(head.k, N, F, &h[0, 0], F))
                  and tiles_hold(largest(head.k, O, F, &weight[0, 0], F)))
    if head.tiled:
        tiles_of_h = left_bytes(TILES, chunk, F)
        head.own_bytes = right_bytes(TILES, F, BLOCK_OUTPUTS, 0)
        if head.gradient:
            tiles_of_columns = right_bytes(TILES, chunk, F, 0)
            tiles_of_d = left_bytes(TILES, chunk, min(O, <Py_ssize_t>DEEP))
            head.own_bytes = max(right_bytes(TILES, max(F, chunk), BLOCK_OUTPUTS, 0),
                                 right_bytes(TILES, min(O, <Py_ssize_t>DEEP), 64, 0))
    else:
        head.own_bytes = BLOCK_OUTPUTS * item
    cdef const unsigned char[::1] zeros = np.zeros(max(F, O) * item, np.uint8) if head.tiled or bias is None else None
    cdef Py_ssize_t outputs = (chunk * O * item + 63) // 64 * 64 if pieces else 0
    kept = None
    if spare:
        try:
            kept = spare.pop()
        except IndexError:
            pass  # without the GIL, another thread may have come in between
    memory = fitting(kept, outputs + tiles_of_h + tiles_of_columns + tiles_of_d + members * head.own_bytes
                     + 32 * pieces)
    cdef unsigned char[::1] view = memory
    head.zeros = &zeros[0] if zeros is not None else NULL
    if pieces:
        head.outputs = &view[0]
    head.h_rows = <char*>&view[0] + outputs
    head.h_columns = head.h_rows + tiles_of_h
    head.d_rows = head.h_columns + tiles_of_columns
    head.own = head.d_rows + tiles_of_d
    head.losses = <double*>(head.own + members * head.own_bytes)
    head.counts = head.losses + pieces
    head.hits = head.counts + pieces
    head.most = head.hits + pieces
    head.h, head.weight = &h[0, 0], &weight[0, 0]
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
    cdef bint tiled
    for n in range((p.N + p.chunk - 1) // p.chunk):
        if not goes_on(p.interrupt, me, n, 1):
            return
        start = n * p.chunk
        rows = min(p.chunk, p.N - start)
        if p.tiled:
            split_h(p, start, rows, me, count, type_tag)
            meet(team)
        outputs_share(p, start, rows, me, count, type_tag)
        if p.piece:
            meet(team)
            losses_share(p, start, rows, me, count, type_tag)
        if p.gradient:
            meet(team)
            tiled = p.tiled and d_fits_tiles(p, start, rows)
            if tiled:
                dh_of_tiles(p, start, rows, me, count, team, type_tag)
            else:
                dh_share(p, start, rows, me, count, type_tag)
            dweight_share(p, tiled, start, rows, me, count, type_tag)
        meet(team)  # the next chunk's outputs and tiles go where these are


cdef void split_h(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count, real* type_tag) noexcept nogil:
    """h as the left operand of outputs and, for dweight, as the right one."""
    cdef const real* h = <const real*>p.h + start * p.F
    cdef Py_ssize_t tiles = (rows + 15) // 16, groups = (p.F + 63) // 64, first, last
    first, last = 16 * part(tiles, me, count), min(rows, 16 * part(tiles, me + 1, count))
    if first < last:
        split_rows(p.k, False, last - first, p.F, 0, p.F, h + first * p.F, p.F,
                   p.h_rows + left_bytes(TILES, first, p.F))
    first, last = 64 * part(groups, me, count), min(p.F, 64 * part(groups, me + 1, count))
    if p.gradient and first < last:
        split_columns(p.k, False, rows, last - first, h + first, p.F, p.h_columns + right_bytes(TILES, rows, first, 0))


cdef void outputs_share(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count,
                        real* type_tag) noexcept nogil:
    cdef const real* h = <const real*>p.h + start * p.F
    cdef const real* weight
    cdef const real* bias
    cdef real* outputs = <real*>p.outputs + (0 if p.piece else start * p.O)
    cdef real* z
    cdef char* own = p.own + me * p.own_bytes
    cdef Py_ssize_t down = (rows + BLOCK_ROWS - 1) // BLOCK_ROWS, across = (p.O + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS
    cdef Py_ssize_t piece, r, o, n, height, width, cut = -1
    for piece in range(part(down * across, me, count), part(down * across, me + 1, count)):
        r, o = piece % down * BLOCK_ROWS, piece // down * BLOCK_OUTPUTS
        height, width = min(<Py_ssize_t>BLOCK_ROWS, rows - r), min(<Py_ssize_t>BLOCK_OUTPUTS, p.O - o)
        if not goes_on_alone(p.interrupt, me, start // p.chunk):
            return
        weight, bias = <const real*>p.weight + o * p.F, <const real*>p.bias + o
        z = outputs + r * p.O + o
        if p.tiled:
            if cut != o:  # these outputs' weights serve all pieces of rows
                split_columns(p.k, True, p.F, width, weight, p.F, own)
                cut = o
            product(p.k, TILES, height, p.F, width, 0, width, p.h_rows + left_bytes(TILES, r, p.F), 0, own, bias, z,
                    p.O)
        else:
            for n in range(height):
                memcpy(z + n * p.O, bias, width * sizeof(real))
            gemm[real](False, True, height, width, p.F, 1, h + r * p.F, p.F, weight, p.F, 1, z, p.O)


cdef void losses_share(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count,
                       real* type_tag) noexcept nogil:
    cdef Py_ssize_t pieces = (rows + p.piece - 1) // p.piece, piece, r, height, n
    cdef real* z
    cdef const real* weights
    for piece in range(part(pieces, me, count), part(pieces, me + 1, count)):
        r = piece * p.piece
        height, n = min(p.piece, rows - r), start // p.piece + piece
        z = <real*>p.outputs + r * p.O
        weights = <const real*>p.weights + start + r if p.weights != NULL else NULL
        p.counts[n] = p.hits[n] = 0
        p.losses[n] = row_loss(p.loss, height, p.O, z, p.targets + (start + r) * p.target_bytes, weights, p.parameters,
                               <real>p.scale, p.gradient, &p.counts[n], &p.hits[n])
        if p.tiled and p.gradient:
            p.most[n] = largest(p.k, height, p.O, z, p.O)


cdef bint d_fits_tiles(const Head* p, Py_ssize_t start, Py_ssize_t rows) noexcept nogil:
    """Whether tiles hold a chunk's d outputs: every member finds the same."""
    cdef double most = 0
    cdef Py_ssize_t n
    for n in range(start // p.piece, start // p.piece + (rows + p.piece - 1) // p.piece):
        most = max(most, p.most[n])
    return tiles_hold(most)


cdef void dh_share(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count, real* type_tag) noexcept nogil:
    cdef Py_ssize_t down = (rows + BLOCK_ROWS - 1) // BLOCK_ROWS, across = (p.F + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS
    cdef Py_ssize_t piece, r, f
    for piece in range(part(down * across, me, count), part(down * across, me + 1, count)):
        r, f = piece % down * BLOCK_ROWS, piece // down * BLOCK_OUTPUTS
        if not goes_on_alone(p.interrupt, me, start // p.chunk):
            return
        gemm[real](False, False, min(<Py_ssize_t>BLOCK_ROWS, rows - r), min(<Py_ssize_t>BLOCK_OUTPUTS, p.F - f), p.O, 1,
                   <const real*>p.outputs + r * p.O, p.O, <const real*>p.weight + f, p.F, 0,
                   <real*>p.dh + (start + r) * p.F + f, p.F)


cdef void dh_of_tiles(const Head* p, Py_ssize_t start, Py_ssize_t rows, int me, int count, Team* team,
                      real* type_tag) noexcept nogil:
    """DEEP outputs at a time: their tiles and those of their weights are few enough for the cache."""
    cdef const real* z = <const real*>p.outputs
    cdef real* dh = <real*>p.dh + start * p.F
    cdef char* own = p.own + me * p.own_bytes
    cdef Py_ssize_t tiles = (rows + 15) // 16, groups = (p.F + 63) // 64, n, o, f, deep, width, first, last
    first, last = 16 * part(tiles, me, count), min(rows, 16 * part(tiles, me + 1, count))
    for n in range((p.O + DEEP - 1) // DEEP):
        o = n * DEEP
        deep = min(<Py_ssize_t>DEEP, p.O - o)
        if o > 0:
            meet(team)  # nobody reads the last tiles any more
        if first < last:
            split_rows(p.k, False, last - first, deep, 0, deep, z + first * p.O + o, p.O,
                       p.d_rows + left_bytes(TILES, first, deep))
        meet(team)
        for f in range(64 * part(groups, me, count), min(p.F, 64 * part(groups, me + 1, count)), 64):
            width = min(<Py_ssize_t>64, p.F - f)
            if not goes_on_alone(p.interrupt, me, start // p.chunk):
                break  # but meet the others
            split_columns(p.k, False, deep, width, <const real*>p.weight + o * p.F + f, p.F, own)
            product(p.k, TILES, rows, deep, width, 0, width, p.d_rows, 0, own,
                    <const real*>p.zeros if o == 0 else <const real*>NULL, dh + f, p.F)


cdef void dweight_share(const Head* p, bint tiled, Py_ssize_t start, Py_ssize_t rows, int me, int count,
                        real* type_tag) noexcept nogil:
    cdef Py_ssize_t pieces = (p.O + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS, piece, o, width, j
    cdef char* own = p.own + me * p.own_bytes
    cdef const real* h = <const real*>p.h + start * p.F
    cdef const real* z
    cdef real* dweight
    cdef real* dbias
    cdef real* sums = <real*>own
    for piece in range(part(pieces, me, count), part(pieces, me + 1, count)):
        o = piece * BLOCK_OUTPUTS
        width = min(<Py_ssize_t>BLOCK_OUTPUTS, p.O - o)
        if not goes_on_alone(p.interrupt, me, start // p.chunk):
            return
        z, dweight = <const real*>p.outputs + o, <real*>p.dweight + o * p.F
        if tiled:
            split_rows(p.k, True, width, rows, 0, rows, z, p.O, own)
            product(p.k, TILES, width, rows, p.F, 0, p.F, own, 0, p.h_columns,
                    <const real*>p.zeros if start == 0 else <const real*>NULL, dweight, p.F)
        else:
            gemm[real](True, False, width, p.F, rows, 1, z, p.O, h, p.F, 0 if start == 0 else 1, dweight, p.F)
        if p.dbias != NULL:
            dbias = <real*>p.dbias + o
            column_sums(p.k, rows, width, z, p.O, sums)
            for j in range(width):
                dbias[j] = sums[j] if start == 0 else dbias[j] + sums[j]
