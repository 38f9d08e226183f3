"""Rows in a random order by a buffer, and gathered into batches."""

import itertools
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from tasks import V

from cylstm import Head, Model, data
from cylstm.iterables import one_shot, opened, size_of
from cylstm.labels import plain


def test_the_buffer_gives_each_item_once_none_of_them_too_early():
    """What comes out in place p was among the first p + size that came in."""
    items = list(range(100))
    shuffled = data.Shuffled(items, 16, seed=5)
    orders = []
    for epoch in (0, 1, 0):
        shuffled.set_epoch(epoch)
        order = list(shuffled)
        assert sorted(order) == items and order == list(shuffled)
        assert all(item < place + 16 for place, item in enumerate(order))
        assert max(place - item for place, item in enumerate(order)) > 16  # some stay in the buffer for long
        orders.append(order)
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != list(data.Shuffled(items, 16, seed=6))
    assert list(data.Shuffled(items, 1)) == items
    assert len(shuffled) == 100 and list(data.Shuffled([], 3)) == []
    assert list(pickle.loads(pickle.dumps(shuffled))) == orders[0]


@pytest.mark.parametrize(("size", "count"), [(4, 4), (9, 4), (2, 3), (3, 5)])
def test_every_order_is_as_likely_as_it_should_be(size, count):
    """All of them alike where the buffer holds all; of a small one, as enumeration says."""
    expected = Counter()

    def go_on(buffer, left, order, share):
        if left and len(buffer) < size:
            go_on([*buffer, left[0]], left[1:], order, share)
        elif left:
            for n, item in enumerate(buffer):
                go_on([*buffer[:n], left[0], *buffer[n + 1 :]], left[1:], (*order, item), share / size)
        else:
            rest = list(itertools.permutations(buffer))
            expected.update({(*order, *one): share / len(rest) for one in rest})

    go_on([], list(range(count)), (), 1.0)
    if size >= count:
        assert len(expected) == 24 and max(expected.values()) == pytest.approx(1 / 24)
    shuffled, found, runs = data.Shuffled(range(count), size), Counter(), 3000
    for epoch in range(runs):
        shuffled.set_epoch(epoch)
        found[tuple(shuffled)] += 1
    assert found.keys() <= expected.keys()
    for order, share in expected.items():
        assert abs(found[order] - runs * share) < 5 * np.sqrt(runs * share), order


def test_the_source_may_write_again_to_what_it_gave():
    def rows():
        x = np.empty((3, 2))
        for n in range(7):
            x[...] = n + np.arange(6).reshape(3, 2) / 10
            yield {"x": x, "y": x[0, 1:], "sample_weight": x[1, 0]}

    for source in (rows, data.Shuffled(rows, 4)):
        found = list(data.Batched(source, 3))
        assert [len(batch["x"]) for batch in found] == [3, 3, 1]
        x, y, weights = (np.concatenate([batch[name] for batch in found]) for name in ("x", "y", "sample_weight"))
        assert sorted(x[:, 0, 0]) == list(range(7))
        np.testing.assert_array_equal(y[:, 0], x[:, 0, 1])
        np.testing.assert_array_equal(weights, x[:, 1, 0])


def test_a_row_in_the_buffer_keeps_no_more_than_itself():
    """One row in a hundred of a chunk of 80 kB: as views, 50 of them would keep 4 MB."""

    def rows():
        for n in range(200):
            yield np.full((100, 100), n, float)[n % 100], n

    tracemalloc.start()
    try:
        assert sum(1 for _ in data.Shuffled(rows, 50)) == 200
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()


def test_rows_become_arrays_or_lists(rng):
    x, y = rng.standard_normal((5, 4, 3)), rng.integers(0, 2, 5)
    batches = list(data.Batched(zip(x, y, strict=True), 2))
    assert [type(part) for part in batches[0]] == [np.ndarray] * 2
    np.testing.assert_array_equal(np.concatenate([part for part, _ in batches]), x)
    np.testing.assert_array_equal(np.concatenate([part for _, part in batches]), y)
    ragged = [(np.arange(n), list(range(1, n + 1))) for n in (2, 5, 3, 3)]
    first, second = data.Batched(ragged, 2)
    assert [row.tolist() for row in first[0]] == [[0, 1], [0, 1, 2, 3, 4]] and isinstance(first[1], list)
    assert second[1].tolist() == [[1, 2, 3], [1, 2, 3]]
    (x, y, lengths), *_ = data.Batched([(row, row, n) for n, row in enumerate(np.arange(12).reshape(3, 4), 2)], 3)
    assert x.shape == (3, 4) and lengths.tolist() == [2, 3, 4]
    rows = [dict(x=row, y=row, mask=row > 1) for row in (np.arange(3), np.arange(5))]
    (batch,) = data.Batched(rows, 9)
    model = Model(V, 6, V, seed=1)
    together = dict(zip(("x", "y", "mask"), zip(*(row.values() for row in rows), strict=True), strict=True))
    assert model.evaluate([batch]) == model.evaluate(**{name: list(part) for name, part in together.items()})


def test_how_many_there_are_is_known_where_the_source_knows_it():
    rows = [([n], n) for n in range(10)]
    assert len(data.Batched(rows, 3)) == 4 and len(data.Batched(data.Shuffled(rows, 5), 5)) == 2
    for unknown in (lambda: rows, iter(rows)):
        assert size_of(data.Batched(data.Shuffled(unknown, 3), 3)) is None
        assert len(list(data.Batched(data.Shuffled(unknown, 3), 3))) == 4
    assert one_shot(data.Batched(data.Shuffled(zip(rows), 2), 3)) == "zip"
    assert one_shot(data.Batched(data.Shuffled(lambda: zip(rows), 2), 3)) is None is one_shot(rows)


class ByNumber:
    """As a map-style data set of PyTorch's."""

    def __getitem__(self, n):
        if n == 3:
            raise IndexError
        return n


class NeverAsked:
    def __iter__(self):
        raise AssertionError("nobody is to ask for an iterator that is not gone through")


def test_whatever_can_be_gone_through():
    assert list(opened(ByNumber(), "x")) == list(opened(ByNumber, "x")) == [0, 1, 2]
    assert list(opened(lambda: iter("ab"), "x")) == ["a", "b"]
    rows = data.Batched(data.Shuffled(NeverAsked(), 3), 2)
    rows.set_epoch(4)
    assert size_of(rows) is None is one_shot(rows)


def test_targets_of_several_heads_are_gathered_by_head(rng):
    heads = {"kind": Head(4), "end": Head(2, loss="mse", output="last"), "said": Head(5, loss="ctc")}
    model = Model(V, 6, heads, dtype="float64", seed=1)
    lengths = [4, 7, 4]
    rows = [dict(x=rng.integers(0, V, n), y=dict(kind=rng.integers(0, 4, n), end=rng.random(2), said=[1, n % 3 + 1]),
                 sample_weight=dict(kind=rng.random(n), end=rng.random(), said=rng.random()))
            for n in lengths]  # fmt: skip
    (batch,) = data.Batched(rows, 3)
    assert {name: type(part) for name, part in batch["y"].items()} == dict(kind=list, end=np.ndarray, said=np.ndarray)
    expected = {name: [row["y"][name] for row in rows] for name in heads}
    weights = {name: [row["sample_weight"][name] for row in rows] for name in heads}
    expected["end"] = np.array(expected["end"])
    weights["end"], weights["said"] = np.array(weights["end"]), np.array(weights["said"])
    together = model.evaluate([row["x"] for row in rows], expected, sample_weight=weights)
    assert model.evaluate([batch]) == together
    assert len(model.fit(data.Batched(data.Shuffled(rows, 2), 2), epochs=2, progress=False)) == 2


def test_resets_of_rows_of_different_lengths_end_with_them(rng):
    rows = [dict(x=rng.integers(0, V, n), y=rng.integers(0, V, n), resets=rng.random(n) < 0.4) for n in (5, 8, 3)]
    (batch,) = data.Batched(rows, 3)
    assert batch["resets"].shape == (3, 8) and batch["resets"].dtype == bool
    for found, row in zip(batch["resets"], rows, strict=True):
        np.testing.assert_array_equal(found[: len(row["resets"])], row["resets"])
        assert not found[len(row["resets"]) :].any()
    model = Model(V, 6, V, dtype="float64", seed=1)
    alone = [model.evaluate(row["x"][None], row["y"][None], resets=row["resets"][None]) for row in rows]
    mean = sum(one["loss"] * len(row["x"]) for one, row in zip(alone, rows, strict=True)) / 16
    assert model.evaluate([batch])["loss"] == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("given", [["yes", 0, "no"], [1, "1", 2.5], [b"a", "a"], [[0, "yes"], ["no", 0]],
                                   [np.array([3, 0]), np.array(["yes", "no"])],
                                   [np.int64(-1), np.uint64(2**63 + 1)]])  # fmt: skip
def test_labels_stay_what_they_are(given):
    ((_, y),) = data.Batched([([n, 1], label) for n, label in enumerate(given)], 9)
    as_they_are = [row.tolist() if isinstance(row, np.ndarray) else row for row in given]
    assert repr(y.tolist()) == repr([*map(plain, as_they_are)])


def test_a_model_knows_them(rng):
    model = Model(V, 6, 3, labels=["yes", 0, "0"], seed=1)
    x, y = rng.integers(0, V, (4, 5)), [["yes"] * 5, [0, "0", "yes", 0, 0], [0] * 5, ["0"] * 5]
    assert model.evaluate(data.Batched(zip(x, y, strict=True), 4)) == model.evaluate(x, y)
    plain_one = Model(V, 6, 3, seed=1)
    ids = [[["yes", 0, "0"].index(label) for label in row] for row in y]
    assert plain_one.evaluate(x, ids)["loss"] == model.evaluate(x, y)["loss"]


def test_a_row_may_be_empty():
    ((x, y),) = data.Batched([([], []), ([3, 1], [1, 0]), ([], [])], 3)
    assert [row.tolist() for row in x] == [[], [3, 1], []] and [row.tolist() for row in y] == [[], [1, 0], []]


def test_numbers_may_be_whole_in_some_rows():
    ((_, y),) = data.Batched([([1, 2], 3), ([4, 5], 0.5), ([6, 7], True)], 3)
    assert y.dtype == float and y.tolist() == [3, 0.5, 1]


ROWS = [([1, 2], 0), ([3, 4], 1)]


def within_itself():
    row = [1]
    row.append(row)
    return row


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: data.Shuffled(3, 2), TypeError, "items: expected an iterable or a function that returns one, got int 3"),
    (lambda: data.Shuffled([1], 0), ValueError, "size: expected an integer >= 1, got 0"),
    (lambda: data.Shuffled([1], 2, seed=-1), ValueError, "seed: expected an integer >= 0, got -1"),
    (lambda: data.Shuffled([1], 2).set_epoch(1.5), TypeError, "epoch: expected an integer, got float 1.5"),
    (lambda: data.Batched(None, 2), TypeError, "rows: expected an iterable or a function that returns one, got None"),
    (lambda: data.Batched([1], 2.0), TypeError, "batch_size: expected an integer, got float 2.0"),
    (lambda: data.Batched(lambda: 3, 2), TypeError, "rows: expected a function that returns an iterator, got one that"),
    (lambda: data.Batched([([1], 2), 3], 1), ValueError, r"rows\[1\]: expected \(x, y\), \(x, y, length\) or a dict"),
    (lambda: data.Batched([dict(x=1, y=2, state=3)], 1), ValueError, r"rows\[0\]: expected .*got dict"),
    (lambda: data.Batched([([1], 2)] * 4 + [([1], 2, 3)], 3), ValueError, r"rows\[4\]: expected x, y, as in rows\[3\]"),
    (lambda: data.Batched(ROWS, 10**30), ValueError, r"batch_size: expected an integer in 1\.\.\d+, got int 1000"),
    (lambda: data.Batched(np.array(3), 2), TypeError, r"rows: expected an iterable or .*, got int64 \(\)$"),
    (lambda: data.Shuffled(np.array(3), 2), TypeError, r"items: expected an iterable or .*, got int64 \(\)$"),
    (lambda: data.Batched([([1, 2], 3), (4, 5)], 2), TypeError, r"rows\[1\] x: expected \(T,\) ids or \(T, I\) fea"),
    (lambda: data.Batched([([1], 2), (within_itself(), 3)], 2), ValueError, r"rows\[1\]: expected lists within .*none"),
    (lambda: data.Shuffled([within_itself()], 2), ValueError, r"items\[0\]: expected lists within lists, but none wit"),
    (lambda: data.Batched([*ROWS, dict(x=[3], y=4)], 3), TypeError,
     r"rows\[2\]: expected a tuple, as in rows\[0\], got dict {"),
    (lambda: data.Batched([dict(x=[3], y=4), *ROWS], 3), TypeError,
     r"rows\[1\]: expected a dict, as in rows\[0\], got tuple \("),
    (lambda: data.Batched([*ROWS, ([0.5, 1.5], 3)], 3), TypeError,
     r"rows\[2\] x: expected ids, as in rows\[0\], got float64 \(2,\)$"),
    (lambda: data.Batched([([], 0), *ROWS, ([], 0), ([0.5, 1.5], 3)], 9), TypeError,
     r"rows\[4\] x: expected ids, as in rows\[1\], got float64 \(2,\)$"),
    (lambda: data.Batched([([[0.5], [1.5]], 3), ([[1], [2]], 3)], 2), TypeError,
     r"rows\[1\] x: expected features, no ids, as in rows\[0\], got int64 \(2, 1\)$"),
    (lambda: data.Batched([([1], dict(a=1)), ([1], 2)], 2), ValueError,
     r"rows\[1\] y: expected a dict by head, a, got int 2$"),
    (lambda: data.Batched([([1], 2), ([1], dict(a=1))], 2), ValueError,
     r"rows\[0\] y: expected a dict by head, as in the other rows, got int 2$"),
    (lambda: data.Batched([([1], dict(a=1)), ([1], dict(b=1, a=2))], 2), ValueError,
     r"rows\[1\] y: expected a dict by head, a, got b, a$"),
    (lambda: data.Batched([dict(x=[1] * n, y=n, resets=[1] * n) for n in (2, 3)], 2), TypeError,
     r"rows\[0\] resets: expected booleans \(T,\), got int64 \(2,\)$"),
    (lambda: data.Batched([(1, np.ma.masked_array([2]))], 3), TypeError, r"rows\[0\]: expected an array without a"),
    (lambda: data.Shuffled([3, np.ma.masked_array([2])], 3), TypeError, r"items\[1\]: expected an array without"),
])  # fmt: skip
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        list(make())
