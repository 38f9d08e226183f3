/* One pass over flat buffers; the compiler vectorises these loops. */

static double NAME(sum_squares)(ptrdiff_t n, const REAL *x)
{
    double sums[8] = {0}; /* double sums, in a fixed order that does not depend on the vector width */
    ptrdiff_t j = 0;
    for (; j + 8 <= n; j += 8)
        for (int lane = 0; lane < 8; lane++) sums[lane] += (double)x[j + lane] * (double)x[j + lane];
    for (; j < n; j++) sums[j % 8] += (double)x[j] * (double)x[j];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static void NAME(sgd)(ptrdiff_t n, REAL *restrict p, const REAL *restrict g, REAL *restrict m, double lr_, double momentum_,
                      int nesterov, double decay_, double gscale_)
{
    const REAL lr = (REAL)lr_, momentum = (REAL)momentum_, decay = (REAL)decay_, gscale = (REAL)gscale_;
    if (!m) {
        for (ptrdiff_t j = 0; j < n; j++)
            p[j] = NAME(add_product_1)(p[j], -lr, NAME(add_product_1)(gscale * g[j], decay, p[j]));
        return;
    }
    for (ptrdiff_t j = 0; j < n; j++) {
        const REAL d = NAME(add_product_1)(gscale * g[j], decay, p[j]);
        m[j] = NAME(add_product_1)(d, momentum, m[j]);
        p[j] = NAME(add_product_1)(p[j], -lr, nesterov ? NAME(add_product_1)(d, momentum, m[j]) : m[j]);
    }
}

static void NAME(adam)(ptrdiff_t n, REAL *restrict p, const REAL *restrict g, REAL *restrict m, REAL *restrict v,
                       double step_size_, double correction_, double beta1_, double beta2_, double eps_, double lr,
                       double decay_, int decoupled, double gscale_)
{
    const REAL step_size = (REAL)step_size_, correction = (REAL)correction_, gscale = (REAL)gscale_, eps = (REAL)eps_;
    const REAL beta1 = (REAL)beta1_, rest1 = (REAL)(1 - beta1_), beta2 = (REAL)beta2_, rest2 = (REAL)(1 - beta2_);
    const REAL keep = decoupled ? (REAL)(1 - lr * decay_) : 1, decay = decoupled ? 0 : (REAL)decay_;
    for (ptrdiff_t j = 0; j < n; j++) {
        const REAL d = NAME(add_product_1)(gscale * g[j], decay, p[j]);
        m[j] = NAME(add_product_1)(beta1 * m[j], rest1, d);
        v[j] = NAME(add_product_1)(beta2 * v[j], rest2 * d, d);
        p[j] = NAME(add_product_1)(-(step_size * m[j] / NAME(add_product_1)(eps, correction, SQRT(v[j]))), keep, p[j]);
    }
}
