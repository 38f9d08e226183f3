/* Intel's tile instructions in plain AVX-512, for tests on processors that have no AMX units: built in place of the
 * intrinsics of <immintrin.h> where CYLSTM_EMULATE=amx (setup.py). Slow, and as exact as the manual says:
 *
 *   TDPBF16PS (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2): the products of a row of A with the
 *   even and with the odd k are summed apart, from zero, in the order of k, by FMA in float; the sum of the two sums is added
 *   to C. Subnormal numbers count as zero, what comes in and what goes out, and numbers are rounded to even.
 *   TDPBUSD: products of unsigned bytes of A and signed ones of P are added to C, all of it in 32 bits.
 *
 * What the processor would refuse (a tile used before it is configured, sizes that do not fit) ends the program. */
#ifndef CYLSTM_TILES_EMULATED_H
#define CYLSTM_TILES_EMULATED_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_zero emulated_zero
#define _tile_dpbf16ps emulated_dpbf16ps
#define _tile_dpbusd emulated_dpbusd

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_BYTES = 64 };

/* The registers of one thread. */
static _Thread_local struct {
    int rows[EMULATED_TILES], bytes[EMULATED_TILES]; /* 0: not configured */
    uint32_t data[EMULATED_TILES][EMULATED_ROWS][EMULATED_BYTES / 4] __attribute__((aligned(64)));
} emulated;

static void emulated_expect(int holds)
{
    if (!holds) __builtin_trap();
}

static void emulated_release(void) { memset(&emulated, 0, sizeof emulated); }

static void emulated_loadconfig(const void *config)
{
    const uint8_t *rows = (const uint8_t *)config + 48;
    uint16_t bytes[EMULATED_TILES];
    memcpy(bytes, (const uint8_t *)config + 16, sizeof bytes);
    emulated_expect(*(const uint8_t *)config == 1); /* the palette */
    emulated_release();
    for (int t = 0; t < EMULATED_TILES; t++) {
        emulated_expect(rows[t] <= EMULATED_ROWS && bytes[t] <= EMULATED_BYTES && bytes[t] % 4 == 0);
        emulated.rows[t] = rows[t], emulated.bytes[t] = bytes[t];
    }
}

static void emulated_loadd(int tile, const void *base, ptrdiff_t stride)
{
    emulated_expect(emulated.rows[tile] > 0);
    memset(emulated.data[tile], 0, sizeof emulated.data[tile]);
    for (int r = 0; r < emulated.rows[tile]; r++)
        memcpy(emulated.data[tile][r], (const char *)base + r * stride, (size_t)emulated.bytes[tile]);
}

static void emulated_zero(int tile)
{
    emulated_expect(emulated.rows[tile] > 0);
    memset(emulated.data[tile], 0, sizeof emulated.data[tile]);
}

static void emulated_stored(int tile, void *base, ptrdiff_t stride)
{
    emulated_expect(emulated.rows[tile] > 0);
    for (int r = 0; r < emulated.rows[tile]; r++)
        memcpy((char *)base + r * stride, emulated.data[tile][r], (size_t)emulated.bytes[tile]);
}

/* Apart, so that the compiler moves none of it past the change of rounding and of subnormals. */
static __attribute__((noinline)) void emulated_products(int rows, int pairs, const uint32_t (*A)[16], const uint32_t (*P)[16],
                                                        uint32_t (*C)[16])
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    for (int r = 0; r < rows; r++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps(), c = _mm512_load_ps(C[r]);
        for (int k = 0; k < pairs; k++) {
            const __m512i a = _mm512_set1_epi32((int)A[r][k]), p = _mm512_load_si512(P[k]);
            even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                                   _mm512_castsi512_ps(_mm512_slli_epi32(p, 16)), even);
            odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, upper)),
                                  _mm512_castsi512_ps(_mm512_and_si512(p, upper)), odd);
        }
        _mm512_store_ps(C[r], _mm512_add_ps(c, _mm512_add_ps(even, odd)));
    }
}

static void emulated_expect_fit(int sum, int left, int right)
{
    emulated_expect(emulated.rows[sum] > 0 && emulated.rows[sum] == emulated.rows[left]);
    emulated_expect(emulated.bytes[left] / 4 == emulated.rows[right] && emulated.bytes[sum] == emulated.bytes[right]);
}

static void emulated_dpbusd(int sum, int left, int right)
{
    emulated_expect_fit(sum, left, right);
    for (int r = 0; r < emulated.rows[sum]; r++)
        for (int k = 0; k < emulated.rows[right]; k++) {
            uint8_t a[4];
            memcpy(a, &emulated.data[left][r][k], sizeof a);
            for (int j = 0; j < 16; j++) {
                int8_t p[4];
                memcpy(p, &emulated.data[right][k][j], sizeof p);
                for (int n = 0; n < 4; n++) emulated.data[sum][r][j] += (uint32_t)(a[n] * p[n]);
            }
        }
}

static void emulated_dpbf16ps(int sum, int left, int right)
{
    enum { ROUND_TO_EVEN_DAZ_FTZ_MASKED = 0x9fc0 };
    const unsigned int before = _mm_getcsr();
    emulated_expect_fit(sum, left, right);
    _mm_setcsr(ROUND_TO_EVEN_DAZ_FTZ_MASKED);
    emulated_products(emulated.rows[sum], emulated.rows[right], (const uint32_t(*)[16])emulated.data[left],
                      (const uint32_t(*)[16])emulated.data[right], emulated.data[sum]);
    _mm_setcsr(before);
}

#endif
