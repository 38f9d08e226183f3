"""Which cells follow what: correlations with what can be said of a text's tokens, or with inputs and targets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Pair", "best_pairs", "pieces_of"]

OPENING, CLOSING = "([{", ")]}"
LEAST = 5  # steps on which something has to be true, and on which it has not
COLUMNS = 24  # of inputs, at most, and as many of targets
COMMONEST = 12  # ids that have no text


class Pair(NamedTuple):
    """The cell whose c has the largest correlation r, in size, with something; `values` (B, T) of that."""

    what: str
    layer: str
    unit: int
    r: float
    values: np.ndarray


def pieces_of(vocabulary, ids) -> list[str]:
    """The text of each id; of bytes, a character stands with its last one."""
    pieces = list(vocabulary.decode_stream(ids.tolist()))
    pieces = pieces[: len(ids)]
    return [vocabulary.end if n == vocabulary.end_id else piece for n, piece in zip(ids.tolist(), pieces, strict=True)]


def best_pairs(sample, most: int = 16) -> list[Pair]:
    """For each thing that can be said of the steps, the cell that follows it best; the best of these pairs first."""
    real, found = sample.real, []
    cells = {layer: standardised(sample.values("c", layer).astype(np.float64)) for layer in sample.layers}
    for what, values in things(sample).items():
        there = values[real]
        if not np.isfinite(there).all():
            continue
        if set(np.unique(there)) <= {0.0, 1.0} and not LEAST <= there.sum() <= len(there) - LEAST:
            continue
        wanted = standardised(there[:, None].astype(np.float64))[:, 0]
        r = {layer: wanted @ c / len(wanted) for layer, c in cells.items()}
        layer = max(r, key=lambda name: np.abs(r[name]).max())
        unit = int(np.abs(r[layer]).argmax())
        found.append(Pair(what, layer, unit, float(r[layer][unit]), values))
    return sorted((pair for pair in found if abs(pair.r) > 0.05), key=lambda pair: -abs(pair.r))[:most]


def standardised(values):
    """(N, K) with mean 0 and variance 1 in each column; 0 where a column is the same throughout."""
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    return np.where(deviation > 1e-9, centred / np.where(deviation > 1e-9, deviation, 1), 0)


def things(sample) -> dict[str, np.ndarray]:
    """What can be said of each step, (B, T) each."""
    B, T = sample.x.shape[:2]
    found = {"steps since the start": np.broadcast_to(np.arange(T, dtype=float), (B, T))}
    if sample.ids and sample.model.vocabulary is not None:
        rows = [of_text(pieces_of(sample.model.vocabulary, row)) for row in sample.x]
        found.update({name: np.stack([row[name] for row in rows]) for name in rows[0]})
    elif sample.ids:
        ids, counts = np.unique(sample.x[sample.real], return_counts=True)
        found.update({f"id {n}": sample.x == n for n in ids[np.argsort(-counts, kind="stable")][:COMMONEST].tolist()})
    else:
        found.update({f"input {n}": sample.x[..., n] for n in range(min(COLUMNS, sample.x.shape[2]))})
    if not (sample.ids and sample.model.vocabulary is not None):
        found.update(of_targets(sample))
    return {name: np.asarray(values, float) for name, values in found.items()}


def of_targets(sample) -> dict[str, np.ndarray]:
    """The targets that steps have."""
    found = {}
    for name, head in sample.model.heads.items() if sample.part is not None else ():
        y, label = sample.part.targets[name].y, f"target {name}".rstrip()
        if head.per_row or head.horizon is not None:
            continue
        if head.loss.of_classes:
            there = y[sample.real]
            ids, counts = np.unique(there[there >= 0], return_counts=True)  # what is ignored may be negative
            for n in ids[np.argsort(-counts, kind="stable")][:COMMONEST].tolist():
                found[f"{label} is {n if head.labels is None else head.labels[n]}"] = y == n
        else:
            several = y.shape[2] > 1
            found.update({label + f" {n}" * several: y[..., n] for n in range(min(COLUMNS, y.shape[2]))})
    return found


def of_text(pieces) -> dict[str, np.ndarray]:
    """What a reader would say of each token of a text, (T,) each; of one of several characters, of its last."""
    states, column, word, indent, depth, quoted, before = [], 0, 0, 0, 0, False, "\n"
    at_margin = True
    for piece in pieces:
        for letter in piece or before:
            if letter == "\n":
                column, word, indent, at_margin = 0, 0, 0, True
                if before == "\n":  # a blank line: whatever was left open is forgotten
                    depth, quoted = 0, False
            else:
                column += 1
                at_margin = at_margin and letter in " \t"
                indent += at_margin
                word = word + 1 if letter.isalnum() else 0
                depth = max(0, depth + (letter in OPENING) - (letter in CLOSING))
                quoted ^= letter == '"'
            before = letter
        last = piece[-1:] or before
        states.append((column, word, indent, depth > 0, quoted, last.isspace(), last == "\n", last.isupper(),
                       last.isdigit(), last.isalpha() and last.lower() in "aeiou", last.isalpha(),
                       not (last.isalnum() or last.isspace())))  # fmt: skip
    names = ("place in the line", "place in the word", "indentation of the line", "inside of brackets",
             "inside of quotes", "white space", "line break", "capital letter", "digit", "vowel", "letter",
             "punctuation")  # fmt: skip
    return dict(zip(names, np.array(states, float).reshape(-1, len(names)).T, strict=True))
