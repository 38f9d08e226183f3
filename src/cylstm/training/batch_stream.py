"""Batches that come one by one, from whatever can be gone through: each is checked as it comes, then forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from cylstm.checks import describe
from cylstm.iterables import can_be_opened, one_shot, opened, size_of, tell_epoch
from cylstm.training.dataset import Dataset
from cylstm.training.targets import counting_of, options_by_head

__all__ = ["Stream", "are_batches", "data_of", "named_parts"]

PARTS = ("x", "y", "lengths", "mask", "resets", "state", "sample_weight")


def named_parts(name, given) -> dict:
    """(x, y), (x, y, lengths) or a dict of those and others, as a dict. Raises ValueError."""
    if isinstance(given, (tuple, list)) and len(given) in (2, 3):
        return dict(zip(PARTS, given, strict=False))
    if isinstance(given, Mapping) and {"x", "y"} <= set(given) <= set(PARTS):
        return dict(given)
    shown = f"one of {', '.join(map(str, given))}" if isinstance(given, Mapping) else describe(given)
    raise ValueError(
        f"{name}: expected (x, y), (x, y, lengths) or a dict of x, y and {', '.join(PARTS[2:])}, got {shown}"
    )


def are_batches(given) -> bool:
    """Whether it is gone through for batches, and no batch itself: a list of tuples or dicts, what is no list, array,
    tuple, dict or text and can be gone through, or a function."""
    if isinstance(given, list):
        return bool(given) and all(isinstance(item, (tuple, Mapping)) for item in given)
    return can_be_opened(given) and not (is_array(given) or isinstance(given, (tuple, Mapping, str, bytes)))


def is_array(value) -> bool:
    """Of any library's."""
    return hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def data_of(model, x, y, lengths=None, *, mask=None, resets=None, state=None, sample_weight=None, class_weight=None,
            ignore=None, missing="error") -> Dataset | Stream:  # fmt: skip
    """The Dataset of arrays or, without y, the Stream of the batches x, to which nothing but what counts is added."""
    parts = dict(lengths=lengths, mask=mask, resets=resets, state=state, sample_weight=sample_weight)
    counts = dict(class_weight=class_weight, ignore=ignore, missing=missing)
    if y is not None:
        return Dataset(model, x, y, **parts, **counts)
    if is_array(x) or (isinstance(x, (list, tuple)) and x and all(map(is_array, x))):
        raise TypeError("y: expected targets beside x, or batches (x, y) in the place of x, got None")
    for name, given in parts.items():
        if given is not None:
            raise ValueError(f"{name}: expected None beside batches, each of which has its own, got {describe(given)}")
    return Stream(model, x, **counts)


class Item(Dataset):
    """One batch, in which nothing has to count."""

    def _expect_something_to_count(self):
        pass


class Stream:
    """Batches (x, y), (x, y, lengths) or dicts, from an iterable or from a function that returns one.

    class_weight, ignore, missing : as for `fit`, of every batch. name : what errors call the whole.
    Raises TypeError or ValueError, naming the argument; when it is gone through, those of `Dataset` with the number of
    the batch before them, from 0, and whatever the iterable raises.
    """

    def __init__(self, model, batches, *, class_weight=None, ignore=None, missing="error", name="batches"):
        if isinstance(batches, (str, bytes, Mapping)) or not can_be_opened(batches):
            raise TypeError(f"{name}: expected an iterable of (x, y), (x, y, lengths) or dicts, or a function that "
                            f"returns one, got {describe(batches)}")  # fmt: skip
        of_heads = class_weight.values() if isinstance(class_weight, Mapping) else [class_weight]
        if any(isinstance(given, str) for given in of_heads):
            raise ValueError("class_weight: expected a dict or None with batches, which nobody has counted, "
                             f"got {class_weight!r}")  # fmt: skip
        self.model, self.source, self.name = model, batches, name
        self.counts = dict(class_weight=class_weight, ignore=ignore, missing=missing)
        for key, options in options_by_head(model.heads, "", missing, class_weight=class_weight, ignore=ignore).items():
            counting_of(model.heads[key], **options)

    def expect_epochs(self, epochs) -> None:
        """ValueError where the batches cannot be gone through so often."""
        once = one_shot(self.source)
        if once is not None and epochs > 1:
            raise ValueError(
                f"{self.name}: expected what can be gone through {epochs} times, once per epoch (a function that "
                f"returns a new iterator, a list, a DataLoader), got a {once}, which ends with the first")  # fmt: skip

    def fingerprint(self) -> str:
        """What is known before the batches come: which targets count, and how much."""
        return f"batches, {self.counts}"

    @property
    def known_length(self) -> bool:
        """Whether len() says how many batches there are."""
        return size_of(self.source) is not None

    def updates(self, epoch, position, accumulate) -> tuple[int | None, Iterator]:
        """How many updates an epoch has, by len(), and those from `position` on: iterators of `accumulate` Items each,
        which are read one by one. Nothing is opened before the first is asked for."""
        size = size_of(self.source)
        return None if size is None else -(-size // accumulate), self._groups(epoch, position, accumulate)

    def _groups(self, epoch, position, accumulate):
        tell_epoch(self.source, epoch)
        least = (position - 1) * accumulate + 1 if position else 0  # the last update of an epoch may have fewer
        items = self._items(position * accumulate, least)
        for item in items:
            yield chain([item], islice(items, accumulate - 1))

    def pieces(self, batch_size) -> Iterator[tuple[Item, list]]:
        """Each Item and some of its rows, as `Dataset.pieces` gives them."""
        for item in self._items():
            yield from item.pieces(batch_size)

    def part(self, item):
        """All of an Item's rows, in their order."""
        return item.part(slice(None))

    def _items(self, skip=0, least=0):
        items = opened(self.source, self.name)
        skipped = sum(1 for _ in islice(items, skip))
        if skipped < least:
            raise ValueError(f"{self.name}: expected at least {least}, as many as were taken before the run was broken "
                             f"off, got {skipped}")  # fmt: skip
        number = skip - 1
        for number, given in enumerate(items, skip):
            yield self._item(number, given)
        if number < 0:
            raise ValueError(f"{self.name}: expected at least one batch in each epoch, got none")

    def _item(self, number, given):
        place = f"{self.name}[{number}]"
        parts = named_parts(place, given)
        try:
            return Item(self.model, **parts, **self.counts)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError  # some of NumPy's take other arguments
            raise kind(f"{place}: {error}") from None
