"""A training run of many models: epoch after epoch, in which each model goes through its batches on one thread."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from cylstm._core.crew import COLUMNS
from cylstm._core.memory import aligned_empty
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
from cylstm.training.events import NonFiniteLoss
from cylstm.training.optim import Adam
from cylstm.training.progress import Progress
from cylstm.training.record import Trained, this_machine
from cylstm.training.schedule import ReduceOnPlateau

__all__ = ["Run"]


@dataclass
class Moments:
    """What an optimiser remembers of many models: as `training.optim.Moments`, each number (N,)."""

    updates: np.ndarray
    epochs: np.ndarray
    plateaus: np.ndarray
    since_plateau: np.ndarray
    lowest: np.ndarray
    measure: str | None = None
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
        measure = f"{'training' if held_out is None else 'validation'} loss min"
        if self.moments.measure != measure:
            self.moments.lowest[:], self.moments.since_plateau[:] = np.inf, 0
            self.moments.measure = measure
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
        self.models.trained = Trained(self.history, self.options, this_machine())
        with Progress(self.progress, 0, epochs) as self.shown:
            while self.done < epochs and self.going.any():
                self.run_epoch()
                if self.checkpoint is not None:
                    files.save_run(self)
        if self.best_weights is not None:
            chosen = np.isfinite(self.best)
            chosen[list(self.failed)] = False
            self.models.flat[chosen] = self.best_weights[chosen]
        for n in np.flatnonzero(~np.isfinite(self.models.flat).all(axis=1)):
            self.failed.setdefault(int(n), "weights: expected finite numbers, got others")
        if self.failed:
            first = min(self.failed)
            others = f" (and {len(self.failed) - 1} others)" if len(self.failed) > 1 else ""
            raise NonFiniteLoss(f"model {first}: {self.failed[first]}{others}")
        return self.history

    def run_epoch(self):
        chosen = np.flatnonzero(self.going)
        epochs = self.first[chosen] + self.done
        seeds = self.seeds[chosen] if self.options["shuffle"] else None
        orders, starts, which = self.data.orders(self.options["batch_size"], chosen, seeds, epochs)
        rates = self.rates(epochs, self.moments.plateaus[chosen], starts.shape[1] - 1)
        results = np.zeros((len(chosen), COLUMNS))
        results[:, FAILED] = -1
        updates = self.moments.updates[chosen]
        self.shown.begin(self.done, 1, 0, 0)
        learning = {**self.fixed, "rates": rates, "updates": updates}
        self.crew.run("learn", chosen, self.models.flat, self.data.x, self.data.y, self.data.lengths, orders, starts,
                      which, results, self.models.head.weight, learning=learning)  # fmt: skip
        self.moments.updates[chosen] = updates
        good = results[:, FAILED] < 0
        for row in np.flatnonzero(~good):
            result = results[row]
            finite = math.isfinite(result[BAD_LOSS])
            what = "gradients: expected a finite norm" if finite else "loss: expected a finite number"
            what += f", got {result[BAD_NORM] if finite else result[BAD_LOSS]}"
            self.fail(chosen[row], what, updates[row] + 1, epochs[row], int(result[FAILED]) + 1)
        self.end_epoch(chosen[good], results[good], rates[good, -1], starts.shape[1] - 1)

    def fail(self, n, what, update, epoch, batch):
        self.failed[int(n)] = f"{what} at update {update} (epoch {epoch + 1}, batch {batch})"
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
            found = walk(self.models, self.held_out, chosen=chosen, crew=self.judges)
            columns["validation_loss"], columns["validation_accuracy"] = self.told(chosen, found, spread)
            watched = columns["validation_loss"]
            bad = chosen[~np.isfinite(watched[chosen])]
            for n in bad:
                what = f"validation loss: expected a finite number, got {watched[n]}"
                self.fail(n, what, self.moments.updates[n], self.first[n] + self.done, batches)
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
        moments, optimizer, patience = self.moments, self.optimizer, self.options["patience"]
        values = np.where(np.isfinite(values), values, np.inf)
        self.waited[chosen] += 1
        better = chosen[values < self.best[chosen]]
        self.best[chosen] = np.minimum(self.best[chosen], values)
        self.waited[better] = 0
        if patience is not None:
            self.best_weights[better] = self.models.flat[better]
            self.going[chosen] = self.waited[chosen] < patience
        moments.since_plateau[chosen] += 1
        lower = values < moments.lowest[chosen]
        moments.lowest[chosen] = np.minimum(moments.lowest[chosen], values)
        moments.since_plateau[chosen[lower]] = 0
        if isinstance(optimizer.lr, ReduceOnPlateau):
            flat = chosen[moments.since_plateau[chosen] >= optimizer.lr.patience]
            moments.plateaus[flat] += 1
            moments.since_plateau[flat] = 0


def moments_of(optimizer, models) -> Moments:
    """How far an optimiser is with these models."""
    known = optimizer._moments
    if models.stack not in known:
        count, flat, buffers = len(models), models.flat, {}
        for name in optimizer.buffer_names:
            buffers[name] = aligned_empty(flat.size, flat.dtype).reshape(flat.shape)
            buffers[name][:] = 0
        numbers = (np.zeros(count, np.int64) for _ in range(4))
        known[models.stack] = Moments(*numbers, np.full(count, np.inf), None, buffers)
    return known[models.stack]


def text_of(columns) -> str:
    """The line of an epoch."""
    told = []
    for name, column in columns.items():
        if name in ("train_loss", "validation_loss") and not np.isnan(column).all():
            low, middle, high = np.nanquantile(column, (0, 0.5, 1))
            label = "loss" if name == "train_loss" else "validation"
            told.append(f"{label} {middle:.4f} ({low:.4f} to {high:.4f})")
    return ", ".join(told)
