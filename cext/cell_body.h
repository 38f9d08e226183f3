/* One LSTM step, forward and backward, panel by panel. */

static void NAME(cell_forward)(int tiled, ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const void *R,
                               const void *h_prev, const REAL *c_prev, REAL *gates, REAL *c, REAL *h)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES, group = B == 1 ? 2 * LANES : LANES;
#if HAVE_TILES
    int now = 0;
#endif
    for (ptrdiff_t j0 = first; j0 < last; j0 += group) {
        const ptrdiff_t width = last - j0 < group ? last - j0 : group;
#if HAVE_TILES
        if (tiled)
            product_of_tiles(&now, B, H, 4 * Hp, 4 * j0, 4 * (j0 + width), h_prev, R, NULL, gates, 4 * Hp, 64 * Hp);
        else
#endif
            NAME(product_of_panels)(B, H, 4 * Hp, 4 * j0, 4 * (j0 + width), h_prev, Hp, R, NULL, gates, 4 * Hp);
        for (ptrdiff_t b = 0; b < B; b++)
            for (ptrdiff_t j = j0; j < j0 + width; j += LANES) {
                REAL *gate = gates + b * 4 * Hp + 4 * j;
                const VECTOR i = NAME(vsigmoid)(NAME(load)(gate));
                const VECTOR f = NAME(vsigmoid)(NAME(load)(gate + LANES));
                const VECTOR g = NAME(vtanh)(NAME(load)(gate + 2 * LANES));
                const VECTOR o = NAME(vsigmoid)(NAME(load)(gate + 3 * LANES));
                const VECTOR cell = f * NAME(load)(c_prev + b * Hp + j) + i * g;
                NAME(store)(gate, i);
                NAME(store)(gate + LANES, f);
                NAME(store)(gate + 2 * LANES, g);
                NAME(store)(gate + 3 * LANES, o);
                NAME(store)(c + b * Hp + j, cell);
                NAME(store)(h + b * Hp + j, o * NAME(vtanh)(cell));
            }
    }
#if HAVE_TILES
    if (tiled) _tile_release();
#else
    (void)tiled;
#endif
}

static void NAME(cell_backward)(ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *c_prev, const REAL *c,
                                const REAL *dh, REAL *gates, REAL *dc)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES;
    for (ptrdiff_t b = 0; b < B; b++)
    for (ptrdiff_t n = b * Hp + first; n < b * Hp + last; n += LANES) {
        REAL *gate = gates + 4 * n;
        const VECTOR i = NAME(load)(gate), f = NAME(load)(gate + LANES);
        const VECTOR g = NAME(load)(gate + 2 * LANES), o = NAME(load)(gate + 3 * LANES);
        const VECTOR tanh_c = NAME(vtanh)(NAME(load)(c + n)), dh_t = NAME(load)(dh + n);
        /* h = o tanh(c) */
        const VECTOR d_o = dh_t * tanh_c;
        const VECTOR d_c = NAME(load)(dc + n) + dh_t * o * ((REAL)1 - tanh_c * tanh_c);
        /* c = f c_prev + i g */
        const VECTOR d_i = d_c * g, d_f = d_c * NAME(load)(c_prev + n), d_g = d_c * i;
        NAME(store)(dc + n, d_c * f);
        /* sigmoid' = s (1 - s), tanh' = 1 - g^2 */
        NAME(store)(gate, d_i * i * ((REAL)1 - i));
        NAME(store)(gate + LANES, d_f * f * ((REAL)1 - f));
        NAME(store)(gate + 2 * LANES, d_g * ((REAL)1 - g * g));
        NAME(store)(gate + 3 * LANES, d_o * o * ((REAL)1 - o));
    }
}
