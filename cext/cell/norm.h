/* A cell with layer norms (Ba, Kiros & Hinton 2016): of the rows x W' and h R' before they are added up, and of c.
 *
 * A row is normalised over all its units at once, so that a call needs them all: first = 0, last = Hp. n = (z - mean) / deviation
 * with deviation = sqrt(variance + eps). Sums go through a row in one order, whatever other rows there are. */
#define NORM_X 0 /* a row's place in `moments`: 1 / deviation of x W', of h R', mean and 1 / deviation of c */
#define NORM_H 1
#define NORM_MEAN 2
#define NORM_C 3
#define NORM_MOMENTS 4

INLINE REAL NAME(lane_sum)(VECTOR v)
{
    REAL sum = 0;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) sum += v[lane];
    return sum;
}

/* v, at place `at` of a row that ends at `end`, without what is padding: in its last panel, `width` long. */
INLINE VECTOR NAME(without_padding)(VECTOR v, ptrdiff_t at, ptrdiff_t end, ptrdiff_t width, INTEGERS inside)
{
    return at < end - width ? v : NAME(select)(inside, v, NAME(splat)(0));
}

/* The mean and 1 / deviation of a row of `gates` * H numbers, z having zeros in its padding. */
static void NAME(moments)(ptrdiff_t H, ptrdiff_t gates, INTEGERS inside, double eps, const REAL *z, REAL *mean, REAL *inverse)
{
    const ptrdiff_t vectors = gates * ((H + LANES - 1) / LANES);
    const REAL count = (REAL)(gates * H);
    VECTOR sums = {0}, squares = {0};
    for (ptrdiff_t n = 0; n < vectors; n++) sums += NAME(load)(z + n * LANES);
    *mean = NAME(lane_sum)(sums) / count;
    for (ptrdiff_t n = 0; n < vectors; n++) {
        const VECTOR centred = NAME(without_padding)(NAME(load)(z + n * LANES) - *mean, n, vectors, gates, inside);
        squares = NAME(add_product)(squares, centred, centred);
    }
    *inverse = (REAL)1 / SQRT(NAME(lane_sum)(squares) / count + (REAL)eps);
}

/* z (B, 4*Hp), x W' or h R', becomes n; gates = bias + gain n or, where bias is NULL, += gain n. place: NORM_X or NORM_H. */
static void NAME(norm_gates)(ptrdiff_t B, ptrdiff_t H, double eps, const REAL *gain, const REAL *bias, REAL *z, REAL *moments, int place,
                             REAL *gates)
{
    const ptrdiff_t vectors = (H + LANES - 1) / LANES * 4;
    const INTEGERS inside = NAME(real_lanes)(H);
    for (ptrdiff_t b = 0; b < B; b++, z += vectors * LANES, gates += vectors * LANES, moments += NORM_MOMENTS) {
        REAL mean, inverse;
        NAME(moments)(H, 4, inside, eps, z, &mean, &inverse);
        moments[place] = inverse;
        for (ptrdiff_t n = 0; n < vectors; n++) {
            const VECTOR centred = NAME(without_padding)(NAME(load)(z + n * LANES) - mean, n, vectors, 4, inside), v = centred * inverse;
            const VECTOR start = NAME(load)((bias ? bias : gates) + n * LANES);
            NAME(store)(z + n * LANES, v);
            NAME(store)(gates + n * LANES, NAME(add_product)(start, NAME(load)(gain + n * LANES), v));
        }
    }
}

/* f(c) in h = o f(c), and its slope from that. */
INLINE VECTOR NAME(cell_output)(const cylstm_step *step, VECTOR c)
{
    return step->flags & CYLSTM_ACTIVATED ? NAME(activated)(step->activations + 2, c) : NAME(vtanh)(c);
}
INLINE VECTOR NAME(cell_output_slope)(const cylstm_step *step, VECTOR v)
{
    const VECTOR one = NAME(splat)(1);
    return step->flags & CYLSTM_ACTIVATED ? NAME(slope_of_value)(step->activations + 2, v) : NAME(subtract_product)(one, v, v);
}

static void NAME(norm_forward)(const cylstm_step *step, const cylstm_norm *norm)
{
    const ptrdiff_t B = step->B, H = step->H, Hp = (H + LANES - 1) / LANES * LANES, group = B == 1 ? 2 * LANES : LANES;
    const INTEGERS inside = NAME(real_lanes)(H);
    const REAL *gain = norm->c, *shift = gain + Hp;
    NAME(norm_gates)(B, H, norm->eps, norm->h_gain, NULL, norm->h, norm->moments, NORM_H, step->gates);
    for (ptrdiff_t j0 = 0; j0 < Hp; j0 += group) NAME(activations_of_variant)(step, j0, Hp - j0 < group ? Hp : j0 + group, Hp);
    for (ptrdiff_t b = 0; b < B; b++) {
        REAL *moments = (REAL *)norm->moments + b * NORM_MOMENTS, *c = (REAL *)step->c + b * Hp;
        NAME(moments)(H, 1, inside, norm->eps, c, moments + NORM_MEAN, moments + NORM_C);
        for (ptrdiff_t unit = 0; unit < Hp; unit += LANES) {
            const VECTOR n = (NAME(load)(c + unit) - moments[NORM_MEAN]) * moments[NORM_C];
            const VECTOR seen = NAME(add_product)(NAME(load)(shift + unit), NAME(load)(gain + unit), n);
            const VECTOR o = NAME(load)((const REAL *)step->gates + 4 * (b * Hp + unit) + 3 * LANES);
            const VECTOR h = NAME(without_padding)(o * NAME(cell_output)(step, seen), unit, Hp, LANES, inside);
            NAME(store)((REAL *)step->h + b * Hp + unit, h);
            if (norm->carried) NAME(store)(c + unit, NAME(without_padding)(seen, unit, Hp, LANES, inside));
        }
    }
}

/* z, a row's n, becomes (d - mean(d) - n mean(d n)) / deviation, d = gain dz; sums += dz n. */
static void NAME(norm_part_backward)(ptrdiff_t H, INTEGERS inside, const REAL *gain, REAL inverse, const REAL *dz, REAL *z, REAL *sums)
{
    const ptrdiff_t vectors = (H + LANES - 1) / LANES * 4;
    const REAL count = (REAL)(4 * H);
    VECTOR sum = {0}, product = {0};
    for (ptrdiff_t j = 0; j < vectors * LANES; j += LANES) {
        const VECTOR n = NAME(load)(z + j), d = NAME(load)(dz + j), by_n = NAME(load)(gain + j) * d;
        sum += by_n;
        product = NAME(add_product)(product, by_n, n);
        NAME(store)(sums + j, NAME(add_product)(NAME(load)(sums + j), d, n));
    }
    const REAL mean = NAME(lane_sum)(sum) / count, along = NAME(lane_sum)(product) / count;
    for (ptrdiff_t v = 0; v < vectors; v++) {
        const VECTOR n = NAME(load)(z + v * LANES), by_n = NAME(load)(gain + v * LANES) * NAME(load)(dz + v * LANES);
        const VECTOR by_z = NAME(subtract_product)(by_n - mean, n, NAME(splat)(along)) * inverse;
        NAME(store)(z + v * LANES, NAME(without_padding)(by_z, v, vectors, 4, inside));
    }
}

/* dz_o, into the gates, and the gradient by f c_prev + i g, into dc, of one row. */
static void NAME(norm_cell_backward)(const cylstm_step *step, const cylstm_norm *norm, ptrdiff_t b, INTEGERS inside, const VECTOR *bounds)
{
    const ptrdiff_t H = step->H, Hp = (H + LANES - 1) / LANES * LANES;
    const REAL *gain = norm->c, *shift = gain + Hp, *moments = (const REAL *)norm->moments + b * NORM_MOMENTS;
    const REAL mean = moments[NORM_MEAN], inverse = moments[NORM_C], bound = (REAL)step->clip;
    REAL *by_c = (REAL *)norm->row + b * 2 * Hp, *normed = by_c + Hp, *gain_sums = (REAL *)norm->sums + b * norm->sums_row + 8 * Hp;
    REAL *gates = (REAL *)step->gates + 4 * b * Hp, *dc = (REAL *)step->dc + b * Hp;
    VECTOR sum = {0}, product = {0};
    for (ptrdiff_t unit = 0; unit < Hp; unit += LANES) {
        REAL *gate = gates + 4 * unit;
        const VECTOR i = NAME(load)(gate), f = NAME(load)(gate + LANES), g = NAME(load)(gate + 2 * LANES);
        const VECTOR o = NAME(load)(gate + 3 * LANES), dh = NAME(load)((const REAL *)step->dh + b * Hp + unit);
        const VECTOR update = NAME(kept_of)(step->flags, step, g, b * Hp + unit);
        VECTOR c = NAME(add_product)(i * update, f, NAME(load)((const REAL *)step->c_prev + b * Hp + unit));
        if (step->flags & CYLSTM_CLIPPED) c = NAME(clamp)(c, -bound, bound);
        const VECTOR n = NAME(without_padding)((c - mean) * inverse, unit, Hp, LANES, inside);
        const VECTOR y = NAME(cell_output)(step, NAME(add_product)(NAME(load)(shift + unit), NAME(load)(gain + unit), n));
        const VECTOR slope = step->flags & CYLSTM_ACTIVATED ? NAME(gate_slope)(step->flags, step, 0, o, bounds) : o * ((REAL)1 - o);
        VECTOR d = dh * o * NAME(cell_output_slope)(step, y);
        if (norm->carried) d += NAME(load)(dc + unit);
        d = NAME(without_padding)(d, unit, Hp, LANES, inside);
        NAME(store)(gate + 3 * LANES, NAME(without_padding)(dh * y * slope, unit, Hp, LANES, inside));
        NAME(store)(gain_sums + unit, NAME(add_product)(NAME(load)(gain_sums + unit), d, n));
        NAME(store)(gain_sums + Hp + unit, NAME(load)(gain_sums + Hp + unit) + d);
        d *= NAME(load)(gain + unit);
        sum += d;
        product = NAME(add_product)(product, d, n);
        NAME(store)(by_c + unit, d);
        NAME(store)(normed + unit, n);
    }
    const REAL mean_d = NAME(lane_sum)(sum) / (REAL)H, along = NAME(lane_sum)(product) / (REAL)H;
    for (ptrdiff_t unit = 0; unit < Hp; unit += LANES) {
        VECTOR d = NAME(subtract_product)(NAME(load)(by_c + unit) - mean_d, NAME(load)(normed + unit), NAME(splat)(along)) * inverse;
        if (!norm->carried) d += NAME(load)(dc + unit);
        NAME(store)(dc + unit, NAME(without_padding)(d, unit, Hp, LANES, inside));
    }
}

static void NAME(norm_backward)(const cylstm_step *step, const cylstm_norm *norm)
{
    const ptrdiff_t B = step->B, H = step->H, Hp = (H + LANES - 1) / LANES * LANES;
    const INTEGERS inside = NAME(real_lanes)(H);
    VECTOR bounds[4];
    NAME(bounds_of_gates)(step, bounds);
    for (ptrdiff_t b = 0; b < B; b++) NAME(norm_cell_backward)(step, norm, b, inside, bounds);
    NAME(gradients_of_variant)(step);
    for (ptrdiff_t b = 0; b < B; b++) {
        const REAL *dz = (const REAL *)step->gates + 4 * b * Hp, *moments = (const REAL *)norm->moments + b * NORM_MOMENTS;
        REAL *sums = (REAL *)norm->sums + b * norm->sums_row;
        NAME(norm_part_backward)(H, inside, norm->x_gain, moments[NORM_X], dz, (REAL *)norm->x + 4 * b * Hp, sums);
        NAME(norm_part_backward)(H, inside, norm->h_gain, moments[NORM_H], dz, (REAL *)norm->h + 4 * b * Hp, sums + 4 * Hp);
    }
}
