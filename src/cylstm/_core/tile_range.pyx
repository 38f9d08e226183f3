"""Whether tiles hold what a call is given; for float, on kernels that have tiles.

Nobody looks at what a highway's gates make of gradients on the way down: those below 1e-11 may take them out of the
range that tiles hold. Nor at what layer norms do, which divide them by deviations: of 1e-6 at least, since eps is 1e-12
at least (cell.py), and of large ones where inputs and weights are; slopes of saturated gates shrink them as much.
"""

from cylstm._core.kernels cimport Kernels, largest, tiles_hold
from cylstm._core.network cimport Backward, Forward
from cylstm._core.direction cimport Inputs
from cylstm._core.ragged cimport Steps, caller_row, length


cdef bint forward_fits_tiles(const Forward* call) noexcept nogil:
    """Features of real steps and initial states: past a row's end there may be anything."""
    cdef const Inputs* inputs = &call.record.inputs
    cdef Py_ssize_t I = call.directions[0].I
    if inputs.ids == NULL and inputs.caller != NULL:
        if not rows_fit_tiles(call.k, call.s, I, <const float*>inputs.caller, inputs.row, inputs.step):
            return False
    elif inputs.ids == NULL and not tiles_hold(largest(call.k, call.s.N, I, <const float*>inputs.packed, inputs.ld)):
        return False
    if call.apart.h != NULL:
        return (apart_fit_tiles(call, call.apart.h, call.apart.h_layer)
                and apart_fit_tiles(call, call.apart.c, call.apart.c_layer))
    return states_fit_tiles(call.k, call.L * call.D * call.s.B * call.H, call.h0, call.c0)  # Y is H


cdef bint apart_fit_tiles(const Forward* call, char* const* states, Py_ssize_t layer) noexcept nogil:
    cdef float most = 0
    cdef Py_ssize_t b
    for b in range(call.s.B):
        most = max(most, largest(call.k, call.L, call.H, <const float*>states[b], layer))
    return tiles_hold(most)


cdef bint backward_fits_tiles(const Backward* call) noexcept nogil:
    """Gradients by outputs, of real steps, and by final states."""
    cdef Py_ssize_t O = call.directions[call.L * call.D - 1].O
    if call.packed:
        if not tiles_hold(largest(call.k, call.s.N, O, <const float*>call.dy, call.dy_row)):
            return False
    elif not rows_fit_tiles(call.k, call.s, O, <const float*>call.dy, call.dy_row, call.dy_step):
        return False
    return states_fit_tiles(call.k, call.L * call.D * call.s.B * call.H, call.dhn, call.dcn)


cdef bint rows_fit_tiles(const Kernels* k, const Steps* s, Py_ssize_t columns, const float* rows, Py_ssize_t row,
                         Py_ssize_t step) noexcept nogil:
    cdef float most = 0
    cdef Py_ssize_t b, t
    if s.lengths == NULL and row == columns:  # time-major
        for t in range(s.T):
            most = max(most, largest(k, s.B, columns, rows + t * step, row))
    else:
        for b in range(s.B):
            most = max(most, largest(k, length(s, b), columns, rows + caller_row(s, b) * row, step))
    return tiles_hold(most)


cdef bint states_fit_tiles(const Kernels* k, Py_ssize_t size, const void* h, const void* c) noexcept nogil:
    return ((h == NULL or tiles_hold(largest(k, 1, size, <const float*>h, size)))
            and (c == NULL or tiles_hold(largest(k, 1, size, <const float*>c, size))))
