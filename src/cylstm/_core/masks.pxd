"""What a call's dropout masks (cylstm.drops.Masks) are to its directions, and to its gradients."""

cimport numpy as np

from cylstm._core.arena cimport Work

cdef int point_at_masks(Work work, masks) except -1
cdef int mask_gradients(Work work, np.ndarray flat) except -1
