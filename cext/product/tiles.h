/* Products on Intel's AMX units, which multiply tiles of bfloat16 and add in float.
 *
 * A float has 24 significant bits, a bfloat16 has 8: x = x1 + x2 + x3, three bfloat16, exactly but for the last bit. Of the
 * nine products of parts, the six that exceed 2^-26 |a b| are added: as exact as a product in float, and 2 to 3 times
 * as fast as the FMA units (Henry, Tang & Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype").
 *
 * A tile is 16 rows of 64 bytes. Operands are cut beforehand (PAIRS: two bfloat16 of neighbouring k in 32 bits):
 *   A (rows, K):     [row / 16][k / 32][part][16 rows][16 pairs of k]
 *   P (K, columns):  [column / 64][k / 32][column / 16 % 4][part][16 pairs of k][16 columns]
 * with zeros past K; the last group of columns holds as many tiles as are left.
 *
 * ROUNDED_TILES are the first part alone, x rounded to bfloat16: a third of the bytes and a sixth of the products. Every body here
 * is compiled for three PARTS and for one.
 *
 * Three parts are for numbers of ordinary size. A number that is not finite makes NaN of its row, since its parts are not; the
 * units take subnormal parts and products for zero. So callers look at the largest number of each operand first (largest()),
 * and take panels unless it is 0 or between CYLSTM_TILES_LOW and CYLSTM_TILES_HIGH (kernels.h): then no sum overflows, and
 * what is lost to zero is less than rounding. What comes to be within a backward pass is not looked at, whether slopes shrink
 * gradients or layer norms divide them by deviations: those that explode are NaN from tiles where panels give infinity. */
#include <immintrin.h>
#ifdef CYLSTM_EMULATED_TILES
#include "tiles_emulated.h"
#endif

/* GCC's intrinsics that load tiles and their sizes do not say that they read memory: what is stored before has to be there. */
#define TILE_FENCE(p) __asm__ volatile("" ::"r"(p) : "memory")

#include "tile_operands.h"

/* A product takes as many cycles as its tile of A has rows: where fewer than 16 are there, the units are told so. Sums are
 * registers 0 to 3, one tile of rows is 4 and tiles of P are 5 to 7; with a second tile of rows, that is 5 and has the
 * sums 2 and 3. `now` is what they have been told, 0 at first. */
static void tile_rows(int *now, ptrdiff_t first, ptrdiff_t second)
{
    const int wanted = (int)(32 * first + second);
    if (*now == wanted) return;
    *now = wanted;
    const uint8_t a = (uint8_t)first, b = (uint8_t)(second ? second : first), fifth = second ? b : 16;
    const struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles = {
        1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {a, a, b, b, a, fifth, 16, 16}};
    TILE_FENCE(&tiles);
    _tile_loadconfig(&tiles);
}

/* Two tiles of rows under two tiles of columns: four sums in turn hide the latency of each. `a_next`, `from_next` and
 * `c_next` are the distances to the second tile of rows, `p_step` that from k to the next k. One operand changes at a time,
 * and each of its two tiles is loaded as soon as it has been used: registers are not renamed, a load waits for that. */
INLINE void tiles_2_2(const int PARTS, ptrdiff_t k_tiles, const uint16_t *a, ptrdiff_t a_next, const uint16_t *p, ptrdiff_t p_step,
                      const REAL *from, ptrdiff_t ldf, ptrdiff_t from_next, REAL *C, ptrdiff_t ldc, ptrdiff_t c_next)
{
#define FIRST_A(a, part) _tile_loadd(4, (a) + (part) * PART, 64)
#define SECOND_A(a, part) _tile_loadd(5, (a) + a_next + (part) * PART, 64)
#define FIRST_P(p, part) _tile_loadd(6, (p) + (part) * PART, 64)
#define SECOND_P(p, part) _tile_loadd(7, (p) + TILE + (part) * PART, 64)
#define THEN_A(part)                                                                               \
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); FIRST_A(a, part);                            \
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7); SECOND_A(a, part)
#define THEN_P(part)                                                                               \
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(2, 5, 6); FIRST_P(p, part);                            \
    _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(3, 5, 7); SECOND_P(p, part)
    const ptrdiff_t from_bytes = ldf * 4, to_bytes = ldc * 4;
    TILE_FENCE(C);
    FIRST_A(a, 0); FIRST_P(p, PARTS - 1); SECOND_P(p, PARTS - 1); SECOND_A(a, 0);
    _tile_loadd(0, from, from_bytes); _tile_loadd(1, from + 16, from_bytes);
    _tile_loadd(2, from + from_next, from_bytes); _tile_loadd(3, from + from_next + 16, from_bytes);
    for (ptrdiff_t k = 1; k <= k_tiles; k++) {
        if (PARTS == 3) {
            THEN_P(1); /* a1 p3 */
            THEN_A(1); /* a1 p2 */
            THEN_P(0); /* a2 p2 */
            THEN_A(2); /* a2 p1 */
            THEN_A(0); /* a3 p1 */
        }
        if (k < k_tiles) a += TILE, p += p_step; /* else what is loaded is not used */
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); FIRST_A(a, 0); /* a1 p1 */
        _tile_dpbf16ps(2, 5, 6); FIRST_P(p, PARTS - 1); _tile_dpbf16ps(3, 5, 7); SECOND_P(p, PARTS - 1); SECOND_A(a, 0);
    }
    _tile_stored(0, C, to_bytes); _tile_stored(1, C + 16, to_bytes);
    _tile_stored(2, C + c_next, to_bytes); _tile_stored(3, C + c_next + 16, to_bytes);
    TILE_FENCE(C);
#undef FIRST_A
#undef SECOND_A
#undef FIRST_P
#undef SECOND_P
#undef THEN_A
#undef THEN_P
}

/* Four tiles of rows under one of columns: its parts take turns in register 4, those of the rows pass through 5 to 7, each
 * loaded three products before it is used. */
INLINE void tiles_4_1(const int PARTS, ptrdiff_t k_tiles, const uint16_t *a, ptrdiff_t a_next, const uint16_t *p, ptrdiff_t p_step,
                      const REAL *from, ptrdiff_t ldf, ptrdiff_t from_next, REAL *C, ptrdiff_t ldc, ptrdiff_t c_next)
{
    const ptrdiff_t from_bytes = ldf * 4, to_bytes = ldc * 4;
#define LOAD_P(part) _tile_loadd(4, p + (part) * PART, 64)
#define LOAD_A(reg, a, row, part) _tile_loadd(reg, (a) + row * a_next + (part) * PART, 64)
#define PHASE(x, y, z, part, then, then_part)                                                                \
    _tile_dpbf16ps(0, x, 4); LOAD_A(x, a, 3, part);         _tile_dpbf16ps(1, y, 4); LOAD_A(y, then, 0, then_part); \
    _tile_dpbf16ps(2, z, 4); LOAD_A(z, then, 1, then_part); _tile_dpbf16ps(3, x, 4); LOAD_A(x, then, 2, then_part)
    TILE_FENCE(C);
    _tile_loadd(0, from, from_bytes); _tile_loadd(1, from + from_next, from_bytes);
    _tile_loadd(2, from + 2 * from_next, from_bytes); _tile_loadd(3, from + 3 * from_next, from_bytes);
    LOAD_A(5, a, 0, 0); LOAD_A(6, a, 1, 0); LOAD_A(7, a, 2, 0);
    for (ptrdiff_t k = 1; k <= k_tiles; k++) {
        const uint16_t *next = k < k_tiles ? a + TILE : a; /* else what is loaded is not used */
        if (PARTS == 1) {
            LOAD_P(0);
            _tile_dpbf16ps(0, 5, 4); LOAD_A(5, a, 3, 0);    _tile_dpbf16ps(1, 6, 4); LOAD_A(6, next, 1, 0);
            _tile_dpbf16ps(2, 7, 4); LOAD_A(7, next, 2, 0); _tile_dpbf16ps(3, 5, 4); LOAD_A(5, next, 0, 0);
        } else {
            LOAD_P(2);
            PHASE(5, 6, 7, 0, a, 0); /* a1 p3 */
            LOAD_P(1);
            PHASE(6, 7, 5, 0, a, 1); /* a1 p2 */
            PHASE(7, 5, 6, 1, a, 1); /* a2 p2 */
            LOAD_P(0);
            PHASE(5, 6, 7, 1, a, 2); /* a2 p1 */
            PHASE(6, 7, 5, 2, a, 0); /* a3 p1 */
            PHASE(7, 5, 6, 0, next, 0); /* a1 p1 */
        }
        a = next, p += p_step;
    }
    _tile_stored(0, C, to_bytes); _tile_stored(1, C + c_next, to_bytes);
    _tile_stored(2, C + 2 * c_next, to_bytes); _tile_stored(3, C + 3 * c_next, to_bytes);
    TILE_FENCE(C);
#undef LOAD_P
#undef LOAD_A
#undef PHASE
}

/* One tile of rows under one or two of columns: its parts are registers 2 to 4, those of the columns pass through 5 to 7.
 * Products into one sum may follow each other at once. */
INLINE void tiles_1_n(const int PARTS, const int n, ptrdiff_t k_tiles, const uint16_t *a, const uint16_t *p, ptrdiff_t p_step, const REAL *from,
                      ptrdiff_t ldf, REAL *C, ptrdiff_t ldc)
{
#define LOAD_P(reg, p, column, part) _tile_loadd(reg, (p) + column * TILE + (part) * PART, 64)
    TILE_FENCE(C);
    _tile_loadd(0, from, ldf * 4);
    if (n == 2) _tile_loadd(1, from + 16, ldf * 4);
    LOAD_P(5, p, 0, PARTS - 1);
    if (n == 2) LOAD_P(6, p, 1, PARTS - 1);
    if (PARTS == 3) LOAD_P(7, p, 0, 1);
    for (ptrdiff_t k = 1; k <= k_tiles; k++, a += TILE) {
        const uint16_t *next = k < k_tiles ? p + p_step : p; /* else what is loaded is not used */
        if (PARTS == 1) {
            _tile_loadd(2, a, 64);
            _tile_dpbf16ps(0, 2, 5); LOAD_P(5, next, 0, 0);
            if (n == 2) { _tile_dpbf16ps(1, 2, 6); LOAD_P(6, next, 1, 0); }
            p = next;
            continue;
        }
        _tile_loadd(2, a, 64); _tile_loadd(3, a + PART, 64); _tile_loadd(4, a + 2 * PART, 64);
        _tile_dpbf16ps(0, 2, 5); /* a1 p3 */
        if (n == 2) { LOAD_P(5, p, 1, 1); _tile_dpbf16ps(1, 2, 6); }
        LOAD_P(6, p, 0, 0);
        _tile_dpbf16ps(0, 2, 7); _tile_dpbf16ps(0, 3, 7); /* a1 p2, a2 p2 */
        if (n == 2) { LOAD_P(7, p, 1, 0); _tile_dpbf16ps(1, 2, 5); _tile_dpbf16ps(1, 3, 5); }
        LOAD_P(5, next, 0, 2);
        _tile_dpbf16ps(0, 3, 6); _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(0, 2, 6); /* a2 p1, a3 p1, a1 p1 */
        if (n == 2) {
            LOAD_P(6, next, 1, 2);
            _tile_dpbf16ps(1, 3, 7); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(1, 2, 7);
        }
        LOAD_P(7, next, 0, 1);
        p = next;
    }
    _tile_stored(0, C, ldc * 4);
    if (n == 2) _tile_stored(1, C + 16, ldc * 4);
    TILE_FENCE(C);
#undef LOAD_P
}

/* The same where the last columns are there only in part: by way of a block, of one tile of rows or of four. */
INLINE void tiles_part(const int PARTS, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t k_tiles, const uint16_t *a, ptrdiff_t a_apart,
                       const uint16_t *p, ptrdiff_t p_step, const REAL *from, ptrdiff_t ldf, ptrdiff_t from_apart, REAL *C,
                       ptrdiff_t ldc, ptrdiff_t apart)
{
    REAL block[64 * 16] __attribute__((aligned(64)));
    const size_t bytes = (size_t)columns * sizeof(REAL);
    for (ptrdiff_t r = 0; r < rows; r++) memcpy(block + r * 16, from + r / 16 * from_apart + r % 16 * ldf, bytes);
    if (rows == 64)
        tiles_4_1(PARTS, k_tiles, a, a_apart, p, p_step, block, 16, 256, block, 16, 256);
    else
        tiles_1_n(PARTS, 1, k_tiles, a, p, p_step, block, 16, block, 16);
    for (ptrdiff_t r = 0; r < rows; r++) memcpy(C + r / 16 * apart + r % 16 * ldc, block + r * 16, bytes);
}

/* Columns first..last (first a multiple of 16) of C, before _tile_release(); `now` as in tile_rows(). Tiles of 16 rows
 * lie `apart` reals apart in C: 16 * ldc, unless C is more than one matrix. */
INLINE void product_of_parts(const int PARTS, int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                             const void *A, const void *P, const REAL *bias, REAL *C, ptrdiff_t ldc, ptrdiff_t apart)
{
    const ptrdiff_t k_tiles = (K + 31) / 32, wide = (columns + 15) / 16;
    const ptrdiff_t ldf = bias ? 0 : ldc, from_apart = bias ? 0 : apart, a_apart = k_tiles * TILE;
    while (first < last) {
        const ptrdiff_t c = first / 16, start = c / 4 * 4, group = wide - start < 4 ? wide - start : 4;
        const ptrdiff_t width = (start + group) * 16 < last ? (start + group) * 16 - first : last - first;
        const ptrdiff_t tiles = width < 32 ? 1 : width / 32 * 2, p_step = group * TILE; /* 4, 2 or 1 of them, maybe in part */
        const ptrdiff_t used = width < 16 * tiles ? width : 16 * tiles;
        const uint16_t *p = (const uint16_t *)P + (start * k_tiles + c - start) * TILE;
        for (ptrdiff_t r = 0, done; r < rows; r += done) {
            const uint16_t *a = (const uint16_t *)A + r / 16 * a_apart;
            const REAL *from = (bias ? bias : C) + first + r / 16 * from_apart;
            REAL *to = C + first + r / 16 * apart;
            const ptrdiff_t left = rows - r;
            done = tiles == 1 && left >= 64 ? 64 : tiles > 1 && left > 16 ? 32 : 16;
            if (done > left) done = left;
            if (done > 16 && done < 32) tile_rows(now, 16, done - 16);
            else tile_rows(now, done < 16 ? done : 16, done < 16 ? 0 : 16);
            if (used < 16)
                tiles_part(PARTS, done, used, k_tiles, a, a_apart, p, p_step, from, ldf, from_apart, to, ldc, apart);
            else if (done == 64)
                tiles_4_1(PARTS, k_tiles, a, a_apart, p, p_step, from, ldf, from_apart, to, ldc, apart);
            else if (done > 16)
                for (ptrdiff_t j = 0; j < tiles; j += 2)
                    tiles_2_2(PARTS, k_tiles, a, a_apart, p + j * TILE, p_step, from + 16 * j, ldf, from_apart, to + 16 * j, ldc,
                              apart);
            else if (tiles > 1)
                for (ptrdiff_t j = 0; j < tiles; j += 2)
                    tiles_1_n(PARTS, 2, k_tiles, a, p + j * TILE, p_step, from + 16 * j, ldf, to + 16 * j, ldc);
            else
                tiles_1_n(PARTS, 1, k_tiles, a, p, p_step, from, ldf, to, ldc);
        }
        first += used;
    }
}

static __attribute__((noinline)) void product_of_tiles(int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first,
                                                       ptrdiff_t last, const void *A, const void *P, const REAL *bias, REAL *C,
                                                       ptrdiff_t ldc, ptrdiff_t apart)
{
    product_of_parts(3, now, rows, K, columns, first, last, A, P, bias, C, ldc, apart);
}

static __attribute__((noinline)) void product_of_rounded_tiles(int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns,
                                                               ptrdiff_t first, ptrdiff_t last, const void *A, const void *P,
                                                               const REAL *bias, REAL *C, ptrdiff_t ldc, ptrdiff_t apart)
{
    product_of_parts(1, now, rows, K, columns, first, last, A, P, bias, C, ldc, apart);
}

INLINE void gradients_of_parts(const int PARTS, ptrdiff_t N, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *dgates,
                               ptrdiff_t inputs, const void *x, REAL *dW, const void *h, ptrdiff_t h_apart, REAL *dR, REAL *db,
                               void *scratch)
{
    const ptrdiff_t Hp = (H + 15) / 16 * 16, tile_of_rows = (N + 31) / 32 * TILE;
    void (*const multiply)(int *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, const void *, const REAL *,
                           REAL *, ptrdiff_t, ptrdiff_t) = PARTS == 3 ? product_of_tiles : product_of_rounded_tiles;
    REAL sums[64] __attribute__((aligned(64)));
    int now = 0;
    for (ptrdiff_t j = first; j < last; j += 16) {
        const ptrdiff_t units = H - j < 16 ? H - j : 16;
        split_transposed(PARTS, 64, N, dgates + 4 * j, 4 * Hp, scratch, sums);
        for (ptrdiff_t gate = 0; db && gate < 4; gate++)
            for (ptrdiff_t unit = 0; unit < units; unit++) db[gate * H + j + unit] += sums[16 * gate + unit];
        /* the panel's four tiles of rows are the units' rows in the four gates, H apart */
        const int whole = units == 16;
        if (whole && inputs) multiply(&now, 64, N, inputs, 0, inputs, scratch, x, NULL, dW + j * inputs, inputs, H * inputs);
        if (whole && h && !h_apart) multiply(&now, 64, N, H, 0, H, scratch, h, NULL, dR + j * H, H, H * H);
        for (ptrdiff_t gate = 0; gate < 4; gate++) {
            const uint16_t *a = (const uint16_t *)scratch + gate * tile_of_rows;
            const ptrdiff_t row = gate * H + j;
            if (!whole && inputs) multiply(&now, units, N, inputs, 0, inputs, a, x, NULL, dW + row * inputs, inputs, 0);
            if (h && (!whole || h_apart))
                multiply(&now, units, N, H, 0, H, a, (const char *)h + gate * h_apart, NULL, dR + row * H, H, 0);
        }
    }
    _tile_release();
}

static void gradients_of_tiles(int form, ptrdiff_t N, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *dgates,
                               ptrdiff_t inputs, const void *x, REAL *dW, const void *h, ptrdiff_t h_apart, REAL *dR, REAL *db,
                               void *scratch)
{
    if (form == CYLSTM_TILES)
        gradients_of_parts(3, N, H, first, last, dgates, inputs, x, dW, h, h_apart, dR, db, scratch);
    else
        gradients_of_parts(1, N, H, first, last, dgates, inputs, x, dW, h, h_apart, dR, db, scratch);
}

#undef BITS
#undef PART
#undef TILE
