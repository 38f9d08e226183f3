"""Many models of one shape: what they are given, and what one thread works in; see many.pyx."""

from libc.stdint cimport int64_t

from cylstm._core.choice cimport Choice
from cylstm._core.direction cimport Direction
from cylstm._core.head cimport Head
from cylstm._core.interrupt cimport Interrupt
from cylstm._core.kernels cimport Kernels
from cylstm._core.network cimport Backward, Forward
from cylstm._core.packing cimport Packing
from cylstm._core.ragged cimport Steps

# One call of a network, of so many rows, of which the steps together are few or not (choice.pxd): its memory, and its
# weights in the forms that were chosen and, for numbers that tiles do not hold, in plain ones.
cdef struct Place:
    Py_ssize_t B
    Py_ssize_t fewest, most      # steps of all rows
    Choice choice
    Forward* forward
    Backward* backward
    Direction* directions[2]     # as chosen, and plain
    const Packing* packings      # those of forward and backward as chosen end at the first two, plain at the others
    Py_ssize_t ends[4]

# What all models have alike. Sizes in numbers, unless they say bytes.
cdef struct Shape:
    const Kernels* k
    bint doubles, has_ids, last, rounded
    Py_ssize_t item, I, L, D
    Py_ssize_t width, h_width        # of the LSTM's outputs; of the last layer's h
    Py_ssize_t h_size, c_size        # of h and c in a state
    Py_ssize_t P, at_lstm, at_weight, at_bias, F, outputs  # of all parameters; -1 for no bias; of the head
    Py_ssize_t T, groups, target_bytes                     # of one step or, for the last one, of a row
    Py_ssize_t piece                                       # of the loss

# A thread's own memory. One batch is gathered into it.
cdef struct Desk:
    Place places[4]
    Py_ssize_t count
    Steps steps
    int64_t* table       # of a Plan
    int64_t* lengths     # (B,)
    int64_t* ids         # (B * T,)
    char* x              # (B, T, I)
    char* targets
    char* y              # (B, T, width), and what the head sees of it, with its gradients
    char* h
    char* dh
    char* dy
    char* hn             # the final state, its gradients, and those of the first one
    char* cn
    char* dhn
    char* dh0
    char* dc0
    char* gradients      # (P,)
    char* head_memory
    double* sums
    Head head
    Interrupt quiet      # whom nobody asks

cdef enum Task:
    LEARN, MEASURE, PREDICT

cdef enum Optimiser:
    OF_SGD, OF_ADAM

# Data: shared by all models where they are 0 bytes apart. Of the models that are chosen, number n has the order
# orders[order_of[n]] of the R rows, which U batches begin at starts[order_of[n]], and gets its own place in `results`.
cdef struct Job:
    Task task
    const Shape* shape
    Desk* desks
    Interrupt* interrupt
    Py_ssize_t next, count, R, U
    const int64_t* chosen
    char* flat
    char* m
    char* v
    const char* x
    const char* y
    const int64_t* lengths
    Py_ssize_t x_apart, y_apart, lengths_apart
    const int64_t* orders
    const int64_t* starts
    const int64_t* order_of
    const double* rates      # (count, U)
    int64_t* updates         # (N,), so far
    double* results          # (count, RESULTS)
    char* outputs            # (count, R, T, outputs), or (count, R, outputs)
    double head_weight, clip_norm
    bint clip_each
    Optimiser optimiser
    double momentum, beta1, beta2, eps
    bint nesterov, decoupled
    Py_ssize_t pieces        # (start, stop) of what is updated, each with its decay
    const int64_t* piece
    const double* decay
    Py_ssize_t parameters    # (start, stop, whether it is updated) of each
    const int64_t* parameter

# What there is to tell of a model: sums of loss, weights and hits, tokens, the norms of gradients and their number; the
# first update that failed, or -1, and the loss and the norm that it had.
cdef enum:
    TOTAL, WEIGHT, HITS, TOKENS, NORMS, NORMED, FAILED, BAD_LOSS, BAD_NORM, RESULTS

# By so many members, each with a desk.
cdef void run_job(Job* job, int members) noexcept nogil
