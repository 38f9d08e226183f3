"""Vocabularies: from text to token ids and back, at the level of characters, words or bytes.

A vocabulary is built and applied block by block, so that a text of any size passes through a few MB of memory.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, repeat

import numpy as np

from cylstm.checks import as_ids, describe, one_of, positive_int

__all__ = ["UnknownTokens", "Vocabulary", "smallest_dtype"]

LEVELS = ("char", "word", "byte")
UNKNOWN = "<unk>"
BLOCK = 1 << 18  # characters or bytes worked on at once
NO_ID = 255  # in place of an unknown character's

# Words, runs of spaces and single other characters, each with the marks that combine with it: together they cover every
# text, so that joining them gives it back. The lengths are bounded for the sake of bounded memory: a text may hold no
# space at all.
LONGEST_WORD = 64
JOINERS = "\u200c\u200d"  # between letters, of Persian and Indic words
# What cut the words of vocabularies of files that do not say "marks": a mark was a word of its own.
WITHOUT_MARKS = re.compile(rf"\w{{1,{LONGEST_WORD}}}| {{1,16}}|[^\w ]")


@functools.cache
def words_pattern() -> re.Pattern:
    """Vowel signs, accents and the like are no letters for `re`, which has no name for them: here they are."""
    places = (*range(0x20000), *range(0xE0000, 0xE1000))  # the others hold ideographs or nothing
    marks = [code for code in places if unicodedata.category(chr(code)).startswith("M")]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(marks), lambda pair: pair[1] - pair[0])]
    m = "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs) + JOINERS
    return re.compile(rf"\w[\w{m}]{{0,{LONGEST_WORD - 1}}}| {{1,16}}|[^\w ][{m}]{{0,15}}")


# Distinct words counted at once. Beyond, the rarest so far are forgotten (as word2vec does, Mikolov et al. 2013).
MOST_DIFFERENT = 1_000_000


def smallest_dtype(size: int) -> np.dtype:
    """The smallest unsigned integer type that holds the ids 0..size-1."""
    return np.min_scalar_type(max(size - 1, 0))


class UnknownTokens(ValueError):
    """A text holds tokens outside a vocabulary that has no unknown token."""


class Vocabulary:
    """Tokens and their ids, both ways.

    Parameters
    ----------
    tokens : iterable of str
        Distinct tokens; their order gives the ids from 0. For level "char" each is one character. For level "byte"
        leave it out: the ids 0..255 are the bytes themselves (of the text in UTF-8).
    level : "char", "word" or "byte"
        What `encode` cuts a text into. Words are runs of letters, digits and underscores (at most 64 characters), runs
        of at most 16 spaces, and every other character alone, with the marks (accents, vowel signs) that combine with
        them: joined, they are the text again.
    unknown, end : str or None
        Names of two special tokens, which take the ids after the others. Everything outside the vocabulary is encoded
        as the unknown token; without one it is an error. The end token closes a sequence (`encode(text, end=True)`).

    Attributes: `tokens` (tuple; bytes objects for level "byte"), `index` (token -> id), `level`, `unknown`, `end`,
    `unknown_id` and `end_id` (None without such a token), `dtype` (the smallest unsigned integer type for the ids).

    Raises ValueError or TypeError, naming the argument, for repeated or empty tokens and unknown levels.
    """

    marks = False  # whether marks stay with their words; those of older files fall to pieces as they did

    def __init__(self, tokens: Iterable[str] = (), level: str = "char", *, unknown=None, end=None):
        self.level = one_of("level", level, LEVELS)
        plain = _checked_tokens(tokens, level)
        for name, token in (("unknown", unknown), ("end", end)):
            if token is not None and (not isinstance(token, str) or not token):
                raise TypeError(f"{name}: expected a name or None, got {describe(token)}")
        if level == "byte" and unknown is not None:
            raise ValueError(f"unknown: expected None at level 'byte' (every byte is known), got {unknown!r}")
        self.unknown, self.end, self.marks = unknown, end, level == "word"
        self.tokens = (*plain, *(token for token in (unknown, end) if token is not None))
        self.index = {token: i for i, token in enumerate(self.tokens)}
        if len(self.index) != len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise ValueError(f"tokens: expected distinct tokens, got {twice!r} twice")
        if not self.tokens:
            raise ValueError("tokens: expected at least one token, got none")
        self.unknown_id = self.index[unknown] if unknown is not None else None
        self.end_id = self.index[end] if end is not None else None
        self.dtype = smallest_dtype(len(self.tokens))
        self._plain = len(plain)
        self._table = _code_table(plain, self.unknown_id) if level == "char" else None
        self._of_ascii = None
        if level == "char" and len(self.tokens) <= NO_ID:
            self._of_ascii = (self._table.take(range(256), mode="clip") & NO_ID).astype(np.uint8).tobytes()  # -1: NO_ID

    @classmethod
    def from_text(cls, text, level="char", *, max_size=None, min_count=1, unknown="auto", end=None) -> Vocabulary:
        """The vocabulary of one text; see `from_stream`. Raises TypeError unless it is a string."""
        if not isinstance(text, (str, bytes) if level == "byte" else str):
            raise TypeError(f"text: expected a string, got {describe(text)}")
        return cls.from_stream(_slices(text), level, max_size=max_size, min_count=min_count, unknown=unknown, end=end)

    @classmethod
    def from_stream(cls, blocks, level="char", *, max_size=None, min_count=1, unknown="auto", end=None) -> Vocabulary:
        """The vocabulary of a text that comes in blocks (an iterable of str: `data.read_text`, a file's lines).

        The most frequent tokens come first, equally frequent ones in order of their code points. At most `max_size`
        tokens are kept, the special ones included, and only those seen at least `min_count` times.

        unknown: "auto" adds the token "<unk>" for words always, for characters when some were left out.

        More than a million distinct words are counted approximately: the rarest so far are forgotten.
        Raises ValueError for an empty text and for arguments out of range.
        """
        one_of("level", level, LEVELS)
        min_count = positive_int("min_count", min_count)
        if level == "byte":
            return cls((), "byte", unknown=None if unknown == "auto" else unknown, end=end)
        counts = _count_words(blocks) if level == "word" else _count_characters(blocks)
        if not counts:
            raise ValueError("text: expected at least one token, got an empty text")
        if min_count > (most := max(counts.values())):
            raise ValueError(
                f"min_count: expected at most {most}, as often as the commonest token comes, got {min_count}"
            )
        ordered = sorted((-count, token) for token, count in counts.items() if count >= min_count)
        room = len(ordered) if max_size is None else positive_int("max_size", max_size, 3) - (end is not None)
        if unknown == "auto":
            unknown = UNKNOWN if level == "word" or min(len(ordered), room) < len(counts) else None
        if max_size is not None:
            room -= unknown is not None
        return cls((token for _, token in ordered[:room]), level, unknown=unknown, end=end)

    def __len__(self) -> int:
        """V: the number of tokens, special ones included."""
        return len(self.tokens)

    def __eq__(self, other) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name) for name in ("level", "tokens", "unknown", "end", "marks")
        )

    __hash__ = None

    def __repr__(self) -> str:
        specials = "".join(f", {name}={getattr(self, name)!r}" for name in ("unknown", "end") if getattr(self, name))
        return f"Vocabulary({len(self)} tokens, level={self.level!r}{specials})"

    def encode(self, text: str, *, end: bool = False, name: str = "text", unknown: str = "error") -> np.ndarray:
        """The ids (N,) of a text, in the smallest unsigned integer type; `end=True` appends the end token.

        unknown : what becomes of tokens outside a vocabulary that has no unknown token: "error", or "skip", which
            leaves them out, as if they were not in the text.

        Level "byte" also takes a bytes object. Raises TypeError unless text is a string, ValueError for unknown tokens
        (which it names, with the place of the first, counted in tokens from 0, and its line, from 1) unless they are
        skipped, and for `end=True` without an end token; `name` is what the errors call the text.
        """
        if not isinstance(text, (str, bytes) if self.level == "byte" else str):
            raise TypeError(f"{name}: expected a string, got {describe(text)}")
        if end and self.end is None:
            raise ValueError("end: expected False for a vocabulary without an end token, got True")
        tail = np.full(int(end), self.end_id if end else 0, self.dtype)
        return np.concatenate([*self.encode_stream(_slices(text), name=name, unknown=unknown), tail])

    def encode_stream(self, blocks: Iterable[str], *, name: str = "text", unknown: str = "error",
                      skipped: Counter | None = None) -> Iterator[np.ndarray]:  # fmt: skip
        """The ids of a text that comes in blocks, as arrays one after the other, with no more in memory than a block.

        skipped : a collections.Counter that is told the tokens which `unknown="skip"` leaves out.
        The result does not depend on where the blocks are cut. Raises as `encode` does.
        """
        one_of("unknown", unknown, ("error", "skip"))
        position, line = 0, 1
        for block in _words(blocks, self._pattern()) if self.level == "word" else blocks:
            ids = self._lookup(block)
            if self.unknown_id is None and ids.dtype.kind == "i" and ids.size and ids.min() < 0:
                where = np.flatnonzero(ids < 0)
                if unknown == "error":
                    raise UnknownTokens(f"{name}: {self._complaint(block, where, position, line)}")
                if skipped is not None:
                    skipped.update(block[i] for i in where)
                ids = ids[ids >= 0]
            elif self.unknown_id is None and self.level != "byte":
                position, line = position + len(ids), line + block.count("\n")
            yield ids.astype(self.dtype)

    def missing(self, text: str) -> list[str]:
        """The distinct tokens of a text that this vocabulary lacks, in order of appearance."""
        if not isinstance(text, (str, bytes) if self.level == "byte" else str):
            raise TypeError(f"text: expected a string, got {describe(text)}")
        if self.level == "byte":
            return []
        known = set(self.tokens[: self._plain])
        blocks = _slices(text)
        tokens = chain.from_iterable(_words(blocks, self._pattern()) if self.level == "word" else blocks)
        return list(dict.fromkeys(token for token in tokens if token not in known))

    def decode(self, ids) -> str:
        """The text of ids (any shape, in C order). The unknown token appears by its name, the end token not at all.

        At level "byte", bytes that are not UTF-8 become U+FFFD. Raises TypeError for non-integers, ValueError for ids
        outside 0..V-1.
        """
        return "".join(self.decode_stream(as_ids("ids", ids, len(self)).ravel().tolist()))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, piece by piece (a piece may be empty: the first bytes of a character).

        Raises ValueError when an id comes that is outside 0..V-1.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace") if self.level == "byte" else None
        for i in ids:
            if not 0 <= i < len(self.tokens):
                raise ValueError(f"ids: expected ids in 0..{len(self.tokens) - 1}, got {i}")
            token = self.tokens[i]
            yield "" if i == self.end_id else token if decoder is None else decoder.decode(token)
        if decoder is not None:
            yield decoder.decode(b"", final=True)

    def to_json(self) -> str:
        """This vocabulary as a JSON string, ASCII only; `from_json` reads it."""
        tokens = self.tokens[: self._plain] if self.level != "byte" else ()
        fields = {"level": self.level, "unknown": self.unknown, "end": self.end, "tokens": tokens}
        return json.dumps({**fields, "marks": True} if self.marks else fields)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote. Raises ValueError for anything else."""
        try:
            fields = json.loads(text)
            if not isinstance(fields["tokens"], list):
                raise TypeError(f"tokens: expected a list, got {describe(fields['tokens'])}")
            vocabulary = cls(fields["tokens"], fields["level"], unknown=fields["unknown"], end=fields["end"])
            vocabulary.marks = fields.get("marks") is True and vocabulary.level == "word"
            return vocabulary
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"text: expected the JSON of a vocabulary, got {describe(text)} ({error})") from None

    def _pattern(self) -> re.Pattern:
        """What cuts a text into words."""
        return words_pattern() if self.marks else WITHOUT_MARKS

    def _lookup(self, block) -> np.ndarray:
        """The ids of one block, negative for unknown tokens where no token stands for them."""
        if self.level == "byte":
            data = block.encode("utf-8", "surrogatepass") if isinstance(block, str) else block
            return np.frombuffer(data, np.uint8)
        if self.level == "char":
            found = None if self._of_ascii is None else _mostly_ascii(block)  # twice as fast
            if found is not None:
                data, places, codes = found
                ids, others = data.translate(self._of_ascii), self._table.take(codes, mode="clip")
                if not len(places) and NO_ID not in ids:
                    return np.frombuffer(ids, np.uint8)
                ids = np.frombuffer(bytearray(ids), np.uint8)
                ids[places] = others & NO_ID
                if not (ids == NO_ID).any():
                    return ids
            return self._table.take(_codes(block), mode="clip")
        fill = -1 if self.unknown_id is None else self.unknown_id
        return np.fromiter(map(self.index.get, block, repeat(fill)), np.int32, len(block))

    def _complaint(self, block, where, position, line) -> str:
        """block : a string, or a list of words."""
        found = list(dict.fromkeys(block[i] for i in where))
        shown = ", ".join(f"{t!r} (U+{ord(t):04X})" if len(t) == 1 else repr(t) for t in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        kind = "characters" if self.level == "char" else "words"
        place = f"position {position + where[0]}, line {line + block[: where[0]].count(chr(10))}"
        return f"expected {kind} in the vocabulary, got {shown}{more}, first at {place}"


def _checked_tokens(tokens, level) -> tuple:
    if not isinstance(tokens, Iterable):
        raise TypeError(f"tokens: expected an iterable of strings, got {describe(tokens)}")
    tokens = tuple(tokens)
    if level == "byte":
        if tokens:
            raise ValueError(f"tokens: expected none at level 'byte' (they are the 256 bytes), got {len(tokens)}")
        return tuple(bytes([i]) for i in range(256))
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"tokens: expected strings, got {describe(token)}")
        if not token or (level == "char" and len(token) != 1):
            raise ValueError(f"tokens: expected {'single characters' if level == 'char' else 'words'}, got {token!r}")
    return tokens


def _codes(text: str) -> np.ndarray:
    """The code points (N,) of a text, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _mostly_ascii(text: str):
    """The characters of a text as bytes of ASCII, the places at which others may stand, and the code points of these;
    None where there are many."""
    data = text.encode("ascii", "replace")
    if text.isascii():
        return data, np.zeros(0, np.int64), np.zeros(0, np.int64)
    places = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("?"))
    if len(places) > len(text) // 16:
        return None
    return data, places, np.fromiter(map(ord, map(text.__getitem__, places.tolist())), np.int64, len(places))


def _code_table(tokens, unknown_id) -> np.ndarray:
    """Code point -> id; the last entry stands for all code points beyond, -1 for unknown ones without a token."""
    codes = _codes("".join(tokens))
    table = np.full(codes.max(initial=0) + 2, -1 if unknown_id is None else unknown_id, np.int32)
    table[codes] = np.arange(len(codes))
    return table


def _slices(text) -> Iterator:
    for start in range(0, len(text), BLOCK):
        yield text[start : start + BLOCK]


def _words(blocks: Iterable[str], pattern: re.Pattern) -> Iterator[list[str]]:
    """The words of a text, list by list. A block's last word may go on in the next block, so it waits for it."""
    rest = ""
    for block in blocks:
        words = pattern.findall(rest + block)
        rest = words.pop() if words else ""
        yield words
    yield [rest] if rest else []


def _count_characters(blocks) -> dict[str, int]:
    counts = np.zeros(0, np.int64)
    for block in blocks:
        found = np.bincount(_codes(block))
        if len(found) > len(counts):
            counts, found = found, counts
        counts[: len(found)] += found
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}


def _count_words(blocks) -> dict[str, int]:
    counts, floor = Counter(), 1
    for words in _words(blocks, words_pattern()):
        counts.update(words)
        while len(counts) > MOST_DIFFERENT:
            counts = Counter({word: count for word, count in counts.items() if count > floor})
            floor += 1
    return counts
