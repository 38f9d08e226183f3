/* C = start + A . W' with W (4H, K) as its owner keeps it, row after row, instead of packed in panels: for a few rows of A,
 * where packing or even comparing W would read more bytes than the product itself.
 *
 * Each element is a dot product along k. As many as a vector has lanes are summed side by side, and folding them into
 * each other leaves the sum of row n in lane n. Sums are in another order than those of panels, but in the same one for
 * any number of rows and any cut by units. */

/* The sums over the lanes of LANES vectors: lane n is that of v[n]. Each round adds the halves of two vectors, lane by
 * lane in turn, so that the number of a lane loses its first bit and takes the number of the vector as its last. */
INLINE VECTOR NAME(fold)(VECTOR *v)
{
    UNROLL
    for (ptrdiff_t half = LANES / 2; half > 0; half /= 2)
        UNROLL
        for (ptrdiff_t i = 0; i < half; i++)
            v[i] = SHUFFLE(v[i], v[i + half], FIRST_HALVES) + SHUFFLE(v[i], v[i + half], SECOND_HALVES);
    return v[0];
}

/* The dot products of x (K) with `used` rows of w, K apart: LANES of them, or the last ones there are, and zeros behind.
 * Nothing from `end` on is read. */
INLINE VECTOR NAME(dots)(ptrdiff_t used, ptrdiff_t K, const REAL *x, const REAL *w, const REAL *end)
{
    VECTOR sums[VECTOR_BYTES / sizeof(REAL)];
    INTEGERS inside, wanted;
    ptrdiff_t k = 0;
    UNROLL
    for (ptrdiff_t n = 0; n < LANES; n++) sums[n] = NAME(splat)(0);
    for (; k + LANES <= K; k += LANES) {
        const VECTOR part = NAME(load)(x + k);
        UNROLL
        for (ptrdiff_t n = 0; n < LANES; n++)
            sums[n] = NAME(add_product)(sums[n], NAME(load)(w + (n < used ? n : 0) * K + k), part);
    }
    if (k < K) { /* what is read behind a row belongs to the next one, if there is as much */
        const VECTOR part = NAME(load_part)(x + k, K - k, 0);
        for (ptrdiff_t n = 0; n < LANES; n++) inside[n] = -(n < K - k);
        UNROLL
        for (ptrdiff_t n = 0; n < LANES; n++) {
            const REAL *row = w + (n < used ? n : 0) * K + k;
            const VECTOR v = row + LANES <= end ? NAME(load)(row) : NAME(load_part)(row, K - k, 0);
            sums[n] = NAME(add_product)(sums[n], (VECTOR)((INTEGERS)v & inside), part);
        }
    }
    for (ptrdiff_t n = 0; n < LANES; n++) wanted[n] = -(n < used);
    return (VECTOR)((INTEGERS)NAME(fold)(sums) & wanted);
}

static __attribute__((noinline)) VECTOR NAME(all_dots)(ptrdiff_t K, const REAL *x, const REAL *w, const REAL *end)
{
    return NAME(dots)(LANES, K, x, w, end);
}

static __attribute__((noinline)) VECTOR NAME(last_dots)(ptrdiff_t used, ptrdiff_t K, const REAL *x, const REAL *w,
                                                        const REAL *end)
{
    return NAME(dots)(used, K, x, w, end);
}

/* Not inlined: the loops of cells have no registers to spare for it. */
static __attribute__((noinline)) void NAME(product_of_unpacked)(ptrdiff_t rows, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first,
                                                           ptrdiff_t last, const REAL *A, ptrdiff_t lda, const REAL *W,
                                                           const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    const REAL *end = W + 4 * H * K;
    for (ptrdiff_t j = first; j < last; j += LANES)
        for (ptrdiff_t gate = 0; gate < 4; gate++)
            for (ptrdiff_t r = 0; r < rows; r++) {
                const ptrdiff_t q = 4 * j + gate * LANES;
                const REAL *x = A + r * lda, *w = W + (gate * H + j) * K, *from = bias ? bias + q : C + r * ldc + q;
                const VECTOR dots = H - j >= LANES ? NAME(all_dots)(K, x, w, end) : NAME(last_dots)(H - j, K, x, w, end);
                NAME(store)(C + r * ldc + q, NAME(load)(from) + dots);
            }
}
