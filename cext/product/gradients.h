/* Gradients of weights by multiply-adds, dW += dgates' x over the rows of many steps. A block of ROWS columns of x and of one panel's
 * vectors of gates stays in registers while the rows pass; what they add up to is transposed into dW, a panel's columns of which are
 * the rows of units. Sums begin at 0 for each call: rounding errors grow with the rows of one and with the number of calls. */

#define SUMS_GROUP (3 * LANES) /* columns of x whose sums wait to be transposed: whole blocks */

/* sums (ROWS, VECTORS * LANES) = A' P, A (N, ROWS) and P (N, VECTORS * LANES) */
INLINE void NAME(sums_of_block)(const int ROWS, const int VECTORS, ptrdiff_t N, const REAL *restrict A, ptrdiff_t lda,
                                const REAL *restrict P, ptrdiff_t ldp, REAL *restrict sums)
{
    VECTOR acc[BLOCK_ROWS][4];
    UNROLL
    for (int r = 0; r < ROWS; r++)
        UNROLL
        for (int j = 0; j < VECTORS; j++) acc[r][j] = NAME(splat)(0);
    for (ptrdiff_t n = 0; n < N; n++) {
        VECTOR a[BLOCK_ROWS];
        UNROLL
        for (int r = 0; r < ROWS; r++) a[r] = NAME(splat)(A[r]);
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            const VECTOR w = NAME(load)(P + j * LANES);
            UNROLL
            for (int r = 0; r < ROWS; r++) acc[r][j] = NAME(add_product)(acc[r][j], w, a[r]);
        }
        A += lda, P += ldp;
    }
    UNROLL
    for (int r = 0; r < ROWS; r++)
        UNROLL
        for (int j = 0; j < VECTORS; j++) NAME(store)(sums + (r * VECTORS + j) * LANES, acc[r][j]);
}

#define DEFINE_SUMS(ROWS, VECTORS)                                                                                  \
    static __attribute__((noinline)) void NAME(sums_##ROWS##_##VECTORS)(ptrdiff_t N, const REAL *A, ptrdiff_t lda, \
                                                                       const REAL *P, ptrdiff_t ldp, REAL *sums)   \
    {                                                                                                              \
        NAME(sums_of_block)(ROWS, VECTORS, N, A, lda, P, ldp, sums);                                               \
    }
#define DEFINE_BOTH_SUMS(ROWS) DEFINE_SUMS(ROWS, 1) DEFINE_SUMS(ROWS, 4)
DEFINE_BOTH_SUMS(1)
DEFINE_BOTH_SUMS(2)
DEFINE_BOTH_SUMS(3)
#if BLOCK_ROWS >= 4
DEFINE_BOTH_SUMS(4)
#endif
#if BLOCK_ROWS >= 6
DEFINE_BOTH_SUMS(5)
DEFINE_BOTH_SUMS(6)
#endif
#define BOTH_SUMS(ROWS) {NAME(sums_##ROWS##_1), NAME(sums_##ROWS##_4)}
static void (*const NAME(block_sums)[BLOCK_ROWS][2])(ptrdiff_t, const REAL *, ptrdiff_t, const REAL *, ptrdiff_t, REAL *) = {
    BOTH_SUMS(1), BOTH_SUMS(2), BOTH_SUMS(3),
#if BLOCK_ROWS >= 4
    BOTH_SUMS(4),
#endif
#if BLOCK_ROWS >= 6
    BOTH_SUMS(5), BOTH_SUMS(6),
#endif
};
#undef DEFINE_SUMS
#undef DEFINE_BOTH_SUMS
#undef BOTH_SUMS

/* W (units, columns), its rows ldw apart, += sums (columns, LANES) transposed, their rows lds apart. */
INLINE void NAME(add_transposed)(ptrdiff_t units, ptrdiff_t columns, const REAL *sums, ptrdiff_t lds, REAL *W, ptrdiff_t ldw)
{
    ptrdiff_t k = 0;
    for (; k + LANES <= columns; k += LANES) {
        VECTOR v[VECTOR_BYTES / sizeof(REAL)];
        for (ptrdiff_t i = 0; i < LANES; i++) v[i] = NAME(load)(sums + (k + i) * lds);
        NAME(transpose)(v);
        for (ptrdiff_t unit = 0; unit < units; unit++)
            NAME(store)(W + unit * ldw + k, NAME(load)(W + unit * ldw + k) + v[unit]);
    }
    for (ptrdiff_t unit = 0; unit < units; unit++)
        for (ptrdiff_t i = k; i < columns; i++) W[unit * ldw + i] += sums[i * lds + unit];
}

/* dW += P' A of one panel's units: A (N, K), P (N, LANES) of each of `gates`, 4 or 1, whose dW are H * K apart. */
static void NAME(gradients_of_panel)(int gates, ptrdiff_t N, ptrdiff_t H, ptrdiff_t units, ptrdiff_t K, const REAL *A,
                                     ptrdiff_t lda, const REAL *P, ptrdiff_t ldp, REAL *dW, REAL *sums)
{
    for (ptrdiff_t start = 0; start < K; start += SUMS_GROUP) {
        const ptrdiff_t columns = K - start < SUMS_GROUP ? K - start : SUMS_GROUP;
        ptrdiff_t blocks = (columns + BLOCK_ROWS - 1) / BLOCK_ROWS, size;
        for (ptrdiff_t done = 0; done < columns; done += size, blocks--) {
            size = (columns - done + blocks - 1) / blocks;
            NAME(block_sums)[size - 1][gates == 4](N, A + start + done, lda, P, ldp, sums + done * gates * LANES);
        }
        for (ptrdiff_t gate = 0; gate < gates; gate++)
            NAME(add_transposed)(units, columns, sums + gate * LANES, gates * LANES, dW + gate * H * K + start, K);
    }
}

/* Blocks of few rows need a panel's rows so soon again that those far apart, which come from the second-level cache, are too late. */
#define SUMS_OF_COPY (BLOCK_ROWS < 6)

static void NAME(gradients_of_rows)(ptrdiff_t N, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *dgates, ptrdiff_t inputs,
                                    const REAL *x, ptrdiff_t ldx, REAL *dW, ptrdiff_t Y, const REAL *h, ptrdiff_t ldh,
                                    ptrdiff_t h_apart, REAL *dR, REAL *db, REAL *scratch)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES, wide = 4 * LANES, at_once = SUMS_OF_COPY ? K_BLOCK : N;
    REAL *sums = scratch, *copy = scratch + SUMS_GROUP * wide;
    for (ptrdiff_t j = first; j < last; j += LANES)
        for (ptrdiff_t n = 0; n < N; n += at_once) {
            const ptrdiff_t units = H - j < LANES ? H - j : LANES, rows = N - n < at_once ? N - n : at_once;
            const REAL *P = dgates + n * 4 * Hp + 4 * j;
            ptrdiff_t ldp = 4 * Hp;
            if (SUMS_OF_COPY) {
                for (ptrdiff_t row = 0; row < rows; row++)
                    for (ptrdiff_t at = 0; at < wide; at += LANES)
                        NAME(store)(copy + row * wide + at, NAME(load)(P + row * ldp + at));
                P = copy, ldp = wide;
            }
            if (db) {
                NAME(column_sums)(rows, wide, P, ldp, sums);
                for (ptrdiff_t gate = 0; gate < 4; gate++)
                    for (ptrdiff_t unit = 0; unit < units; unit++) db[gate * H + j + unit] += sums[gate * LANES + unit];
            }
            if (inputs)
                NAME(gradients_of_panel)(4, rows, H, units, inputs, x + n * ldx, ldx, P, ldp, dW + j * inputs, sums);
            if (h && !h_apart) NAME(gradients_of_panel)(4, rows, H, units, Y, h + n * ldh, ldh, P, ldp, dR + j * Y, sums);
            for (ptrdiff_t gate = 0; h && h_apart && gate < 4; gate++)
                NAME(gradients_of_panel)(1, rows, H, units, Y, h + gate * h_apart + n * ldh, ldh, P + gate * LANES, ldp,
                                         dR + (gate * H + j) * Y, sums);
        }
}

#undef SUMS_GROUP
#undef SUMS_OF_COPY
