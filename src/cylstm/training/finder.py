"""A learning rate to begin with: one short run of a copy whose rate rises, and what its loss does (Smith 2017)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from cylstm.checks import describe, positive_int, real_in
from cylstm.signatures import show_options
from cylstm.training import pictures
from cylstm.training.events import NonFiniteLoss, StopTraining
from cylstm.training.fit import fit
from cylstm.training.optim import Adam, Optimizer

__all__ = ["LearningRates", "find_lr"]

OPTIONS = (
    "lengths", "mask", "resets", "state", "sample_weight", "class_weight", "ignore", "missing", "batch_size",
    "clip_norm", "clip_each", "accumulate", "trainable", "tbptt", "shuffle", "seed", "on_gradients",
)  # fmt: skip
KEPT = 0.9  # of the mean, after each update
MOST = 10**6  # updates: their rates are in memory
RISE = 3  # how far the loss may rise, in units of its fall or of its lowest value


@dataclass(frozen=True, eq=False, repr=False)
class LearningRates:
    """What `find_lr` saw, arrays (N,) float64 of its N updates.

    rates : of each update.
    losses : before each update, of its batch.
    smoothed : their exponential mean, 0.9 of the one before and 0.1 of the new loss, corrected as Adam's moments are.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss falls fastest, by the logarithm of the rate, before its lowest point and
        after the first tenth of the updates, whose mean is of few losses. None where it falls nowhere."""
        if len(self.rates) < 3:
            return None
        slopes = np.gradient(self.smoothed, np.log(self.rates))
        first, stop = len(slopes) // 10, int(self.smoothed.argmin()) + 1
        if stop <= first or slopes[first:stop].min() >= 0:
            return None
        return float(self.rates[first + slopes[first:stop].argmin()])

    def __repr__(self):
        found = "none" if self.suggestion is None else f"{self.suggestion:.3g}"
        return f"LearningRates({len(self.rates)} from {self.rates[0]:.3g} to {self.rates[-1]:.3g}, suggestion {found})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture, where there is matplotlib."""
        try:
            return pictures.shown(self.figure())
        except ImportError:
            return f"<p>{self!r}</p>"

    def plot(self, path) -> None:
        """Draw the losses over the rates into a picture, as `History.plot` does: ImportError, ValueError, OSError."""
        pictures.ending(path)
        pictures.write(self.figure(), path)

    def figure(self):
        """The picture of `plot`."""
        figure, (axes,) = pictures.curves(1, 4.2)
        axes.plot(self.rates, self.losses, ".", color="C7", markersize=3, label="of each update")
        axes.plot(self.rates, self.smoothed, label="smoothed")
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color="C1", linestyle="--", label=f"suggestion {self.suggestion:.3g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        low, high = self.smoothed.min(), self.smoothed.max()
        space = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - space, high + space)  # single losses may be far off
        axes.legend()
        return figure


class Rising:
    """A callback that gives each update the next rate, and stops where the loss runs away or the rates end."""

    def __init__(self, optimizer, rates):
        self.optimizer, self.rates = optimizer, rates
        self.losses, self.smoothed, self.mean = [], [], 0.0
        optimizer.lr = rates[0]

    def __call__(self, event):
        if event.kind != "update":
            return
        self.mean = KEPT * self.mean + (1 - KEPT) * event.loss
        self.losses.append(event.loss)
        n = len(self.losses)
        self.smoothed.append(self.mean / (1 - KEPT**n))
        lowest = min(self.smoothed)
        room = RISE * max(abs(lowest), self.smoothed[0] - lowest)
        if n == len(self.rates) or self.smoothed[-1] > lowest + room:
            raise StopTraining
        self.optimizer.lr = self.rates[n]


@show_options(fit, OPTIONS)
def find_lr(model, x, y=None, *, optimizer=None, lowest=1e-6, highest=1.0, updates=100, **options) -> LearningRates:
    """Losses of a copy of a model that is trained with rates from `lowest` to `highest`, each the same factor above the
    one before (Smith 2017); the model, its generator and the optimiser stay as they are.

    x, y and other options: as for `fit`, or batches alone; those of data and updates (lengths, mask, resets, state,
        sample_weight, class_weight, ignore, missing, batch_size, clip_norm, clip_each, accumulate, trainable, tbptt,
        shuffle, seed, on_gradients). Epochs follow each other until the updates are done.
    optimizer : SGD, Adam or AdamW, whose settings but the rate count; a new Adam by default.
    updates : how many rates, at least 10. Fewer are tried where the smoothed loss rises above its lowest by more than
        three times its fall before, or three times its lowest value, whichever is more, or stops being a number.

    Returns LearningRates. Raises what `fit` raises, and TypeError or ValueError, naming the argument.
    """
    if unknown := [name for name in options if name not in OPTIONS]:
        raise TypeError(f"find_lr: expected options of {', '.join(OPTIONS)}, got {unknown[0]}")
    lowest = real_in("lowest", lowest, 0, open_low=True)
    highest = real_in("highest", highest, lowest, open_low=True)
    if positive_int("updates", updates, 10) > MOST:
        raise ValueError(f"updates: expected an integer in 10..{MOST}, got {describe(updates)}")
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected SGD, Adam or AdamW, got {describe(optimizer)}")
    optimizer = copy.copy(optimizer)
    shares = (n / (updates - 1) for n in range(updates))
    rates = [lowest ** (1 - share) * highest**share for share in shares]  # highest / lowest may be too large
    rising = Rising(optimizer, rates)
    try:
        fit(copy.copy(model), x, y, epochs=updates, optimizer=optimizer, callbacks=[rising], progress=False, **options)
    except NonFiniteLoss:
        if not rising.losses:
            raise
    losses, smoothed = np.array(rising.losses), np.array(rising.smoothed)
    return LearningRates(np.array(rates[: len(losses)]), losses, smoothed)
