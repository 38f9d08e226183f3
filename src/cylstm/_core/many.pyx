"""Many models of one shape, side by side: each model on one thread, batch after batch, without the GIL.

What a model computes is what a call of its own computes, by the same functions (network.pyx, head.pyx, updates.pyx): a
batch is gathered into the thread's memory, the weights are packed into it, and the network, the head, clipping and the
optimiser follow one another as they do in loss_and_gradients.py and training/run.py.
"""

from libc.math cimport isfinite, sqrt
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cylstm._core.head cimport cut_outputs, cut_rows, form_of, head_f32, head_f64, lay_out_head, sums_of
from cylstm._core.interrupt cimport goes_on_alone
from cylstm._core.kernels cimport PANELS, real
from cylstm._core.network cimport run_network_backward, run_network_forward
from cylstm._core.packing cimport pack_again, vectors_fit_tiles
from cylstm._core.ragged cimport alive, caller_row, offset, sort_rows
from cylstm._core.team cimport Team, run
from cylstm._core.tile_range cimport backward_fits_tiles, forward_fits_tiles
from cylstm._core.updates cimport Flat, adam_flat, run_pass, scale_flat, sgd_flat, squares

cdef extern from * nogil:
    """
    #define cylstm_take(counter) __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)
    """
    Py_ssize_t take "cylstm_take"(Py_ssize_t* counter)


cdef void many_f32(void* job, int me, int count, Team* team) noexcept nogil:
    many_member(<Job*>job, me, <float*>NULL)

cdef void many_f64(void* job, int me, int count, Team* team) noexcept nogil:
    many_member(<Job*>job, me, <double*>NULL)


cdef void many_member(Job* job, int me, real* type_tag) noexcept nogil:
    """What one member does: models, as they come."""
    cdef Desk* desk = &job.desks[me]
    cdef Py_ssize_t n = take(&job.next), u
    while n < job.count:
        for u in range(job.U):
            if not goes_on_alone(job.interrupt, me, u):
                return
            if not one_batch(job, desk, n, u, type_tag):
                break
        n = take(&job.next)


cdef bint one_batch(const Job* job, Desk* desk, Py_ssize_t n, Py_ssize_t u, real* type_tag) noexcept nogil:
    """Batch u of the chosen model n; whether the next one may follow."""
    cdef const Shape* shape = job.shape
    cdef const int64_t* starts = job.starts + job.order_of[n] * (job.U + 1)
    cdef const int64_t* rows = job.orders + job.order_of[n] * job.R + starts[u]
    cdef Py_ssize_t B = starts[u + 1] - starts[u], tokens = gather_batch(job, desk, job.chosen[n], rows, B)
    cdef double* results = job.results + n * RESULTS
    cdef real* flat = <real*>job.flat + job.chosen[n] * shape.P
    cdef Place* place = &desk.places[0]
    cdef bint chosen = True
    cdef double total, weight, hits, loss
    cdef int number = 0
    if tokens == 0 and job.task != PREDICT:
        return True  # nothing counts
    while number < desk.count - 1 and not (place.B == B and place.fewest <= desk.steps.N <= place.most):
        number += 1
        place = &desk.places[number]
    chosen = forward_batch(shape, desk, place, flat, type_tag)
    see(shape, desk, job.task == PREDICT, type_tag)
    if job.task == PREDICT:
        give_outputs(job, desk, n, rows, B, tokens, flat, type_tag)
        return True
    loss_of_batch(job, desk, tokens, flat, &total, &weight, &hits, type_tag)
    weight = tokens * shape.groups
    if job.task == LEARN:
        backward_batch(shape, desk, place, chosen, tokens, flat, type_tag)
        loss = job.head_weight * (total / weight)
        if not update(job, desk, n, u, flat, loss, type_tag):
            return False
    results[TOTAL] += total
    results[WEIGHT] += weight
    results[HITS] += hits
    results[TOKENS] += weight
    return True


# --- a batch ----------------------------------------------------------------------------------------------------------

cdef Py_ssize_t gather_batch(const Job* job, Desk* desk, Py_ssize_t model, const int64_t* rows,
                             Py_ssize_t B) noexcept nogil:
    """Its rows, cut after the longest, and their targets, as `training.dataset.Dataset` has them; whole rows for
    outputs, as `Model.at_once` has them. Returns how many rows the head sees."""
    cdef const Shape* shape = job.shape
    cdef Steps* s = &desk.steps
    cdef const char* x = job.x + model * job.x_apart
    cdef const char* y = job.y + model * job.y_apart
    cdef const int64_t* lengths = NULL
    cdef Py_ssize_t T = shape.T, step = sizeof(int64_t) if shape.has_ids else shape.I * shape.item, b, t, count, at = 0
    cdef Py_ssize_t steps = 1 if shape.last else shape.T
    cdef bint even = True
    memset(s, 0, sizeof(Steps))
    if job.lengths != NULL:
        lengths = job.lengths + model * job.lengths_apart
        T = shape.T if job.task == PREDICT else 1
        for b in range(B):
            desk.lengths[b] = lengths[rows[b]]
            T = max(T, desk.lengths[b])
        for b in range(B):
            even = even and desk.lengths[b] == T
    s.B, s.T, s.N = B, T, B * T
    if not even:
        sort_rows(s, desk.lengths, desk.table)
    if shape.has_ids:
        for t in range(T):
            for b in range(alive(s, t)):
                desk.ids[offset(s, t) + b] = (<const int64_t*>x)[rows[caller_row(s, b)] * shape.T + t]
    else:
        for b in range(B):
            memcpy(desk.x + b * T * step, x + rows[b] * shape.T * step, T * step)
    for b in range(B):
        count = 1 if shape.last else T if even or job.task == PREDICT else desk.lengths[b]
        if y != NULL:
            memcpy(desk.targets + at * shape.target_bytes, y + rows[b] * steps * shape.target_bytes,
                   count * shape.target_bytes)
        at += count
    return at


cdef bint forward_batch(const Shape* shape, Desk* desk, Place* place, const real* flat,
                        real* type_tag) noexcept nogil:
    """Outputs and final state; whether the products had the forms that were chosen."""
    cdef Forward* call = place.forward
    cdef const char* weights = <const char*>(flat + shape.at_lstm)
    cdef bint fits
    call.s, call.directions, call.interrupt, call.most = &desk.steps, place.directions[0], &desk.quiet, 1
    call.h0 = call.c0 = NULL
    call.y, call.y_row, call.y_step = desk.y, desk.steps.T * shape.width, shape.width
    call.hn, call.cn = desk.hn, desk.cn
    if shape.has_ids:
        call.record.inputs.ids = desk.ids
    else:
        call.record.inputs.caller, call.record.inputs.row = desk.x, desk.steps.T * shape.I
        call.record.inputs.step = shape.I
    fits = pack_again(place.packings, place.ends[0], weights)
    if place.choice.bounded:
        fits = fits and forward_fits_tiles(call) and vectors_fit_tiles(shape.k, call.directions, shape.L * shape.D)
        if not fits:
            pack_again(place.packings + place.ends[1], place.ends[2] - place.ends[1], weights)
            call.directions = place.directions[1]
    run_network_forward(call, shape.doubles)
    return fits


cdef void see(const Shape* shape, Desk* desk, bint all_steps, real* type_tag) noexcept nogil:
    """h (tokens, F), which the head looks at: the final h of the last layer's directions, or outputs of real steps or
    of all, which are 0 past a row's end."""
    cdef const Steps* s = &desk.steps
    cdef Py_ssize_t Y = shape.h_width, b, d, at = 0
    cdef const real* hn = <const real*>desk.hn + (shape.L - 1) * shape.D * s.B * shape.h_size
    cdef real* h = <real*>desk.h
    if shape.last:
        for b in range(s.B):
            for d in range(shape.D):
                memcpy(h + (b * shape.D + d) * Y, hn + (d * s.B + b) * shape.h_size, Y * sizeof(real))
    elif s.sizes != NULL and not all_steps:
        for b in range(s.B):
            memcpy(h + at * shape.width, <const real*>desk.y + b * s.T * shape.width,
                   desk.lengths[b] * shape.width * sizeof(real))
            at += desk.lengths[b]
    desk.head.h = h if shape.last or (s.sizes != NULL and not all_steps) else <real*>desk.y


cdef void place_head(const Shape* shape, Desk* desk, const real* flat, bint outputs, Py_ssize_t pieces,
                     real* type_tag) noexcept nogil:
    cdef Head* head = &desk.head
    head.weight = flat + shape.at_weight
    head.bias = flat + shape.at_bias if shape.at_bias >= 0 else <const real*>head.zeros
    head.form = form_of(head, type_tag)
    lay_out_head(head, 1, pieces, outputs, shape.item, desk.head_memory)
    head.interrupt = &desk.quiet


cdef void loss_of_batch(const Job* job, Desk* desk, Py_ssize_t tokens, const real* flat, double* total, double* weight,
                        double* hits, real* type_tag) noexcept nogil:
    """The sums of the loss and, where models learn, its gradients by h and by the head's parameters."""
    cdef const Shape* shape = job.shape
    cdef Head* head = &desk.head
    cdef real* gradients = <real*>desk.gradients
    cdef Py_ssize_t pieces
    head.N, head.gradient, head.targets, head.piece = tokens, job.task == LEARN, desk.targets, shape.piece
    head.scale = job.head_weight / <double>(tokens * shape.groups)
    pieces = cut_rows(head, shape.item)
    place_head(shape, desk, flat, True, pieces, type_tag)
    head.dh = desk.dh
    head.dweight = gradients + shape.at_weight
    head.dbias = gradients + shape.at_bias if shape.at_bias >= 0 else NULL
    run(1, head_f32 if real is float else head_f64, head)
    sums_of(head, pieces, total, weight, hits)


cdef void give_outputs(const Job* job, Desk* desk, Py_ssize_t n, const int64_t* rows, Py_ssize_t B, Py_ssize_t tokens,
                       const real* flat, real* type_tag) noexcept nogil:
    """Outputs of a batch into their places; 0 past a row's end."""
    cdef const Shape* shape = job.shape
    cdef const Steps* s = &desk.steps
    cdef Head* head = &desk.head
    cdef Py_ssize_t O = shape.outputs, steps = 1 if shape.last else shape.T, b, count
    cdef real* target
    head.N, head.gradient, head.outputs, head.piece = tokens, False, desk.dh, 0  # no loss
    cut_outputs(head)
    place_head(shape, desk, flat, False, 0, type_tag)
    run(1, head_f32 if real is float else head_f64, head)
    for b in range(B):
        target = <real*>job.outputs + (n * job.R + rows[b]) * steps * O
        count = 1 if shape.last else desk.lengths[b] if s.sizes != NULL else s.T
        memcpy(target, <const real*>desk.dh + b * steps * O, count * O * sizeof(real))
        memset(target + count * O, 0, (steps - count) * O * sizeof(real))


cdef void backward_batch(const Shape* shape, Desk* desk, Place* place, bint chosen, Py_ssize_t tokens,
                         const real* flat, real* type_tag) noexcept nogil:
    """The gradients of the LSTM's parameters, from those by h."""
    cdef Backward* call = place.backward
    cdef const Steps* s = &desk.steps
    cdef Py_ssize_t Y = shape.h_width, width = shape.width, b, d, at = 0
    cdef const char* weights = <const char*>(flat + shape.at_lstm)
    cdef real* dy = <real*>desk.dy
    cdef real* dhn = <real*>desk.dhn + (shape.L - 1) * shape.D * s.B * shape.h_size
    cdef const real* dh = <const real*>desk.dh
    cdef bint fits
    call.s, call.directions, call.interrupt, call.record = s, place.directions[0], &desk.quiet, place.forward.record
    call.dhn, call.dcn, call.dx, call.packed = NULL, NULL, NULL, False
    call.given_h = call.given_c = False
    call.dh0, call.dc0, call.dflat = desk.dh0, desk.dc0, <real*>desk.gradients + shape.at_lstm
    call.dy, call.dy_row, call.dy_step = desk.dh, s.T * width, width
    if shape.last:
        call.dy, call.dhn = desk.dy, desk.dhn  # dy is 0, and so is what dhn has of layers below
        memset(desk.dhn, 0, shape.L * shape.D * s.B * shape.h_size * sizeof(real))
        for b in range(s.B):
            for d in range(shape.D):
                memcpy(dhn + (d * s.B + b) * shape.h_size, dh + (b * shape.D + d) * Y, Y * sizeof(real))
    elif s.sizes != NULL:
        call.dy = desk.dy
        memset(dy, 0, s.B * s.T * width * sizeof(real))
        for b in range(s.B):
            memcpy(dy + b * s.T * width, dh + at * width, desk.lengths[b] * width * sizeof(real))
            at += desk.lengths[b]
    call.form = place.choice.gradients
    fits = pack_again(place.packings + place.ends[0], place.ends[1] - place.ends[0], weights)
    if place.choice.bounded and not (chosen and fits and backward_fits_tiles(call)):
        pack_again(place.packings + place.ends[2], place.ends[3] - place.ends[2], weights)
        call.directions, call.form = place.directions[1], PANELS
    run_network_backward(call, shape.doubles, 1)


# --- an update --------------------------------------------------------------------------------------------------------

cdef bint update(const Job* job, Desk* desk, Py_ssize_t n, Py_ssize_t u, real* flat, double loss,
                 real* type_tag) noexcept nogil:
    """Clip the gradients and update the weights, as `training.run.Run.update`; False, with nothing changed, where the
    loss or the norm is no number."""
    cdef real* g = <real*>desk.gradients
    cdef Py_ssize_t P = job.shape.P, at = job.chosen[n] * P, j
    cdef const int64_t* one
    cdef double* results = job.results + n * RESULTS
    cdef double norm, of_one, scale = 1.0
    cdef int64_t* updates = job.updates + job.chosen[n]
    cdef Flat f
    for j in range(job.parameters):
        one = job.parameter + 3 * j
        if not one[2]:
            memset(g + one[0], 0, (one[1] - one[0]) * sizeof(real))
    norm = sqrt(squares(g, P, desk.sums))
    if not (isfinite(loss) and isfinite(norm)):
        results[FAILED], results[BAD_LOSS], results[BAD_NORM] = u, loss, norm
        return False
    results[NORMS] += norm
    results[NORMED] += 1
    if job.clip_norm > 0 and not job.clip_each:
        scale = min(1.0, job.clip_norm / (norm + 1e-6))
    for j in range(job.parameters if job.clip_norm > 0 and job.clip_each else 0):
        one = job.parameter + 3 * j
        of_one = sqrt(squares(g + one[0], one[1] - one[0], desk.sums))
        if of_one > job.clip_norm:
            scale_flat(g + one[0], one[1] - one[0], job.clip_norm / (of_one + 1e-6))
    updates[0] += 1
    if job.optimiser == OF_ADAM:
        f = adam_flat(updates[0], job.rates[n * job.U + u], job.beta1, job.beta2, job.eps, 0, job.decoupled, scale)
    else:
        f = sgd_flat(job.rates[n * job.U + u], job.momentum, job.nesterov, 0, scale)
    for j in range(job.pieces):
        f.n, f.decay = job.piece[2 * j + 1] - job.piece[2 * j], job.decay[j]
        f.p, f.g = flat + job.piece[2 * j], g + job.piece[2 * j]
        f.m = <real*>job.m + at + job.piece[2 * j] if job.m != NULL else NULL
        f.v = <real*>job.v + at + job.piece[2 * j] if job.v != NULL else NULL
        run_pass(&f, g)
    return True


cdef void run_job(Job* job, int members) noexcept nogil:
    run(members, many_f64 if job.shape.doubles else many_f32, job)
