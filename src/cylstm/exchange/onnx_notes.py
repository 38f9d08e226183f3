"""A network's notes as an entry of an ONNX file's metadata."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from cylstm.exchange.json_files import object_of
from cylstm.exchange.network import naming

__all__ = ["KEY", "notes_from", "notes_to", "with_dropout"]

KEY = "cylstm"


def notes_from(text) -> dict:
    """The notes of an entry. Raises ValueError."""
    with naming(f"metadata {KEY}"):
        return object_of(text)


def notes_to(notes) -> str:
    """The entry for some notes. Raises ValueError for what JSON has not."""
    try:
        return json.dumps(notes, default=plain)
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"notes: expected what JSON can say, got {error}") from None


def with_dropout(layers, shares) -> tuple:
    """Layers with their shares of dropout, as notes have them. Raises ValueError."""
    right = isinstance(shares, list) and len(shares) == len(layers)
    if not right or any(not isinstance(share, (int, float)) or not 0 <= share < 1 for share in shares):
        raise ValueError(f"metadata {KEY}: expected dropout in [0, 1) of {len(layers)} layers, got {shares!r:.80}")
    for layer, share in zip(layers, shares, strict=True):
        if share and not hasattr(layer, "dropout"):
            raise ValueError(f"metadata {KEY}: expected no dropout of an embedding, got {share}")
    return tuple(replace(layer, dropout=float(share)) if share else layer
                 for layer, share in zip(layers, shares, strict=True))  # fmt: skip


def plain(value):
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"an object of {type(value).__name__}")
