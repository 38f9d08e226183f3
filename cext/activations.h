/* exp, sigmoid and tanh on a vector. All three come from one reduction, exp(x) = 2^n (1 + p), where n = round(x / ln 2),
 * r = x - n ln 2 in |r| <= 0.35, and p = exp(r) - 1 by its Taylor series (degree 7 for float: remainder < 2^-25;
 * 13 for double: < 2^-56). Keeping p apart from the 1 is what keeps tanh accurate near 0. */

/* scale and p of exp(x), of n vectors. The polynomial is one chain of operations that wait for each other, four cycles each, and a
 * processor looks no further ahead than about one such chain: so n chains are laid side by side, operation by operation.
 * n is a constant.
 *
 * Adding 1.5 * 2^(mantissa bits) leaves round(x / ln 2) in the low bits, where it can be shifted into an exponent:
 * works without a rounding instruction, which SSE2 lacks. */
#define ABREAST UNROLL for (int i = 0; i < n; i++)
INLINE void NAME(exp_parts)(const int n, const VECTOR *x, VECTOR *scale, VECTOR *p)
{
    VECTOR r[16], q[16];
    ABREAST scale[i] = NAME(add_product)(NAME(splat)(ROUNDING), x[i], NAME(splat)((REAL)1.4426950408889634074));
    ABREAST q[i] = scale[i] - ROUNDING;
    ABREAST r[i] = NAME(subtract_product)(x[i], q[i], NAME(splat)((REAL)LN2_HIGH));
    ABREAST r[i] = NAME(subtract_product)(r[i], q[i], NAME(splat)((REAL)LN2_LOW));
    ABREAST scale[i] = (VECTOR)(((INTEGERS)scale[i] << MANTISSA_BITS) + (INTEGERS)NAME(splat)(1));
    ABREAST q[i] = NAME(splat)((REAL)inverse_factorials[EXP_DEGREE]);
    UNROLL for (int k = EXP_DEGREE - 1; k >= 2; k--)
        ABREAST q[i] = NAME(add_product)(NAME(splat)((REAL)inverse_factorials[k]), q[i], r[i]);
    ABREAST p[i] = NAME(add_product)(r[i], r[i] * r[i], q[i]);
}

INLINE VECTOR NAME(vexp)(VECTOR x)
{
    VECTOR scale, p;
    x = NAME(clamp)(x, EXP_LOW, EXP_HIGH);
    NAME(exp_parts)(1, &x, &scale, &p);
    return NAME(add_product)(scale, scale, p);
}

/* sigmoid(x) = 1 / (1 + exp(-x)), here from the parts of exp(-x). */
INLINE VECTOR NAME(sigmoid_denominator)(VECTOR scale, VECTOR p) { return (REAL)1 + NAME(add_product)(scale, scale, p); }

/* tanh(x) = (e - 1) / (e + 1) with e = exp(2x), here from its parts. */
INLINE VECTOR NAME(tanh_numerator)(VECTOR scale, VECTOR p) { return NAME(add_product)(scale - (REAL)1, scale, p); }

INLINE VECTOR NAME(vsigmoid)(VECTOR x)
{
    VECTOR scale, p;
    x = -NAME(clamp)(x, EXP_LOW, -EXP_LOW);
    NAME(exp_parts)(1, &x, &scale, &p);
    return (REAL)1 / NAME(sigmoid_denominator)(scale, p);
}

#define TANH_LIMIT 40 /* of 2x: beyond it both types round to 1 */

INLINE VECTOR NAME(vtanh)(VECTOR x)
{
    VECTOR scale, p;
    x = NAME(clamp)(x + x, -TANH_LIMIT, TANH_LIMIT);
    NAME(exp_parts)(1, &x, &scale, &p);
    const VECTOR numerator = NAME(tanh_numerator)(scale, p);
    return numerator / (numerator + (REAL)2);
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
