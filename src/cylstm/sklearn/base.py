"""What classifier and regressor have in common: a `Model` of cylstm that is made by the first data it sees."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cylstm import losses
from cylstm.checks import describe, flag, one_of, plain_array, positive_int, real_in, refuse_masked
from cylstm.lstm import LSTM
from cylstm.model import Model
from cylstm.sklearn.rows import all_or_nothing, as_sequences, as_steps, listed, one_behind_the_other, taken
from cylstm.training.optim import Optimizer

__all__ = ["BaseLSTM"]

ARGUMENTS = ("hidden_size", "num_layers", "bidirectional", "dropout", "output", "loss", "dtype")  # of `Model`
SET_HERE = "input_size", "output_size", "seed", "horizon", "labels", "parameters"  # others that are no `model_options`


class BaseLSTM(BaseEstimator):
    """Parameters are those of `LSTMClassifier` and `LSTMRegressor`, which say what targets and outputs are."""

    # --- scikit-learn's interface ---------------------------------------------------------------------------------

    def fit(self, X, y, sample_weight=None):
        """Train on sequences: X (N, T, F), a list of N arrays (T_n, F), or (N, F), N sequences of F steps with one
        feature.

        y : one target for each sequence or, with output="sequence", for each step.
        sample_weight : numbers >= 0, one for each sequence or, with output="sequence", as well for each step.

        Returns itself. Raises TypeError or ValueError for what cannot be trained on, NonFiniteLoss where the loss
        becomes no number.
        """
        again = flag("warm_start", self.warm_start) and hasattr(self, "model_")
        return self._train(X, y, sample_weight, self.epochs, again=again, known=again,
                           early_stopping=self.early_stopping)  # fmt: skip

    def predict(self, X):
        """What each sequence is or, with output="sequence", each step: of the shape of y, a list for a list."""
        check_is_fitted(self, "model_")
        return self._found(self.model_.predict(self._sequences(X)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self):
        """With what the optimiser remembers, which its own copies leave out: training goes on as if never pickled."""
        state = dict(super().__getstate__())
        if "optimizer_" in state:
            state["moments"] = self.optimizer_.moments(self.model_.parameters)
        return state

    def __setstate__(self, state):
        state = dict(state)
        moments = state.pop("moments", None)
        super().__setstate__(state)
        if moments is not None:
            mine = self.optimizer_.moments(self.model_.parameters)
            for name, buffer in moments.buffers.items():
                mine.buffers[name][:] = buffer
            vars(mine).update({name: value for name, value in vars(moments).items() if name != "buffers"})

    def __copy__(self):
        return copy.deepcopy(self)  # nothing that learns is shared

    def _keep(self, arguments):
        """Those of __init__ as attributes, as they are: scikit-learn clones an estimator by them."""
        vars(self).update({name: value for name, value in arguments.items() if name != "self"})

    # --- training -------------------------------------------------------------------------------------------------

    def _train(self, X, y, sample_weight, epochs, *, again: bool, known: bool, early_stopping=False):
        """`fit` of a new model or, `again`, of the one that is there. known : whether what targets are is known before
        these are seen."""
        with all_or_nothing(self):
            return self._trained(X, y, sample_weight, epochs, again, known, early_stopping)

    def _trained(self, X, y, sample_weight, epochs, again, known, early_stopping):
        x = as_sequences(self, X, LSTM.check_dtype(self.dtype), reset=not again)
        one_of("output", self.output, ("last", "sequence"))
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        weights = None if sample_weight is None else self._weights(sample_weight, x)
        y = self._targets(y, x, weights, known)
        seed = self._seed if again else int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        model, arguments = self._model(seed, again)
        optimizer = self._optimizer(again)
        options = dict(batch_size=self.batch_size, optimizer=optimizer, clip_norm=self.clip_norm, seed=seed,
                       epochs=positive_int("epochs", epochs), progress=flag("verbose", self.verbose),
                       class_weight=self._class_weight())  # fmt: skip
        if flag("early_stopping", early_stopping):
            x, y, weights, options["validation"] = self._held_out(x, y, weights, seed)
            options["patience"] = self.n_iter_no_change
        self.history_ = model.fit(x, y, sample_weight=weights, **options)
        self.model_, self.optimizer_, self._seed, self._arguments = model, optimizer, seed, copy.deepcopy(arguments)
        self.n_iter_ = len(self.history_)
        return self

    def _model(self, seed, again) -> tuple[Model, dict]:
        """A new model or, `again`, the one that is there, and the arguments that it was made with."""
        options = {} if self.model_options is None else dict(self.model_options)
        arguments = {name: getattr(self, name) for name in ARGUMENTS} | options
        for name in {*ARGUMENTS, *SET_HERE} & options.keys():
            raise ValueError(f"model_options: expected none that the estimator has or sets itself, got {name!r}")
        for name in self._arguments.keys() | arguments.keys() if again else ():
            before, now = (given.get(name) for given in (self._arguments, arguments))
            if not same(before, now):
                raise ValueError(f"{name}: expected {describe(before)}, which the model was made with, "
                                 f"got {describe(now)}")  # fmt: skip
        loss = losses.as_loss(self.loss)
        if not isinstance(loss, self._losses):
            raise ValueError(f"loss: expected one of {', '.join(repr(kind.name) for kind in self._losses)}, "
                             f"got {loss.name!r}")  # fmt: skip
        if again:
            return self.model_, arguments
        features = 1 if self._table else self.n_features_in_
        return Model(features, output_size=self._outputs(), seed=seed, **arguments), arguments

    def _optimizer(self, again) -> Optimizer:
        """A new one or, `again`, the one that is there, with its moments, and with settings that may have changed."""
        if not callable(self.optimizer):
            raise TypeError("optimizer: expected a class, or a function of the learning rate, as cylstm.Adam, "
                            f"got {describe(self.optimizer)}")  # fmt: skip
        new = self.optimizer(self.learning_rate)
        if not again or type(new) is not type(self.optimizer_) or new.buffer_names != self.optimizer_.buffer_names:
            return new
        for name, value in vars(new).items():
            if not name.startswith("_"):
                setattr(self.optimizer_, name, value)
        return self.optimizer_

    def _held_out(self, x, y, weights, seed):
        """x, y and weights of the rows to train by, and those to stop by, as `Model.fit` takes them."""
        share = real_in("validation_fraction", self.validation_fraction, 0, 1, open_low=True, open_high=True)
        train, rest = train_test_split(np.arange(len(x)), test_size=share, random_state=seed, stratify=self._strata(y))
        held_out = dict(x=taken(x, rest), y=taken(y, rest))
        if weights is not None:
            held_out["sample_weight"] = taken(weights, rest)
        return *(taken(values, train) for values in (x, y, weights)), held_out

    # --- what goes in ---------------------------------------------------------------------------------------------

    def _sequences(self, X):
        return as_sequences(self, X, self.model_.dtype, reset=False)

    def _weights(self, given, x):
        """One number for each row or, of steps, for each step of each row."""
        rows = listed(given)
        weights = None if rows is not None else plain_array("sample_weight", given)
        if self.output == "sequence" and (rows is not None or weights.ndim > 1):
            weights = as_steps("sample_weight", given, x)
            expect_some(one_behind_the_other(weights))
            return weights
        if weights is None or weights.shape != (len(x),) or weights.dtype.kind not in "biuf":
            raise ValueError(
                f"sample_weight: expected numbers ({len(x)},), got {describe(given if weights is None else weights)}"
            )
        expect_some(weights)
        if self.output == "last":
            return weights
        of_steps = [np.full(len(row), weight) for row, weight in zip(x, weights, strict=True)]
        return of_steps if isinstance(x, list) else np.stack(of_steps)

    def _score(self, function, X, y, sample_weight) -> float:
        """function(y, predictions, sample_weight=) of all sequences or, with output="sequence", of all steps."""
        refuse_masked("y", y)
        refuse_masked("sample_weight", sample_weight)
        found = self.predict(X)
        if self.output == "sequence":
            x = self._sequences(X)
            if sample_weight is not None:
                sample_weight = one_behind_the_other(self._weights(sample_weight, x))
            y, found = one_behind_the_other(as_steps("y", y, x)), one_behind_the_other(found)
        return function(y, found, sample_weight=sample_weight)

    def _class_weight(self):
        return None

    def _strata(self, y):
        return None


def same(one, other) -> bool:
    """Whether two arguments of `Model` say the same; of what is equal to nothing else, how it is written counts."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other or repr(one) == repr(other))


def expect_some(weights) -> None:
    """ValueError where all are 0."""
    if not weights.any():
        raise ValueError("sample_weight: expected at least one weight above zero, got none")
