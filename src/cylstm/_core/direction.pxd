"""One direction of one layer: its sizes and weights, what goes into its steps, and where what comes out goes."""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

from cylstm._core.interrupt cimport beats_between
from cylstm._core.kernels cimport DROPPED, NARROW, Activation, Norm, Step, real, right_bytes
from cylstm._core.ragged cimport Steps
from cylstm._core.team cimport Member, part

# The masks of dropout that a call has, in bits; as in drops.py.
cdef enum Masked:
    OUTPUTS = 1      # of all layers but the last
    PER_ROW = 2      # those are the same at all steps
    INPUTS = 4
    STATES = 8       # what R is multiplied by
    WEIGHTS = 16     # weight_hh
    ZONED_C = 32     # where zoneout, of c and of h, takes the new one; shares alone where nothing is trained
    ZONED_H = 64
    UPDATES = 128    # g, what c gets anew
    EACH_GATE = 256  # those of states differ from gate to gate

# How the outputs of two directions become those of a layer; as in cell.py.
cdef enum Merge:
    CONCAT, SUM, MEAN, PRODUCT

# The right operand of a product in one of the forms of cext/kernels.h: PANELS (or column blocks) and TILES are packed,
# UNPACKED are the weights themselves, as only forward calls read them.
cdef struct Factor:
    const void* packed
    int form
    Py_ssize_t columns  # in all, as the form counts them

# Its sizes and weights, as one call uses them.
cdef struct Direction:
    Py_ssize_t I        # inputs
    Py_ssize_t H        # hidden units
    Py_ssize_t Hp       # H rounded up to whole vectors
    Py_ssize_t columns  # of gate panels of form NARROW; 4Hp where none is narrow, or none may be
    Py_ssize_t Ip       # I likewise
    Py_ssize_t Y        # numbers of h: P with a projection, H without
    Py_ssize_t Yp       # Y likewise
    Py_ssize_t O        # numbers of its layer's outputs
    Py_ssize_t below    # of those of all layers below
    Py_ssize_t at_W     # where the parameters lie in the flat buffer: weight_ih, ...
    Py_ssize_t at_R     # weight_hh
    Py_ssize_t at_b     # bias, -1 without
    Py_ssize_t at_P     # peephole, -1 without
    Py_ssize_t at_h0    # h0 and c0, -1 without
    Py_ssize_t at_c0
    Py_ssize_t at_proj  # weight_hr, -1 without
    Py_ssize_t at_norm_x  # norm_ih, -1 without
    Py_ssize_t at_norm_h
    Py_ssize_t at_norm_c
    Py_ssize_t at_highway  # highway_weight and highway_bias, -1 without
    Py_ssize_t at_highway_bias
    int flags           # of the direction (cext/kernels.h)
    double clip         # of c
    double gate_clip    # of what the gates and g are of
    double proj_clip    # of h behind a projection, 0 without
    Activation activations[3]  # of the gates, of g, of c
    Factor W            # forward: x W', h R' + b
    Factor R
    Factor b
    Factor P            # peepholes (3, Hp), where there are some
    Factor h0           # (Yp,) and (Hp,): what begins anew begins with, NULL for zeros
    Factor c0
    Factor W_back       # backward: dgates W, dgates R
    Factor R_back
    const void* mask    # (B, Y) in the caller's order, of h before R, or NULL
    Py_ssize_t masks    # how many of them: 1, or 4, one for each gate
    const void* update_mask  # (B, Hp), packed: of g; or NULL
    double zone_c       # shares of zoneout: of c and h that stay as they were, 0 without
    double zone_h
    const uint8_t* new_c  # (N, H) and (N, Y), packed: where c and h do not; NULL for the mean of both, where nothing
    const uint8_t* new_h  # is trained
    Factor proj         # forward: u R_p', u = o tanh(c)
    Factor proj_back    # backward: dh R_p
    Factor norm_bias    # of layer norms: (4Hp,), b being zeros then
    Factor norm_x       # gains (4Hp,) of x W' and of h R', gain and shift (2, Hp) of c
    Factor norm_h
    Factor norm_c
    Factor highway      # forward: x W_t', (Yp,), and backward: dz W_t
    Factor highway_bias
    Factor highway_back
    Norm norm           # where they are, and the memory of all rows

# The rows that a layer reads: packed, `ld` reals apart, or still the caller's (B, T, I), to be packed step by step into
# `packed`, which has room for all N rows (`whole`) or for those of the steps whose gates one product makes.
cdef struct Inputs:
    void* packed        # (N, I), or NULL where ids go in
    Py_ssize_t ld
    const void* caller  # NULL where they are packed already
    Py_ssize_t row      # distance between the caller's rows and steps, in reals
    Py_ssize_t step
    bint whole
    const int64_t* ids  # (N,), or NULL
    const void* mask    # (B, I) in the caller's order, which multiplies the caller's rows; or NULL

# Where h after each step goes: packed rows `row` reals apart, or y[b * row + t * step] in the caller's order.
cdef struct Outputs:
    void* y             # NULL: nowhere
    bint packed
    Py_ssize_t row
    Py_ssize_t step
    const void* mask    # of packed rows, `row` reals apart, which multiplies it; or NULL
    bint per_row        # of the caller's rows instead, the same at all steps
    bint finishes       # whether there is any of:
    int merge           # what h is merged with y by, which has the other direction's; or CONCAT
    const void* skip    # packed rows, `skip_row` reals apart, that are added; or NULL
    Py_ssize_t skip_row
    void* plain         # where it goes before it is multiplied by the mask, as it goes to y; or NULL

# Memory of one team, cut from one allocation. Sizes in bytes are in arena.pyx, next to where it is cut.
cdef struct Scratch:
    void* carried[2]    # the left operand of this step's and the next step's product: tiles, or rows where some are cut
    void* rows          # (B, Yp): rows of h, some zero, before they are cut into tiles; with a projection, rows of dh
    void* apart         # (4, B, Hp) or (4, B, Yp): with masks for each gate, what is of each
    Py_ssize_t apart_bytes  # of one gate's left operand in carried
    void* states        # (B, Hp): c of the step before, some zero, or dh where nothing may be added
    void* inputs        # x of some steps, as tiles
    Py_ssize_t input_bytes  # of a row of them in the widest layer: members that share out rows may be in different ones
    void* zoned         # (B, Hp): gradients of c that go past a step
    void* dz            # (N, Yp), with highways: gradients by what their gates are of, and by what they carry
    void* dcarried
    void* cut_h         # (B, Yp) and (B, Hp): of each row, gradients of the first state at its cuts; NULL where nobody
    void* cut_c         # wants them
    void* previous      # (N, Yp): h before each step, packed
    void* dh_packed     # (N, Yp): with a projection, dh after each step of the reverse direction, packed
    void* du            # (B, Hp): with a projection, gradients by u
    void* columns       # (I, 4Hp): dW' where ids went in
    void* x_packed      # right operands (GRADIENT_ROWS, I) and (GRADIENT_ROWS, Y): x and h of some steps
    void* h_packed
    char* own           # one member's alone: tiles (64, GRADIENT_ROWS) or (DX_ROWS, 4Hp), or gradients_bytes()
    Py_ssize_t own_bytes


# Whether h has a mask for each gate. R and R_back are right operands of each gate alone then, behind each other:
# R_n' (Y, Hp) and R_n (H, Yp).
cdef inline bint by_gates(const Direction* direction) noexcept nogil:
    return direction.mask != NULL and direction.masks > 1

# Of the gates' right operands.
cdef inline Py_ssize_t panel_columns(const Direction* direction, int form) noexcept nogil:
    return direction.columns if form == NARROW else 4 * direction.Hp

# From one to the next, reals having `item` bytes.
cdef inline Py_ssize_t gate_bytes(const Direction* direction, int form, bint backward, Py_ssize_t item) noexcept nogil:
    if backward:
        return right_bytes(form, direction.H, direction.Yp, item)
    return right_bytes(form, direction.Y, direction.Hp, item)

# How many masks a row's h has.
cdef inline Py_ssize_t masks_of(int masked) noexcept nogil:
    return 4 if masked & EACH_GATE else 1

cdef enum:
    SMALL_WEIGHTS = 262144  # W and R, in all their elements, that stay in each core's second-level cache

# What is the same in all steps, of numbers of this type.
cdef inline Step step_of(const Direction* direction, const Member* who, const real* type_tag) noexcept nogil:
    cdef Step step
    memset(&step, 0, sizeof(Step))
    step.H, step.Y, step.first, step.last = direction.H, direction.Y, who.first, who.last
    step.flags, step.clip, step.gate_clip = direction.flags, direction.clip, direction.gate_clip
    step.activations = &direction.activations[0]
    step.form, step.R, step.peepholes = direction.R.form, direction.R.packed, direction.P.packed
    if direction.update_mask != NULL:
        step.flags |= DROPPED
        step.update_mask = <const real*>direction.update_mask + who.first_row * direction.Hp
    return step


# Layer norms of the rows from `row` on: among all that a call keeps; those of scratch are rows of the batch.
cdef inline Norm norm_of(const Direction* direction, const real* type_tag, Py_ssize_t row,
                         Py_ssize_t batch_row) noexcept nogil:
    cdef Norm norm = direction.norm
    cdef Py_ssize_t Hp = direction.Hp
    norm.x, norm.h = <real*>norm.x + row * 4 * Hp, <real*>norm.h + row * 4 * Hp
    norm.moments, norm.product = <real*>norm.moments + row * 4, <real*>norm.product + batch_row * 4 * Hp
    norm.sums, norm.row = <real*>norm.sums + batch_row * norm.sums_row, <real*>norm.row + batch_row * 2 * Hp
    return norm


# The same member's share of h: as its units, or, with a projection, of the P numbers that all units make.
cdef inline Member member_of_h(const Member* who, const Direction* direction, Py_ssize_t lanes) noexcept nogil:
    cdef Member of_h = who[0]
    if direction.at_proj >= 0:
        of_h.first, of_h.last = 0, direction.Yp
        if not who.by_rows:
            of_h.first = part(direction.Yp // lanes, who.me, who.count) * lanes
            of_h.last = part(direction.Yp // lanes, who.me + 1, who.count) * lanes
    return of_h


# Steps between two beats (interrupt.pxd).
cdef inline Py_ssize_t step_beats(const Steps* s, const Direction* direction) noexcept nogil:
    return beats_between(4.0 * direction.H * (direction.I + direction.Y) * s.N / s.T)
