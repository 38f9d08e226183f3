/* What one core can do at most: multiply-adds of float in registers, products of fewer bits, reading and writing memory; and how
 * fast the library's own cells are without a product. */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef float vector __attribute__((vector_size(BYTES)));
typedef vector unaligned __attribute__((aligned(4)));

#define CHAINS 12 /* independent ones, as many as hide their latency */

double multiply_adds(ptrdiff_t rounds)
{
    vector sums[CHAINS], a = {0}, b = {0};
#pragma GCC unroll 12 /* a loop that is left would keep them in memory */
    for (int n = 0; n < CHAINS; n++) sums[n] = a;
    a += 1.0f + 1e-7f * (float)(rounds & 1), b += 1e-9f;
    for (ptrdiff_t round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int n = 0; n < CHAINS; n++) {
            vector sum = sums[n] * a + b; /* GCC 14 keeps an array in memory whose elements are handed to asm */
            __asm__ volatile("" : "+v"(sum));
            sums[n] = sum;
        }
    }
    double total = 0;
#pragma GCC unroll 12
    for (int n = 0; n < CHAINS; n++) total += sums[n][0];
    return total; /* used, so that nothing is left out */
}

ptrdiff_t flops_per_round(void) { return 2 * CHAINS * (BYTES / (ptrdiff_t)sizeof(float)); }

/* A buffer of so many bytes, a multiple of 16 vectors, from its beginning to its end, so many times. */
double read_memory(const float *buffer, ptrdiff_t bytes, ptrdiff_t rounds)
{
    vector sums[8] = {{0}};
    for (ptrdiff_t round = 0; round < rounds; round++)
        for (const float *p = buffer; p < buffer + bytes / 4; p += 8 * BYTES / 4) {
#pragma GCC unroll 8
            for (int n = 0; n < 8; n++) sums[n] += *(const unaligned *)(p + n * BYTES / 4);
        }
    double total = 0;
    for (int n = 0; n < 8; n++) total += sums[n][0];
    return total;
}

/* The same, written; `past`: past the caches, which need not read a line before it is overwritten. */
void write_memory(float *buffer, ptrdiff_t bytes, ptrdiff_t rounds, int past)
{
    for (ptrdiff_t round = 0; round < rounds; round++)
        for (float *p = buffer; p < buffer + bytes / 4; p += BYTES / 4) {
            const vector value = {(float)round};
#if defined(__x86_64__) && BYTES == 64
            if (past) _mm512_stream_ps(p, (__m512)value);
#elif defined(__x86_64__) && BYTES == 32
            if (past) _mm256_stream_ps(p, (__m256)value);
#elif defined(__x86_64__)
            if (past) _mm_stream_ps(p, (__m128)value);
#else
            if (past) __builtin_memcpy(p, &value, BYTES);
#endif
            else *(unaligned *)p = value;
        }
}

/* So many steps of CELLS units of the plain cell, forward or backward, whose product, of a form that no kernel multiplies, is left
 * out; all that they read and write stays in the first-level cache. Gradients that come in are 0, and all that are made stay it:
 * whatever the gates hold, no number becomes so small that it takes longer. */
enum { CELL_ROWS = 8, CELL_UNITS = 64, CELLS = CELL_ROWS * CELL_UNITS };
ptrdiff_t cells_per_round(void) { return CELLS; }

void cells(const cylstm_kernels *(*select)(const char *), const char *isa, ptrdiff_t rounds, int backward)
{
    static _Alignas(64) float gates[4 * CELLS], c[CELLS], h[CELLS], dh[CELLS], dc[CELLS];
    const cylstm_kernels *kernels = select(isa);
    const cylstm_step step = {.B = CELL_ROWS, .H = CELL_UNITS, .last = CELL_UNITS, .form = CYLSTM_BLAS, .kept = 1, .gates = gates, .c_prev = c,
                              .c = c, .h = h, .dh = dh, .dc = dc};
    for (ptrdiff_t n = 0; n < 4 * CELLS; n++) gates[n] = 0.1f * (float)(n % 19 - 9);
    for (ptrdiff_t round = 0; round < rounds; round++) (backward ? kernels->f32.cell_backward : kernels->f32.cell_forward)(&step);
}

#ifdef TILES
/* Four products of tiles of bfloat16 or, where `whole`, of bytes, each into a sum of its own. */
double multiply_small(ptrdiff_t rounds, int whole)
{
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles = {
        1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    __asm__ volatile("" ::"r"(&tiles) : "memory"); /* the next line does not say that it reads all of it */
    _tile_loadconfig(&tiles);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
    for (ptrdiff_t round = 0; round < rounds; round++) {
        if (whole) {
            _tile_dpbusd(0, 4, 6); _tile_dpbusd(1, 4, 7); _tile_dpbusd(2, 5, 6); _tile_dpbusd(3, 5, 7);
        } else {
            _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_release();
    return 0;
}
#endif

#ifdef DOTS
/* Products of pairs of bfloat16 or, where `whole`, of four bytes, added to sums of their own. */
double multiply_small(ptrdiff_t rounds, int whole)
{
    __m512i sums[CHAINS], a = _mm512_set1_epi32((int)rounds & 1), b = _mm512_set1_epi32((int)rounds & 2);
    double total = 0;
#pragma GCC unroll 12
    for (int n = 0; n < CHAINS; n++) sums[n] = a;
    for (ptrdiff_t round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int n = 0; n < CHAINS; n++) {
            __m512i sum = whole ? _mm512_dpbusd_epi32(sums[n], a, b)
                                : (__m512i)_mm512_dpbf16_ps((__m512)sums[n], (__m512bh)a, (__m512bh)b);
            __asm__ volatile("" : "+v"(sum));
            sums[n] = sum;
        }
    }
#pragma GCC unroll 12
    for (int n = 0; n < CHAINS; n++) total += _mm512_reduce_add_epi32(sums[n]);
    return total;
}
#endif
