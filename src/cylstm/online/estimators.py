"""A number or a label at each step of a stream, from what has come so far."""

from __future__ import annotations

import math

import numpy as np

from cylstm.checks import describe, positive_int
from cylstm.model import Model
from cylstm.online.base import Online
from cylstm.online.features import Running, label, number

__all__ = ["OnlineClassifier", "OnlineRegressor"]


class OnlineRegressor(Online):
    """A number y at each step of a stream, from the x of this step and of those before.

    Parameters
    ----------
    hidden_size, num_layers : as for `Model`
        Of the LSTM, which is made when the first x tells how many features there are.
    window, every : int
        After every `every` steps the errors of these are passed back over the last `window` steps: truncated BPTT, the
        BPTT(h; h') of Williams & Peng 1990 with h = window >= h' = every.
    optimizer : SGD, Adam or AdamW
        With a number as its lr; a new Adam(lr=1e-2) by default.
    clip_norm : float or None
        Largest norm of all gradients together, as for `fit`.
    seed : int, None or numpy.random.Generator
        Of the initial weights; the same stream then gives the same numbers.

    Notes
    -----
    x is a dict of numbers by feature or a sequence of numbers. The features are those of the first x that is learnt
    from: a later one is an error that names it, a missing one, None or NaN, counts as its mean so far. x and y are
    scaled inside, by their running means and variances. Copies (copy, pickle) go on as the original does.
    """

    def __init__(self, hidden_size=32, num_layers=1, window=32, every=8, optimizer=None, clip_norm=5.0, seed=None):
        super().__init__(hidden_size, num_layers, window, every, optimizer, clip_norm, seed)
        self.running_y = Running.nothing(1)

    def predict_one(self, x) -> float:
        """y at a next step with this x; 0.0 before anything was learnt. Nothing changes.

        Raises TypeError or ValueError, naming the feature.
        """
        _, x = self._read(x)
        return 0.0 if self.model is None else float(self.running_y.unscaled(self._output(x))[0])

    def learn_one(self, x, y) -> None:
        """Take a step with this x, and learn that y was its number; None where it is not known.

        Raises TypeError or ValueError, naming what is wrong, before anything changes; NonFiniteLoss where learning has
        diverged.
        """
        features, x = self._read(x)
        target = number("y", y)
        if y is not None and math.isnan(target):
            raise ValueError("y: expected a number, or None where it is not known, got nan")
        self._move(features, x)
        self.running_y = self.running_y.after(np.array([target]))
        self._settle(None if y is None else target)

    def _made(self, I):
        return Model(I, self.hidden_size, 1, num_layers=self.num_layers, loss="mse", seed=self.seed)

    def _targets(self, given):
        return self.running_y.scaled(np.array(given, np.float64)[:, None])


class OnlineClassifier(Online):
    """A label y at each step of a stream, from the x of this step and of those before.

    Parameters
    ----------
    classes : int or a list
        How many labels may come, which are learnt as they do, or these labels: strings, finite numbers or booleans.
    hidden_size, num_layers, window, every, optimizer, clip_norm, seed
        As for `OnlineRegressor`; so is all that is said there of x, and of copies.
    """

    def __init__(self, classes=10, hidden_size=32, num_layers=1, window=32, every=8, optimizer=None, clip_norm=5.0,
                 seed=None):  # fmt: skip
        super().__init__(hidden_size, num_layers, window, every, optimizer, clip_norm, seed)
        several = isinstance(classes, (list, tuple))
        named = [label(f"classes[{n}]", one) for n, one in enumerate(classes)] if several else []
        self.most = len(named) if several else positive_int("classes", classes, 2)
        self.classes = classes
        self.ids = {one: n for n, one in enumerate(named)}  # of the labels so far
        if several and (len(named) < 2 or len(self.ids) < len(named)):
            raise ValueError(f"classes: expected at least two labels, all different, got {describe(classes)}")

    def predict_proba_one(self, x) -> dict:
        """{label: probability} at a next step with this x, of all labels so far, or of those named at the start; {}
        before anything was learnt. Nothing changes.

        Raises TypeError or ValueError, naming the feature.
        """
        _, x = self._read(x)
        if self.model is None or not self.ids:
            return {}
        # Of labels that have not come yet nothing is known: what has come shares the whole.
        logits = self._output(x)[: len(self.ids)]
        shares = np.exp(logits - logits.max())
        return dict(zip(self.ids, (shares / shares.sum()).tolist(), strict=True))

    def predict_one(self, x):
        """The most probable label at a next step with this x, None before anything was learnt. Nothing changes.

        Raises TypeError or ValueError, naming the feature.
        """
        shares = self.predict_proba_one(x)
        return max(shares, key=shares.get) if shares else None

    def learn_one(self, x, y) -> None:
        """Take a step with this x, and learn that y was its label; None where it is not known.

        Raises TypeError or ValueError, naming what is wrong, before anything changes, for one label more than there may
        be, too; NonFiniteLoss where learning has diverged.
        """
        features, x = self._read(x)
        target = None
        if y is not None:
            name = label("y", y)
            target = self.ids.get(name, len(self.ids))
            if target == self.most:
                raise ValueError(f"y: expected one of {describe(list(self.ids))}, {self.most} classes, got {name!r}")
            self.ids.setdefault(name, target)
        self._move(features, x)
        self._settle(target)

    def _made(self, I):
        return Model(I, self.hidden_size, self.most, num_layers=self.num_layers, seed=self.seed)

    def _targets(self, given):
        return np.array([0 if target is None else target for target in given])
