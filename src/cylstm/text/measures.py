"""What a text costs a model per character and per word, so that models of characters, words and bytes can be compared.

A token is what a vocabulary makes it: the mean per token of one level says nothing beside another's.
"""

from __future__ import annotations

import math

import numpy as np

from cylstm.checks import describe, plain_array
from cylstm.losses import CrossEntropy
from cylstm.maps import in_pieces
from cylstm.sequences import ragged_rows
from cylstm.text.sampling import writes_tokens

__all__ = ["evaluate_text"]


def evaluate_text(model, x, y, *, lengths=None, mask=None, resets=None, state=None, batch_size=256) -> dict:
    """`Model.evaluate` of a text, and what can be compared between models of characters, words and bytes.

    model : a model of the next token, with a vocabulary.
    x, y and the others : as for `Model.evaluate`: ids and the next ones (`data.streams`, `data.next_token`).

    Beside "loss", "perplexity" (both per token), "accuracy" and "tokens":

    "bits_per_character"
        The loss of the whole text in bits over its code points, "characters" in number. Bytes make a character where
        one begins: those that go on with it count for none. Unknown tokens, "unknown" in number, are left out here,
        loss and characters, since nobody knows what they stand for: where there are some, a model was spared the
        hardest part, and its bits can only be compared with those of models that were spared the same.
    "word_perplexity"
        At level "word": exp(the loss of the whole text / "words"). Words are the tokens that are not white space:
        words, numbers, marks of punctuation and unknown ones, as WikiText counts them (Merity et al. 2016; there the
        ends of lines count, too). White space costs, but does not count: the number says what a word costs with all
        that it takes to write the text (Mielke 2019).

    All of that is of the targets that count; the first token of a text is none. With label smoothing in the model's
    loss, numbers are those of cross-entropy without it. Ratios to nothing are NaN.
    Raises TypeError or ValueError as `Model.evaluate` does, and for a model without a vocabulary or of no classes.
    """
    vocabulary = getattr(model, "vocabulary", None)
    if vocabulary is None:
        raise ValueError("model: expected one with a vocabulary, trained on text, got one without")
    if not writes_tokens(model) or model.output_size != len(vocabulary):
        raise ValueError(f"model: expected one of its vocabulary's next tokens, got {describe(model)}")
    model = unsmoothed(model)
    options = dict(lengths=lengths, mask=mask, resets=resets, state=state, batch_size=batch_size)
    found = model.evaluate(x, y, **options)
    counts = target_counts(y, lengths, mask, len(vocabulary))
    total = found["loss"] * found["tokens"]
    if vocabulary.level == "word":
        found["words"] = words = int(counts @ words_of(vocabulary))
        found["word_perplexity"] = float(np.exp(min(total / words, 700))) if words else math.nan
    found["unknown"] = unknown = 0 if vocabulary.unknown_id is None else int(counts[vocabulary.unknown_id])
    if 0 < unknown < found["tokens"]:
        known = model.evaluate(x, y, ignore=vocabulary.unknown_id, **options)
        total = known["loss"] * known["tokens"]
    found["characters"] = characters = int(counts @ characters_of(vocabulary))
    found["bits_per_character"] = total / math.log(2) / characters if characters else math.nan
    return found


def unsmoothed(model):
    """The model itself or, where its loss smooths labels, a copy whose loss does not."""
    if model.loss == CrossEntropy():
        return model
    rebuild, (cls, config, *rest) = model.__reduce__()
    return rebuild(cls, {**config, "loss": CrossEntropy()}, *rest)


def target_counts(y, lengths, mask, size) -> np.ndarray:
    """How often each id is among the targets that count: (V,) int64. y was checked, with lengths and mask."""
    rows, masks = ragged_rows(y), mask
    if rows is None:
        rows = plain_array("y", y)
        if rows.ndim == 1:
            rows, masks = rows[None], None if mask is None else [mask]
    counts = np.zeros(size, np.int64)
    for n, row in enumerate(rows):
        kept = None if masks is None else np.asarray(masks[n])
        if lengths is not None:
            end = int(np.atleast_1d(lengths)[n])
            row, kept = row[:end], None if kept is None else kept[:end]
        row = row if kept is None else row[kept]
        for piece in in_pieces(row):
            counts += np.bincount(np.asarray(row[piece], np.int64), minlength=size)
    return counts


def characters_of(vocabulary) -> np.ndarray:
    """(V,) the code points of each token; 0 for the special ones, and for bytes that go on with a character."""
    if vocabulary.level == "byte":
        counts = [int(len(token) == 1 and token[0] & 0xC0 != 0x80) for token in vocabulary.tokens[:256]]
        counts += [0] * (len(vocabulary) - 256)
    else:
        counts = list(map(len, vocabulary.tokens))
    for special in (vocabulary.unknown_id, vocabulary.end_id):
        if special is not None:
            counts[special] = 0
    return np.array(counts, np.int64)


def words_of(vocabulary) -> np.ndarray:
    """(V,) 1 for tokens that are not white space, the unknown one too; 0 for the others and the end."""
    counts = [int(not token.isspace()) for token in vocabulary.tokens]
    if vocabulary.unknown_id is not None:
        counts[vocabulary.unknown_id] = 1
    if vocabulary.end_id is not None:
        counts[vocabulary.end_id] = 0
    return np.array(counts, np.int64)
