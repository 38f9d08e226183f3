"""All layers and directions of one call, forward and backward, for a team of threads; see network.pyx."""

from libc.stdint cimport int64_t

from cylstm._core.apart cimport Apart
from cylstm._core.interrupt cimport Interrupt
from cylstm._core.kernels cimport Kernels
from cylstm._core.direction cimport Direction, Inputs, Scratch
from cylstm._core.ragged cimport Steps

# What a forward call leaves for a backward one: gates (N, 4Hp), h (B+N, Yp), c (B+N, Hp) of each layer and direction,
# with a projection u = o tanh(c) (N, Hp), with zoneout c before it (N, Hp), and the outputs (N, O) of layers whose
# output is not simply their h. Without `keep`, what serves as scratch for them: the gates of one chunk of steps, c's
# and u (B, Hp), two layers' h in turn, and outputs likewise; and of the last layer's h two boundaries (2B, Yp), if no
# row ends before the others. With residuals and dropout, also two layers' outputs before it, in turn. Everything is of
# the layer's type. O numbers in an output: D*Y, or Y where directions are merged.
cdef struct Record:
    bint keep
    bint joined         # outputs are needed: two directions, a reverse one, residuals, or dropout
    Inputs inputs       # of the first layer
    const void* masks   # of dropout, (L-1, N, O) or, per row, (L-1, B, O); or NULL
    bint per_row        # they are in the caller's order then, and the same at all steps
    char* gates
    char* u
    char* fresh
    char* h
    char* last_h        # NULL where it is in h
    char* c
    char* outputs
    char* plain         # NULL where no layer needs it
    char* highway       # shares of h in the outputs, (N, Yp) of each layer and direction, or (B, Yp) of one step

cdef struct Forward:
    Interrupt* interrupt
    const Kernels* k
    const Steps* s
    const Direction* directions   # (L*D,)
    Py_ssize_t L, D, O
    Py_ssize_t H, Hp, Y, Yp  # of the widest layer, as O: what states and records have room for
    bint uneven         # layers have different widths: a row is not at the same place in all of them
    bint reverse        # the only direction is the reverse one
    int merge           # of the directions (direction.pxd)
    bint residual       # what goes into a layer, from the second one on, is added to its outputs
    bint highway        # they are mixed with it (highway.pyx)
    Record record
    Scratch scratch
    const void* h0      # (L*D, B, Y), or NULL for the first state, or zeros
    const void* c0      # (L*D, B, H), likewise
    void* y             # (B, T, O), rows and steps so many reals apart; NULL where the caller takes hn for it
    Py_ssize_t y_row
    Py_ssize_t y_step
    bint packed         # y is (N, O) instead
    int most            # threads
    void* hn            # (L*D, B, Y); may be h0, as cn (L*D, B, H) may be c0
    void* cn
    Apart apart         # in their place, for one step of one direction

cdef struct Backward:
    Interrupt* interrupt
    const Kernels* k
    const Steps* s
    const Direction* directions
    Py_ssize_t L, D, O
    Py_ssize_t H, Hp, Y, Yp
    bint reverse
    int merge
    bint residual
    Record record
    Scratch scratch
    int form            # of the products for the weights' gradients
    char* dh            # (B+N, Yp)
    char* dc            # (B, Hp)
    char* dinputs[2]    # (N, Ip) of layers above the first: the one above is read while this one is written
    char* dx_packed     # (N, Ip) of the first layer
    char* dsums         # (N, O), with residuals: gradients by a layer's outputs before their dropout
    bint packed         # dy and dx are (N, O) and (N, I)
    const void* dy      # (B, T, O): rows and steps are so many reals apart
    Py_ssize_t dy_row
    Py_ssize_t dy_step
    const void* dhn     # (L*D, B, Y) and (L*D, B, H), or NULL for zeros
    const void* dcn
    bint given_h        # whether forward was given the state that rows begin with, which is not the first state then
    bint given_c
    void* dx            # (B, T, I), rows and steps so many reals apart, or NULL, always where ids went in
    Py_ssize_t dx_row
    Py_ssize_t dx_step
    void* dh0           # as dhn and dcn
    void* dc0
    void* dflat         # gradients of all parameters

cdef int team_size(const Steps* s, const Direction* directions, Py_ssize_t count, Py_ssize_t D, Py_ssize_t lanes,
                   bint has_ids, int most, int* awake=*) noexcept nogil
cdef void run_network_forward(Forward* call, bint doubles) noexcept nogil
cdef void run_network_backward(Backward* call, bint doubles, int members) noexcept nogil
