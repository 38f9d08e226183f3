/* The kernels of one real type; included twice by kernels.h, with CYLSTM_REAL float and double. No include guard.
 *
 * `ld*` are distances between rows, in reals. Arguments do not alias unless it is said. */

typedef struct {
    ptrdiff_t lanes;

    /* Panel number `panel` of W (4H, K) row-major: (K, 4*lanes) reals. With K = 1 this packs a bias. */
    void (*pack_gates)(const CYLSTM_REAL *W, ptrdiff_t H, ptrdiff_t K, ptrdiff_t panel, CYLSTM_REAL *out);

    /* Block number `block` of W (4H, K) in column blocks: (4*Hp, 4*lanes) reals, or fewer columns in the last one, K being
     * rounded up to a multiple of lanes. */
    void (*pack_columns)(const CYLSTM_REAL *W, ptrdiff_t H, ptrdiff_t K, ptrdiff_t block, CYLSTM_REAL *out);

    /* Rows in panel order back to gate order, of the hidden units first..last: W (4H, K) = rows of panels (4*Hp, K). */
    void (*unpack_rows)(const CYLSTM_REAL *rows, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, CYLSTM_REAL *W);

    /* The same where the rows lie as columns: W (4H, K) = panels (K, 4*Hp) transposed. */
    void (*unpack_columns)(const CYLSTM_REAL *columns, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last,
                           CYLSTM_REAL *W);

    /* C (rows, columns) = start + A (rows, K) . P, its columns first..last, multiples of lanes. P holds panels or blocks
     * with `columns` columns in all. start is `bias` (columns) for every row, or what C holds where bias is NULL.
     * tiled: A and P are tiles, from split_rows and split_columns; lda counts for nothing. */
    void (*product)(int tiled, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t last,
                    const void *A, ptrdiff_t lda, const void *P, const CYLSTM_REAL *bias, CYLSTM_REAL *C, ptrdiff_t ldc);

    /* gates (N, 4*Hp) = bias + gate panels' row ids[n], for the units first..last: the product with a one-hot row,
     * without the product. K is the number of rows that the panels have. */
    void (*gather)(ptrdiff_t N, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const int64_t *ids,
                   const CYLSTM_REAL *panels, const CYLSTM_REAL *bias, CYLSTM_REAL *gates);

    /* out (., ldo)[ids[n]] += rows (N, ldr)[n] in `width` columns, in the order of n. */
    void (*scatter_add)(ptrdiff_t N, ptrdiff_t width, const int64_t *ids, const CYLSTM_REAL *rows, ptrdiff_t ldr,
                        CYLSTM_REAL *out, ptrdiff_t ldo);

    /* One step of B rows, of the units first..last (multiples of lanes). In: gates (B, 4*Hp) = bias + x.W', h_prev and
     * c_prev (B, Hp), R in one of three forms. Out: gates = values of i, f, g, o; c (B, Hp); h (B, Hp). c may be c_prev; h may
     * not be h_prev. form: R is panels, or tiles, as h_prev is then, too, or R (4H, H) itself, row after row.
     *     i, f, o = sigmoid(.), g = tanh(.), c = f c_prev + i g, h = o tanh(c)   (Hochreiter & Schmidhuber 1997,
     *     with the forget gate of Gers et al. 2000)
     * Sigmoids share divisions, so their arguments end at +-43 (float) or +-350 (double), where 1 - sigmoid is 2e-19 or 1e-152. */
    void (*cell_forward)(int form, ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const void *R,
                         const void *h_prev, const CYLSTM_REAL *c_prev, CYLSTM_REAL *gates, CYLSTM_REAL *c, CYLSTM_REAL *h);

    /* The same step backward, up to the gates. In: gates = values, c_prev, c, dh (B, Hp), dc (B, Hp) = what comes
     * from step t+1. Out: gates = d loss / d pre-activations; dc = what goes to step t-1. */
    void (*cell_backward)(ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const CYLSTM_REAL *c_prev,
                          const CYLSTM_REAL *c, const CYLSTM_REAL *dh, CYLSTM_REAL *gates, CYLSTM_REAL *dc);

    /* out (columns) = sums over the rows of A (rows, columns). */
    void (*column_sums)(ptrdiff_t rows, ptrdiff_t columns, const CYLSTM_REAL *A, ptrdiff_t lda, CYLSTM_REAL *out);

    /* C (rows, 4*Hp) = start + A (rows, K) . W', W (4H, K) row-major and not packed, C's columns of the units first..last in
     * the order of panels. start as in `product`. For a few rows: sums have an order of their own. */
    void (*product_of_rows)(ptrdiff_t rows, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const CYLSTM_REAL *A,
                            ptrdiff_t lda, const CYLSTM_REAL *W, const CYLSTM_REAL *bias, CYLSTM_REAL *C, ptrdiff_t ldc);

    /* TILES, NULL for an instruction set without them (see kernels.h).
     *   largest:       the largest |A| of (rows, columns), infinity where one is NaN: whether tiles may be made of A.
     *   split_rows:    the columns first..last (multiples of 16) of A (rows, K), as the left operand of a product; past K
     *                  where last reaches K. transposed: A is given as (K, rows), and all of it is taken.
     *   split_columns: P (K, columns) row-major, as its right operand. transposed: P is given as (columns, K).
     *   weight_gradients: dW (4H, inputs) += dgates' x, dR (4H, H) += dgates' h and db (4H,) += sums of dgates over N
     *                  rows, the rows of units first..last; dgates (N, 4*Hp), x and h from split_columns. inputs = 0: no
     *                  dW; db may be NULL. scratch: tiles of (64, N). */
    CYLSTM_REAL (*largest)(ptrdiff_t rows, ptrdiff_t columns, const CYLSTM_REAL *A, ptrdiff_t lda);
    void (*split_rows)(int transposed, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const CYLSTM_REAL *A,
                       ptrdiff_t lda, void *tiles);
    void (*split_columns)(int transposed, ptrdiff_t K, ptrdiff_t columns, const CYLSTM_REAL *P, ptrdiff_t ldp, void *tiles);
    void (*weight_gradients)(ptrdiff_t N, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, const CYLSTM_REAL *dgates,
                             ptrdiff_t inputs, const void *x, CYLSTM_REAL *dW, const void *h, CYLSTM_REAL *dR,
                             CYLSTM_REAL *db, void *scratch);

    /* Elementwise on n reals; y may be x. Error against the exact value stays below, in units of the last place and for
     * either type: exp 1.1 ULP, sigmoid 2.5, tanh 2.5 (tests/test_kernels.py holds them to it). Beyond [-87, 88] or
     * [-708, 709] exp gives its value at the end of that range, so it neither overflows nor reaches 0, and so does
     * sigmoid beyond +-87 or +-708. NaN gives NaN. */
    void (*exp)(ptrdiff_t n, const CYLSTM_REAL *x, CYLSTM_REAL *y);
    void (*sigmoid)(ptrdiff_t n, const CYLSTM_REAL *x, CYLSTM_REAL *y);
    void (*tanh)(ptrdiff_t n, const CYLSTM_REAL *x, CYLSTM_REAL *y);

    /* Losses over `rows` rows of `columns` outputs. Each returns the sum over rows and adds to *hits; where
     * `gradient` is not 0 the outputs are overwritten by scale * d sum / d outputs.
     *   softmax_cross_entropy: -log softmax(logits)[target], by the log-sum-exp; a hit: the target is the argmax.
     *   squared_error:         mean over columns of (output - target)^2; no hits.
     *   binary_cross_entropy:  mean over columns of log(1 + exp(z)) - target z, stable; a hit: (z > 0) == (target > 1/2). */
    double (*softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t columns, CYLSTM_REAL *logits, const int64_t *targets,
                                    CYLSTM_REAL scale, int gradient, int64_t *hits);
    double (*squared_error)(ptrdiff_t rows, ptrdiff_t columns, CYLSTM_REAL *outputs, const CYLSTM_REAL *targets,
                            CYLSTM_REAL scale, int gradient, int64_t *hits);
    double (*binary_cross_entropy)(ptrdiff_t rows, ptrdiff_t columns, CYLSTM_REAL *logits, const CYLSTM_REAL *targets,
                                   CYLSTM_REAL scale, int gradient, int64_t *hits);

    /* Optimisers over flat buffers of n reals, PyTorch's formulas; the gradient used is gscale * g.
     *   sgd:  g += decay p;  m = momentum m + g;  p -= lr (nesterov ? g + momentum m : m).   m is NULL where momentum is 0.
     *   adam: Kingma & Ba 2015, decoupled: Loshchilov & Hutter 2019. step_size = lr / (1 - beta1^t),
     *         correction = 1 / sqrt(1 - beta2^t);  p -= step_size m / (correction sqrt(v) + eps). */
    double (*sum_squares)(ptrdiff_t n, const CYLSTM_REAL *x);
    void (*sgd)(ptrdiff_t n, CYLSTM_REAL *p, const CYLSTM_REAL *g, CYLSTM_REAL *m, double lr, double momentum,
                int nesterov, double decay, double gscale);
    void (*adam)(ptrdiff_t n, CYLSTM_REAL *p, const CYLSTM_REAL *g, CYLSTM_REAL *m, CYLSTM_REAL *v, double step_size,
                 double correction, double beta1, double beta2, double eps, double lr, double decay, int decoupled,
                 double gscale);
} CYLSTM_NAME(cylstm_table);
