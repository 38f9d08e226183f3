#ifdef __x86_64__ /* macOS compiles every file for each of its architectures: nothing for the others */
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || !defined(__AVX512BW__) || \
    !defined(__FMA__)
#error "compile with -mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma"
#endif
#define ISA avx512
#define ISA_NAME "avx512"
#define VECTOR_BYTES 64
#define BLOCK_ROWS 6 /* 6 x 4 accumulators of 32 registers */
#define UNITS_ABREAST 2
#include "both_types.h"
#endif
