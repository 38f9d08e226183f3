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
    double total = 0, whole = 0, all_hits = 0;
    (void)parameters;
    for (ptrdiff_t r = 0; r < rows; r++, logits += columns) {
        const REAL w = NAME(weigh)(r, columns, logits, weights, gradient, &whole);
        if (w == 0) continue;
        const REAL max = NAME(max_row)(columns, logits), at_target = logits[classes[r]];
        ptrdiff_t first = 0; /* of equal maxima the first counts, as in numpy.argmax */
        while (first < columns && !(logits[first] == max)) first++;
        if (first == classes[r]) all_hits += (double)w;
        const REAL sum = NAME(exp_row)(columns, logits, max, gradient);
        total += (double)w * (log((double)sum) + ((double)max - (double)at_target));
        if (!gradient) continue;
        const REAL factor = w * scale / sum; /* d/dz = softmax(z) - onehot(class) */
        for (ptrdiff_t j = 0; j < columns; j++) logits[j] *= factor;
        logits[classes[r]] -= w * scale;
    }
    *weight += whole, *hits += all_hits;
    return total;
}

static double NAME(squared_error)(ptrdiff_t rows, ptrdiff_t columns, REAL *outputs, const void *targets, const REAL *weights,
                                  const double *parameters, REAL scale, int gradient, double *weight, double *hits)
{
    const REAL *values = targets, factor = 2 * scale / (REAL)columns;
    double total = 0, whole = 0;
    (void)parameters, (void)hits;
    for (ptrdiff_t r = 0; r < rows; r++, outputs += columns, values += columns) {
        const REAL w = NAME(weigh)(r, columns, outputs, weights, gradient, &whole);
        if (w == 0) continue;
        for (ptrdiff_t j = 0; j < columns; j++) {
            const REAL error = outputs[j] - values[j];
            total += (double)w * ((double)error * (double)error);
            if (gradient) outputs[j] = w * factor * error;
        }
    }
    *weight += whole;
    return total / (double)columns;
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
        ptrdiff_t right = 0;
        for (ptrdiff_t j = 0; j < columns; j++) {
            const double z = (double)logits[j], target = (double)values[j];
            const double e = exp(-fabs(z)); /* log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)) */
            /* z - z carries a NaN that z > 0 would drop */
            total += (double)w * ((z > 0 ? z : 0) + log1p(e) - target * z + (z - z));
            right += (z > 0) == (target > 0.5);
            if (gradient) logits[j] = w * factor * (REAL)((z > 0 ? 1 / (1 + e) : e / (1 + e)) - target);
        }
        all_hits += (double)w * (double)right;
    }
    *weight += whole, *hits += all_hits;
    return total / (double)columns;
}
