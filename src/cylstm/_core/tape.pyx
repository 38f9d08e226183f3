"""What a call leaves for its backward: see tape.pxd."""

cimport cython

import numpy


cdef class Tape:
    """What `forward` keeps for `backward`: inputs, gates, h and c of every step, and the dropout masks."""

    @property
    def h(self):
        """(L*D, B, T, Y), or (L*D, T, Y) of one row: h of each layer and direction after each step, in the order of
        time; 0 past a row's end. A copy. Raises ValueError once backward has used the tape."""
        return self._after_steps(False)

    @property
    def c(self):
        """(L*D, B, T, H), or (L*D, T, H): c likewise."""
        return self._after_steps(True)

    cdef _after_steps(self, bint of_c):
        with cython.critical_section(self):
            if self.work is None:
                raise ValueError("tape: expected a tape that no backward call has used, got one that was")
            found = self.work.after_steps(of_c)
        return found if self.batched else found[:, 0]

    @property
    def masks(self):
        """List of the L-1 dropout masks (B, T, O), O numbers in an output, scaled by 1/(1-p), or, where they are the
        same at all steps, (B, 1, O); None without dropout."""
        if self.kept_masks is None or self.kept_masks.outputs is None:
            return None
        masks = self.kept_masks.outputs
        if masks.ndim == 1:  # layer by layer, of different widths
            rows = self.plan.steps.B if self.per_row else self.plan.steps.N
            cell, D = self.layer.cell, self.layer.num_directions
            widths = [cell.output_size(H, D) for H in self.layer.hidden_sizes[:self.layer.num_layers - 1]]
            parts = numpy.split(masks, numpy.cumsum([rows * O for O in widths]))
            masks = [part.reshape(rows, O) for part, O in zip(parts, widths)]
        return [mask[:, None] if self.per_row else self.plan.unpack(mask) for mask in masks]

    @property
    def input_mask(self):
        """(B, I) of input_dropout, scaled; None without."""
        return None if self.kept_masks is None else self.kept_masks.inputs

    @property
    def recurrent_masks(self):
        """(L*D, B, Y) of recurrent_dropout, scaled, or (L*D, 4, B, Y), one for each gate; of layers of different widths
        a list; None without."""
        return None if self.kept_masks is None else self.kept_masks.states

    @property
    def update_masks(self):
        """(L*D, B, H) of update_dropout, scaled, of layers of different widths a list; None without."""
        return None if self.kept_masks is None else self.kept_masks.updates

    @property
    def weight_masks(self):
        """(L*D, 4H, Y) of weight_drop, scaled, of layers of different widths a list; None without."""
        return None if self.kept_masks is None else self.kept_masks.weights

    @property
    def zoneout_masks(self):
        """Of zoneout, where c and where h is not as it was before the step: booleans (L*D, B, T, H) and (L*D, B, T, Y),
        of layers of different widths lists, False past a row's end; None for the one of which nothing is kept, and
        without both."""
        if self.kept_masks is None or (self.kept_masks.new_c is None and self.kept_masks.new_h is None):
            return None
        found = []
        for new in (self.kept_masks.new_c, self.kept_masks.new_h):
            parts = None if new is None else [self.plan.unpack(one) for one in new]
            found.append(parts if new is None or isinstance(new, list) else numpy.stack(parts))
        return tuple(found)
