/* exp, sigmoid and tanh on a vector. All three come from one reduction, exp(x) = 2^n (1 + p), where n = round(x / ln 2),
 * r = x - n ln 2 in |r| <= 0.35, and p = exp(r) - 1 by its Taylor series (degree 7 for float: remainder < 2^-25;
 * 13 for double: < 2^-56). Keeping p apart from the 1 is what keeps tanh accurate near 0. */

/* Adding 1.5 * 2^(mantissa bits) leaves round(x / ln 2) in the low bits, where it can be shifted into an exponent:
 * works without a rounding instruction, which SSE2 lacks. */
INLINE void NAME(exp_parts)(VECTOR x, VECTOR *scale, VECTOR *p)
{
    const VECTOR shifted = x * (REAL)1.4426950408889634074 + ROUNDING;
    const VECTOR n = shifted - ROUNDING;
    const VECTOR r = (x - n * (REAL)LN2_HIGH) - n * (REAL)LN2_LOW;
    *scale = (VECTOR)(((INTEGERS)shifted << MANTISSA_BITS) + (INTEGERS)NAME(splat)(1));
    VECTOR q = NAME(splat)((REAL)EXP_SERIES_START);
#if REAL_BITS == 64
    q = q * r + (REAL)(1.0 / 479001600);
    q = q * r + (REAL)(1.0 / 39916800);
    q = q * r + (REAL)(1.0 / 3628800);
    q = q * r + (REAL)(1.0 / 362880);
    q = q * r + (REAL)(1.0 / 40320);
    q = q * r + (REAL)(1.0 / 5040);
#endif
    q = q * r + (REAL)(1.0 / 720);
    q = q * r + (REAL)(1.0 / 120);
    q = q * r + (REAL)(1.0 / 24);
    q = q * r + (REAL)(1.0 / 6);
    q = q * r + (REAL)0.5;
    *p = r + r * r * q;
}

/* Written so that NaN, for which every comparison is false, passes through. */
INLINE VECTOR NAME(clamp)(VECTOR x, REAL low, REAL high)
{
    x = NAME(select)(x < low, NAME(splat)(low), x);
    return NAME(select)(x > high, NAME(splat)(high), x);
}

INLINE VECTOR NAME(vexp)(VECTOR x)
{
    VECTOR scale, p;
    NAME(exp_parts)(NAME(clamp)(x, EXP_LOW, EXP_HIGH), &scale, &p);
    return scale + scale * p;
}

/* 1 / (1 + exp(-x)) */
INLINE VECTOR NAME(vsigmoid)(VECTOR x)
{
    return (REAL)1 / ((REAL)1 + NAME(vexp)(-x));
}

/* (e - 1) / (e + 1) with e = exp(2x); beyond |x| = 20 both types round to 1. */
INLINE VECTOR NAME(vtanh)(VECTOR x)
{
    VECTOR scale, p;
    NAME(exp_parts)(NAME(clamp)(x + x, -40, 40), &scale, &p);
    const VECTOR e_minus_1 = scale * p + (scale - (REAL)1);
    return e_minus_1 / (e_minus_1 + (REAL)2);
}

#define DEFINE_MAP(function)                                                                                   \
    static void NAME(map_##function)(ptrdiff_t n, const REAL *x, REAL *y)                                      \
    {                                                                                                          \
        ptrdiff_t j = 0;                                                                                       \
        for (; j + LANES <= n; j += LANES) NAME(store)(y + j, NAME(v##function)(NAME(load)(x + j)));           \
        if (j < n) NAME(store_part)(y + j, n - j, NAME(v##function)(NAME(load_part)(x + j, n - j, 0)));        \
    }
DEFINE_MAP(exp)
DEFINE_MAP(sigmoid)
DEFINE_MAP(tanh)
#undef DEFINE_MAP
