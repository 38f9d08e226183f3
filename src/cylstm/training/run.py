"""A training run: epochs of mini-batches or of chunks of long streams, with checkpoints that resume to the same bits.

A run is a function of (initial weights, data, options, seed): the order of epoch e is drawn from (seed, e) alone, and
what else is random, the dropout masks, comes from the model's generator, whose state is part of every checkpoint.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import reduce
from itertools import chain

import numpy as np

from cylstm._core import updates
from cylstm.batches import batch_of
from cylstm.loss_and_gradients import Sums, evaluate, learn, loss_of, means_of
from cylstm.parameters import Parameters
from cylstm.training import checkpoint as checkpoints
from cylstm.training.batch_stream import Stream
from cylstm.training.dataset import Dataset
from cylstm.training.events import Event, NonFiniteLoss, StopTraining, deferred_interrupt
from cylstm.training.history import History
from cylstm.training.parallel import RankError, hashed, learned
from cylstm.training.parts import cut
from cylstm.training.progress import Progress
from cylstm.training.record import Trained, this_machine
from cylstm.training.schedule import ReduceOnPlateau

__all__ = ["Options", "Run"]


@dataclass(frozen=True)
class Options:
    """Everything but the data that decides what training computes, `epochs` excepted; the same again on resuming."""

    batch_size: int | None  # None for batches that come as they are
    optimizer: str
    clip_norm: float | None
    clip_each: bool
    tbptt: int | None
    shuffle: bool
    seed: int
    patience: int | None
    rows: int | None
    tokens: int | None
    data: str  # a fingerprint
    accumulate: int = 1
    trainable: list[str] | None = None  # names
    monitor: str = "loss min"  # what is watched, and which way is better
    parts: int | None = None  # of each batch, added in a tree


class Run:
    """One training run: where it stands, and how it goes on."""

    def __init__(self, model, dataset, held_out, optimizer, options, checkpoint, progress, callbacks, on_gradients,
                 metrics, monitor, ranks):  # fmt: skip
        self.model, self.dataset, self.held_out = model, dataset, held_out
        self.ranks = ranks
        self.optimizer, self.options, self.checkpoint = optimizer, options, checkpoint
        self.progress, self.callbacks, self.on_gradients = progress, callbacks, on_gradients
        self.metrics, self.monitor = metrics, monitor
        self.moments = moments = optimizer.moments(model.parameters)
        self.gradients = Parameters(model.parameters.layout, model.dtype)
        self.means = Parameters(model.parameters.layout, model.dtype) if options.accumulate > 1 else None
        self.history = History(watched=monitor)
        self.first_epoch = self.epoch = moments.epochs
        self.position = 0  # updates of this epoch that are done
        self.norms = 0.0, 0  # of this epoch's gradients: their sum, and how many there were
        self.sums = dict.fromkeys(model.heads, Sums())  # of this epoch
        self.state = None  # carried from chunk to chunk; by part, where batches have some
        self.best, self.best_weights, self.waited = math.inf, None, 0
        # What a schedule has seen is of one measure: of another one it begins anew.
        self.measure = f"{'training' if held_out is None else 'validation'} {options.monitor}"
        same = moments.measure == self.measure
        self.lowest, self.since_plateau = (moments.lowest, moments.since_plateau) if same else (math.inf, 0)
        self.plateaus = moments.plateaus
        self.elapsed, self.started = 0.0, time.perf_counter()
        self.saved_at, self.saved_update, self.saved_path = self.started, moments.updates, None

    def meet(self, epochs) -> None:
        """See that all ranks begin the same run; from now on the first one's callbacks are called."""

        def same():
            held_out, moments, this = self.held_out, vars(self.moments).copy(), this_machine()
            moments["buffers"] = {name: hashed(values) for name, values in moments["buffers"].items()}
            return {"model": self.model.header(), "options": vars(self.options), "epochs": epochs, **self.standing(),
                    "optimizer's moments": moments, "checkpoint": self.checkpoint is not None,
                    "metrics": [metric.name for of_head in self.metrics.values() for metric in of_head],
                    "on_gradients": self.on_gradients is not None, "instruction set": this["instruction set"],
                    "validation": None if held_out is None else held_out.fingerprint()}  # fmt: skip

        self.ranks.expect_same(same)
        self.callbacks = self.ranks.first_ones(self.callbacks)

    def standing(self) -> dict:
        """What all ranks have alike, unless something makes them drift apart that they do not share: noise that is
        added to gradients, a callback of the first that changes more than what it is told."""
        return {"weights": hashed(self.model.parameters.raw()), "learning rate": repr(self.optimizer.lr),
                "plateaus": self.plateaus, "generator": hashed(self.model.rng.bit_generator.state)}  # fmt: skip

    # --- the loop -------------------------------------------------------------------------------------------------

    def until(self, epochs) -> History:
        """Train up to `epochs` epochs in all."""
        try:
            return self.trained_until(epochs)
        except RankError as error:
            raise RankError(f"{error}{self.kept()}") from None

    def trained_until(self, epochs):
        self.started = self.saved_at = time.perf_counter()
        self.model.trained = Trained(self.history, vars(self.options), this_machine())
        try:
            with deferred_interrupt() as interrupt, Progress(self.progress, self.first_epoch, epochs) as self.shown:
                while self.epoch < epochs and not self.out_of_patience():
                    self.run_epoch(interrupt)
                    self.save_now_and_then(interrupt)
        except StopTraining:
            if self.checkpoint is not None and self.moments.updates != self.saved_update:
                self.save()
        if self.options.patience is not None and self.best_weights is not None:
            self.model.parameters.raw()[:] = self.best_weights
            self.model.parameters.touch()
        if any(self.ranks.agree(interrupt.is_set())):
            raise KeyboardInterrupt
        self.expect_finite_weights()
        return self.history

    def out_of_patience(self):
        return self.options.patience is not None and self.waited >= self.options.patience

    def run_epoch(self, interrupt):
        count, groups = self.groups()
        self.shown.begin(self.epoch, count, self.position, self.tokens())
        for batches in groups:
            loss = self.update(batches, self.how_far(self.position, count))
            self.position += 1
            if loss is not None:
                self.tell("update", loss)
            self.save_now_and_then(interrupt)
            self.shown.update(self.so_far)
        self.end_epoch(count)
        self.save_now_and_then(interrupt, epoch_ended=True)
        self.tell("epoch", self.history.train_loss[-1])

    def tokens(self):
        """How many have counted in this epoch."""
        return sum(found.tokens for found in self.sums.values())

    def so_far(self):
        """The tokens of this epoch, and their mean loss."""
        tokens = self.tokens()
        return tokens, loss_of(self.model, self.sums) if tokens else None

    def groups(self):
        """How many updates this epoch has, None where nobody knows, and those from `position` on: each takes some
        batches, which are index arrays, the first steps of chunks, or Items of a Stream."""
        options = self.options
        if isinstance(self.dataset, Stream):
            return self.dataset.updates(self.epoch, self.position, options.accumulate)
        if options.tbptt is not None:
            batches = range(0, self.dataset.steps, options.tbptt)
        else:
            batches = self.dataset.batches(options.batch_size, [options.seed, self.epoch] if options.shuffle else None)
        k, count = options.accumulate, -(-len(batches) // options.accumulate)
        return count, (batches[n * k : (n + 1) * k] for n in range(self.position, count))

    def how_far(self, position, count) -> float:
        """Epochs before update `position` of `count`; of an unknown number, the whole ones."""
        return self.epoch + (min(position, count - 1) / count if count else 0.0)

    def update(self, batches, progress) -> float | None:
        """One update of the weights; returns the loss before it, None where nothing counts, and nothing is updated."""
        sums = self.learned(batches) if self.options.parts is None else learned(self, batches)
        if not any(found.weight for found in sums.values()):
            return None
        loss = loss_of(self.model, sums)
        if self.on_gradients is not None:
            self.on_gradients(self.model, self.gradients)
        if self.options.trainable is not None:
            for name in set(self.gradients) - set(self.options.trainable):
                self.gradients.raw(name)[...] = 0  # they have no part in the norm
        scale = self.clip(loss)
        rate = self.optimizer.lr.at(progress, self.plateaus)
        self.optimizer.update(self.model.parameters, self.gradients, lr=rate, scale=scale,
                              trainable=self.options.trainable)  # fmt: skip
        self.sums = {name: mine.plus(sums[name]) for name, mine in self.sums.items()}
        return loss

    def learned(self, batches) -> dict[str, Sums]:
        """Fill `gradients` with those of the mean over an update's batches; returns the Sums by head."""
        results, over = [], None
        if self.means is not None and len(self.model.heads) > 1:
            batches = list(batches)
            over = self.weights_of(batches)
        for batch in batches:
            results.append(self.learn(batch_of(self.model, self.rows_of(batch)), over))
            if self.means is not None:
                self.take_mean(results, over)
        if self.means is not None:
            self.gradients.raw()[:] = self.means.raw()
        return {name: reduce(Sums.plus, (result.heads[name] for result in results)) for name in self.model.heads}

    def rows_of(self, batch, rows=slice(None)):
        """What one of `groups`' batches stands for, or a slice of its rows."""
        tbptt = self.options.tbptt
        if tbptt is not None:
            return self.dataset.part(rows, batch, batch + tbptt)
        return batch.part(rows) if isinstance(batch, Dataset) else self.dataset.part(batch[rows])

    def cut(self, batch):
        """Where the parts of a batch begin and end: by steps or, of streams, each of which stays in its part, by
        rows."""
        if self.options.tbptt is not None:
            return cut(np.ones(len(self.dataset), int), self.options.parts)
        data, rows = (batch, slice(None)) if isinstance(batch, Dataset) else (self.dataset, batch)
        sizes = np.ones(len(data), int)[rows] if data.lengths is None else data.lengths[rows]
        return cut(sizes, self.options.parts)

    def weights_of(self, batches) -> dict[str, float]:
        """How much counts in an update's batches for each head: what is a sum over several heads of means cannot be put
        together from the means of batches."""
        weights = dict.fromkeys(self.model.heads, 0.0)
        for batch in batches:
            for name, tokens in batch_of(self.model, self.rows_of(batch)).heads.items():
                weights[name] += tokens.weight
        return weights

    def learn(self, batch, over=None, part=None):
        """The gradients of one batch, or of its part, and what else there is to tell of it. over : as for `learn`."""
        states = self.state if part is not None and self.state is not None else {part: self.state}
        result = learn(self.model, batch, self.gradients, states.get(part), over)
        if self.options.tbptt is not None:
            self.state = result.state if part is None else {**states, part: result.state}
        return result

    def take_mean(self, results, over=None):
        """The gradients' mean over all that counts in the batches so far, the last one's being those at hand; their sum
        where they are parts of the mean `over` all of them."""
        if len(results) == 1:
            self.means.raw()[:] = self.gradients.raw()
        elif over is not None:
            self.means.raw()[:] += self.gradients.raw()
        elif results[-1].weight:
            share = results[-1].weight / sum(result.weight for result in results)
            self.means.raw()[:] += self.model.dtype.type(share) * (self.gradients.raw() - self.means.raw())

    def clip(self, loss) -> float:
        """What the gradients are to be multiplied by; with clip_each they have been, one by one."""
        norm = math.sqrt(updates.sum_squares(self.gradients.raw()))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "loss: expected a finite number" if not math.isfinite(loss) else "gradients: expected a finite norm"
            self.complain(f"{what}, got {norm if math.isfinite(loss) else loss}", self.moments.updates + 1)
        self.norms = self.norms[0] + norm, self.norms[1] + 1
        limit = self.options.clip_norm
        if limit is None:
            return 1.0
        if not self.options.clip_each:
            return min(1.0, limit / (norm + 1e-6))  # PyTorch's formula
        for name in self.gradients:
            part = self.gradients.raw(name).reshape(-1)
            norm = math.sqrt(updates.sum_squares(part))
            if norm > limit:
                updates.scale_inplace(part, limit / (norm + 1e-6))
        return 1.0

    def complain(self, what, update):
        batch = self.position + update - self.moments.updates
        where = f"epoch {self.epoch + 1}, batch {batch}" if batch else f"the end of epoch {self.epoch}"
        raise NonFiniteLoss(f"{what} at update {update} ({where}){self.kept()}")

    def kept(self) -> str:
        """What an error says of the checkpoint."""
        return f"; {self.saved_path} holds update {self.saved_update}" if self.saved_path else ""

    def expect_finite_weights(self):
        if not math.isfinite(updates.sum_squares(self.model.parameters.raw())):
            self.complain("weights: expected finite numbers, got others", self.moments.updates)

    def end_epoch(self, count):
        if not all(found.weight for found in self.sums.values()):  # a Dataset has seen to it
            raise ValueError("batches: expected at least one target that counts in each epoch, got none")
        found = means_of(self.model, self.sums)
        held_out = None if self.held_out is None else self.evaluate(self.held_out)
        if held_out is not None and not math.isfinite(held_out["loss"]):
            self.complain(f"validation loss: expected a finite number, got {held_out['loss']}", self.moments.updates)
        metrics = self.measured(found, held_out)
        rate = self.optimizer.lr.at(self.how_far(self.position - 1, count), self.plateaus)
        norm = self.norms[0] / self.norms[1] if self.norms[1] else None
        self.history.add(found, held_out, metrics, learning_rate=rate, updates=self.moments.updates,
                         seconds=self.elapsed + time.perf_counter() - self.started, gradient_norm=norm)  # fmt: skip
        text = f"loss {found['loss']:.4f}" + ("" if held_out is None else f", validation {held_out['loss']:.4f}")
        self.shown.end(", ".join([text, *(f"{name} {value:.4g}" for name, value in metrics.items())]),
                       self.history.seconds[-1])  # fmt: skip
        name, better = self.monitor
        value = {**(held_out or found), **metrics}[name]
        self.watch(-value if better == "max" else value)
        self.epoch, self.position, self.norms = self.epoch + 1, 0, (0.0, 0)
        self.remember()
        self.sums, self.state = dict.fromkeys(self.model.heads, Sums()), None
        self.ranks.expect_same(self.standing)

    def evaluate(self, dataset):
        """Numbers by name; each rank has a share of the work where there is nothing but sums to add up."""
        return evaluate(self.model, dataset, wanted=self.metrics, ranks=None if self.metrics else self.ranks)

    def remember(self):
        """Let the optimiser go on from here, the next time."""
        moments = self.moments
        moments.epochs, moments.plateaus, moments.measure = self.epoch, self.plateaus, self.measure
        moments.lowest, moments.since_plateau = self.lowest, self.since_plateau

    def measured(self, found, held_out) -> dict[str, float]:
        """The metrics by name, of the validation data or, where there is none, of the training data; and of several
        heads the loss and accuracy of each, of validation or as the epoch's updates met them."""
        named, several = {}, "" not in self.model.heads
        for name, value in (held_out or found).items() if several else ():
            if name.endswith((".loss", ".accuracy")):
                named[name] = value
        if held_out is None and self.metrics:
            held_out = self.evaluate(self.dataset)
        for metric in chain.from_iterable(self.metrics.values()):
            named[metric.name] = held_out[metric.name]
        return named

    def watch(self, value):
        """Early stopping and plateaus: both count epochs without a lower value (of what is better the higher it is, the
        negative), one since this call began. What is not finite is lower than nothing."""
        value = value if math.isfinite(value) else math.inf
        self.waited += 1
        if value < self.best:
            self.best, self.waited = value, 0
            if self.options.patience is not None:
                self.best_weights = self.model.parameters.raw().copy()
        self.since_plateau += 1
        if value < self.lowest:
            self.lowest, self.since_plateau = value, 0
        if isinstance(self.optimizer.lr, ReduceOnPlateau) and self.since_plateau >= self.optimizer.lr.patience:
            self.plateaus, self.since_plateau = self.plateaus + 1, 0

    def tell(self, kind, loss):
        if not self.callbacks:
            return
        epoch, stop = self.epoch - (kind == "epoch"), False
        try:
            for callback in self.callbacks:
                callback(Event(kind, self.model, epoch, self.moments.updates, loss, self.history))
        except StopTraining:
            stop = True
        if any(self.ranks.agree(stop)):
            raise StopTraining

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def save_now_and_then(self, interrupt, epoch_ended=False):
        due = False
        if self.checkpoint is not None:
            now = time.perf_counter()
            every, seconds = self.checkpoint.updates, self.checkpoint.seconds
            due = every is not None and self.moments.updates - self.saved_update >= every
            due = due or (seconds is not None and now - self.saved_at >= seconds)
        due, interrupted = self.ranks.agree(due, interrupt.is_set())
        if self.checkpoint is not None and (due or epoch_ended or interrupted):
            self.save()
        if interrupted:
            raise KeyboardInterrupt

    def save(self):
        """Write a checkpoint; NonFiniteLoss where the weights are worth nothing."""
        self.expect_finite_weights()
        self.ranks.expect_same(self.standing)
        state = self.state if self.options.parts is None else self.ranks.whole(self.state)
        if self.ranks.rank == 0:
            checkpoints.save(self, state)
        self.saved_at, self.saved_update = time.perf_counter(), self.moments.updates
        self.saved_path = self.checkpoint.path
