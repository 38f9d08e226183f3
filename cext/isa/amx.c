#ifdef __x86_64__ /* macOS compiles every file for each of its architectures: nothing for the others */
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || !defined(__AVX512BW__) || \
    !defined(__FMA__)
#error "compile with -mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma"
#endif
#if !defined(CYLSTM_EMULATED_TILES) && !(defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)) && \
    !(defined(__AMXTILE__) && defined(__AMXBF16__) && defined(__AMXINT8__)) /* Clang 14 */
#error "compile with -mamx-tile -mamx-bf16 -mamx-int8"
#endif
#define ISA amx
#define ISA_NAME "amx"
#define VECTOR_BYTES 64
#define BLOCK_ROWS 6
#define WITH_TILES
#define UNITS_ABREAST 2
#include "both_types.h"
#endif
