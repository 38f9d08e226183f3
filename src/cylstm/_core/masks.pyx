"""See masks.pxd."""

cimport numpy as np
from libc.stdint cimport uint8_t

from cylstm._core.arena cimport Work
from cylstm._core.direction cimport masks_of

import numpy

np.import_array()

cdef extern from *:
    """
    #undef I  /* a letter of ours, which <complex.h>, brought in by NumPy's headers, takes */
    """


cdef int point_at_masks(Work work, masks) except -1:
    """Tell the call where its masks are, of the kinds that it was laid out for."""
    cdef Py_ssize_t n, B = work.plan.steps.B, directions = work.forward.L * work.forward.D
    work.masks = masks
    if masks.outputs is not None:
        work.forward.record.masks = np.PyArray_DATA(<np.ndarray>masks.outputs)
    if masks.inputs is not None:
        work.forward.record.inputs.mask = np.PyArray_DATA(<np.ndarray>masks.inputs)
    for n in range(directions if masks.states is not None else 0):
        work.directions[n].mask = np.PyArray_DATA(<np.ndarray>masks.states[n])
        work.directions[n].masks = masks_of(work.masked)
    work.update_masks = []
    for n in range(directions if masks.updates is not None else 0):
        padded = numpy.zeros((B, work.directions[n].Hp), masks.updates[n].dtype)
        padded[:, :work.directions[n].H] = (
            masks.updates[n] if work.plan.steps.order == NULL else masks.updates[n][work.plan.order()]
        )
        work.directions[n].update_mask = np.PyArray_DATA(<np.ndarray>padded)
        work.update_masks.append(padded)
    for n in range(directions if masks.new_c is not None else 0):
        work.directions[n].new_c = <const uint8_t*>np.PyArray_DATA(<np.ndarray>masks.new_c[n])
    for n in range(directions if masks.new_h is not None else 0):
        work.directions[n].new_h = <const uint8_t*>np.PyArray_DATA(<np.ndarray>masks.new_h[n])
    return 0


cdef int mask_gradients(Work work, np.ndarray flat) except -1:
    """d weight_hh = M d (M weight_hh)."""
    cdef Py_ssize_t n
    for n in range(work.forward.L * work.forward.D):
        part = flat[work.directions[n].at_R:][:4 * work.directions[n].H * work.directions[n].Y]
        part *= work.masks.weights[n].ravel()
    return 0
