/* Products by weights in bfloat16 or int8 on AMX units, from the same operands as everywhere: a group of k is a line of a tile, and
 * 16 groups of one vector of columns are a tile of P, whose lines lie a panel's width, 64 reals, apart. See tiles.h for how tiles
 * are used. */

#define ADD(sum, a, p)                             \
    do {                                           \
        if (whole) _tile_dpbusd(sum, a, p);        \
        else _tile_dpbf16ps(sum, a, p);            \
    } while (0)

/* `rows` rows of int32 sums of a tile -> C (see scaled_sum). */
static void finish_tile(ptrdiff_t rows, const int32_t *sums, const REAL *scales, ptrdiff_t lda, const REAL *tail,
                        const REAL *from, ptrdiff_t ldf, REAL *C, ptrdiff_t ldc)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        INTEGERS sum;
        memcpy(&sum, sums + 16 * r, sizeof sum);
        NAME(store)(C + r * ldc, NAME(scaled_sum)(sum, NAME(load)(from + r * ldf), scales[r * lda], tail, 64));
    }
}

/* Two tiles of rows under two of columns; distances in reals. `tail`, of int8, comes before the first group of P. */
INLINE void small_tiles_2_2(const int whole, ptrdiff_t rows, ptrdiff_t k_tiles, const REAL *a, ptrdiff_t lda, const REAL *p,
                            const REAL *tail, const REAL *from, ptrdiff_t ldf, REAL *C, ptrdiff_t ldc)
{
    const REAL *second = a + 16 * lda, *scales = a + lda - BYTES_TAIL;
    const ptrdiff_t a_bytes = 4 * lda, p_bytes = 4 * 64, p_next = 16 * 64;
    TILE_FENCE(C);
    if (whole) {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    } else {
        _tile_loadd(0, from, 4 * ldf); _tile_loadd(1, from + 16, 4 * ldf);
        _tile_loadd(2, from + 16 * ldf, 4 * ldf); _tile_loadd(3, from + 16 * ldf + 16, 4 * ldf);
    }
    _tile_loadd(4, a, a_bytes); _tile_loadd(6, p, p_bytes); _tile_loadd(7, p + 16, p_bytes); _tile_loadd(5, second, a_bytes);
    for (ptrdiff_t k = 1; k <= k_tiles; k++) {
        if (k < k_tiles) a += 16, second += 16, p += p_next; /* else what is loaded is not used */
        ADD(0, 4, 6); ADD(1, 4, 7); _tile_loadd(4, a, a_bytes);
        ADD(2, 5, 6); _tile_loadd(6, p, p_bytes);
        ADD(3, 5, 7); _tile_loadd(7, p + 16, p_bytes); _tile_loadd(5, second, a_bytes);
    }
    if (whole) {
        int32_t sums[4][256] __attribute__((aligned(64)));
        _tile_stored(0, sums[0], 64); _tile_stored(1, sums[1], 64); _tile_stored(2, sums[2], 64); _tile_stored(3, sums[3], 64);
        TILE_FENCE(sums);
        for (int n = 0; n < 4; n++) {
            const ptrdiff_t row = n / 2 * 16, column = n % 2 * 16;
            finish_tile(n / 2 ? rows - 16 : 16, sums[n], scales + row * lda, lda, tail + column, from + row * ldf + column, ldf,
                        C + row * ldc + column, ldc);
        }
    } else {
        _tile_stored(0, C, 4 * ldc); _tile_stored(1, C + 16, 4 * ldc);
        _tile_stored(2, C + 16 * ldc, 4 * ldc); _tile_stored(3, C + 16 * ldc + 16, 4 * ldc);
        TILE_FENCE(C);
    }
}

/* One tile of rows under a panel's four of columns. */
INLINE void small_tiles_1_4(const int whole, ptrdiff_t rows, ptrdiff_t k_tiles, const REAL *a, ptrdiff_t lda, const REAL *p,
                            const REAL *tail, const REAL *from, ptrdiff_t ldf, REAL *C, ptrdiff_t ldc)
{
    const REAL *scales = a + lda - BYTES_TAIL;
    const ptrdiff_t a_bytes = 4 * lda, p_bytes = 4 * 64;
    TILE_FENCE(C);
    if (whole) {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    } else {
        _tile_loadd(0, from, 4 * ldf); _tile_loadd(1, from + 16, 4 * ldf);
        _tile_loadd(2, from + 32, 4 * ldf); _tile_loadd(3, from + 48, 4 * ldf);
    }
    /* Three tiles of P are on their way at any time; their registers change places from one k to the next. */
#define ONE_K(x, y, z)                                                                       \
    do {                                                                                     \
        const REAL *now_p = p;                                                               \
        if (k + 1 < k_tiles) a += 16, p += 16 * 64; /* else what is loaded is not used */    \
        ADD(0, 4, x); _tile_loadd(x, now_p + 48, p_bytes);                                   \
        ADD(1, 4, y); _tile_loadd(y, p, p_bytes);                                            \
        ADD(2, 4, z); _tile_loadd(z, p + 16, p_bytes);                                       \
        ADD(3, 4, x); _tile_loadd(4, a, a_bytes); _tile_loadd(x, p + 32, p_bytes);           \
        k++;                                                                                 \
    } while (0)
    _tile_loadd(4, a, a_bytes);
    _tile_loadd(5, p, p_bytes); _tile_loadd(6, p + 16, p_bytes); _tile_loadd(7, p + 32, p_bytes);
    for (ptrdiff_t k = 0; k < k_tiles;) {
        ONE_K(5, 6, 7);
        if (k == k_tiles) break;
        ONE_K(6, 7, 5);
        if (k == k_tiles) break;
        ONE_K(7, 5, 6);
    }
#undef ONE_K
    if (whole) {
        int32_t sums[4][256] __attribute__((aligned(64)));
        _tile_stored(0, sums[0], 64); _tile_stored(1, sums[1], 64); _tile_stored(2, sums[2], 64); _tile_stored(3, sums[3], 64);
        TILE_FENCE(sums);
        for (int n = 0; n < 4; n++)
            finish_tile(rows, sums[n], scales, lda, tail + 16 * n, from + 16 * n, ldf, C + 16 * n, ldc);
    } else {
        _tile_stored(0, C, 4 * ldc); _tile_stored(1, C + 16, 4 * ldc);
        _tile_stored(2, C + 32, 4 * ldc); _tile_stored(3, C + 48, 4 * ldc);
        TILE_FENCE(C);
    }
}

INLINE void product_of_small_tiles(const int whole, int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first,
                                   ptrdiff_t last, const REAL *A, const REAL *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    const ptrdiff_t row = whole ? BYTES_ROW(K) : PAIRS_ROW(K), k_tiles = row / 16, lda = row + whole * BYTES_TAIL;
    const ptrdiff_t ldf = bias ? 0 : ldc;
    for (; first < last; first += 64) {
        const REAL *tail = P + first * (row + 2 * whole), *p = tail + 2 * whole * 64;
        for (ptrdiff_t r = 0, done; r < rows; r += done) {
            const REAL *a = A + r * lda, *from = bias ? bias + first : C + first + r * ldc;
            REAL *to = C + first + r * ldc;
            done = rows - r < 32 ? rows - r : 32;
            if (done > 16) {
                tile_rows(now, 16, done - 16);
                small_tiles_2_2(whole, done, k_tiles, a, lda, p, tail, from, ldf, to, ldc);
                small_tiles_2_2(whole, done, k_tiles, a, lda, p + 32, tail + 32, from + 32, ldf, to + 32, ldc);
            } else {
                tile_rows(now, done, 0);
                small_tiles_1_4(whole, done, k_tiles, a, lda, p, tail, from, ldf, to, ldc);
            }
        }
    }
}

static __attribute__((noinline)) void product_of_bfloat16_tiles(int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last,
                                      const REAL *A, const REAL *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    product_of_small_tiles(0, now, rows, K, first, last, A, P, bias, C, ldc);
}

static __attribute__((noinline)) void product_of_int8_tiles(int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last,
                                  const REAL *A, const REAL *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    product_of_small_tiles(1, now, rows, K, first, last, A, P, bias, C, ldc);
}

#undef ADD
