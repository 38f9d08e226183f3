/* Which kernels this processor can run. */
#include "kernels.h"

#include <string.h>

extern const cylstm_kernels cylstm_baseline;
#if defined(__x86_64__) || defined(_M_X64)
extern const cylstm_kernels cylstm_avx2, cylstm_avx512;
#endif

const cylstm_kernels *cylstm_select(const char *isa)
{
    const cylstm_kernels *found[3];
    int count = 0;
#if defined(__x86_64__) || defined(_M_X64)
    /* These ask for the operating system's part (saved registers) as well. */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        found[count++] = &cylstm_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found[count++] = &cylstm_avx2;
#endif
    found[count++] = &cylstm_baseline;
    for (int n = 0; n < count; n++)
        if (!isa || strcmp(found[n]->isa, isa) == 0) return found[n];
    return NULL;
}
