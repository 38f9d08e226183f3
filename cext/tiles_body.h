/* Products on Intel's AMX units, which multiply tiles of bfloat16 and add in float.
 *
 * A float has 24 significant bits, a bfloat16 has 8: x = x1 + x2 + x3, three bfloat16, exactly but for the last bit. Of the
 * nine products of parts, the six that exceed 2^-26 |a b| are added: as exact as a product in float, and 2 to 3 times
 * as fast as the FMA units (Henry, Tang & Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype").
 *
 * A tile is 16 rows of 64 bytes. Operands are cut beforehand (PAIRS: two bfloat16 of neighbouring k in 32 bits):
 *   A (rows, K):     [row / 16][k / 32][part][16 rows][16 pairs of k]
 *   P (K, columns):  [column / 64][k / 32][column / 16 % 4][part][16 pairs of k][16 columns]
 * with zeros past K; the last group of columns holds as many tiles as are left. Subnormals count as zero, and a number
 * that is not finite makes NaN of its row. */
#include <immintrin.h>

#define PART 512          /* bfloat16 in one tile */
#define TILE (3 * PART)   /* in the three parts of one tile */

typedef uint32_t NAME(bits) __attribute__((vector_size(64)));
#define BITS NAME(bits)

/* The three parts, each in the upper half of 32 bits. Rounding half up suffices: what is left over is exact. Rounding
 * might make zero of NaN, whose first part therefore is only cut. */
INLINE void split(VECTOR x, BITS part[3])
{
    for (int s = 0; s < 3; s++) {
        const BITS half = s == 0 ? (BITS)(x == x) & 0x8000 : (BITS){0} + 0x8000;
        part[s] = ((BITS)x + half) & 0xffff0000;
        x -= (VECTOR)part[s];
    }
}

INLINE void store_halves(uint16_t *p, BITS upper)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)upper, 16)));
}

static void split_plain(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const REAL *A, ptrdiff_t lda,
                        void *tiles)
{
    const ptrdiff_t k_tiles = (K + 31) / 32, end = last < K ? last : k_tiles * 32;
    for (ptrdiff_t r = 0; r < rows; r++, A += lda)
        for (ptrdiff_t k = first; k < end; k += 16) {
            uint16_t *to = (uint16_t *)tiles + (r / 16 * k_tiles + k / 32) * TILE + r % 16 * 32 + k % 32;
            const ptrdiff_t used = K - k;
            BITS part[3];
            split(used >= 16 ? NAME(load)(A + k) : NAME(load_part)(A + k, used, 0), part);
            for (int s = 0; s < 3; s++) store_halves(to + s * PART, part[s]);
        }
}

/* Two neighbouring rows of a matrix as pairs, the even one in the lower half. */
INLINE void split_pair(VECTOR even, VECTOR odd, BITS pairs[3])
{
    BITS lower[3], upper[3];
    split(even, lower), split(odd, upper);
    for (int s = 0; s < 3; s++) pairs[s] = lower[s] >> 16 | upper[s];
}

/* 16 columns of rows k and k + 1, zero past K and past `used` columns */
INLINE void split_pair_of(const REAL *B, ptrdiff_t ldb, ptrdiff_t k, ptrdiff_t K, ptrdiff_t used, BITS pairs[3])
{
    VECTOR row[2] = {{0}, {0}};
    for (int odd = 0; odd < 2 && k + odd < K; odd++)
        row[odd] = used >= 16 ? NAME(load)(B + (k + odd) * ldb) : NAME(load_part)(B + (k + odd) * ldb, used, 0);
    split_pair(row[0], row[1], pairs);
}

/* 16 columns, one tile of k after the other, `step` apart, from the matrix (K, columns) */
static void split_16_columns(ptrdiff_t K, ptrdiff_t used, const REAL *B, ptrdiff_t ldb, uint16_t *to, ptrdiff_t step)
{
    for (ptrdiff_t k = 0; k < (K + 31) / 32 * 32; k += 2) {
        BITS pairs[3];
        split_pair_of(B, ldb, k, K, used, pairs);
        for (int s = 0; s < 3; s++) memcpy(to + k / 32 * step + s * PART + k % 32 * 16, &pairs[s], 64);
    }
}

/* the same from its transpose (columns, K) */
static void split_16_rows(ptrdiff_t K, ptrdiff_t used, const REAL *B, ptrdiff_t ldb, uint16_t *to, ptrdiff_t step)
{
    for (ptrdiff_t k = 0; k < K; k += 32, to += step) {
        uint16_t tile[TILE] __attribute__((aligned(64))) = {0};
        split_plain(used < 16 ? used : 16, K - k < 32 ? K - k : 32, 0, 32, B + k, ldb, tile);
        for (int s = 0; s < 3; s++) {
            VECTOR v[16];
            memcpy(v, tile + s * PART, sizeof v);
            NAME(transpose)(v);
            memcpy(to + s * PART, v, sizeof v);
        }
    }
}

static void split_columns(int transposed, ptrdiff_t K, ptrdiff_t columns, const REAL *B, ptrdiff_t ldb, void *tiles)
{
    const ptrdiff_t k_tiles = (K + 31) / 32, wide = (columns + 15) / 16;
    for (ptrdiff_t c = 0; c < wide; c++) {
        const ptrdiff_t group = wide - c / 4 * 4 < 4 ? wide - c / 4 * 4 : 4;
        uint16_t *to = (uint16_t *)tiles + (c / 4 * 4 * k_tiles + c % 4) * TILE;
        if (transposed)
            split_16_rows(K, columns - 16 * c, B + 16 * c * ldb, ldb, to, group * TILE);
        else
            split_16_columns(K, columns - 16 * c, B + 16 * c, ldb, to, group * TILE);
    }
}

/* sums: NULL, or where the sums over k of each row go, rows being a multiple of 16. */
static void split_transposed(ptrdiff_t rows, ptrdiff_t K, const REAL *A, ptrdiff_t lda, void *tiles, REAL *sums)
{
    const ptrdiff_t k_tiles = (K + 31) / 32;
    for (ptrdiff_t r = 0; r < rows; r += 16) {
        VECTOR sum = {0};
        for (ptrdiff_t k = 0; k < K; k += 32) {
            const ptrdiff_t end = K - k < 32 ? K : k + 32;
            for (ptrdiff_t n = k; sums && n < end; n++) sum += NAME(load)(A + r + n * lda);
            uint16_t *to = (uint16_t *)tiles + (r / 16 * k_tiles + k / 32) * TILE;
            BITS pairs[16][3];
            for (int n = 0; n < 32; n++) __builtin_prefetch(A + r + (k + 32 + n) * lda);
            for (int pair = 0; pair < 16; pair++) split_pair_of(A + r, lda, k + 2 * pair, K, rows - r, pairs[pair]);
            for (int s = 0; s < 3; s++) {
                VECTOR v[16];
#pragma GCC unroll 16
                for (int pair = 0; pair < 16; pair++) v[pair] = (VECTOR)pairs[pair][s];
                NAME(transpose)(v);
#pragma GCC unroll 16
                for (int row = 0; row < 16; row++) memcpy(to + s * PART + row * 32, &v[row], 64);
            }
        }
        if (sums) NAME(store)(sums + r, sum);
    }
}

static void split_rows(int transposed, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const REAL *A,
                       ptrdiff_t lda, void *tiles)
{
    if (transposed)
        split_transposed(rows, K, A, lda, tiles, NULL);
    else
        split_plain(rows, K, first, last, A, lda, tiles);
}

/* A product takes as many cycles as its tile of A has rows: where fewer than 16 are there, the units are told so. One
 * tile of rows is registers 0 to 3 (sums) and 4 to 6 (parts), 7 a tile of P; of two, 2, 3 and 5 are the second's.
 * `now` is what they have been told, 0 at first. */
static void tile_rows(int *now, ptrdiff_t first, ptrdiff_t second)
{
    const int wanted = (int)(32 * first + second);
    if (*now == wanted) return;
    *now = wanted;
    const uint8_t a = (uint8_t)first, b = (uint8_t)(second ? second : first), p = second ? 16 : a;
    const struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles = {
        1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {a, a, b, b, a, b, p, 16}};
    _tile_loadconfig(&tiles);
}

/* Two tiles of rows under two tiles of columns: four sums in turn hide the latency of each. `a_next`, `from_next` and
 * `c_next` are the distances to the second tile of rows, `p_step` that from k to the next k; the order of the parts changes
 * one operand at a time. */
INLINE void tiles_2_2(ptrdiff_t k_tiles, const uint16_t *a, ptrdiff_t a_next, const uint16_t *p, ptrdiff_t p_step,
                      const REAL *from, ptrdiff_t ldf, ptrdiff_t from_next, REAL *C, ptrdiff_t ldc, ptrdiff_t c_next)
{
#define LOAD_A(s) _tile_loadd(4, a + s * PART, 64); _tile_loadd(5, a + a_next + s * PART, 64)
#define LOAD_P(s) _tile_loadd(6, p + s * PART, 64); _tile_loadd(7, p + TILE + s * PART, 64)
#define MULTIPLY _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7)
    const ptrdiff_t from_bytes = ldf * 4, to_bytes = ldc * 4;
    _tile_loadd(0, from, from_bytes); _tile_loadd(1, from + 16, from_bytes);
    _tile_loadd(2, from + from_next, from_bytes); _tile_loadd(3, from + from_next + 16, from_bytes);
    for (ptrdiff_t k = 0; k < k_tiles; k++, a += TILE, p += p_step) {
        LOAD_A(0); LOAD_P(2); MULTIPLY; /* a1 p3 */
        LOAD_P(1); MULTIPLY;            /* a1 p2 */
        LOAD_A(1); MULTIPLY;            /* a2 p2 */
        LOAD_P(0); MULTIPLY;            /* a2 p1 */
        LOAD_A(2); MULTIPLY;            /* a3 p1 */
        LOAD_A(0); MULTIPLY;            /* a1 p1 */
    }
    _tile_stored(0, C, to_bytes); _tile_stored(1, C + 16, to_bytes);
    _tile_stored(2, C + c_next, to_bytes); _tile_stored(3, C + c_next + 16, to_bytes);
#undef LOAD_A
#undef LOAD_P
#undef MULTIPLY
}

/* One tile of rows under 1 to 4 tiles of columns: its three parts stay, those of P come one by one, each once. */
INLINE void tiles_1_n(const int n, ptrdiff_t k_tiles, const uint16_t *a, const uint16_t *p, ptrdiff_t p_step, const REAL *from,
                      ptrdiff_t ldf, REAL *C, ptrdiff_t ldc)
{
#define EACH(does) do { does(0); if (n > 1) does(1); if (n > 2) does(2); if (n > 3) does(3); } while (0)
#define START(j) _tile_loadd(j, from + j * 16, ldf * 4)
#define STORE(j) _tile_stored(j, C + j * 16, ldc * 4)
#define PART_3(j) _tile_loadd(7, p + j * TILE + 2 * PART, 64); _tile_dpbf16ps(j, 4, 7)
#define PART_2(j) _tile_loadd(7, p + j * TILE + PART, 64); _tile_dpbf16ps(j, 4, 7); _tile_dpbf16ps(j, 5, 7)
#define PART_1(j) _tile_loadd(7, p + j * TILE, 64); _tile_dpbf16ps(j, 5, 7); _tile_dpbf16ps(j, 6, 7); _tile_dpbf16ps(j, 4, 7)
    EACH(START);
    for (ptrdiff_t k = 0; k < k_tiles; k++, a += TILE, p += p_step) {
        _tile_loadd(4, a, 64);
        EACH(PART_3);
        _tile_loadd(5, a + PART, 64);
        EACH(PART_2);
        _tile_loadd(6, a + 2 * PART, 64);
        EACH(PART_1);
    }
    EACH(STORE);
#undef EACH
#undef START
#undef STORE
#undef PART_3
#undef PART_2
#undef PART_1
}

static void tiles_1(ptrdiff_t n, ptrdiff_t k_tiles, const uint16_t *a, const uint16_t *p, ptrdiff_t p_step, const REAL *from,
                    ptrdiff_t ldf, REAL *C, ptrdiff_t ldc)
{
    switch (n) {
    case 1: tiles_1_n(1, k_tiles, a, p, p_step, from, ldf, C, ldc); break;
    case 2: tiles_1_n(2, k_tiles, a, p, p_step, from, ldf, C, ldc); break;
    case 3: tiles_1_n(3, k_tiles, a, p, p_step, from, ldf, C, ldc); break;
    case 4: tiles_1_n(4, k_tiles, a, p, p_step, from, ldf, C, ldc); break;
    }
}

/* The same where the last columns are there only in part: by way of a whole block. */
static void tiles_1_part(ptrdiff_t n, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t k_tiles, const uint16_t *a,
                         const uint16_t *p, ptrdiff_t p_step, const REAL *from, ptrdiff_t ldf, REAL *C, ptrdiff_t ldc)
{
    REAL block[16 * 64] __attribute__((aligned(64)));
    const size_t bytes = (size_t)columns * sizeof(REAL);
    for (ptrdiff_t r = 0; r < rows; r++) memcpy(block + r * 64, from + r * ldf, bytes);
    tiles_1(n, k_tiles, a, p, p_step, block, 64, block, 64);
    for (ptrdiff_t r = 0; r < rows; r++) memcpy(C + r * ldc, block + r * 64, bytes);
}

/* Columns first..last (first a multiple of 16) of C, before _tile_release(); `now` as in tile_rows(). Tiles of 16 rows
 * lie `apart` reals apart in C: 16 * ldc, unless C is more than one matrix. */
static void product_of_tiles(int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                             const void *A, const void *P, const REAL *bias, REAL *C, ptrdiff_t ldc, ptrdiff_t apart)
{
    const ptrdiff_t k_tiles = (K + 31) / 32, wide = (columns + 15) / 16;
    const ptrdiff_t ldf = bias ? 0 : ldc, from_apart = bias ? 0 : apart, a_apart = k_tiles * TILE;
    while (first < last) {
        const ptrdiff_t c = first / 16, start = c / 4 * 4, group = wide - start < 4 ? wide - start : 4;
        const ptrdiff_t end = (start + group) * 16 < last ? (start + group) * 16 : last, p_step = group * TILE;
        const ptrdiff_t tiles = (end - first + 15) / 16, whole = (end - first) / 16;
        const int in_pairs = whole == tiles && tiles % 2 == 0;
        const uint16_t *p = (const uint16_t *)P + (start * k_tiles + c - start) * TILE;
        for (ptrdiff_t r = 0; r < rows;) {
            const uint16_t *a = (const uint16_t *)A + r / 16 * a_apart;
            const REAL *from = (bias ? bias : C) + first + r / 16 * from_apart;
            REAL *to = C + first + r / 16 * apart;
            const ptrdiff_t left = rows - r, used = left < 16 ? left : 16;
            if (left > 16 && in_pairs) {
                tile_rows(now, 16, left < 32 ? left - 16 : 16);
                for (ptrdiff_t j = 0; j < tiles; j += 2)
                    tiles_2_2(k_tiles, a, a_apart, p + j * TILE, p_step, from + 16 * j, ldf, from_apart, to + 16 * j, ldc,
                              apart);
                r += 32;
                continue;
            }
            if (used == 16) tile_rows(now, 16, 16); else tile_rows(now, used, 0);
            if (whole == tiles)
                tiles_1(tiles, k_tiles, a, p, p_step, from, ldf, to, ldc);
            else
                tiles_1_part(tiles, used, end - first, k_tiles, a, p, p_step, from, ldf, to, ldc);
            r += 16;
        }
        first = end;
    }
}

static void weight_gradients(ptrdiff_t N, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *dgates, ptrdiff_t inputs,
                             const void *x, REAL *dW, const void *h, REAL *dR, REAL *db, void *scratch)
{
    const ptrdiff_t Hp = (H + 15) / 16 * 16, tile_of_rows = (N + 31) / 32 * TILE;
    REAL sums[64] __attribute__((aligned(64)));
    int now = 0;
    for (ptrdiff_t j = first; j < last; j += 16) {
        const ptrdiff_t units = H - j < 16 ? H - j : 16;
        split_transposed(64, N, dgates + 4 * j, 4 * Hp, scratch, sums);
        for (ptrdiff_t gate = 0; db && gate < 4; gate++)
            for (ptrdiff_t unit = 0; unit < units; unit++) db[gate * H + j + unit] += sums[16 * gate + unit];
        /* the panel's four tiles of rows are the units' rows in the four gates, H apart */
        if (units == 16) {
            if (inputs) product_of_tiles(&now, 64, N, inputs, 0, inputs, scratch, x, NULL, dW + j * inputs, inputs, H * inputs);
            product_of_tiles(&now, 64, N, H, 0, H, scratch, h, NULL, dR + j * H, H, H * H);
            continue;
        }
        for (ptrdiff_t gate = 0; gate < 4; gate++) {
            const uint16_t *a = (const uint16_t *)scratch + gate * tile_of_rows;
            const ptrdiff_t row = gate * H + j;
            if (inputs) product_of_tiles(&now, units, N, inputs, 0, inputs, a, x, NULL, dW + row * inputs, inputs, 0);
            product_of_tiles(&now, units, N, H, 0, H, a, h, NULL, dR + row * H, H, 0);
        }
    }
    _tile_release();
}

#undef BITS
#undef PART
#undef TILE
