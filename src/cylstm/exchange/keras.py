"""Keras's files, in and out: .keras, .weights.h5, and, in alone, the older .h5.

Keras's kernels are (I, 4H) and (H, 4H), of the order i, f, c, o, which is ours: i, f, g, o. Needs h5py.
"""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib

import numpy as np

from cylstm.checks import describe, path_name
from cylstm.exchange.json_files import object_of
from cylstm.exchange.keras_config import planned
from cylstm.exchange.keras_inferred import inferred
from cylstm.exchange.keras_layers import Told
from cylstm.exchange.keras_weights import h5py_or_why, major_of, opened, why
from cylstm.exchange.keras_written import CONFIG, METADATA, WEIGHTS, as_archive, as_weights, described
from cylstm.exchange.network import (
    TURNED,
    Dense,
    Direction,
    Embedding,
    Network,
    Recurrent,
    naming,
    tell_left_out,
    tell_turned,
    transposed,
)
from cylstm.tensor_files import expect_file, write_atomically

__all__ = ["read", "write"]

MOST_EXPANSION = 64  # of members that another tool has compressed; Keras stores them as they are
SMALL = 1 << 20  # bytes
OF_ZIP = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, LookupError, ArithmeticError,
          RuntimeError, OSError, AttributeError, TypeError)  # fmt: skip


def read(path, *, config=None, version=None) -> Network:
    """A Keras file as a network: a .keras, .weights.h5 or .h5 of Keras 2 or 3, by what is in it, not by its name.

    config : text or dict, what `model.to_json()` of Keras gives, for a file that has weights alone. Without it such a
        file is read where LSTM layers, with an embedding before and a dense layer behind them, are all that it holds.
    version : of Keras, 2 or 3, for a file, or a config, that does not say its own; it matters for hard_sigmoid alone.
    Layers: Embedding, LSTM, CuDNNLSTM, Bidirectional (merge_mode concat, sum, ave or mul), Dense,
    TimeDistributed(Dense), activations behind dense layers, Dropout, Masking, in a Sequential model or a Functional one
    that is a chain. What training alone knows and a network does not have is left out, and one warning says what.
    Raises OSError, ImportError without h5py, or ValueError, which names the file and what cannot be read.
    """
    path = path_name("path", path)
    h5py_or_why()
    expect_file(path)
    if version is not None and str(version) not in ("2", "3"):
        raise ValueError(f"version: expected 2, 3 or None, got {describe(version)}")
    told = Told(None if version is None else int(version))
    with open(path, "rb") as file:
        try:
            network = of_archive(file, config, told) if is_archive(file) else of_weights(file, config, told)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if told.text():
        warnings.warn(f"{path}: {told.text()}", stacklevel=3)
    return network


def is_archive(file) -> bool:
    found = file.read(4) == b"PK\3\4"
    file.seek(0)
    return found


def of_archive(file, config, told):
    """The network of a .keras file."""
    if config is not None:
        raise ValueError("config: expected None for a .keras file, which has its own")
    members = dict.fromkeys((CONFIG, METADATA, WEIGHTS))
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.filename in members:
                    members[info.filename] = member(archive, info, file)
    except OF_ZIP as error:
        raise ValueError(f"expected a .keras file, got a damaged archive ({why(error)})") from None
    for name in (CONFIG, WEIGHTS):
        if members[name] is None:
            raise ValueError(f"expected {name} in it, as in Keras's files, got none")
    metadata = as_json(members[METADATA] or b"{}", METADATA)
    tell_version(told, metadata.get("keras_version"))
    plan = planned(as_json(members[CONFIG], CONFIG), told)
    ours = metadata.get("cylstm")
    notes = ours.get("notes") if isinstance(ours, dict) else None
    # Those of how a file gives its numbers were of another one.
    notes = {name: value for name, value in notes.items() if name not in TURNED} if isinstance(notes, dict) else {}
    with opened(io.BytesIO(members[WEIGHTS])) as weights:
        return network_of(plan, weights.of(plan), notes)


def member(archive, info, file) -> bytes:
    """One file of an archive, which may not be larger than what is there of it can become."""
    if info.compress_size > file.seek(0, 2) or info.file_size > MOST_EXPANSION * info.compress_size + SMALL:
        raise ValueError(f"{info.filename}: expected at most {MOST_EXPANSION} times what is there of it, got "
                         f"{info.file_size} bytes of {info.compress_size}")  # fmt: skip
    return archive.read(info)


def as_json(text, name) -> dict:
    with naming(name):
        return object_of(text)


def of_weights(file, config, told):
    """The network of an HDF5 file: with a configuration, its own or the caller's, or by its shapes."""
    with opened(file) as weights:
        text = weights.config() if weights.old else None
        if text is not None and config is not None:
            raise ValueError("config: expected None for a file that has its own")
        config = text if config is None else config
        if config is not None and not isinstance(config, (dict, str)):
            raise ValueError(f"config: expected the text of model.to_json(), or a dict, got {describe(config)}")
        config = as_json(config, "config") if isinstance(config, str) else config
        own = weights.version() if weights.old else None  # that of another model, where the caller has a config
        tell_version(told, own if config is None or text is not None else config.get("keras_version"))
        plan = planned(config, told) if config is not None else inferred(weights.inventory(), told, weights.old)
        return network_of(plan, weights.of(plan), {})


def tell_version(told, version):
    """The version that a file says is the one that counts. Raises ValueError where the caller says another."""
    own = major_of(version)
    if own is not None and told.major not in (None, own):
        raise ValueError(f"version: expected None, or {own} as the file says, got {told.major}")
    told.major = own or told.major


def network_of(plan, arrays, notes) -> Network:
    """The network of planned layers with their arrays."""
    return Network(tuple(layer_of(layer, parts) for layer, parts in zip(plan, arrays, strict=True)), notes)


def layer_of(layer, parts):
    first = parts[0]
    try:
        if layer.kind == "Embedding":
            return Embedding(first["embeddings"])
        if layer.kind == "Dense":
            return Dense(transposed(first["kernel"]), first.get("bias"), layer.activation, layer.dropout)
        ways = tuple(direction_of(layer, part) for part in parts)
        return Recurrent(ways, dropout=layer.dropout, last=layer.last, activations=layer.activations,
                         reverse=layer.reverse, merge=layer.merge)  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{layer.name}: {error}") from None


def direction_of(layer, part):
    kernel, recurrent, bias = part["kernel"], part["recurrent_kernel"], part.get("bias")
    if layer.kind != "CuDNNLSTM":
        return Direction(transposed(kernel), transposed(recurrent), bias)
    # Each gate's block is cuDNN's (H, I) or (H, H) in its memory, whatever its shape says; its two biases are added.
    weights = [np.concatenate([np.ascontiguousarray(gate).reshape(gate.shape[::-1]) for gate in np.hsplit(both, 4)])
               for both in (kernel, recurrent)]  # fmt: skip
    if bias is not None:
        bias = bias.reshape(2, -1).sum(0, dtype=np.promote_types(bias.dtype, np.float32))
    return Direction(*weights, bias)


def write(network: Network, path) -> None:
    """Write a network as a .keras, which `keras.models.load_model` opens, or as a .weights.h5, for the `load_weights`
    of the equal model. Atomically.

    Raises OSError, ImportError without h5py, or ValueError for another name or what Keras's layers do not do.
    """
    path = path_name("path", path)
    h5py_or_why()
    archive = path.lower().endswith(".keras")
    if not archive and not path.lower().endswith(".weights.h5"):
        raise ValueError(f"{path}: expected a name that ends in .keras or .weights.h5, got another; .h5 is only read")
    with naming(path):
        layers = described(network)
        content = as_archive(layers, network) if archive else as_weights(layers, network.dtype)
    if not archive:
        tell_left_out(path, "as weights alone are kept", network, ("dropout",))
    write_atomically(path, content)
    if archive:
        tell_turned(path, network.notes)
