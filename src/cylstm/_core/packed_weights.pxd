"""The weights of a network packed for one instruction set, in the forms that calls have asked for so far."""

from cylstm._core.kernels cimport BLAS, PANELS, TILES, Kernels, has_form, is_bounded
from cylstm._core.direction cimport TILED_INPUTS, Direction, Factor

# The forms of a call's products.
cdef struct Choice:
    int inputs      # x W'
    int steps       # h R', dgates R
    int rows        # dgates W
    int gradients   # dgates' x, dgates' h: BLAS, or a form that is cut

# What every call can do, whatever numbers it is given.
cdef inline Choice plain_forms() noexcept nogil:
    cdef Choice choice
    choice.inputs = choice.steps = choice.rows = PANELS
    choice.gradients = BLAS
    return choice

# Whether a call has to look at its numbers first.
cdef inline bint any_bounded(Choice choice) noexcept nogil:
    return (is_bounded(choice.inputs) or is_bounded(choice.steps) or is_bounded(choice.rows)
            or is_bounded(choice.gradients))

# Where products of tiles are faster than those of panels, measured with 1.. 48 rows and H = 32..1500: a tile has 16
# rows and 32 k, and takes at least the time of about 8 rows in panels. Tiles of R take 6 bytes a weight, panels 4: the
# less of R the caches hold, the more rows it takes until that does not count.
cdef enum:
    TILED_BATCH = 8             # rows of a batch, and with more than so many weights in R:
    WEIGHTS_12 = 200000
    WEIGHTS_20 = 350000
    WEIGHTS_24 = 4000000
    TILED_ROWS = 32            # of all steps together

cdef inline Choice choose(const Kernels* k, bint panels_alone, Py_ssize_t H, Py_ssize_t Y, Py_ssize_t B,
                          Py_ssize_t N) noexcept nogil:
    """By the batch and the layer alone, never by the number of steps in a forward product: step() and a call on the
    whole sequence compute the same bits. No tiles behind a projection (Y < H), whose h has no bounds."""
    cdef Choice choice = plain_forms()
    cdef Py_ssize_t R = 4 * H * H
    if panels_alone or not has_form(k, TILES, <const float*>NULL) or H < TILED_INPUTS or Y < H:
        return choice
    if B >= TILED_BATCH:
        choice.inputs = TILES
    if B >= (TILED_BATCH if R <= WEIGHTS_12 else 12 if R <= WEIGHTS_20 else 20 if R <= WEIGHTS_24 else 24):
        choice.steps = TILES
    if N >= TILED_ROWS:
        choice.rows = choice.gradients = TILES
    return choice

# What was packed from the parameters as they were at one version. A call borrows it and keeps the weights it began
# with: with others of it still borrowed, an update packs into new memory.
cdef class Packed:
    cdef const Kernels* k
    cdef long long version
    cdef int users           # changed by add() alone: calls, and tapes that wait for their backward
    cdef object masks        # (L*D, 4H, Y), of a call that drops elements of weight_hh; or None
    cdef list arrays         # per direction, operand and form: memory, or None
    cdef const void** at     # the same, NULL where not packed from this version, &too_much where tiles do not hold them
    cdef void borrow_again(self) noexcept
    cdef void give_back(self) noexcept
    cdef spare(self, Py_ssize_t n, int operand)

# Columns of `offsets`.
cdef Py_ssize_t WEIGHT_IH, WEIGHT_HH, BIASES, PEEPHOLE, FIRST_H, FIRST_C, WEIGHT_HR, NORM_IH, NORM_HH, NORM_C
cdef Py_ssize_t HIGHWAY, HIGHWAY_BIAS

cdef class Weights:
    cdef readonly Py_ssize_t I, H, L, D, Y, O  # H, Y and O of the widest layer
    cdef const Py_ssize_t[:, ::1] sizes        # (L, 3): those of each
    cdef readonly int merge        # of the directions (direction.pxd)
    cdef readonly bint doubles
    cdef readonly object cell      # cylstm.cell.CellType
    cdef bint bounded              # whether its gates and outputs are, so that tiles hold them
    cdef const Py_ssize_t[:, ::1] offsets  # cylstm.cell.offsets()
    cdef object flat, parameters, lock
    cdef Packed now
    cdef Packed dropped     # the last of those that are masked
    cdef int most            # threads that pack
    cdef long long version(self)
    cdef Packed borrow(self)
    cdef Packed borrow_masked(self, masks)
    cdef bint in_use(self)
    cdef int fill_forward(self, Packed packed, Direction* directions, Choice choice, bint ids) except -1
    cdef int fill_backward(self, Packed packed, Direction* directions, Choice choice, bint to_inputs) except -1
    cdef int take(self, Packed packed, const Direction* direction, Py_ssize_t n, int operand, int form,
                  Factor* factor) except -1
    cdef int take_norms(self, Packed packed, Direction* direction, Py_ssize_t n) except -1
    cdef int _pad(self, Packed packed, Py_ssize_t slot, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t width,
                  Py_ssize_t padded) except -1
    cdef int _pack_matrix(self, Packed packed, Py_ssize_t slot, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t width,
                          bint backward) except -1
    cdef int _pack_gates(self, Packed packed, const Direction* direction, Py_ssize_t n, Py_ssize_t slot, int form,
                         bint backward) except -1
    cdef int _pack(self, Packed packed, const Direction* direction, Py_ssize_t n, int operand, int form) except -1
