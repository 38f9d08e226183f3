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

static double NAME(softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t columns, REAL *logits, const int64_t *targets, REAL scale,
                                          int gradient, int64_t *hits)
{
    double total = 0;
    for (ptrdiff_t r = 0; r < rows; r++, logits += columns) {
        const REAL max = NAME(max_row)(columns, logits), at_target = logits[targets[r]];
        ptrdiff_t first = 0; /* of equal maxima the first counts, as in numpy.argmax */
        while (first < columns && !(logits[first] == max)) first++;
        *hits += first == targets[r];
        const REAL sum = NAME(exp_row)(columns, logits, max, gradient);
        total += log((double)sum) + ((double)max - (double)at_target);
        if (!gradient) continue;
        const REAL factor = scale / sum; /* d/dz = softmax(z) - onehot(target) */
        for (ptrdiff_t j = 0; j < columns; j++) logits[j] *= factor;
        logits[targets[r]] -= scale;
    }
    return total;
}

static double NAME(squared_error)(ptrdiff_t rows, ptrdiff_t columns, REAL *outputs, const REAL *targets, REAL scale, int gradient,
                                  int64_t *hits)
{
    const REAL factor = 2 * scale / (REAL)columns;
    double total = 0;
    (void)hits;
    for (ptrdiff_t n = 0; n < rows * columns; n++) {
        const REAL error = outputs[n] - targets[n];
        total += (double)error * (double)error;
        if (gradient) outputs[n] = factor * error;
    }
    return total / (double)columns;
}

static double NAME(binary_cross_entropy)(ptrdiff_t rows, ptrdiff_t columns, REAL *logits, const REAL *targets, REAL scale,
                                         int gradient, int64_t *hits)
{
    const REAL factor = scale / (REAL)columns;
    double total = 0;
    for (ptrdiff_t n = 0; n < rows * columns; n++) {
        const double z = (double)logits[n], target = (double)targets[n];
        const double e = exp(-fabs(z)); /* log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)) */
        total += (z > 0 ? z : 0) + log1p(e) - target * z + (z - z); /* z - z carries a NaN that z > 0 would drop */
        *hits += (z > 0) == (target > 0.5);
        if (gradient) logits[n] = factor * (REAL)((z > 0 ? 1 / (1 + e) : e / (1 + e)) - target);
    }
    return total / (double)columns;
}
