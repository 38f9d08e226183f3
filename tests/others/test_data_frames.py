"""Columns of pandas and polars go in without a copy: needs them, and is skipped without."""

import numpy as np
import pytest

from cylstm import LSTM, Model
from cylstm.checks import plain_array

libraries = ["pandas", "polars"]


def series(library, values):
    return library.Series("column", values) if library.__name__ == "polars" else library.Series(values)


@pytest.mark.parametrize("name", libraries)
def test_a_column_is_read_where_it_is(rng, name):
    library = pytest.importorskip(name)
    column = series(library, rng.standard_normal(1000).astype("f4"))
    array = plain_array("x", column)
    assert np.shares_memory(array, column.to_numpy()) and np.shares_memory(array, plain_array("x", column))
    layer = LSTM(1, 5, seed=1)
    assert np.array_equal(layer(array[:, None])[0], layer(array[:, None].copy())[0])


@pytest.mark.parametrize("name", libraries)
def test_frames_of_features_and_columns_of_ids_targets_and_lengths(rng, name):
    library = pytest.importorskip(name)
    x = rng.standard_normal((200, 3)).astype("f4")
    frame = library.DataFrame({f"feature {n}": x[:, n] for n in range(3)})
    layer = LSTM(3, 5, seed=1)
    assert np.array_equal(layer(frame)[0], layer(x)[0])
    ids = rng.integers(0, 7, 200)
    model = Model(7, 5, 2, output="last", seed=1)
    assert np.array_equal(model(series(library, ids))[0], model(ids)[0])
    rows, y, lengths = rng.integers(0, 7, (9, 4)), rng.integers(0, 2, 9), rng.integers(1, 5, 9)
    expected = model.evaluate(rows, y, lengths=lengths)
    assert model.evaluate(rows, series(library, y), lengths=series(library, lengths)) == expected
    model.fit(rows, series(library, y), lengths=series(library, lengths), epochs=1, progress=False)


@pytest.mark.parametrize("name", libraries)
@pytest.mark.parametrize("validated", [False, True])
def test_a_history_is_a_frame_whatever_ran(rng, name, validated):
    library = pytest.importorskip(name)
    x, y = rng.standard_normal((9, 4, 3)), rng.standard_normal((9, 4, 2))
    validation = (x[:3], y[:3]) if validated else None
    model = Model(3, 5, 2, loss="mse", seed=1)
    history = model.fit(x, y, validation=validation, metrics=["mae"], epochs=2, progress=False)
    frame = library.DataFrame(history.to_dict())
    assert list(frame["mae"]) == history.metrics["mae"] and list(frame["updates"]) == history.updates == [1, 2]
    assert frame.shape == (2, 9)
