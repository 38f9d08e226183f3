"""Data: from files, texts and series to the arrays that a model takes.

Nothing here copies a long text: splits, targets and streams are views, so they work on a memory map as well.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from cylstm.checks import as_generator, as_ids, describe, path_name, plain_array, positive_int, real_in
from cylstm.vocab import BLOCK, Vocabulary

__all__ = [
    "Vocabulary",
    "an_bn",
    "batches_by_length",
    "encode_file",
    "manual",
    "next_token",
    "one_hot",
    "pad",
    "read_text",
    "side_by_side",
    "split",
    "streams",
    "windows",
]


def manual() -> str:
    """The manual that ships inside every Python (`pydoc_data.topics`): about 460 kB of English prose and examples.

    The topics follow each other in the order of their names, each under its own; the text depends on nothing but the
    version of Python.
    """
    from pydoc_data.topics import topics

    return "\n\n".join(f"{name}\n\n{topics[name].strip()}" for name in sorted(topics)) + "\n"


def read_text(path, block: int = BLOCK) -> Iterator[str]:
    """The text of a UTF-8 file in pieces of at most `block` bytes; a byte order mark at its start is left out.

    Raises ValueError for a file that is empty or not UTF-8 (naming the offset of the first wrong byte), OSError for one
    that cannot be read.
    """
    path, block = path_name("path", path), positive_int("block", block)
    decoder = codecs.getincrementaldecoder("utf-8")()
    read, empty = 0, True
    with open(path, "rb") as file:
        while True:
            data = file.read(block)
            start = read - len(decoder.getstate()[0])  # the decoder may hold the first bytes of a character back
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                byte, offset = error.object[error.start], start + error.start
                raise ValueError(f"{path}: expected UTF-8 text, got byte 0x{byte:02x} at offset {offset}") from None
            if start == 0:
                text = text.removeprefix("\ufeff")
            if text:
                empty = False
                yield text
            if not data:
                break
            read += len(data)
    if empty:
        raise ValueError(f"{path}: expected text, got an empty file")


def encode_file(path, level="char", *, vocabulary=None, max_size=None, min_count=1, folder=None):
    """The ids of a text file of any size, in bounded memory: (ids, vocabulary).

    path : a file in UTF-8 (at level "byte", any file). It is read twice, or once where `vocabulary` is given.
    level, max_size, min_count : how the vocabulary is built where none is given (`Vocabulary.from_stream`).
    folder : where the ids are kept, in a file without a name that vanishes with the array (default: the system's
        folder for temporary files).

    ids: read-only np.memmap (N,) of the smallest unsigned integer type.

    Raises ValueError for a file that is empty, not UTF-8, a pipe where it would be read twice, a device, or has
    characters outside the vocabulary; OSError for one that cannot be read, or where there is no room for the ids.
    """
    path = path_name("path", path)
    mode = os.stat(path).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{path}: expected a file, got a device")
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        raise TypeError(f"vocabulary: expected a Vocabulary or None, got {describe(vocabulary)}")
    if vocabulary is None:
        if stat.S_ISFIFO(mode):
            raise ValueError(f"{path}: expected a file, which can be read twice, got a pipe")
        blocks = () if level == "byte" else read_text(path)
        vocabulary = Vocabulary.from_stream(blocks, level, max_size=max_size, min_count=min_count)
    blocks = _read_bytes(path) if vocabulary.level == "byte" else read_text(path)
    import tempfile  # 15 ms: `import cylstm` has 15

    folder = tempfile.gettempdir() if folder is None else folder
    with tempfile.TemporaryFile(dir=folder, prefix="cylstm-") as file:
        with contextlib.closing(blocks):  # an error leaves the text's file open otherwise
            for ids in vocabulary.encode_stream(blocks, name=path):
                try:
                    file.write(ids)
                    file.flush()
                except OSError as error:  # of a file without a name
                    raise OSError(error.errno, error.strerror, folder) from None
        return np.memmap(file, vocabulary.dtype, mode="r"), vocabulary


def _read_bytes(path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        data = file.read(BLOCK)
        if not data:
            raise ValueError(f"{path}: expected text, got an empty file")
        while data:
            yield data
            data = file.read(BLOCK)


def one_hot(ids, size: int, dtype="float32") -> np.ndarray:
    """Ids of any shape as rows with a single 1: (...,) -> (..., size).

    A model takes ids as they are and never needs this; it is here for other tools and for reading.
    Raises TypeError for non-integers, ValueError for ids outside 0..size-1.
    """
    ids = as_ids("ids", ids, positive_int("size", size))
    rows = np.zeros((*ids.shape, size), dtype)
    np.put_along_axis(rows, ids[..., None], 1, axis=-1)
    return rows


def split(data, fractions=(0.9, 0.05, 0.05), *, seed=None) -> tuple:
    """Parts of `data`, one for each fraction (training, validation and test by default), together all of it.

    data : an array, split along its first axis into views, or a list of sequences.
    seed : None keeps the order, as a text or a series needs it; an integer shuffles first, as independent sequences
        want it (the same seed and length give the same order, so that inputs and targets can be split one after the
        other).

    Raises ValueError for fractions that are negative or do not add up to 1, and for a part that would be empty.
    """
    if not hasattr(data, "__len__") or getattr(data, "ndim", 1) == 0:
        raise TypeError(f"data: expected an array or a list of sequences, got {describe(data)}")
    if not isinstance(fractions, Iterable):
        raise TypeError(f"fractions: expected one number for each part, got {describe(fractions)}")
    fractions = [real_in("fractions", fraction, 0, 1) for fraction in fractions]
    if abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions: expected a sum of 1, got {sum(fractions):g}")
    ends = np.rint(np.cumsum(fractions) * len(data)).astype(int).tolist()
    bounds = list(zip([0, *ends[:-1]], ends, strict=True))
    for fraction, (start, end) in zip(fractions, bounds, strict=True):
        if fraction and start == end:
            raise ValueError(f"data: expected enough elements for a part of {fraction:g}, got {len(data)} in all")
    if seed is None:
        return tuple(data[start:end] for start, end in bounds)
    order = as_generator("seed", seed).permutation(len(data))
    if isinstance(data, np.ndarray):
        return tuple(data[order[start:end]] for start, end in bounds)
    return tuple([data[i] for i in order[start:end]] for start, end in bounds)


def next_token(ids) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and their targets, the next tokens: (..., N) -> x (..., N-1), y (..., N-1) with y[..., t] = x[..., t+1].

    Both are views. Raises ValueError for fewer than 2 tokens (one step and its target).
    """
    ids = np.asanyarray(ids)
    if ids.ndim == 0 or ids.shape[-1] < 2:
        raise ValueError(f"ids: expected at least 2 tokens (one step and its target), got {describe(ids)}")
    return ids[..., :-1], ids[..., 1:]


def streams(ids, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One long text as `count` parallel streams: ids (N,) -> x (count, T), y (count, T), with T = (N-1) // count.

    Stream s holds the tokens from s*T on, y is one token further. Both are views; at most count-1 tokens at the end are
    in no stream. Raises ValueError for a text with fewer than count+1 tokens, TypeError for a count that is no integer.
    """
    ids = np.asanyarray(ids)
    count = positive_int("count", count)
    if ids.ndim != 1 or len(ids) <= count:
        raise ValueError(f"ids: expected (N,) with N > {count}, one step and target per stream, got {describe(ids)}")
    steps = (len(ids) - 1) // count
    used = count * steps
    return ids[:used].reshape(count, steps), ids[1 : used + 1].reshape(count, steps)


def pad(sequences: Sequence, dtype=None) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of different lengths as one array: B arrays (T_b, ...) -> x (B, T, ...) padded with 0, lengths (B,).

    Raises ValueError for no sequences, empty ones, and ones that differ in more than their length.
    """
    arrays = as_sequences(sequences)
    lengths = np.array([len(array) for array in arrays])
    tail = arrays[0].shape[1:]
    x = np.zeros((len(arrays), lengths.max(), *tail), np.result_type(*arrays) if dtype is None else dtype)
    for row, array in zip(x, arrays, strict=True):
        row[: len(array)] = array
    return x, lengths


def as_sequences(sequences) -> list[np.ndarray]:
    """Arrays (T_b, ...), T_b >= 1, that differ in nothing but their length. Raises as `pad` does."""
    if not isinstance(sequences, Iterable):
        raise TypeError(f"sequences: expected a list of arrays, got {describe(sequences)}")
    arrays = [plain_array(f"sequences[{b}]", sequence) for b, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("sequences: expected at least one sequence, got none")
    tail = arrays[0].shape[1:]
    for b, array in enumerate(arrays):
        if array.ndim == 0 or len(array) == 0 or array.shape[1:] != tail:
            expected = ", ".join(["T >= 1", *map(str, tail)])
            raise ValueError(f"sequences[{b}]: expected ({expected}), got {describe(array)}")
    return arrays


def batches_by_length(lengths, batch_size: int, rng=None) -> list[np.ndarray]:
    """Batches of sequences of similar length, so that little is padded: a list of index arrays, each index once.

    lengths : (N,) integers >= 1. Each batch is ordered by falling length; all but one have `batch_size` elements.
    rng : a seed or numpy Generator draws which of the equally long sequences come together, and the order of the
        batches; None leaves both as they are, the longest first.
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.min(initial=1) < 1:
        raise ValueError(f"lengths: expected (N,) integers >= 1, got {describe(lengths)}")
    batch_size = positive_int("batch_size", batch_size)
    generator = None if rng is None else as_generator("rng", rng)
    order = np.arange(len(lengths)) if generator is None else generator.permutation(len(lengths))
    order = order[np.argsort(-lengths[order].astype(np.int64), kind="stable")]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if generator is not None:
        generator.shuffle(batches)
    return batches


def windows(series, width: int, horizon: int = 1, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a series and what follows each: (N,) or (N, F) -> x (M, width, F), y (M, horizon, F), read-only views.

    Window m begins at step m*stride; y[m] are the `horizon` steps after it. F is 1 for a series (N,). They train a
    `Model(F, H, horizon * F, output="last")`, whose predictions are (M, horizon * F).
    Raises ValueError for a series shorter than width + horizon, TypeError for sizes that are not integers.
    """
    series = plain_array("series", series)
    width, horizon = positive_int("width", width), positive_int("horizon", horizon)
    stride = positive_int("stride", stride)
    if series.ndim not in (1, 2) or len(series) < width + horizon:
        raise ValueError(f"series: expected (N,) or (N, F) with N >= {width + horizon}, got {describe(series)}")
    table = series if series.ndim == 2 else series[:, None]
    both = np.lib.stride_tricks.sliding_window_view(table, width + horizon, axis=0)[::stride].swapaxes(1, 2)
    return both[:, :width], both[:, width:]


def side_by_side(vocabulary: Vocabulary, inputs, targets, predicted) -> Iterator[str]:
    """Lines that show input, target and predicted tokens beside each other, and where the prediction is right.

    inputs, targets, predicted : ids (N,) each. Raises ValueError where their lengths differ.
    """
    yield f"{'input':<20}  {'target':<20}  {'predicted':<20}"
    for row in zip(inputs, targets, predicted, strict=True):
        tokens = (repr(vocabulary.tokens[i]) for i in row)
        columns = "  ".join(f"{token if len(token) <= 20 else token[:17] + '...':<20}" for token in tokens)
        yield columns + ("  =" if row[1] == row[2] else "")


def an_bn(sizes) -> list[str]:
    """The strings a^n b^n, one for each n >= 1 in `sizes`: a language that no finite automaton accepts.

    From the first b on every next token is determined, the end included (Gers & Schmidhuber 2001).
    """
    if not isinstance(sizes, Iterable):
        raise TypeError(f"sizes: expected a list of integers, got {describe(sizes)}")
    return ["a" * n + "b" * n for n in (positive_int("sizes", size) for size in sizes)]
