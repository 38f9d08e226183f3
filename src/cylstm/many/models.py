"""Many models of one configuration, trained and run side by side in one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

import numpy as np

from cylstm import cell, model_parameters
from cylstm._core.crew import COLUMNS, Crew
from cylstm._core.memory import aligned_empty
from cylstm.batches import at_once
from cylstm.checks import as_generator, describe, positive_int
from cylstm.init import LATER
from cylstm.locks import Claim
from cylstm.many import files
from cylstm.many.data import Stacked
from cylstm.many.fit import fit
from cylstm.many.history import Histories
from cylstm.many.measures import means_of, walk
from cylstm.model import Model
from cylstm.parameters import Parameters
from cylstm.signatures import show_options
from cylstm.small_parameters import SmallParameters
from cylstm.training.record import Trained

__all__ = ["Models"]


class Models:
    """N models of one configuration, for panels of series, bootstraps, ensembles and populations.

    input_size, hidden_size, output_size, config : as for `Model`, all but `seed` and `vocabulary`.
    seeds : one for each model, as `Model(seed=)` takes them; model n has the weights of `Model(..., seed=seeds[n])`.

    Of one head; without what training drops, embeddings and dense layers: ids stand for one-hot rows. Raises TypeError
    or ValueError, naming the argument.

    `models[n]` is a copy of model n, a `Model`; `models[n] = model` takes over the weights of one, and its `trained`:
    optimisers that have trained these models begin anew with it. `trained` is as `Model.trained`, with `Histories`: of
    the last `fit` of all.
    """

    def __init__(self, input_size, hidden_size, output_size, *, seeds, **config):
        for name in {"seed", "vocabulary", "parameters"} & set(config):
            raise TypeError(f"{name}: expected seeds, one for each of many models, got {describe(config[name])}")
        unordered = isinstance(seeds, (str, bytes, Set, Mapping)) or getattr(seeds, "ndim", 1) == 0
        if unordered or not isinstance(seeds, Iterable):
            raise TypeError(f"seeds: expected one for each model, got {describe(seeds)}")
        generators = [as_generator(f"seeds[{n}]", seed) for n, seed in enumerate(seeds)]
        if not generators:
            raise ValueError("seeds: expected at least one model's, got none")
        self._begin(Model(input_size, hidden_size, output_size, seed=LATER, **config), len(generators))
        one, lstm = self.template, self.template.lstm
        for n, rng in enumerate(generators):  # as LSTM and Model draw them
            cell.initialise(lstm.parameters, lstm.input_size, lstm.hidden_sizes, lstm.num_layers, lstm.num_directions,
                            lstm.cell, lstm.forget_bias, rng)  # fmt: skip
            model_parameters.initialise(one, rng)
            self.flat[n] = one.parameters.raw()

    def _begin(self, one, count):
        """Room for so many models like this one, which becomes what all checks are made with."""
        expect_simple(one)
        self.template, self.head, self.trained, self.in_training = one, one.heads[""], None, Claim()
        self.own = {}  # Trained or None, by number, of those that came from elsewhere since the last fit
        self.turns = np.zeros(count, np.int64)  # how many models there have been in each place
        # What optimisers know them by: the parameters of all models, one model a row.
        self.stack = Parameters({"models": (count, one.parameters.size)}, one.dtype)

    @classmethod
    def of(cls, models) -> Models:
        """Copies of Models of one configuration. Raises TypeError or ValueError, naming the first that differs."""
        models = list(models) if isinstance(models, Iterable) else models
        if not isinstance(models, list) or not all(type(model) is Model for model in models):
            raise TypeError(f"models: expected several Model, of no class derived from it, got {describe(models)}")
        if not models:
            raise ValueError("models: expected at least one, got none")
        made = cls.like(models[0], len(models))
        for n, model in enumerate(models):
            made._take(n, model, f"models[{n}]")
        return made

    @classmethod
    def like(cls, one, count) -> Models:
        """So many models like this one, their weights to come. Raises TypeError or ValueError."""
        if type(one) is not Model:
            raise TypeError(f"one: expected a Model, of no class derived from it, got {describe(one)}")
        count = positive_int("count", count)
        made = cls.__new__(cls)
        made._begin(empty_copy(one), count)
        return made

    @property
    def config(self) -> dict:
        """The arguments of `Model` that all of them have."""
        return self.template.config

    @property
    def flat(self) -> np.ndarray:
        """All weights (N, P), a writable view: row n is `models[n].parameters.flat`."""
        return self.stack.raw("models")

    def __len__(self) -> int:
        return len(self.flat)

    def __getitem__(self, n) -> Model:
        model = empty_copy(self.template)
        n = self._number(n)
        model.parameters.raw()[:] = self.flat[n]
        model.parameters.touch()
        if n in self.own:
            model.trained = self.own[n]
        elif self.trained is not None:
            options = {name: value for name, value in self.trained.options.items() if name != "seeds"}
            options["seed"] = self.trained.options["seeds"][n]
            model.trained = Trained(self.trained.history[n], options, self.trained.machine)
        return model

    def __setitem__(self, n, model):
        if type(model) is not Model:
            raise TypeError(f"models[{n}]: expected a Model, got {describe(model)}")
        me = object()
        try:
            if not self.in_training.take(me):
                raise RuntimeError(f"models[{n}]: expected no training meanwhile, got a run that goes on")
            self._take(self._number(n), model, f"models[{n}]")
        finally:
            self.in_training.give_back(me)

    def __reduce__(self):
        return _rebuilt, (type(self), self.template, self.flat.copy(), self.trained, dict(self.own))

    def __iter__(self) -> Iterator[Model]:
        return (self[n] for n in range(len(self)))

    def __repr__(self) -> str:
        return f"Models of {len(self)} x {self.template!r}"

    def _number(self, n) -> int:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
            raise TypeError(f"models: expected the number of a model, got {describe(n)}")
        if not -len(self) <= n < len(self):
            raise IndexError(f"models: expected a number in {-len(self)}..{len(self) - 1}, got {n}")
        return int(n) % len(self)

    def _take(self, n, model, name):
        expect_simple(model)
        if model.config != self.config:
            ours, theirs = self.config, model.config
            other = next(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
            raise ValueError(f"{name}: expected a Model with {other}={ours.get(other)!r}, got {theirs.get(other)!r}")
        self.flat[n] = model.parameters.raw()
        self.own[n] = model.trained
        self.turns[n] += 1

    # --- learning and use -----------------------------------------------------------------------------------------

    @show_options(fit)
    def fit(self, x, y, **options) -> Histories:
        """Train all on x and y: see `many.fit` for all options."""
        return fit(self, x, y, **options)

    def __call__(self, x, *, lengths=None) -> np.ndarray:
        """Outputs of all models (N, B, T, O) or, for output="last", (N, B, O); with a horizon k, (..., k, O). 0 past a
        row's end. Bits are those of each model's own `model(x)`.

        x, lengths : as for `fit`; but NaN and infinities go through, as in a model's own call.
        """
        data = Stacked(self.template, len(self), x, lengths=lengths)
        head = self.head
        shape = (len(self), data.rows, *[data.steps] * (not head.per_row), *head.tail)
        if data.rows * data.steps > at_once(1):  # a model of its own goes through so many in batches
            given = map(data.of, range(len(self)))
            return np.stack([self[n](x, lengths=lengths)[0] for n, (x, _, lengths) in enumerate(given)])
        outputs = aligned_empty(int(np.prod(shape)), self.template.dtype).reshape(shape)
        crew = self.crew(data, data.rows, learns=False)
        order, starts = np.arange(data.rows)[None], np.array([[0, data.rows]])
        crew.run("predict", np.arange(len(self)), self.flat, data.x, None, data.lengths, order, starts,
                 np.zeros(len(self), np.int64), np.zeros((len(self), COLUMNS)), outputs=outputs)  # fmt: skip
        return outputs

    def predict(self, x, *, lengths=None) -> np.ndarray:
        """As `Model.predict`, (N, ...): of each model, for x and lengths as for `fit`."""
        return self.head.decide(self(x, lengths=lengths))

    def evaluate(self, x, y, *, lengths=None, batch_size=256) -> dict[str, np.ndarray]:
        """As `Model.evaluate`, arrays (N,) by name, for x, y and lengths as for `fit`."""
        data = Stacked(self.template, len(self), x, y, lengths)
        found = walk(self, data, positive_int("batch_size", batch_size))
        return means_of(self.head, found)

    def crew(self, data, batch_size, learns) -> Crew:
        """Threads for batches of this data."""
        one = self.template
        return Crew(one.lstm, self.head, one.parameters, data.sizes(batch_size), data.steps, data.has_ids,
                    data.lengths is not None, learns)  # fmt: skip

    # --- files ----------------------------------------------------------------------------------------------------

    def save(self, path) -> None:
        """Write all models to one safetensors file, atomically, with their histories. Raises OSError."""
        files.save(self, path)

    @classmethod
    def load(cls, path) -> Models:
        """Read models written by `save`. Raises OSError, or ValueError for a file that is anything else."""
        return files.load(cls, path)


def empty_copy(model) -> Model:
    """A Model of the same configuration, its weights to come."""
    made = type(model)(**model._arguments, seed=LATER)
    made.precision = model.precision
    return made


def _rebuilt(cls, template, flat, trained, own):
    """A copy (copy, pickle) of many models."""
    models = cls.like(template, len(flat))
    models.flat[:], models.trained, models.own = flat, trained, own
    return models


def expect_simple(model) -> None:
    """ValueError for what many models cannot have."""
    if isinstance(model.parameters, SmallParameters):
        raise ValueError("precision: expected many models in float32 or float64, got fewer bits")
    if model.vocabulary is not None:
        raise ValueError("vocabulary: expected None for many models, got one")
    if "" not in model.heads:
        raise ValueError(f"output_size: expected one head for many models, got {', '.join(model.heads)}")
    for name in ("embedding_size", "embeddings", "before", "after"):
        if getattr(model, name):
            raise ValueError(f"{name}: expected none for many models, got {describe(getattr(model, name))}")
    head = model.heads[""]
    if head.loss.of_rows:
        raise ValueError(f"loss: expected one of steps or rows for many models, got {head.loss.name!r}")
    for name, share in model.lstm.drops.shares.items():
        if np.any(share) and not isinstance(share, str):
            raise ValueError(f"{name}: expected 0 for many models, of which training drops nothing, got {share}")
    if head.output == "last" and (model.lstm.cell.merge != "concat" or model.lstm.cell.residual):
        raise ValueError("output: expected 'sequence' for many models with merged directions or residuals, got 'last'")
