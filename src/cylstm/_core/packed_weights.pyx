"""Packing weights for the kernels (cext/kernels.h shows the forms), once per update and only as calls need them."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memset

from cylstm._core.choice cimport TILED_INPUTS
from cylstm._core.kernels cimport (
    FORMS, INT8, NARROW, PANELS, ROUNDED, active, is_bounded, is_cut, largest, pack_right, right_bytes,
    stored_as, tiles_hold,
)
from cylstm._core.memory cimport fitting
from cylstm._core.packing cimport (
    BLOCKS, GATES, LINE, PADDED, Packing, pack_blocks, pack_f32, pack_f64, pack_rows, vectors_fit_tiles,
)
from cylstm._core.team cimport ALL_THREADS, run, threads_for
from cylstm._core.direction cimport Direction, Factor, by_gates, gate_bytes, panel_columns

import numpy

from cylstm.activations import are_bounded
from cylstm.cell import MERGES, PARAMETERS, hidden_sizes, offsets
from cylstm.locks import Lock
from cylstm._core.memory import aligned_empty
from cylstm._core.small_matrix import SMALL_FORMS

# What is packed of a direction.
cdef enum Operand:
    W, R, BIAS, W_BACK, R_BACK, PEEPHOLES, H0, C0, PROJ, PROJ_BACK, NO_BIAS, X_GAIN, H_GAIN, C_GAIN, TRANSFORM
    TRANSFORM_BIAS, TRANSFORM_BACK, R_GATES, R_GATES_BACK, OPERANDS

cdef enum:
    SHARED = 1048576           # bytes, from which on the forms of forward and backward share memory

_names = [row.name for row in PARAMETERS]
WEIGHT_IH, WEIGHT_HH = _names.index("weight_ih"), _names.index("weight_hh")
BIASES, PEEPHOLE, WEIGHT_HR = _names.index("bias"), _names.index("peephole"), _names.index("weight_hr")
NORM_IH, NORM_HH, NORM_C = map(_names.index, ("norm_ih", "norm_hh", "norm_c"))
FIRST_H, FIRST_C = _names.index("h0"), _names.index("c0")
HIGHWAY, HIGHWAY_BIAS = _names.index("highway_weight"), _names.index("highway_bias")

cdef char too_much           # whose address stands for weights that tiles do not hold

# Packing is copying: a thread more pays from about so many weights on, counted as multiply-adds (team.pyx).
cdef enum:
    PACKING_COST = 20


cdef extern from * nogil:
    """
    #ifdef Py_GIL_DISABLED
    #define CYLSTM_FREE_THREADED 1
    #else
    #define CYLSTM_FREE_THREADED 0
    #endif
    #define cylstm_add(counter, n) (void)__atomic_fetch_add(counter, n, __ATOMIC_ACQ_REL)
    #define cylstm_count(counter) __atomic_load_n(counter, __ATOMIC_ACQUIRE)
    #define cylstm_look_up(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define cylstm_publish(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)
    """
    bint FREE_THREADED "CYLSTM_FREE_THREADED"
    void add "cylstm_add"(int* counter, int n)
    int count "cylstm_count"(const int* counter)
    const void* look_up "cylstm_look_up"(const void** place)
    void publish "cylstm_publish"(const void** place, const void* value)


cdef class Packed:
    def __cinit__(self, Py_ssize_t directions):
        self.k, self.version, self.users = active(), -1, 0
        self.arrays = [None] * (directions * OPERANDS * FORMS)
        self.at = <const void**>PyMem_Calloc(directions * OPERANDS * FORMS, sizeof(void*))
        if self.at == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.at)

    cdef int note(self, const Packing* packing) except -1:
        if self.again is not None:
            self.again.note(packing)
        return 0

    cdef void borrow_again(self) noexcept:
        add(&self.users, 1)

    cdef void give_back(self) noexcept:
        if self.masks is not None:  # of one call alone
            self.masks = None
        add(&self.users, -1)

    cdef spare(self, Py_ssize_t n, int operand):
        """The memory of the same weights packed for the other pass, if nobody needs those now, or None.

        Training packs both forms once per update and needs one at a time: large ones share memory, the backward one
        taking the place of the forward one. If weights are used again without an update, the forward form is packed
        once more, beside the other, and both stay.
        """
        cdef Py_ssize_t slot, form
        if operand == BIAS or operand >= PEEPHOLES:
            return None
        for form in range(FORMS):
            slot = (n * OPERANDS + (operand + W_BACK if operand < BIAS else operand - W_BACK)) * FORMS + form
            memory = self.arrays[slot]
            if memory is not None and memory.nbytes >= SHARED and (
                    self.at[slot] == NULL or (operand > BIAS and count(&self.users) == 1)):
                self.arrays[slot], self.at[slot] = None, NULL
                return memory
        return None


cdef class Weights:
    """I, L, D as everywhere; H: as cylstm.cell.hidden_sizes takes it; cell: a cylstm.cell.CellType; parameters: of the
    layout that this makes."""

    def __init__(self, Py_ssize_t I, H, Py_ssize_t L, Py_ssize_t D, cell, bint doubles, parameters):
        each = [(one, cell.width(one), cell.output_size(one, D)) for one in hidden_sizes(H, L)]
        sizes = numpy.array(each, numpy.intp)
        self.sizes, (self.H, self.Y, self.O) = sizes, sizes.max(axis=0)
        self.I, self.L, self.D, self.cell, self.doubles, self.merge = I, L, D, cell, doubles, MERGES.index(cell.merge)
        self.offsets = offsets(I, H, L, D, cell)
        self.bounded = are_bounded(cell.all_activations)
        self.small, self.rounded = SMALL_FORMS[getattr(parameters, "precision", None)], False
        self.parameters, self.flat, self.lock = parameters, None if self.small else parameters.raw(), Lock()
        self.now, self.dropped, self.most = None, None, ALL_THREADS

    cdef long long version(self):
        return self.parameters.version()

    cdef numbers(self, Py_ssize_t start, Py_ssize_t size):
        """What is packed of the parameter that begins here: itself (size,), or what it is without its scales."""
        if self.small:
            return self.parameters.numbers(self.parameters.at(start)).ravel()
        return self.flat[start:start + size]

    cdef Packed borrow(self):
        """The weights as they are now, with one user more: who borrows gives them back."""
        cdef long long version
        if not FREE_THREADED:  # nobody comes in between, with the GIL held
            version = self.version()
            if self.now is not None and self.now.version == version and self.now.k == active():
                add(&self.now.users, 1)
                return self.now
        with self.lock.held:
            version = self.version()
            if self.now is None or self.now.k != active() or (
                    self.now.version != version and count(&self.now.users) > 0):
                self.now = Packed(self.L * self.D)
            if self.now.version != version:
                memset(self.now.at, 0, self.L * self.D * OPERANDS * FORMS * sizeof(void*))
                self.now.version = version
            add(&self.now.users, 1)
            return self.now

    cdef Packed borrow_masked(self, masks):
        """The weights as they are now with masks times weight_hh, for one call and its backward: nobody else gets them.
        Their memory is that of the last such call, if that is over."""
        cdef Packed packed
        cdef long long version
        with self.lock.held:
            version = self.version()  # a signal's handler may come in here, and nowhere below
            packed = self.dropped
            if packed is None or packed.k != active() or count(&packed.users) > 0:
                packed = self.dropped = Packed(self.L * self.D)
            memset(packed.at, 0, self.L * self.D * OPERANDS * FORMS * sizeof(void*))
            packed.version, packed.masks = version, masks
            add(&packed.users, 1)
            return packed

    cdef bint in_use(self):
        """Whether a call, or a tape that waits for its backward, has borrowed the weights as they are now."""
        return self.now is not None and count(&self.now.users) > 0

    cdef int fill_forward(self, Packed packed, Direction* directions, Choice choice, bint ids) except -1:
        """The factors that a forward call uses; ids: x W' is a row of W per id.

        Whether they are as `choice` has them: 0 where tiles do not hold some of the weights, which are panels then.
        """
        cdef Direction* one
        cdef bint gathered, as_chosen = True
        cdef int form, steps, n
        for n in range(self.L * self.D):
            one = &directions[n]
            gathered = ids and n < self.D
            form = choice.inputs if choice.gathers or (not gathered and one.I >= TILED_INPUTS) else PANELS
            steps = choice.back if by_gates(one) else choice.steps
            if form == PANELS and steps == PANELS and one.columns < 4 * one.Hp and not by_gates(one):
                form = steps = NARROW
            self.take(packed, one, n, W, form, &one.W)
            self.take(packed, one, n, R_GATES if by_gates(one) else R, steps, &one.R)
            if one.at_norm_x >= 0:
                self.take_norms(packed, one, n)
            else:
                self.take(packed, one, n, BIAS, NARROW if steps == NARROW else PANELS, &one.b)
            if one.at_P >= 0:
                self.take(packed, one, n, PEEPHOLES, PANELS, &one.P)
            if one.at_h0 >= 0:
                self.take(packed, one, n, H0, PANELS, &one.h0)
                self.take(packed, one, n, C0, PANELS, &one.c0)
            if one.at_proj >= 0:
                self.take(packed, one, n, PROJ, PANELS, &one.proj)
            if one.at_highway >= 0:
                self.take(packed, one, n, TRANSFORM, PANELS, &one.highway)
                self.take(packed, one, n, TRANSFORM_BIAS, PANELS, &one.highway_bias)
            as_chosen = as_chosen and one.W.form == form and one.R.form == steps
        if choice.bounded:
            as_chosen = as_chosen and vectors_fit_tiles(packed.k, directions, self.L * self.D)
        return as_chosen

    cdef int take_norms(self, Packed packed, Direction* direction, Py_ssize_t n) except -1:
        """The bias goes beside the normalised x W', not beside x W'."""
        self.take(packed, direction, n, NO_BIAS, PANELS, &direction.b)
        self.take(packed, direction, n, BIAS, PANELS, &direction.norm_bias)
        self.take(packed, direction, n, X_GAIN, PANELS, &direction.norm_x)
        self.take(packed, direction, n, H_GAIN, PANELS, &direction.norm_h)
        self.take(packed, direction, n, C_GAIN, PANELS, &direction.norm_c)
        direction.norm.bias = direction.norm_bias.packed
        direction.norm.x_gain, direction.norm.h_gain = direction.norm_x.packed, direction.norm_h.packed
        direction.norm.c = direction.norm_c.packed
        return 0

    cdef int fill_backward(self, Packed packed, Direction* directions, Choice choice, bint to_inputs) except -1:
        """The factors that a backward call uses; to_inputs: whether gradients flow to the first layer's inputs. Whether
        they are as `choice` has them."""
        cdef Py_ssize_t n
        cdef bint as_chosen = True
        for n in range(self.L * self.D):
            self.take(packed, &directions[n], n, R_GATES_BACK if by_gates(&directions[n]) else R_BACK, choice.back,
                      &directions[n].R_back)
            as_chosen = as_chosen and directions[n].R_back.form == choice.back
            if directions[n].at_proj >= 0:
                self.take(packed, &directions[n], n, PROJ_BACK, PANELS, &directions[n].proj_back)
            if directions[n].at_highway >= 0:
                self.take(packed, &directions[n], n, TRANSFORM_BACK, PANELS, &directions[n].highway_back)
            if to_inputs or n >= self.D:
                self.take(packed, &directions[n], n, W_BACK, choice.rows, &directions[n].W_back)
                as_chosen = as_chosen and directions[n].W_back.form == choice.rows
        return as_chosen

    cdef int take(self, Packed packed, const Direction* direction, Py_ssize_t n, int operand, int form,
                  Factor* factor) except -1:
        """One factor, packed now unless it is already."""
        cdef Py_ssize_t slot = (n * OPERANDS + operand) * FORMS + stored_as(form)
        cdef const void* found = look_up(&packed.at[slot])
        if found == NULL:
            with self.lock.held:
                if packed.at[slot] == NULL:
                    self._pack(packed, direction, n, operand, stored_as(form))
            found = packed.at[slot]
        factor.packed, factor.form, factor.columns = found, form, panel_columns(direction, form)
        if found == &too_much:
            return self.take(packed, direction, n, operand, PANELS, factor)
        return 0

    cdef int _pack(self, Packed packed, const Direction* direction, Py_ssize_t n, int operand, int form) except -1:
        cdef Packing packing
        cdef Py_ssize_t slot = (n * OPERANDS + operand) * FORMS + form
        cdef Py_ssize_t item = 8 if self.doubles else 4, start, threads, member
        cdef double most = 0
        cdef unsigned char[::1] target, scratch
        cdef const unsigned char[::1] flat, scales
        memset(&packing, 0, sizeof(Packing))
        packing.k, packing.H, packing.form = packed.k, direction.H, form
        packing.K = direction.I if operand in (W, W_BACK) else direction.Y if operand in (R, R_BACK) else 1
        packing.backward = operand in (W_BACK, R_BACK)
        packing.lanes = packed.k.f64.lanes if self.doubles else packed.k.f32.lanes
        packing.rows = 4 * direction.Hp if packing.backward else packing.K
        packing.columns = panel_columns(direction, form)
        if packing.backward:
            packing.columns = direction.Ip if operand == W_BACK else direction.Yp
        start = direction.at_W if operand in (W, W_BACK) else direction.at_R if operand in (R, R_BACK) else -1
        if operand == BIAS:
            start = direction.at_b
        elif operand == X_GAIN or operand == H_GAIN:
            start = direction.at_norm_x if operand == X_GAIN else direction.at_norm_h
        if operand == PEEPHOLES:
            return self._pad(packed, slot, direction.at_P, 3, direction.H, direction.Hp)
        if operand == C_GAIN:
            return self._pad(packed, slot, direction.at_norm_c, 2, direction.H, direction.Hp)
        if operand == H0:
            return self._pad(packed, slot, direction.at_h0, 1, direction.Y, direction.Yp)
        if operand == C0:
            return self._pad(packed, slot, direction.at_c0, 1, direction.H, direction.Hp)
        if operand == PROJ or operand == PROJ_BACK:
            return self._pack_matrix(packed, slot, direction.at_proj, direction.Y, direction.H, operand == PROJ_BACK)
        if operand == TRANSFORM_BIAS:
            return self._pad(packed, slot, direction.at_highway_bias, 1, direction.Y, direction.Yp)
        if operand == R_GATES or operand == R_GATES_BACK:
            return self._pack_gates(packed, direction, n, slot, form, operand == R_GATES_BACK)
        if operand == TRANSFORM or operand == TRANSFORM_BACK:
            return self._pack_matrix(packed, slot, direction.at_highway, direction.Y, direction.I, operand != TRANSFORM)
        if packed.arrays[slot] is None:
            size = right_bytes(form, packing.rows, packing.columns, item)
            memory = fitting(packed.spare(n, operand), size)
            if packed.at[slot] != NULL:  # a signal's handler used the layer meanwhile
                return 0
            packed.arrays[slot] = memory
        target = packed.arrays[slot]
        packing.target, packing.way, packing.doubles, packing.start = <char*>&target[0], GATES, self.doubles, start
        if start < 0:
            memset(packing.target, 0, target.shape[0])
        else:
            weights = self.numbers(start, 4 * direction.H * packing.K)
            if packed.masks is not None and operand in (R, R_BACK):
                weights = weights * packed.masks[n].ravel()
            flat = weights.view("u1")
            packing.source = <const char*>&flat[0]
            if form == INT8:
                scales = self.parameters.scales[self.parameters.at(start)].view("u1")
                packing.scales = <const char*>&scales[0]
            packing.blocks = (packing.columns + 4 * packing.lanes - 1) // (4 * packing.lanes)
            threads = min(self.most, threads_for(<double>PACKING_COST * packing.rows * packing.columns, 1e9,
                                                 packing.blocks))
            packing.cut = is_cut(form)
            if packing.cut:
                packing.room = (packing.rows + 1) * 4 * packing.lanes * item + LINE
                scratch = room = aligned_empty(packing.room * threads, "u1")
                if packed.again is not None:
                    packed.again.held.append(room)
                packing.scratch = <char*>&scratch[0]
                for member in range(threads):
                    (<double*>(packing.scratch + (member + 1) * packing.room - LINE))[0] = 0
            with nogil:
                run(threads, pack_f64 if self.doubles else pack_f32, &packing)
            for member in range(threads if packing.cut else 0):
                most = max(most, (<double*>(packing.scratch + (member + 1) * packing.room - LINE))[0])
        packed.note(&packing)
        publish(&packed.at[slot], packing.target if tiles_hold(most) else &too_much)
        return 0

    cdef int _pad(self, Packed packed, Py_ssize_t slot, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t width,
                  Py_ssize_t padded) except -1:
        """Peepholes, a first state or c's norm (rows, width) -> (rows, padded)."""
        cdef Packing packing
        memset(&packing, 0, sizeof(Packing))
        packing.way, packing.doubles, packing.start = PADDED, self.doubles, start
        packing.rows, packing.K, packing.columns = rows, width, padded
        return self._pack_rows(packed, slot, &packing, None, rows * width, rows * padded)

    cdef int _pack_matrix(self, Packed packed, Py_ssize_t slot, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t width,
                          bint backward) except -1:
        """A projection's R_p (P, H) or a highway's W_t (Y, I), or forward its transpose, in column blocks."""
        cdef Packing packing
        memset(&packing, 0, sizeof(Packing))
        packing.lanes = packed.k.f64.lanes if self.doubles else packed.k.f32.lanes
        packing.way, packing.doubles, packing.start = BLOCKS, self.doubles, start
        packing.rows, packing.columns = rows if backward else width, width if backward else rows
        packing.k_apart, packing.column_apart = width if backward else 1, 1 if backward else width
        cdef Py_ssize_t padded = (packing.columns + packing.lanes - 1) // packing.lanes * packing.lanes
        return self._pack_rows(packed, slot, &packing, packed.arrays[slot], rows * width, packing.rows * padded)

    cdef int _pack_rows(self, Packed packed, Py_ssize_t slot, Packing* packing, memory, Py_ssize_t numbers,
                        Py_ssize_t room) except -1:
        """So many numbers into memory for so many."""
        cdef const unsigned char[::1] flat = self.numbers(packing.start, numbers).view("u1")
        cdef unsigned char[::1] target
        packed.arrays[slot] = memory = fitting(memory, <double>room * (8 if self.doubles else 4))
        target = memory
        packing.source, packing.target = <const char*>&flat[0], <char*>&target[0]
        with nogil:
            pack_rows(packing)
        packed.note(packing)
        publish(&packed.at[slot], packing.target)
        return 0

    cdef int _pack_gates(self, Packed packed, const Direction* direction, Py_ssize_t n, Py_ssize_t slot, int form,
                         bint backward) except -1:
        """R (4H, Y) gate by gate: each gate's R_n (H, Y), or forward its transpose, as a right operand of its own."""
        cdef Py_ssize_t lanes = packed.k.f64.lanes if self.doubles else packed.k.f32.lanes, gate
        cdef Py_ssize_t H = direction.H, Y = direction.Y, K = H if backward else Y, columns = Y if backward else H
        cdef Py_ssize_t bytes_each = gate_bytes(direction, form, backward, 8 if self.doubles else 4)
        cdef Py_ssize_t k_apart = Y if backward else 1, column_apart = 1 if backward else Y
        cdef float most = 0
        cdef const unsigned char[::1] flat
        cdef unsigned char[::1] target
        weights = self.numbers(direction.at_R, 4 * H * Y)
        if packed.masks is not None:
            weights = weights * packed.masks[n].ravel()
        flat = weights.view("u1")
        packed.arrays[slot] = memory = fitting(packed.arrays[slot], 4 * bytes_each)
        target = memory
        cdef const char* source = <const char*>&flat[0]
        cdef char* to = <char*>&target[0]
        with nogil:
            for gate in range(4):
                if self.doubles:
                    pack_blocks(lanes, K, columns, k_apart, column_apart, <const double*>source + gate * H * Y,
                                <double*>(to + gate * bytes_each))
                elif not is_cut(form) or form == ROUNDED:
                    pack_blocks(lanes, K, columns, k_apart, column_apart, <const float*>source + gate * H * Y,
                                <float*>(to + gate * bytes_each))
                    if form == ROUNDED:  # where they are
                        pack_right(packed.k, form, False, 1, bytes_each // sizeof(float),
                                   <const float*>(to + gate * bytes_each), 0, to + gate * bytes_each)
                else:
                    pack_right(packed.k, form, not backward, K, columns, <const float*>source + gate * H * Y, Y,
                               to + gate * bytes_each)
            if is_bounded(form):
                most = largest(packed.k, 4 * H, Y, <const float*>source, Y)
        publish(&packed.at[slot], to if tiles_hold(most) else &too_much)
        return 0
