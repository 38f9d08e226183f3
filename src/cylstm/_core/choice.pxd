"""The form of each product of a call: which operands, and which units of the processor."""

from cylstm._core.kernels cimport (
    BFLOAT16, BFLOAT16_DOT, BFLOAT16_TILES, INT8, INT8_DOT, INT8_TILES, PANELS, ROUNDED, ROUNDED_TILES, TILES,
    has_form,
)

# The forms of a call's products.
cdef struct Choice:
    int inputs      # x W'
    int steps       # h R'
    int back        # dgates R; with masks per gate h R', too
    int rows        # dgates W
    int gradients   # dgates' x, dgates' h: PANELS, or a form that is cut
    bint bounded    # whether one of them is, so that the call has to look at its numbers first
    bint gathers    # whether the form of inputs is for ids and for few inputs, too

# What every call can do, whatever numbers it is given.
cdef inline Choice plain_forms() noexcept nogil:
    cdef Choice choice
    choice.inputs = choice.steps = choice.back = choice.rows = choice.gradients = PANELS
    choice.bounded = choice.gathers = False
    return choice

# Where products of tiles are faster than those of panels, measured with 1.. 48 rows and H = 32..1500: a tile has 16
# rows and 32 k, and takes at least the time of about 8 rows in panels. Tiles of R take 6 bytes a weight, panels 4: the
# less of R the caches hold, the more rows it takes until that does not count.
cdef enum:
    TILED_BATCH = 8             # rows of a batch, and with more than so many weights in R:
    WEIGHTS_12 = 200000
    WEIGHTS_20 = 350000
    WEIGHTS_24 = 4000000
    TILED_INPUTS = 17          # I, or H, from which on tiles pay
    TILED_ROWS = 32            # of all steps together

cdef inline Choice choose(bint panels_alone, Py_ssize_t H, Py_ssize_t Y, Py_ssize_t B,
                          Py_ssize_t N) noexcept nogil:
    """By the batch and the layer alone, never by the number of steps in a forward product: step() and a call on the
    whole sequence compute the same bits. No tiles behind a projection (Y < H), whose h has no bounds."""
    cdef Choice choice = plain_forms()
    cdef Py_ssize_t R = 4 * H * H
    if panels_alone or not has_form(TILES, <const float*>NULL) or H < TILED_INPUTS or Y < H:
        return choice
    if B >= TILED_BATCH:
        choice.inputs = TILES
    if B >= (TILED_BATCH if R <= WEIGHTS_12 else 12 if R <= WEIGHTS_20 else 20 if R <= WEIGHTS_24 else 24):
        choice.steps = choice.back = TILES
    if N >= TILED_ROWS:
        choice.rows = choice.gradients = TILES
    choice.bounded = B >= TILED_BATCH or N >= TILED_ROWS
    return choice


# Of weights in fewer bits, measured with 1..64 rows and H = 32..1024: below this width configuring tiles costs more
# than they save, and one row of bytes is faster without them.
cdef enum:
    SMALL_TILED_WIDTH = 48
    INT8_TILED = 2          # rows

cdef inline int unit_for(int small, Py_ssize_t rows, Py_ssize_t width) noexcept nogil:
    """The form that takes the fastest units, with so many rows in a layer or a matrix of this width. bfloat16's does
    not depend on the rows, so that a row has the same bits in any batch; all of int8's have the same bits.

    Processors with tiles have slow units of AVX512-BF16: a shift and two multiply-adds are as fast there.
    """
    cdef const float* tag = NULL
    if small == BFLOAT16:
        if has_form(BFLOAT16_TILES, tag):
            return BFLOAT16_TILES if width >= SMALL_TILED_WIDTH else BFLOAT16
        return BFLOAT16_DOT if has_form(BFLOAT16_DOT, tag) else BFLOAT16
    if small == INT8:
        if rows >= INT8_TILED and width >= SMALL_TILED_WIDTH and has_form(INT8_TILES, tag):
            return INT8_TILES
        return INT8_DOT if has_form(INT8_DOT, tag) else INT8
    return small


cdef inline Choice choose_small(int small, Py_ssize_t H, Py_ssize_t B, Py_ssize_t N) noexcept nogil:
    cdef Choice choice = plain_forms()
    choice.steps, choice.inputs, choice.gathers = unit_for(small, B, H), unit_for(small, N, H), True
    return choice

# Of weights in float32 whose products are in bfloat16: forward those of astype("bfloat16"), backward tiles of one part.
# Where there are no tiles, gradients meet the rounded weights, and products of gradients by x and h are in
# float32; so they are with a projection, whose h is narrower than the tiles' dgates, and where all steps have few rows.
cdef inline Choice choose_rounded(Py_ssize_t H, Py_ssize_t Y, Py_ssize_t B, Py_ssize_t N) noexcept nogil:
    cdef Choice choice = choose_small(BFLOAT16, H, B, N)
    cdef bint tiles = has_form(BFLOAT16_TILES, <const float*>NULL) and H >= TILED_INPUTS
    choice.back = choice.rows = ROUNDED_TILES if tiles else ROUNDED
    if tiles and Y == H and N >= TILED_ROWS:
        choice.gradients = ROUNDED_TILES
    return choice
