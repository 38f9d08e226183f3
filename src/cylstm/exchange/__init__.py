"""Networks of other people in, and ours out, each format in a module of its own.

Every module turns a file into a `network.Network`, or one into a file; what a format, or we, cannot express is refused
by its name, and nothing is dropped in silence.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from cylstm.checks import one_of, path_name
from cylstm.exchange.models import model_of, network_of
from cylstm.exchange.network import Network

__all__ = ["FORMATS", "Network", "load", "model_of", "network_of", "read", "save", "write"]

# Formats by name: the module with `read(path) -> Network` and `write(network, path)`, either of which may be missing
# where the format goes one way only, and the endings of its files.
FORMATS: dict[str, tuple[str, ...]] = {
    "pytorch": (".pt", ".pth", ".safetensors"),
    "rtneural": (".json",),
    "nam": (".nam",),
    "c_header": (".h",),
    "keras": (".keras", ".weights.h5", ".h5", ".hdf5"),
    "onnx": (".onnx",),
}


def format_of(path, format=None) -> str:
    """The name of a file's format: as given, or by its ending. Raises ValueError for one that is not known."""
    if format is not None:
        return one_of("format", format, tuple(FORMATS))
    name = Path(path_name("path", path)).name.lower()
    endings = {ending: known for known, several in FORMATS.items() for ending in several}
    for ending in sorted(endings, key=len, reverse=True):
        if name.endswith(ending):
            return endings[ending]
    raise ValueError(f"{path}: expected a name that ends in {', '.join(endings)}, or format=, got neither")


def way(name, which):
    """The function "read" or "write" of a format. Raises ValueError for one that goes the other way only."""
    found = getattr(import_module(f"cylstm.exchange.{name}"), which, None)
    if found is None:
        can, only = ("read", "written") if which == "read" else ("written", "read")
        raise ValueError(f"format: expected one that can be {can}, got {name}, which is only {only}")
    return found


def read(path, *, format=None, **options) -> Network:
    """A file as a network, with its weights as they are there. A warning tells what of the file is left out. Raises
    OSError, or ValueError by what it cannot say.

    format : one of FORMATS; None goes by the file's ending. options: of that format's `read`.
    """
    return way(format_of(path, format), "read")(path, **options)


def load(path, *, format=None, **options):
    """A `Model` from a file of another system, or an `LSTM` where it has LSTM layers alone: see `read`."""
    network = read(path, format=format, **options)
    try:
        return model_of(network)
    except ValueError as error:
        start = f"{path}: " if isinstance(path, (str, os.PathLike)) else ""  # weights in memory have no name
        raise ValueError(f"{start}{error}") from None


def write(network, path, *, format=None, **options) -> None:
    """Write a network into a file, as `save` does a model."""
    way(format_of(path, format), "write")(network, path, **options)


def save(model, path, *, format=None, probabilities=True, **options) -> None:
    """Write a `Model` or an `LSTM` into a file for another system, atomically.

    format, options : as for `read`, of that format's `write`. probabilities : whether the file's outputs are those of
    `predict_proba`, where the model has them, or those of `model(x)`. A warning tells what the format has no place for:
    labels and other notes, dropout, in a state dict activations.
    Raises OSError, TypeError, or ValueError for what the format cannot express, by its name.
    """
    write(network_of(model, probabilities=probabilities), path, format=format, **options)
