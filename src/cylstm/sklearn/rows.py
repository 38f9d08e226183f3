"""What X and y of an estimator can be, as the arrays and lists that a `Model` takes.

Sequences are rows of one of three kinds: an array (N, T, F), a list of arrays (T_n, F), or a table (N, F), whose rows
are sequences of F steps with one feature. A table is what scikit-learn's own tools hand on.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from cylstm.checks import check_finite, describe, described_with_way, refuse_masked
from cylstm.sequences import ragged_rows

__all__ = ["all_or_nothing", "as_sequences", "as_steps", "listed", "one_behind_the_other", "taken"]


@contextmanager
def all_or_nothing(estimator):
    """Where the block fails or is interrupted, the estimator's attributes are what they were: those of one fit, and not
    the model of one with the labels, units or features of another."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def listed(values) -> list[np.ndarray] | None:
    """The rows of a list of arrays, or of an array or a pandas Series of arrays; None for what is one array."""
    return ragged_rows(in_a_list(values))


def in_a_list(values):
    """An array or a pandas Series of objects as a list of them; anything else as it is."""
    return list(values) if getattr(values, "ndim", 0) == 1 and values.dtype == np.dtype(object) else values


def names_of(name: str, values) -> list | None:
    """The names of the columns of the data frames in a list, all in one order; None where there are none. Raises
    ValueError."""
    first, values = None, in_a_list(values)
    for n, row in enumerate(values if isinstance(values, (list, tuple)) else ()):
        names = list(getattr(row, "column_names", getattr(row, "columns", ())))
        first = first or names
        if names and names != first:
            raise ValueError(f"{name}[{n}]: expected the columns {first}, as before, got {names}")
    return first


def as_sequences(estimator, X, dtype, *, reset: bool, allow_nan=False) -> np.ndarray | list[np.ndarray]:
    """X, checked: (N, T, F), or a list of arrays (T_n, F), of floating `dtype` or, where that is None, of their own.

    reset : whether X says how many features there are (`n_features_in_`), and whether it is a table (`_table`);
        otherwise it must be as before. allow_nan : whether NaN will do.

    Raises TypeError or ValueError, those of scikit-learn for an array.
    """
    refuse_masked("X", X)
    dtypes = (np.float64, np.float32, np.float16, np.longdouble) if dtype is None else dtype
    finite = "allow-nan" if allow_nan else True
    names, rows = names_of("X", X), listed(X)
    # Rows of equal length may be so by chance: in a list of arrays they are no table unless fit had one. Lists of lists
    # are one, unless fit had sequences.
    if rows is not None and not reset and estimator._table and len({row.shape for row in rows}) == 1:
        X, rows = np.stack(rows), None
    elif rows is None and not reset and not estimator._table and isinstance(X, (list, tuple)):
        rows = list(np.asarray(X)) if np.ndim(X) == 2 and estimator.n_features_in_ == 1 else None
    if rows is None and (X if hasattr(X, "ndim") else np.asarray(X)).ndim != 3:
        expect_kind(estimator, f"(N, T, {getattr(estimator, 'n_features_in_', 'F')})", X, True, reset)
        table = validate_data(estimator, X, reset=reset, dtype=dtypes, ensure_all_finite=finite)
        estimator._table = True
        return table[..., None]
    if rows is None:
        x = check_array(X, dtype=dtypes, allow_nd=True, ensure_all_finite=finite, input_name="X", estimator=estimator)
        features = x.shape[2]
        if not x.size:
            raise ValueError(f"X: expected at least one step and feature, got {x.shape}")
    else:
        x, features = checked_rows(rows, dtype, allow_nan)
    expect_kind(estimator, "rows (N, F)", X, False, reset)
    expected = features if reset else estimator.n_features_in_
    if features != expected:
        raise ValueError(f"X: expected {expected} features, as fit had, got {features}")
    known = None if reset else getattr(estimator, "feature_names_in_", None)
    if names and known is not None and names != list(known):
        raise ValueError(f"X: expected the columns {list(known)}, as fit had, got {names}")
    if reset:
        vars(estimator).pop("feature_names_in_", None)
        if names:
            estimator.feature_names_in_ = np.empty(len(names), object)
            estimator.feature_names_in_[:] = names
        estimator.n_features_in_, estimator._table = features, False
    return x


def expect_kind(estimator, expected: str, X, table: bool, reset: bool) -> None:
    """ValueError where X is a table and what came before was none, or the other way round."""
    if not reset and estimator._table != table:
        got = describe(X) if isinstance(X, np.ndarray) else f"a {type(X).__name__} of {len(X)}"
        raise ValueError(f"X: expected {expected}, as fit had, got {got}")


def checked_rows(rows, dtype, allow_nan) -> tuple[list[np.ndarray], int]:
    """Arrays (T_n, F) of floating `dtype`, and F; of arrays (T_n,) F is 1."""
    if all(row.ndim == 1 for row in rows):
        rows = [row[:, None] for row in rows]
    features, found = rows[0].shape[-1] if rows[0].ndim == 2 else 0, []
    for n, row in enumerate(rows):
        if row.dtype.kind not in "biuf":
            raise TypeError(f"X[{n}]: expected numbers, got {described_with_way(row)}")
        if row.ndim != 2 or row.shape[1] != features or not features:
            raise ValueError(f"X[{n}]: expected (T, {features or 'F'}), got {describe(row)}")
        kept = row.dtype if dtype is None and row.dtype.kind == "f" else dtype or np.float64
        check_finite(f"X[{n}]", row, kept, missing=allow_nan)
        found.append(row.astype(kept, copy=False))
    return found, features


def as_steps(name: str, values, x) -> np.ndarray | list[np.ndarray]:
    """What there is for each step of x, an array (N, T, ...) for an array, a list of arrays (T_n, ...) for a list.
    Raises TypeError or ValueError."""
    refuse_masked(name, values)
    names_of(name, values)  # raises where they have several orders
    rows = listed(values)
    if rows is None:
        rows = check_array(values, dtype=None, ensure_2d=False, allow_nd=True, ensure_all_finite=False, input_name=name)
    if len(rows) != len(x):
        raise ValueError(f"{name}: expected {len(x)} rows, as many as X, got {len(rows)}")
    for n, row in enumerate(rows):
        if np.ndim(row) < 1 or len(row) != len(x[n]):
            raise ValueError(f"{name}[{n}]: expected {len(x[n])} steps, as X[{n}] has, got {describe(row)}")
    if isinstance(x, list):
        return list(rows)
    return np.stack(rows) if isinstance(rows, list) else rows


def taken(values, indices) -> np.ndarray | list | None:
    """Some rows; of None, None."""
    if values is None:
        return None
    return [values[n] for n in indices] if isinstance(values, list) else values[indices]


def one_behind_the_other(values) -> np.ndarray:
    """The steps of all rows: of (N, T, ...), or of arrays (T_n, ...), (steps, ...)."""
    return np.concatenate([np.asarray(row) for row in values])
