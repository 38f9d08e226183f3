"""Batches from DataLoaders, Parquet files and frames in pieces: each needs its library, and is skipped without."""

import tracemalloc

import numpy as np
import pytest

from cylstm import Adam, Cosine, Model, data


def make(**options):
    return Model(3, 6, 2, loss="mse", seed=1, **options)


def trained(x, y=None, model=None, **options):
    model = make() if model is None else model
    model.fit(x, y, epochs=2, progress=False, **options)
    return model.parameters.flat.copy()


def arrays(rng):
    return rng.standard_normal((50, 7, 3), "float32"), rng.standard_normal((50, 7, 2), "float32")


def test_a_data_loader_is_gone_through_each_epoch(rng):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    x, y = arrays(rng)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=12)
    rate = lambda: Adam(Cosine(0.01, epochs=2))  # noqa: E731  (which needs its len)
    expected = trained(x, y, batch_size=12, shuffle=False, optimizer=rate())
    np.testing.assert_array_equal(trained(loader, optimizer=rate(), validation=loader), expected)
    assert make().evaluate(loader) == pytest.approx(make().evaluate(x, y))
    assert trained(DataLoader(loader.dataset, 12, shuffle=True)).shape == expected.shape
    broken = TensorDataset(torch.from_numpy(x), torch.from_numpy(y).requires_grad_())
    with pytest.raises(TypeError, match=r"^batches\[0\]: y: expected .* y\.detach\(\) is one$"):
        trained(DataLoader(broken, batch_size=12))


def test_data_loaders_of_unknown_length_and_of_ragged_rows(rng):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, IterableDataset

    lengths = rng.integers(1, 9, 30)
    rows = [(rng.standard_normal((n, 3), "float32"), rng.standard_normal((n, 2), "float32")) for n in lengths]

    class Rows(IterableDataset):
        def __iter__(self):
            return ((torch.from_numpy(x), torch.from_numpy(y)) for x, y in rows)

    loader = DataLoader(Rows(), batch_size=7, collate_fn=lambda rows: [list(part) for part in zip(*rows, strict=True)])
    expected = trained(data.Batched(rows, 7))
    np.testing.assert_array_equal(trained(loader), expected)
    np.testing.assert_array_equal(trained(data.Batched(Rows(), 7)), expected)
    with pytest.raises(ValueError, match=r"^optimizer: expected .* or batches with a len\(\)"):
        trained(loader, optimizer=Adam(Cosine(0.01, epochs=2)))


def test_a_parquet_file_in_pieces(rng, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), 300)
    schema = pa.schema([("x", kind), ("label", pa.int64())])
    x, label = rng.standard_normal((4000, 300), "float32"), rng.integers(0, 2, 4000)
    with pq.ParquetWriter(tmp_path / "rows.parquet", schema) as writer:
        for n in range(0, 4000, 100):
            flat = pa.array(x[n : n + 100].ravel())
            columns = [pa.FixedSizeListArray.from_arrays(flat, 300), pa.array(label[n : n + 100])]
            writer.write_table(pa.table(columns, schema=schema))

    def rows():
        with pq.ParquetFile(tmp_path / "rows.parquet") as file:
            for group in range(file.num_row_groups):  # iter_batches reads all of them ahead
                (piece,) = file.read_row_group(group).to_batches()
                windows = piece["x"].flatten().to_numpy().reshape(-1, 100, 3)
                yield from zip(windows, piece["label"].to_numpy(), strict=True)

    make = lambda: Model(3, 6, 2, output="last", seed=1)  # noqa: E731
    expected = trained(x.reshape(-1, 100, 3), label, model=make(), batch_size=50, shuffle=False)
    np.testing.assert_array_equal(trained(data.Batched(rows, 50), model=make()), expected)
    of_arrow, before = [], pa.total_allocated_bytes()
    watch = lambda event: of_arrow.append(pa.total_allocated_bytes() - before)  # noqa: E731
    tracemalloc.start()
    try:
        trained(data.Batched(data.Shuffled(rows, 400), 10), model=make(), callbacks=[watch])
        assert tracemalloc.get_traced_memory()[1] < x.nbytes / 2
    finally:
        tracemalloc.stop()
    assert max(of_arrow) < x.nbytes / 4


def windows(pieces, width):
    table = np.empty((0, 3), "float32")
    for piece in pieces:
        table = np.concatenate([table, piece.to_numpy()])
        if len(table) > width:
            x, y = data.windows(table, width)
            yield from zip(x, y[:, 0, :2], strict=True)
            table = table[-width:]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_windows_of_frames_in_pieces(rng, tmp_path, name):
    library = pytest.importorskip(name)
    table = rng.standard_normal((400, 3), "float32")
    x, y = data.windows(table, 20)
    expected = trained(x, y[:, 0, :2], model=make(output="last"), batch_size=32, shuffle=False)
    frame = library.DataFrame({letter: table[:, n] for n, letter in enumerate("abc")})
    if name == "polars":
        pieces = lambda: frame.iter_slices(37)  # noqa: E731
    else:
        frame.to_csv(tmp_path / "table.csv", index=False)
        pieces = lambda: library.read_csv(tmp_path / "table.csv", chunksize=37, dtype="float32")  # noqa: E731
    batches = data.Batched(lambda: windows(pieces(), 20), 32)
    np.testing.assert_array_equal(trained(batches, model=make(output="last")), expected)
