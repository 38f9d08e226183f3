"""One direction of one layer over all steps, as one member of a team does it; see _sequence.pyx."""

from libc.stdint cimport int64_t

from cylstm._interrupt cimport Interrupt
from cylstm._kernels cimport Kernels, real
from cylstm._pool cimport Team
from cylstm._steps cimport Steps, alive

# What one member of a team computes: the hidden units first..last of the rows first_row..last_row of the batch. The
# work is shared out in one of two ways:
#   by units: all rows, whole vectors of units. Each member reads its part of the weights only, which then stay in its
#             cache; at each step everybody needs h (forward) or the gates' gradients (backward) from everybody, so they
#             meet.
#   by rows:  all units, some rows. No meeting within a layer, and no cache line that two members write to.
cdef struct Member:
    int me
    int count
    Team* team
    Interrupt* interrupt
    Py_ssize_t first
    Py_ssize_t last
    Py_ssize_t first_row
    Py_ssize_t last_row
    bint by_rows

# The right operand of a product in one of the forms of cext/kernels.h: PANELS (or column blocks) and TILES are packed,
# ROWS are the weights themselves, as only forward calls read them.
cdef struct Factor:
    const void* packed
    int form
    Py_ssize_t columns  # in all, as the form counts them

# One direction of one layer: its sizes and weights, as one call uses them.
cdef struct Cell:
    Py_ssize_t I        # inputs
    Py_ssize_t H        # hidden units
    Py_ssize_t Hp       # H rounded up to whole vectors
    Py_ssize_t Ip       # I likewise
    Py_ssize_t at_W     # where the parameters lie in the flat buffer: weight_ih, ...
    Py_ssize_t at_R     # weight_hh
    Py_ssize_t at_b     # bias, -1 without
    Py_ssize_t at_P     # peephole, -1 without
    int flags           # of the cell (cext/kernels.h)
    double clip
    Factor W            # forward: x W', h R' + b
    Factor R
    Factor b
    Factor P            # peepholes (3, Hp), where there are some
    Factor W_back       # backward: dgates W, dgates R
    Factor R_back

# The rows that a layer reads: packed, `ld` reals apart, or still the caller's (B, T, I), to be packed step by step into
# `packed`, which has room for all N rows (`whole`) or for those of one chunk of steps.
cdef struct Inputs:
    void* packed        # (N, I), or NULL where ids go in
    Py_ssize_t ld
    const void* caller  # NULL where they are packed already
    Py_ssize_t row      # distance between the caller's rows and steps, in reals
    Py_ssize_t step
    bint whole
    const int64_t* ids  # (N,), or NULL

# Where h after each step goes: packed rows `row` reals apart, or y[b * row + t * step] in the caller's order.
cdef struct Outputs:
    void* y             # NULL: nowhere
    bint packed
    Py_ssize_t row
    Py_ssize_t step
    const void* mask    # of packed rows, `row` reals apart, which multiplies it; or NULL

# Room for one team, cut from one allocation. Sizes in bytes are in _work.pyx, next to where it is cut.
cdef struct Scratch:
    void* carried[2]    # the left operand of this step's and the next step's product: tiles, or rows where some are cut
    void* rows          # (B, Hp): rows of h, some zero, before they are cut into tiles
    void* states        # (B, Hp): c of the step before, some zero, or dh where nothing may be added
    void* inputs        # tiles of a chunk of x
    Py_ssize_t input_bytes  # of a row of them in the widest layer: members that share out rows may be in different ones
    void* previous      # (N, Hp): h before each step, packed
    void* columns       # (I, 4Hp): dW' where ids went in
    void* x_tiles       # tiles of (GRADIENT_ROWS, I): x and h of a chunk of steps
    void* h_tiles
    char* own           # one member's alone: tiles (64, GRADIENT_ROWS) or (DX_ROWS, 4Hp), or a piece of dW in panels
    Py_ssize_t own_bytes

cdef enum:
    ROWS_EACH = 4        # by rows, if each member gets as many at least
    STEP_ROWS = 4        # a step takes the time of so many rows longer, however few there are
    SMALL_WEIGHTS = 262144  # and W and R, in all their elements, stay in everybody's second-level cache,
    WEIGHTS_A_ROW = 16384   # from which few rows take longer to read them all than many do
    # Gates of as many steps as fit into this many bytes are computed by one product before their steps run, and of as
    # many rows at least: weights that no cache holds are then read once for all of them.
    CHUNK_BYTES = 524288
    CHUNK_ROWS = 256
    GRADIENT_ROWS = 512  # of one product of dgates' x: both operands, as tiles, fit into the second-level cache
    GRADIENT_UNITS = 64  # of one product of BLAS, at most,
    PIECE_ROWS = 16384   # and so many rows: nothing interrupts it
    DX_ROWS = 64
    DX_BATCH = 8         # rows, from which on their product by W_back needs no others beside them

cdef inline Py_ssize_t part(Py_ssize_t pieces, int me, int count) noexcept nogil:
    return pieces * me // count

# The rows of this member that are alive at step t: from first_row to here, none where it is less.
cdef inline Py_ssize_t last_alive(const Steps* s, const Member* who, Py_ssize_t t) noexcept nogil:
    return max(who.first_row, min(who.last_row, alive(s, t)))

cdef Py_ssize_t chunk_rows(const Steps* s, Py_ssize_t row_bytes) noexcept nogil
cdef bint best_by_rows(const Steps* s, const Cell* cells, Py_ssize_t count, bint has_ids) noexcept nogil
cdef Member member_by_units(int me, int count, Team* team, Interrupt* interrupt, const Steps* s, Py_ssize_t Hp,
                            Py_ssize_t lanes) noexcept nogil
cdef Member member_by_rows(int me, int count, Team* team, Interrupt* interrupt, const Steps* s,
                           Py_ssize_t Hp) noexcept nogil
cdef void meet_by_units(const Member* who) noexcept nogil
cdef void run_forward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, bint keep, const Member* who,
                      const Scratch* scratch, const Inputs* inputs, const Outputs* outputs, Py_ssize_t beat,
                      real* gates, real* h, real* c) noexcept nogil
cdef void run_backward(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const Member* who,
                       const Scratch* scratch, Py_ssize_t beat, real* gates, const real* c, real* dh, real* dc,
                       real* dx, bint add) noexcept nogil
cdef bint inputs_by_steps(const Steps* s, const Cell* cell) noexcept nogil
cdef void weight_gradients(const Kernels* k, const Steps* s, const Cell* cell, bint reverse, const Member* who,
                           const Scratch* scratch, int form, Py_ssize_t beat, const real* dgates,
                           const Inputs* inputs, const real* h, const real* c, real* d) noexcept nogil
cdef void input_gradients(const Kernels* k, const Steps* s, const Cell* cell, const Member* who, const Scratch* scratch,
                          Py_ssize_t beat, const real* dgates, real* dx) noexcept nogil
