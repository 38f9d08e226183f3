"""Highways (Srivastava, Greff & Schmidhuber 2015): outputs y = t h + (1 - t) x_d of one direction of a layer above the
first one, t = sigmoid(W_t x + b_t) of what goes into the layer, x (N, I), of which x_d are the columns beside h.

Every function is called by all members of a team at once and does its member's part.
"""

from libc.string cimport memset

from cylstm._core.direction cimport Direction, Inputs, Scratch
from cylstm._core.gradients cimport DX_ROWS, summed_products
from cylstm._core.interrupt cimport goes_on_alone
from cylstm._core.kernels cimport Kernels, column_sums, lanes_of, map_sigmoid, product, real
from cylstm._core.ragged cimport Steps, offset, slot
from cylstm._core.team cimport Member, last_alive, part


cdef void shares_of_h(const Kernels* k, const Direction* direction, const Member* of_h, Py_ssize_t rows, const real* x,
                      Py_ssize_t ld, real* shares) noexcept nogil:
    """t (rows, Yp), in this member's share of h, of x (rows, ld)."""
    cdef Py_ssize_t Yp = direction.Yp, b, at
    product(k, direction.highway.form, rows, direction.I, Yp, of_h.first, of_h.last, x, ld, direction.highway.packed,
            <const real*>direction.highway_bias.packed, shares, Yp)
    for b in range(rows):
        at = b * Yp + of_h.first
        map_sigmoid(k, of_h.last - of_h.first, <const real*>shares + at, shares + at)


cdef void part_highway(const Steps* s, const Direction* direction, bint reverse, const Member* of_h,
                       const Scratch* scratch, const real* shares, const real* h, const real* carried, Py_ssize_t ld,
                       real* dh) noexcept nogil:
    """dh at each boundary, which has dy, becomes t dy; scratch gets dz, z = W_t x + b_t, and dcarried = (1 - t) dy.
    h and dh (B+N, Yp); carried: x_d, rows `ld` apart."""
    cdef Py_ssize_t Yp = direction.Yp, last = min(of_h.last, direction.Y), t, b, j, n, at
    cdef real* dz
    cdef real* dcarried
    cdef real dy, share
    for t in range(s.T):
        for b in range(of_h.first_row, last_alive(s, of_h, t)):
            n, at = offset(s, t) + b, (slot(s, t if reverse else t + 1) + b) * Yp
            dz, dcarried = <real*>scratch.dz + n * Yp, <real*>scratch.dcarried + n * Yp
            for j in range(of_h.first, last):
                dy, share = dh[at + j], shares[n * Yp + j]
                dz[j] = dy * (h[at + j] - carried[n * ld + j]) * share * (1 - share)
                dcarried[j] = (1 - share) * dy
                dh[at + j] = share * dy
            memset(dz + last, 0, max(0, of_h.last - last) * sizeof(real))


cdef void highway_gradients(const Kernels* k, const Steps* s, const Direction* direction, const Member* who,
                            const Member* of_h, const Scratch* scratch, Py_ssize_t beat, const Inputs* inputs,
                            Py_ssize_t at, real* dx, real* d) noexcept nogil:
    """dW_t = dz' x and db_t = sums of dz, into the flat gradients d, and dx (N, Ip) += dz W_t, and dcarried from column
    `at` on. who, of_h: a member by units, its share of h."""
    cdef Py_ssize_t I = direction.I, Ip = direction.Ip, Y = direction.Y, Yp = direction.Yp
    cdef Py_ssize_t blocks = (s.N + DX_ROWS - 1) // DX_ROWS, block, start, rows, n, j
    cdef const real* dz = <const real*>scratch.dz
    cdef const real* dcarried = <const real*>scratch.dcarried
    summed_products(who, beat, s.N, Y, I, lanes_of(k, dx), dz, Yp, <const real*>inputs.packed, inputs.ld,
                    d + direction.at_highway)
    if of_h.first < Y:
        column_sums(k, s.N, min(of_h.last, Y) - of_h.first, dz + of_h.first, Yp,
                    d + direction.at_highway_bias + of_h.first)
    for block in range(part(blocks, who.me, who.count), part(blocks, who.me + 1, who.count)):  # as in input_gradients()
        if not goes_on_alone(who.interrupt, who.me, beat):
            return
        start = block * DX_ROWS
        rows = min(<Py_ssize_t>DX_ROWS, s.N - start)
        product(k, direction.highway_back.form, rows, Y, Ip, 0, Ip, dz + start * Yp, Yp, direction.highway_back.packed,
                <const real*>NULL, dx + start * Ip, Ip)
        for n in range(start, start + rows):
            for j in range(Y):
                dx[n * Ip + at + j] += dcarried[n * Yp + j]
