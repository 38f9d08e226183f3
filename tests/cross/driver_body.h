/* What driver.c computes, for one real type; included twice. The forms of the operands: cext/kernels.h. */

/* One layer's call, shared by the members of a team. G = 4*Hp columns of gates, N = T*B rows. */
typedef struct {
    const TABLE *k;
    ptrdiff_t T, B, I, H, Hp, Ip;
    int kept; /* the gates, which backward looks at */
    const REAL *x, *W, *R, *b;
    const int64_t *ids; /* instead of x, or NULL */
    REAL *W_panels, *R_panels, *b_panels, *W_blocks, *R_blocks;
    REAL *gates, *h, *c, *dh, *dc, *dx, *sums, *dW, *dR, *db;
} NAME(layer);

static void NAME(put)(const char *isa, int members, const char *what, int64_t n, const REAL *values)
{
    double *wide = zeros((ptrdiff_t)n, sizeof(double));
    for (int64_t j = 0; j < n; j++) wide[j] = (double)values[j];
    put(isa, TYPE, members, what, n, wide);
    free(wide);
}

static REAL *NAME(reals)(int which)
{
    REAL *values = zeros((ptrdiff_t)lengths[which], sizeof(REAL));
    for (int64_t n = 0; n < lengths[which]; n++) values[n] = (REAL)inputs[which][n];
    return values;
}

/* rows (n, width) <-> padded rows (n, padded) */
static void NAME(pad)(ptrdiff_t n, ptrdiff_t width, ptrdiff_t padded, const REAL *rows, REAL *out)
{
    for (ptrdiff_t r = 0; r < n; r++) memcpy(out + r * padded, rows + r * width, (size_t)width * sizeof(REAL));
}

static void NAME(unpad)(ptrdiff_t n, ptrdiff_t width, ptrdiff_t padded, const REAL *rows, REAL *out)
{
    for (ptrdiff_t r = 0; r < n; r++) memcpy(out + r * width, rows + r * padded, (size_t)width * sizeof(REAL));
}

static ptrdiff_t NAME(share)(ptrdiff_t padded, ptrdiff_t lanes, int me, int count)
{
    return padded / lanes * me / count * lanes;
}

static void NAME(forward)(void *context, int me, int count, cylstm_team *team)
{
    const NAME(layer) *s = context;
    const TABLE *k = s->k;
    const ptrdiff_t B = s->B, H = s->H, Hp = s->Hp, G = 4 * Hp, lanes = k->lanes, step = B * Hp;
    const ptrdiff_t first = NAME(share)(Hp, lanes, me, count), last = NAME(share)(Hp, lanes, me + 1, count);
    for (ptrdiff_t panel = first / lanes; panel < last / lanes; panel++) {
        k->pack_gates(CYLSTM_NARROW, s->W, H, s->I, panel, s->W_panels + panel * s->I * 4 * lanes);
        k->pack_gates(CYLSTM_NARROW, s->R, H, H, panel, s->R_panels + panel * H * 4 * lanes);
        k->pack_gates(CYLSTM_NARROW, s->b, H, 1, panel, s->b_panels + panel * 4 * lanes);
    }
    if (s->ids)
        k->gather(CYLSTM_NARROW, s->T * B, H, s->I, first, last, s->ids, s->W_panels, s->b_panels, s->gates);
    else
        k->product(CYLSTM_NARROW, s->T * B, s->I, cylstm_columns(CYLSTM_NARROW, H, lanes), 4 * first, 4 * last, s->x, s->I,
                   s->W_panels, s->b_panels, s->gates, G);
    for (ptrdiff_t t = 0; t < s->T; t++) {
        const cylstm_step now = {.B = B, .H = H, .Y = H, .first = first, .last = last, .form = CYLSTM_NARROW, .kept = s->kept,
            .R = s->R_panels, .h_prev = s->h + t * step, .c_prev = s->c + t * step, .gates = s->gates + t * B * G,
            .c = s->c + (t + 1) * step, .h = s->h + (t + 1) * step};
        k->cell_forward(&now);
        cylstm_meet(team);
    }
}

/* dW = dgates' x, dR = dgates' h and db of this member's units; row n of x and h is what row n of gates came from. */
static void NAME(weight_gradients)(const NAME(layer) *s, ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t N = s->T * s->B, G = 4 * s->Hp, H = s->H, I = s->I;
    const REAL *h = s->h;
    REAL *dR_columns = s->sums + G * I, *db_rows = dR_columns + H * G;
    if (s->ids) {
        s->k->scatter_add(N, 4 * (last - first), s->ids, s->gates + 4 * first, G, s->sums + 4 * first, G);
        s->k->unpack_columns(s->sums, H, I, first, last, s->dW);
    } else {
        for (ptrdiff_t n = 0; n < N; n++)
            for (ptrdiff_t q = 4 * first; q < 4 * last; q++)
                for (ptrdiff_t i = 0; i < I; i++) s->sums[q * I + i] += s->gates[n * G + q] * s->x[n * I + i];
        s->k->unpack_rows(s->sums, H, I, first, last, s->dW);
    }
    for (ptrdiff_t n = 0; n < N; n++)
        for (ptrdiff_t j = 0; j < H; j++)
            for (ptrdiff_t q = 4 * first; q < 4 * last; q++)
                dR_columns[j * G + q] += s->gates[n * G + q] * h[n * s->Hp + j];
    s->k->unpack_columns(dR_columns, H, H, first, last, s->dR);
    s->k->column_sums(N, 4 * (last - first), s->gates + 4 * first, G, db_rows + 4 * first);
    s->k->unpack_rows(db_rows, H, 1, first, last, s->db);
}

static void NAME(backward)(void *context, int me, int count, cylstm_team *team)
{
    const NAME(layer) *s = context;
    const TABLE *k = s->k;
    const ptrdiff_t B = s->B, H = s->H, Hp = s->Hp, Ip = s->Ip, G = 4 * Hp, lanes = k->lanes, width = 4 * lanes;
    const ptrdiff_t first = NAME(share)(Hp, lanes, me, count), last = NAME(share)(Hp, lanes, me + 1, count), step = B * Hp;
    const ptrdiff_t first_x = NAME(share)(Ip, lanes, me, count), last_x = NAME(share)(Ip, lanes, me + 1, count);
    for (ptrdiff_t block = me; block * width < Hp; block += count)
        k->pack_columns(s->R, H, H, block, s->R_blocks + block * width * G);
    for (ptrdiff_t block = me; block * width < Ip; block += count)
        k->pack_columns(s->W, H, s->I, block, s->W_blocks + block * width * G);
    for (ptrdiff_t t = s->T - 1; t >= 0; t--) {
        REAL *gates = s->gates + t * B * G;
        const cylstm_step now = {.B = B, .H = H, .Y = H, .first = first, .last = last, .c_prev = s->c + t * step, .gates = gates,
            .c = s->c + (t + 1) * step, .dh = s->dh + (t + 1) * step, .dc = s->dc};
        k->cell_backward(&now);
        cylstm_meet(team);
        k->product(0, B, G, Hp, first, last, gates, G, s->R_blocks, NULL, s->dh + t * step, Hp);
    }
    k->product(0, s->T * B, G, Ip, first_x, last_x, s->gates, G, s->W_blocks, NULL, s->dx, Ip);
    NAME(weight_gradients)(s, first, last);
}

static void NAME(optimise)(const char *isa, const TABLE *k, int members, ptrdiff_t n, const REAL *p, const REAL *g)
{
    REAL *moving = zeros(n, sizeof(REAL)), *m = zeros(n, sizeof(REAL)), *v = zeros(n, sizeof(REAL));
    double powers[2] = {1, 1};
    const double squares = k->sum_squares(n, g);
    put(isa, TYPE, members, "squares", 1, &squares);
    memcpy(moving, p, (size_t)n * sizeof(REAL));
    for (int t = 1; t <= 4; t++) { /* Adam, then AdamW; lr 0.01, decay 0.1 */
        powers[0] *= 0.9, powers[1] *= 0.999;
        k->adam(n, moving, g, m, v, 0.01 / (1 - powers[0]), 1 / sqrt(1 - powers[1]), 0.9, 0.999, 1e-8, 0.01, 0.1, t > 2,
                0.5);
    }
    NAME(put)(isa, members, "adam", n, moving);
    memcpy(moving, p, (size_t)n * sizeof(REAL)), memset(m, 0, (size_t)n * sizeof(REAL));
    for (int t = 0; t < 4; t++) k->sgd(n, moving, g, t ? m : NULL, 0.01, t ? 0.9 : 0, t > 2, 0.1, 0.5);
    NAME(put)(isa, members, "sgd", n, moving);
    free(moving), free(m), free(v);
}

static void NAME(map)(const char *isa, const TABLE *k, int members)
{
    const ptrdiff_t n = (ptrdiff_t)lengths[NUMBERS];
    REAL *x = NAME(reals)(NUMBERS), *y = zeros(n, sizeof(REAL));
    k->map_exp(n, x, y), NAME(put)(isa, members, "exp", n, y);
    k->map_sigmoid(n, x, y), NAME(put)(isa, members, "sigmoid", n, y);
    k->map_tanh(n, x, x), NAME(put)(isa, members, "tanh", n, x);
    free(x), free(y);
}

/* Three losses of y (N, H), each with its gradient, one of them with weights; that of the last goes on, in dh (N, Hp). */
static void NAME(losses)(const char *isa, const TABLE *k, int members, const NAME(layer) *s)
{
    const ptrdiff_t N = s->T * s->B, n = N * s->H;
    int64_t *classes = integers(TARGETS);
    REAL *values = NAME(reals)(VALUES), *weights = NAME(reals)(WEIGHTS), *y = zeros(n, sizeof(REAL));
    const REAL scale = (REAL)1 / (REAL)N;
    double found[9] = {0}, *weight = found + 3, *hits = found + 6;
    NAME(unpad)(N, s->H, s->Hp, s->h + s->B * s->Hp, y), NAME(put)(isa, members, "y", n, y);
    found[0] = k->softmax_cross_entropy(N, s->H, y, classes, NULL, NULL, scale, 1, &weight[0], &hits[0]);
    NAME(put)(isa, members, "d softmax", n, y);
    NAME(unpad)(N, s->H, s->Hp, s->h + s->B * s->Hp, y);
    found[1] = k->binary_cross_entropy(N, s->H, y, values, weights, NULL, scale, 1, &weight[1], &hits[1]);
    NAME(put)(isa, members, "d binary", n, y);
    NAME(unpad)(N, s->H, s->Hp, s->h + s->B * s->Hp, y);
    found[2] = k->squared_error(N, s->H, y, values, NULL, NULL, scale, 1, &weight[2], &hits[2]);
    NAME(put)(isa, members, "d squared", n, y);
    NAME(pad)(N, s->H, s->Hp, y, s->dh + s->B * s->Hp);
    put(isa, TYPE, members, "losses", 9, found);
    free(classes), free(values), free(weights), free(y);
}

static void NAME(run)(const char *isa, const TABLE *k, int members)
{
    const ptrdiff_t T = (ptrdiff_t)inputs[SIZES][0], B = (ptrdiff_t)inputs[SIZES][1], I = (ptrdiff_t)inputs[SIZES][2];
    const ptrdiff_t H = (ptrdiff_t)inputs[SIZES][3], N = T * B, lanes = k->lanes;
    const ptrdiff_t Hp = (H + lanes - 1) / lanes * lanes, Ip = (I + lanes - 1) / lanes * lanes, G = 4 * Hp;
    REAL *h0 = NAME(reals)(H0), *c0 = NAME(reals)(C0), *plain = zeros((N + B) * (H + I), sizeof(REAL));
    const ptrdiff_t packed = G * (I + H + 1 + Ip + Hp), run = N * (G + Ip) + (3 * (N + B) + B) * Hp;
    REAL *arrays = zeros(packed + run + (G + 4 * H) * (I + H + 1), sizeof(REAL)), *next = arrays;
    NAME(layer) s = {.k = k, .T = T, .B = B, .I = I, .H = H, .Hp = Hp, .Ip = Ip};
    s.x = NAME(reals)(X), s.W = NAME(reals)(W_), s.R = NAME(reals)(R_), s.b = NAME(reals)(B_);
    s.ids = lengths[IDS] ? integers(IDS) : NULL;
#define TAKE(array, size) s.array = next, next += (size)
    TAKE(W_panels, G * I), TAKE(R_panels, G * H), TAKE(b_panels, G), TAKE(W_blocks, G * Ip), TAKE(R_blocks, G * Hp);
    TAKE(gates, N * G), TAKE(h, (N + B) * Hp), TAKE(c, (N + B) * Hp), TAKE(dh, (N + B) * Hp), TAKE(dc, B * Hp);
    TAKE(dx, N * Ip), TAKE(sums, G * (I + H + 1)), TAKE(dW, 4 * H * I), TAKE(dR, 4 * H * H), TAKE(db, 4 * H);
#undef TAKE
    NAME(pad)(B, H, Hp, h0, s.h), NAME(pad)(B, H, Hp, c0, s.c);
    REAL *unkept = zeros(N * H, sizeof(REAL));
    cylstm_run(members, NAME(forward), &s);
    NAME(unpad)(N, H, Hp, s.h + B * Hp, unkept);
    s.kept = 1;
    cylstm_run(members, NAME(forward), &s);
    NAME(unpad)(N, H, Hp, s.h + B * Hp, plain);
    if (memcmp(unkept, plain, (size_t)(N * H) * sizeof(REAL))) fail("h has other bits where the gates are kept");
    NAME(unpad)(B, H, Hp, s.c + N * Hp, plain), NAME(put)(isa, members, "c", B * H, plain);
    NAME(losses)(isa, k, members, &s);
    cylstm_run(members, NAME(backward), &s);
    NAME(unpad)(N, I, Ip, s.dx, plain), NAME(put)(isa, members, "dx", N * I, plain);
    NAME(unpad)(B, H, Hp, s.dh, plain), NAME(put)(isa, members, "dh0", B * H, plain);
    NAME(unpad)(B, H, Hp, s.dc, plain), NAME(put)(isa, members, "dc0", B * H, plain);
    NAME(put)(isa, members, "dW", 4 * H * I, s.dW), NAME(put)(isa, members, "dR", 4 * H * H, s.dR);
    NAME(put)(isa, members, "db", 4 * H, s.db);
    NAME(optimise)(isa, k, members, 4 * H * I, s.W, s.dW);
    NAME(map)(isa, k, members);
    free((void *)s.x), free((void *)s.W), free((void *)s.R), free((void *)s.b), free((void *)s.ids);
    free(h0), free(c0), free(plain), free(arrays), free(unkept);
}

#undef NAME
#undef REAL
#undef TYPE
#undef TABLE
