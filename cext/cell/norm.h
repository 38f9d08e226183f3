/* A cell with layer norms (Ba, Kiros & Hinton 2016): of the rows x W' and h R' before they are added up, and of c.
 *
 * A row is normalised over all its units at once, so that a call needs them all: first = 0, last = Hp. n = (z - mean) / deviation
 * with deviation = sqrt(variance + eps). Sums go through a row in one order, whatever other rows there are: each gate has a sum
 * of its own, since one addition after the other would wait for the one before. */
#define NORM_X 0 /* a row's place in `moments`: 1 / deviation of x W', of h R', mean and 1 / deviation of c */
#define NORM_H 1
#define NORM_MEAN 2
#define NORM_C 3
#define NORM_MOMENTS 4

INLINE REAL NAME(lane_sum)(VECTOR v)
{
    for (ptrdiff_t round = 1; round < LANES; round *= 2) v = SHUFFLE(v, v, FIRST_HALVES) + SHUFFLE(v, v, SECOND_HALVES);
    return v[0]; /* all lanes are the same */
}

/* Of one vector for each gate, or of one alone. */
INLINE REAL NAME(sum_of)(const int gates, const VECTOR *v)
{
    return NAME(lane_sum)(gates == 4 ? (v[0] + v[1]) + (v[2] + v[3]) : v[0]);
}

/* v, at place `at` of a row that ends at `end`, without what is padding: in its last panel, `width` long. */
INLINE VECTOR NAME(without_padding)(VECTOR v, ptrdiff_t at, ptrdiff_t end, ptrdiff_t width, INTEGERS inside)
{
    return at < end - width ? v : NAME(select)(inside, v, NAME(splat)(0));
}

/* The mean and 1 / deviation of a row of `gates` * H numbers, z having zeros in its padding. */
INLINE void NAME(moments)(const int gates, ptrdiff_t H, INTEGERS inside, double eps, const REAL *z, REAL *mean, REAL *inverse)
{
    const ptrdiff_t panels = (H + LANES - 1) / LANES;
    const REAL count = (REAL)(gates * H);
    VECTOR sums[4] = {{0}}, squares[4] = {{0}};
    for (ptrdiff_t n = 0; n < panels; n++)
        UNROLL
        for (int gate = 0; gate < gates; gate++) sums[gate] += NAME(load)(z + (n * gates + gate) * LANES);
    *mean = NAME(sum_of)(gates, sums) / count;
    for (ptrdiff_t n = 0; n < panels; n++)
        UNROLL
        for (int gate = 0; gate < gates; gate++) {
            const VECTOR v = NAME(load)(z + (n * gates + gate) * LANES) - *mean;
            const VECTOR centred = NAME(without_padding)(v, n, panels, 1, inside);
            squares[gate] = NAME(add_product)(squares[gate], centred, centred);
        }
    *inverse = (REAL)1 / SQRT(NAME(sum_of)(gates, squares) / count + (REAL)eps);
}

/* n of z (B, 4*Hp), x W' or h R'; gates = bias + gain n or, where bias is NULL, += gain n. place: NORM_X or NORM_H. */
static void NAME(norm_gates)(ptrdiff_t B, ptrdiff_t H, double eps, const REAL *gain, const REAL *bias, const REAL *z, REAL *normed,
                             REAL *moments, int place, REAL *gates)
{
    const ptrdiff_t vectors = (H + LANES - 1) / LANES * 4;
    const INTEGERS inside = NAME(real_lanes)(H);
    for (ptrdiff_t b = 0; b < B; b++, z += vectors * LANES, normed += vectors * LANES, gates += vectors * LANES) {
        REAL mean, inverse;
        NAME(moments)(4, H, inside, eps, z, &mean, &inverse);
        moments[b * NORM_MOMENTS + place] = inverse;
        for (ptrdiff_t n = 0; n < vectors; n++) {
            const VECTOR centred = NAME(without_padding)(NAME(load)(z + n * LANES) - mean, n, vectors, 4, inside), v = centred * inverse;
            const VECTOR start = NAME(load)((bias ? bias : gates) + n * LANES);
            NAME(store)(normed + n * LANES, v);
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
    NAME(norm_gates)(B, H, norm->eps, norm->h_gain, NULL, norm->product, norm->h, norm->moments, NORM_H, step->gates);
    for (ptrdiff_t j0 = 0; j0 < Hp; j0 += group) NAME(activations_of_variant)(step, j0, Hp - j0 < group ? Hp : j0 + group, Hp);
    for (ptrdiff_t b = 0; b < B; b++) {
        REAL *moments = (REAL *)norm->moments + b * NORM_MOMENTS, *c = (REAL *)step->c + b * Hp;
        NAME(moments)(1, H, inside, norm->eps, c, moments + NORM_MEAN, moments + NORM_C);
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

/* Of one row, in whose gates dz is: sums += dz n of both parts, and dz. h becomes (d - mean(d) - n mean(d n)) / deviation,
 * d = gain dz, and so do the gates by x, which are not needed any more: memory that is not written to need not be written back. */
static void NAME(norm_parts_backward)(const cylstm_norm *norm, ptrdiff_t H, INTEGERS inside, const REAL *moments, REAL *gates,
                                      const REAL *x, REAL *h, REAL *sums)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES, vectors = Hp / LANES * 4;
    const REAL count = (REAL)(4 * H), *x_gain = norm->x_gain, *h_gain = norm->h_gain;
    REAL *h_sums = sums + 4 * Hp, *bias_sums = sums + 10 * Hp;
    VECTOR sum_x = {0}, sum_h = {0}, product_x = {0}, product_h = {0};
    for (ptrdiff_t j = 0; j < 4 * Hp; j += LANES) {
        const VECTOR dz = NAME(load)(gates + j), n_x = NAME(load)(x + j), n_h = NAME(load)(h + j);
        const VECTOR d_x = NAME(load)(x_gain + j) * dz, d_h = NAME(load)(h_gain + j) * dz;
        sum_x += d_x;
        sum_h += d_h;
        product_x = NAME(add_product)(product_x, d_x, n_x);
        product_h = NAME(add_product)(product_h, d_h, n_h);
        NAME(store)(sums + j, NAME(add_product)(NAME(load)(sums + j), dz, n_x));
        NAME(store)(h_sums + j, NAME(add_product)(NAME(load)(h_sums + j), dz, n_h));
        NAME(store)(bias_sums + j, NAME(load)(bias_sums + j) + dz);
    }
    const REAL mean_x = NAME(lane_sum)(sum_x) / count, along_x = NAME(lane_sum)(product_x) / count;
    const REAL mean_h = NAME(lane_sum)(sum_h) / count, along_h = NAME(lane_sum)(product_h) / count;
    for (ptrdiff_t v = 0; v < vectors; v++) {
        const ptrdiff_t j = v * LANES;
        const VECTOR dz = NAME(load)(gates + j), d_x = NAME(load)(x_gain + j) * dz, d_h = NAME(load)(h_gain + j) * dz;
        const VECTOR by_x = NAME(subtract_product)(d_x - mean_x, NAME(load)(x + j), NAME(splat)(along_x)) * moments[NORM_X];
        const VECTOR by_h = NAME(subtract_product)(d_h - mean_h, NAME(load)(h + j), NAME(splat)(along_h)) * moments[NORM_H];
        NAME(store)(gates + j, NAME(without_padding)(by_x, v, vectors, 4, inside));
        NAME(store)(h + j, NAME(without_padding)(by_h, v, vectors, 4, inside));
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
    cylstm_step row = *step; /* one after the other, each staying in the first-level cache */
    row.B = 1;
    NAME(bounds_of_gates)(step, bounds);
    for (ptrdiff_t b = 0; b < B; b++) {
        REAL *gates = (REAL *)step->gates + 4 * b * Hp, *sums = (REAL *)norm->sums + b * norm->sums_row;
        NAME(norm_cell_backward)(step, norm, b, inside, bounds);
        row.gates = gates, row.dc = (REAL *)step->dc + b * Hp, row.c = (REAL *)step->c + b * Hp;
        row.dh = (const REAL *)step->dh + b * Hp, row.c_prev = (const REAL *)step->c_prev + b * Hp;
        if (row.flags & CYLSTM_DROPPED) row.update_mask = (const REAL *)step->update_mask + b * Hp;
        NAME(gradients_of_variant)(&row);
        NAME(norm_parts_backward)(norm, H, inside, (const REAL *)norm->moments + b * NORM_MOMENTS, gates,
                                  (const REAL *)norm->x + 4 * b * Hp, (REAL *)norm->h + 4 * b * Hp, sums);
    }
}
