"""What metrics are made of: sums over batches in float64; only what needs everything at once (AUC, a function of the
user's) keeps it.

All work on N tokens that count: targets (N,) of classes or (N, F) of numbers, NaN where one is missing, outputs (N, O)
of the head, and weights (N,) > 0. They mean what scikit-learn means by the same name and `sample_weight`.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import chain
from numbers import Number

import numpy as np

from cylstm.checks import describe

__all__ = [
    "AUC", "F1", "AbsoluteError", "Coverage", "Determination", "Function", "Precision", "Recall", "RelativeError",
    "RootSquaredError", "Sums", "TopK",
]  # fmt: skip


class Sums:
    """One metric over one pass. takes: of which losses, by what they say (`Loss.says`): "numbers", a number beside
    each of a target's; "quantiles", several beside each; "classes", logits of one class per token; "binary", logits of
    a target of 0 or 1 each; "labels", those of each of N rows, and those found there, both a list of arrays (n,) in the
    place of targets and outputs. better : "max" or "min"."""

    takes: tuple[str, ...] = ()
    better = "max"

    def __init__(self, loss, O: int):
        self.loss, self.O = loss, O

    def add(self, targets, outputs, weights) -> None:
        """Take in some tokens."""
        raise NotImplementedError

    def value(self) -> float:
        """The metric of all that came; NaN where there is none."""
        raise NotImplementedError


# --- of numbers -------------------------------------------------------------------------------------------------------


class Mean(Sums):
    """A mean over all numbers that are there, of all tokens and outputs."""

    takes = ("numbers", "quantiles")
    better = "min"

    def __init__(self, loss, O):
        super().__init__(loss, O)
        self.total = self.weight = 0.0
        self.numbers(np.empty((0, O)))  # TypeError where the loss has none

    def numbers(self, outputs):
        return self.loss.numbers(outputs).astype(np.float64)

    def of_each(self, targets, outputs):
        """(N, F) or (N,) of tokens."""
        raise NotImplementedError

    def add(self, targets, outputs, weights):
        there = ~np.isnan(targets)
        weights = weights if targets.ndim == 1 else np.broadcast_to(weights[:, None], there.shape)
        self.total += float((weights * self.of_each(targets, outputs))[there].sum())
        self.weight += float(weights[there].sum())

    def value(self):
        return self.total / self.weight if self.weight else math.nan


class AbsoluteError(Mean):
    """mae: the mean of ``|y - t|``."""

    def of_each(self, targets, outputs):
        return np.abs(self.numbers(outputs) - targets)


class RootSquaredError(Mean):
    """rmse: the root of the mean of (y - t)^2, over all numbers (scikit-learn's takes the root of each output)."""

    def of_each(self, targets, outputs):
        return (self.numbers(outputs) - targets) ** 2

    def value(self):
        return math.sqrt(super().value())


class RelativeError(Mean):
    """mape: the mean of ``|y - t| / max(|t|, eps)``, eps = 2.2e-16; a share, not per cent."""

    def of_each(self, targets, outputs):
        return np.abs(self.numbers(outputs) - targets) / np.maximum(np.abs(targets), np.finfo(np.float64).eps)


class Coverage(Mean):
    """coverage: the share of targets from the lowest to the highest quantile."""

    takes = ("quantiles",)
    better = "max"

    def numbers(self, outputs):
        return self.loss.interval(outputs)

    def of_each(self, targets, outputs):
        low, high = self.numbers(outputs)
        return (low <= targets) & (targets <= high)


class Determination(Sums):
    """r2: 1 - sum w (y - t)^2 / sum w (t - mean)^2 of each output, and the mean over outputs. Where the targets are all
    the same it is 1 for outputs without error, 0 for others."""

    takes = ("numbers", "quantiles")

    def __init__(self, loss, O):
        super().__init__(loss, O)
        self.count, self.weight, self.mean, self.around, self.errors = np.zeros((5, *loss.width(O)))
        loss.numbers(np.empty((0, O)))

    def add(self, targets, outputs, weights):
        there = ~np.isnan(targets)
        weights, t = weights[:, None] * there, np.where(there, targets, 0.0).astype(np.float64)
        total = weights.sum(axis=0)
        share = np.maximum(total, np.finfo(np.float64).tiny)
        # Within the batch's range, so that targets that are all the same leave exactly nothing around their mean.
        low, high = (getattr(t, kind)(axis=0, where=there, initial=start) for kind, start in
                     (("min", np.inf), ("max", -np.inf)))  # fmt: skip
        mean = np.where(total > 0, np.minimum(np.maximum((weights * t).sum(axis=0) / share, low), high), self.mean)
        around = (weights * (t - mean) ** 2).sum(axis=0)
        # Two sums of squares around two means as one (Chan, Golub & LeVeque 1979).
        whole, apart = self.weight + total, mean - self.mean
        both = np.maximum(whole, np.finfo(np.float64).tiny)
        self.around += around + apart**2 * self.weight * total / both
        self.mean = np.where(self.weight > 0, self.mean + apart * total / both, mean)
        self.weight = whole
        self.errors += (weights * (np.where(there, self.loss.numbers(outputs), 0.0) - t) ** 2).sum(axis=0)
        self.count += there.sum(axis=0)

    def value(self):
        if (self.count < 2).any():
            return math.nan
        same = self.around == 0
        ratio = np.where(same, np.where(self.errors == 0, 0.0, 1.0), self.errors / np.where(same, 1.0, self.around))
        return float((1 - ratio).mean())


# --- of classes -------------------------------------------------------------------------------------------------------


class Hits(Sums):
    """What precision, recall and F1 are made of: for each class the weights of its tokens, of what was taken for it,
    and of what was so rightly. Of "binary" the class is 1 (targets > 1/2, outputs > 0), each output's by itself.

    The mean is over the classes that occur among targets or outputs; of "binary", over outputs: of one output it is
    that of class 1."""

    takes = ("classes", "binary")

    def __init__(self, loss, O):
        super().__init__(loss, O)
        self.right, self.targets, self.taken = np.zeros((3, O))

    def add(self, targets, outputs, weights):
        found = self.loss.decide(outputs)
        if self.loss.says == "binary":
            weights, true, found = weights[:, None] * ~np.isnan(targets), targets > 0.5, found > 0
            self.right += (weights * (true & found)).sum(axis=0)
            self.targets += (weights * true).sum(axis=0)
            self.taken += (weights * found).sum(axis=0)
            return
        count = partial(np.bincount, minlength=self.O)
        right = found == targets
        self.right += count(targets[right], weights[right])
        self.targets += count(targets, weights)
        self.taken += count(found, weights)

    def of_classes(self, right, targets, taken) -> np.ndarray:
        """(K,), 0 where it would be 0 / 0, as in scikit-learn."""
        raise NotImplementedError

    def value(self):
        of_each = self.of_classes(self.right, self.targets, self.taken)
        if self.loss.says == "classes":
            of_each = of_each[self.targets + self.taken > 0]
        return float(of_each.mean())


def over(part, whole) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


class Precision(Hits):
    """precision: of what was taken for a class, the share that is of it."""

    def of_classes(self, right, targets, taken):
        return over(right, taken)


class Recall(Hits):
    """recall: of a class's tokens, the share that was taken for it."""

    def of_classes(self, right, targets, taken):
        return over(right, targets)


class F1(Hits):
    """f1: the harmonic mean of a class's precision and recall."""

    def of_classes(self, right, targets, taken):
        return over(2 * right, targets + taken)


class TopK(Mean):
    """top_k: the share of targets among the k highest outputs; of equal ones the first is the highest."""

    takes = ("classes",)
    better = "max"

    def __init__(self, loss, O, k):
        if not 1 <= k <= O:
            raise ValueError(f"metrics: expected 'top_1' to 'top_{O}' with {O} classes, got 'top_{k}'")
        self.k = k
        super().__init__(loss, O)

    def of_each(self, targets, outputs):
        own = np.take_along_axis(outputs, targets[:, None], axis=1)
        ahead = (outputs > own) | ((outputs == own) & (np.arange(self.O) < targets[:, None]))
        return ahead.sum(axis=1) < self.k


# --- of everything at once --------------------------------------------------------------------------------------------


class Everything(Sums):
    """What keeps all targets and outputs up to the end."""

    def __init__(self, loss, O):
        super().__init__(loss, O)
        self.parts = []

    def add(self, targets, outputs, weights):
        self.parts.append((targets.copy(), outputs, weights))  # the caller may write to theirs again

    def value(self):
        joined = (list(chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)
                  for parts in zip(*self.parts, strict=True))  # fmt: skip
        return self.of_all(*joined)

    def of_all(self, targets, outputs, weights) -> float:
        raise NotImplementedError


class AUC(Everything):
    """auc: the area under the ROC curve (`sklearn.metrics.roc_auc_score`) of each class against the others, and the
    mean over the classes for which there is one; of "binary", over outputs. NaN where there is none."""

    takes = ("classes", "binary")

    def __init__(self, loss, O):
        super().__init__(loss, O)
        roc_auc_score()

    def of_all(self, targets, outputs, weights):
        score, areas = roc_auc_score(), []
        classes = self.loss.says == "classes"
        if classes:
            outputs = self.loss.probabilities(outputs.astype(np.float64))
        for k in range(self.O):
            there = slice(None) if classes else ~np.isnan(targets[:, k])
            true = targets == k if classes else targets[there, k] > 0.5
            if true.any() and not true.all():
                areas.append(score(true, outputs[there, k], sample_weight=weights[there]))
        return float(np.mean(areas)) if areas else math.nan


def roc_auc_score():
    """scikit-learn's. Raises ImportError."""
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError as error:
        raise ImportError(
            f"metrics: expected scikit-learn for 'auc' (pip install scikit-learn), got: {error}"
        ) from None
    return roc_auc_score


class Function(Everything):
    """A function of the user's. weights : where it takes them, its third argument's name, or 2 for its place."""

    takes = ("numbers", "quantiles", "classes", "binary", "labels")

    def __init__(self, loss, O, name, function, weights):
        super().__init__(loss, O)
        self.name, self.function, self.takes_weights = name, function, weights

    def of_all(self, targets, outputs, weights):
        if self.takes_weights is None:
            found = self.function(targets, outputs)
        elif self.takes_weights == 2:
            found = self.function(targets, outputs, weights)
        else:
            found = self.function(targets, outputs, **{self.takes_weights: weights})
        number = real_number(found)
        if number is None:
            raise TypeError(f"metrics: expected a number of {self.name}, got {describe(found)}")
        return number


def real_number(value) -> float | None:
    """Of a number, or of an array () of one, any library's; None of anything else, what floats do not hold included."""
    try:
        array = np.asarray(value)
        item = array.item()
        if array.ndim or np.ma.is_masked(value) or array.dtype.kind in "mM" or not isinstance(item, Number):
            return None
        return float(item)
    except Exception:  # of a library's own kind, as for a tensor with a gradient
        return None
