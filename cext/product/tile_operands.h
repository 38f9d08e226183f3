/* Operands of products on AMX units, cut into tiles of bfloat16 of so many PARTS (tiles.h has their layouts), and the largest number
 * of an operand, which says whether three parts hold it. */

#define PART 512            /* bfloat16 in one tile */
#define TILE (PARTS * PART) /* in the parts of one tile */

#define BITS NAME(words)

/* The parts, each in the upper half of 32 bits. Of three, rounding half up suffices: what is left over is exact. Rounding
 * might make infinity of the largest numbers and zero of NaN, whose first part therefore is only cut. */
INLINE void split(const int PARTS, VECTOR x, BITS part[3])
{
    if (PARTS == 1) {
        part[0] = NAME(rounded_bfloat16)(x);
        return;
    }
    for (int s = 0; s < PARTS; s++) {
        const BITS half = s == 0 ? (BITS)(((BITS)x & 0x7fffffff) < 0x7f7f8000) & 0x8000 : (BITS){0} + 0x8000;
        part[s] = ((BITS)x + half) & 0xffff0000;
        x -= (VECTOR)part[s];
    }
}

INLINE void store_halves(uint16_t *p, BITS upper)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)upper, 16)));
}

INLINE void split_plain(const int PARTS, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const REAL *A, ptrdiff_t lda,
                        void *tiles)
{
    const ptrdiff_t k_tiles = (K + 31) / 32, end = last < K ? last : k_tiles * 32;
    for (ptrdiff_t r = 0; r < rows; r++, A += lda)
        for (ptrdiff_t k = first; k < end; k += 16) {
            uint16_t *to = (uint16_t *)tiles + (r / 16 * k_tiles + k / 32) * TILE + r % 16 * 32 + k % 32;
            const ptrdiff_t used = K - k;
            BITS part[3];
            split(PARTS, used >= 16 ? NAME(load)(A + k) : NAME(load_part)(A + k, used, 0), part);
            for (int s = 0; s < PARTS; s++) store_halves(to + s * PART, part[s]);
        }
}

/* Two neighbouring rows of a matrix as pairs, the even one in the lower half. */
INLINE void split_pair(const int PARTS, VECTOR even, VECTOR odd, BITS pairs[3])
{
    BITS lower[3], upper[3];
    split(PARTS, even, lower), split(PARTS, odd, upper);
    for (int s = 0; s < PARTS; s++) pairs[s] = lower[s] >> 16 | upper[s];
}

/* 16 columns of rows k and k + 1, zero past K and past `used` columns */
INLINE void split_pair_of(const int PARTS, const REAL *B, ptrdiff_t ldb, ptrdiff_t k, ptrdiff_t K, ptrdiff_t used, BITS pairs[3])
{
    VECTOR row[2] = {{0}, {0}};
    for (int odd = 0; odd < 2 && k + odd < K; odd++)
        row[odd] = used >= 16 ? NAME(load)(B + (k + odd) * ldb) : NAME(load_part)(B + (k + odd) * ldb, used, 0);
    split_pair(PARTS, row[0], row[1], pairs);
}

/* 16 columns, one tile of k after the other, `step` apart, from the matrix (K, columns) */
INLINE void split_16_columns(const int PARTS, ptrdiff_t K, ptrdiff_t used, const REAL *B, ptrdiff_t ldb, uint16_t *to, ptrdiff_t step)
{
    for (ptrdiff_t k = 0; k < (K + 31) / 32 * 32; k += 2) {
        BITS pairs[3];
        split_pair_of(PARTS, B, ldb, k, K, used, pairs);
        for (int s = 0; s < PARTS; s++) memcpy(to + k / 32 * step + s * PART + k % 32 * 16, &pairs[s], 64);
    }
}

/* the same from its transpose (columns, K) */
INLINE void split_16_rows(const int PARTS, ptrdiff_t K, ptrdiff_t used, const REAL *B, ptrdiff_t ldb, uint16_t *to, ptrdiff_t step)
{
    for (ptrdiff_t k = 0; k < K; k += 32, to += step) {
        uint16_t tile[3 * PART] __attribute__((aligned(64))) = {0};
        split_plain(PARTS, used < 16 ? used : 16, K - k < 32 ? K - k : 32, 0, 32, B + k, ldb, tile);
        for (int s = 0; s < PARTS; s++) {
            VECTOR v[16];
            memcpy(v, tile + s * PART, sizeof v);
            NAME(transpose)(v);
            memcpy(to + s * PART, v, sizeof v);
        }
    }
}

INLINE void split_columns(const int PARTS, int transposed, ptrdiff_t K, ptrdiff_t columns, const REAL *B, ptrdiff_t ldb, void *tiles)
{
    const ptrdiff_t k_tiles = (K + 31) / 32, wide = (columns + 15) / 16;
    for (ptrdiff_t c = 0; c < wide; c++) {
        const ptrdiff_t group = wide - c / 4 * 4 < 4 ? wide - c / 4 * 4 : 4;
        uint16_t *to = (uint16_t *)tiles + (c / 4 * 4 * k_tiles + c % 4) * TILE;
        if (transposed)
            split_16_rows(PARTS, K, columns - 16 * c, B + 16 * c * ldb, ldb, to, group * TILE);
        else
            split_16_columns(PARTS, K, columns - 16 * c, B + 16 * c, ldb, to, group * TILE);
    }
}

/* sums: NULL, or where the sums over k of each row go, rows being a multiple of 16. */
INLINE void split_transposed(const int PARTS, ptrdiff_t rows, ptrdiff_t K, const REAL *A, ptrdiff_t lda, void *tiles, REAL *sums)
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
            for (int pair = 0; pair < 16; pair++) split_pair_of(PARTS, A + r, lda, k + 2 * pair, K, rows - r, pairs[pair]);
            for (int s = 0; s < PARTS; s++) {
                VECTOR v[16];
                UNROLL
                for (int pair = 0; pair < 16; pair++) v[pair] = (VECTOR)pairs[pair][s];
                NAME(transpose)(v);
                UNROLL
                for (int row = 0; row < 16; row++) memcpy(to + s * PART + row * 32, &v[row], 64);
            }
        }
        if (sums) NAME(store)(sums + r, sum);
    }
}

INLINE void split_left(const int PARTS, int transposed, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const REAL *A,
                       ptrdiff_t lda, void *tiles)
{
    if (transposed)
        split_transposed(PARTS, rows, K, A, lda, tiles, NULL);
    else
        split_plain(PARTS, rows, K, first, last, A, lda, tiles);
}

static REAL NAME(largest)(ptrdiff_t rows, ptrdiff_t columns, const REAL *A, ptrdiff_t lda)
{
    INTEGERS most = {0}; /* the bits of numbers without their sign are in order, those of NaN behind infinity */
    if (lda == columns) columns *= rows, rows = 1;
    for (; rows > 0; rows--, A += lda)
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const VECTOR v = columns - j >= LANES ? NAME(load)(A + j) : NAME(load_part)(A + j, columns - j, 0);
            const INTEGERS size = (INTEGERS)v & 0x7fffffff;
            most = (INTEGERS)NAME(select)(size > most, (VECTOR)size, (VECTOR)most);
        }
    INTEGER best = 0;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) best = most[lane] > best ? most[lane] : best;
    REAL found;
    memcpy(&found, &best, sizeof found);
    return isfinite(found) ? found : INFINITY;
}
