"""Learning rates: functions of how far training has come."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cylstm.checks import positive_int, real_in

__all__ = ["OF_WHOLE_EPOCHS", "Constant", "Cosine", "ReduceOnPlateau", "StepDecay", "as_schedule"]


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    rate: float

    def __post_init__(self):
        self._keep(rate=real_in("rate", self.rate, 0, open_low=True))

    def _keep(self, **numbers):
        """What was checked, as Python's own numbers: files hold them."""
        for name, number in numbers.items():
            object.__setattr__(self, name, number)

    def at(self, progress: float, plateaus: int) -> float:
        """The rate at `progress` epochs (a fraction within one), after `plateaus` plateaus."""
        return self.rate


@dataclass(frozen=True)
class StepDecay(Constant):
    """rate * factor^(epochs // every)."""

    every: int = 1
    factor: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        factor = real_in("factor", self.factor, 0, 1, open_low=True)
        self._keep(every=positive_int("every", self.every), factor=factor)

    def at(self, progress, plateaus):
        return self.rate * self.factor ** (int(progress) // self.every)


@dataclass(frozen=True)
class Cosine(Constant):
    """From rate to minimum along half a cosine over `epochs` (Loshchilov & Hutter 2017), after a linear warm-up.

    epochs, warmup : in epochs, fractions too; `epochs` is what `fit` is given, from then on the rate is the minimum.
    """

    epochs: float
    minimum: float = 0.0
    warmup: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._keep(epochs=real_in("epochs", self.epochs, 0, open_low=True))
        self._keep(minimum=real_in("minimum", self.minimum, 0, self.rate))
        self._keep(warmup=real_in("warmup", self.warmup, 0, self.epochs, open_high=True))

    def at(self, progress, plateaus):
        if progress < self.warmup:
            return self.rate * max(progress, 1e-3 * self.warmup) / self.warmup
        share = min(1.0, (progress - self.warmup) / (self.epochs - self.warmup))
        return self.minimum + (self.rate - self.minimum) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class ReduceOnPlateau(Constant):
    """rate * factor^plateaus: a plateau is `patience` epochs in a row without a better value of what `fit(monitor=)`
    watches: a lower validation loss (training loss, where there is no validation), if nothing else is said."""

    factor: float = 0.5
    patience: int = 2
    minimum: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._keep(factor=real_in("factor", self.factor, 0, 1, open_low=True, open_high=True))
        self._keep(patience=positive_int("patience", self.patience))
        self._keep(minimum=real_in("minimum", self.minimum, 0, self.rate))

    def at(self, progress, plateaus):
        return max(self.minimum, self.rate * self.factor**plateaus)


OF_WHOLE_EPOCHS = (Constant, StepDecay, ReduceOnPlateau)  # which are the same throughout an epoch


def as_schedule(lr) -> Constant:
    """A number becomes a constant rate; a schedule stays what it is."""
    return lr if isinstance(lr, Constant) else Constant(real_in("lr", lr, 0, open_low=True))
