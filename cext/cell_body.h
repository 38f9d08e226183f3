/* One LSTM step, forward and backward, panel by panel. */

/* n vectors of hidden units, `apart` reals from each other, from their pre-activations on: gates, c and h.
 * A division takes as long as twenty other operations, and a group of two sigmoids, or of one and a tanh, has one. */
INLINE void NAME(units)(const int n, ptrdiff_t apart, REAL *gates, const REAL *c_prev, REAL *c, REAL *h)
{
    VECTOR x[4 * UNITS_ABREAST], scale[4 * UNITS_ABREAST], p[4 * UNITS_ABREAST], cell[UNITS_ABREAST];
    UNROLL
    for (int i = 0; i < 4 * n; i++) {
        const VECTOR a = NAME(load)(gates + i / 4 * 4 * apart + i % 4 * LANES);
        x[i] = i % 4 == 2 ? NAME(clamp)(a + a, -TANH_LIMIT, TANH_LIMIT) : -NAME(clamp)(a, -PAIRED_LIMIT, PAIRED_LIMIT);
    }
    NAME(exp_parts)(4 * n, x, scale, p);
    UNROLL
    for (int i = 0; i < 4 * n; i++)
        x[i] = i % 4 == 2 ? NAME(tanh_numerator)(scale[i], p[i]) : NAME(sigmoid_denominator)(scale[i], p[i]);
    ABREAST {
        const VECTOR both = (REAL)1 / (x[4 * i] * x[4 * i + 1]), in = both * x[4 * i + 1], forget = both * x[4 * i];
        const VECTOR g = x[4 * i + 2] / (x[4 * i + 2] + (REAL)2);
        cell[i] = NAME(add_product)(in * g, forget, NAME(load)(c_prev + i * apart));
        NAME(store)(gates + i * 4 * apart, in);
        NAME(store)(gates + i * 4 * apart + LANES, forget);
        NAME(store)(gates + i * 4 * apart + 2 * LANES, g);
        NAME(store)(c + i * apart, cell[i]);
        cell[i] = NAME(clamp)(cell[i] + cell[i], -TANH_LIMIT, TANH_LIMIT);
    }
    NAME(exp_parts)(n, cell, scale, p);
    ABREAST {
        const VECTOR numerator = NAME(tanh_numerator)(scale[i], p[i]), denominator = numerator + (REAL)2;
        const VECTOR inverse = (REAL)1 / (x[4 * i + 3] * denominator);
        NAME(store)(gates + i * 4 * apart + 3 * LANES, inverse * denominator);
        NAME(store)(h + i * apart, inverse * numerator);
    }
}

static void NAME(cell_forward)(int form, ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const void *R,
                               const void *h_prev, const REAL *c_prev, REAL *gates, REAL *c, REAL *h)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES, group = B == 1 ? 2 * LANES : LANES;
#if HAVE_TILES
    int now = 0;
#endif
    for (ptrdiff_t j0 = first; j0 < last; j0 += group) {
        const ptrdiff_t width = last - j0 < group ? last - j0 : group;
#if HAVE_TILES
        if (form == CYLSTM_TILES)
            product_of_tiles(&now, B, H, 4 * Hp, 4 * j0, 4 * (j0 + width), h_prev, R, NULL, gates, 4 * Hp, 64 * Hp);
        else
#endif
        if (form == CYLSTM_ROWS)
            NAME(product_of_rows)(B, H, H, j0, j0 + width, h_prev, Hp, R, NULL, gates, 4 * Hp);
        else
            NAME(product_of_panels)(B, H, 4 * Hp, 4 * j0, 4 * (j0 + width), h_prev, Hp, R, NULL, gates, 4 * Hp);
        /* Vectors of units: one of each row, or those of the only one. */
        const ptrdiff_t count = B == 1 ? (width + LANES - 1) / LANES : B, apart = B == 1 ? LANES : Hp;
        REAL *gate = gates + 4 * j0, *c_to = c + j0, *h_to = h + j0;
        const REAL *c_from = c_prev + j0;
        ptrdiff_t done = 0;
        for (; done + UNITS_ABREAST <= count; done += UNITS_ABREAST)
            NAME(units)(UNITS_ABREAST, apart, gate + done * 4 * apart, c_from + done * apart, c_to + done * apart,
                        h_to + done * apart);
        for (; done < count; done++)
            NAME(units)(1, apart, gate + done * 4 * apart, c_from + done * apart, c_to + done * apart,
                        h_to + done * apart);
    }
#if HAVE_TILES
    if (form == CYLSTM_TILES) _tile_release();
#endif
}

/* Zeros in the padding of a row's last panel, which ends at `end` (4 * LANES reals of gates, LANES of dc). */
static __attribute__((noinline)) void NAME(clear_padding)(ptrdiff_t padding, REAL *gates_end, REAL *dc_end)
{
    for (ptrdiff_t lane = 1; lane <= padding; lane++) {
        for (ptrdiff_t gate = 0; gate < 4; gate++) gates_end[-gate * LANES - lane] = 0;
        dc_end[-lane] = 0;
    }
}

static void NAME(cell_backward)(ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *c_prev, const REAL *c,
                                const REAL *dh, REAL *gates, REAL *dc)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES;
    for (ptrdiff_t b = 0; b < B; b++) {
        for (ptrdiff_t n = b * Hp + first; n < b * Hp + last; n += LANES) {
            REAL *gate = gates + 4 * n;
            const VECTOR i = NAME(load)(gate), f = NAME(load)(gate + LANES);
            const VECTOR g = NAME(load)(gate + 2 * LANES), o = NAME(load)(gate + 3 * LANES);
            const VECTOR tanh_c = NAME(vtanh)(NAME(load)(c + n)), dh_t = NAME(load)(dh + n), one = NAME(splat)(1);
            /* h = o tanh(c) */
            const VECTOR d_o = dh_t * tanh_c;
            const VECTOR d_c = NAME(add_product)(NAME(load)(dc + n), dh_t * o,
                                                 NAME(subtract_product)(one, tanh_c, tanh_c));
            /* c = f c_prev + i g */
            const VECTOR d_i = d_c * g, d_f = d_c * NAME(load)(c_prev + n), d_g = d_c * i;
            NAME(store)(dc + n, d_c * f);
            /* sigmoid' = s (1 - s), tanh' = 1 - g^2 */
            NAME(store)(gate, d_i * i * (one - i));
            NAME(store)(gate + LANES, d_f * f * (one - f));
            NAME(store)(gate + 2 * LANES, d_g * NAME(subtract_product)(one, g, g));
            NAME(store)(gate + 3 * LANES, d_o * o * (one - o));
        }
        /* An infinite input times the zeros of the padding is NaN there, of which the row's own gradients know nothing. */
        const ptrdiff_t end = b * Hp + last;
        if (last > H && gates[4 * end - 1] != gates[4 * end - 1]) NAME(clear_padding)(Hp - H, gates + 4 * end, dc + end);
    }
}
