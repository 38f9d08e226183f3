/* The most multiply-adds that one core does: independent ones in registers, as many as hide their latency. */
#include <stddef.h>

typedef float vector __attribute__((vector_size(BYTES)));

#define CHAINS 12

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
