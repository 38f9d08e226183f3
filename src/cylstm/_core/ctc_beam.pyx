"""Prefix beam search for CTC (Hannun, Maas, Jurafsky & Ng 2014), for a team of threads.

A prefix is what an alignment has left so far. Each step keeps the `width` most probable ones, each with the probability
of its alignments that end in the blank and of those that end in its last label: a label after itself is the same one,
and after a blank another one. Prefixes are nodes of a tree and have one node for good, so that alignments which come to
the same one are added wherever they come from.
"""

import numpy as np

from libc.math cimport INFINITY, exp, log1p
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from cylstm._core.ctc cimport Rows, run_rows, set_rows
from cylstm._core.interrupt cimport goes_on_alone
from cylstm._core.kernels cimport log_sum_exp, real
from cylstm._core.memory cimport LARGEST
from cylstm._core.team cimport Team

cdef enum:
    OF_PREFIX = 400  # multiply-adds (team.pyx) that a step takes for each, measured roughly
    OF_CLASS = 8

MOST_PREFIXES = LARGEST  # of a row, steps times width: nodes are numbered by 32 bits

cdef struct Node:       # all but the label are numbers, -1 where there is none
    int32_t parent
    int32_t label
    int32_t child       # its last one; the others follow as siblings
    int32_t sibling
    int32_t slot        # where it is among the entries

cdef struct Entry:      # a prefix of the beam, logarithms of probabilities
    int32_t node
    double in_blank
    double in_label
    double all

cdef struct Candidate:  # a prefix with one label more or, the label being -1, the same prefix
    double score
    int32_t slot
    int32_t label

# The best `most` of what is offered: a heap, the least of them first.
cdef struct Best:
    Candidate* heap
    Py_ssize_t held, most

cdef struct Beam:
    Py_ssize_t V, blank, width, nodes_used, held, mark
    Node* nodes
    Entry* entries
    Entry* same         # as entries become without another label
    Entry* fresh        # of the next step
    Best best
    Best classes        # that may make a candidate, slots being 0
    int64_t* marks      # (V,) beam.mark where this label of an entry is an entry itself
    int32_t* children   # (width,) an entry's last child among the entries, by slot; and each one's sibling there
    int32_t* siblings
    double* log_sums    # (T,)
    int64_t* classes_of_steps

cdef struct Searches:
    Rows rows
    Py_ssize_t width, wanted, longest
    int64_t* labels     # (B, wanted, longest)
    int64_t* sizes      # (B, wanted), of labels; -1 where there is no such result
    double* scores      # (B, wanted)


cdef inline double log_add(double a, double b) noexcept nogil:
    """log(exp(a) + exp(b))"""
    if a < b:
        a, b = b, a
    return a if b == -INFINITY else a + log1p(exp(b - a))


cdef inline bint is_better(const Candidate* a, const Candidate* b) noexcept nogil:
    """By score; of equal ones the order has to be the same each time, whatever it is."""
    if a.score != b.score:
        return a.score > b.score
    return a.label < b.label if a.label != b.label else a.slot < b.slot


cdef int by_score(const void* a, const void* b) noexcept nogil:
    return -1 if is_better(<const Candidate*>a, <const Candidate*>b) else 1


cdef inline double least(const Best* best) noexcept nogil:
    """What a score has to exceed."""
    return best.heap[0].score if best.held == best.most else -INFINITY


cdef void offer(Best* best, double score, Py_ssize_t slot, Py_ssize_t label) noexcept nogil:
    cdef Candidate new
    cdef Py_ssize_t at, other
    new.score, new.slot, new.label = score, <int32_t>slot, <int32_t>label
    if not score > least(best):
        return
    if best.held < best.most:  # up from the end
        at = best.held
        best.held += 1
        while at > 0 and is_better(&best.heap[(at - 1) // 2], &new):
            best.heap[at] = best.heap[(at - 1) // 2]
            at = (at - 1) // 2
    else:  # in the place of the least, and down
        at = 0
        while True:
            other = 2 * at + 1
            if other >= best.held:
                break
            if other + 1 < best.held and is_better(&best.heap[other], &best.heap[other + 1]):
                other += 1
            if not is_better(&new, &best.heap[other]):
                break
            best.heap[at] = best.heap[other]
            at = other
    best.heap[at] = new


cdef int32_t child_of(Beam* beam, int32_t parent, int32_t label) noexcept nogil:
    """The node of a prefix with one label more, which may be there from a time when the beam had it."""
    cdef int32_t n = beam.nodes[parent].child
    cdef Node* node
    while n >= 0:
        if beam.nodes[n].label == label:
            return n
        n = beam.nodes[n].sibling
    n = <int32_t>beam.nodes_used
    beam.nodes_used += 1
    node = &beam.nodes[n]
    node.parent, node.label, node.child, node.slot = parent, label, -1, -1
    node.sibling, beam.nodes[parent].child = beam.nodes[parent].child, n
    return n


cdef void offer_the_same(Beam* beam, const real* z, double log_sum) noexcept nogil:
    """Each prefix as it is: after a blank, after its last label again, or made of its parent by that label."""
    cdef Py_ssize_t i, of
    cdef Node* node
    cdef Entry* old
    cdef Entry* new
    cdef double log_y
    for i in range(beam.held):
        old, new, node = &beam.entries[i], &beam.same[i], &beam.nodes[beam.entries[i].node]
        new.node, new.in_blank, new.in_label = old.node, old.all + (z[beam.blank] - log_sum), -INFINITY
        if node.parent >= 0:
            log_y = z[node.label] - log_sum
            new.in_label = old.in_label + log_y
            of = beam.nodes[node.parent].slot
            if of >= 0:
                old = &beam.entries[of]
                new.in_label = log_add(
                    new.in_label,
                    (old.in_blank if beam.nodes[old.node].label == node.label else old.all) + log_y)
        new.all = log_add(new.in_blank, new.in_label)
        offer(&beam.best, new.all, i, -1)


cdef void offer_longer(Beam* beam, const real* z, double log_sum) noexcept nogil:
    """Each prefix with one label more, unless that is in the beam."""
    cdef Py_ssize_t i, n, label
    cdef int32_t child
    cdef double most = -INFINITY
    cdef Entry* old
    cdef Candidate* found
    for i in range(beam.held):
        beam.children[i] = -1
        most = max(most, beam.entries[i].all)
    for i in range(beam.held):
        n = beam.nodes[beam.entries[i].node].parent
        n = beam.nodes[n].slot if n >= 0 else -1
        if n >= 0:
            beam.siblings[i], beam.children[n] = beam.children[n], <int32_t>i
    # Of a prefix at most width - 1 labels are in the beam already and one is its last, which follows on a blank only:
    # candidates come from the 2 width best classes.
    beam.classes.held = 0
    for label in range(beam.V):
        if label != beam.blank and most + (z[label] - log_sum) > least(&beam.best):
            offer(&beam.classes, z[label] - log_sum, 0, label)
    qsort(beam.classes.heap, beam.classes.held, sizeof(Candidate), by_score)
    for i in range(beam.held):
        old, beam.mark = &beam.entries[i], beam.mark + 1
        child = beam.children[i]
        while child >= 0:
            beam.marks[beam.nodes[beam.entries[child].node].label] = beam.mark
            child = beam.siblings[child]
        for n in range(beam.classes.held):
            found = &beam.classes.heap[n]
            if not old.all + found.score > least(&beam.best):
                break
            if beam.marks[found.label] != beam.mark:
                offer(&beam.best,
                      (old.in_blank if beam.nodes[old.node].label == found.label else old.all) + found.score, i,
                      found.label)


cdef void step(Beam* beam, const real* z, double log_sum) noexcept nogil:
    """The beam after one step more, of logits z (V,)."""
    cdef Py_ssize_t n
    cdef Candidate* found
    cdef Entry* entry
    beam.best.held = 0
    offer_the_same(beam, z, log_sum)
    offer_longer(beam, z, log_sum)
    for n in range(beam.held):
        beam.nodes[beam.entries[n].node].slot = -1
    beam.held = beam.best.held
    for n in range(beam.held):
        found, entry = &beam.best.heap[n], &beam.fresh[n]
        if found.label < 0:
            entry[0] = beam.same[found.slot]
        else:
            entry.node = child_of(beam, beam.entries[found.slot].node, found.label)
            entry.in_blank, entry.in_label, entry.all = -INFINITY, found.score, found.score
        beam.nodes[entry.node].slot = <int32_t>n
    beam.entries, beam.fresh = beam.fresh, beam.entries


cdef double room_of(Py_ssize_t T, Py_ssize_t V, Py_ssize_t width) noexcept nogil:
    """Bytes that lay_out() takes, each part rounded up."""
    return (sizeof(Node) * (1 + <double>T * width) + (3 * sizeof(Entry) + 3 * sizeof(Candidate) + 8.0) * width
            + sizeof(int64_t) * <double>V + 16.0 * T + 8 * 16)


cdef char* take(char** room, double size) noexcept nogil:
    cdef char* taken = room[0]
    room[0] += (<Py_ssize_t>size + 7) // 8 * 8
    return taken


cdef void lay_out(Beam* beam, Py_ssize_t T, Py_ssize_t V, Py_ssize_t width, Py_ssize_t blank,
                  char* room) noexcept nogil:
    """The beam before the first step: the empty prefix."""
    memset(beam, 0, sizeof(Beam))
    beam.V, beam.width, beam.blank, beam.best.most, beam.classes.most = V, width, blank, width, min(V, 2 * width)
    beam.log_sums = <double*>take(&room, 8 * T)
    beam.classes_of_steps = <int64_t*>take(&room, 8 * T)
    beam.marks = <int64_t*>take(&room, 8 * V)
    memset(beam.marks, 0, 8 * V)
    beam.entries, beam.same = <Entry*>take(&room, sizeof(Entry) * width), <Entry*>take(&room, sizeof(Entry) * width)
    beam.fresh = <Entry*>take(&room, sizeof(Entry) * width)
    beam.best.heap = <Candidate*>take(&room, sizeof(Candidate) * width)
    beam.classes.heap = <Candidate*>take(&room, sizeof(Candidate) * min(V, 2 * width))
    beam.children, beam.siblings = <int32_t*>take(&room, 4 * width), <int32_t*>take(&room, 4 * width)
    beam.nodes = <Node*>take(&room, sizeof(Node) * (1 + <double>T * width))
    beam.nodes[0].parent = beam.nodes[0].label = beam.nodes[0].child = beam.nodes[0].sibling = -1
    beam.nodes[0].slot = 0
    beam.nodes_used = beam.held = 1
    beam.entries[0].node, beam.entries[0].in_blank, beam.entries[0].in_label = 0, 0, -INFINITY
    beam.entries[0].all = 0


cdef void searches_f32(void* call, int me, int count, Team* team) noexcept nogil:
    searches_share(<const Searches*>call, me, count, <float*>NULL)

cdef void searches_f64(void* call, int me, int count, Team* team) noexcept nogil:
    searches_share(<const Searches*>call, me, count, <double*>NULL)


cdef void searches_share(const Searches* p, int me, int count, real* type_tag) noexcept nogil:
    cdef const Rows* rows = &p.rows
    cdef Py_ssize_t b = me, t, T
    cdef const real* z
    cdef Beam beam
    while b < rows.B:
        T, z = rows.lengths[b], <const real*>rows.logits + rows.starts[b] * rows.V
        lay_out(&beam, T, rows.V, p.width, rows.blank, rows.own + me * rows.own_bytes)
        log_sum_exp(rows.k, T, rows.V, z, rows.V, beam.log_sums, beam.classes_of_steps)
        for t in range(T):
            if not goes_on_alone(rows.interrupt, me, t):
                return
            step(&beam, z + t * rows.V, beam.log_sums[t])
        write_out(p, &beam, b)
        b += count


cdef void write_out(const Searches* p, Beam* beam, Py_ssize_t b) noexcept nogil:
    """The best results of row b, the best first."""
    cdef Py_ssize_t n, size, to
    cdef int32_t node
    for n in range(beam.held):
        beam.best.heap[n].score, beam.best.heap[n].slot, beam.best.heap[n].label = beam.entries[n].all, <int32_t>n, -1
    qsort(beam.best.heap, beam.held, sizeof(Candidate), by_score)
    for n in range(p.wanted):
        p.sizes[b * p.wanted + n] = -1
        if n >= beam.held:
            continue
        size, node, to = 0, beam.entries[beam.best.heap[n].slot].node, (b * p.wanted + n) * p.longest
        while beam.nodes[node].parent >= 0:
            node, size = beam.nodes[node].parent, size + 1
        p.sizes[b * p.wanted + n], p.scores[b * p.wanted + n] = size, beam.best.heap[n].score
        node = beam.entries[beam.best.heap[n].slot].node
        while size > 0:
            size -= 1
            p.labels[to + size] = beam.nodes[node].label
            node = beam.nodes[node].parent


def search(const real[:, ::1] logits, const int64_t[::1] starts, const int64_t[::1] lengths, Py_ssize_t blank,
           Py_ssize_t width, Py_ssize_t wanted):
    """Of each row the `wanted` most probable labellings among the `width` that the beam held in the end: labels
    (B, wanted, T), how many each has (B, wanted), -1 where there is no further one, and the logarithms of their
    probabilities (B, wanted). A row whose logits are no numbers may have no result at all."""
    cdef Searches call
    cdef double work = 0
    cdef Py_ssize_t b, B = starts.shape[0], T = 1, V = logits.shape[1]
    memset(&call, 0, sizeof(Searches))
    set_rows(&call.rows, logits.shape[0], V, starts, lengths, blank)
    call.rows.logits = &logits[0, 0]
    for b in range(B):
        T = max(T, lengths[b])
        work += <double>lengths[b] * (OF_PREFIX * width + OF_CLASS * V)
    if not 1 <= wanted <= width or <double>T * width >= LARGEST or V > LARGEST:
        raise ValueError(f"width: expected {wanted}..{(LARGEST - 1) // T} for {T} steps, got {width}")
    if <double>B * wanted * T >= 1e14:
        raise MemoryError(f"expected a call of less than 1e+15 bytes, got {B} rows of {wanted} results")
    labels, sizes = np.empty((B, wanted, T), np.int64), np.empty((B, wanted), np.int64)
    scores = np.empty((B, wanted))
    cdef int64_t[:, :, ::1] labels_view = labels
    cdef int64_t[:, ::1] sizes_view = sizes
    cdef double[:, ::1] scores_view = scores
    call.width, call.wanted, call.longest = width, wanted, T
    call.labels, call.sizes, call.scores = &labels_view[0, 0, 0], &sizes_view[0, 0], &scores_view[0, 0]
    run_rows(&call.rows, searches_f32 if real is float else searches_f64, &call, work, room_of(T, V, width))
    return labels, sizes, scores
