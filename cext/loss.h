/* The losses, each with its gradient written over the outputs. */

/* exp(z - shift) over a row of n, written to z where `keep`; the sum is returned. */
INLINE REAL NAME(exp_row)(ptrdiff_t n, REAL *z, REAL shift, int keep)
{
    VECTOR sums = {0};
    ptrdiff_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        const VECTOR e = NAME(vexp)(NAME(load)(z + j) - shift);
        if (keep) NAME(store)(z + j, e);
        sums += e;
    }
    REAL sum = 0;
    if (j < n) {
        const VECTOR e = NAME(vexp)(NAME(load_part)(z + j, n - j, 0) - shift);
        if (keep) NAME(store_part)(z + j, n - j, e);
        for (ptrdiff_t lane = 0; lane < n - j; lane++) sum += e[lane];
    }
    for (ptrdiff_t lane = 0; lane < LANES; lane++) sum += sums[lane];
    return sum;
}

INLINE REAL NAME(max_row)(ptrdiff_t n, const REAL *z)
{
    VECTOR best = NAME(splat)(z[0]);
    ptrdiff_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        const VECTOR v = NAME(load)(z + j);
        best = NAME(select)(v > best, v, best);
    }
    REAL max = z[0];
    for (ptrdiff_t lane = 0; lane < LANES; lane++) max = best[lane] > max ? best[lane] : max;
    for (; j < n; j++) max = z[j] > max ? z[j] : max;
    return max;
}

/* The weight of row r, which is added to *total. Where it is 0 the row's outputs become their gradient, if that is asked for. */
INLINE REAL NAME(weigh)(ptrdiff_t r, ptrdiff_t columns, REAL *outputs, const REAL *weights, int gradient, double *total)
{
    const REAL w = weights ? weights[r] : 1;
    if (w == 0 && gradient) memset(outputs, 0, (size_t)columns * sizeof(REAL));
    *total += (double)w;
    return w;
}

static double NAME(softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t columns, REAL *logits, const void *targets,
                                          const REAL *weights, const double *parameters, REAL scale, int gradient,
                                          double *weight, double *hits)
{
    const int64_t *classes = targets;
    const double smoothing = parameters ? parameters[0] : 0;
    const REAL each = (REAL)(smoothing / (double)columns); /* of the target's 1, to every class */
    double total = 0, whole = 0, all_hits = 0;
    for (ptrdiff_t r = 0; r < rows; r++, logits += columns) {
        const REAL w = NAME(weigh)(r, columns, logits, weights, gradient, &whole);
        if (w == 0) continue;
        const REAL max = NAME(max_row)(columns, logits), at_target = logits[classes[r]];
        ptrdiff_t first = 0; /* of equal maxima the first counts, as in numpy.argmax */
        while (first < columns && !(logits[first] == max)) first++;
        if (first == classes[r]) all_hits += (double)w;
        /* the mean logit, less the one at the target: by how much smoothing lowers -log softmax(z)[class] */
        double lower = 0;
        for (ptrdiff_t j = 0; smoothing > 0 && j < columns; j++) lower += (double)logits[j] - (double)at_target;
        const REAL sum = NAME(exp_row)(columns, logits, max, gradient);
        total += (double)w * (log((double)sum) + ((double)max - (double)at_target) - smoothing * lower / (double)columns);
        if (!gradient) continue;
        const REAL factor = w * scale / sum; /* d/dz = softmax(z) - onehot(class), smoothed */
        for (ptrdiff_t j = 0; j < columns; j++) logits[j] *= factor;
        logits[classes[r]] -= w * scale * (REAL)(1 - smoothing);
        for (ptrdiff_t j = 0; smoothing > 0 && j < columns; j++) logits[j] -= w * scale * each;
    }
    *weight += whole, *hits += all_hits;
    return total;
}

/* Losses of numbers: of one output each, by its distance from the target. A target that is NaN is missing: what it stands
 * for counts neither in the sums nor in the weight, of which it is an equal share. */
#ifndef OF_NUMBERS
#define OF_NUMBERS
enum { SQUARED, ABSOLUTE, HUBER, PINBALL };
#endif

/* The loss of one output and its slope, from error = output - target; p is delta of HUBER, the quantile of PINBALL. NaN stays. */
INLINE double NAME(of_error)(const int kind, REAL error, double p, REAL *slope)
{
    const double e = (double)error;
    switch (kind) {
    case SQUARED: /* e^2, whose slope is 2 e; the 2 is in `factor`, so that a large e does not overflow */
        *slope = error;
        return e * e;
    case ABSOLUTE: /* |e| */
        *slope = error > 0 ? 1 : error < 0 ? -1 : error;
        return fabs(e);
    case HUBER: /* e^2 / 2, from delta on delta (|e| - delta / 2): Huber 1964 */
        *slope = e > p ? (REAL)p : e < -p ? -(REAL)p : error;
        return fabs(e) > p ? p * (fabs(e) - p / 2) : e * e / 2;
    default: /* max((1 - q) e, -q e): Koenker & Bassett 1978 */
        *slope = error > 0 ? (REAL)(1 - p) : error < 0 ? -(REAL)p : error;
        return e > 0 ? (1 - p) * e : -p * e;
    }
}

/* parameters: HUBER's delta; of PINBALL how many quantiles there are, and these: a target has so many outputs. */
INLINE double NAME(of_numbers)(const int kind, ptrdiff_t rows, ptrdiff_t columns, REAL *outputs, const REAL *targets,
                               const REAL *weights, const double *parameters, REAL scale, int gradient, double *weight)
{
    const ptrdiff_t each = kind == PINBALL ? (ptrdiff_t)parameters[0] : 1;
    const REAL factor = (kind == SQUARED ? 2 : 1) * scale / (REAL)columns;
    double total = 0, whole = 0;
    for (ptrdiff_t r = 0; r < rows; r++, outputs += columns, targets += columns / each) {
        const REAL w = NAME(weigh)(r, columns, outputs, weights, gradient, &whole);
        if (w == 0) continue;
        ptrdiff_t missing = 0;
        for (ptrdiff_t j = 0; j < columns; j++) {
            if (targets[j / each] != targets[j / each]) {
                missing++;
                if (gradient) outputs[j] = 0;
                continue;
            }
            const double p = kind == PINBALL ? parameters[1 + j % each] : kind == HUBER ? parameters[0] : 0;
            REAL slope;
            total += (double)w * NAME(of_error)(kind, outputs[j] - targets[j / each], p, &slope);
            if (gradient) outputs[j] = w * factor * slope;
        }
        whole -= (double)w * (double)missing / (double)columns;
    }
    *weight += whole;
    return total / (double)columns;
}

#define LOSS_OF_NUMBERS(name, kind)                                                                                        \
    static double NAME(name)(ptrdiff_t rows, ptrdiff_t columns, REAL *outputs, const void *targets, const REAL *weights,   \
                             const double *parameters, REAL scale, int gradient, double *weight, double *hits)            \
    {                                                                                                                      \
        (void)hits;                                                                                                        \
        return NAME(of_numbers)(kind, rows, columns, outputs, targets, weights, parameters, scale, gradient, weight);     \
    }
LOSS_OF_NUMBERS(squared_error, SQUARED)
LOSS_OF_NUMBERS(absolute_error, ABSOLUTE)
LOSS_OF_NUMBERS(huber, HUBER)
LOSS_OF_NUMBERS(pinball, PINBALL)
#undef LOSS_OF_NUMBERS

/* parameters: a number that is added to every variance. Outputs are a mean and a logarithm of the variance, in turn. */
static double NAME(gaussian)(ptrdiff_t rows, ptrdiff_t columns, REAL *outputs, const void *targets, const REAL *weights,
                             const double *parameters, REAL scale, int gradient, double *weight, double *hits)
{
    const REAL *values = targets;
    const ptrdiff_t count = columns / 2;
    double total = 0, whole = 0;
    (void)hits;
    for (ptrdiff_t r = 0; r < rows; r++, outputs += columns, values += count) {
        const REAL w = NAME(weigh)(r, columns, outputs, weights, gradient, &whole);
        if (w == 0) continue;
        ptrdiff_t missing = 0;
        for (ptrdiff_t j = 0; j < count; j++) {
            REAL *output = outputs + 2 * j;
            if (values[j] != values[j]) {
                missing++;
                if (gradient) output[0] = output[1] = 0;
                continue;
            }
            const double e = (double)output[0] - (double)values[j], spread = exp((double)output[1]);
            const double v = spread + parameters[0], factor = (double)w * (double)scale / (double)count;
            total += (double)w * (log(v) + e * e / v + 1.8378770664093453) / 2; /* log(2 pi) */
            if (!gradient) continue;
            output[0] = (REAL)(factor * e / v);
            output[1] = (REAL)(factor * (1 - e * e / v) * spread / v / 2);
        }
        whole -= (double)w * (double)missing / (double)count;
    }
    *weight += whole;
    return total / (double)count;
}

static double NAME(binary_cross_entropy)(ptrdiff_t rows, ptrdiff_t columns, REAL *logits, const void *targets,
                                         const REAL *weights, const double *parameters, REAL scale, int gradient,
                                         double *weight, double *hits)
{
    const REAL *values = targets, factor = scale / (REAL)columns;
    double total = 0, whole = 0, all_hits = 0;
    (void)parameters;
    for (ptrdiff_t r = 0; r < rows; r++, logits += columns, values += columns) {
        const REAL w = NAME(weigh)(r, columns, logits, weights, gradient, &whole);
        if (w == 0) continue;
        ptrdiff_t right = 0, missing = 0;
        for (ptrdiff_t j = 0; j < columns; j++) {
            if (values[j] != values[j]) {
                missing++;
                if (gradient) logits[j] = 0;
                continue;
            }
            const double z = (double)logits[j], target = (double)values[j];
            const double e = exp(-fabs(z)); /* log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)) */
            /* z - z carries a NaN that z > 0 would drop */
            total += (double)w * ((z > 0 ? z : 0) + log1p(e) - target * z + (z - z));
            right += (z > 0) == (target > 0.5);
            if (gradient) logits[j] = w * factor * (REAL)((z > 0 ? 1 / (1 + e) : e / (1 + e)) - target);
        }
        all_hits += (double)w * (double)right;
        whole -= (double)w * (double)missing / (double)columns;
    }
    *weight += whole, *hits += all_hits;
    return total / (double)columns;
}

static double NAME(given_gradient)(ptrdiff_t rows, ptrdiff_t columns, REAL *outputs, const void *targets, const REAL *weights,
                                   const double *parameters, REAL scale, int gradient, double *weight, double *hits)
{
    const REAL *values = targets;
    double whole = 0;
    (void)parameters, (void)hits;
    for (ptrdiff_t r = 0; r < rows; r++, outputs += columns, values += columns) {
        const REAL w = NAME(weigh)(r, columns, outputs, weights, gradient, &whole);
        for (ptrdiff_t j = 0; gradient && w != 0 && j < columns; j++) outputs[j] = w * scale * values[j];
    }
    *weight += whole;
    return 0;
}
