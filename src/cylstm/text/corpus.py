"""Texts as a model takes them: from files of any size to ids, and the streams to train on.

Nothing here copies a long text: ids lie in a memory map, and streams are views of it.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator

import numpy as np

from cylstm.checks import describe, flag, one_of, path_name, positive_int
from cylstm.maps import address, contents_of, in_pieces, remember
from cylstm.sequences import streams
from cylstm.text.kept import ids_of
from cylstm.text.vocabulary import BLOCK, LEVELS, Vocabulary

__all__ = [
    "an_bn",
    "encode_file",
    "fingerprint",
    "manual",
    "paragraph_break",
    "read_corpus",
    "read_text",
    "side_by_side",
    "text_streams",
]

NOWHERE = "none"  # in place of a folder
LARGE = 1 << 26  # bytes of a text: the ids of smaller ones are made anew in a second or so


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


def encode_file(path, level="char", *, vocabulary=None, max_size=None, min_count=1, folder=None, unknown="error",
                skipped=None, keep=False):  # fmt: skip
    """The ids of a text file of any size, in bounded memory: (ids, vocabulary).

    path : a file in UTF-8 (at level "byte", any file). It is read twice, or once where `vocabulary` is given.
    level, max_size, min_count : how the vocabulary is built where none is given (`Vocabulary.from_stream`).
    folder : where the ids are kept (default: in the system's folder for temporary files, in a file without a name that
        vanishes with the array; with `keep`, beside the text or, where nothing can be written there, in the user's
        folder for what programs keep, ~/.cache/cylstm).
    unknown, skipped : what becomes of tokens outside a given vocabulary, as for `Vocabulary.encode_stream`.
    keep : keep the ids in a file, PATH.LEVEL.ids, and take them from there when it is of the same vocabulary (or of
        the same options for one) and the text has the same size, times and inode as when it was written. Otherwise it
        is made anew. "Larger than memory" in the manual has the rest.

    ids: read-only np.memmap (N,) of the smallest unsigned integer type; `ids.filename` is its file, if it has a name.

    Raises ValueError for a file that is empty, not UTF-8, a pipe where it would be read twice, a device, or has
    tokens outside the vocabulary (where they are skipped: no others); OSError for one that cannot be read, or where
    there is no room for the ids; with `keep` also ValueError for a text that is written to meanwhile, and where the
    file's name is that of something else.
    """
    text = Text(path, level, vocabulary, {"max_size": max_size, "min_count": min_count}, unknown, skipped)
    return encoded(text, folder, flag("keep", keep))


def encoded(text, folder=None, keep=False, tell=lambda line: None):
    """`encode_file` of a Text. tell : is called with a line where that takes time or room."""
    if keep and text.regular and sys.byteorder == "little":  # as safetensors files are
        found = ids_of(text, folder, tell)
        if found is not None:
            return found
    vocabulary, _ = text.learned()
    import tempfile  # 15 ms: `import cylstm` has 15

    folder = tempfile.gettempdir() if folder is None else folder
    with tempfile.TemporaryFile(buffering=0, dir=folder, prefix="cylstm-") as file:
        most = os.path.getsize(text.path) * vocabulary.dtype.itemsize
        count, digest = text.write(file, vocabulary, folder, most)
        ids = np.memmap(file, vocabulary.dtype, mode="r", shape=(count,))
        remember(ids, digest, len(vocabulary), file)
    return ids, vocabulary


class Text:
    """A file that is to become ids. The arguments are those of `encode_file`."""

    def __init__(self, path, level, vocabulary, options, unknown, skipped):
        self.path = path_name("path", path)
        mode = os.stat(self.path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise ValueError(f"{path}: expected a file, got a device")
        if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a Vocabulary or None, got {describe(vocabulary)}")
        if vocabulary is None and stat.S_ISFIFO(mode):
            raise ValueError(f"{path}: expected a file, which can be read twice, got a pipe")
        self.regular = stat.S_ISREG(mode)
        self.level = one_of("level", level, LEVELS) if vocabulary is None else vocabulary.level
        self.vocabulary = vocabulary  # None for its own, by the options
        self.options = None
        if vocabulary is None:
            self.options = {name: n if n is None else positive_int(name, n) for name, n in options.items()}
        self.unknown, self.skipped = one_of("unknown", unknown, ("error", "skip")), skipped

    @property
    def skips(self) -> bool:
        """Whether some of it may be left out."""
        return self.unknown == "skip" and self.vocabulary is not None

    def learned(self) -> tuple[Vocabulary, int | None]:
        """The vocabulary, and how many ids there will be, None where encoding alone tells."""
        if self.level == "byte":
            vocabulary = self.vocabulary or Vocabulary((), "byte")
            return vocabulary, os.path.getsize(self.path) if self.regular else None
        if self.vocabulary is not None:
            return self.vocabulary, None
        count = 0

        def blocks():
            nonlocal count
            for block in read_text(self.path):
                count += len(block)
                yield block

        vocabulary = Vocabulary.from_stream(blocks(), self.level, **self.options)
        return vocabulary, count if self.level == "char" else None

    def write(self, file, vocabulary, name, most) -> tuple[int, str]:
        """Write the ids to an open file without a buffer; returns how many there are, and a digest of them.

        name, most : the file's, and how many bytes it will have at most: what an OSError says. Raises ValueError.
        """
        import hashlib  # 8 ms: `import cylstm` has 15

        count, digest = 0, hashlib.sha256()
        blocks = _read_bytes(self.path) if vocabulary.level == "byte" else read_text(self.path)
        with contextlib.closing(blocks):  # an error leaves the text's file open otherwise
            for ids in vocabulary.encode_stream(blocks, name=self.path, unknown=self.unknown, skipped=self.skipped):
                digest.update(ids)
                count += len(ids)
                left = memoryview(ids).cast("B") if len(ids) else b""
                try:
                    while left:  # a disk that becomes full takes a part
                        left = left[file.write(left) :]
                except OSError as error:
                    raise OSError(error.errno, f"{error.strerror} (up to {most:,} bytes are needed)", name) from None
        if not count:  # NumPy maps no empty file
            raise ValueError(f"{self.path}: expected tokens of the vocabulary, got none")
        return count, digest.hexdigest()[:32]


def _read_bytes(path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        data = file.read(BLOCK)
        if not data:
            raise ValueError(f"{path}: expected text, got an empty file")
        while data:
            yield data
            data = file.read(BLOCK)


def read_corpus(path=None, level="char", *, vocabulary=None, max_size=None, min_count=1, unknown="error",
                skipped=None, encoded_in=None, tell=lambda line: None):  # fmt: skip
    """The ids (N,) and the vocabulary of a text file, or of Python's own manual where `path` is None.

    encoded_in : a folder in which the ids are kept; None keeps those of a file of at least LARGE bytes, NOWHERE those
    of no file. tell : as for `encoded`. The other arguments, the result and the errors are those of `data.encode_file`;
    the manual's ids are an array in memory.
    """
    options = {"max_size": max_size, "min_count": min_count}
    if path is not None:
        text = Text(path, level, vocabulary, options, unknown, skipped)
        if encoded_in == NOWHERE:
            return encoded(text)
        return encoded(text, encoded_in, encoded_in is not None or os.path.getsize(text.path) >= LARGE, tell)
    text = manual()
    if vocabulary is None:
        vocabulary = Vocabulary.from_text(text, level, **options)
    ids = vocabulary.encode_stream([text], name="manual", unknown=unknown, skipped=skipped)
    return np.concatenate(list(ids)), vocabulary


def text_streams(ids, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """`data.streams`, but fewer of them for a short text: as many as have `steps` steps each, at least one.

    Raises ValueError for a text with fewer than 2 tokens.
    """
    if len(ids) < 2:
        raise ValueError(f"text: expected at least 2 tokens (a step and its target), got {len(ids)}")
    return streams(ids, max(1, min(count, (len(ids) - 1) // steps)))


def paragraph_break(ids, vocabulary: Vocabulary) -> str:
    """What stands before the paragraphs of a text: a line break and a blank line, where one line in a hundred is blank,
    as where lines are broken inside of sentences; a space, where a text is of spaces and hardly any line breaks (fewer
    than one to a hundred spaces), after which a model has not learned to begin a word; "" for other texts, whose lines
    begin of themselves.

    ids : (N,); the first of them tell.
    """
    head = np.asarray(ids[:BLOCK])
    for text in ("\n\n", "\n\r\n"):
        if not vocabulary.missing(text):
            blank = vocabulary.encode(text)
            last = len(head) - len(blank)
            found = np.all([head[i : max(0, last + 1) + i] == token for i, token in enumerate(blank)], axis=0)
            if found.sum() > np.count_nonzero(head == blank[0]) / 100:
                return text
    if not vocabulary.missing(" "):
        line_break = b"\n" if vocabulary.level == "byte" else "\n"
        breaks = np.count_nonzero(head == vocabulary.index.get(line_break, -1))
        if 100 * breaks < np.count_nonzero(head == vocabulary.encode(" ")[0]):
            return " "
    return ""


def fingerprint(ids) -> str:
    """A number that differs for different ids (SHA-256, 128 bits of it, in hexadecimal): whether a text is still the
    same. That of ids from `encode_file` is known since they were made."""
    known = contents_of(ids)
    if known is not None and known.whole == (address(ids), len(ids)):
        return known.digest
    import hashlib  # 8 ms: `import cylstm` has 15

    digest = hashlib.sha256()
    for piece in in_pieces(ids):
        digest.update(np.ascontiguousarray(ids[piece]))
    return digest.hexdigest()[:32]


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
