/* One vector of reals, in GCC's and Clang's vector extension. Included once per real type; no include guard.
 *
 * Expects REAL, INTEGER (the signed integer of the same size), NAME(x), and VECTOR_BYTES from the instruction set. */

#define VECTOR NAME(vector)
#define INTEGERS NAME(integers)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline, unused))

typedef REAL VECTOR __attribute__((vector_size(VECTOR_BYTES)));
typedef INTEGER INTEGERS __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(unaligned) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

INLINE VECTOR NAME(load)(const REAL *p) { return *(const NAME(unaligned) *)p; }
INLINE void NAME(store)(REAL *p, VECTOR v) { *(NAME(unaligned) *)p = v; }
INLINE VECTOR NAME(splat)(REAL a) { return a - (VECTOR){0}; } /* a + 0 would lose the sign of -0 */

/* sum + a * b and sum - a * b, rounded once where there is an instruction for it, else twice. */
INLINE VECTOR NAME(add_product)(VECTOR sum, VECTOR a, VECTOR b)
{
#if defined(__FMA__)
    return (VECTOR)X86(fmadd)(a, b, sum);
#elif defined(__aarch64__)
    return (VECTOR)NEON(vfmaq)((NEON_VECTOR)sum, (NEON_VECTOR)a, (NEON_VECTOR)b);
#else
    return sum + a * b;
#endif
}

INLINE VECTOR NAME(subtract_product)(VECTOR sum, VECTOR a, VECTOR b)
{
#if defined(__FMA__)
    return (VECTOR)X86(fnmadd)(a, b, sum);
#elif defined(__aarch64__)
    return (VECTOR)NEON(vfmsq)((NEON_VECTOR)sum, (NEON_VECTOR)a, (NEON_VECTOR)b);
#else
    return sum - a * b;
#endif
}

/* The same of single numbers, in loops that the compiler vectorises. */
INLINE REAL NAME(add_product_1)(REAL sum, REAL a, REAL b)
{
#if defined(__FMA__) || defined(__aarch64__)
    return FMA(a, b, sum);
#else
    return sum + a * b;
#endif
}

/* mask ? a : b, lane by lane; C has no such operator for vectors. */
INLINE VECTOR NAME(select)(INTEGERS mask, VECTOR a, VECTOR b)
{
    return (VECTOR)((mask & (INTEGERS)a) | (~mask & (INTEGERS)b));
}

/* Lane by lane. Where a is NaN, it is b. */
INLINE VECTOR NAME(larger)(VECTOR a, VECTOR b)
{
#ifdef X86
    return (VECTOR)X86(max)(a, b);
#else
    return NAME(select)(a > b, a, b);
#endif
}

/* x between low and high; NaN, for which every comparison is false, passes through. x86's minimum and maximum give their
 * second operand then. */
INLINE VECTOR NAME(clamp)(VECTOR x, REAL low, REAL high)
{
#ifdef X86
    return (VECTOR)X86(min)(NAME(splat)(high), X86(max)(NAME(splat)(low), x));
#else
    x = NAME(select)(x < low, NAME(splat)(low), x);
    return NAME(select)(x > high, NAME(splat)(high), x);
#endif
}

/* Where a row's last panel is not padding. */
INLINE INTEGERS NAME(real_lanes)(ptrdiff_t H)
{
    INTEGERS inside;
    const ptrdiff_t count = (H - 1) % LANES + 1;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) inside[lane] = lane < count ? -1 : 0;
    return inside;
}

/* The first n < LANES reals at p, `fill` behind them; nothing past p[n-1] is read or written. */
INLINE VECTOR NAME(load_part)(const REAL *p, ptrdiff_t n, REAL fill)
{
    REAL lanes[VECTOR_BYTES / sizeof(REAL)];
    for (ptrdiff_t j = 0; j < LANES; j++) lanes[j] = j < n ? p[j] : fill;
    return NAME(load)(lanes);
}

INLINE void NAME(store_part)(REAL *p, ptrdiff_t n, VECTOR v)
{
    for (ptrdiff_t j = 0; j < n; j++) p[j] = v[j];
}

/* The first and the second half of two vectors, lane by lane in turn; and back: the even and the odd lanes of two vectors. */
#if VECTOR_BYTES * 8 / REAL_BITS == 2
#define FIRST_HALVES 0, 2
#define SECOND_HALVES 1, 3
#define EVEN_LANES 0, 2
#define ODD_LANES 1, 3
#elif VECTOR_BYTES * 8 / REAL_BITS == 4
#define FIRST_HALVES 0, 4, 1, 5
#define SECOND_HALVES 2, 6, 3, 7
#define EVEN_LANES 0, 2, 4, 6
#define ODD_LANES 1, 3, 5, 7
#elif VECTOR_BYTES * 8 / REAL_BITS == 8
#define FIRST_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define SECOND_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#define EVEN_LANES 0, 2, 4, 6, 8, 10, 12, 14
#define ODD_LANES 1, 3, 5, 7, 9, 11, 13, 15
#else
#define FIRST_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SECOND_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define EVEN_LANES 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD_LANES 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#endif

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (INTEGERS){__VA_ARGS__})
#endif

/* `count` vectors, a power of two, as the rows of a matrix: turns the bits of (row, lane) round by one place, so that the first
 * bit of the row becomes the last one of the lane. turn_back: the other way round. */
INLINE void NAME(turn)(const ptrdiff_t count, VECTOR *v)
{
    VECTOR turned[VECTOR_BYTES * 8 / REAL_BITS < 4 ? 4 : VECTOR_BYTES * 8 / REAL_BITS];
    UNROLL
    for (ptrdiff_t i = 0; i < count / 2; i++) {
        turned[2 * i] = SHUFFLE(v[i], v[i + count / 2], FIRST_HALVES);
        turned[2 * i + 1] = SHUFFLE(v[i], v[i + count / 2], SECOND_HALVES);
    }
    UNROLL
    for (ptrdiff_t i = 0; i < count; i++) v[i] = turned[i];
}

INLINE void NAME(turn_back)(const ptrdiff_t count, VECTOR *v)
{
    VECTOR turned[VECTOR_BYTES * 8 / REAL_BITS < 4 ? 4 : VECTOR_BYTES * 8 / REAL_BITS];
    UNROLL
    for (ptrdiff_t i = 0; i < count / 2; i++) {
        turned[i] = SHUFFLE(v[2 * i], v[2 * i + 1], EVEN_LANES);
        turned[i + count / 2] = SHUFFLE(v[2 * i], v[2 * i + 1], ODD_LANES);
    }
    UNROLL
    for (ptrdiff_t i = 0; i < count; i++) v[i] = turned[i];
}

/* LANES vectors as the rows of a matrix -> its columns. */
INLINE void NAME(transpose)(VECTOR *v)
{
    for (ptrdiff_t round = 1; round < LANES; round *= 2) NAME(turn)(LANES, v);
}

#if REAL_BITS == 32
typedef uint32_t NAME(words) __attribute__((vector_size(VECTOR_BYTES)));

/* The nearest bfloat16, of two the even one, in the upper half of 32 bits each. */
INLINE NAME(words) NAME(rounded_bfloat16)(VECTOR x)
{
    const NAME(words) bits = (NAME(words))x, rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (NAME(words))NAME(select)(x == x, (VECTOR)rounded, (VECTOR)(bits | 0x00400000)) & 0xffff0000;
}
#endif
