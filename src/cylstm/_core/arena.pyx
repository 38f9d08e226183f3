"""Memory for calls: how much each piece takes and where it lies, and the shelf on which it waits for the next call.

Fresh memory costs a page fault for each 4 kB, and working out a layout costs more than a small step: a stream of calls
of one shape pays for both once.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memset

import numpy

from cylstm._core.choice cimport Choice, choose, choose_rounded, choose_small, plain_forms
from cylstm._core.kernels cimport (
    NARROW, PANELS, Activation, Kernels, activation_of, active, columns_of, gradients_bytes, left_bytes, right_bytes,
)
from cylstm._core.memory cimport fitting
from cylstm._core.network cimport Backward, Forward
from cylstm._core.tile_range cimport backward_fits_tiles, forward_fits_tiles
from cylstm._core.team cimport ALL_THREADS, ROWS_EACH
from cylstm._core.direction cimport OUTPUTS, PER_ROW, STATES, WEIGHTS, ZONED_C, ZONED_H, Direction, masks_of
from cylstm._core.forward cimport rows_at_once
from cylstm._core.gradients cimport DX_ROWS, GRADIENT_ROWS
from cylstm._core.pieces cimport Norms, Pieces, left_room, lines, place, place_norms, point_norms, right_room
from cylstm._core.ragged cimport Plan, Steps, alive, slot
from cylstm._core.packed_weights cimport (
    BIASES, FIRST_C, FIRST_H, HIGHWAY, HIGHWAY_BIAS, NORM_C, NORM_HH, NORM_IH, PEEPHOLE, WEIGHT_HH, WEIGHT_HR,
    WEIGHT_IH, Weights,
)

cdef enum:
    SHELVED = 8       # works that wait, if they are small:
    SMALL = 1048576   # bytes

cdef class Work:
    """Memory and pointers for calls of one shape, one call at a time."""

    def __cinit__(self, Weights weights):
        cdef Py_ssize_t directions = weights.L * weights.D
        self.directions = <Direction*>PyMem_Calloc(directions, sizeof(Direction))
        if self.directions == NULL:
            raise MemoryError
        self.doubles, self.item = weights.doubles, 8 if weights.doubles else 4

    def __dealloc__(self):
        self.give_back()
        PyMem_Free(self.directions)

    cdef int zone_out(self, shares) except -1:
        """Tell the directions the two shares of zoneout, for which there is room."""
        cdef double of_c = shares[0] if self.masked & ZONED_C else 0, of_h = shares[1] if self.masked & ZONED_H else 0
        cdef Py_ssize_t n
        for n in range(self.forward.L * self.forward.D):
            self.directions[n].zone_c, self.directions[n].zone_h = of_c, of_h
        return 0

    cdef int lend(self, Weights weights, bint fits_tiles) except -1:
        """Borrow the weights as they are now and point the directions at what a forward call needs of them."""
        self.spent = False
        if self.masked & WEIGHTS:
            self.packed = weights.borrow_masked(self.masks.weights)
        else:
            self.packed = weights.borrow()
        return self.take_forms(weights, fits_tiles)

    cdef bint forward_fits(self) noexcept:
        """Whether tiles, where there are to be any, hold what the forward call is given."""
        cdef bint fits = True
        if self.choice.bounded:
            with nogil:
                fits = forward_fits_tiles(&self.forward)
        return fits

    cdef bint backward_fits(self) noexcept:
        """The same of the backward call."""
        cdef bint fits = True
        if self.used.bounded:
            with nogil:
                fits = backward_fits_tiles(&self.backward)
        return fits

    cdef int take_forms(self, Weights weights, bint fits_tiles) except -1:
        """fits_tiles: whether tiles hold what the call is given (or nobody has asked, where it takes none). All of a
        call is tiles or nothing: what weights that tiles do not hold make of its inputs may not fit either."""
        self.used = self.choice
        if not (fits_tiles and weights.fill_forward(self.packed, self.directions, self.used, self.has_ids)):
            self.used = plain_forms()
            weights.fill_forward(self.packed, self.directions, self.used, self.has_ids)
        return 0

    cdef int take_backward_forms(self, Weights weights, bint fits_tiles, bint to_inputs) except -1:
        """Tiles where the forward call had them, too, whose inputs go into the weights' gradients."""
        cdef Choice choice = self.used
        if not (fits_tiles and weights.fill_backward(self.packed, self.directions, choice, to_inputs)):
            choice = plain_forms()
            weights.fill_backward(self.packed, self.directions, choice, to_inputs)
        self.backward.form = choice.gradients
        return 0

    cdef after_steps(self, bint of_c):
        """h (L*D, B, T, Y) or c (L*D, B, T, H) after each step, in the caller's order, copied from what is kept for a
        backward call; 0 past a row's end, and beyond the width of a layer narrower than others."""
        cdef const Forward* call = &self.forward
        cdef const Direction* direction
        cdef const unsigned char[::1] memory = self.memory
        cdef Py_ssize_t block = call.s.B + call.s.N, n, D = call.D, width, padded
        cdef Py_ssize_t start = (call.record.c if of_c else call.record.h) - <const char*>&memory[0]
        kept = self.memory[start:].view(f"f{self.item}")
        found = numpy.zeros((call.L * D, call.s.B, call.s.T, call.H if of_c else call.Y), kept.dtype)
        if D == 2 or call.reverse:
            behind = numpy.concatenate([numpy.arange(alive(call.s, n)) + slot(call.s, n) for n in range(call.s.T)])
        for n in range(call.L * D):
            direction = &call.directions[n]
            width, padded = direction.Y, direction.Yp
            start = n * block * (self.Hp if of_c else self.Yp)
            if of_c:
                width, padded = direction.H, direction.Hp
            rows = kept[start:][:block * padded].reshape(block, padded)[:, :width]
            found[n, ..., :width] = self.plan.unpack(rows[behind] if n % D == 1 or call.reverse else rows[call.s.B:])
        return found

    cdef void give_back(self) noexcept:
        if self.packed is not None:
            self.packed.give_back()
            self.packed = self.weights = None

    cdef bint fits(self, const Kernels* k, Py_ssize_t B, Py_ssize_t T, bint has_ids, bint keep, int masked,
                   bint packs, bint rounded) noexcept:
        """Whether it is laid out for a call of this kind on B rows of T steps each, without resets."""
        cdef const Steps* s = &self.plan.steps
        return (s.B == B and s.T == T and s.sizes == NULL and s.cut == NULL and self.k == k and self.has_ids == has_ids
                and self.keep == keep and self.masked == masked and self.packs == packs and self.rounded == rounded)

    cdef int lay_out(self, Weights weights, Plan plan, bint has_ids, bint keep, int masked, bint packs) except -1:
        """masked: by which masks; packs: the inputs are to be packed."""
        self.plan, self.has_ids, self.keep, self.masked, self.packs = plan, has_ids, keep, masked, packs
        self.k, self.members, self.rounded = active(), 0, weights.rounded
        describe_directions(self.k, weights, self.directions)
        cdef Direction* directions = self.directions
        cdef Py_ssize_t L = weights.L, D = weights.D, H = weights.H, B = plan.steps.B
        cdef Py_ssize_t N = plan.steps.N, Y = weights.Y, Hp, Yp, rows = 0, n
        cdef Py_ssize_t item = self.item, O = weights.O
        cdef Py_ssize_t widest = max(0 if has_ids else weights.I, O if L > 1 else 0)
        if weights.small:
            self.choice = choose_small(weights.small, H, B, N)
        elif self.rounded:
            self.choice = choose_rounded(H, Y, B, N)
        else:
            self.choice = choose(self.doubles or not weights.bounded, H, Y, B, N)
        self.widest(weights)
        Hp, Yp = self.Hp, self.Yp
        for n in range(0, L * D, D):
            rows = max(rows, rows_at_once(&plan.steps, directions[n].I, 4 * directions[n].Hp * item))
        cdef bint residual = weights.cell.residual
        cdef bint highway = weights.cell.highway
        cdef bint joined = D == 2 or masked & OUTPUTS or weights.cell.reverse or residual or highway
        cdef bint cuts = plan.steps.cut != NULL, copies = cuts or masked & STATES
        cdef Pieces pieces
        pieces.end = 0
        cdef double all_rows = L * D * N if keep else rows
        cdef Py_ssize_t gates = place(&pieces, all_rows * 4 * Hp * item)
        cdef Py_ssize_t h = place(&pieces, <double>(L if keep else min(2, L - 1)) * D * (B + N) * Yp * item)
        cdef Py_ssize_t last_h = place(&pieces, <double>(not keep) * D * 2 * B * Yp * item)
        cdef Py_ssize_t c = place(&pieces, (<double>L * D * (B + N) if keep else B) * Hp * item)
        cdef Py_ssize_t outputs = place(&pieces, <double>(L - 1 if keep else min(2, L - 1)) * joined * N * O * item)
        cdef Py_ssize_t x = place(&pieces, <double>packs * (N if keep else rows) * weights.I * item)
        cdef double row_bytes = left_room(self.choice.steps, with_gaps(B, B), Yp)
        if masks_of(masked) > 1:
            row_bytes = max(row_bytes, left_room(self.choice.back, with_gaps(B, B), Yp))
        row_bytes = max(row_bytes, <double>copies * B * Yp * item)  # tiles may not hold what the call is given
        cdef Py_ssize_t apart_bytes = lines(row_bytes)
        row_bytes = <double>apart_bytes * masks_of(masked)
        cdef Py_ssize_t apart = place(&pieces, <double>(masks_of(masked) > 1) * 4 * B * Hp * item)
        cdef Py_ssize_t carried_0 = place(&pieces, row_bytes), carried_1 = place(&pieces, row_bytes)
        cdef Py_ssize_t cut_rows = place(&pieces, <double>copies * B * Yp * item)
        cdef Py_ssize_t states = place(&pieces, <double>cuts * B * Hp * item)
        cdef Py_ssize_t x_tiles = place(&pieces, left_room(self.choice.inputs, with_gaps(rows, B), widest))
        cdef Py_ssize_t u = place(&pieces, (Y < H) * (<double>L * D * N if keep else B) * Hp * item)
        cdef bint zoned = masked & ZONED_C != 0
        cdef Py_ssize_t fresh = place(&pieces, zoned * (<double>L * D * N if keep else B) * Hp * item)
        cdef Py_ssize_t shares = place(&pieces, highway * (<double>L * D * N if keep else B) * Yp * item)
        cdef Norms norms
        place_norms(&norms, &pieces, weights.cell.layer_norm is not None, all_rows, B, Hp, item)
        cdef bint adds = residual and masked & OUTPUTS != 0
        cdef Py_ssize_t plain = place(&pieces, <double>adds * min(2, L - 1) * N * O * item)
        self.memory = fitting(self.memory, pieces.end)
        self.nbytes = self.memory.nbytes + (0 if self.scratch is None else self.scratch.nbytes)
        cdef unsigned char[::1] view = self.memory
        cdef char* m = <char*>&view[0]
        cdef Forward* call = &self.forward
        memset(call, 0, sizeof(Forward))
        call.k, call.s, call.directions, call.L, call.D = self.k, &self.plan.steps, directions, L, D
        call.reverse, call.merge, call.residual, call.O = weights.cell.reverse, weights.merge, residual, O
        call.highway, call.record.highway = highway, m + shares
        call.H, call.Hp, call.Y, call.Yp = H, Hp, Y, Yp
        for n in range(0, L * D, D):
            call.uneven = call.uneven or directions[n].H != H
        call.y_step = directions[L * D - 1].O
        call.y_row, call.most = plan.steps.T * call.y_step, ALL_THREADS
        call.record.keep, call.record.joined, call.record.per_row = keep, joined, masked & PER_ROW != 0
        call.record.last_h = NULL if keep else m + last_h
        call.record.gates, call.record.h, call.record.c, call.record.outputs = m + gates, m + h, m + c, m + outputs
        call.record.u, call.record.plain, call.record.fresh = m + u, m + plain if adds else NULL, m + fresh
        if weights.cell.layer_norm is not None:
            point_norms(&norms, m, directions, L * D, N if keep else 0, item)
        call.record.inputs.packed, call.record.inputs.ld = m + x if packs else NULL, weights.I
        call.record.inputs.whole = keep
        call.scratch.carried[0], call.scratch.carried[1] = m + carried_0, m + carried_1
        call.scratch.rows, call.scratch.states, call.scratch.inputs = m + cut_rows, m + states, m + x_tiles
        call.scratch.apart, call.scratch.apart_bytes = m + apart, apart_bytes
        call.scratch.input_bytes = left_bytes(self.choice.inputs, 16, widest) // 16
        return 0

    cdef void widest(self, Weights weights) noexcept:
        """Hp and Yp of the widest layer, and the widest Ip behind the first one."""
        cdef Py_ssize_t n
        self.Hp = self.Yp = self.Ip = 0
        for n in range(0, weights.L * weights.D, weights.D):
            self.Hp, self.Yp = max(self.Hp, self.directions[n].Hp), max(self.Yp, self.directions[n].Yp)
            if n > 0:
                self.Ip = max(self.Ip, self.directions[n].Ip)

    cdef int lay_out_backward(self, Weights weights, int members) except -1:
        """For so many threads, or fewer."""
        cdef const Steps* s = &self.plan.steps
        cdef Choice choice = self.choice
        cdef Py_ssize_t D = weights.D, H = weights.H, Hp = self.Hp, G = 4 * Hp, B = s.B, N = s.N
        cdef Py_ssize_t Y = weights.Y, Yp = self.Yp
        cdef Py_ssize_t item = self.item, rows = min(N, <Py_ssize_t>GRADIENT_ROWS)
        cdef Py_ssize_t inputs = max(0 if self.has_ids else weights.I, weights.O if weights.L > 1 else 0)
        cdef bint residual = weights.cell.residual
        cdef bint copies = s.cut != NULL or self.masked & STATES, projected = Y < H
        cdef bint reverse = D == 2 or weights.cell.reverse
        cdef Pieces pieces
        pieces.end = 0
        cdef Py_ssize_t dh = place(&pieces, <double>(B + N) * Yp * item), dc = place(&pieces, <double>B * Hp * item)
        cdef double above = <double>N * self.Ip * item
        cdef Py_ssize_t above_0 = place(&pieces, above * (weights.L > 1))
        cdef Py_ssize_t above_1 = place(&pieces, above * (weights.L > 2))
        cdef Py_ssize_t dx = place(&pieces, <double>(not self.has_ids) * N * self.directions[0].Ip * item)
        cdef int masks = masks_of(self.masked)
        cdef double row_bytes = left_room(choice.back, with_gaps(B, B), G)
        cdef Py_ssize_t apart_bytes = 0
        if masks > 1:
            apart_bytes = lines(max(left_room(choice.back, with_gaps(B, B), Hp), <double>B * Hp * item))
            row_bytes = 4.0 * apart_bytes
        cdef Py_ssize_t apart = place(&pieces, <double>(masks > 1) * 4 * B * (Hp + projected * Yp) * item)
        cdef Py_ssize_t carried_0 = place(&pieces, row_bytes), carried_1 = place(&pieces, row_bytes)
        cdef Py_ssize_t states = place(&pieces, <double>copies * B * Hp * item)
        cdef bint learns = s.cut != NULL and weights.cell.first_state
        cdef Py_ssize_t cut_h = place(&pieces, <double>learns * B * Yp * item)
        cdef Py_ssize_t cut_c = place(&pieces, <double>learns * B * Hp * item)
        cdef double moved = <double>(copies or s.sizes != NULL) * masks_of(self.masked) * N
        cdef Py_ssize_t previous = place(&pieces, moved * Yp * item)
        cdef Py_ssize_t columns = place(&pieces, <double>self.has_ids * weights.I * G * item)
        cdef Py_ssize_t x_packed = place(&pieces, right_room(choice.gradients, rows, inputs))
        cdef Py_ssize_t h_packed = place(&pieces, masks * right_room(choice.gradients, rows, Y))
        cdef Py_ssize_t own_bytes = max(gradients_bytes(rows), right_bytes(choice.gradients, rows, 64, 0),
                                        left_bytes(choice.rows, min(N, <Py_ssize_t>DX_ROWS), G))
        cdef Py_ssize_t own = place(&pieces, <double>members * own_bytes)
        cdef Py_ssize_t du = place(&pieces, <double>projected * B * Hp * item)
        cdef Py_ssize_t dh_cut = place(&pieces, <double>(projected and copies) * B * Yp * item)
        cdef Py_ssize_t dh_packed = place(&pieces, <double>(projected and reverse and s.sizes != NULL) * N * Yp * item)
        cdef bint normed = weights.cell.layer_norm is not None
        cdef Py_ssize_t norm_sums = place(&pieces, <double>normed * (B + 1) * 14 * Hp * item)
        cdef Py_ssize_t norm_row = place(&pieces, <double>normed * B * 2 * Hp * item), n
        cdef bint zones = self.masked & ZONED_C != 0
        cdef Py_ssize_t zoned = place(&pieces, <double>zones * B * Hp * item)
        cdef bint highway = weights.cell.highway
        cdef Py_ssize_t dz = place(&pieces, <double>highway * N * Yp * item)
        cdef Py_ssize_t dcarried = place(&pieces, <double>highway * N * Yp * item)
        cdef Py_ssize_t dsums = place(&pieces, <double>residual * N * weights.O * item)
        self.scratch = fitting(self.scratch, pieces.end)
        self.nbytes, self.members = self.memory.nbytes + self.scratch.nbytes, members
        cdef unsigned char[::1] view = self.scratch
        cdef char* m = <char*>&view[0]
        cdef Backward* call = &self.backward
        memset(call, 0, sizeof(Backward))
        call.k, call.s, call.directions, call.L, call.D = self.k, s, self.directions, weights.L, D
        call.dh, call.dc, call.dinputs[0], call.dinputs[1] = m + dh, m + dc, m + above_0, m + above_1
        call.reverse, call.merge, call.residual, call.O = weights.cell.reverse, weights.merge, residual, weights.O
        call.dsums = m + dsums
        call.H, call.Hp, call.Y, call.Yp = H, Hp, Y, Yp
        call.dx_packed = m + dx if not self.has_ids else NULL
        call.scratch.carried[0], call.scratch.carried[1] = m + carried_0, m + carried_1
        call.scratch.apart, call.scratch.apart_bytes = m + apart, apart_bytes
        call.scratch.states, call.scratch.previous = m + states, m + previous
        if learns:
            call.scratch.cut_h, call.scratch.cut_c = m + cut_h, m + cut_c
        call.scratch.columns = m + columns
        call.scratch.du, call.scratch.rows, call.scratch.dh_packed = m + du, m + dh_cut, m + dh_packed
        call.scratch.x_packed, call.scratch.h_packed = m + x_packed, m + h_packed
        call.scratch.zoned, call.scratch.dz, call.scratch.dcarried = m + zoned, m + dz, m + dcarried
        call.scratch.own, call.scratch.own_bytes = m + own, own_bytes
        for n in range(weights.L * D if normed else 0):
            self.directions[n].norm.sums, self.directions[n].norm.sums_row = m + norm_sums, 14 * Hp
            self.directions[n].norm.row = m + norm_row
        return 0


cdef int describe_directions(const Kernels* k, Weights weights, Direction* directions) except -1:
    """The sizes of each layer and direction, its variant, and where its parameters lie."""
    cdef Py_ssize_t lanes = k.f64.lanes if weights.doubles else k.f32.lanes, H, Y, O, n, I = weights.I, below = 0
    cdef int flags = weights.cell.flags
    cdef double clip = weights.cell.cell_clip or 0, gate_clip = weights.cell.gate_clip or 0
    cdef double proj_clip = weights.cell.proj_clip or 0
    cdef Activation activations[3]
    for n in range(3):
        activations[n] = activation_of(weights.cell.all_activations[n])
    for n in range(weights.L * weights.D):
        H, Y, O = weights.sizes[n // weights.D, 0], weights.sizes[n // weights.D, 1], weights.sizes[n // weights.D, 2]
        if n >= weights.D and n % weights.D == 0:
            I = directions[n - 1].O
            below += I
        directions[n].I, directions[n].H, directions[n].O, directions[n].below = I, H, O, below
        directions[n].Ip = (directions[n].I + lanes - 1) // lanes * lanes
        directions[n].Hp = (H + lanes - 1) // lanes * lanes
        directions[n].columns = columns_of(NARROW if weights.cell.layer_norm is None else PANELS, H, lanes)
        directions[n].Y, directions[n].Yp = Y, (Y + lanes - 1) // lanes * lanes
        directions[n].at_W, directions[n].at_R = weights.offsets[n, WEIGHT_IH], weights.offsets[n, WEIGHT_HH]
        directions[n].at_b, directions[n].at_P = weights.offsets[n, BIASES], weights.offsets[n, PEEPHOLE]
        directions[n].at_h0, directions[n].at_c0 = weights.offsets[n, FIRST_H], weights.offsets[n, FIRST_C]
        directions[n].at_proj = weights.offsets[n, WEIGHT_HR]
        directions[n].at_norm_x, directions[n].at_norm_h = weights.offsets[n, NORM_IH], weights.offsets[n, NORM_HH]
        directions[n].at_norm_c = weights.offsets[n, NORM_C]
        directions[n].at_highway = weights.offsets[n, HIGHWAY]
        directions[n].at_highway_bias = weights.offsets[n, HIGHWAY_BIAS]
        if weights.cell.layer_norm is not None:
            directions[n].norm.carried, directions[n].norm.eps = weights.cell.norm
        directions[n].flags, directions[n].clip, directions[n].gate_clip = flags, clip, gate_clip
        directions[n].proj_clip = proj_clip
        directions[n].activations, directions[n].mask, directions[n].update_mask = activations, NULL, NULL
        directions[n].zone_c = directions[n].zone_h = 0
        directions[n].new_c = directions[n].new_h = NULL
    return 0


cdef Py_ssize_t with_gaps(Py_ssize_t rows, Py_ssize_t B) noexcept nogil:
    """Each member that has rows of its own begins a tile of its own."""
    return rows + 16 * (B // ROWS_EACH + 1)


cdef class Shelf:
    """Works between calls. A call takes one off, so that no two calls share one, and puts it back when it is done."""

    def __init__(self):
        self.works = []

    cdef Work take(self, Weights weights, Py_ssize_t B, Py_ssize_t T, Plan plan, bint has_ids, bint keep,
                   int masked, bint packs):
        """plan: None without lengths and resets."""
        cdef Py_ssize_t n
        cdef Work work
        cdef const Kernels* k = active()
        with cython.critical_section(self):  # where there is no GIL
            if plan is None or (plan.steps.sizes == NULL and plan.steps.cut == NULL):
                for n in range(len(self.works) - 1, -1, -1):
                    work = self.works[n]
                    if work.fits(k, B, T, has_ids, keep, masked, packs, weights.rounded):
                        self.works.pop(n)
                        return work
            work = self.works.pop(0) if len(self.works) >= SHELVED else None
            for n in range(len(self.works)):  # another of its kind: its memory may fit
                if (<Work>self.works[n]).keep == keep:
                    work = self.works.pop(n)
                    break
        if work is None:
            work = Work(weights)
        work.lay_out(weights, Plan(B, T) if plan is None else plan, has_ids, keep, masked, packs)
        return work

    cdef int put(self, Work work) except -1:
        """The newest ones stay: SHELVED of them, or what is less than twice the largest one's memory."""
        cdef Py_ssize_t total = 0, largest = SMALL
        cdef Work waiting
        work.give_back()
        work.forward.apart.h = NULL
        work.x = work.ids = work.masks = work.update_masks = None
        with cython.critical_section(self):
            self.works.append(work)
            for waiting in self.works:
                total, largest = total + waiting.nbytes, max(largest, waiting.nbytes)
            while len(self.works) > SHELVED or (len(self.works) > 1 and total > 2 * largest):
                total -= (<Work>self.works[0]).nbytes
                self.works.pop(0)
        return 0
