"""Memory maps: arrays larger than memory are looked at a piece at a time.

The pages of a mapped file that a process has looked at count as its memory until the system wants them back, and where
one is looked at, the system may map two megabytes around it. So whoever goes through an array lets the pages behind go
(they stay in the system's cache of files), and batches are read from the file, past the map.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy import memmap, ndarray  # `owner_of` is called for every array that comes in

__all__ = ["Contents", "Rows", "address", "contents_of", "in_pieces", "map_of", "region", "remember"]

AT_ONCE = 1 << 18  # elements that are looked at together
KEPT = 1 << 25  # bytes of maps that may have been looked at before they are let go
WIDEST = 1 << 24  # bytes of a row, with what lies between its numbers, that are read from a file
THINNEST = 64  # so many times as many bytes as the row's own are too much to read
HASHED = 1 << 26  # bytes of an array in a file of ids that are hashed as those in memory are: it takes no time
AROUND = 1 << 20  # bytes that the system maps beside those of a row, most often
MOST_FILES = 64  # that are open beside their maps: a process may have a thousand in all
LET_GO = getattr(mmap, "MADV_DONTNEED", None)  # Windows has none


def owner_of(array) -> np.memmap | None:
    """The memory map of which an array is a view, if it is shared with its file: of a private one (mode "c") pages that
    were written to would be lost."""
    while isinstance(array, ndarray):
        if isinstance(array, memmap):
            return array if array.mode in ("r", "r+", "w+") and array._mmap is not None else None
        array = array.base
    return None


def map_of(array) -> mmap.mmap | None:
    """The map in which an array lies, as `owner_of` has it."""
    owner = owner_of(array)
    return None if owner is None else owner._mmap


def address(array) -> int:
    """Of the first element."""
    return array.__array_interface__["data"][0]


def in_pieces(array) -> Iterator[tuple[slice, ...]]:
    """Where its pieces are, in C order, of about AT_ONCE elements each: slices of the first axis or, where a row has
    more, of the first two. What was looked at of a memory map is let go behind them."""
    found = map_of(array)
    if found is None and array.size <= AT_ONCE:
        if len(array):
            yield (slice(0, len(array)),)
        return
    row, seen = array[:1].size, 0
    rows = max(1, AT_ONCE // max(1, row))
    if found is not None:  # what lies far apart is a piece of its own
        rows = max(1, min(rows, KEPT // max(1, abs(array.strides[0]))))
    steps = None if row <= AT_ONCE or array.ndim == 1 else max(1, AT_ONCE // max(1, array[:1, :1].size))
    for start in range(0, len(array), rows):
        for first in (0,) if steps is None else range(0, array.shape[1], steps):
            piece = (slice(start, start + rows),) + (() if steps is None else (slice(first, first + steps),))
            yield piece
            seen += 0 if found is None else extent(array[piece])
            if seen > KEPT:
                seen = let_go([found])
    if found is not None and len(found) > KEPT:
        let_go([found])


def extent(array) -> int:
    """How many bytes there are from its first number to the end of its last."""
    if not array.size:
        return 0
    return sum((n - 1) * abs(stride) for n, stride in zip(array.shape, array.strides, strict=True)) + array.itemsize


def let_go(maps) -> int:
    """All pages of some maps; returns 0, as many as are left."""
    if LET_GO is not None:
        for found in maps:
            found.madvise(LET_GO)
    return 0


# --- batches ----------------------------------------------------------------------------------------------------------


class File:
    """An open file, closed with its last user."""

    def __init__(self, number, name):
        self.number, self.name = number, name

    def __del__(self, close=os.close):
        close(self.number)


class Source(NamedTuple):
    """What can be read past a map."""

    file: File
    start: int  # in memory, where the map begins
    offset: int  # in the file


class Rows:
    """Batches of rows of some arrays, or lists of arrays, that may lie in maps; nothing special where these are
    small."""

    def __init__(self, arrays):
        owners = {}
        for array in arrays:
            for row in array if isinstance(array, list) else [array]:
                owner = owner_of(row)
                if owner is not None:
                    owners.setdefault(id(owner._mmap), owner)
        self.maps, self.sources = {}, {}
        self.touched, self.bytes = {}, 0  # maps, and of them, since they were let go
        if owners and sum(len(owner._mmap) for owner in owners.values()) > KEPT:
            self.maps = {key: owner._mmap for key, owner in owners.items()}
            self.sources = opened(list(owners.values())[:MOST_FILES])

    def take(self, array, rows, steps=None) -> np.ndarray:
        """array[rows, steps], or array[rows]. rows : an index array or a slice."""
        place = rows if steps is None else (rows, steps)
        if not self.maps:
            return array[place]
        key = id(map_of(array))
        if key not in self.maps or not len(array):
            return array[place]
        one = np.asarray(array[0] if steps is None else array[0, steps])
        numbers = range(*rows.indices(len(array))) if isinstance(rows, slice) else rows
        source = self.sources.get(key)
        size = extent(one)
        if source is None or size > min(WIDEST, THINNEST * one.nbytes) or min(one.strides, default=0) < 0:
            self.look_at(self.maps[key], len(numbers) * (size + AROUND))
            return array[place]
        out = np.empty((len(numbers), *one.shape), array.dtype)
        begin = address(array if steps is None else array[:, steps]) - source.start + source.offset
        whole = None if one.flags.c_contiguous else np.empty(size, np.uint8)  # with what lies between
        for n, row in zip(numbers, out.reshape(len(out), one.size), strict=True):
            read_into(row if whole is None else whole, source.file, begin + int(n) * array.strides[0])
            if whole is not None:
                row[:] = np.ndarray(one.shape, one.dtype, whole, 0, one.strides).reshape(-1)
        return out

    def steps(self, row, places) -> np.ndarray:
        """row[places], of one row and an index array that rises."""
        if not self.maps or not len(places):
            return row[places]
        first = int(places[0])
        return self.take(row[None], slice(0, 1), slice(first, int(places[-1]) + 1))[0][places - first]

    def look_at(self, found, size) -> None:
        """Let a map know that so many bytes of it will be looked at."""
        if self.bytes > KEPT:
            self.touched, self.bytes = {}, let_go(self.touched.values())
        self.touched[id(found)] = found
        self.bytes += min(size, len(found))


def read_into(row, file, offset) -> None:
    """Fill an array (N,) with what stands in a file. OSError where that is not as long any more."""
    view = memoryview(row).cast("B") if row.size else memoryview(b"")
    while len(view):
        count = os.preadv(file.number, [view], offset)
        if not count:
            raise OSError(f"{file.name}: expected the file as it was when it was mapped, got one that is cut short")
        view, offset = view[count:], offset + count


def opened(owners) -> dict[int, Source]:
    """The files of maps, by the id of each map; those that are surely the same, as Linux tells."""
    sources, lines = {}, None
    for owner in owners:
        found, known = owner._mmap, contents_of(owner)
        if known is not None and hasattr(os, "preadv"):
            sources[id(found)] = Source(known.file, known.whole[0], known.offset)
            continue
        if lines is None:
            lines = mappings()
        start = address(np.frombuffer(found, np.uint8, 1))
        begin, offset, device, inode = next((line[:1] + line[2:] for line in lines if line[0] <= start < line[1]),
                                            (0, 0, None, None))  # fmt: skip
        if inode is None or owner.filename is None:
            continue
        try:
            file = File(os.open(owner.filename, os.O_RDONLY | os.O_CLOEXEC), owner.filename)
        except OSError:  # it may have been removed, and the map be all that is left
            continue
        status = os.fstat(file.number)
        if (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino) == (*device, inode):
            sources[id(found)] = Source(file, start, offset + start - begin)
    return sources


def mappings() -> list[tuple]:
    """(start, end, offset, device, inode) of each file that is mapped; none where no /proc tells."""
    if not hasattr(os, "preadv"):
        return []
    try:
        with open("/proc/self/maps") as file:
            fields = [line.split(maxsplit=5) for line in file]
    except OSError:
        return []
    return [(*(int(end, 16) for end in span.split("-")), int(offset, 16),
             tuple(int(part, 16) for part in device.split(":")), int(inode))
            for span, _, offset, device, inode, *_ in fields if inode != "0"]  # fmt: skip


# --- files of ids -----------------------------------------------------------------------------------------------------


class Contents(NamedTuple):
    """What is known of a file of ids, without looking at all of it."""

    digest: str  # differs for different ids
    size: int  # all of them are in 0..size-1
    whole: tuple[int, int]  # where in memory they begin, and how many there are
    file: File
    offset: int  # where in it they begin


_contents = weakref.WeakKeyDictionary()  # of maps


def remember(ids: np.memmap, digest: str, size: int, file) -> None:
    """Keep what is known of the ids in a map of an open file, as long as there is the map."""
    kept = File(os.dup(file.fileno()), file.name)
    _contents[map_of(ids)] = Contents(digest, size, (address(ids), len(ids)), kept, ids.offset)


def contents_of(array) -> Contents | None:
    """Of the file in which an array, or what it is a view of, lies; None where nothing is known."""
    found = map_of(array)
    return None if found is None else _contents.get(found)


def region(array) -> str | None:
    """What stands for the numbers of a large array in a map of known contents, and differs for different ones."""
    known = contents_of(array)
    if known is None or array.nbytes < HASHED:
        return None
    return f"{known.digest} from {address(array) - known.whole[0]}, {array.dtype.str} {array.shape} by {array.strides}"
