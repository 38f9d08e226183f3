"""What a model makes of its inputs before they reach its LSTM: rows of tables for ids, and dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from cylstm import dense
from cylstm._core.gradients import embedding_gradient
from cylstm.checks import as_ids, describe, described_with_way, plain_array, positive_int, real_in, whereabouts
from cylstm.drops import mask
from cylstm.maps import in_pieces

__all__ = ["Inputs", "OfEmbedding", "Taken", "as_embeddings", "config_of", "layout", "tail", "width_of"]


def as_embeddings(given, input_size: int) -> Mapping[int, tuple[int, int]]:
    """{column: (V, E)} in the order of the columns, which a file has as text. Raises TypeError or ValueError."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise TypeError(f"embeddings: expected a dict {{column: (V, E)}}, got {describe(given)}")
    tables = {}
    for key, sizes in given.items():
        column = positive_int("embeddings", int(key) if isinstance(key, str) and key.isdecimal() else key, 0)
        if column >= input_size or column in tables:
            raise ValueError(f"embeddings: expected each column once, in 0..{input_size - 1}, got {describe(key)}")
        if not isinstance(sizes, (tuple, list)) or len(sizes) != 2:
            raise TypeError(f"embeddings[{column}]: expected (V, E), got {describe(sizes)}")
        tables[column] = tuple(positive_int(f"embeddings[{column}]", size) for size in sizes)
    return MappingProxyType(dict(sorted(tables.items())))


def width_of(input_size, embedding_size, embeddings) -> int:
    """The width of the features that tables, or none, leave."""
    if embedding_size is not None:
        return embedding_size
    return input_size - len(embeddings) + sum(E for _, E in embeddings.values())


def layout(input_size, embedding_size, embeddings, before) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters before the LSTM."""
    shapes = {} if embedding_size is None else {"embedding.weight": (input_size, embedding_size)}
    shapes.update({f"embeddings.{column}.weight": sizes for column, sizes in embeddings.items()})
    return shapes | dense.layout("before", before, width_of(input_size, embedding_size, embeddings))


def config_of(model) -> dict:
    """What a model has around its LSTM beside a plain embedding and head, for JSON: what there is not has no entry, so
    that older versions read the files of models without."""
    around = {"embeddings": {str(column): list(sizes) for column, sizes in model.embeddings.items()}}
    around.update({name: [layer.config for layer in getattr(model, name)] for name in ("before", "after")})
    around.update({"embedding_dropout": model.embedding_dropout, "tied": model.tied})
    return {name: value for name, value in around.items() if value}


def tail(model, x, name="x") -> tuple[int, ...]:
    """The axes that an input of a model has behind B and T: (I,), none for ids. TypeError where it is of a kind that
    the model does not take."""
    if model.inputs is not None:
        return model.inputs.tail(x, name)
    return () if x.dtype.kind in "iu" else (model.input_size,)


class Taken(NamedTuple):
    """What `Inputs.forward` keeps for `Inputs.backward`, of the N real steps."""

    shape: tuple[int, ...]  # of x, without I
    real: np.ndarray | None  # of this shape: where they are, None for everywhere
    ids: np.ndarray | None  # (N,), or (N, columns)
    dense: list | None = None
    kept: np.ndarray | None = None  # (N, 1): of dropout, 1 / (1 - p) where a row of the table is kept, else 0


class Inputs:
    """An embedding of ids, embeddings of columns, dense layers: what of these there is, and its weights."""

    def __init__(self, input_size, embedding_size, embeddings, before, parameters):
        self.input_size, self.parameters = input_size, parameters
        self.takes_ids = embedding_size is not None
        self.dropout, self.tied = 0.0, False  # of the rows of ids, whose table the head may have, too
        self.columns = list(embeddings)
        self.numbers = [column for column in range(input_size) if column not in embeddings] if embeddings else []
        self.tables = [f"embeddings.{column}.weight" for column in embeddings]
        self.sizes = np.array([V for V, _ in embeddings.values()], np.int64)
        self.ends = len(self.numbers) + np.cumsum([0] + [E for _, E in embeddings.values()])  # of features
        self.before = dense.Stack("before", before, parameters) if before else None

    @classmethod
    def of(cls, model) -> Inputs | None:
        """None for a model whose LSTM gets x as it is: nothing is asked on the way then."""
        if model.embedding_size is None and not model.embeddings and not model.before:
            return None
        found = cls(model.input_size, model.embedding_size, model.embeddings, model.before, model.parameters)
        found.tied = model.tied
        return found

    def initialise(self, rng) -> None:
        """Draw the weights, but those of an embedding of ids, in their order: tables with standard deviation 1."""
        for table in self.tables:
            values = self.parameters.raw(table)
            values[:] = rng.standard_normal(values.shape)
        if self.before is not None:
            self.before.initialise(rng)

    # --- checks ---------------------------------------------------------------------------------------------------

    def tail(self, x, name="x") -> tuple[int, ...]:
        """What the function of this name says."""
        if self.takes_ids:
            return ()
        if x.dtype.kind not in ("iuf" if self.columns else "f"):
            hint = " (ids need an embedding before dense layers)" if x.dtype.kind in "iu" else ""
            also = " or integers" if self.columns else ""
            raise TypeError(f"{name}: expected floating-point numbers{also}{hint}, got {described_with_way(x)}")
        if self.columns and x.dtype.kind == "f":
            most = int(self.sizes.max()) - 1
            if most > 2 ** (np.finfo(x.dtype).nmant + 1):
                raise TypeError(f"{name}: expected a type that holds ids up to {most}, got {describe(x)}")
        return (self.input_size,)

    def check_ids(self, name, x, real=None) -> None:
        """ValueError, naming the place, where a column (of embeddings) of x (B, T, I) or (T, I) has something else than
        an id. real : (B, T) or (T,): what counts, None for all."""
        if not self.columns:
            return
        for piece in in_pieces(x[..., 0]):
            self._ids(name, x[piece], None if real is None else real[piece], piece)

    def check_all(self, x, real=None, batched=True) -> None:
        """The same of what goes into the model in parts: an array, or a list of sequences with a list of `real`; or one
        sequence to which an axis was added."""
        if not isinstance(x, list):
            self.check_ids("x", *((x, real) if batched else (x[0], real[0])))
            return
        for n, row in enumerate(x):
            self.check_ids(f"x[{n}]", row, None if real is None else real[n])

    def _ids(self, name, x, real, piece=()):
        """Checked ids (N, columns) of the N real steps of x (..., I). piece : as for `check_range`."""
        ids = x[..., self.columns]  # a copy, before it is checked: another thread may be writing to what came
        ids = ids.reshape(-1, len(self.columns)) if real is None else ids[real]
        right = (ids >= 0) & (ids < self.sizes)
        if ids.dtype.kind == "f":
            right &= ids == np.floor(ids)
        if not right.all():
            n, c = (int(k) for k in np.unravel_index(right.argmin(), right.shape))
            step = n if real is None else np.flatnonzero(real)[n]
            place = (*np.unravel_index(step, x.shape[:-1]), self.columns[c])
            raise ValueError(
                f"{name}[{whereabouts(place, piece)}]: expected an id in 0..{self.sizes[c] - 1}, got {ids[n, c]!s}"
            )
        return ids.astype(np.int64)

    def ids_of(self, x, name="x", plan=None) -> np.ndarray:
        """A checked copy of ids; what stands past a row's end may be any number and becomes 0."""
        ids = np.array(plain_array(name, x))
        if plan is not None and plan.lengths is not None:
            ids[plan.past_ends().reshape(ids.shape)] = 0
        ids = as_ids(name, ids, self.input_size)
        if ids.ndim > 2:
            raise ValueError(f"{name}: expected ids (B, T) or (T,), got {ids.shape}")
        return ids

    # --- running --------------------------------------------------------------------------------------------------

    def __call__(self, x, name="x", plan=None) -> np.ndarray:
        """Features (..., W) for the layer, of ids or of x (..., I); 0 past the rows' ends. Nothing is dropped."""
        if self.takes_ids and self.before is None:
            return self.parameters.rows("embedding.weight", self.ids_of(x, name, plan))
        rows, taken = self._taken(x, name, plan)
        return in_place(rows if self.before is None else self.before(rows), taken)

    def forward(self, x, plan, rng) -> tuple[np.ndarray, Taken]:
        """The same with dropout, whose masks come from rng, and with what `backward` needs."""
        rows, taken = self._taken(x, "x", plan, kept=True)
        if self.dropout:
            kept = mask(rng, self.input_size, self.dropout, rows.dtype)[taken.ids.ravel(), None]
            rows, taken = rows * kept, taken._replace(kept=kept)
        if self.before is not None:
            rows, kept = self.before.forward(rows, rng)
            taken = taken._replace(dense=kept)
        return in_place(rows, taken), taken

    def backward(self, taken, d, gradients, wanted) -> np.ndarray | None:
        """Gradients of the weights from d = d loss / d features, which may be overwritten; returns those by x, where
        they are wanted and x has any: 0 in its columns of ids and past the rows' ends."""
        d = d.reshape(-1, d.shape[-1]) if taken.real is None else d[taken.real]
        d = np.ascontiguousarray(d)
        if self.before is not None:
            d = self.before.backward(taken.dense, d, gradients)
        if self.takes_ids:
            d = d if taken.kept is None else d * taken.kept
            embedding_gradient(gradients.raw("embedding.weight"), taken.ids, d, self.tied)
            return None
        for n, table in enumerate(self.tables):
            rows = np.ascontiguousarray(d[:, self.ends[n] : self.ends[n + 1]])
            embedding_gradient(gradients.raw(table), np.ascontiguousarray(taken.ids[:, n]), rows)
        if not wanted:
            return None
        if self.columns:
            rows = np.zeros((len(d), self.input_size), d.dtype)
            rows[:, self.numbers] = d[:, : len(self.numbers)]
            d = rows
        return in_place(d, taken)

    def _taken(self, x, name, plan, kept=False):
        """Features (N, width) of the N real steps, as dense layers take them; no part of x where they are kept."""
        if self.takes_ids:
            ids = self.ids_of(x, name, plan)
            real = real_steps(plan, ids.shape) if self.before is not None else None
            rows = ids.ravel() if real is None else ids[real]
            return self.parameters.rows("embedding.weight", rows), Taken(ids.shape, real, rows)
        x, I, dtype = self._features(name, x), self.input_size, self.parameters.dtype
        shape, real, ids = x.shape[:-1], real_steps(plan, x.shape[:-1]), None
        rows = x.reshape(-1, I) if real is None else x[real]
        if self.columns:
            ids, features = self._ids(name, x, real), np.empty((len(rows), self.ends[-1]), dtype)
            features[:, : len(self.numbers)] = rows[:, self.numbers]
            for n, table in enumerate(self.tables):
                features[:, self.ends[n] : self.ends[n + 1]] = self.parameters.rows(table, ids[:, n])
            rows = features
        rows = np.array(rows, dtype, order="C") if kept and rows.base is not None else np.ascontiguousarray(rows, dtype)
        return rows, Taken(shape, real, ids)

    def _features(self, name, x):
        """x as an array (B, T, I) or (T, I); for x_t without T. Raises TypeError or ValueError."""
        x = plain_array(name, x)
        self.tail(x, name)
        one = name == "x_t"
        if x.ndim not in ((1, 2) if one else (2, 3)) or x.shape[-1] != self.input_size or not x.size:
            I = self.input_size
            expected = f"(B, {I}) or ({I},)" if one else f"(B, T, {I}) or (T, {I})"
            raise ValueError(f"{name}: expected {expected}{', none of them 0' * (not x.size)}, got {x.shape}")
        return x


class OfEmbedding:
    """The share of its table's rows that training drops, as an attribute of a model: 0 without an embedding of ids."""

    def __init__(self, doc):
        self.__doc__ = doc

    def __get__(self, model, kind=None):
        if model is None:
            return self
        return model.inputs.dropout if model.embedding_size is not None else 0.0

    def __set__(self, model, value):
        value = real_in("embedding_dropout", value, 0, 1, open_high=True)
        if model.embedding_size is not None:
            model.inputs.dropout = value
        elif value > 0:
            raise ValueError(f"embedding_dropout: expected 0 without embedding_size, got {value:g}")


def real_steps(plan, shape):
    """Which steps are before their row's end, booleans of this shape; None for all."""
    return None if plan is None or plan.lengths is None else ~plan.past_ends().reshape(shape)


def in_place(rows, taken):
    """Rows (N, W) of the real steps where those are, among zeros: (..., W)."""
    shape = (*taken.shape, rows.shape[1])
    if taken.real is None:
        return rows.reshape(shape)
    out = np.zeros(shape, rows.dtype)
    out[taken.real] = rows
    return out
