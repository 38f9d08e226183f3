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
INLINE VECTOR NAME(splat)(REAL a) { return (VECTOR){0} + a; }

/* mask ? a : b, lane by lane; C has no such operator for vectors. */
INLINE VECTOR NAME(select)(INTEGERS mask, VECTOR a, VECTOR b)
{
    return (VECTOR)((mask & (INTEGERS)a) | (~mask & (INTEGERS)b));
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
