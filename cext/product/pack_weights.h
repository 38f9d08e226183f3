/* Between PyTorch's (4H, K) weights and the panels of kernels.h. */

/* The units from j0 on, `used` of them and padding up to w, a constant. */
INLINE void NAME(pack_panel)(const ptrdiff_t w, const REAL *W, ptrdiff_t H, ptrdiff_t K, ptrdiff_t j0, ptrdiff_t used, REAL *out)
{
    for (ptrdiff_t at = 0; at < 4 * w; at += LANES, out += LANES) {
        const REAL *rows = W + (at / w * H + j0) * K; /* a lane is of the unit lane % w, of the gate at / w + lane / w */
        if (K < LANES) {
            for (ptrdiff_t k = 0; k < K; k++)
                for (ptrdiff_t lane = 0; lane < LANES; lane++)
                    out[k * 4 * w + lane] = lane % w < used ? rows[(lane / w * H + lane % w) * K + k] : 0;
            continue;
        }
        for (ptrdiff_t from = 0; from < K; from += LANES) {
            const ptrdiff_t k = from + LANES <= K ? from : K - LANES; /* the last block laps over the one before */
            VECTOR v[VECTOR_BYTES / sizeof(REAL)];
            for (ptrdiff_t lane = 0; lane < LANES; lane++)
                v[lane] = lane % w < used ? NAME(load)(rows + (lane / w * H + lane % w) * K + k) : NAME(splat)(0);
            NAME(transpose)(v);
            for (ptrdiff_t i = 0; i < LANES; i++) NAME(store)(out + (k + i) * 4 * w, v[i]);
        }
    }
}

static void NAME(pack_gates)(int form, const REAL *W, ptrdiff_t H, ptrdiff_t K, ptrdiff_t panel, REAL *out)
{
    const ptrdiff_t j0 = panel * LANES, used = H - j0 < LANES ? H - j0 : LANES, wide = cylstm_columns(form, H, LANES) - 4 * j0;
    if (wide >= 4 * LANES)
        NAME(pack_panel)(LANES, W, H, K, j0, used, out);
    else if (wide == 2 * LANES)
        NAME(pack_panel)(LANES / 2, W, H, K, j0, used, out);
    else if (LANES >= 4)
        NAME(pack_panel)(LANES < 4 ? 1 : LANES / 4, W, H, K, j0, used, out);
}

/* Where row q of the panel order lies in the (4H, .) matrix, or -1 in the padding. */
INLINE ptrdiff_t NAME(gate_row)(ptrdiff_t q, ptrdiff_t H)
{
    const ptrdiff_t panel = q / (4 * LANES), gate = q / LANES % 4, unit = panel * LANES + q % LANES;
    return unit < H ? gate * H + unit : -1;
}

static void NAME(pack_columns)(const REAL *W, ptrdiff_t H, ptrdiff_t K, ptrdiff_t block, REAL *out)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES, Kp = (K + LANES - 1) / LANES * LANES, k0 = 4 * LANES * block;
    const ptrdiff_t width = Kp - k0 < 4 * LANES ? Kp - k0 : 4 * LANES, end = 4 * H * K;
    INTEGERS inside[4]; /* the lanes that are columns of W */
    for (ptrdiff_t j = 0; j < width; j++) inside[j / LANES][j % LANES] = -(k0 + j < K);
    for (ptrdiff_t q = 0; q < 4 * Hp; q++, out += width) {
        const ptrdiff_t row = NAME(gate_row)(q, H), from = row * K + k0;
        for (ptrdiff_t j = 0; j < width; j += LANES) {
            VECTOR v = NAME(splat)(0);
            if (row >= 0) /* what is read behind a row belongs to the next one, if there is as much */
                v = from + j + LANES <= end ? NAME(load)(W + from + j) : NAME(load_part)(W + from + j, end - from - j, 0);
            NAME(store)(out + j, (VECTOR)((INTEGERS)v & inside[j / LANES]));
        }
    }
}

static void NAME(unpack_rows)(const REAL *rows, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, REAL *W)
{
    for (ptrdiff_t q = 4 * first; q < 4 * last; q++) {
        const ptrdiff_t row = NAME(gate_row)(q, H);
        if (row >= 0) memcpy(W + row * K, rows + q * K, (size_t)K * sizeof(REAL));
    }
}

static void NAME(unpack_columns)(const REAL *columns, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, REAL *W)
{
    const ptrdiff_t Hp = (H + LANES - 1) / LANES * LANES;
    for (ptrdiff_t q = 4 * first; q < 4 * last; q++) {
        const ptrdiff_t row = NAME(gate_row)(q, H);
        if (row < 0) continue;
        for (ptrdiff_t k = 0; k < K; k++) W[row * K + k] = columns[k * 4 * Hp + q];
    }
}
