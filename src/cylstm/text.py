"""Language models on text: the corpus, the streams to train on, what a model writes. Used by the command line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cylstm.data import encode_file, manual, streams
from cylstm.vocab import BLOCK, Vocabulary

__all__ = ["continue_text", "fingerprint", "read_corpus", "text_streams"]


def read_corpus(path=None, level="char", *, vocabulary=None, max_size=None, min_count=1):
    """The ids (N,) and the vocabulary of a text file, or of Python's own manual where `path` is None.

    The arguments, the result and the errors are those of `data.encode_file`; the manual's ids are an array in memory.
    """
    if path is not None:
        return encode_file(path, level, vocabulary=vocabulary, max_size=max_size, min_count=min_count)
    text = manual()
    if vocabulary is None:
        vocabulary = Vocabulary.from_text(text, level, max_size=max_size, min_count=min_count)
    return vocabulary.encode(text, name="manual"), vocabulary


def text_streams(ids, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """`data.streams`, but fewer of them for a short text: as many as have `steps` steps each, at least one.

    Raises ValueError for a text with fewer than 2 tokens.
    """
    if len(ids) < 2:
        raise ValueError(f"text: expected at least 2 tokens (a step and its target), got {len(ids)}")
    return streams(ids, max(1, min(count, (len(ids) - 1) // steps)))


def continue_text(model, prompt="", length=500, *, temperature=1.0, top_k=None, top_p=None, seed=None,
                  stop="") -> Iterator[str]:  # fmt: skip
    """The text that a model writes after a prompt, in pieces as they come: at most `length` tokens.

    prompt : text; without one, the model begins after a line break, or after its first token where it knows none.
    temperature, top_k, top_p, seed : as for `Model.generate`.
    stop : the text ends as soon as it contains these characters, which are its last ones. It also ends at the
        vocabulary's end token.

    Raises before the first piece: ValueError for a model without a vocabulary or a prompt with unknown characters, and
    as `Model.generate` does.
    """
    vocabulary = model.vocabulary
    if vocabulary is None:
        raise ValueError("model: expected one with a vocabulary, trained on text, got one without")
    line_break = b"\n" if vocabulary.level == "byte" else "\n"
    begin = vocabulary.encode(prompt, name="prompt") if prompt else [vocabulary.index.get(line_break, 0)]
    ends = () if vocabulary.end_id is None else (vocabulary.end_id,)
    ids = model.generate(begin, length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=ends)
    pieces = vocabulary.decode_stream(ids)
    return _until(stop, pieces) if stop else pieces


def _until(stop, pieces):
    seen = ""  # the last characters, in which `stop` may have begun
    for piece in pieces:
        text = seen + piece
        at = text.find(stop)
        if at >= 0:
            yield text[len(seen) : at + len(stop)]
            return
        yield piece
        seen = text[max(0, len(text) - len(stop) + 1) :]


def fingerprint(ids) -> str:
    """A number that differs for different ids (BLAKE2b, 128 bits, in hexadecimal): whether a text is still the same."""
    import hashlib  # 8 ms: `import cylstm` has 15

    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(ids), BLOCK):
        digest.update(np.ascontiguousarray(ids[start : start + BLOCK]))
    return digest.hexdigest()
