/* C = start + A . P over packed panels, used for x.W', h.R', dgates.R and dgates.W. */

/* k is cut so that the piece of a panel which all rows pass over (32 kB) stays in the first-level cache. */
#define K_BLOCK (32768 / (4 * VECTOR_BYTES))

/* What operands are made of: floats (or doubles), float16 beside floats, pairs of bfloat16, or four bytes. */
#define FLOATS 0
#define HALVES 1
#define PAIRS 2
#define BYTES 3

#define OF(name) NAME(name)
#define OPERANDS FLOATS
#define TARGET
#include "block.h"

#if REAL_BITS == 32
#include "small.h"
#include "small_operands.h"
#endif

/* Row k of a panel `wide` columns wide, of the vector at column j. */
INLINE VECTOR NAME(row_of)(int form, const void *panel, ptrdiff_t k, ptrdiff_t wide, ptrdiff_t j)
{
#if REAL_BITS == 32
    if (form != CYLSTM_PANELS && form != CYLSTM_NARROW) return NAME(small_row)(cylstm_stored_as(form), panel, k, wide, j);
#endif
    (void)form;
    return NAME(load)((const REAL *)panel + k * wide + j);
}

static void NAME(gather)(int form, ptrdiff_t N, ptrdiff_t H, ptrdiff_t K, ptrdiff_t first, ptrdiff_t last, const int64_t *ids,
                         const void *panels, const REAL *bias, REAL *gates)
{
    const ptrdiff_t panel = 4 * LANES, columns = cylstm_columns(form, H, LANES), end = 4 * last < columns ? 4 * last : columns;
    for (ptrdiff_t n = 0; n < N; n++, gates += (H + LANES - 1) / LANES * panel)
        for (ptrdiff_t start = 4 * first; start < end; start += panel) {
            const char *P = (const char *)panels + cylstm_right_bytes(form, K, start, sizeof(REAL));
            const ptrdiff_t wide = columns - start < panel ? columns - start : panel;
            for (ptrdiff_t j = 0; j < wide; j += LANES) {
                const VECTOR w = NAME(row_of)(form, P, (ptrdiff_t)ids[n], wide, j);
                NAME(store)(gates + start + j, NAME(load)(bias + start + j) + w);
            }
        }
}

static void NAME(scatter_add)(ptrdiff_t N, ptrdiff_t width, const int64_t *ids, const REAL *rows, ptrdiff_t ldr, REAL *out,
                              ptrdiff_t ldo)
{
    for (ptrdiff_t n = 0; n < N; n++, rows += ldr) {
        REAL *row = out + (ptrdiff_t)ids[n] * ldo;
        for (ptrdiff_t j = 0; j < width; j++) row[j] += rows[j];
    }
}

/* Sums of blocks are summed, so that rounding errors grow with the number of blocks and not with that of rows. */
#define SUM_BLOCK 256

/* So many vectors of columns, of the last one `used` lanes: one vector alone would take one cache line of each row. */
INLINE void NAME(sums_of_columns)(const int vectors, ptrdiff_t used, ptrdiff_t rows, const REAL *A, ptrdiff_t lda, REAL *out)
{
    VECTOR total[4] = {{0}};
    for (ptrdiff_t start = 0; start < rows; start += SUM_BLOCK) {
        const ptrdiff_t end = rows - start < SUM_BLOCK ? rows : start + SUM_BLOCK;
        VECTOR sum[4] = {{0}};
        for (ptrdiff_t r = start; r < end; r++)
            UNROLL
            for (int v = 0; v < vectors; v++) {
                const REAL *row = A + r * lda + v * LANES;
                sum[v] += used == LANES ? NAME(load)(row) : NAME(load_part)(row, used, 0);
            }
        UNROLL
        for (int v = 0; v < vectors; v++) total[v] += sum[v];
    }
    UNROLL
    for (int v = 0; v < vectors; v++) NAME(store_part)(out + v * LANES, used, total[v]);
}

static void NAME(column_sums)(ptrdiff_t rows, ptrdiff_t columns, const REAL *A, ptrdiff_t lda, REAL *out)
{
    ptrdiff_t j = 0;
    for (; columns - j >= 4 * LANES; j += 4 * LANES) NAME(sums_of_columns)(4, LANES, rows, A + j, lda, out + j);
    for (; j < columns; j += LANES)
        NAME(sums_of_columns)(1, columns - j < LANES ? columns - j : LANES, rows, A + j, lda, out + j);
}
