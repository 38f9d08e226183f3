/* The contract between cylstm's Cython modules and its C kernels.
 *
 * Nothing here allocates, fails, locks, or keeps state: every buffer, scratch included, is the caller's, every size
 * has been checked before. Each kernel exists once as source, is compiled per instruction set and for float and
 * double, and is reached through the tables below; kernels.def says what each one does.
 *
 * Letters: B rows of a batch, H hidden units, K inner dimension of a product, V classes of a softmax,
 * N rows of a packed sequence, Y numbers of h (H, or P behind a projection). `lanes` is the number of reals in one
 * vector; Hp is H rounded up to a multiple of it, and Yp so of Y.
 *
 * PANELS. The four gates of one vector of hidden units lie together, so that a row's new cell state needs nothing
 * from outside one panel (here lanes = 4, H = 6, so Hp = 8 and the last two lanes of panel 1 are zero padding):
 *
 *              panel 0                          panel 1
 *   |i0..i3 f0..f3 g0..g3 o0..o3|i4 i5 - - f4 f5 - - g4 g5 - - o4 o5 - -|        one row of `gates`: 4*Hp reals
 *
 *   weights for x.W' and h.R':   [panel][k][gate][lane]   = W[gate*H + panel*lanes + lane][k]      ("gate panels")
 *   weights for dgates.W:        [block][q][lane]         = W[row(q)][block*width + lane]          ("column blocks")
 *
 * NARROW gate panels: where the last panel has no more units than half a vector, it has w lanes for each gate, a half or a quarter of
 * a vector, and so 2 vectors or 1 for each k instead of 4 (here, with H = 5, w = 1):
 *
 *   weights, last panel:  [k][gate][w]            bias, and what products make:  |i0..i3 f0..f3 g0..g3 o0..o3|i4 f4 g4 o4|
 *
 * Rows of `gates` are 4*Hp apart nevertheless, and the gates' values, where they are kept, are in whole panels. Numbers have the same
 * bits as in whole panels.
 *
 * where q runs over the 4*Hp columns of `gates` and a block is 4 vectors of columns wide, the last one as many
 * vectors as are left. Padding is zero in weights and biases, therefore h, c and every gradient are zero there,
 * unless the row has numbers that are not finite: 0 * inf is NaN. No result reads those of h and c, and cell_backward
 * makes the gradients' 0 again.
 *
 * TILES. Where the processor has Intel's AMX units, products of enough rows in float use them: operands are cut into
 * tiles of bfloat16, three to a float, beforehand (product/tiles.h). A matrix (rows, K) or (K, columns) of tiles takes
 * cylstm_left_bytes() or cylstm_right_bytes(). Its largest number must be 0 or lie between CYLSTM_TILES_LOW and CYLSTM_TILES_HIGH.
 *
 * `gates` holds pre-activations, then the gates' values, then d loss / d pre-activations, or with layer norms d loss / d (x W'):
 * one buffer, in that order.
 *
 * Every element of a product is summed in the same order, k = 0, 1, 2, ..., whatever the number of rows: one row
 * alone and the same row within a batch give the same bits; and so does a product cut into pieces by its columns.
 * Tiles have an order of their own, and so have weights that are not packed (CYLSTM_UNPACKED).
 *
 * ROUNDING. Every operation rounds to its type, once, as it is written: compilers may not join a multiply and an add
 * (-ffp-contract=off), which each would do in other loops than the next. Where the two are to be one, in products, exp,
 * cells and optimisers, the source says so (add_product and its like in vector.h): rounded once with AVX2, AVX-512, AMX
 * and NEON, twice with x86-64's baseline and on other processors. So the bits depend on the instruction set alone, not
 * on the compiler or on where in an array a number lies.
 */
#ifndef CYLSTM_KERNELS_H
#define CYLSTM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Forms of the right operand of a product, the weights: panels (or column blocks), tiles, (4H, K) row-major as their owner
 * has them, any matrix as it lies, which BLAS multiplies and no kernel here; and panels of small numbers, below. The form says
 * what the left operand has to be: rows of reals, or packed as well.
 *
 * SMALL NUMBERS, for float alone. Products are of whole panels, wide = 4*lanes columns each, in whose place there is:
 *   FLOAT16:   [k][wide] float16, all finite. The left operand is rows of reals.
 *   BFLOAT16:  [k / 2][wide][2], zeros up to a multiple of 32 k. A row of the left operand is bfloat16 likewise. Both operands are
 *              rounded, to even; products are exact, sums are of float.
 *   INT8:      int32 [wide], float [wide], then [k / 4][wide][4] signed bytes q, zeros up to a multiple of 64 k. A row of the left
 *              operand is bytes q + 128, likewise filled up, and a line whose first float is the row's scale. What is added to C
 *              is (float)(sum of q q, exact) * (scale of the column * scale of the row). The floats of a panel are these scales
 *              of columns, the int32 -128 times the sum of each column's bytes. K is at most CYLSTM_INT8_K.
 *   ROUNDED:   panels or column blocks of floats that are bfloat16, by rounding to even; the left operand is rows of reals.
 *   ROUNDED_TILES: TILES with the first of the three parts alone, that is with both operands rounded so; whatever their size.
 * The last two are for training, where products have other shapes: columns are not in whole panels.
 * A form ..._DOT takes the units of AVX512-BF16, AVX512-VNNI or AVX-VNNI, one ..._TILES those of AMX, for the same operands: in INT8
 * the bits are the same, in BFLOAT16 the order of a sum is the unit's own. */
enum {
    CYLSTM_PANELS, CYLSTM_TILES, CYLSTM_UNPACKED, CYLSTM_BLAS, CYLSTM_FLOAT16, CYLSTM_BFLOAT16, CYLSTM_BFLOAT16_DOT,
    CYLSTM_BFLOAT16_TILES, CYLSTM_INT8, CYLSTM_INT8_DOT, CYLSTM_INT8_TILES, CYLSTM_ROUNDED, CYLSTM_ROUNDED_TILES, CYLSTM_NARROW,
    CYLSTM_FORMS
};
enum { CYLSTM_INT8_K = 65536 }; /* 255 * 127 * K < 2^31 */

/* Of packed operands: blocks of so many rows (of the right one: columns) by so many k take so many bytes, and each row `tail` more;
 * 0 where an operand is taken as it lies. */
enum { CYLSTM_A_REAL = -1 }; /* as many bytes as the table's type has */
typedef struct {
    ptrdiff_t across, k, bytes, tail;
} cylstm_block;

#define CYLSTM_AS_IT_LIES {1, 1, 0, 0}
static const struct {
    cylstm_block left, right;
    int stored;  /* the form that has the same operands, by which weights are packed */
    int cut;     /* operands are packed, by pack_left() and pack_right(); weights from what pack_gates() or
                    pack_columns() have made */
    int bounded; /* only for numbers between CYLSTM_TILES_LOW and CYLSTM_TILES_HIGH, and 0 */
} cylstm_forms[CYLSTM_FORMS] = {
    [CYLSTM_PANELS] = {CYLSTM_AS_IT_LIES, {1, 1, CYLSTM_A_REAL, 0}, CYLSTM_PANELS, 0, 0},
    [CYLSTM_TILES] = {{16, 32, 3072, 0}, {16, 32, 3072, 0}, CYLSTM_TILES, 1, 1}, /* three parts in bfloat16, 1 kB each */
    [CYLSTM_UNPACKED] = {CYLSTM_AS_IT_LIES, CYLSTM_AS_IT_LIES, CYLSTM_UNPACKED, 0, 0},
    [CYLSTM_BLAS] = {CYLSTM_AS_IT_LIES, CYLSTM_AS_IT_LIES, CYLSTM_BLAS, 0, 0},
    [CYLSTM_FLOAT16] = {CYLSTM_AS_IT_LIES, {1, 1, 2, 0}, CYLSTM_FLOAT16, 1, 0},
    [CYLSTM_BFLOAT16] = {{1, 32, 64, 0}, {1, 32, 64, 0}, CYLSTM_BFLOAT16, 1, 0},
    [CYLSTM_BFLOAT16_DOT] = {{1, 32, 64, 0}, {1, 32, 64, 0}, CYLSTM_BFLOAT16, 1, 0},
    [CYLSTM_BFLOAT16_TILES] = {{1, 32, 64, 0}, {1, 32, 64, 0}, CYLSTM_BFLOAT16, 1, 0},
    [CYLSTM_INT8] = {{1, 64, 64, 64}, {1, 64, 64, 8}, CYLSTM_INT8, 1, 0},
    [CYLSTM_INT8_DOT] = {{1, 64, 64, 64}, {1, 64, 64, 8}, CYLSTM_INT8, 1, 0},
    [CYLSTM_INT8_TILES] = {{1, 64, 64, 64}, {1, 64, 64, 8}, CYLSTM_INT8, 1, 0},
    [CYLSTM_ROUNDED] = {CYLSTM_AS_IT_LIES, {1, 1, 4, 0}, CYLSTM_ROUNDED, 1, 0},
    [CYLSTM_NARROW] = {CYLSTM_AS_IT_LIES, {1, 1, CYLSTM_A_REAL, 0}, CYLSTM_NARROW, 0, 0},
    [CYLSTM_ROUNDED_TILES] = {{16, 32, 1024, 0}, {16, 32, 1024, 0}, CYLSTM_ROUNDED_TILES, 1, 0},
};
#undef CYLSTM_AS_IT_LIES

/* Bytes of a left operand (rows, K); 0 where it is taken as it lies. Rows that fill whole blocks may be put behind each other. */
static inline ptrdiff_t cylstm_left_bytes(int form, ptrdiff_t rows, ptrdiff_t K)
{
    const cylstm_block b = cylstm_forms[form].left;
    return (rows + b.across - 1) / b.across * ((K + b.k - 1) / b.k * b.bytes + b.tail);
}

/* Bytes of a right operand (K, columns) for reals of so many bytes, likewise. */
static inline ptrdiff_t cylstm_right_bytes(int form, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t real)
{
    const cylstm_block b = cylstm_forms[form].right;
    return (columns + b.across - 1) / b.across * ((K + b.k - 1) / b.k * (b.bytes == CYLSTM_A_REAL ? real : b.bytes) + b.tail);
}

/* Columns of gate panels of H units. */
static inline ptrdiff_t cylstm_columns(int form, ptrdiff_t H, ptrdiff_t lanes)
{
    const ptrdiff_t left = H % lanes, w = 4 * left <= lanes ? lanes / 4 : 2 * left <= lanes ? lanes / 2 : lanes;
    return 4 * (H - left + (left == 0 ? 0 : form == CYLSTM_NARROW ? w : lanes));
}

/* Bytes of scratch that weight_gradients takes in PANELS, of any instruction set and type: sums of a group of columns, and a copy of
 * one panel of so many rows. */
static inline ptrdiff_t cylstm_gradients_bytes(ptrdiff_t N)
{
    return 3 * 16 * 64 * 4 + (N < 256 ? N : 256) * 128;
}

static inline int cylstm_stored_as(int form)
{
    return cylstm_forms[form].stored;
}

/* Whether a left operand is packed, not taken as it lies. */
static inline int cylstm_packs_left(int form)
{
    return cylstm_forms[form].left.bytes != 0;
}

static inline int cylstm_is_cut(int form)
{
    return cylstm_forms[form].cut;
}

static inline int cylstm_is_bounded(int form)
{
    return cylstm_forms[form].bounded;
}

/* Activations: what f is of z, its formula by kind.
 *   relu         z > 0 ? z : 0                       leaky_relu   z > 0 ? z : alpha z
 *   tanh         alpha tanh(beta z)                  sigmoid
 *   elu          beta (z > 0 ? z : alpha (exp(z) - 1))            softplus  log(1 + exp(z))
 *   softsign     z / (1 + |z|)                       silu         z sigmoid(z)
 *   gelu_tanh    z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2
 *   bounded      alpha z + beta, within low..high    exponential  exp(z)
 *   thresholded_relu   z > alpha ? z : 0 */
enum {
    CYLSTM_RELU, CYLSTM_LEAKY_RELU, CYLSTM_TANH, CYLSTM_SIGMOID, CYLSTM_ELU, CYLSTM_SOFTPLUS, CYLSTM_SOFTSIGN, CYLSTM_GELU_TANH,
    CYLSTM_SILU, CYLSTM_BOUNDED, CYLSTM_THRESHOLDED_RELU, CYLSTM_EXPONENTIAL
};
typedef struct {
    int kind;
    double alpha, beta, low, high; /* 1, 1, -infinity, infinity where the formula says nothing else */
} cylstm_activation;

/* Variants of the cell, bits of `flags`; 0 is the plain one. */
enum {
    CYLSTM_PEEPHOLES = 1, /* i and f see c_prev, o sees c (Gers, Schraudolph & Schmidhuber 2002) */
    CYLSTM_COUPLED = 2,   /* f = 1 - i, whatever f's own weights are (Greff et al. 2017) */
    CYLSTM_CLIPPED = 4,   /* c within -clip..clip, before anybody sees it */
    CYLSTM_ACTIVATED = 8, /* other functions than sigmoid for the gates and tanh for g and c: `activations` */
    CYLSTM_SQUEEZED = 16, /* what the gates are of within -gate_clip..gate_clip; with CYLSTM_ACTIVATED */
    CYLSTM_NORMED = 32,   /* layer norms, by norm_forward and norm_backward; not with CYLSTM_PEEPHOLES */
    CYLSTM_DROPPED = 64,  /* c = f c_prev + i (mask g): `update_mask` (Semeniuta, Severyn & Barth 2016) */
};

/* One step of one direction of one layer, for cell_forward and cell_backward. Arrays hold numbers of the table's type, and
 * their rows are Hp, of gates 4*Hp, apart. */
typedef struct {
    ptrdiff_t B, H;        /* rows that are alive, hidden units */
    ptrdiff_t Y;           /* numbers of h_prev: H, or fewer behind a projection */
    ptrdiff_t first, last; /* the units to be computed, multiples of lanes */
    int flags;
    int form;              /* of R; NARROW: gates come in likewise */
    int kept;              /* whether anybody, such as cell_backward, looks at the gates' values; forward only */
    const void *R;         /* weight_hh, as `form` says; forward only */
    const void *peepholes; /* (3, Hp): of i, f, o; zeros in the padding */
    double clip, gate_clip;
    const cylstm_activation *activations; /* of i, f and o, of g, of c; each rises all the way */
    const void *update_mask; /* (B, Hp), 0 in the padding */
    const void *h_prev;    /* (B, Yp), tiles where R is; forward only */
    const void *c_prev;    /* (B, Hp) */
    void *gates;           /* (B, 4*Hp) */
    void *c;               /* (B, Hp) */
    void *h;               /* (B, Hp), before a projection; forward only */
    const void *dh;        /* (B, Hp), of that h; backward only, as dc is */
    void *dc;              /* (B, Hp) */
} cylstm_step;

/* Layer norms of a step, its rows in memory as the step's are: n = (z - mean(z)) / deviation(z) of rows z = x W' and z = h R', and
 * of c. Gains and shifts are 0 in the padding. */
typedef struct {
    int carried;        /* whether the next step gets the normalised c, gain n + shift, or c itself */
    double eps;         /* deviation = sqrt(variance + eps) */
    const void *bias;   /* (4*Hp), beside x W' */
    const void *x_gain; /* (4*Hp), of x W' */
    const void *h_gain; /* (4*Hp), of h R' */
    const void *c;      /* (2, Hp): gain and shift of c */
    const void *product; /* forward: (B, 4*Hp), h R' */
    void *x, *h;        /* (B, 4*Hp): n of x W' and of h R', the latter becoming d loss / d (h R') */
    void *moments;      /* (B, 4) */
    void *sums;         /* backward: (B, 14*Hp), `sums_row` reals apart: += d loss / d x_gain, h_gain, gain and shift of c, bias */
    ptrdiff_t sums_row;
    void *row;          /* backward: (B, 2*Hp) of scratch */
} cylstm_norm;

/* Of CTC: the reals of a row of L labels, or L + 1 blanks, whole vectors of any instruction set, and those between two rows; and
 * the reals of scratch that ctc_loss takes, which may be more than an integer holds. */
enum { CYLSTM_CTC_PAD = 16 };
static inline ptrdiff_t cylstm_ctc_width(ptrdiff_t L)
{
    return L / CYLSTM_CTC_PAD * CYLSTM_CTC_PAD + CYLSTM_CTC_PAD;
}

static inline double cylstm_ctc_scratch(ptrdiff_t T, ptrdiff_t L, int gradient)
{
    const double width = (double)cylstm_ctc_width(L), kept = gradient ? (double)T : 1, alphas = gradient ? (double)T + 1 : 2;
    return (alphas + 1) * 4 * (width + CYLSTM_CTC_PAD) + kept * (2 * width + CYLSTM_CTC_PAD) + 2 * width + 3 * CYLSTM_CTC_PAD;
}

#define KERNEL(result, name, arguments) result (*name) arguments;
#define TILE_KERNEL KERNEL
#define CYLSTM_REAL float
typedef struct {
    ptrdiff_t lanes;
    int cut_forms; /* bit `form`: its products can be had */
#include "kernels.def"
} cylstm_table_f32;
#undef CYLSTM_REAL
#define CYLSTM_REAL double
typedef struct {
    ptrdiff_t lanes;
    int cut_forms; /* bit `form`: its products can be had */
#include "kernels.def"
} cylstm_table_f64;
#undef CYLSTM_REAL
#undef KERNEL
#undef TILE_KERNEL

typedef struct {
    const char *isa; /* "baseline", "avx2", "avx512" or "amx" */
    cylstm_table_f32 f32;
    cylstm_table_f64 f64;
} cylstm_kernels;

#define CYLSTM_TILES_LOW 0x1p-40f
#define CYLSTM_TILES_HIGH 0x1p40f

/* The kernels that the processor and its operating system support, the widest first: number n of them, NULL past the last. */
const cylstm_kernels *cylstm_available(int n);

/* The kernels for a named instruction set, NULL where this build or this processor lacks it.
 * A NULL name asks for the widest one that the processor and its operating system support. */
const cylstm_kernels *cylstm_select(const char *isa);

/* The forms, bit `form` of each, whose products by kernels of this instruction set run on this processor; in float. */
int cylstm_forms_of(const cylstm_kernels *kernels);

#endif
