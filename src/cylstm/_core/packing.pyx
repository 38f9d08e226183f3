"""Packing one matrix for the kernels (cext/kernels.h shows the forms), and whether tiles hold what stays as it is."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy, memset

from cylstm._core.direction cimport Direction
from cylstm._core.kernels cimport (
    NARROW, PANELS, Kernels, is_bounded, largest, pack_columns, pack_gates, pack_right, real, right_bytes, tiles_hold,
)
from cylstm._core.team cimport Team, part


cdef void pack_blocks(Py_ssize_t lanes, Py_ssize_t K, Py_ssize_t columns, Py_ssize_t k_apart, Py_ssize_t column_apart,
                      const real* source, real* target) noexcept nogil:
    """source (K, columns), its elements so far apart, in column blocks (cext/kernels.h); zeros in the padding."""
    cdef Py_ssize_t padded = (columns + lanes - 1) // lanes * lanes, block, start, width, k, j
    for block in range((padded + 4 * lanes - 1) // (4 * lanes)):
        start = 4 * lanes * block
        width = min(4 * lanes, padded - start)
        for k in range(K):
            for j in range(start, start + width):
                target[0] = source[k * k_apart + j * column_apart] if j < columns else 0
                target += 1


cdef void pack_f32(void* packing, int me, int count, Team* team) noexcept nogil:
    pack_share(<const Packing*>packing, me, count, <float*>NULL)

cdef void pack_f64(void* packing, int me, int count, Team* team) noexcept nogil:
    pack_share(<const Packing*>packing, me, count, <double*>NULL)


cdef void pack_share(const Packing* p, int me, int count, real* type_tag) noexcept nogil:
    cdef Py_ssize_t block, width = 4 * p.lanes, start
    cdef real* target
    cdef double most = 0
    for block in range(part(p.blocks, me, count), part(p.blocks, me + 1, count)):
        start = block * width
        target = <real*>(p.scratch + me * p.room) if p.cut else <real*>p.target + start * p.rows
        if p.backward:
            pack_columns(p.k, <const real*>p.source, p.H, p.K, block, target)
        else:
            pack_gates(p.k, p.form if p.form == NARROW else PANELS, <const real*>p.source, p.H, p.K, block, target)
        if p.scales != NULL:
            pack_gates(p.k, PANELS, <const real*>p.scales, p.H, 1, block, target + p.K * width)
        if p.cut:
            width = min(4 * p.lanes, p.columns - start)
            if is_bounded(p.form):
                most = max(most, largest(p.k, p.rows, width, <const real*>target, width))
            pack_right(p.k, p.form, False, p.rows, width, <const real*>target, width,
                       p.target + right_bytes(p.form, p.rows, start, 0))
            width = 4 * p.lanes
    if p.cut:
        (<double*>(p.scratch + (me + 1) * p.room - LINE))[0] = most


cdef void pack_rows(const Packing* p) noexcept nogil:
    """Those that are packed as they are, row by row or in column blocks, which every number fits."""
    cdef Py_ssize_t item = 8 if p.doubles else 4, row
    if p.way == BLOCKS:
        if p.doubles:
            pack_blocks(p.lanes, p.rows, p.columns, p.k_apart, p.column_apart, <const double*>p.source,
                        <double*>p.target)
        else:
            pack_blocks(p.lanes, p.rows, p.columns, p.k_apart, p.column_apart, <const float*>p.source,
                        <float*>p.target)
        return
    memset(p.target, 0, p.rows * p.columns * item)
    for row in range(p.rows):
        memcpy(p.target + row * p.columns * item, p.source + row * p.K * item, p.K * item)


cdef bint pack_alone(const Packing* p) noexcept nogil:
    cdef Team* nobody = NULL
    if p.start < 0:
        return True  # zeros stay
    if p.way != GATES:
        pack_rows(p)
        return True
    if p.doubles:
        pack_f64(<void*>p, 0, 1, nobody)
    else:
        pack_f32(<void*>p, 0, 1, nobody)
    return not p.cut or tiles_hold((<double*>(p.scratch + p.room - LINE))[0])


cdef class Again:
    def __cinit__(self):
        self.count, self.packings, self.held = 0, NULL, []

    def __dealloc__(self):
        PyMem_Free(self.packings)

    cdef int note(self, const Packing* packing) except -1:
        cdef Packing* packings = <Packing*>PyMem_Realloc(self.packings, (self.count + 1) * sizeof(Packing))
        if packings == NULL:
            raise MemoryError
        self.packings, self.packings[self.count], self.count = packings, packing[0], self.count + 1
        return 0


cdef bint pack_again(const Packing* packings, Py_ssize_t count, const char* flat) noexcept nogil:
    cdef Py_ssize_t n
    cdef Packing packing
    cdef bint fits = True
    for n in range(count):
        packing = packings[n]
        packing.source = flat + packing.start * (8 if packing.doubles else 4)
        fits = pack_alone(&packing) and fits
    return fits


cdef bint vectors_fit_tiles(const Kernels* k, const Direction* directions, Py_ssize_t count) noexcept nogil:
    """Whether tiles hold first states, as if a caller had given them, and layer norms' gains, which multiply
    gradients; of float alone."""
    cdef Py_ssize_t n, Hp
    cdef float h = 0, c = 0, of_x = 0, of_h = 0, of_c = 0
    for n in range(count):
        Hp = directions[n].Hp
        if directions[n].at_h0 >= 0:  # and no projection
            h = max(h, largest(k, 1, Hp, <const float*>directions[n].h0.packed, Hp))
            c = max(c, largest(k, 1, Hp, <const float*>directions[n].c0.packed, Hp))
        if directions[n].at_norm_x >= 0:
            of_x = max(of_x, largest(k, 1, 4 * Hp, <const float*>directions[n].norm_x.packed, 4 * Hp))
            of_h = max(of_h, largest(k, 1, 4 * Hp, <const float*>directions[n].norm_h.packed, 4 * Hp))
            of_c = max(of_c, largest(k, 1, 2 * Hp, <const float*>directions[n].norm_c.packed, 2 * Hp))
    return tiles_hold(h) and tiles_hold(c) and tiles_hold(of_x) and tiles_hold(of_h) and tiles_hold(of_c)
