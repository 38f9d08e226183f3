"""`LSTMClassifier`: a class for each sequence, or for each step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from cylstm import losses
from cylstm.checks import describe, refuse, refuse_masked
from cylstm.sklearn.base import BaseLSTM
from cylstm.sklearn.rows import all_or_nothing, as_steps, one_behind_the_other
from cylstm.training.optim import Adam

__all__ = ["LSTMClassifier"]


class LSTMClassifier(ClassifierMixin, BaseLSTM):
    """Classes of sequences: an LSTM, a linear layer, and cross-entropy.

    Parameters
    ----------
    hidden_size, num_layers, bidirectional, dropout
        As for `cylstm.Model`.
    loss : "cross_entropy", or `losses.CrossEntropy(label_smoothing)`
    output : "last" or "sequence"
        One class for each sequence, from the state that its last step leaves, or one for each step.
    epochs, batch_size, clip_norm
        As for `Model.fit`.
    learning_rate : float or a schedule
        0.01, or `cylstm.Cosine(0.02, 50)`, whose epochs count on over calls of `partial_fit`.
    optimizer : callable
        Makes the optimiser from the learning rate: `cylstm.Adam`, `cylstm.SGD`, or `functools.partial(cylstm.AdamW,
        weight_decay=0.1)`.
    class_weight : dict from labels to numbers >= 0, "balanced" or None
        As for `Model.fit`. "balanced" does not go with `partial_fit`, which does not see how many there are of each.
    early_stopping : bool
        Whether `fit` (not `partial_fit`) keeps a share `validation_fraction` of the sequences (of each class, for
        output="last") to look at after each epoch, stops after `n_iter_no_change` epochs without a lower loss of these,
        and goes back to the best weights.
    warm_start : bool
        Whether `fit` goes on with the model that is there and its optimiser: two calls are one with as many epochs.
        Epochs, batches and the learning rate may change between them, the model may not.
    random_state : int, RandomState or None
        Of the first weights, the order of rows, dropout, and what is kept for early stopping. With an int all numbers
        are the same to the bit on every run, for any number of threads.
    verbose : bool
        Whether to show a line or a bar for each epoch.
    dtype : "float32" or "float64"
    model_options : dict or None
        Further arguments of `cylstm.Model`: {"recurrent_dropout": 0.2, "layer_norm": "ba"}.

    Attributes
    ----------
    classes_ : array (K,)
        The labels, sorted.
    model_ : cylstm.Model
        Its classes are places in `classes_`.
    history_ : History
        Of the last `fit` or `partial_fit`; `n_iter_` is the number of its epochs.
    n_features_in_ : int
        F. `feature_names_in_` is there where X was a data frame, or a list with some.
    """

    _losses = (losses.CrossEntropy,)

    def __init__(self, hidden_size=64, *, num_layers=1, bidirectional=False, dropout=0.0, output="last",
                 loss="cross_entropy", epochs=50, batch_size=32, learning_rate=1e-2, optimizer=Adam, clip_norm=5.0,
                 class_weight=None, early_stopping=False, validation_fraction=0.1, n_iter_no_change=10,
                 warm_start=False, random_state=None, verbose=False, dtype="float32",
                 model_options=None):  # fmt: skip
        self._keep(locals())

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """One epoch over some data, from where the model is; the first call makes it.

        classes : all labels that will ever come; needed in the first call.
        """
        if isinstance(self.class_weight, str):
            raise ValueError("class_weight: expected a dict or None with partial_fit, which does not see all classes, "
                             f"got {self.class_weight!r}")  # fmt: skip
        again = hasattr(self, "model_")
        if classes is not None:
            refuse_masked("classes", classes)
            classes = np.unique(column_or_1d(classes))
            if again and not np.array_equal(classes, self.classes_):
                before, now = describe(self.classes_.tolist()), describe(classes.tolist())
                raise ValueError(f"classes: expected those before, {before}, got {now}")
        elif not again:
            raise ValueError("classes: expected all labels in the first call to partial_fit, got None")
        with all_or_nothing(self):
            if not again:
                self.classes_ = classes
            return self._train(X, y, sample_weight, 1, again=again, known=True)

    def predict_proba(self, X):
        """Probabilities of the classes: (N, K); with output="sequence" (N, T, K), a list of (T_n, K) for a list."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(self._sequences(X))

    def score(self, X, y, sample_weight=None) -> float:
        """The accuracy over all sequences or, with output="sequence", over all steps. sample_weight : as for `fit`."""
        return self._score(accuracy_score, X, y, sample_weight)

    def _targets(self, y, x, weights, known):
        """Places in `classes_`, int64, of the shape of y."""
        refuse_masked("y", y)
        of_rows = self.output == "last"
        labels = column_or_1d(y, warn=True) if of_rows else as_steps("y", y, x)
        flat = labels if of_rows else one_behind_the_other(labels)
        if flat.dtype.kind == "f":
            assert_all_finite(flat, input_name="y")
        check_classification_targets(flat)
        if len(labels) != len(x):
            raise ValueError(f"y: expected {len(x)} labels, as many as X has sequences, got {len(labels)}")
        if not known:
            self.classes_ = np.unique(flat)
        if isinstance(labels, list):
            return [self._places(f"y[{n}]", row) for n, row in enumerate(labels)]
        return self._places("y", labels)

    def _places(self, name, labels):
        kinds = [array.dtype.kind.replace("S", "U") for array in (labels, self.classes_)]
        # NumPy would make text of a number; Python, which compares objects, does not.
        alike = "O" in kinds or (kinds[0] == "U") == (kinds[1] == "U")
        known = np.isin(labels, self.classes_) if alike else np.zeros(labels.shape, bool)
        refuse(name, labels, ~known, f"one of the classes before, {describe(self.classes_.tolist())}")
        return np.searchsorted(self.classes_, labels)

    def _outputs(self):
        return len(self.classes_)

    def _found(self, places):
        return [self.classes_[row] for row in places] if isinstance(places, list) else self.classes_[places]

    def _class_weight(self):
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        places = {label: n for n, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in self.class_weight if label not in places]
        if unknown and places.keys() - self.class_weight.keys():  # otherwise some classes are not in this data, no more
            raise ValueError(
                f"class_weight: expected labels of y, {describe(list(places))}, got {describe(unknown[0])}"
            )
        return {places[label]: weight for label, weight in self.class_weight.items() if label in places}

    def _strata(self, y):
        return y if self.output == "last" else None
