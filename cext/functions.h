/* Activations (cylstm_activation), of dense layers and of cells other than the plain one, and their slopes.
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
    else if (kind == CYLSTM_EXPONENTIAL) x = NAME(clamp)(x, EXP_LOW, EXP_HIGH);
    else x = -NAME(clamp)(x, EXP_LOW, -EXP_LOW); /* of a sigmoid */
    NAME(exp_parts)(1, &x, scale, p);
}

/* f(z), and f'(z) from z. */
INLINE VECTOR NAME(activation)(const cylstm_activation *f, VECTOR z)
{
    const VECTOR zero = NAME(splat)(0);
    const REAL alpha = (REAL)f->alpha, beta = (REAL)f->beta;
    const int kind = f->kind;
    VECTOR scale, p, y;
    if (kind == CYLSTM_RELU) return NAME(select)(z <= 0, zero, z);
    if (kind == CYLSTM_LEAKY_RELU) return NAME(select)(z > 0, z, alpha * z);
    if (kind == CYLSTM_THRESHOLDED_RELU) return NAME(select)(z <= alpha, zero, z);
    if (kind == CYLSTM_SOFTSIGN) return z / ((REAL)1 + NAME(magnitude)(z));
    if (kind == CYLSTM_BOUNDED)
        return NAME(clamp)(NAME(add_product)(NAME(splat)(beta), NAME(splat)(alpha), z), (REAL)f->low, (REAL)f->high);
    if (kind == CYLSTM_TANH) z = beta * z;
    const VECTOR low = NAME(select)(z < EXP_LOW, NAME(splat)(EXP_LOW), z);
    NAME(exponential)(kind, low, &scale, &p);
    if (kind == CYLSTM_EXPONENTIAL) return NAME(add_product)(scale, scale, p);
    if (kind == CYLSTM_SOFTPLUS)
        return NAME(select)(z < 0, zero, z) + NAME(log1p)(NAME(add_product)(scale, scale, p));
    y = NAME(tanh_numerator)(scale, p);
    if (kind == CYLSTM_ELU) return beta * NAME(select)(z > 0, z, alpha * y);
    if (kind == CYLSTM_TANH) return alpha * (y / (y + (REAL)2));
    y = (REAL)1 / NAME(sigmoid_denominator)(scale, p);
    return kind == CYLSTM_SIGMOID ? y : low * y; /* silu, gelu_tanh */
}

INLINE VECTOR NAME(slope)(const cylstm_activation *f, VECTOR z)
{
    const VECTOR one = NAME(splat)(1), zero = NAME(splat)(0);
    const REAL alpha = (REAL)f->alpha, beta = (REAL)f->beta;
    const int kind = f->kind;
    VECTOR scale, p, y;
    if (kind == CYLSTM_RELU) return NAME(select)(z <= 0, zero, one);
    if (kind == CYLSTM_LEAKY_RELU) return NAME(select)(z > 0, one, NAME(splat)(alpha));
    if (kind == CYLSTM_THRESHOLDED_RELU) return NAME(select)(z <= alpha, zero, one);
    if (kind == CYLSTM_BOUNDED) {
        y = NAME(add_product)(NAME(splat)(beta), NAME(splat)(alpha), z);
        return NAME(select)(y <= (REAL)f->low, zero, NAME(select)(y >= (REAL)f->high, zero, NAME(splat)(alpha)));
    }
    if (kind == CYLSTM_SOFTSIGN) {
        y = one / (one + NAME(magnitude)(z));
        return y * y;
    }
    if (kind == CYLSTM_TANH) z = beta * z;
    const VECTOR bounded = NAME(clamp)(z, EXP_LOW, kind == CYLSTM_EXPONENTIAL ? EXP_HIGH : -EXP_LOW);
    NAME(exponential)(kind, bounded, &scale, &p);
    if (kind == CYLSTM_TANH) {
        y = NAME(tanh_numerator)(scale, p);
        y = y / (y + (REAL)2);
        return alpha * beta * (one - y * y);
    }
    y = NAME(add_product)(scale, scale, p);
    if (kind == CYLSTM_EXPONENTIAL) return y;
    if (kind == CYLSTM_ELU) return beta * NAME(select)(z > 0, one, alpha * y);
    if (kind == CYLSTM_SOFTPLUS) return NAME(select)(z < 0, y, one) / (one + y);
    y = one / (one + y);
    if (kind == CYLSTM_SIGMOID) return y * (one - y);
    const VECTOR of_argument = kind == CYLSTM_GELU_TANH ? NAME(gelu_slope)(bounded) : one;
    return y + bounded * of_argument * y * (one - y); /* silu, gelu_tanh */
}

/* f'(z) from v = f(z), of those that rise all the way; not of silu and gelu_tanh, which have no such thing. */
static __attribute__((noinline)) VECTOR NAME(slope_of_value)(const cylstm_activation *f, VECTOR v)
{
    const VECTOR one = NAME(splat)(1), zero = NAME(splat)(0);
    const REAL alpha = (REAL)f->alpha, beta = (REAL)f->beta;
    VECTOR scale, p;
    switch (f->kind) {
    case CYLSTM_RELU: return NAME(select)(v <= 0, zero, one);
    case CYLSTM_THRESHOLDED_RELU: return NAME(select)(v == 0, zero, one);
    case CYLSTM_LEAKY_RELU: return NAME(select)(v > 0, one, NAME(splat)(alpha));
    case CYLSTM_BOUNDED:
        return NAME(select)(v <= (REAL)f->low, zero, NAME(select)(v >= (REAL)f->high, zero, NAME(splat)(alpha)));
    case CYLSTM_SOFTSIGN: return (one - NAME(magnitude)(v)) * (one - NAME(magnitude)(v));
    case CYLSTM_TANH: return alpha * beta * NAME(subtract_product)(one, v / alpha, v / alpha);
    case CYLSTM_EXPONENTIAL: return v;
    case CYLSTM_ELU: return NAME(select)(v > 0, NAME(splat)(beta), v + alpha * beta);
    case CYLSTM_SOFTPLUS: /* v = log(1 + e^z), f' = 1 - e^-v, of which all digits are there where v is next to nothing */
        v = -NAME(clamp)(v, 0, -EXP_LOW);
        NAME(exp_parts)(1, &v, &scale, &p);
        return -NAME(tanh_numerator)(scale, p);
    default: return v * (one - v); /* sigmoid */
    }
}

/* What cells call for each vector of a gate: in the place of a call, it would be there sixteen times. */
static __attribute__((noinline)) VECTOR NAME(activated)(const cylstm_activation *f, VECTOR z) { return NAME(activation)(f, z); }
