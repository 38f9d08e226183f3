/* Zoneout (Krueger et al. 2017) of n units of a row, as kernels.def has it. Rows go on to a whole vector, as padding; what says
 * which of them are new ends at n. */
#define ZONE_BLOCK 64

/* Masks of lanes: where the first n <= ZONE_BLOCK bytes are not 0; up to a whole vector behind them, `behind`. A loop of
 * its own, since the compiler has instructions for it there, and for vectors of bytes has none. */
INLINE void NAME(lanes_new)(ptrdiff_t n, const uint8_t *is_new, INTEGER behind, INTEGER *lanes)
{
    for (ptrdiff_t j = 0; j < n; j++) lanes[j] = -(INTEGER)(is_new[j] != 0);
    for (ptrdiff_t j = n; j % LANES; j++) lanes[j] = behind;
}

INLINE INTEGERS NAME(load_lanes)(const INTEGER *lanes) { return (INTEGERS)NAME(load)((const REAL *)lanes); }

static void NAME(zone_row)(ptrdiff_t n, double share, const uint8_t *is_new, const REAL *old, const REAL *fresh, REAL *row)
{
    const REAL stays = (REAL)share, goes = (REAL)(1 - share);
    INTEGER lanes[ZONE_BLOCK];
    for (ptrdiff_t first = 0; first < n; first += ZONE_BLOCK) {
        const ptrdiff_t end = n - first < ZONE_BLOCK ? n : first + ZONE_BLOCK;
        if (is_new) NAME(lanes_new)(end - first, is_new + first, 0, lanes);
        for (ptrdiff_t j = first; j < end; j += LANES) {
            const VECTOR from = old ? NAME(load)(old + j) : NAME(splat)(0), to = NAME(load)(fresh + j);
            VECTOR v = is_new ? NAME(select)(NAME(load_lanes)(lanes + j - first), to, from) : stays * from + goes * to;
            if (n - j < LANES) v = NAME(select)(NAME(real_lanes)(n), v, NAME(splat)(0));
            NAME(store)(row + j, v);
        }
    }
}

static void NAME(zone_row_backward)(ptrdiff_t n, const uint8_t *is_new, REAL *row, REAL *past)
{
    const VECTOR zero = {0};
    INTEGER lanes[ZONE_BLOCK];
    for (ptrdiff_t first = 0; first < n; first += ZONE_BLOCK) {
        const ptrdiff_t end = n - first < ZONE_BLOCK ? n : first + ZONE_BLOCK;
        NAME(lanes_new)(end - first, is_new + first, -1, lanes);
        for (ptrdiff_t j = first; j < end; j += LANES) {
            const INTEGERS goes = NAME(load_lanes)(lanes + j - first);
            const VECTOR d = NAME(load)(row + j);
            if (past) NAME(store)(past + j, NAME(load)(past + j) + NAME(select)(goes, zero, d));
            NAME(store)(row + j, NAME(select)(goes, d, zero));
        }
    }
}
