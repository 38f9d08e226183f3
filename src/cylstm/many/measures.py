"""How good many models are."""

from __future__ import annotations

import numpy as np

from cylstm._core.crew import COLUMNS
from cylstm.batches import at_once
from cylstm.loss_and_gradients import Sums, sums_of
from cylstm.training.dataset import Dataset

__all__ = [
    "BAD_LOSS", "BAD_NORM", "FAILED", "HITS", "NORMED", "NORMS", "TOTAL", "WEIGHT", "means_of", "walk",
]  # fmt: skip

# Columns of results (_core/many.pxd).
TOTAL, WEIGHT, HITS, TOKENS, NORMS, NORMED, FAILED, BAD_LOSS, BAD_NORM = range(COLUMNS)


def walk(models, data, batch_size=256, chosen=None, crew=None) -> np.ndarray:
    """The results (N, COLUMNS) of the chosen models, of whose sums is made what `Model.evaluate` says."""
    chosen = np.arange(len(models)) if chosen is None else chosen
    found = np.zeros((len(chosen), COLUMNS))
    if data.steps > at_once(min(batch_size, data.rows)):  # a model of its own goes through so many in parts
        for row, n in enumerate(chosen):
            found[row, :4] = by_itself(models[n], data, n, batch_size)
        return found
    crew = models.crew(data, batch_size, learns=False) if crew is None else crew
    orders = data.orders(batch_size, chosen)
    crew.run("measure", chosen, models.flat, data.x, data.y, data.lengths, *orders, found)
    return found


def by_itself(model, data, n, batch_size) -> Sums:
    """The Sums of a model of its own."""
    x, y, lengths = data.of(n)
    head = model.heads[""]
    if head.labels is not None:
        y = head.names.of(y if head.loss.of_classes else y[..., 0].astype(np.int64))
    return sums_of(model, Dataset(model, x, y, lengths), batch_size)[""]


def means_of(head, found) -> dict[str, np.ndarray]:
    """Numbers (N,) by name, of results."""
    named = [{**head.loss.metrics(*row[:3], head.output_size), "tokens": int(row[TOKENS])} for row in found]
    return {name: np.array([each[name] for each in named]) for name in named[0]}
