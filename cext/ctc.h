/* CTC, connectionist temporal classification: Graves, Fernandez, Gomez & Schmidhuber 2006.
 *
 * An alignment gives each step a label or the blank; merging its runs of equal ones, then dropping its blanks, leaves the
 * labels. p, the sum of the probabilities of all alignments that leave a target of L labels, comes from sums over its states:
 * label j (0..L-1), and blank j (0..L), which stands before label j. A step's sums are over states at the step before:
 *
 *     alpha_t(blank j) = y_t(blank)   (alpha(blank j) + alpha(label j-1))
 *     alpha_t(label j) = y_t(label j) (alpha(label j) + alpha(blank j) + alpha(label j-1) unless it is the same label)
 *
 * beta_t, of what comes after step t, has the same sums backward, and d loss / d z_t(v) = y_t(v) - the sum over the states of
 * class v of alpha_t beta_t / p.
 *
 * LOG SPACE, to base 2: a probability is m 2^e, m in [1, 2). e, the whole part of its logarithm, is a whole number in a real and
 * never overflows where the logarithm itself would not; m is what the fraction is the logarithm of. So a sum takes neither exp nor
 * log, and its rounding error stays the same however small the probability is. What cannot be has e = IMPOSSIBLE. */
#ifndef CTC_NUMBERS
#define CTC_NUMBERS
#define EXPONENT_BIAS (REAL_BITS == 32 ? 127 : 1023)
#define IMPOSSIBLE ((REAL)(REAL_BITS == 32 ? -0x1p125 : -0x1p1021)) /* three of them can be added */
/* Below, exp(x) is 2^e with the m of a rounded logarithm: x has no digits left to make m of. */
#define FAR ((REAL)(REAL_BITS == 32 ? -0x1p20 : -0x1p49))
#define LOG2_E ((REAL)1.4426950408889634074)
#endif

#if REAL_BITS == 32
typedef uint32_t NAME(word);
#else
typedef uint64_t NAME(word);
#endif
typedef NAME(word) NAME(words) __attribute__((vector_size(VECTOR_BYTES)));

/* 2^d of whole numbers d, 0 from -EXPONENT_BIAS down; d <= EXPONENT_BIAS. The bits of ROUNDING + d end in those of d. */
INLINE VECTOR NAME(power)(VECTOR d)
{
    const VECTOR shifted = NAME(larger)(d, NAME(splat)(-EXPONENT_BIAS)) + ROUNDING;
    return (VECTOR)(((INTEGERS)shifted << MANTISSA_BITS) + (INTEGERS)NAME(splat)(1));
}

/* factor * exp(x) = m 2^e, x <= 0, m not yet within [1, 2). */
INLINE void NAME(exp_power)(VECTOR x, VECTOR factor, VECTOR *m, VECTOR *e)
{
    VECTOR scale, p;
    const VECTOR near = NAME(larger)(x, NAME(splat)(FAR));
    const INTEGERS is_far = x < FAR;
    NAME(exp_parts)(1, &near, &scale, &p); /* of which scale may have overflowed */
    const VECTOR n = NAME(add_product)(NAME(splat)(ROUNDING), near, NAME(splat)(LOG2_E)) - ROUNDING;
    *e = NAME(larger)(NAME(select)(is_far, x * LOG2_E, n), NAME(splat)(IMPOSSIBLE));
    *m = NAME(select)(is_far, factor, NAME(add_product)(factor, factor, p));
}

/* m > 0 back to [1, 2), what it loses to e. */
INLINE void NAME(normalise)(VECTOR *m, VECTOR *e)
{
    const NAME(words) bits = (NAME(words))*m, one = (NAME(words))NAME(splat)(1);
    const NAME(word) fraction = ((NAME(word))1 << MANTISSA_BITS) - 1;
    /* the bits of 2^MANTISSA_BITS with an integer below them are those of that number plus the integer */
    const REAL whole = (REAL)(1LL << MANTISSA_BITS);
    const VECTOR exponent = (VECTOR)((bits >> MANTISSA_BITS) | (NAME(words))NAME(splat)(whole)) - (whole + EXPONENT_BIAS);
    *m = (VECTOR)((bits & fraction) | one);
    *e = NAME(larger)(*e + exponent, NAME(splat)(IMPOSSIBLE));
}

/* The probabilities of all states at one step: four rows of `across` numbers, CYLSTM_CTC_PAD of which lie before the states. The
 * nearest one on either side of a row may be read: a state that cannot be. */
typedef struct {
    REAL *label_m, *label_e, *blank_m, *blank_e;
} NAME(states);

INLINE NAME(states) NAME(states_at)(REAL *rows, ptrdiff_t across)
{
    rows += CYLSTM_CTC_PAD;
    return (NAME(states)){rows, rows + across, rows + 2 * across, rows + 3 * across};
}

/* No state can be, those around the rows included. */
static void NAME(clear_states)(const NAME(states) s, ptrdiff_t width)
{
    for (ptrdiff_t j = -1; j <= width; j++) {
        s.label_m[j] = s.blank_m[j] = 1;
        s.label_e[j] = s.blank_e[j] = IMPOSSIBLE;
    }
}

/* y_t of every label and of the blank. */
typedef struct {
    const REAL *m, *e;
    REAL blank_m, blank_e;
} NAME(emissions);

/* alpha of one step from that of the step before. skip (width): 0, or IMPOSSIBLE where label j is label j - 1. */
static void NAME(ctc_forward)(ptrdiff_t width, const NAME(emissions) y, const REAL *skip, const NAME(states) from,
                              const NAME(states) to)
{
    const VECTOR blank_m = NAME(splat)(y.blank_m), blank_e = NAME(splat)(y.blank_e);
    to.label_m[-1] = 1, to.label_e[-1] = IMPOSSIBLE;
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        const VECTOR before_m = NAME(load)(from.label_m + j - 1), before_e = NAME(load)(from.label_e + j - 1);
        const VECTOR own_m = NAME(load)(from.label_m + j), own_e = NAME(load)(from.label_e + j);
        const VECTOR between_m = NAME(load)(from.blank_m + j), between_e = NAME(load)(from.blank_e + j);
        const VECTOR skip_e = before_e + NAME(load)(skip + j);
        VECTOR most = NAME(larger)(between_e, before_e);
        VECTOR m = between_m * NAME(power)(between_e - most);
        m = NAME(add_product)(m, before_m, NAME(power)(before_e - most)) * blank_m;
        VECTOR e = most + blank_e;
        NAME(normalise)(&m, &e);
        NAME(store)(to.blank_m + j, m), NAME(store)(to.blank_e + j, e);
        most = NAME(larger)(NAME(larger)(own_e, between_e), skip_e);
        m = own_m * NAME(power)(own_e - most);
        m = NAME(add_product)(m, between_m, NAME(power)(between_e - most));
        m = NAME(add_product)(m, before_m, NAME(power)(skip_e - most)) * NAME(load)(y.m + j);
        e = most + NAME(load)(y.e + j);
        NAME(normalise)(&m, &e);
        NAME(store)(to.label_m + j, m), NAME(store)(to.label_e + j, e);
    }
}

/* beta of one step from y beta of the step after it, in place: each vector reads only itself and what lies behind it. */
static void NAME(ctc_backward)(ptrdiff_t width, const REAL *skip, const NAME(states) s)
{
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        const VECTOR own_m = NAME(load)(s.label_m + j), own_e = NAME(load)(s.label_e + j);
        const VECTOR before_m = NAME(load)(s.blank_m + j), before_e = NAME(load)(s.blank_e + j);
        const VECTOR blank_m = NAME(load)(s.blank_m + j + 1), blank_e = NAME(load)(s.blank_e + j + 1);
        const VECTOR next_m = NAME(load)(s.label_m + j + 1);
        const VECTOR next_e = NAME(load)(s.label_e + j + 1) + NAME(load)(skip + j + 1);
        VECTOR most = NAME(larger)(before_e, own_e);
        VECTOR m = before_m * NAME(power)(before_e - most);
        m = NAME(add_product)(m, own_m, NAME(power)(own_e - most));
        NAME(normalise)(&m, &most);
        NAME(store)(s.blank_m + j, m), NAME(store)(s.blank_e + j, most);
        most = NAME(larger)(NAME(larger)(own_e, blank_e), next_e);
        m = own_m * NAME(power)(own_e - most);
        m = NAME(add_product)(m, blank_m, NAME(power)(blank_e - most));
        m = NAME(add_product)(m, next_m, NAME(power)(next_e - most));
        NAME(normalise)(&m, &most);
        NAME(store)(s.label_m + j, m), NAME(store)(s.label_e + j, most);
    }
}

/* alpha beta of every label to `shares` (width), their sum with those of the blanks to *all, that of the blanks returned: all
 * divided by the power of 2 that keeps the largest in range. beta becomes y beta. */
static REAL NAME(ctc_shares)(ptrdiff_t width, const NAME(emissions) y, const NAME(states) alpha, const NAME(states) beta,
                             REAL *shares, REAL *all)
{
    VECTOR most = NAME(splat)(2 * IMPOSSIBLE), blanks = {0}, labels = {0};
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        most = NAME(larger)(most, NAME(load)(alpha.blank_e + j) + NAME(load)(beta.blank_e + j));
        most = NAME(larger)(most, NAME(load)(alpha.label_e + j) + NAME(load)(beta.label_e + j));
    }
    REAL top = most[0];
    for (ptrdiff_t lane = 1; lane < LANES; lane++) top = most[lane] > top ? most[lane] : top;
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        VECTOR m = NAME(load)(beta.blank_m + j), e = NAME(load)(beta.blank_e + j);
        const VECTOR of_blank = NAME(power)(e + NAME(load)(alpha.blank_e + j) - top);
        blanks = NAME(add_product)(blanks, m * NAME(load)(alpha.blank_m + j), of_blank);
        NAME(store)(beta.blank_m + j, m * y.blank_m), NAME(store)(beta.blank_e + j, e + y.blank_e);
        m = NAME(load)(beta.label_m + j), e = NAME(load)(beta.label_e + j);
        const VECTOR of_label = NAME(power)(e + NAME(load)(alpha.label_e + j) - top);
        const VECTOR share = m * NAME(load)(alpha.label_m + j) * of_label;
        NAME(store)(shares + j, share);
        labels += share;
        NAME(store)(beta.label_m + j, m * NAME(load)(y.m + j)), NAME(store)(beta.label_e + j, e + NAME(load)(y.e + j));
    }
    REAL of_blanks = 0, of_labels = 0;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) of_blanks += blanks[lane], of_labels += labels[lane];
    *all = of_blanks + of_labels;
    return of_blanks;
}

/* One step's y, to `out`: rows of m and of e (width), m and e of the blank, 1 / the sum of the softmax. That is returned: NaN
 * where there is one among z. A gradient, which may be z, becomes exp(z - max z). */
static REAL NAME(ctc_emissions)(ptrdiff_t V, ptrdiff_t L, ptrdiff_t width, const REAL *z, const int64_t *labels, ptrdiff_t blank,
                                REAL *out, REAL *gradient)
{
    const REAL max = NAME(max_row)(V, z), at_blank = z[blank] - max;
    REAL *m = out, *e = out + width, *rest = out + 2 * width;
    VECTOR blank_m, blank_e;
    for (ptrdiff_t j = 0; j < L; j++) m[j] = z[labels[j]] - max;
    for (ptrdiff_t j = L; j < width; j++) m[j] = 0;
    if (gradient && gradient != z) memcpy(gradient, z, (size_t)V * sizeof(REAL));
    const REAL inverse = 1 / NAME(exp_row)(V, gradient ? gradient : (REAL *)z, max, gradient != NULL);
    const VECTOR factor = NAME(splat)(inverse);
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        VECTOR label_m, label_e;
        NAME(exp_power)(NAME(load)(m + j), factor, &label_m, &label_e);
        NAME(store)(m + j, label_m), NAME(store)(e + j, label_e);
    }
    NAME(exp_power)(NAME(splat)(at_blank), factor, &blank_m, &blank_e);
    rest[0] = blank_m[0], rest[1] = blank_e[0], rest[2] = inverse;
    return inverse;
}

INLINE NAME(emissions) NAME(emissions_at)(const REAL *y, ptrdiff_t width)
{
    return (NAME(emissions)){y, y + width, y[2 * width], y[2 * width + 1]};
}

/* p from the last alpha, as -log p: of the last blank and the last label. */
static double NAME(ctc_ends)(ptrdiff_t L, const NAME(states) s)
{
    const double e_blank = (double)s.blank_e[L], e_label = L ? (double)s.label_e[L - 1] : (double)IMPOSSIBLE;
    const double e = fmax(e_blank, e_label), m_label = L ? (double)s.label_m[L - 1] : 0;
    if (e <= (double)IMPOSSIBLE) return (double)INFINITY;
    const double m = ldexp((double)s.blank_m[L], (int)fmax(e_blank - e, -2000)) + ldexp(m_label, (int)fmax(e_label - e, -2000));
    return fmax(0, -log(m) - e * 0.69314718055994530942); /* rounding may have made p a little more than 1 */
}

/* The gradient, exp(z - max z) so far, from the last step to the first; beta is scratch, as shares is. */
static void NAME(ctc_gradient)(ptrdiff_t T, ptrdiff_t V, ptrdiff_t L, const int64_t *labels, ptrdiff_t blank, const REAL *skip,
                               const REAL *y, REAL *alpha, const NAME(states) beta, REAL *shares, REAL scale, REAL *gradient,
                               ptrdiff_t ldg)
{
    const ptrdiff_t width = cylstm_ctc_width(L), across = width + CYLSTM_CTC_PAD, row = 2 * width + CYLSTM_CTC_PAD;
    NAME(clear_states)(beta, width);
    beta.blank_e[L] = 0;
    if (L) beta.label_e[L - 1] = 0;
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        const REAL *y_t = y + t * row;
        REAL *g = gradient + t * ldg, all;
        const REAL blanks = NAME(ctc_shares)(width, NAME(emissions_at)(y_t, width),
                                             NAME(states_at)(alpha + (t + 1) * 4 * across, across), beta, shares, &all);
        /* `all` is p, the same for every t, but for rounding: divided by it, each step's gradient sums to 0 */
        const REAL of_y = scale * y_t[2 * width + 2], of_share = scale / all;
        for (ptrdiff_t v = 0; v < V; v++) g[v] *= of_y;
        g[blank] -= blanks * of_share;
        for (ptrdiff_t j = 0; j < L; j++) g[labels[j]] -= shares[j] * of_share;
        NAME(ctc_backward)(width, skip, beta);
    }
}

static double NAME(ctc_loss)(ptrdiff_t T, ptrdiff_t V, ptrdiff_t L, const REAL *logits, ptrdiff_t ldz, const int64_t *labels,
                             ptrdiff_t blank, REAL scale, REAL *gradient, ptrdiff_t ldg, REAL *scratch)
{
    const ptrdiff_t width = cylstm_ctc_width(L), across = width + CYLSTM_CTC_PAD, row = 2 * width + CYLSTM_CTC_PAD;
    /* the gradient needs alpha and y of every step; the sum alone those of two, and of one */
    const ptrdiff_t kept = gradient ? T : 1, alphas = gradient ? T + 1 : 2;
    REAL *skip = scratch, *shares = skip + across, *beta = shares + width, *y = beta + 4 * across + CYLSTM_CTC_PAD;
    REAL *alpha = y + kept * row;
    NAME(states) now = NAME(states_at)(alpha, across);
    int is_number = 1;
    for (ptrdiff_t j = 0; j < across; j++) skip[j] = j > 0 && j < L && labels[j] != labels[j - 1] ? 0 : IMPOSSIBLE;
    NAME(clear_states)(now, width);
    now.blank_e[0] = 0; /* before the first step; alpha_t is number t + 1 */
    for (ptrdiff_t t = 0; t < T; t++) {
        const NAME(states) next = NAME(states_at)(alpha + (t + 1) % alphas * 4 * across, across);
        REAL *y_t = y + t % kept * row;
        const REAL inverse = NAME(ctc_emissions)(V, L, width, logits + t * ldz, labels, blank, y_t,
                                                 gradient ? gradient + t * ldg : NULL);
        is_number &= inverse == inverse;
        NAME(ctc_forward)(width, NAME(emissions_at)(y_t, width), skip, now, next);
        now = next;
    }
    const double loss = is_number ? NAME(ctc_ends)(L, now) : (double)NAN;
    if (gradient && isfinite(loss))
        NAME(ctc_gradient)(T, V, L, labels, blank, skip, y, alpha, NAME(states_at)(beta, across), shares, scale, gradient, ldg);
    else if (gradient)
        for (ptrdiff_t t = 0; t < T; t++)
            for (ptrdiff_t v = 0; v < V; v++) gradient[t * ldg + v] = is_number ? 0 : (REAL)NAN;
    return loss;
}

static void NAME(log_sum_exp)(ptrdiff_t rows, ptrdiff_t columns, const REAL *z, ptrdiff_t ldz, double *sums, int64_t *best)
{
    for (ptrdiff_t r = 0; r < rows; r++, z += ldz) {
        const REAL max = NAME(max_row)(columns, z);
        ptrdiff_t first = 0; /* of equal maxima the first counts, as in numpy.argmax */
        while (first < columns - 1 && !(z[first] == max)) first++;
        best[r] = first;
        sums[r] = (double)max + log((double)NAME(exp_row)(columns, (REAL *)z, max, 0)); /* which writes nothing */
    }
}
