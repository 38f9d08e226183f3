/* C = start + A . P over packed panels, used for x.W', h.R', dgates.R and dgates.W; and product(), which takes the one that
 * the form of P asks for.
 *
 * A block of ROWS rows and PANELS * VECTORS vectors of columns stays in registers while k runs. The three numbers are
 * compile-time constants and each block is a function of its own: only then does the compiler unroll the block fully
 * and keep every accumulator in a register (GCC 12 spills them otherwise, at half the speed). */

INLINE void NAME(block)(const int ROWS, const int PANELS, const int VECTORS, ptrdiff_t K, const REAL *restrict A,
                       ptrdiff_t lda, const REAL *restrict P, ptrdiff_t step, ptrdiff_t panel_size,
                       ptrdiff_t ahead, const REAL *restrict bias, REAL *restrict C, ptrdiff_t ldc)
{
    VECTOR acc[BLOCK_ROWS][8];
    const int width = PANELS * VECTORS;
    UNROLL
    for (int r = 0; r < ROWS; r++)
        UNROLL
        for (int j = 0; j < width; j++) acc[r][j] = NAME(load)((bias ? bias : C + r * ldc) + j * LANES);
    for (ptrdiff_t k = 0; k < K; k++) {
        __builtin_prefetch(P + ahead, 0, 2); /* into the second-level cache */
        VECTOR a[BLOCK_ROWS]; /* one load of each: GCC 12 would load them anew for every vector of columns */
        UNROLL
        for (int r = 0; r < ROWS; r++) a[r] = NAME(splat)(A[r * lda + k]);
        UNROLL
        for (int j = 0; j < width; j++) {
            const VECTOR w = NAME(load)(P + (j / VECTORS) * panel_size + (j % VECTORS) * LANES);
            UNROLL
            for (int r = 0; r < ROWS; r++) acc[r][j] = NAME(add_product)(acc[r][j], w, a[r]);
        }
        P += step;
    }
    UNROLL
    for (int r = 0; r < ROWS; r++)
        UNROLL
        for (int j = 0; j < width; j++) NAME(store)(C + r * ldc + j * LANES, acc[r][j]);
}

#define DEFINE_BLOCK(ROWS, PANELS, VECTORS)                                                                     \
    static __attribute__((noinline)) void NAME(block_##ROWS##_##PANELS##_##VECTORS)(                            \
        ptrdiff_t K, const REAL *A, ptrdiff_t lda, const REAL *P, ptrdiff_t step, ptrdiff_t panel_size,        \
        ptrdiff_t ahead, const REAL *bias, REAL *C, ptrdiff_t ldc)                                                              \
    {                                                                                                          \
        NAME(block)(ROWS, PANELS, VECTORS, K, A, lda, P, step, panel_size, ahead, bias, C, ldc);                       \
    }
#define DEFINE_BLOCKS(ROWS) DEFINE_BLOCK(ROWS, 1, 1) DEFINE_BLOCK(ROWS, 1, 2) DEFINE_BLOCK(ROWS, 1, 3) DEFINE_BLOCK(ROWS, 1, 4)
#define BLOCKS(ROWS) {NAME(block_##ROWS##_1_1), NAME(block_##ROWS##_1_2), NAME(block_##ROWS##_1_3), NAME(block_##ROWS##_1_4)}

DEFINE_BLOCK(1, 2, 4)
DEFINE_BLOCKS(1)
DEFINE_BLOCKS(2)
DEFINE_BLOCKS(3)
#if BLOCK_ROWS >= 4
DEFINE_BLOCKS(4)
#endif
#if BLOCK_ROWS >= 6
DEFINE_BLOCKS(5)
DEFINE_BLOCKS(6)
#endif

typedef void (*NAME(block_function))(ptrdiff_t, const REAL *, ptrdiff_t, const REAL *, ptrdiff_t, ptrdiff_t, ptrdiff_t, const REAL *,
                                    REAL *, ptrdiff_t);

static const NAME(block_function) NAME(blocks)[BLOCK_ROWS][4] = {BLOCKS(1), BLOCKS(2), BLOCKS(3),
#if BLOCK_ROWS >= 4
                                                              BLOCKS(4),
#endif
#if BLOCK_ROWS >= 6
                                                              BLOCKS(5), BLOCKS(6),
#endif
};

#undef DEFINE_BLOCK
#undef DEFINE_BLOCKS
#undef BLOCKS

/* `vectors` vectors of columns under all rows: rows in blocks as even as they can be, so that no block of one row,
 * which cannot hide the latency of its additions, is left over. `step` lies between k and k + 1 in P. Each block of rows asks for
 * one line in `step` of what comes next in P: weights that no cache holds then come in time (462 to 402 us at 20 x 650). */
INLINE void NAME(product_panel)(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t vectors, const REAL *A, ptrdiff_t lda, const REAL *P,
                                ptrdiff_t step, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    ptrdiff_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS, line = 0;
    while (rows > 0) {
        const ptrdiff_t size = (rows + blocks - 1) / blocks;
        NAME(blocks)[size - 1][vectors - 1](K, A, lda, P, step, 0, K * step + line, bias, C, ldc);
        line = (line + LANES) % step;
        A += size * lda, C += size * ldc, rows -= size, blocks--;
    }
}

/* k is cut so that the piece of a panel which all rows pass over (32 kB) stays in the first-level cache. */
#define K_BLOCK (32768 / (4 * VECTOR_BYTES))

/* Columns first..last of C, both multiples of a vector; K and columns say how P is packed. */
static void NAME(product_of_panels)(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                                    const REAL *A, ptrdiff_t lda, const REAL *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    const ptrdiff_t panel = 4 * LANES;
    while (first < last) {
        const ptrdiff_t start = first / panel * panel, step = columns - start < panel ? columns - start : panel;
        const ptrdiff_t end = start + step < last ? start + step : last, width = end - first;
        const REAL *p = P + start * K + (first - start);
        if (rows == 1 && width == panel && last - first >= 2 * panel) {
            /* two panels at once: eight accumulators hide the latency that four do not */
            NAME(block_1_2_4)(K, A, lda, p, panel, panel * K, 0, bias ? bias + first : NULL, C + first, ldc);
            first += 2 * panel;
            continue;
        }
        const ptrdiff_t k_block = rows > BLOCK_ROWS ? K_BLOCK : K;
        for (ptrdiff_t k = 0; k < K; k += k_block)
            NAME(product_panel)(rows, K - k < k_block ? K - k : k_block, width / LANES, A + k, lda, p + k * step, step,
                                bias && k == 0 ? bias + first : NULL, C + first, ldc);
        first = end;
    }
}

static void NAME(gather)(ptrdiff_t N, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const int64_t *ids,
                         const REAL *panels, const REAL *bias, REAL *gates)
{
    const ptrdiff_t panel = 4 * LANES, columns = (H + LANES - 1) / LANES * panel;
    for (ptrdiff_t n = 0; n < N; n++, gates += columns)
        for (ptrdiff_t j = 4 * first; j < 4 * last; j += LANES) {
            const ptrdiff_t within = j % panel, start = j - within;
            const VECTOR w = NAME(load)(panels + start * K + (ptrdiff_t)ids[n] * panel + within);
            NAME(store)(gates + j, NAME(load)(bias + j) + w);
        }
}

static void NAME(scatter_add)(ptrdiff_t N, ptrdiff_t width, const int64_t *ids, const REAL *rows, ptrdiff_t ldr, REAL *out,
                              ptrdiff_t ldo)
{
    for (ptrdiff_t n = 0; n < N; n++, rows += ldr) {
        REAL *row = out + (ptrdiff_t)ids[n] * ldo;
        for (ptrdiff_t j = 0; j < width; j++) row[j] += rows[j];
    }
}

/* Sums of blocks are summed, so that rounding errors grow with the number of blocks and not with that of rows. */
#define SUM_BLOCK 256

/* So many vectors of columns, of the last one `used` lanes: one vector alone would take one cache line of each row. */
INLINE void NAME(sums_of_columns)(const int vectors, ptrdiff_t used, ptrdiff_t rows, const REAL *A, ptrdiff_t lda, REAL *out)
{
    VECTOR total[4] = {{0}};
    for (ptrdiff_t start = 0; start < rows; start += SUM_BLOCK) {
        const ptrdiff_t end = rows - start < SUM_BLOCK ? rows : start + SUM_BLOCK;
        VECTOR sum[4] = {{0}};
        for (ptrdiff_t r = start; r < end; r++)
            UNROLL
            for (int v = 0; v < vectors; v++) {
                const REAL *row = A + r * lda + v * LANES;
                sum[v] += used == LANES ? NAME(load)(row) : NAME(load_part)(row, used, 0);
            }
        UNROLL
        for (int v = 0; v < vectors; v++) total[v] += sum[v];
    }
    UNROLL
    for (int v = 0; v < vectors; v++) NAME(store_part)(out + v * LANES, used, total[v]);
}

static void NAME(column_sums)(ptrdiff_t rows, ptrdiff_t columns, const REAL *A, ptrdiff_t lda, REAL *out)
{
    ptrdiff_t j = 0;
    for (; columns - j >= 4 * LANES; j += 4 * LANES) NAME(sums_of_columns)(4, LANES, rows, A + j, lda, out + j);
    for (; j < columns; j += LANES)
        NAME(sums_of_columns)(1, columns - j < LANES ? columns - j : LANES, rows, A + j, lda, out + j);
}
