"""What classifier and regressor have in common: a `Model` of cylstm that is made by the first data it sees."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cylstm import losses
from cylstm.checks import describe, flag, one_of, plain_array, positive_int, real_in
from cylstm.model import Model
from cylstm.sklearn.rows import as_sequences, as_steps, one_behind_the_other, taken

__all__ = ["BaseLSTM"]

# Arguments of `Model` that are no `model_options`.
OWN = {"input_size", "hidden_size", "output_size", "num_layers", "bidirectional", "dropout", "output", "loss", "dtype",
       "seed", "horizon", "labels", "parameters"}  # fmt: skip


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
            state["moments"] = copy.deepcopy(self.optimizer_.moments(self.model_.parameters))
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

    # --- training -------------------------------------------------------------------------------------------------

    def _train(self, X, y, sample_weight, epochs, *, again: bool, known: bool, early_stopping=False):
        """`fit` of a new model or, `again`, of the one that is there. known : whether what targets are is known before
        these are seen."""
        one_of("output", self.output, ("last", "sequence"))
        x = as_sequences(self, X, self.dtype, reset=not again)
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        weights = None if sample_weight is None else self._weights(sample_weight, x)
        y = self._targets(y, x, weights, known)
        model, optimizer, seed = (self.model_, self.optimizer_, self._seed) if again else self._new()
        options = dict(batch_size=self.batch_size, optimizer=optimizer, clip_norm=self.clip_norm, seed=seed,
                       epochs=positive_int("epochs", epochs), progress=flag("verbose", self.verbose),
                       class_weight=self._class_weight())  # fmt: skip
        if flag("early_stopping", early_stopping):
            x, y, weights, options["validation"] = self._held_out(x, y, weights, seed)
            options["patience"] = self.n_iter_no_change
        self.history_ = model.fit(x, y, sample_weight=weights, **options)
        self.model_, self.optimizer_, self._seed = model, optimizer, seed
        self.n_iter_ = len(self.history_)
        return self

    def _new(self):
        """A model for the data seen, its optimiser, and the seed of the order of rows."""
        options = {} if self.model_options is None else dict(self.model_options)
        for name in options.keys() & OWN:
            raise ValueError(f"model_options: expected none that the estimator has or sets itself, got {name!r}")
        loss = losses.as_loss(self.loss)
        if not isinstance(loss, self._losses):
            raise ValueError(f"loss: expected one of {', '.join(repr(kind.name) for kind in self._losses)}, "
                             f"got {loss.name!r}")  # fmt: skip
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        features = 1 if self._table else self.n_features_in_
        model = Model(features, self.hidden_size, self._outputs(), num_layers=self.num_layers, output=self.output,
                      loss=loss, bidirectional=self.bidirectional, dropout=self.dropout, dtype=self.dtype, seed=seed,
                      **options)  # fmt: skip
        if not callable(self.optimizer):
            raise TypeError("optimizer: expected a class, or a function of the learning rate, as cylstm.Adam, "
                            f"got {describe(self.optimizer)}")  # fmt: skip
        return model, self.optimizer(self.learning_rate), seed

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
        if self.output == "sequence" and np.ndim(given[0]) > 0:
            return as_steps("sample_weight", given, x)
        weights = plain_array("sample_weight", given)
        if weights.shape != (len(x),) or weights.dtype.kind not in "biuf":
            raise ValueError(f"sample_weight: expected numbers ({len(x)},), got {describe(weights)}")
        if not weights.any():
            raise ValueError("sample_weight: expected at least one weight above zero, got none")
        if self.output == "last":
            return weights
        of_steps = [np.full(len(row), weight) for row, weight in zip(x, weights, strict=True)]
        return of_steps if isinstance(x, list) else np.stack(of_steps)

    def _score(self, function, X, y, sample_weight) -> float:
        """function(y, predictions, sample_weight=) of all sequences or, with output="sequence", of all steps."""
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
