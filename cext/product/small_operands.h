/* Operands of products in fewer bits, as kernels.h has them. */

INLINE VECTOR NAME(load_columns)(const REAL *row, ptrdiff_t k, ptrdiff_t K)
{
    return K - k >= LANES ? NAME(load)(row + k) : NAME(load_part)(row + k, K - k, 0);
}

static void NAME(left_pairs)(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const REAL *A, ptrdiff_t lda, uint16_t *out)
{
    const ptrdiff_t row = 2 * PAIRS_ROW(K), end = last < K ? last : K;
    for (ptrdiff_t r = 0; r < rows; r++, A += lda, out += row) {
        for (ptrdiff_t k = first; k < end; k += LANES) { /* what is written past K is 0, and within the row */
            const NAME(words) upper = NAME(rounded_bfloat16)(NAME(load_columns)(A, k, K));
#if defined(__AVX512F__)
            _mm256_storeu_si256((__m256i *)(out + k), _mm512_cvtepi32_epi16((__m512i)(upper >> 16)));
#else
            for (ptrdiff_t lane = 0; lane < LANES; lane++) out[k + lane] = (uint16_t)(upper[lane] >> 16);
#endif
        }
        if (last >= K) memset(out + K, 0, (size_t)(row - K) * sizeof *out);
    }
}

/* The least row that has a scale: 127 / bound is a float. Of a smaller one, nothing is left. */
#define BYTES_LEAST 0x1p-119f

static void NAME(left_bytes)(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const REAL *A, ptrdiff_t lda, REAL bound,
                             REAL *out)
{
    const ptrdiff_t row = BYTES_ROW(K) + BYTES_TAIL, end = last < K ? last : K;
    for (ptrdiff_t r = 0; r < rows; r++, A += lda, out += row) {
        REAL most = bound;
        if (bound == 0) {
            INTEGERS sizes = {0}; /* the bits of numbers without their sign are in order, those of NaN behind infinity */
            for (ptrdiff_t k = 0; k < K; k += LANES) {
                const INTEGERS size = (INTEGERS)NAME(load_columns)(A, k, K) & 0x7fffffff;
                sizes = (INTEGERS)NAME(select)(size > sizes, (VECTOR)size, (VECTOR)sizes);
            }
            INTEGER best = 0;
            for (ptrdiff_t lane = 0; lane < LANES; lane++) best = sizes[lane] > best ? sizes[lane] : best;
            memcpy(&most, &best, sizeof most);
        }
        const int small = most < BYTES_LEAST;
        const VECTOR inverse = NAME(splat)(small ? 0 : 127 / most);
        uint8_t *bytes = (uint8_t *)out;
        for (ptrdiff_t k = first; k < end; k += LANES) {
            /* the last bits of x + 1.5 2^23 are those of x, rounded to even */
            const VECTOR x = NAME(clamp)(NAME(load_columns)(A, k, K) * inverse, -127, 127) + NAME(splat)(ROUNDING + 128);
            const ptrdiff_t used = K - k < LANES ? K - k : LANES;
#if defined(__AVX512F__)
            if (used == LANES) {
                _mm_storeu_si128((__m128i *)(bytes + k), _mm512_cvtepi32_epi8((__m512i)x));
                continue;
            }
#endif
            for (ptrdiff_t lane = 0; lane < used; lane++) bytes[k + lane] = (uint8_t)((INTEGERS)x)[lane];
        }
        if (last >= K) memset(bytes + K, 0, (size_t)(4 * BYTES_ROW(K) - K));
        if (first == 0) out[row - BYTES_TAIL] = small ? 0 : most < INFINITY ? most / 127 : NAN;
    }
}

static void NAME(right_pairs)(ptrdiff_t K, ptrdiff_t columns, const REAL *P, ptrdiff_t ldp, REAL *out)
{
    for (ptrdiff_t k = 0; k < 2 * PAIRS_ROW(K); k += 2)
        for (ptrdiff_t j = 0; j < columns; j += LANES, out += LANES) {
            const VECTOR even = k < K ? NAME(load)(P + k * ldp + j) : NAME(splat)(0);
            const VECTOR odd = k + 1 < K ? NAME(load)(P + (k + 1) * ldp + j) : NAME(splat)(0);
            NAME(store)(out, (VECTOR)(NAME(rounded_bfloat16)(even) >> 16 | NAME(rounded_bfloat16)(odd)));
        }
}

static void NAME(right_rounded)(ptrdiff_t K, ptrdiff_t columns, const REAL *P, ptrdiff_t ldp, REAL *out)
{
    for (ptrdiff_t k = 0; k < K; k++, P += ldp)
        for (ptrdiff_t j = 0; j < columns; j += LANES, out += LANES)
            NAME(store)(out, (VECTOR)NAME(rounded_bfloat16)(NAME(load)(P + j)));
}

static void NAME(right_float16)(ptrdiff_t K, ptrdiff_t columns, const REAL *P, ptrdiff_t ldp, REAL *out)
{
    uint16_t *to = (uint16_t *)out;
    for (ptrdiff_t k = 0; k < K; k++, P += ldp)
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const VECTOR x = NAME(load)(P + j);
            const INTEGERS size = (INTEGERS)(x * NAME(splat)(0x1p-112f)) >> 13 & 0x7fff, sign = (INTEGERS)x >> 16 & 0x8000;
            for (ptrdiff_t lane = 0; lane < LANES; lane++) *to++ = (uint16_t)(size | sign)[lane];
        }
}

static void NAME(right_bytes)(ptrdiff_t K, ptrdiff_t columns, const REAL *P, ptrdiff_t ldp, REAL *out)
{
    memcpy(out + columns, P + K * ldp, (size_t)columns * sizeof *out);
    int8_t *to = (int8_t *)(out + 2 * columns);
    for (ptrdiff_t j = 0; j < columns; j++) {
        int32_t sum = 0;
        for (ptrdiff_t k = 0; k < 4 * BYTES_ROW(K); k++) {
            const int8_t byte = k < K ? (int8_t)P[k * ldp + j] : 0;
            to[(k / 4 * columns + j) * 4 + k % 4] = byte;
            sum -= 128 * byte;
        }
        memcpy(out + j, &sum, sizeof sum);
    }
}

/* Row k of a panel `wide` columns wide, of the vector at column j. */
INLINE VECTOR NAME(small_row)(int form, const REAL *panel, ptrdiff_t k, ptrdiff_t wide, ptrdiff_t j)
{
    if (form == CYLSTM_FLOAT16) return NAME(load_float16)((const uint16_t *)panel + k * wide + j);
    if (form == CYLSTM_BFLOAT16) {
        const NAME(words) pair = (NAME(words))NAME(load)(panel + k / 2 * wide + j);
        return (VECTOR)(k % 2 ? pair & 0xffff0000 : pair << 16);
    }
    const INTEGERS four = (INTEGERS)NAME(load)(panel + (2 + k / 4) * wide + j);
    return NAME(as_reals)(four << (24 - 8 * (k % 4)) >> 24) * NAME(load)(panel + wide + j);
}
