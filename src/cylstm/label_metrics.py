"""Metrics of labels that a row has in order, however they lie over its steps: those found on the best path of CTC, and
how far they are from those wanted."""

from __future__ import annotations

import math

import numpy as np

from cylstm._core import ctc as core
from cylstm.metric_sums import Sums
from cylstm.sequences import padded

__all__ = ["LabelError", "add_rows", "edit_distances"]


class LabelError(Sums):
    """label_error: the edit distances of labels found from those wanted, over the number of those wanted, both summed
    over rows (Graves et al. 2006, section 2.1). More than 1 where more is found than is wanted; NaN where nothing is
    wanted, and where a row's outputs are no numbers."""

    takes = ("labels",)
    better = "min"

    def __init__(self, loss, O):
        super().__init__(loss, O)
        self.edits = self.wanted = 0.0

    def add(self, targets, outputs, weights):
        self.edits += float((weights * edit_distances(outputs, targets)).sum())
        self.wanted += float((weights * [len(row) for row in targets]).sum())

    def value(self):
        return self.edits / self.wanted if self.wanted else math.nan


def edit_distances(found, wanted) -> np.ndarray:
    """(N,) int64: how many labels must be inserted, deleted or replaced to make each row of `found` that of `wanted`,
    lists of N >= 1 arrays of integers (Levenshtein 1966).

    One row of the table after the other, of all pairs at once: d[i, j] = min(d[i - 1, j - 1] + (f[i] != w[j]),
    d[i - 1, j] + 1, d[i, j - 1] + 1), of which the last is a running minimum of d[i, j] - j.
    """
    (found, steps), (wanted, sizes) = padded(found, np.int64), padded(wanted, np.int64)
    places = np.arange(1 + wanted.shape[1])
    table = np.tile(places, (len(wanted), 1))
    for i in range(steps.max()):
        pairs = np.flatnonzero(steps > i)
        before = table[pairs]
        replaced = before[:, :-1] + (wanted[pairs] != found[pairs, i, None])
        before += 1
        np.minimum(before[:, 1:], replaced, out=before[:, 1:])
        table[pairs] = np.minimum.accumulate(before - places, axis=1) + places
    return table[np.arange(len(wanted)), sizes]


def add_rows(sums, head, h, targets, weights, lengths, at_once) -> None:
    """Take the rows of a batch that count into all Sums of a head, so many outputs or labels at a time.

    head : makes outputs (N, O) of h (N, D*H), all T steps of one row after the other. targets : the labels of B rows.
    weights : (B,). lengths : (B,), None for T.
    """
    T, O, blank = len(h) // len(targets), sums[0].O, sums[0].loss.blank
    lengths = np.full(len(targets), T) if lengths is None else lengths
    rows = max(1, at_once // (O * max(T, *map(len, targets))))
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        steps = np.ascontiguousarray(lengths[part], np.int64)
        starts = T * np.arange(len(steps))
        path, _, _, counts, scores = core.best_path(head(h[T * start : T * (start + rows)]), starts, steps, blank)
        certain = np.where(np.isnan(scores), np.nan, weights[part])  # no path is the best of what is no number
        keep = np.flatnonzero(weights[part] > 0)
        found = [path[starts[n] : starts[n] + counts[n]].copy() for n in keep]
        for one in sums if len(keep) else ():
            one.add([targets[start + n] for n in keep], found, certain[keep])
