"""A linear head with its loss; see head.pyx."""

from cylstm._core.interrupt cimport Interrupt
from cylstm._core.kernels cimport Kernels, RowLoss, real
from cylstm._core.team cimport Team

# One call. Arrays are of the same real type, row-major; h (N, F), weight (O, F).
cdef struct Head:
    Interrupt* interrupt
    const Kernels* k
    RowLoss loss            # NULLs: outputs are all that is wanted
    Py_ssize_t piece        # rows whose loss is summed at a time; chunks are whole pieces
    Py_ssize_t groups       # of outputs in a row, each with its own target and weight: the loss takes them for rows
    bint unread             # the loss does not look at the outputs
    bint gradient, rounded
    int form                # of all products, but of those with d outputs only in chunks where it holds them; or BLAS
    Py_ssize_t N, F, O
    Py_ssize_t chunk        # rows
    const void* h
    const void* weight      # or NULL, and in its place:
    const void* packed      # a SmallMatrix' panels
    Py_ssize_t padded
    const void* bias        # (O,), zeros where there is none
    const char* targets     # of so many bytes to a row
    Py_ssize_t target_bytes
    const void* weights     # (N * groups,), or NULL
    const double* parameters
    double scale
    void* outputs           # (chunk, O); without a loss, (N, O)
    void* dh                # (N, F)
    void* dweight           # (O, F)
    void* dbias             # (O,), or NULL
    double* losses          # sums of each piece of rows
    double* counts          # of weights
    double* hits
    double* most            # of d outputs, the largest
    const void* zeros       # (max(F, O),)
    char* h_left            # of a chunk, packed: h as left and as right operand, DEEP columns of d outputs
    char* h_right
    char* d_left
    char* own               # of each member: a piece of weight, or of d outputs, packed or as sums
    Py_ssize_t own_bytes

# Its loss, of a losses.Loss, but for the parameters.
cdef int take_loss(Head* head, kind, Py_ssize_t groups) except -1

# Rows to a chunk, with a loss, of N, F and O; returns the pieces, each with sums of its own.
cdef Py_ssize_t cut_rows(Head* head, Py_ssize_t item) noexcept nogil
# The same for outputs alone, of which there are no pieces.
cdef void cut_outputs(Head* head) noexcept nogil

# The form of its products, by what h and weight hold.
cdef int form_of(const Head* head, const real* type_tag) noexcept nogil

# The bytes that it takes in its form; where memory is given, of so many, its pointers into that. outputs: whether there
# is room for a chunk's outputs, which are the caller's otherwise.
cdef Py_ssize_t lay_out_head(Head* head, int members, Py_ssize_t pieces, bint outputs, Py_ssize_t item,
                             char* memory) noexcept nogil

cdef void head_f32(void* head, int me, int count, Team* team) noexcept nogil
cdef void head_f64(void* head, int me, int count, Team* team) noexcept nogil

# The sums of all pieces, in their order: of w times the loss, of w, and of w times hits.
cdef void sums_of(const Head* head, Py_ssize_t pieces, double* total, double* count, double* hits) noexcept nogil
