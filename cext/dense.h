/* Activations of dense layers, and their slopes; kernels.def says which are meant. Each is one pass over a flat buffer.
 *
 * x sigmoid(x) is 0 to any precision long before sigmoid is; where sigmoid stays at its least, x has to stay as well. */
#define SERIES (REAL_BITS == 32 ? 8 : 17) /* terms of log1p: what is left out is < 2^-29 (float) or 2^-58 */

/* log(1 + u) of u in 0..1: 2 atanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...) with s = u / (2 + u) <= 1/3. */
INLINE VECTOR NAME(log1p)(VECTOR u)
{
    const VECTOR s = u / ((REAL)2 + u), square = s * s;
    VECTOR q = NAME(splat)((REAL)inverse_odds[SERIES - 1]);
    UNROLL for (int k = SERIES - 2; k >= 1; k--)
        q = NAME(add_product)(NAME(splat)((REAL)inverse_odds[k]), q, square);
    return NAME(add_product)(s + s, s + s, square * q);
}

INLINE VECTOR NAME(magnitude)(VECTOR z) { return NAME(select)(z < 0, -z, z); }

/* gelu_tanh(z) = z (1 + tanh(a)) / 2 = z sigmoid(2 a), a = sqrt(2 / pi) (z + 0.044715 z^3): 2 a, and its slope. */
#define GELU_1 ((REAL)1.5957691216057308)
#define GELU_3 ((REAL)0.07135481627260025)
INLINE VECTOR NAME(gelu_argument)(VECTOR z) { return z * (GELU_1 + GELU_3 * z * z); }
INLINE VECTOR NAME(gelu_slope)(VECTOR z) { return GELU_1 + 3 * GELU_3 * z * z; }

/* What the exponential is of, by which f and its slope are computed: e = scale (1 + p). All have the code of one. */
INLINE void NAME(exponential)(int kind, VECTOR z, VECTOR *scale, VECTOR *p)
{
    VECTOR x = kind == CYLSTM_GELU_TANH ? NAME(gelu_argument)(z) : z;
    if (kind == CYLSTM_TANH) x = NAME(clamp)(x + x, -TANH_LIMIT, TANH_LIMIT);
    else if (kind == CYLSTM_ELU) x = NAME(clamp)(x, EXP_LOW, 0);
    else if (kind == CYLSTM_SOFTPLUS) x = NAME(clamp)(-NAME(magnitude)(x), EXP_LOW, 0);
    else x = -NAME(clamp)(x, EXP_LOW, -EXP_LOW); /* of a sigmoid */
    NAME(exp_parts)(1, &x, scale, p);
}

INLINE VECTOR NAME(activation)(int kind, VECTOR z)
{
    const VECTOR zero = NAME(splat)(0), low = NAME(select)(z < EXP_LOW, NAME(splat)(EXP_LOW), z);
    VECTOR scale, p, y;
    if (kind == CYLSTM_RELU) return NAME(select)(z <= 0, zero, z);
    if (kind == CYLSTM_LEAKY_RELU) return NAME(select)(z > 0, z, (REAL)0.01 * z);
    if (kind == CYLSTM_SOFTSIGN) return z / ((REAL)1 + NAME(magnitude)(z));
    NAME(exponential)(kind, low, &scale, &p);
    if (kind == CYLSTM_SOFTPLUS)
        return NAME(select)(z < 0, zero, z) + NAME(log1p)(NAME(add_product)(scale, scale, p));
    y = NAME(tanh_numerator)(scale, p);
    if (kind == CYLSTM_ELU) return NAME(select)(z > 0, z, y);
    if (kind == CYLSTM_TANH) return y / (y + (REAL)2);
    y = (REAL)1 / NAME(sigmoid_denominator)(scale, p);
    return kind == CYLSTM_SIGMOID ? y : low * y; /* silu, gelu_tanh */
}

INLINE VECTOR NAME(slope)(int kind, VECTOR z)
{
    const VECTOR one = NAME(splat)(1), bounded = NAME(clamp)(z, EXP_LOW, -EXP_LOW);
    VECTOR scale, p, y;
    if (kind == CYLSTM_RELU) return NAME(select)(z <= 0, NAME(splat)(0), one);
    if (kind == CYLSTM_LEAKY_RELU) return NAME(select)(z > 0, one, NAME(splat)((REAL)0.01));
    if (kind == CYLSTM_SOFTSIGN) {
        y = one / (one + NAME(magnitude)(z));
        return y * y;
    }
    NAME(exponential)(kind, bounded, &scale, &p);
    if (kind == CYLSTM_TANH) {
        y = NAME(tanh_numerator)(scale, p);
        y = y / (y + (REAL)2);
        return one - y * y;
    }
    y = NAME(add_product)(scale, scale, p);
    if (kind == CYLSTM_ELU) return NAME(select)(z > 0, one, y);
    if (kind == CYLSTM_SOFTPLUS) return NAME(select)(z < 0, y, one) / (one + y);
    y = one / (one + y);
    if (kind == CYLSTM_SIGMOID) return y * (one - y);
    const VECTOR of_argument = kind == CYLSTM_GELU_TANH ? NAME(gelu_slope)(bounded) : one;
    return y + bounded * of_argument * y * (one - y); /* silu, gelu_tanh */
}

/* With one body for whole vectors and for what is left of them: this is code of every instruction set, twice. */
static void NAME(activate)(int kind, ptrdiff_t n, const REAL *z, REAL *y)
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t left = n - j;
        const VECTOR v = NAME(activation)(kind, left < LANES ? NAME(load_part)(z + j, left, 0) : NAME(load)(z + j));
        if (left < LANES) NAME(store_part)(y + j, left, v);
        else NAME(store)(y + j, v);
    }
}

static void NAME(activate_backward)(int kind, ptrdiff_t n, const REAL *z, REAL *d)
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t left = n - j;
        const VECTOR v = NAME(slope)(kind, left < LANES ? NAME(load_part)(z + j, left, 0) : NAME(load)(z + j));
        if (left < LANES) NAME(store_part)(d + j, left, v * NAME(load_part)(d + j, left, 0));
        else NAME(store)(d + j, v * NAME(load)(d + j));
    }
}
