"""CTC over the rows of a batch (ctc.pxd), for a team of threads: the loss with its gradient, the best alignment of
given labels, and the best one of all. Beams are in ctc_beam."""

import numpy as np

from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memset

from cylstm._core.interrupt cimport Interrupt, begin, finish, goes_on_alone
from cylstm._core.kernels cimport active, ctc_loss as ctc_loss_kernel, ctc_scratch, log_sum_exp, real
from cylstm._core.memory cimport fitting
from cylstm._core.team cimport Task, Team, run, threads_for

cdef enum:
    # What a step takes, in multiply-adds (team.pyx): of each class, of each label forward and backward, and of each
    # state of an alignment.
    OF_CLASS = 8
    OF_LABEL = 60
    OF_STATE = 10

cdef struct Losses:
    Rows rows
    void* gradient          # (N, V), or NULL
    double* losses          # (B,)

cdef struct Alignments:
    Rows rows
    int64_t* first          # of each label
    int64_t* last

cdef struct Paths:
    Rows rows
    double* log_sums        # (N,)
    int64_t* path           # (N,) the best class of each step, and then a row's labels from its start on
    int64_t* first
    int64_t* last
    int64_t* counts         # (B,)
    double* scores


cdef int set_rows(Rows* rows, Py_ssize_t N, Py_ssize_t V, const int64_t[::1] starts, const int64_t[::1] lengths,
                  Py_ssize_t blank) except -1:
    """All but the logits and labels. What users give has been checked before, with better words: this is for no row to
    leave the array."""
    cdef Py_ssize_t b, B = starts.shape[0]
    if not 0 <= blank < V or B == 0 or lengths.shape[0] != B:
        raise ValueError(f"starts, lengths, blank: expected some rows and a blank in 0..{V - 1}, got {B} and {blank}")
    for b in range(B):
        if not 0 <= starts[b] < N or not 1 <= lengths[b] <= N - starts[b]:
            raise ValueError(f"lengths[{b}]: expected steps among the {N} there are, got others")
    rows.k, rows.B, rows.V, rows.blank = active(), B, V, blank
    rows.starts, rows.lengths = &starts[0], &lengths[0]
    return 0


cdef int set_labels(Rows* rows, const int64_t[::1] labels, const int64_t[::1] ends) except -1:
    """Likewise."""
    cdef Py_ssize_t b, j, L = labels.shape[0]
    if ends.shape[0] != rows.B + 1 or ends[0] != 0 or ends[rows.B] != L:
        raise ValueError(f"ends: expected one for each row, up to {L}, got others")
    for b in range(rows.B):
        if ends[b] > ends[b + 1]:
            raise ValueError("ends: expected ends that do not fall, got others")
    for j in range(L):
        if not 0 <= labels[j] < rows.V or labels[j] == rows.blank:
            raise ValueError(f"labels: expected labels in 0..{rows.V - 1} other than {rows.blank}, got {labels[j]}")
    rows.labels, rows.ends = &labels[0] if L else NULL, &ends[0]
    return 0


cdef int run_rows(Rows* rows, Task task, void* call, double work, double room) except -1:
    """Raises MemoryError, and what a signal's handler raises."""
    cdef Interrupt interrupt
    cdef int members = threads_for(work, work, rows.B)
    cdef unsigned char[::1] view
    room = 64 * ((<Py_ssize_t>min(room, 1e15) + 63) // 64)
    if room > 0:
        memory = fitting(None, members * room)
        view = memory
        rows.own, rows.own_bytes = <char*>&view[0], <Py_ssize_t>room
    begin(&interrupt)
    rows.interrupt = &interrupt
    with nogil:
        run(members, task, call)
    return finish(&interrupt)


def loss(const real[:, ::1] logits, const int64_t[::1] starts, const int64_t[::1] lengths, const int64_t[::1] labels,
         const int64_t[::1] ends, Py_ssize_t blank, real[:, ::1] gradient=None):
    """The losses (B,) of all rows, in double precision; `gradient` (N, V), which may be the logits, receives theirs at
    the rows' steps."""
    cdef Losses call
    cdef double work = 0, room = 0
    cdef Py_ssize_t b, L
    memset(&call, 0, sizeof(Losses))
    set_rows(&call.rows, logits.shape[0], logits.shape[1], starts, lengths, blank)
    set_labels(&call.rows, labels, ends)
    call.rows.logits = &logits[0, 0]
    if gradient is not None:
        if gradient.shape[0] != logits.shape[0] or gradient.shape[1] != logits.shape[1]:
            raise ValueError(f"gradient: expected {(logits.shape[0], logits.shape[1])}, got another shape")
        call.gradient = &gradient[0, 0]
    for b in range(call.rows.B):
        L = ends[b + 1] - ends[b]
        work += <double>lengths[b] * (OF_CLASS * call.rows.V + OF_LABEL * (L + 1))
        room = max(room, sizeof(real) * ctc_scratch(lengths[b], L, gradient is not None))
    losses = np.empty(call.rows.B)
    cdef double[::1] found = losses
    call.losses = &found[0]
    run_rows(&call.rows, losses_f32 if real is float else losses_f64, &call, work, room)
    return losses


cdef void losses_f32(void* call, int me, int count, Team* team) noexcept nogil:
    losses_share(<const Losses*>call, me, count, <float*>NULL)

cdef void losses_f64(void* call, int me, int count, Team* team) noexcept nogil:
    losses_share(<const Losses*>call, me, count, <double*>NULL)


cdef void losses_share(const Losses* p, int me, int count, real* type_tag) noexcept nogil:
    cdef const Rows* rows = &p.rows
    cdef Py_ssize_t b = me, at
    cdef real* gradient = NULL
    while b < rows.B and goes_on_alone(rows.interrupt, me, b):
        at = rows.starts[b] * rows.V
        if p.gradient != NULL:
            gradient = <real*>p.gradient + at
        p.losses[b] = ctc_loss_kernel(
            rows.k, rows.lengths[b], rows.V, rows.ends[b + 1] - rows.ends[b], <const real*>rows.logits + at, rows.V,
            rows.labels + rows.ends[b], rows.blank, 1, gradient, rows.V, <real*>(rows.own + me * rows.own_bytes))
        b += count  # in turn: batches are often sorted by length


def align(const real[:, ::1] logits, const int64_t[::1] starts, const int64_t[::1] lengths, const int64_t[::1] labels,
          const int64_t[::1] ends, Py_ssize_t blank):
    """The most probable alignment of the labels of each row, which has one at least: the first step of each label, and
    the step behind its last one."""
    cdef Alignments call
    cdef double work = 0, room = 0, states
    cdef Py_ssize_t b
    memset(&call, 0, sizeof(Alignments))
    set_rows(&call.rows, logits.shape[0], logits.shape[1], starts, lengths, blank)
    set_labels(&call.rows, labels, ends)
    call.rows.logits = &logits[0, 0]
    for b in range(call.rows.B):
        states = 2 * <double>(ends[b + 1] - ends[b]) + 1
        work += OF_STATE * states * lengths[b]
        room = max(room, states * (sizeof(double) + lengths[b]))
    first, last = np.zeros((2, labels.shape[0] + 1), np.int64)  # &view[0] of none would be out of bounds
    cdef int64_t[::1] first_view = first, last_view = last
    call.first, call.last = &first_view[0], &last_view[0]
    run_rows(&call.rows, alignments_f32 if real is float else alignments_f64, &call, work, room)
    return first[:labels.shape[0]], last[:labels.shape[0]]


cdef void alignments_f32(void* call, int me, int count, Team* team) noexcept nogil:
    alignments_share(<const Alignments*>call, me, count, <float*>NULL)

cdef void alignments_f64(void* call, int me, int count, Team* team) noexcept nogil:
    alignments_share(<const Alignments*>call, me, count, <double*>NULL)


cdef void alignments_share(const Alignments* p, int me, int count, real* type_tag) noexcept nogil:
    cdef const Rows* rows = &p.rows
    cdef Py_ssize_t b = me, at
    while b < rows.B and goes_on_alone(rows.interrupt, me, b):
        at = rows.ends[b]
        align_row(rows.lengths[b], rows.V, rows.ends[b + 1] - at, <const real*>rows.logits + rows.starts[b] * rows.V,
                  rows.labels + at, rows.blank, p.first + at, p.last + at, rows.own + me * rows.own_bytes)
        b += count


cdef void align_row(Py_ssize_t T, Py_ssize_t V, Py_ssize_t L, const real* z, const int64_t* labels, Py_ssize_t blank,
                    int64_t* first, int64_t* last, char* room) noexcept nogil:
    """Viterbi's search over the S = 2L + 1 states, label j being number 2j + 1. What softmax takes off is the same for
    all alignments."""
    cdef Py_ssize_t S = 2 * L + 1, t, s
    cdef double* best = <double*>room   # (S,) of all alignments that are in s now
    cdef char* moves = <char*>(best + S)  # (T, S) how many states an alignment came on by
    cdef double most
    cdef char move
    for s in range(S):
        best[s] = -INFINITY
    best[0] = 0  # before the first step, at the first blank
    for t in range(T):
        for s in range(S - 1, -1, -1):  # downward, as best[s] becomes what best[s + 1] and best[s + 2] are made of
            most, move = best[s], 0
            if s >= 1 and best[s - 1] > most:
                most, move = best[s - 1], 1
            if s >= 3 and s % 2 and labels[s // 2] != labels[s // 2 - 1] and best[s - 2] > most:
                most, move = best[s - 2], 2
            best[s] = most + z[t * V + (labels[s // 2] if s % 2 else blank)]
            moves[t * S + s] = move
    s = S - 2 if S > 1 and best[S - 2] > best[S - 1] else S - 1
    for t in range(T - 1, -1, -1):
        if s % 2:
            first[s // 2] = t
            if last[s // 2] == 0:
                last[s // 2] = t + 1
        s -= moves[t * S + s]


def best_path(const real[:, ::1] logits, const int64_t[::1] starts, const int64_t[::1] lengths, Py_ssize_t blank):
    """The best class of each step of each row, merged: labels, their first steps and the steps behind their last ones,
    each (N,), row b's from starts[b] on; how many each row has, (B,); and the logarithm of the path's probability,
    (B,), NaN where logits are no numbers."""
    cdef Paths call
    cdef Py_ssize_t N = logits.shape[0]
    memset(&call, 0, sizeof(Paths))
    set_rows(&call.rows, N, logits.shape[1], starts, lengths, blank)
    call.rows.logits = &logits[0, 0]
    log_sums, scores = np.empty(N), np.empty(call.rows.B)
    path, first, last = np.empty((3, N), np.int64)
    counts = np.empty(call.rows.B, np.int64)
    cdef double[::1] log_sums_view = log_sums, scores_view = scores
    cdef int64_t[::1] path_view = path, first_view = first, last_view = last, counts_view = counts
    call.log_sums, call.scores = &log_sums_view[0], &scores_view[0]
    call.path, call.first, call.last, call.counts = &path_view[0], &first_view[0], &last_view[0], &counts_view[0]
    run_rows(&call.rows, paths_f32 if real is float else paths_f64, &call, <double>N * OF_CLASS * call.rows.V, 0)
    return path, first, last, counts, scores


cdef void paths_f32(void* call, int me, int count, Team* team) noexcept nogil:
    paths_share(<const Paths*>call, me, count, <float*>NULL)

cdef void paths_f64(void* call, int me, int count, Team* team) noexcept nogil:
    paths_share(<const Paths*>call, me, count, <double*>NULL)


cdef void paths_share(const Paths* p, int me, int count, real* type_tag) noexcept nogil:
    cdef const Rows* rows = &p.rows
    cdef Py_ssize_t b = me, at, t, n, before, label
    cdef const real* z
    cdef int64_t* path
    while b < rows.B and goes_on_alone(rows.interrupt, me, b):
        at = rows.starts[b]
        z, path, n, before = <const real*>rows.logits + at * rows.V, p.path + at, 0, rows.blank
        log_sum_exp(rows.k, rows.lengths[b], rows.V, z, rows.V, p.log_sums + at, path)
        p.scores[b] = 0
        for t in range(rows.lengths[b]):
            label = path[t]
            p.scores[b] += z[t * rows.V + label] - p.log_sums[at + t]
            if label != rows.blank:
                if label != before:
                    p.first[at + n] = t
                    n += 1
                    path[n - 1] = label  # never beyond step t, which has been read
                p.last[at + n - 1] = t + 1
            before = label
        p.counts[b] = n
        b += count
