/* C = start + A . P over packed panels of one form: the functions of panels.h. Included once per form; no include guard.
 *
 * Expects OF(name), a name of this form; OPERANDS, what they are made of; TARGET, the attributes of its functions; and for PAIRS and
 * BYTES ADD(sum, w, a), which adds the product of a group of a row of A and of a vector of columns of P. A group of k is what 32 bits
 * of a row hold. MOST_ROWS, if not BLOCK_ROWS: rows of a block, where ADD needs registers of its own.
 *
 * A block of ROWS rows and PANELS * VECTORS + LAST vectors of columns stays in registers while k runs: LAST of a panel behind the
 * others which is that wide. The four numbers are compile-time constants and each block is a function of its own: only then does the
 * compiler unroll the block fully and keep every accumulator in a register (GCC 12 spills them otherwise, at half the speed). */

/* In reals: STRIDE, from one vector of a group of P to the next; GROUPS(K), how many groups there are; ROW_OF(lda, K), from one row of
 * A to the next; PANEL_SIZE(columns, K). LEFT(p) is a group of a row, RIGHT(p) that of a vector of columns. Small numbers are in whole
 * panels; bytes have sums that begin at 0, as integers, and meet C at the end (scaled_sum in small.h). */
#define STRIDE (OPERANDS == HALVES ? LANES / 2 : LANES)
#if OPERANDS == PAIRS
#define GROUPS(K) (((K) + 1) / 2)
#define ROW_OF(lda, K) PAIRS_ROW(K)
#define PANEL_SIZE(columns, K) ((columns) * PAIRS_ROW(K))
#elif OPERANDS == BYTES
#define GROUPS(K) (((K) + 3) / 4)
#define ROW_OF(lda, K) (BYTES_ROW(K) + BYTES_TAIL)
#define PANEL_SIZE(columns, K) ((columns) * (BYTES_ROW(K) + 2))
#else
#define GROUPS(K) (K)
#define ROW_OF(lda, K) (lda)
#define PANEL_SIZE(columns, K) ((columns) * STRIDE / LANES * (K))
#define ADD(sum, w, a) NAME(add_product)(sum, w, a)
#endif
#ifndef MOST_ROWS
#define MOST_ROWS BLOCK_ROWS
#endif
#if OPERANDS == BYTES
#define SUM INTEGERS /* GCC 12 keeps sums in memory that change their type at each addition */
#else
#define SUM VECTOR
#endif
#if OPERANDS == FLOATS || OPERANDS == HALVES
#define LEFT(p) NAME(splat)(*(p))
#else
#define LEFT(p) NAME(splat_bits)(p)
#endif
#if OPERANDS == HALVES
#define RIGHT(p) NAME(load_float16)(p)
#else
#define RIGHT(p) NAME(load)(p)
#endif
#if OPERANDS == FLOATS
#define DRIVER
#else
#define DRIVER __attribute__((noinline)) /* so that the cell of float32 has its registers */
#endif

/* K: groups of k */
INLINE TARGET void OF(block)(const int ROWS, const int PANELS, const int VECTORS, const int LAST, ptrdiff_t K, const REAL *restrict A,
                             ptrdiff_t lda, const REAL *restrict P, ptrdiff_t step, ptrdiff_t panel_size,
                             ptrdiff_t ahead, const REAL *restrict bias, REAL *restrict C, ptrdiff_t ldc)
{
#if OPERANDS == BYTES
    const REAL *tail = P;
    P += 2 * step;
#endif
    SUM acc[MOST_ROWS][11];
    const int whole = PANELS * VECTORS, width = whole + LAST;
    const REAL *restrict Q = P + PANELS * panel_size;
    UNROLL
    for (int r = 0; r < ROWS; r++)
        UNROLL
        for (int j = 0; j < width; j++)
            acc[r][j] = OPERANDS == BYTES ? (SUM){0} : (SUM)NAME(load)((bias ? bias : C + r * ldc) + j * LANES);
    for (ptrdiff_t k = 0; k < K; k++) {
        __builtin_prefetch(P + ahead, 0, 2); /* into the second-level cache */
        SUM a[MOST_ROWS]; /* one load of each: GCC 12 would load them anew for every vector of columns */
        UNROLL
        for (int r = 0; r < ROWS; r++) a[r] = (SUM)LEFT(A + r * lda + k);
        UNROLL
        for (int j = 0; j < width; j++) {
            const SUM w = (SUM)RIGHT(j < whole ? P + (j / VECTORS) * panel_size + (j % VECTORS) * STRIDE : Q + (j - whole) * STRIDE);
            UNROLL
            for (int r = 0; r < ROWS; r++) acc[r][j] = ADD(acc[r][j], w, a[r]);
        }
        P += step;
        Q += LAST * STRIDE;
    }
    UNROLL
    for (int r = 0; r < ROWS; r++)
        UNROLL
        for (int j = 0; j < width; j++) {
#if OPERANDS == BYTES
            const VECTOR start = NAME(load)((bias ? bias : C + r * ldc) + j * LANES);
            const VECTOR found = NAME(scaled_sum)(acc[r][j], start, A[r * lda + lda - BYTES_TAIL],
                                                  tail + (j / VECTORS) * panel_size + (j % VECTORS) * LANES, step);
#else
            const VECTOR found = acc[r][j];
#endif
            NAME(store)(C + r * ldc + j * LANES, found);
        }
}

#define DEFINE_BLOCK(ROWS, PANELS, VECTORS) DEFINE_BLOCK_AND(ROWS, PANELS, VECTORS, 0)
#define DEFINE_BLOCK_AND(ROWS, PANELS, VECTORS, LAST)                                                                     \
    static __attribute__((noinline)) TARGET void OF(block_##ROWS##_##PANELS##_##VECTORS##_##LAST)(                            \
        ptrdiff_t K, const REAL *A, ptrdiff_t lda, const REAL *P, ptrdiff_t step, ptrdiff_t panel_size,        \
        ptrdiff_t ahead, const REAL *bias, REAL *C, ptrdiff_t ldc)                                                              \
    {                                                                                                          \
        OF(block)(ROWS, PANELS, VECTORS, LAST, K, A, lda, P, step, panel_size, ahead, bias, C, ldc);                       \
    }
#if OPERANDS != FLOATS
#define DEFINE_BLOCKS(ROWS) DEFINE_BLOCK(ROWS, 1, 4)
#define BLOCKS(ROWS) {NULL, NULL, NULL, OF(block_##ROWS##_1_4_0)}
#else
#define DEFINE_BLOCKS(ROWS) DEFINE_BLOCK(ROWS, 1, 1) DEFINE_BLOCK(ROWS, 1, 2) DEFINE_BLOCK(ROWS, 1, 3) DEFINE_BLOCK(ROWS, 1, 4)
#define BLOCKS(ROWS) {OF(block_##ROWS##_1_1_0), OF(block_##ROWS##_1_2_0), OF(block_##ROWS##_1_3_0), OF(block_##ROWS##_1_4_0)}
#endif

DEFINE_BLOCK(1, 2, 4)
#if OPERANDS == FLOATS
DEFINE_BLOCK_AND(1, 1, 4, 1)
DEFINE_BLOCK_AND(1, 1, 4, 2)
DEFINE_BLOCK_AND(1, 1, 4, 3)
DEFINE_BLOCK_AND(1, 2, 4, 1)
DEFINE_BLOCK_AND(1, 2, 4, 2)
DEFINE_BLOCK_AND(1, 2, 4, 3)
#endif
DEFINE_BLOCKS(1)
DEFINE_BLOCKS(2)
#if MOST_ROWS >= 3
DEFINE_BLOCKS(3)
#endif
#if MOST_ROWS >= 4
DEFINE_BLOCKS(4)
#endif
#if MOST_ROWS >= 6
DEFINE_BLOCKS(5)
DEFINE_BLOCKS(6)
#endif

typedef void (*OF(block_function))(ptrdiff_t, const REAL *, ptrdiff_t, const REAL *, ptrdiff_t, ptrdiff_t, ptrdiff_t, const REAL *,
                                    REAL *, ptrdiff_t);

static const OF(block_function) OF(blocks)[MOST_ROWS][4] = {BLOCKS(1), BLOCKS(2),
#if MOST_ROWS >= 3
                                                              BLOCKS(3),
#endif
#if MOST_ROWS >= 4
                                                              BLOCKS(4),
#endif
#if MOST_ROWS >= 6
                                                              BLOCKS(5), BLOCKS(6),
#endif
};

#if OPERANDS == FLOATS
/* Of one row and one or two whole panels, and a narrower one of 1, 2 or 3 vectors behind them. */
static const OF(block_function) OF(blocks_of_row)[2][3] = {
    {OF(block_1_1_4_1), OF(block_1_1_4_2), OF(block_1_1_4_3)}, {OF(block_1_2_4_1), OF(block_1_2_4_2), OF(block_1_2_4_3)},
};
#endif

#undef DEFINE_BLOCK
#undef DEFINE_BLOCK_AND
#undef DEFINE_BLOCKS
#undef BLOCKS

/* `vectors` vectors of columns under all rows: rows in blocks as even as they can be, so that no block of one row, which
 * cannot hide the latency of its additions, is left over but where MOST_ROWS is 2. `step` lies between k and k + 1 in P. Each block of rows asks for
 * one line in `step` of what comes next in P: weights that no cache holds then come in time (462 to 402 us at 20 x 650). */
INLINE void OF(product_panel)(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t vectors, const REAL *A, ptrdiff_t lda, const REAL *P,
                                ptrdiff_t step, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    ptrdiff_t blocks = (rows + MOST_ROWS - 1) / MOST_ROWS, line = 0;
    while (rows > 0) {
        const ptrdiff_t size = (rows + blocks - 1) / blocks;
        OF(blocks)[size - 1][vectors - 1](K, A, lda, P, step, 0, K * step + line, bias, C, ldc);
        line = (line + LANES) % step;
        A += size * lda, C += size * ldc, rows -= size, blocks--;
    }
}

/* Columns first..last of C, both multiples of a vector; K, in numbers, and columns say how P is packed. */
static DRIVER TARGET void OF(product_of_panels)(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                                         const REAL *A, ptrdiff_t lda, const REAL *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    const ptrdiff_t panel = 4 * LANES, groups = GROUPS(K);
    lda = ROW_OF(lda, K);
    while (first < last) {
        const ptrdiff_t start = first / panel * panel, step = columns - start < panel ? columns - start : panel;
        const ptrdiff_t end = start + step < last ? start + step : last, width = end - first;
        const REAL *p = P + PANEL_SIZE(start, K) + (first - start) * STRIDE / LANES;
        if (rows == 1 && width == panel && last - first > panel) {
            /* two panels at once: eight accumulators hide the latency that four do not, and still less one or two */
            const ptrdiff_t whole = last - first < 2 * panel ? panel : 2 * panel;
#if OPERANDS == FLOATS
            const ptrdiff_t behind = last - first - whole;
            if (behind > 0 && behind < panel && last == columns) {
                OF(blocks_of_row)[whole > panel][behind / LANES - 1](groups, A, lda, p, 4 * STRIDE, PANEL_SIZE(panel, K), 0,
                                                                     bias ? bias + first : NULL, C + first, ldc);
                return;
            }
#endif
            if (whole > panel) {
                OF(block_1_2_4_0)(groups, A, lda, p, 4 * STRIDE, PANEL_SIZE(panel, K), 0, bias ? bias + first : NULL, C + first, ldc);
                first += whole;
                continue;
            }
        }
        const ptrdiff_t k_block = rows > MOST_ROWS && OPERANDS != BYTES ? K_BLOCK : groups, step_reals = step * STRIDE / LANES;
        for (ptrdiff_t k = 0; k < groups; k += k_block)
            OF(product_panel)(rows, groups - k < k_block ? groups - k : k_block, width / LANES, A + k, lda, p + k * step_reals,
                              step_reals, bias && k == 0 ? bias + first : NULL, C + first, ldc);
        first = end;
    }
}

#undef OF
#undef TARGET
#undef DRIVER
#undef STRIDE
#undef OPERANDS
#undef GROUPS
#undef SUM
#undef MOST_ROWS
#undef ROW_OF
#undef PANEL_SIZE
#undef LEFT
#undef RIGHT
#undef ADD
