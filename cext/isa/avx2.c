#ifdef __x86_64__ /* macOS compiles every file for each of its architectures: nothing for the others */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with -mavx2 -mfma -mf16c"
#endif
#define ISA avx2
#define ISA_NAME "avx2"
#define VECTOR_BYTES 32
#define BLOCK_ROWS 3 /* 3 x 4 accumulators, 3 broadcasts and 1 weight: the 16 registers there are */
#define UNITS_ABREAST 1
#include "both_types.h"
#endif
