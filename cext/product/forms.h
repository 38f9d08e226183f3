/* The kernels that take operands of any form: here each asks which one, once. */

static void NAME(product)(int form, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                          const void *A, ptrdiff_t lda, const void *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    switch (form) {
#if HAVE_TILES
    case CYLSTM_TILES: {
        int now = 0;
        product_of_tiles(&now, rows, K, columns, first, last, A, P, bias, C, ldc, 16 * ldc);
        _tile_release();
        return;
    }
#endif
    case CYLSTM_UNPACKED:
        NAME(product_of_unpacked)(rows, columns / 4, K, first / 4, last / 4, A, lda, P, bias, C, ldc);
        return;
    default:
        NAME(product_of_panels)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
    }
}

static void NAME(pack_left)(int form, int transposed, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last,
                            const REAL *A, ptrdiff_t lda, void *out)
{
    switch (form) {
#if HAVE_TILES
    case CYLSTM_TILES:
        if (transposed)
            split_transposed(rows, K, A, lda, out, NULL);
        else
            split_plain(rows, K, first, last, A, lda, out);
        return;
#endif
    default:
        (void)transposed, (void)rows, (void)K, (void)first, (void)last, (void)A, (void)lda, (void)out;
    }
}

static void NAME(pack_right)(int form, int transposed, ptrdiff_t K, ptrdiff_t columns, const REAL *P, ptrdiff_t ldp,
                             void *out)
{
    switch (form) {
#if HAVE_TILES
    case CYLSTM_TILES:
        split_columns(transposed, K, columns, P, ldp, out);
        return;
#endif
    default:
        (void)transposed, (void)K, (void)columns, (void)P, (void)ldp, (void)out;
    }
}
