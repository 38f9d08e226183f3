/* One LSTM step, forward and backward, panel by panel. */

/* What a gate is of, within its bounds. */
INLINE VECTOR NAME(squeezed)(const int flags, const cylstm_step *step, VECTOR a)
{
    return flags & CYLSTM_SQUEEZED ? NAME(clamp)(a, (REAL)-step->gate_clip, (REAL)step->gate_clip) : a;
}

/* What c gets of g, of the units at `at` of all rows: the mask times g. */
INLINE VECTOR NAME(kept_of)(const int flags, const cylstm_step *step, VECTOR g, ptrdiff_t at)
{
    return flags & CYLSTM_DROPPED ? g * NAME(load)((const REAL *)step->update_mask + at) : g;
}

#define MOST_ABREAST (UNITS_ABREAST + 1) /* of one row, whose narrow panel goes along */

/* n vectors of hidden units, `apart` reals from each other, from their pre-activations on: gates, c and h. `unit` is the first
 * one's place in a row, `shift` reals from the next one's, 0 where they are the same units of several rows. v: NULL; or, instead of
 * memory, what the gates are of (4 n), c, before and then after the step (n), and h (n), of the plain cell.
 * A division takes as long as twenty other operations, and a group of two sigmoids, or of one and a tanh, has one. */
INLINE void NAME(units)(const int n, const int flags, const cylstm_step *step, ptrdiff_t apart, REAL *gates, const REAL *c_prev,
                        REAL *c, REAL *h, ptrdiff_t Hp, ptrdiff_t unit, ptrdiff_t shift, VECTOR *v)
{
    VECTOR x[4 * MOST_ABREAST], scale[4 * MOST_ABREAST], p[4 * MOST_ABREAST], cell[MOST_ABREAST];
    UNROLL
    for (int i = 0; i < 4 * n; i++) {
        VECTOR a = v ? v[i] : NAME(load)(gates + i / 4 * 4 * apart + i % 4 * LANES);
        if (flags & CYLSTM_PEEPHOLES && i % 4 < 2) {
            const REAL *peephole = (const REAL *)step->peepholes + i % 4 * Hp + unit + i / 4 * shift;
            a = NAME(add_product)(a, NAME(load)(peephole), NAME(load)(c_prev + i / 4 * apart));
        }
        if (flags & CYLSTM_COUPLED && i % 4 == 1) a = NAME(splat)(0); /* whatever it is */
        if (flags & CYLSTM_ACTIVATED) {
            x[i] = NAME(activated)(step->activations + (i % 4 == 2), NAME(squeezed)(flags, step, a));
            continue;
        }
        x[i] = i % 4 == 2 ? NAME(clamp)(a + a, -TANH_LIMIT, TANH_LIMIT) : -NAME(clamp)(a, -PAIRED_LIMIT, PAIRED_LIMIT);
    }
    if (!(flags & CYLSTM_ACTIVATED)) {
        NAME(exp_parts)(4 * n, x, scale, p);
        UNROLL
        for (int i = 0; i < 4 * n; i++)
            x[i] = i % 4 == 2 ? NAME(tanh_numerator)(scale[i], p[i]) : NAME(sigmoid_denominator)(scale[i], p[i]);
    }
    ABREAST {
        VECTOR in = x[4 * i], forget = x[4 * i + 1], g = x[4 * i + 2];
        if (!(flags & CYLSTM_ACTIVATED)) {
            const VECTOR both = (REAL)1 / (in * forget), of_in = in;
            in = both * forget;
            forget = both * of_in;
            g = g / (g + (REAL)2);
        }
        if (flags & CYLSTM_COUPLED) forget = (REAL)1 - in;
        const VECTOR update = NAME(kept_of)(flags, step, g, c_prev - (const REAL *)step->c_prev + i * apart);
        cell[i] = NAME(add_product)(in * update, forget, v ? v[4 * n + i] : NAME(load)(c_prev + i * apart));
        if (flags & CYLSTM_CLIPPED) cell[i] = NAME(clamp)(cell[i], (REAL)-step->clip, (REAL)step->clip);
        if (v) {
            v[4 * n + i] = cell[i];
        } else {
            NAME(store)(gates + i * 4 * apart, in);
            NAME(store)(gates + i * 4 * apart + LANES, forget);
            NAME(store)(gates + i * 4 * apart + 2 * LANES, g);
            NAME(store)(c + i * apart, cell[i]);
        }
        if (flags & CYLSTM_PEEPHOLES) { /* o has waited for c */
            const REAL *peephole = (const REAL *)step->peepholes + 2 * Hp + unit + i * shift;
            VECTOR a = NAME(load)(gates + i * 4 * apart + 3 * LANES), o_scale, o_p;
            a = NAME(add_product)(a, NAME(load)(peephole), cell[i]);
            if (flags & CYLSTM_ACTIVATED) {
                x[4 * i + 3] = NAME(activated)(step->activations, NAME(squeezed)(flags, step, a));
            } else {
                a = -NAME(clamp)(a, -PAIRED_LIMIT, PAIRED_LIMIT);
                NAME(exp_parts)(1, &a, &o_scale, &o_p);
                x[4 * i + 3] = NAME(sigmoid_denominator)(o_scale, o_p);
            }
        }
        if (flags & CYLSTM_ACTIVATED) {
            NAME(store)(gates + i * 4 * apart + 3 * LANES, x[4 * i + 3]);
            if (!(flags & CYLSTM_NORMED)) NAME(store)(h + i * apart, x[4 * i + 3] * NAME(activated)(step->activations + 2, cell[i]));
        } else if (flags & CYLSTM_NORMED) /* h is of what norm.h makes of c */
            NAME(store)(gates + i * 4 * apart + 3 * LANES, (REAL)1 / x[4 * i + 3]);
        cell[i] = NAME(clamp)(cell[i] + cell[i], -TANH_LIMIT, TANH_LIMIT);
    }
    if (flags & (CYLSTM_ACTIVATED | CYLSTM_NORMED)) return;
    NAME(exp_parts)(n, cell, scale, p);
    ABREAST {
        const VECTOR numerator = NAME(tanh_numerator)(scale[i], p[i]), denominator = numerator + (REAL)2;
        const VECTOR inverse = (REAL)1 / (x[4 * i + 3] * denominator);
        if (v) {
            v[5 * n + i] = inverse * numerator;
        } else {
            NAME(store)(gates + i * 4 * apart + 3 * LANES, inverse * denominator);
            NAME(store)(h + i * apart, inverse * numerator);
        }
    }
}

/* The units first..last: vectors of one panel in every row, or those of the only row. */
INLINE void NAME(activations)(const int flags, const cylstm_step *step, ptrdiff_t first, ptrdiff_t last, ptrdiff_t Hp)
{
    const int alone = step->B == 1;
    const ptrdiff_t count = alone ? (last - first + LANES - 1) / LANES : step->B, apart = alone ? LANES : Hp, shift = alone ? LANES : 0;
    REAL *gates = (REAL *)step->gates + 4 * first, *c = (REAL *)step->c + first, *h = (REAL *)step->h + first;
    const REAL *c_prev = (const REAL *)step->c_prev + first;
    ptrdiff_t done = 0;
    for (; done + UNITS_ABREAST <= count; done += UNITS_ABREAST)
        NAME(units)(UNITS_ABREAST, flags, step, apart, gates + done * 4 * apart, c_prev + done * apart, c + done * apart,
                    h + done * apart, Hp, first + done * shift, shift, NULL);
    for (; done < count; done++)
        NAME(units)(1, flags, step, apart, gates + done * 4 * apart, c_prev + done * apart, c + done * apart, h + done * apart, Hp,
                    first + done * shift, shift, NULL);
}

/* A function of its own, so that the plain cell's code is the same as without variants. */
static __attribute__((noinline)) void NAME(activations_of_variant)(const cylstm_step *step, ptrdiff_t first, ptrdiff_t last, ptrdiff_t Hp)
{
    NAME(activations)(step->flags, step, first, last, Hp);
    /* Others than sigmoid and tanh need not make zeros of zeros, and a cell that nobody clips may grow without end. */
    if (!(step->flags & CYLSTM_ACTIVATED) || last <= step->H) return;
    for (ptrdiff_t b = 0; b < step->B; b++)
        for (ptrdiff_t unit = b * Hp + step->H; unit < b * Hp + last; unit++) {
            ((REAL *)step->c)[unit] = 0;
            ((REAL *)step->h)[unit] = 0;
        }
}

#include "narrow.h"

static void NAME(cell_forward)(const cylstm_step *step)
{
    const ptrdiff_t B = step->B, H = step->H, Hp = (H + LANES - 1) / LANES * LANES, group = B == 1 ? 2 * LANES : LANES;
    const ptrdiff_t Y = step->Y, Yp = (Y + LANES - 1) / LANES * LANES;
    ptrdiff_t columns = step->form == CYLSTM_UNPACKED ? 4 * H : 4 * Hp, whole = Hp; /* units in whole panels */
    int now = 0;
    if (step->form == CYLSTM_NARROW) {
        columns = cylstm_columns(CYLSTM_NARROW, H, LANES);
        whole = columns / (4 * LANES) * LANES;
    }
    for (ptrdiff_t j0 = step->first, j1; j0 < step->last; j0 = j1) {
        j1 = step->last - j0 < group ? step->last : j0 + group;
        if (B == 1 && j1 == whole) j1 = step->last; /* which the narrow panel may be behind */
        NAME(product_of)(step->form, &now, B, Y, columns, 4 * j0, 4 * j1, step->h_prev, Yp, step->R, NULL, step->gates, 4 * Hp);
        ptrdiff_t end = j1;
        if (j1 > whole && (step->flags || step->kept)) {
            NAME(widen)(B, columns / 4 - whole, (REAL *)step->gates + 4 * whole, 4 * Hp);
        } else if (j1 > whole) {
            end = B == 1 && UNITS_ABREAST == 2 ? j0 : whole;
            (columns - 4 * whole > LANES ? NAME(rows_by_two) : NAME(rows_by_four))(step, end, whole, Hp);
            if (end == j0) break;
        }
        if (step->flags == 0)
            NAME(activations)(0, step, j0, end, Hp);
        else
            NAME(activations_of_variant)(step, j0, end, Hp);
    }
    NAME(release)(step->form);
}

/* Zeros in the padding of a row's last panel, which ends at `end` (4 * LANES reals of gates, LANES of dc). */
static __attribute__((noinline)) void NAME(clear_padding)(ptrdiff_t padding, REAL *gates_end, REAL *dc_end)
{
    for (ptrdiff_t lane = 1; lane <= padding; lane++) {
        for (ptrdiff_t gate = 0; gate < 4; gate++) gates_end[-gate * LANES - lane] = 0;
        dc_end[-lane] = 0;
    }
}

/* d f / d z of a gate (which = 0) or of g (1) from its value v; 0 where z was cut to its bounds, which those of v tell. */
INLINE VECTOR NAME(gate_slope)(const int flags, const cylstm_step *step, int which, VECTOR v, const VECTOR *bounds)
{
    const VECTOR slope = NAME(slope_of_value)(step->activations + which, v), zero = NAME(splat)(0);
    if (!(flags & CYLSTM_SQUEEZED)) return slope;
    return NAME(select)(v <= bounds[2 * which], zero, NAME(select)(v >= bounds[2 * which + 1], zero, slope));
}

/* One vector of units of row b, at n = b * Hp + unit. bounds: of bounds_of_gates(). */
INLINE void NAME(unit_gradients)(const int flags, const cylstm_step *step, ptrdiff_t n, ptrdiff_t unit, ptrdiff_t Hp,
                                 const VECTOR *bounds)
{
    REAL *gate = (REAL *)step->gates + 4 * n, *dc = (REAL *)step->dc + n;
    const REAL *peephole = (const REAL *)step->peepholes;
    const VECTOR i = NAME(load)(gate), f = NAME(load)(gate + LANES);
    const VECTOR g = NAME(load)(gate + 2 * LANES), o = NAME(load)(gate + 3 * LANES);
    const VECTOR c_prev = NAME(load)((const REAL *)step->c_prev + n), one = NAME(splat)(1);
    const VECTOR c = NAME(load)((const REAL *)step->c + n), dh_t = NAME(load)((const REAL *)step->dh + n);
    /* h = o tanh(c), sigmoid' = s (1 - s), tanh' = 1 - tanh^2 */
    VECTOR dz_o, d_c;
    if (flags & CYLSTM_NORMED) { /* norm.h has been here */
        dz_o = o;
        d_c = NAME(load)(dc);
    } else if (flags & CYLSTM_ACTIVATED) {
        const VECTOR f_c = NAME(activated)(step->activations + 2, c);
        dz_o = dh_t * f_c * NAME(gate_slope)(flags, step, 0, o, bounds);
        d_c = NAME(add_product)(NAME(load)(dc), dh_t * o, NAME(slope_of_value)(step->activations + 2, f_c));
    } else {
        const VECTOR tanh_c = NAME(vtanh)(c);
        dz_o = dh_t * tanh_c * o * (one - o);
        d_c = NAME(add_product)(NAME(load)(dc), dh_t * o, NAME(subtract_product)(one, tanh_c, tanh_c));
    }
    /* z_o = ... + p_o c */
    if (flags & CYLSTM_PEEPHOLES) d_c = NAME(add_product)(d_c, dz_o, NAME(load)(peephole + 2 * Hp + unit));
    /* c = f c_prev + i g; 0 where it was clipped, which its own value tells: computed again, it has the same bits */
    const VECTOR update = NAME(kept_of)(flags, step, g, n);
    if (flags & CYLSTM_CLIPPED) {
        const VECTOR free = NAME(add_product)(i * update, f, c_prev), clip = NAME(splat)((REAL)step->clip);
        d_c = NAME(select)(free > clip, NAME(splat)(0), NAME(select)(free < -clip, NAME(splat)(0), d_c));
    }
    /* f = 1 - i */
    const VECTOR d_i = flags & CYLSTM_COUPLED ? d_c * (update - c_prev) : d_c * update, d_g = NAME(kept_of)(flags, step, d_c * i, n);
    VECTOR dz_f, dz_i, dz_g;
    if (flags & CYLSTM_ACTIVATED) {
        dz_f = d_c * c_prev * NAME(gate_slope)(flags, step, 0, f, bounds);
        dz_i = d_i * NAME(gate_slope)(flags, step, 0, i, bounds);
        dz_g = d_g * NAME(gate_slope)(flags, step, 1, g, bounds);
    } else {
        dz_f = d_c * c_prev * f * (one - f);
        dz_i = d_i * i * (one - i);
        dz_g = d_g * NAME(subtract_product)(one, g, g);
    }
    if (flags & CYLSTM_COUPLED) dz_f = NAME(splat)(0);
    VECTOR dc_prev = d_c * f;
    /* z_i = ... + p_i c_prev, z_f = ... + p_f c_prev */
    if (flags & CYLSTM_PEEPHOLES) {
        dc_prev = NAME(add_product)(dc_prev, dz_i, NAME(load)(peephole + unit));
        dc_prev = NAME(add_product)(dc_prev, dz_f, NAME(load)(peephole + Hp + unit));
    }
    NAME(store)(dc, dc_prev);
    NAME(store)(gate, dz_i);
    NAME(store)(gate + LANES, dz_f);
    NAME(store)(gate + 2 * LANES, dz_g);
    NAME(store)(gate + 3 * LANES, dz_o);
}

/* The least and the largest value of gates, and of g, that are of numbers within bounds; where there are none, nobody asks. */
static void NAME(bounds_of_gates)(const cylstm_step *step, VECTOR *bounds)
{
    for (int n = 0; n < 4; n++) {
        const VECTOR z = NAME(splat)((REAL)(n % 2 ? step->gate_clip : -step->gate_clip));
        bounds[n] = step->flags & CYLSTM_SQUEEZED ? NAME(activated)(step->activations + n / 2, z) : z;
    }
}

INLINE void NAME(gradients)(const int flags, const cylstm_step *step)
{
    const ptrdiff_t H = step->H, Hp = (H + LANES - 1) / LANES * LANES;
    REAL *gates = step->gates, *dc = step->dc;
    VECTOR bounds[4];
    if (flags) NAME(bounds_of_gates)(step, bounds);
    for (ptrdiff_t b = 0; b < step->B; b++) {
        for (ptrdiff_t unit = step->first; unit < step->last; unit += LANES)
            NAME(unit_gradients)(flags, step, b * Hp + unit, unit, Hp, bounds);
        /* An infinite input times the zeros of the padding is NaN there, of which the row's own gradients know nothing. */
        const ptrdiff_t end = b * Hp + step->last;
        if (step->last > H && gates[4 * end - 1] != gates[4 * end - 1]) NAME(clear_padding)(Hp - H, gates + 4 * end, dc + end);
    }
}

static __attribute__((noinline)) void NAME(gradients_of_variant)(const cylstm_step *step)
{
    NAME(gradients)(step->flags, step);
}

static void NAME(cell_backward)(const cylstm_step *step)
{
    if (step->flags == 0)
        NAME(gradients)(0, step);
    else
        NAME(gradients_of_variant)(step);
}

static void NAME(part_gates)(int back, ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, REAL *gates, REAL *apart,
                             ptrdiff_t distance)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES;
    for (ptrdiff_t b = 0; b < B; b++)
        for (ptrdiff_t unit = first; unit < last; unit += LANES)
            UNROLL
            for (int gate = 0; gate < 4; gate++) {
                REAL *whole = gates + 4 * (b * Hp + unit) + gate * LANES, *part = apart + gate * distance + b * Hp + unit;
                NAME(store)(back ? whole : part, NAME(load)(back ? part : whole));
            }
}

static void NAME(peephole_gradients)(ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *dgates, const REAL *c_prev,
                                     const REAL *c, REAL *dpeepholes)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES;
    for (ptrdiff_t unit = first; unit < last; unit += LANES) {
        const ptrdiff_t inside = H - unit < LANES ? H - unit : LANES;
        REAL *d = dpeepholes + unit;
        VECTOR d_i = NAME(load_part)(d, inside, 0), d_f = NAME(load_part)(d + H, inside, 0);
        VECTOR d_o = NAME(load_part)(d + 2 * H, inside, 0);
        for (ptrdiff_t b = 0; b < B; b++) {
            const REAL *dz = dgates + 4 * (b * Hp + unit);
            const VECTOR before = NAME(load)(c_prev + b * Hp + unit);
            d_i = NAME(add_product)(d_i, NAME(load)(dz), before);
            d_f = NAME(add_product)(d_f, NAME(load)(dz + LANES), before);
            d_o = NAME(add_product)(d_o, NAME(load)(dz + 3 * LANES), NAME(load)(c + b * Hp + unit));
        }
        NAME(store_part)(d, inside, d_i);
        NAME(store_part)(d + H, inside, d_f);
        NAME(store_part)(d + 2 * H, inside, d_o);
    }
}
