/* All kernels for one instruction set: the bodies compiled for float and for double, and the table of both.
 * Included by one tiny .c per instruction set, which defines ISA, ISA_NAME, VECTOR_BYTES, BLOCK_ROWS (of a
 * product in registers), UNITS_ABREAST (vectors of units whose activations are computed side by side), and WITH_TILES. */
#if defined(__clang__) ? __clang_major__ < 14 : __GNUC__ < 11
#error "compiler: expected GCC 11, Clang 14 or newer"
#endif
#include "../kernels.h"

#include <math.h>
#include <string.h>

#define CONCATENATE(a, b) a##b
#define CONCATENATE_EXPANDED(a, b) CONCATENATE(a, b)

#if defined(__x86_64__)
#include <immintrin.h>
#if VECTOR_BYTES == 16
#define X86_WIDTH _mm_
#define X86_INTEGERS __m128i
#elif VECTOR_BYTES == 32
#define X86_WIDTH _mm256_
#define X86_INTEGERS __m256i
#else
#define X86_WIDTH _mm512_
#define X86_INTEGERS __m512i
#endif
/* The intrinsic function of this width and type */
#define X86(operation) CONCATENATE_EXPANDED(X86_WIDTH, CONCATENATE_EXPANDED(operation, X86_TYPE))
#define X86_OF(operation) CONCATENATE_EXPANDED(X86_WIDTH, operation)
#elif defined(__aarch64__)
#include <arm_neon.h>
#define NEON(operation) CONCATENATE_EXPANDED(operation, CONCATENATE_EXPANDED(_f, REAL_BITS))
#endif

/* A loop to be laid out in full: its bounds are constants. Clang takes GCC's pragma for a number of rounds, and
 * leaves a shorter loop, and what it counts through, in memory (14 and 16 do, 19 does not). */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* 1 / k! */
static const double inverse_factorials[] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040,
    1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

/* 1 / (2 k + 1) */
static const double inverse_odds[] = {1.0, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15,
    1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23, 1.0 / 25, 1.0 / 27, 1.0 / 29, 1.0 / 31, 1.0 / 33};

#define NAME(name) name##_f32
#define REAL float
#define INTEGER int32_t
#define REAL_BITS 32
#define X86_TYPE _ps
#define MANTISSA_BITS 23
#define ROUNDING 12582912.0f /* 1.5 * 2^23 */
#define LN2_HIGH 0.693359375
#define LN2_LOW -2.12194440054690583e-4
#define EXP_DEGREE 7
#define EXP_LOW -87.0f
#define EXP_HIGH 88.0f
#define PAIRED_LIMIT 43.0f /* e^43 (e^43 + 1) < 2^127; sigmoid(-43) = 2e-19 */
#define SQRT sqrtf
#define FMA __builtin_fmaf
#define NEON_VECTOR float32x4_t
#include "one_type.h"

#define NAME(name) name##_f64
#define REAL double
#define INTEGER int64_t
#define REAL_BITS 64
#define X86_TYPE _pd
#define MANTISSA_BITS 52
#define ROUNDING 6755399441055744.0 /* 1.5 * 2^52 */
#define LN2_HIGH 0.693147180369123816490
#define LN2_LOW 1.90821492927058770002e-10
#define EXP_DEGREE 13
#define EXP_LOW -708.0
#define EXP_HIGH 709.0
#define PAIRED_LIMIT 350.0 /* sigmoid(-350) = 1e-152 */
#define SQRT sqrt
#define FMA __builtin_fma
#define NEON_VECTOR float64x2_t
#include "one_type.h"

#define KERNEL(result, name, arguments) .name = NAME(name),
#ifdef WITH_TILES
#define TILE_KERNEL KERNEL
#define TILE_FORMS (1 << CYLSTM_TILES | 1 << CYLSTM_ROUNDED_TILES | 1 << CYLSTM_BFLOAT16_TILES | 1 << CYLSTM_INT8_TILES)
#else
#define TILE_FORMS 0
#define TILE_KERNEL(result, name, arguments) .name = NULL,
#endif
const cylstm_kernels CONCATENATE_EXPANDED(cylstm_, ISA) = {
    .isa = ISA_NAME,
    .f32 = {
#define NAME(name) name##_f32
        .lanes = VECTOR_BYTES / sizeof(float),
        .cut_forms = 1 << CYLSTM_FLOAT16 | 1 << CYLSTM_BFLOAT16 | 1 << CYLSTM_INT8 | 1 << CYLSTM_ROUNDED | DOT_FORMS | TILE_FORMS,
#include "../kernels.def"
#undef NAME
#undef TILE_KERNEL
#define TILE_KERNEL(result, name, arguments) .name = NULL,
#define NAME(name) name##_f64
    },
    .f64 = {
        .lanes = VECTOR_BYTES / sizeof(double),
#include "../kernels.def"
    },
};
