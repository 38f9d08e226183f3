/* Which kernels this processor can run. */
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h> /* __builtin_cpu_supports does not know all names in every Clang (not in 16) */
#endif
#if defined(__x86_64__) && defined(__linux__)
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
/* AMX-TILE, AMX-BF16 and AMX-INT8 */
static int have_tiles(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 24 & 1 && d >> 22 & 1 && d >> 25 & 1;
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

#if defined(__x86_64__)
/* F16C */
static int have_float16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c >> 29 & 1;
}
#endif

const cylstm_kernels *cylstm_available(int n)
{
#if defined(__x86_64__)
    /* These ask for the operating system's part (saved registers) as well. */
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && have_float16();
    const int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
#endif
    const cylstm_kernels *sets[] = { /* the widest first, NULL for what this processor lacks */
#if defined(__x86_64__) && defined(__linux__)
        avx512 && tiles_granted() ? &cylstm_amx : NULL,
#endif
#if defined(__x86_64__)
        avx512 ? &cylstm_avx512 : NULL,
        avx2 ? &cylstm_avx2 : NULL,
#endif
        &cylstm_baseline,
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (sets[i] && n-- == 0) return sets[i];
    return NULL;
}

const cylstm_kernels *cylstm_select(const char *isa)
{
    const cylstm_kernels *found = cylstm_available(0);
    for (int n = 1; found && isa && strcmp(found->isa, isa) != 0; n++) found = cylstm_available(n);
    return found;
}

int cylstm_forms_of(const cylstm_kernels *kernels)
{
    int forms = kernels->f32.cut_forms;
#if defined(__x86_64__)
    unsigned a, b, c, d, vnni, bf16 = 0, avx_vnni = 0;
    vnni = __get_cpuid_count(7, 0, &a, &b, &c, &d) && c >> 11 & 1; /* AVX512-VNNI */
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) bf16 = a >> 5 & 1, avx_vnni = a >> 4 & 1;
    if (!(kernels->f32.lanes == 16 ? vnni : avx_vnni)) forms &= ~(1 << CYLSTM_INT8_DOT);
    if (!bf16) forms &= ~(1 << CYLSTM_BFLOAT16_DOT);
#endif
    return forms;
}
