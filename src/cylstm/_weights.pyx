"""Packing weights for the kernels (cext/kernels.h shows the forms), once per update and only as calls need them."""

import numpy as np

from libc.string cimport memset

from cylstm._kernels cimport (
    Kernels, active, has_tiles, lanes_of, pack_columns, pack_gates, real, split_columns, tile_bytes,
)
from cylstm._sequence cimport Cell, Factor

from cylstm.params import aligned_empty

# Where products of tiles are faster than those of panels, measured with 1.. 64 rows and H = 64..1500: a tile has 16 rows and
# 32 k, and takes the time of about 10 rows in panels, whether they are all there or not. Tiles of R take 6 bytes a weight, panels
# 4: where neither stays in the second-level cache, it takes 32 rows until that does not count.
cdef enum:
    TILED_ROWS = 12            # rows of a batch
    TILED_ROWS_LARGE = 32
    TILED_WEIGHTS = 300000     # in R, from where it is large
    TILED_INPUTS = 16          # I, or H

W, R, BIAS, W_BACK, R_BACK = range(5)


cdef class Form:
    pass


cdef class Moment:
    pass


cdef class Weights:
    """I, H, L, D as everywhere; bias: whether there is one; parameters come as one flat buffer (LSTM.layout)."""

    def __init__(self, Py_ssize_t I, Py_ssize_t H, Py_ssize_t L, Py_ssize_t D, bint bias, dtype):
        self.k = active()
        self.dtype = np.dtype(dtype)
        self.L, self.D, self.H = L, D, H
        cdef Py_ssize_t lanes = self.k.f32.lanes if self.dtype == np.float32 else self.k.f64.lanes
        self.Hp = (H + lanes - 1) // lanes * lanes
        self.sizes, flat = [], 0
        for n in range(L * D):
            inputs = I if n < D else D * H
            at = {W: flat, R: flat + 4 * H * inputs, BIAS: flat + 4 * H * (inputs + H) if bias else -1}
            self.sizes.append((inputs, (inputs + lanes - 1) // lanes * lanes, at))
            flat += 4 * H * (inputs + H + (1 if bias else 0))
        self.spare = []

    def current(self):
        """Whether these were packed for the instruction set in use."""
        return self.k == active()

    def update(self, flat):
        """These are the parameters from now on."""
        cdef Moment moment = Moment()
        moment.flat, moment.factors, moment.forms = flat.copy(), {}, {}
        self.now = moment

    def holds(self, flat):
        """Whether these are the parameters, bit for bit."""
        return bool((self.now.flat.view(np.uint8) == flat.view(np.uint8)).all())

    cdef Choice choose(self, Py_ssize_t B, Py_ssize_t N):
        """The choice depends on the batch and the layer alone, never on the number of steps: step() and a call on the
        whole sequence compute the same bits."""
        cdef Choice choice
        cdef bint tiles = self.dtype == np.float32 and has_tiles(self.k, <const float*>NULL) and self.H >= TILED_INPUTS
        choice.inputs = tiles and B >= TILED_ROWS
        choice.steps = tiles and B >= (TILED_ROWS_LARGE if 4 * self.H * self.H > TILED_WEIGHTS else TILED_ROWS)
        choice.rows = choice.gradients = tiles and N >= 32
        return choice

    cdef Form form(self, Moment moment, Choice choice, bint ids, bint backward):
        """The cells for one kind of call, packed from the parameters if no call has asked for them yet."""
        key = (choice.inputs, choice.steps, choice.rows, ids, backward)
        found = moment.forms.get(key)
        if found is not None:
            return found
        cdef Form form = Form()
        cdef Cell cell
        cells = np.zeros(len(self.sizes) * sizeof(Cell), np.uint8)
        cdef unsigned char[::1] view = cells
        form.cells = <Cell*>&view[0]
        form.arrays = [cells]
        for n, (I, Ip, at) in enumerate(self.sizes):
            memset(&cell, 0, sizeof(Cell))
            cell.I, cell.H, cell.Hp, cell.Ip = I, self.H, self.Hp, Ip
            cell.at_W, cell.at_R, cell.at_b = at[W], at[R], at[BIAS]
            gathered = ids and n < self.D
            if backward:
                if not gathered:
                    cell.W_back = self._factor(moment, form, n, W_BACK, choice.rows)
                cell.R_back = self._factor(moment, form, n, R_BACK, choice.steps)
            else:
                cell.W = self._factor(moment, form, n, W, choice.inputs and not gathered and I >= TILED_INPUTS)
                cell.R = self._factor(moment, form, n, R, choice.steps)
                cell.b = self._factor(moment, form, n, BIAS, False).packed
            form.cells[n] = cell
        moment.forms[key] = form
        return form

    cdef Factor _factor(self, Moment moment, Form form, n, kind, bint tiled):
        key = (n, kind, tiled)
        array = moment.factors.get(key)
        if array is None:
            array = moment.factors[key] = self._pack(moment.flat, n, kind, tiled)
        form.arrays.append(array)
        cdef const unsigned char[::1] view = array.view(np.uint8)
        cdef Factor factor
        factor.packed, factor.tiled = &view[0], tiled
        return factor

    def _pack(self, flat, n, kind, tiled):
        I, Ip, at = self.sizes[n]
        K = {W: I, R: self.H, BIAS: 1, W_BACK: I, R_BACK: self.H}[kind]
        start = at[{W_BACK: W, R_BACK: R}.get(kind, kind)]
        rows = {W_BACK: Ip, R_BACK: self.Hp}.get(kind, K)
        panels = aligned_empty(4 * self.Hp * rows, self.dtype)
        if start < 0:
            panels[:] = 0
            return panels
        part = flat[start:start + 4 * self.H * K]
        if self.dtype == np.float32:
            pack_one[float](self.k, kind in (W_BACK, R_BACK), self.H, K, part, panels)
        else:
            pack_one[double](self.k, kind in (W_BACK, R_BACK), self.H, K, part, panels)
        if not tiled:
            return panels
        if kind in (W_BACK, R_BACK):
            tiles = aligned_empty(tile_bytes(rows, 4 * self.Hp), np.uint8)
            tile_panels(self.k, 4 * self.Hp, rows, panels, tiles)
        else:
            tiles = aligned_empty(tile_bytes(4 * self.Hp, K), np.uint8)
            tile_panels(self.k, K, 4 * self.Hp, panels, tiles)
        return tiles

    # What a call works in is kept for the next one: fresh memory costs a page fault for each 4 kB.

    cdef take_memory(self, size):
        """`size` bytes, uninitialised, from a cache line on."""
        for n, memory in enumerate(self.spare):
            if size <= memory.nbytes <= 2 * size + 65536:
                return self.spare.pop(n)
        return aligned_empty(size, np.uint8)

    cdef give_memory(self, memory):
        """To be used again; the two largest pieces are kept."""
        self.spare.append(memory)
        if len(self.spare) > 2:
            self.spare.sort(key=len)
            self.spare.pop(0)


cdef void pack_one(const Kernels* k, bint backward, Py_ssize_t H, Py_ssize_t K, const real[::1] part, real[::1] panels):
    with nogil:
        if backward:
            pack_columns(k, &part[0], H, K, &panels[0])
        else:
            pack_gates(k, &part[0], H, K, &panels[0])


cdef void tile_panels(const Kernels* k, Py_ssize_t K, Py_ssize_t columns, const float[::1] panels,
                      unsigned char[::1] tiles):
    """Panels or column blocks of 64 columns, each (K, 64) row-major, as tiles."""
    cdef Py_ssize_t start, width
    with nogil:
        for start in range(0, columns, 64):
            width = min(<Py_ssize_t>64, columns - start)
            split_columns(k, K, width, &panels[start * K], width, &tiles[start * ((K + 31) // 32 * 32) * 6])
