/* A step's narrow last panel (kernels.h): lanes that would be padding have other rows' units instead. Included by lstm.h. */

/* The units of a narrow panel, in so many rows that they fill a vector: G, of which each has a quarter or half of one. n such vectors,
 * in `rows` rows from row b on, n G of them or, with n = 1, fewer. The first `whole` of the n are vectors of whole panels, those in
 * front of the narrow one in the only row. Lanes are in the order of a row's units first, and then of rows. */
INLINE void NAME(narrow_units)(const int n, const int whole, const int G, const cylstm_step *step, ptrdiff_t b, ptrdiff_t rows,
                               ptrdiff_t unit, ptrdiff_t Hp)
{
    const int each = 4 / G; /* vectors of a row */
    const REAL *gates = (const REAL *)step->gates + 4 * (b * Hp + unit), *c_prev = (const REAL *)step->c_prev + b * Hp + unit;
    REAL *c = (REAL *)step->c + b * Hp + unit, *h = (REAL *)step->h + b * Hp + unit;
    VECTOR v[6 * MOST_ABREAST];
    ABREAST {
        if (i < whole) {
            UNROLL
            for (int gate = 0; gate < 4; gate++) v[4 * i + gate] = NAME(load)(gates + ((i - whole) * 4 + gate) * LANES);
            v[4 * n + i] = NAME(load)(c_prev + (i - whole) * LANES);
            continue;
        }
        VECTOR z[4], before[4] = {{0}};
        UNROLL
        for (int r = 0; r < G; r++) {
            const ptrdiff_t row = ((i - whole) * G + r < rows ? (i - whole) * G + r : 0) * Hp;
            before[r * each] = NAME(load)(c_prev + row);
            UNROLL
            for (int j = 0; j < each; j++) z[r * each + j] = NAME(load)(gates + 4 * row + j * LANES);
        }
        UNROLL
        for (int round = 1; round < G; round *= 2) {
            NAME(turn)(4, z);
            NAME(turn)(4, before);
        }
        UNROLL
        for (int gate = 0; gate < 4; gate++) v[4 * i + gate] = z[gate];
        v[4 * n + i] = before[0];
    }
    NAME(units)(n, 0, step, 0, NULL, NULL, NULL, NULL, Hp, unit, 0, v);
    ABREAST {
        if (i < whole) {
            NAME(store)(c + (i - whole) * LANES, v[4 * n + i]);
            NAME(store)(h + (i - whole) * LANES, v[5 * n + i]);
            continue;
        }
        VECTOR new_c[4] = {v[4 * n + i]}, new_h[4] = {v[5 * n + i]};
        UNROLL
        for (int round = 1; round < G; round *= 2) {
            NAME(turn_back)(4, new_c);
            NAME(turn_back)(4, new_h);
        }
        UNROLL
        for (int r = 0; r < G; r++) {
            const ptrdiff_t row = (i - whole) * G + r;
            if (row >= rows) break;
            NAME(store)(c + row * Hp, new_c[r * each]);
            NAME(store)(h + row * Hp, new_h[r * each]);
        }
    }
}

/* The units from `unit` on, in all rows; those of the panels from `first` on, too, which is `unit` unless there is one row: three
 * vectors abreast take less time than two and then one, even where there are not the registers for them (H = 40: 290 to 325 ns). */
INLINE void NAME(narrow_rows)(const int G, const cylstm_step *step, ptrdiff_t first, ptrdiff_t unit, ptrdiff_t Hp)
{
    ptrdiff_t b = 0;
#if UNITS_ABREAST == 2
    if (unit > first) {
        if (unit - first == LANES)
            NAME(narrow_units)(2, 1, G, step, 0, 1, unit, Hp);
        else
            NAME(narrow_units)(3, 2, G, step, 0, 1, unit, Hp);
        return;
    }
#else
    (void)first;
#endif
    for (; b + UNITS_ABREAST * G <= step->B; b += UNITS_ABREAST * G)
        NAME(narrow_units)(UNITS_ABREAST, 0, G, step, b, UNITS_ABREAST * G, unit, Hp);
    for (; b < step->B; b += G) NAME(narrow_units)(1, 0, G, step, b, step->B - b < G ? step->B - b : G, unit, Hp);
}

/* Functions of their own, so that the code of whole panels is the same as without them. */
static __attribute__((noinline)) void NAME(rows_by_two)(const cylstm_step *step, ptrdiff_t first, ptrdiff_t unit, ptrdiff_t Hp)
{
    NAME(narrow_rows)(2, step, first, unit, Hp);
}

static __attribute__((noinline)) void NAME(rows_by_four)(const cylstm_step *step, ptrdiff_t first, ptrdiff_t unit, ptrdiff_t Hp)
{
    NAME(narrow_rows)(4, step, first, unit, Hp);
}

/* A narrow panel of w units becomes a whole one: of B rows of gates, from their panel on. */
static __attribute__((noinline)) void NAME(widen)(ptrdiff_t B, ptrdiff_t w, REAL *gates, ptrdiff_t apart)
{
    INTEGERS inside;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) inside[lane] = -(lane < w);
    for (ptrdiff_t b = 0; b < B; b++, gates += apart) {
        VECTOR v[4];
        UNROLL
        for (int gate = 0; gate < 4; gate++) v[gate] = (VECTOR)((INTEGERS)NAME(load)(gates + gate * w) & inside);
        UNROLL
        for (int gate = 0; gate < 4; gate++) NAME(store)(gates + gate * LANES, v[gate]);
    }
}
