"""Which targets count, and how much: weights of tokens and of classes, a class to ignore, targets that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cylstm.checks import describe, one_of, plain_array, real_in, whereabouts
from cylstm.maps import in_pieces

__all__ = ["EVERY", "Counting", "check_token_weights"]


@dataclass(frozen=True, eq=False)
class Counting:
    """What of the targets a loss leaves out or weighs.

    class_weight : (classes,) float64, or None.
    ignore : the class of targets that do not count, any integer, or None.
    missing : whether targets may be NaN, and do not count then.
    """

    class_weight: np.ndarray | None = None
    ignore: int | None = None
    missing: bool = False

    @property
    def everything(self) -> bool:
        """Whether every target counts alike."""
        return self.class_weight is None and self.ignore is None and not self.missing

    @classmethod
    def checked(cls, loss, ignore, missing) -> Counting:
        """Two arguments of `fit`. Raises TypeError or ValueError, naming the argument."""
        skips = one_of("missing", missing, ("error", "skip")) == "skip"
        if loss.of_rows and (skips or ignore is not None):
            raise TypeError(f"missing, ignore: expected 'error' and None with loss={loss.name!r}, whose targets are "
                            f"sequences of labels, got {missing!r} and {ignore!r}")  # fmt: skip
        if skips and loss.of_classes:
            raise TypeError(f"missing: expected 'error' with loss={loss.name!r}, whose classes are never NaN "
                            "(`ignore` leaves one out), got 'skip'")  # fmt: skip
        if ignore is None:
            return cls(None, None, skips)
        if not loss.of_classes:
            raise TypeError(f"ignore: expected None with loss={loss.name!r}, whose targets are numbers "
                            f"(missing='skip' leaves out NaN), got {describe(ignore)}")  # fmt: skip
        if isinstance(ignore, bool) or not isinstance(ignore, (int, np.integer)):
            raise TypeError(f"ignore: expected an integer or None, got {describe(ignore)}")
        return cls(None, int(ignore), skips)

    def weighing(self, loss, O, class_weight, targets) -> Counting:
        """The same with the third. targets : an iterable of arrays, for "balanced"."""
        if class_weight is None:
            return self
        K = loss.class_count(O)
        if isinstance(class_weight, str):
            one_of("class_weight", class_weight, ("balanced",))
            return replace(self, class_weight=self.balanced(loss, O, targets))
        return replace(self, class_weight=as_class_weights(class_weight, K))

    def balanced(self, loss, O, targets) -> np.ndarray:
        """N / (K n) for each of the K classes that occur, n times among N targets that count; 1 for others."""
        counts = np.zeros(loss.class_count(O), np.int64)
        for row in targets:
            row = row.reshape(-1, *loss.width(O))
            counts += np.bincount(loss.classes(row[self.counted(row)]), minlength=len(counts))
        there = counts > 0
        return np.where(there, counts.sum() / (max(1, there.sum()) * np.maximum(counts, 1)), 1.0)

    def counted(self, targets) -> np.ndarray:
        """(N,) whether a target (N, ...) counts, or some of its numbers."""
        if self.ignore is not None:
            return targets != self.ignore
        if self.missing and targets.dtype.kind == "f":
            return ~np.isnan(targets).all(axis=tuple(range(1, targets.ndim)))
        return np.ones(len(targets), bool)

    def applied(self, loss, targets, weights) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Targets (N, ...) as the loss takes them, weights (N,) float64, and how much of each the loss will count, both
        None for 1 everywhere. weights : of tokens, or None."""
        if self.ignore is not None:
            counted = self.counted(targets)
            if not counted.all():
                targets = np.where(counted, targets, 0)
                weights = counted.astype(np.float64) if weights is None else weights * counted
        if self.class_weight is not None:
            of_class = self.class_weight[loss.classes(targets)]
            weights = of_class if weights is None else weights * of_class
        if not self.missing or targets.dtype.kind != "f":
            return targets, weights, weights
        shares = 1 - np.isnan(targets).mean(axis=1)  # of a token's numbers, those that are there
        return targets, weights, shares if weights is None else weights * shares


EVERY = Counting()


def as_class_weights(given, K) -> np.ndarray:
    """(K,) from a mapping of classes in 0..K-1 to numbers >= 0; 1 for a class that it does not name."""
    if not isinstance(given, Mapping):
        raise TypeError(f"class_weight: expected a dict of numbers by class, 'balanced' or None, got {describe(given)}")
    weights = np.ones(K)
    for label, weight in given.items():
        if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or not 0 <= label < K:
            raise ValueError(f"class_weight: expected classes in 0..{K - 1}, got {describe(label)}")
        weights[label] = real_in(f"class_weight[{label}]", weight, 0)
    return weights


def check_token_weights(name: str, weights, shape: tuple[int, ...], real=None) -> np.ndarray:
    """Numbers >= 0, a view, of the shape or of its beginning. real: where they are looked at, or None.

    Raises TypeError or ValueError that names the first that is wrong.
    """
    weights = plain_array(name, weights)
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got {describe(weights)}")
    forms = [shape[: n + 1] for n in range(len(shape))]
    if weights.shape not in forms:
        expected = " or ".join(map(str, forms))
        raise ValueError(f"{name}: expected {expected}, got {weights.shape}")
    for piece in in_pieces(weights):
        part = weights[piece]
        wrong = ~((part >= 0) & (part < np.inf))
        if real is not None and weights.ndim >= real.ndim:
            wrong[~real[piece[: real.ndim]]] = False
        if wrong.any():
            place = np.unravel_index(wrong.argmax(), wrong.shape)
            raise ValueError(f"{name}[{whereabouts(place, piece)}]: expected a number >= 0, got {part[place]:g}")
    return weights
