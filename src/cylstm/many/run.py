"""A training run of many models: epoch after epoch, in which each model goes through its batches on one thread."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from cylstm._core.crew import COLUMNS
from cylstm._core.memory import aligned_empty
from cylstm._core.updates import sum_squares
from cylstm.many import files
from cylstm.many.data import same
from cylstm.many.history import Histories
from cylstm.many.measures import (
    BAD_LOSS,
    BAD_NORM,
    FAILED,
    NORMED,
    NORMS,
    TOTAL,
    WEIGHT,
    walk,
)
from cylstm.training.events import NonFiniteLoss, deferred_interrupt
from cylstm.training.optim import Adam
from cylstm.training.progress import Progress
from cylstm.training.record import Trained, this_machine
from cylstm.training.schedule import ReduceOnPlateau

__all__ = ["Run"]


@dataclass
class Moments:
    """What an optimiser remembers of many models: as `training.optim.Moments`, each number (N,), and `measure` (N,) of
    objects. turns : (N,), the model in each place that it is of (`Models.turns`)."""

    updates: np.ndarray
    epochs: np.ndarray
    plateaus: np.ndarray
    since_plateau: np.ndarray
    lowest: np.ndarray
    measure: np.ndarray
    turns: np.ndarray
    buffers: dict[str, np.ndarray] = field(default_factory=dict)


class Run:
    """Where many models' training stands, and how it goes on."""

    def __init__(self, models, data, held_out, optimizer, options, checkpoint, progress):
        self.models, self.data, self.held_out = models, data, held_out
        self.optimizer, self.options = optimizer, options
        self.checkpoint = None if checkpoint is None else files.as_checkpoint(checkpoint)
        self.progress = progress
        count = len(models)
        self.moments = moments_of(optimizer, models)
        self.history = Histories(count)
        self.first, self.done = self.moments.epochs.copy(), 0  # epochs of this run
        self.going = np.ones(count, bool)
        self.failed = {}  # what there is to say, by the number of a model
        self.seeds = np.array(options["seeds"], object)
        self.best, self.waited = np.full(count, np.inf), np.zeros(count, np.int64)
        self.best_weights = None if options["patience"] is None else models.flat.copy()
        # As `training.run.Run` has it: what a schedule has seen is of one measure, and of another one it begins anew.
        moments = self.moments
        self.measure = f"{'training' if held_out is None else 'validation'} loss min"
        alike = moments.measure == self.measure
        self.lowest = np.where(alike, moments.lowest, np.inf)
        self.since_plateau = np.where(alike, moments.since_plateau, 0)
        self.plateaus = moments.plateaus.copy()
        self.may_raise = False  # whether Ctrl-C may: where updates and what is counted of them cannot come apart
        self.fixed = self.unchanging()
        self.elapsed, self.started = 0.0, time.perf_counter()
        self.crew = models.crew(data, options["batch_size"], learns=True)
        self.judges = None if held_out is None else models.crew(held_out, 256, learns=False)

    def resume(self, path) -> None:
        """Go on where a checkpoint stands. Raises OSError or ValueError, before anything is changed."""
        files.resume(self, path)

    def until(self, epochs) -> Histories:
        """Train each model up to so many epochs in all."""
        self.started = time.perf_counter()
        self.models.trained, self.models.own = Trained(self.history, self.options, this_machine()), {}
        with deferred_interrupt(lambda: self.may_raise) as interrupt, Progress(self.progress, 0, epochs) as self.shown:
            while self.done < epochs and self.going.any():
                self.run_epoch()
                if self.checkpoint is not None:
                    self.expect_finite_weights()
                    files.save_run(self)
                if interrupt.is_set():
                    raise KeyboardInterrupt
        if self.best_weights is not None:
            chosen = np.isfinite(self.best)
            chosen[list(self.failed)] = False
            self.models.flat[chosen] = self.best_weights[chosen]
        self.expect_finite_weights()
        if self.failed:
            first = min(self.failed)
            others = f" (and {len(self.failed) - 1} others)" if len(self.failed) > 1 else ""
            raise NonFiniteLoss(f"model {first}: {self.failed[first]}{others}")
        return self.history

    def expect_finite_weights(self):
        """Of each model that has not failed, as `training.run.Run.expect_finite_weights`."""
        for n, weights in enumerate(self.models.flat):
            if n not in self.failed and not math.isfinite(sum_squares(weights)):
                what = "weights: expected finite numbers, got others"
                self.fail(n, what, self.moments.updates[n], f"the end of epoch {self.moments.epochs[n]}")

    def raising(self, call, *args, **options):
        """A call in whose midst Ctrl-C may raise."""
        self.may_raise = True
        try:
            return call(*args, **options)
        finally:
            self.may_raise = False

    def run_epoch(self):
        chosen = np.flatnonzero(self.going)
        epochs = self.first[chosen] + self.done
        seeds = self.seeds[chosen] if self.options["shuffle"] else None
        orders, starts, which = self.data.orders(self.options["batch_size"], chosen, seeds, epochs)
        rates = self.rates(epochs, self.plateaus[chosen], starts.shape[1] - 1)
        results = np.zeros((len(chosen), COLUMNS))
        results[:, FAILED] = -1
        updates = self.moments.updates  # are counted as they happen
        self.shown.begin(self.done, 1, 0, 0)
        learning = {**self.fixed, "rates": rates, "updates": updates}
        self.raising(self.crew.run, "learn", chosen, self.models.flat, self.data.x, self.data.y, self.data.lengths,
                     orders, starts, which, results, self.models.head.weight, learning=learning)  # fmt: skip
        good = results[:, FAILED] < 0
        for row in np.flatnonzero(~good):
            result = results[row]
            finite = math.isfinite(result[BAD_LOSS])
            what = "gradients: expected a finite norm" if finite else "loss: expected a finite number"
            what += f", got {result[BAD_NORM] if finite else result[BAD_LOSS]}"
            where = f"epoch {epochs[row] + 1}, batch {int(result[FAILED]) + 1}"
            self.fail(chosen[row], what, updates[chosen[row]] + 1, where)
        self.end_epoch(chosen[good], results[good], rates[good, -1], starts.shape[1] - 1)

    def fail(self, n, what, update, where):
        self.failed[int(n)] = f"{what} at update {update} ({where})"
        self.going[n] = False

    def unchanging(self) -> dict:
        """What of the optimiser is the same for all updates."""
        optimizer, one, buffers = self.optimizer, self.models.template, self.moments.buffers
        trainable = self.options["trainable"]
        pieces = optimizer._pieces(one.parameters, trainable)
        adam, at, parameters = isinstance(optimizer, Adam), 0, []
        for name, shape in one.parameters.layout.items():
            start, at = at, at + math.prod(shape)
            parameters.append((start, at, trainable is None or name in trainable))
        return {
            "pieces": np.array([piece for piece, _ in pieces], np.int64).reshape(-1, 2),
            "decays": np.array([decay for _, decay in pieces], np.float64),
            "parameters": np.array(parameters, np.int64), "m": buffers.get("m"), "v": buffers.get("v"), "adam": adam,
            "momentum": getattr(optimizer, "momentum", 0.0), "nesterov": getattr(optimizer, "nesterov", False),
            "betas": getattr(optimizer, "betas", (0.0, 0.0)), "eps": getattr(optimizer, "eps", 0.0),
            "decoupled": getattr(optimizer, "decoupled", False), "clip_norm": self.options["clip_norm"],
            "clip_each": self.options["clip_each"],
        }  # fmt: skip

    def rates(self, epochs, plateaus, count) -> np.ndarray:
        """(models, updates): the learning rate of each."""
        if same(epochs) and same(plateaus):
            return np.tile(self.rates_of(int(epochs[0]), int(plateaus[0]), count), (len(epochs), 1))
        rates, known = np.empty((len(epochs), count)), {}
        for row, key in enumerate(zip(epochs.tolist(), plateaus.tolist(), strict=True)):
            if key not in known:
                known[key] = self.rates_of(*key, count)
            rates[row] = known[key]
        return rates

    def rates_of(self, epoch, plateaus, count) -> np.ndarray:
        return np.array([self.optimizer.lr.at(epoch + u / count, plateaus) for u in range(count)])

    def end_epoch(self, chosen, results, rates, batches):
        count, columns = len(self.models), {}

        def spread(values, of=chosen):
            column = np.full(count, np.nan)
            column[of] = values
            return column

        columns["train_loss"], columns["train_accuracy"] = self.told(chosen, results, spread)
        watched = columns["train_loss"]
        if self.held_out is not None:
            found = self.raising(walk, self.models, self.held_out, chosen=chosen, crew=self.judges)
            columns["validation_loss"], columns["validation_accuracy"] = self.told(chosen, found, spread)
            watched = columns["validation_loss"]
            bad = chosen[~np.isfinite(watched[chosen])]
            for n in bad:
                what = f"validation loss: expected a finite number, got {watched[n]}"
                where = f"epoch {self.first[n] + self.done + 1}, batch {batches}"
                self.fail(n, what, self.moments.updates[n], where)
            good = np.isin(chosen, bad, invert=True)
            chosen, results, rates = chosen[good], results[good], rates[good]
            for column in columns.values():
                if column is not None:
                    column[bad] = np.nan
        columns["gradient_norm"] = spread(results[:, NORMS] / results[:, NORMED], chosen)  # of one update or more
        columns["learning_rate"] = spread(rates, chosen)
        columns["updates"] = spread(self.moments.updates[chosen], chosen)
        seconds = self.elapsed + time.perf_counter() - self.started
        self.history.add(seconds, **columns)
        self.done += 1
        if self.progress:
            self.shown.end(text_of(columns), seconds)
        self.watch(chosen, watched[chosen])
        self.moments.epochs[chosen] += 1
        self.remember(chosen)

    def told(self, chosen, results, spread):
        """Losses, and accuracies where there are any, of sums."""
        head = self.models.head
        named = head.loss.metrics(0.0, 1.0, 0.0, head.output_size)
        accuracies = None
        if "accuracy" in named:
            accuracies = spread([head.loss.metrics(*row[:3], head.output_size)["accuracy"] for row in results])
        return spread(results[:, TOTAL] / results[:, WEIGHT]), accuracies

    def watch(self, chosen, values):
        """As `training.run.Run.watch`, of each model."""
        optimizer, patience = self.optimizer, self.options["patience"]
        values = np.where(np.isfinite(values), values, np.inf)
        self.waited[chosen] += 1
        better = chosen[values < self.best[chosen]]
        self.best[chosen] = np.minimum(self.best[chosen], values)
        self.waited[better] = 0
        if patience is not None:
            self.best_weights[better] = self.models.flat[better]
            self.going[chosen] = self.waited[chosen] < patience
        self.since_plateau[chosen] += 1
        lower = values < self.lowest[chosen]
        self.lowest[chosen] = np.minimum(self.lowest[chosen], values)
        self.since_plateau[chosen[lower]] = 0
        if isinstance(optimizer.lr, ReduceOnPlateau):
            flat = chosen[self.since_plateau[chosen] >= optimizer.lr.patience]
            self.plateaus[flat] += 1
            self.since_plateau[flat] = 0

    def remember(self, chosen):
        """Let the optimiser go on from here with these models, whose epoch is over."""
        moments = self.moments
        moments.measure[chosen] = self.measure
        for name in ("plateaus", "lowest", "since_plateau"):
            getattr(moments, name)[chosen] = getattr(self, name)[chosen]


def moments_of(optimizer, models) -> Moments:
    """How far an optimiser is with these models: it begins anew with one that was put in a place since. ValueError for
    one that has got a momentum since."""
    known, flat, count = optimizer._moments, models.flat, len(models)
    if not isinstance(known.get(models.stack), Moments):
        buffers = {}
        for name in optimizer.buffer_names:
            buffers[name] = aligned_empty(flat.size, flat.dtype).reshape(flat.shape)
            buffers[name][:] = 0
        numbers = (np.zeros(count, np.int64) for _ in range(4))
        known[models.stack] = Moments(*numbers, np.full(count, np.inf), np.full(count, None), models.turns.copy(),
                                      buffers)  # fmt: skip
    moments = known[models.stack]
    needed = {"m"} if getattr(optimizer, "momentum", 0) else set()
    if not needed.union(optimizer.buffer_names) <= set(moments.buffers):
        raise ValueError(f"optimizer: expected the momentum that it has trained these models with, got {optimizer!r}")
    new = moments.turns != models.turns
    if new.any():
        for numbers in (moments.updates, moments.epochs, moments.plateaus, moments.since_plateau):
            numbers[new] = 0
        moments.lowest[new], moments.measure[new] = np.inf, None
        for buffer in moments.buffers.values():
            buffer[new] = 0
        moments.turns[:] = models.turns
    return moments


def text_of(columns) -> str:
    """The line of an epoch."""
    told = []
    for name, column in columns.items():
        if name in ("train_loss", "validation_loss") and not np.isnan(column).all():
            low, middle, high = np.nanquantile(column, (0, 0.5, 1))
            label = "loss" if name == "train_loss" else "validation"
            told.append(f"{label} {middle:.4f} ({low:.4f} to {high:.4f})")
    return ", ".join(told)
