/* Vectors of 16 bytes: SSE2 on x86-64, NEON on aarch64. */
#define ISA baseline
#define ISA_NAME "baseline"
#define VECTOR_BYTES 16
#define TILE_ROWS 3
#define UNITS_ABREAST 1
#include "kernels_body.h"
