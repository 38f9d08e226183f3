/* Vectors of 16 bytes: SSE2 on x86-64, NEON on aarch64. */
#define ISA baseline
#define ISA_NAME "baseline"
#define VECTOR_BYTES 16
#ifdef __aarch64__
/* 4 x 4 accumulators of 32 registers: 27 instructions for 16 multiply-adds; 3 rows take 22 for 12, GCC 12 spills 6. */
#define BLOCK_ROWS 4
#else
/* SSE2 has no multiply-add: a product needs a register more than the 16 there are, and one is spilled. 46 instructions
 * for 12 multiply-adds are still fewer than 32 for 8. */
#define BLOCK_ROWS 3
#endif
#define UNITS_ABREAST 1
#include "both_types.h"
