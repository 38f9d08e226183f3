"""What calls of many models come in by: memory for each thread, and arrays, checked before, for all of them."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

import numpy

from cylstm._core.arena cimport Work
from cylstm._core.choice cimport TILED_ROWS, plain_forms
from cylstm._core.direction cimport Direction
from cylstm._core.head cimport cut_rows, lay_out_head, take_loss
from cylstm._core.interrupt cimport Interrupt, begin, finish
from cylstm._core.kernels cimport BLAS, ROUNDED_TILES, TILES, active
from cylstm._core.layer cimport Layer
from cylstm._core.many cimport (
    LEARN, MEASURE, OF_ADAM, OF_SGD, PREDICT, RESULTS, Desk, Job, Place, Shape, run_job,
)
from cylstm._core.packed_weights cimport Packed, Weights
from cylstm._core.packing cimport Again
from cylstm._core.ragged cimport Plan
from cylstm._core.updates cimport AT_ONCE

from cylstm._core.memory import aligned_empty
from cylstm._core.team import num_threads
from cylstm.parameters import Parameters

cdef extern from *:
    """
    #undef I  /* a letter of ours, which <complex.h>, brought in by NumPy's headers, takes */
    """

COLUMNS = RESULTS  # of a model's results, in the order of many.pxd


cdef class Seat:
    """A Work for batches of one size, with room for all weights in the forms that they may take."""

    cdef Work work
    cdef Packed packed
    cdef Direction* plain
    cdef Place place

    def __dealloc__(self):
        PyMem_Free(self.plain)

    cdef int lay_out(self, Weights weights, Plan plan, bint has_ids, bint keep) except -1:
        cdef Work work = Work(weights)
        cdef Place* place = &self.place
        cdef Py_ssize_t count = weights.L * weights.D
        work.lay_out(weights, plan, has_ids, keep, 0, not has_ids)
        if keep:
            work.lay_out_backward(weights, 1)
        self.work, self.packed = work, Packed(count)
        self.packed.again = Again()
        self.plain = <Direction*>PyMem_Calloc(count, sizeof(Direction))
        if self.plain == NULL:
            raise MemoryError
        memcpy(self.plain, work.directions, count * sizeof(Direction))
        weights.fill_forward(self.packed, work.directions, work.choice, has_ids)
        place.ends[0] = self.packed.again.count
        if keep:
            weights.fill_backward(self.packed, work.directions, work.choice, False)
        place.ends[1] = self.packed.again.count
        if work.choice.bounded:
            weights.fill_forward(self.packed, self.plain, plain_forms(), has_ids)
        place.ends[2] = self.packed.again.count
        if work.choice.bounded and keep:
            weights.fill_backward(self.packed, self.plain, plain_forms(), False)
        place.ends[3], place.packings = self.packed.again.count, self.packed.again.packings
        place.choice, place.forward, place.backward = work.choice, &work.forward, &work.backward
        place.directions[0], place.directions[1] = work.directions, self.plain
        return 0


cdef class Crew:
    """Threads, each with memory for one model at a time, for calls of many models with one kind of data.

    layer : the LSTM of one of them. head : its Head; parameters : its Parameters, for the layout. sizes : how many rows
    batches have; T : steps; has_ids : whether inputs are ids; ragged : whether rows have lengths. keep : whether models
    are to learn, and not only to run.
    """

    cdef Shape shape
    cdef Desk* desks
    cdef int members
    cdef list seats, held
    cdef object kind, parameters, starts
    cdef Weights weights
    cdef bint keep, ragged
    cdef tuple sizes

    def __cinit__(self):
        self.desks, self.members, self.seats, self.held = NULL, 0, [], []

    def __dealloc__(self):
        PyMem_Free(self.desks)

    def __init__(self, Layer layer not None, head, parameters, tuple sizes, Py_ssize_t T, bint has_ids, bint ragged,
                 bint keep):
        cdef Shape* shape = &self.shape
        cdef Weights own = layer._weights
        of_layer = Parameters(layer.parameters.layout, layer.dtype)  # forms fit zeros; whose weights come later
        of_layer.raw()[:] = 0
        one_per_direction = [tuple(row) for row in numpy.asarray(own.sizes).tolist()]
        self.weights = Weights(layer.input_size, layer.hidden_sizes, layer.num_layers, layer.num_directions, own.cell,
                               own.doubles, of_layer)
        self.weights.rounded, self.weights.most = own.rounded, 1
        self.sizes, self.keep, self.ragged, self.kind = sizes, keep, ragged, head.loss
        at, starts = 0, {}
        for name, parameter in parameters.layout.items():
            starts[name], at = at, at + numpy.prod(parameter, dtype=int)
        last = one_per_direction[layer.num_layers - 1]
        shape.k, shape.doubles, shape.item = active(), own.doubles, 8 if own.doubles else 4
        shape.has_ids, shape.last, shape.rounded = has_ids, head.output == "last", own.rounded
        shape.I, shape.L, shape.D, shape.T = layer.input_size, layer.num_layers, layer.num_directions, T
        shape.h_size, shape.c_size, shape.h_width, shape.width = layer.h_size, layer.hidden_size, last[1], last[2]
        shape.P, shape.at_lstm, shape.at_weight = at, starts[f"lstm.{next(iter(of_layer))}"], starts["head.weight"]
        shape.at_bias = starts.get("head.bias", -1)
        shape.outputs, shape.F = parameters.layout["head.weight"]
        shape.groups, shape.piece = head.groups, head.loss.piece
        width = head.loss.width(head.output_size)
        shape.target_bytes = head.groups * (width[0] * shape.item if width else 8)

    cdef int seat(self) except -1:
        """A desk for each thread that may be wanted."""
        cdef int wanted = num_threads(), n
        cdef Desk* desks
        if wanted <= self.members:
            return 0
        desks = <Desk*>PyMem_Calloc(wanted, sizeof(Desk))
        if desks == NULL:
            raise MemoryError
        if self.members:
            memcpy(desks, self.desks, self.members * sizeof(Desk))
        PyMem_Free(self.desks)
        self.desks = desks
        for n in range(self.members, wanted):
            self._furnish(&self.desks[n])
            self.members += 1
        return 0

    cdef int _furnish(self, Desk* desk) except -1:
        cdef Shape* shape = &self.shape
        cdef Py_ssize_t B = max(self.sizes), T = shape.T, item = shape.item, one
        cdef Py_ssize_t h_bytes = shape.L * shape.D * B * shape.h_size * item
        cdef Py_ssize_t c_bytes = shape.L * shape.D * B * shape.c_size * item
        cdef Py_ssize_t rows = B if shape.last else B * T, seen = rows * shape.F * item
        cdef const double[::1] numbers
        for one in self.sizes:
            self._place(desk, one)
        desk.table = <int64_t*>self._memory(8 * (2 * (T + B) + 1))
        desk.lengths = <int64_t*>self._memory(8 * B)
        desk.ids = <int64_t*>self._memory(8 * B * T * shape.has_ids)
        desk.x = self._memory((not shape.has_ids) * B * T * shape.I * item)
        desk.targets = self._memory(rows * shape.target_bytes)
        desk.y = self._memory(B * T * shape.width * item)
        desk.h, desk.dh = self._memory(seen), self._memory(max(seen, rows * shape.outputs * item))
        desk.dy = self._memory(self.keep * B * T * shape.width * item)
        desk.hn, desk.cn = self._memory(h_bytes), self._memory(c_bytes)
        desk.dhn, desk.dh0, desk.dc0 = self._memory(h_bytes), self._memory(h_bytes), self._memory(c_bytes)
        desk.gradients = self._memory(shape.P * item)
        desk.sums = <double*>self._memory(8 * (shape.P // AT_ONCE + 1))
        take_loss(&desk.head, self.kind, shape.groups)
        desk.head.F, desk.head.O, desk.head.rounded = shape.F, shape.outputs, shape.rounded
        desk.head.target_bytes = shape.target_bytes
        desk.head.zeros = self._memory(max(shape.F, shape.outputs) * item)
        if self.kind.parameters:
            given = numpy.array(self.kind.parameters, numpy.float64)
            numbers = given
            self.held.append(given)
            desk.head.parameters = &numbers[0]
        desk.head_memory = self._memory(self._head_bytes(desk, rows))
        begin(&desk.quiet)
        desk.quiet.silent = True
        return 0

    cdef Py_ssize_t _head_bytes(self, Desk* desk, Py_ssize_t rows) except -1:
        """What the head takes at most, in whichever form."""
        cdef Py_ssize_t most = 0, pieces
        cdef int form
        desk.head.N, desk.head.gradient = rows, self.keep
        pieces = cut_rows(&desk.head, self.shape.item)
        desk.head.chunk = rows
        for form in (BLAS, TILES, ROUNDED_TILES):
            desk.head.form = form
            most = max(most, lay_out_head(&desk.head, 1, pieces, True, self.shape.item, NULL))
        return most

    cdef char* _memory(self, Py_ssize_t size) except NULL:
        """So many bytes of zeros."""
        cdef unsigned char[::1] view
        memory = aligned_empty(size + 64, "u1")
        memory[:] = 0
        self.held.append(memory)
        view = memory
        return <char*>&view[0]

    cdef int _place(self, Desk* desk, Py_ssize_t B) except -1:
        """What batches of B rows need: where tiles may pay, those of few steps have other forms."""
        cdef Py_ssize_t T = self.shape.T, most = B * T, few = TILED_ROWS - 1
        if not self.ragged:
            return self._seat_at(desk, Plan(B, T), B, most, most)
        # Rows that end before step T + 1 make a ragged batch of as many steps as there may be.
        if most > few:
            self._seat_at(desk, Plan(B, T + 1, numpy.full(B, T)), B, TILED_ROWS, most)
        lengths = numpy.minimum(numpy.maximum(few - T * numpy.arange(B), 0), T)
        return self._seat_at(desk, Plan(B, T + 1, lengths), B, 0, min(few, most))

    cdef int _seat_at(self, Desk* desk, Plan plan, Py_ssize_t B, Py_ssize_t fewest, Py_ssize_t most) except -1:
        cdef Seat seat = Seat()
        seat.lay_out(self.weights, plan, self.shape.has_ids, self.keep)
        seat.place.B, seat.place.fewest, seat.place.most = B, fewest, most
        desk.places[desk.count] = seat.place
        desk.count += 1
        self.seats.append(seat)
        return 0

    def run(self, task, const int64_t[::1] chosen, flat, x, y, lengths, const int64_t[:, ::1] orders,
            const int64_t[:, ::1] starts, const int64_t[::1] order_of, double[:, ::1] results, double head_weight=1.0,
            outputs=None, learning=None):
        """One pass of the models `chosen` over their data: "learn", "measure" or "predict".

        flat (N, P): parameters. x (N, R, T, I) or (N, R, T) ids, y, lengths (N, R) or None: of all models or, with 1 in
        the place of N, the same for all. orders (K, R) and starts (K, U + 1): orders of the rows and where their
        batches begin, of which each chosen model has number order_of. results (chosen, COLUMNS): zeros, to be added to.
        outputs: room for what "predict" gives. learning: a dict of what "learn" needs beside, of which `updates` (N,)
        are those of all models, counted as they happen.

        What was checked before is not checked again: memory is contiguous and of the layer's type. Raises what a
        handler of signals raises; then some of the models have had some of their batches.
        """
        cdef Job job
        cdef Interrupt interrupt
        cdef const int64_t[:, ::1] pieces, parameters
        cdef const double[::1] decays
        cdef const double[:, ::1] rates
        cdef int64_t[::1] updates
        cdef int members
        if self.shape.k != active():
            raise RuntimeError("run: expected the kernels that the crew was made for, got others")
        self.seat()
        members = min(<Py_ssize_t>num_threads(), <Py_ssize_t>self.members)
        memset(&job, 0, sizeof(Job))
        job.task = {"learn": LEARN, "measure": MEASURE, "predict": PREDICT}[task]
        job.shape, job.desks, job.interrupt = &self.shape, self.desks, &interrupt
        job.count, job.R, job.U = chosen.shape[0], orders.shape[1], starts.shape[1] - 1
        if not (job.count and job.U):
            return
        job.chosen, job.order_of = &chosen[0], &order_of[0]
        job.orders, job.starts, job.results = &orders[0, 0], &starts[0, 0], &results[0, 0]
        job.flat = address(flat)
        job.x, job.x_apart = address(x), apart(x)
        if y is not None:
            job.y, job.y_apart = address(y), apart(y)
        if lengths is not None:
            job.lengths, job.lengths_apart = <const int64_t*>address(lengths), apart(lengths) // 8
        if outputs is not None:
            job.outputs = address(outputs)
        job.head_weight = head_weight
        if learning is not None:
            pieces, parameters, decays = learning["pieces"], learning["parameters"], learning["decays"]
            rates, updates = learning["rates"], learning["updates"]
            job.pieces, job.parameters = pieces.shape[0], parameters.shape[0]
            if job.pieces:
                job.piece, job.decay = &pieces[0, 0], &decays[0]
            job.parameter, job.rates, job.updates = &parameters[0, 0], &rates[0, 0], &updates[0]
            job.m = address(learning["m"]) if learning["m"] is not None else NULL
            job.v = address(learning["v"]) if learning["v"] is not None else NULL
            job.clip_norm, job.clip_each = learning["clip_norm"] or 0, learning["clip_each"]
            job.optimiser = OF_ADAM if learning["adam"] else OF_SGD
            job.momentum, job.nesterov = learning["momentum"], learning["nesterov"]
            job.beta1, job.beta2 = learning["betas"]
            job.eps, job.decoupled = learning["eps"], learning["decoupled"]
        begin(&interrupt)
        with nogil:
            run_job(&job, <int>min(<Py_ssize_t>members, job.count))
        finish(&interrupt)


cdef char* address(array) except NULL:
    """Of a contiguous array's first number; of one that is not to be written to, which is for reading, too."""
    cdef const unsigned char[::1] view = array.reshape(-1).view("u1")
    return <char*>&view[0]


cdef Py_ssize_t apart(array) except -1:
    """Bytes from one model's part to the next one's."""
    return array.nbytes // len(array) if len(array) > 1 else 0
