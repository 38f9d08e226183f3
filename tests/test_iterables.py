"""Rows in a random order by a buffer, and gathered into batches."""

import itertools
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from tasks import V

from cylstm import Model, data
from cylstm.iterables import one_shot, opened, size_of


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
    rows = [(n, n) for n in range(10)]
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


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: data.Shuffled(3, 2), TypeError, "items: expected an iterable or a function that returns one, got int 3"),
    (lambda: data.Shuffled([1], 0), ValueError, "size: expected an integer >= 1, got 0"),
    (lambda: data.Shuffled([1], 2, seed=-1), ValueError, "seed: expected an integer >= 0, got -1"),
    (lambda: data.Shuffled([1], 2).set_epoch(1.5), TypeError, "epoch: expected an integer, got float 1.5"),
    (lambda: data.Batched(None, 2), TypeError, "rows: expected an iterable or a function that returns one, got None"),
    (lambda: data.Batched([1], 2.0), TypeError, "batch_size: expected an integer, got float 2.0"),
    (lambda: data.Batched(lambda: 3, 2), TypeError, "rows: expected a function that returns an iterator, got one that"),
    (lambda: data.Batched([(1, 2), 3], 1), ValueError, r"rows\[1\]: expected \(x, y\), \(x, y, length\) or a dict of"),
    (lambda: data.Batched([dict(x=1, y=2, state=3)], 1), ValueError, r"rows\[0\]: expected .*got dict"),
    (lambda: data.Batched([(1, 2)] * 4 + [(1, 2, 3)], 3), ValueError, r"rows\[4\]: expected x, y, as in rows\[3\], go"),
    (lambda: data.Batched([(1, np.ma.masked_array([2]))], 3), TypeError, r"rows\[0\]: expected an array without a"),
    (lambda: data.Shuffled([3, np.ma.masked_array([2])], 3), TypeError, r"items\[1\]: expected an array without"),
])  # fmt: skip
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        list(make())
