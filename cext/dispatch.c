/* Which kernels this processor can run. */
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const cylstm_kernels cylstm_baseline;
#if defined(__x86_64__)
extern const cylstm_kernels cylstm_avx2, cylstm_avx512;
#endif
#if defined(__x86_64__) && defined(__linux__)
extern const cylstm_kernels cylstm_amx;

#ifndef CYLSTM_EMULATED_TILES
/* AMX-TILE and AMX-BF16: names that __builtin_cpu_supports does not know in every Clang (not in 16). */
static int have_tiles(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 24 & 1 && d >> 22 & 1;
}
#endif

/* Linux saves the tile registers of processes that have asked for them, if it knows them. Asking twice does no harm. */
static int tiles_granted(void)
{
#ifdef CYLSTM_EMULATED_TILES
    return 1;
#else
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return have_tiles() && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#endif
}
#endif

const cylstm_kernels *cylstm_select(const char *isa)
{
    const cylstm_kernels *found[4];
    int count = 0;
#if defined(__x86_64__)
    /* These ask for the operating system's part (saved registers) as well. */
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("fma");
#ifdef __linux__
    if (avx512 && tiles_granted()) found[count++] = &cylstm_amx;
#endif
    if (avx512) found[count++] = &cylstm_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found[count++] = &cylstm_avx2;
#endif
    found[count++] = &cylstm_baseline;
    for (int n = 0; n < count; n++)
        if (!isa || strcmp(found[n]->isa, isa) == 0) return found[n];
    return NULL;
}
