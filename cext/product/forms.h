/* The kernels that take operands of any form: here each asks which one, once. */

/* Before _tile_release(), where the form is of tiles; `now` as in tile_rows(). */
INLINE void NAME(product_of)(int form, int *now, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                             const void *A, ptrdiff_t lda, const void *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    (void)now;
    if (form == CYLSTM_NARROW && last > columns) last = columns;
    if (form == CYLSTM_PANELS || form == CYLSTM_NARROW || form == CYLSTM_ROUNDED) { /* the most frequent, and the shortest calls */
        NAME(product_of_panels)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
        return;
    }
    switch (form) {
#if HAVE_TILES
    case CYLSTM_TILES:
        product_of_tiles(now, rows, K, columns, first, last, A, P, bias, C, ldc, 16 * ldc);
        return;
    case CYLSTM_ROUNDED_TILES:
        product_of_rounded_tiles(now, rows, K, columns, first, last, A, P, bias, C, ldc, 16 * ldc);
        return;
    case CYLSTM_BFLOAT16_TILES:
        product_of_bfloat16_tiles(now, rows, K, first, last, A, P, bias, C, ldc);
        return;
    case CYLSTM_INT8_TILES:
        product_of_int8_tiles(now, rows, K, first, last, A, P, bias, C, ldc);
        return;
#endif
    case CYLSTM_UNPACKED:
        NAME(product_of_unpacked)(rows, columns / 4, K, first / 4, last / 4, A, lda, P, bias, C, ldc);
        return;
#if REAL_BITS == 32
    case CYLSTM_FLOAT16:
        NAME(product_of_float16)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
        return;
    case CYLSTM_BFLOAT16:
        NAME(product_of_panels_bfloat16)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
        return;
    case CYLSTM_INT8:
        NAME(product_of_panels_int8)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
        return;
#ifdef HAVE_BFLOAT16_DOT
    case CYLSTM_BFLOAT16_DOT:
        NAME(product_of_panels_bfloat16_dot)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
        return;
#endif
#ifdef HAVE_INT8_DOT
    case CYLSTM_INT8_DOT:
        NAME(product_of_panels_int8_dot)(rows, K, columns, first, last, A, lda, P, bias, C, ldc);
        return;
#endif
#endif
    default:
        return;
    }
}

INLINE void NAME(release)(int form)
{
    (void)form;
#if HAVE_TILES
    if (form == CYLSTM_TILES || form == CYLSTM_ROUNDED_TILES || form == CYLSTM_BFLOAT16_TILES || form == CYLSTM_INT8_TILES)
        _tile_release();
#endif
}

static void NAME(product)(int form, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                          const void *A, ptrdiff_t lda, const void *P, const REAL *bias, REAL *C, ptrdiff_t ldc)
{
    int now = 0;
    NAME(product_of)(form, &now, rows, K, columns, first, last, A, lda, P, bias, C, ldc);
    NAME(release)(form);
}

static void NAME(weight_gradients)(int form, ptrdiff_t N, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const REAL *dgates,
                                   ptrdiff_t inputs, const void *x, ptrdiff_t ldx, REAL *dW, ptrdiff_t Y, const void *h,
                                   ptrdiff_t ldh, ptrdiff_t h_apart, REAL *dR, REAL *db, void *scratch)
{
#if HAVE_TILES
    if (form != CYLSTM_PANELS) {
        gradients_of_tiles(form, N, H, first, last, dgates, inputs, x, dW, h, h_apart, dR, db, scratch);
        return;
    }
#endif
    (void)form;
    NAME(gradients_of_rows)(N, H, first, last, dgates, inputs, x, ldx, dW, Y, h, ldh, h_apart / (ptrdiff_t)sizeof(REAL), dR, db,
                            scratch);
}

static void NAME(pack_left)(int form, int transposed, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last,
                            const REAL *A, ptrdiff_t lda, REAL bound, void *out)
{
    switch (cylstm_stored_as(form)) {
#if HAVE_TILES
    case CYLSTM_TILES:
        split_left(3, transposed, rows, K, first, last, A, lda, out);
        return;
    case CYLSTM_ROUNDED_TILES:
        split_left(1, transposed, rows, K, first, last, A, lda, out);
        return;
#endif
#if REAL_BITS == 32
    case CYLSTM_BFLOAT16:
        NAME(left_pairs)(rows, K, first, last, A, lda, out);
        return;
    case CYLSTM_INT8:
        NAME(left_bytes)(rows, K, first, last, A, lda, bound, out);
        return;
#endif
    default:
        (void)transposed, (void)rows, (void)K, (void)first, (void)last, (void)A, (void)lda, (void)bound, (void)out;
    }
}

static void NAME(pack_right)(int form, int transposed, ptrdiff_t K, ptrdiff_t columns, const REAL *P, ptrdiff_t ldp,
                             void *out)
{
    switch (cylstm_stored_as(form)) {
#if HAVE_TILES
    case CYLSTM_TILES:
        split_columns(3, transposed, K, columns, P, ldp, out);
        return;
    case CYLSTM_ROUNDED_TILES:
        split_columns(1, transposed, K, columns, P, ldp, out);
        return;
#endif
#if REAL_BITS == 32
    case CYLSTM_ROUNDED:
        NAME(right_rounded)(K, columns, P, ldp, out);
        return;
    case CYLSTM_FLOAT16:
        NAME(right_float16)(K, columns, P, ldp, out);
        return;
    case CYLSTM_BFLOAT16:
        NAME(right_pairs)(K, columns, P, ldp, out);
        return;
    case CYLSTM_INT8:
        NAME(right_bytes)(K, columns, P, ldp, out);
        return;
#endif
    default:
        (void)transposed, (void)K, (void)columns, (void)P, (void)ldp, (void)out;
    }
}
