/* Activations of dense layers: one pass over a flat buffer, by the functions of functions.h. */

/* With one body for whole vectors and for what is left of them: this is code of every instruction set, twice. */
static void NAME(activate)(const cylstm_activation *f, ptrdiff_t n, const REAL *z, REAL *y)
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t left = n - j;
        const VECTOR v = NAME(activation)(f, left < LANES ? NAME(load_part)(z + j, left, 0) : NAME(load)(z + j));
        if (left < LANES) NAME(store_part)(y + j, left, v);
        else NAME(store)(y + j, v);
    }
}

static void NAME(activate_backward)(const cylstm_activation *f, ptrdiff_t n, const REAL *z, REAL *d)
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t left = n - j;
        const VECTOR v = NAME(slope)(f, left < LANES ? NAME(load_part)(z + j, left, 0) : NAME(load)(z + j));
        if (left < LANES) NAME(store_part)(d + j, left, v * NAME(load_part)(d + j, left, 0));
        else NAME(store)(d + j, v * NAME(load)(d + j));
    }
}
