"""The part of somebody's data that a report looks at: a few rows step by step, more of them for what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cylstm._core.ragged import Plan
from cylstm.batches import Batch, Part, batch_of, input_rows, input_sizes, of_kind
from cylstm.checks import check_finite, check_lengths, describe, plain_array
from cylstm.heads import head_outputs
from cylstm.loss_and_gradients import batch_loss, means_of
from cylstm.sequences import padded, ragged_rows
from cylstm.small_parameters import SmallParameters
from cylstm.text.sampling import writes_tokens
from cylstm.trace import Trace
from cylstm.training.dataset import Dataset, plan_of

__all__ = ["Outcome", "Sample", "sample_of", "traceable"]

ROWS, STEPS, IN_ALL = 8, 1000, 4000  # at most: rows, steps of each, and of all together, that are looked into
LARGE, LEAST_STEPS = 4_000_000, 200  # weights of a layer whose steps take so long that fewer are; but at least these
# At most: steps whose outputs are looked at, and numbers in these, but for a single row that has one target.
OUTCOMES, OUTPUTS = 1 << 16, 1 << 23


@dataclass
class Outcome:
    """What one head gave beside what it was to give: outputs (N, O), targets (N, ...) of what counts, and how many rows
    they are of. With a horizon of k, N is a multiple of k."""

    head: object
    outputs: np.ndarray
    targets: np.ndarray | list


@dataclass
class Sample:
    """What is looked at. `model` is the one that was given; what is traced is `inner`, in float32 or float64.

    x (B, T, ...), lengths (B,): a few rows. dataset: all of it, where there are targets. notes: what was left out.
    """

    model: object
    inner: object
    x: np.ndarray
    lengths: np.ndarray
    dataset: Dataset | None
    rows: int  # that were given
    longest: int
    whole: bool  # whether the rows are as long as they were
    notes: list = field(default_factory=list)

    @property
    def real(self) -> np.ndarray:
        """(B, T): which steps are the rows'."""
        return np.arange(self.x.shape[1]) < self.lengths[:, None]

    @property
    def ids(self) -> bool:
        """Whether x (B, T) are ids."""
        return self.x.ndim == 2

    @cached_property
    def trace(self) -> Trace:
        """Of the rows. Raises ValueError where not all of it is finite."""
        plan = plan_of(self.x, self.lengths, None)
        found = self.inner.lstm.trace(self.inner.embed(self.x, plan=plan), lengths=self.lengths)
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise ValueError(f"model: expected gates and states that are finite numbers, got others in {name}")
        return found

    @property
    def layers(self) -> list[str]:
        """The endings of the trace's names: "l0", "l0_reverse", ..."""
        return [name[2:] for name in self.trace if name.startswith("c_")]

    def values(self, part, layer) -> np.ndarray:
        """(N, H): a gate, cell or state at all real steps."""
        return self.trace[f"{part}_{layer}"][self.real]

    @cached_property
    def part(self) -> Part | None:
        """The rows with their targets; None where there are none, or where a row's one target is past its cut."""
        if self.dataset is None or (not self.whole and any(head.per_row for head in self.model.heads.values())):
            return None
        return self.dataset.part(np.arange(len(self.x)), 0, self.x.shape[1])

    @cached_property
    def surprise(self) -> np.ndarray | None:
        """(B, T): -log2 of the probability of each step's target, NaN where there is none; None for other models."""
        if self.part is None or not writes_tokens(self.model):
            return None
        batch = batch_of(self.model, self.part)
        logits = self.outputs("", batch).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        tokens = batch.heads[""]
        log_p = logits[np.arange(len(logits)), tokens.targets] - np.log(np.exp(logits).sum(axis=1))
        found = np.full(self.x.shape[:2], np.nan)
        found[self.real] = np.where(counts(tokens), -log_p / np.log(2), np.nan)
        return found

    def seen(self, name, batch) -> np.ndarray:
        """(N, F) that a head sees of a batch."""
        model = self.model
        y, final = model.lstm(model.embed(batch.x, plan=batch.plan), batch.state, lengths=batch.plan)
        return model.seen_by_head(of_kind(model, model.heads[name].kind, y, final, batch.real))

    def outputs(self, name, batch) -> np.ndarray:
        """(N, O) of one head, of a batch's tokens."""
        return head_outputs(self.model, name, self.seen(name, batch)).reshape(-1, self.model.heads[name].output_size)

    @cached_property
    def batch(self) -> Batch | None:
        """As many rows as OUTCOMES and OUTPUTS allow, and whole ones where a row has one target."""
        if self.dataset is None:
            return None
        heads = self.model.heads.values()
        most = max(1, min(OUTCOMES, OUTPUTS // max(head.groups * head.output_size for head in heads)))
        count = min(self.rows, max(1, most // self.longest))
        steps = self.longest if any(head.per_row for head in heads) else min(self.longest, most)
        if count < self.rows or steps < self.longest:
            cut = f", {steps:,} steps of each" if steps < self.longest else ""
            self.notes.append(f"Losses and what comes out are of the first {count:,} of {self.rows:,} rows{cut}.")
        return batch_of(self.model, self.dataset.part(np.arange(count), 0, steps))

    @cached_property
    def measures(self) -> dict[str, float]:
        """What `evaluate` says of that batch; nothing without targets."""
        if self.batch is None:
            return {}
        model, batch = self.model, self.batch
        sums = {name: batch_loss(model, name, self.seen(name, batch), batch) for name in model.heads}
        return means_of(model, sums) if all(found.weight for found in sums.values()) else {}

    @cached_property
    def outcomes(self) -> dict[str, Outcome]:
        """By head, of the same batch; none of a head whose loss is one of whole rows."""
        found = {}
        for name, head in self.model.heads.items() if self.batch is not None else ():
            if not head.loss.of_rows:
                tokens, outputs = self.batch.heads[name], self.outputs(name, self.batch)
                keep = counts(tokens)
                found[name] = Outcome(head, outputs, tokens.targets)
                if head.loss.of_classes:  # of numbers, those that are missing are NaN, and leave a gap
                    found[name] = Outcome(head, outputs[keep], tokens.targets[keep])
        return found


def counts(tokens) -> np.ndarray:
    """(N,) which of a head's tokens do."""
    return np.ones(len(tokens.targets), bool) if tokens.weights is None else tokens.weights > 0


def traceable(model):
    """The model itself or, of one in fewer bits, the same weights in float32."""
    return model.astype("float32") if isinstance(model.parameters, SmallParameters) or model.lstm.rounded else model


def sample_of(model, x, y=None, lengths=None, *, ignore=None, missing="error") -> Sample:
    """What of x and y is looked at. Raises TypeError or ValueError, naming the argument."""
    x, y, lengths = next_tokens(model, x, y, lengths)
    dataset = None
    if y is not None:
        dataset = Dataset(model, x, y, lengths, ignore=ignore, missing=missing)
        rows, longest = len(dataset), dataset.steps
    else:
        x, lengths = inputs_alone(model, x, lengths)
        rows, longest = x.shape[:2]
    per_row = any(head.per_row for head in model.heads.values())
    most = max(LEAST_STEPS, min(STEPS, STEPS * LARGE // model.lstm.parameters.size))
    in_all = most * IN_ALL // STEPS
    steps = min(longest, in_all if per_row else most)  # a row with one target is cut as late as can be
    count = min(rows, ROWS, max(1, in_all // steps))
    if dataset is not None:
        part = dataset.part(np.arange(count), 0, steps)
        x, ends = part.x, None if part.plan is None else part.plan.lengths
        ends = np.full(count, x.shape[1]) if ends is None else np.asarray(ends)
    else:
        x, ends = x[:count, :steps], np.minimum(lengths[:count], steps)
    if not ends[0]:  # the row that pictures are of
        raise ValueError("x[0]: expected a step, got none")
    inner = traceable(model)
    for name in inner.parameters:
        check_finite(name, inner.parameters.raw(name), inner.dtype)
    sample = Sample(model, inner, np.ascontiguousarray(x), ends, dataset, rows, longest, steps == longest)
    if steps < longest or count < rows:
        shown = f"the first {count:,} of {rows:,} rows" if count < rows else f"{count:,} row{'s' * (count > 1)}"
        cut = f", no more than {steps:,} of {longest:,} steps of each" if steps < longest else ""
        sample.notes.append(f"What goes on inside is that of {shown}{cut}.")
    if inner is not model:
        sample.notes.append(f"What goes on inside is computed in float32, of weights as {model.precision} has them.")
    return sample


def next_tokens(model, x, y, lengths):
    """Text as ids; and of a model that writes, where there is nothing else, the next ids as targets."""
    if isinstance(x, str):
        if model.vocabulary is None:
            raise TypeError("x: expected ids or features for a model without a vocabulary, got text")
        x = model.vocabulary.encode(x, name="x")
    if y is not None or lengths is not None or not writes_tokens(model) or model.vocabulary is None:
        return x, y, lengths
    rows = ragged_rows(x)
    if rows is not None:
        return [row[:-1] for row in rows], [row[1:] for row in rows], None
    x = plain_array("x", x)
    if x.dtype.kind not in "iu" or x.ndim not in (1, 2) or x.shape[-1] < 2:
        return x, y, lengths
    return x[..., :-1], x[..., 1:], None


def inputs_alone(model, x, lengths):
    """x (B, T, ...) and lengths (B,), checked, where there are no targets."""
    if x is None:
        raise TypeError(f"x: expected inputs beside y, got {describe(x)}")
    rows = ragged_rows(x)
    if rows is not None and lengths is not None:
        raise ValueError("lengths: expected none with a list of sequences, which have their own")
    if rows is not None:
        x, lengths = padded(input_rows(model, rows))
    x = plain_array("x", x)
    batched, B, T = input_sizes(model, x)
    x = x if batched else x[None]
    lengths = np.full(B, T) if lengths is None else check_lengths(lengths, B, T)
    check_finite("x", x, model.dtype, np.arange(T) < lengths[:, None])
    model.lstm(model.embed(x[:1, :1], plan=Plan(1, 1, None, None)))  # which says what else is wrong with it
    return x, lengths
