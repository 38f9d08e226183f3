/* Products by weights in fewer bits, for float: CYLSTM_FLOAT16, CYLSTM_BFLOAT16 and CYLSTM_INT8 (kernels.h says how operands lie).
 * A group of k is what 32 bits of a left operand hold: one float, two bfloat16, or four bytes. */

typedef int16_t NAME(shorts) __attribute__((vector_size(VECTOR_BYTES)));

INLINE VECTOR NAME(splat_bits)(const void *p)
{
    INTEGER bits;
    memcpy(&bits, p, sizeof bits);
    return (VECTOR)((INTEGERS){0} + bits);
}

INLINE VECTOR NAME(as_reals)(INTEGERS v)
{
#if defined(X86)
    return (VECTOR)X86_OF(cvtepi32_ps)((X86_INTEGERS)v);
#else
    return __builtin_convertvector(v, VECTOR);
#endif
}

/* LANES float16, all finite: with another 112 in the exponent, they are floats. */
INLINE VECTOR NAME(load_float16)(const void *p)
{
#if defined(__AVX512F__)
    return (VECTOR)_mm512_cvtph_ps(_mm256_loadu_si256(p));
#elif defined(__F16C__)
    return (VECTOR)_mm256_cvtph_ps(_mm_loadu_si128(p));
#else
    uint16_t halves[VECTOR_BYTES / 4];
    INTEGERS bits = {0};
    memcpy(halves, p, sizeof halves);
    for (ptrdiff_t lane = 0; lane < LANES; lane++) bits[lane] = halves[lane];
    const VECTOR size = (VECTOR)((bits & 0x7fff) << 13) * NAME(splat)(0x1p112f);
    return (VECTOR)((INTEGERS)size | (bits & 0x8000) << 16);
#endif
}

INLINE VECTOR NAME(add_pairs)(VECTOR sum, VECTOR w, VECTOR a)
{
    const INTEGERS upper = (INTEGERS){0} - 65536;
    sum = NAME(add_product)(sum, (VECTOR)((INTEGERS)w << 16), (VECTOR)((INTEGERS)a << 16));
    return NAME(add_product)(sum, (VECTOR)((INTEGERS)w & upper), (VECTOR)((INTEGERS)a & upper));
}

/* sum + a . w as integers, a of unsigned bytes, w of signed ones. */
INLINE INTEGERS NAME(add_bytes)(INTEGERS sum, INTEGERS w, INTEGERS a)
{
#if defined(X86)
    /* the even bytes as 16 bits and the odd ones, whose products are added in pairs */
    const NAME(words) a_even = (NAME(words))a & 0x00ff00ff, a_odd = (NAME(words))a >> 8 & 0x00ff00ff;
    const NAME(shorts) w_even = (NAME(shorts))w << 8 >> 8, w_odd = (NAME(shorts))w >> 8;
    return sum + (INTEGERS)X86_OF(madd_epi16)((X86_INTEGERS)a_even, (X86_INTEGERS)w_even) +
           (INTEGERS)X86_OF(madd_epi16)((X86_INTEGERS)a_odd, (X86_INTEGERS)w_odd);
#else
    UNROLL
    for (int n = 0; n < 4; n++) sum += (a >> 8 * n & 255) * (w << (24 - 8 * n) >> 24);
    return sum;
#endif
}

/* C with the sum added, of a row of this scale. tail: -128 times the sum of each column's bytes, since those of the row have 128
 * added, and `apart` reals on the columns' scales. */
INLINE VECTOR NAME(scaled_sum)(INTEGERS sum, VECTOR start, REAL scale, const REAL *tail, ptrdiff_t apart)
{
    const VECTOR exact = NAME(as_reals)(sum + (INTEGERS)NAME(load)(tail));
    return start + exact * (NAME(load)(tail + apart) * NAME(splat)(scale));
}

#define OF(name) NAME(name##_float16)
#define OPERANDS HALVES
#define TARGET
#include "block.h"

/* Of many rows: each piece of a panel becomes floats once, and not once for each block of rows. */
static __attribute__((noinline)) void NAME(product_of_float16)(ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first,
                                                               ptrdiff_t last, const REAL *A, ptrdiff_t lda, const REAL *P,
                                                               const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    if (rows <= 2 * BLOCK_ROWS) {
        NAME(product_of_panels_float16)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
        return;
    }
    REAL piece[K_BLOCK * 4 * VECTOR_BYTES / sizeof(REAL)] __attribute__((aligned(64)));
    const ptrdiff_t panel = 4 * LANES;
    for (; first < last; first += panel) {
        const uint16_t *p = (const uint16_t *)P + first * K;
        for (ptrdiff_t k = 0; k < K; k += K_BLOCK) {
            const ptrdiff_t deep = K - k < K_BLOCK ? K - k : K_BLOCK;
            for (ptrdiff_t j = 0; j < deep * panel; j += LANES) NAME(store)(piece + j, NAME(load_float16)(p + k * panel + j));
            NAME(product_panel)(rows, deep, 4, A + k, lda, piece, panel, bias && k == 0 ? bias + first : NULL, C + first, ldc);
        }
    }
}

/* Reals of a row of a left operand, and of a column of a right one beside its tail. */
#define PAIRS_ROW(K) (((K) + 31) / 32 * 16)
#define BYTES_ROW(K) (((K) + 63) / 64 * 16)
#define BYTES_TAIL 16

/* Rows of a block whose sums stay in registers beside what takes bytes and pairs apart. */
#if BLOCK_ROWS == 6
#define EMULATED_ROWS 4
#elif BLOCK_ROWS == 3
#define EMULATED_ROWS 2
#else
#define EMULATED_ROWS BLOCK_ROWS
#endif
#define OF(name) NAME(name##_bfloat16)
#define OPERANDS PAIRS
#define TARGET
#define MOST_ROWS EMULATED_ROWS
#define ADD(sum, w, a) NAME(add_pairs)(sum, w, a)
#include "block.h"

#define OF(name) NAME(name##_int8)
#define OPERANDS BYTES
#define TARGET
#define MOST_ROWS EMULATED_ROWS
#define ADD(sum, w, a) NAME(add_bytes)(sum, w, a)
#include "block.h"

/* The same where the processor has units for them, which is asked for at run time (dispatch.c). */
#define DOT_FORMS 0
#if defined(X86) && VECTOR_BYTES == 64
#undef DOT_FORMS
#define DOT_FORMS (1 << CYLSTM_BFLOAT16_DOT | 1 << CYLSTM_INT8_DOT)
#define HAVE_BFLOAT16_DOT
#define HAVE_INT8_DOT

#define OF(name) NAME(name##_bfloat16_dot)
#define OPERANDS PAIRS
#define TARGET __attribute__((target("avx512bf16")))
#define ADD(sum, w, a) (VECTOR)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(a), (__m512bh)(w))
#include "block.h"

#define OF(name) NAME(name##_int8_dot)
#define OPERANDS BYTES
#define TARGET __attribute__((target("avx512vnni")))
#define ADD(sum, w, a) (INTEGERS)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(w))
#include "block.h"
#elif defined(X86) && VECTOR_BYTES == 32
#undef DOT_FORMS
#define DOT_FORMS (1 << CYLSTM_INT8_DOT)
#define HAVE_INT8_DOT

#define OF(name) NAME(name##_int8_dot)
#define OPERANDS BYTES
#define TARGET __attribute__((target("avxvnni")))
#define ADD(sum, w, a) (INTEGERS)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(a), (__m256i)(w))
#include "block.h"
#endif
