"""A network as Keras writes a Sequential model: its configuration, and its weights by the places of layers."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass

import numpy as np

from cylstm.activations import PLAIN
from cylstm.checks import describe
from cylstm.exchange.keras_activations import OF_CELLS, keras_name, written_as
from cylstm.exchange.keras_layers import MERGE_MODES
from cylstm.exchange.keras_weights import h5py_or_why
from cylstm.exchange.network import TURNED, Dense, Embedding, Network, Recurrent, expect_network, unsaid
from cylstm.version import __version__

__all__ = ["CONFIG", "METADATA", "WEIGHTS", "as_archive", "as_weights", "described"]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
VERSION = "3.5.0"  # the oldest that tests have seen to open what is written
SNAKE = {"Embedding": "embedding", "Dense": "dense", "LSTM": "lstm", "Bidirectional": "bidirectional",
         "Dropout": "dropout", "LeakyReLU": "leaky_re_lu", "ELU": "elu", "InputLayer": "input_layer"}  # fmt: skip
DIRECTIONS = ("forward_lstm", "backward_lstm")


@dataclass
class Layer:
    """One of Keras's layers: its options and, by their places in a file of weights, its arrays."""

    kind: str
    options: dict
    arrays: dict
    name: str = ""
    inner: tuple[Layer, ...] = ()

    def config(self, dtype):
        config = (
            {"name": self.name} if self.kind == "InputLayer" else {"name": self.name, "trainable": True, "dtype": dtype}
        )
        config |= self.options
        config |= {key: one.config(dtype) for key, one in zip(("layer", "backward_layer"), self.inner, strict=False)}
        return {"module": "keras.layers", "class_name": self.kind, "config": config, "registered_name": None}


def described(network: Network) -> list[Layer]:
    """Keras's layers for a network's, with names as Keras gives them. Raises ValueError for what they do not do."""
    expect_network(network)
    found = [inputs_of(network)]
    for n, layer in enumerate(network.layers):
        if isinstance(layer, Embedding):
            found.append(embedding_of(n, layer))
        else:
            found.append((recurrent_of if isinstance(layer, Recurrent) else dense_of)(n, layer))
            _, behind = written_as(layer.activation) if isinstance(layer, Dense) else ("", None)
            found += [] if behind is None else [Layer(*behind, {})]
            if layer.dropout:
                found.append(Layer("Dropout", {"rate": layer.dropout, "seed": None, "noise_shape": None}, {}))
    counts = {}
    for layer in found:
        base = SNAKE[layer.kind]
        number = counts[base] = counts.get(base, -1) + 1
        layer.name = f"{base}_{number}" if number else base
    return found


def expect_plain(what, part, known):
    """ValueError for a field that Keras's layer does not have and that is not as where it is left out."""
    for one, value in unsaid(part, known):
        raise ValueError(f"{what}: expected no {one.name}, which Keras's layer does not have, got {describe(value)}")


def inputs_of(network):
    first = network.layers[0]
    if isinstance(first, Embedding):
        return Layer("InputLayer", {"batch_shape": [None, None], "dtype": "int32"}, {})
    weight = first.directions[0].weight_ih if isinstance(first, Recurrent) else first.weight
    return Layer("InputLayer", {"batch_shape": [None, None, weight.shape[1]], "dtype": str(network.dtype)}, {})


def embedding_of(n, layer):
    expect_plain(f"layer {n}", layer, ("weight",))
    V, E = layer.weight.shape
    return Layer("Embedding", {"input_dim": V, "output_dim": E, "mask_zero": False}, {"vars/0": layer.weight})


def dense_of(n, layer):
    expect_plain(f"layer {n}", layer, ("weight", "bias", "activation", "dropout"))
    try:
        activation, _ = written_as(layer.activation)
    except ValueError as error:
        raise ValueError(f"layer {n}: {error}") from None
    arrays = {"vars/0": layer.weight.T} | ({} if layer.bias is None else {"vars/1": layer.bias})
    return Layer("Dense", {"units": layer.width, "activation": activation, "use_bias": layer.bias is not None}, arrays)


def cell_names(n, layer):
    """Keras's recurrent_activation and activation."""
    gates, *others = layer.activations or PLAIN
    if others[0] != others[1]:
        raise ValueError(f"layer {n}: expected one activation of the cell's input and its output, as Keras has, got "
                         f"{others[0]!r} and {others[1]!r}")  # fmt: skip
    names = {key: keras_name(one) for key, one in (("recurrent_activation", gates), ("activation", others[0]))}
    if None in names.values():
        told = f"{', '.join(OF_CELLS)} by Keras 3's formulas"
        raise ValueError(f"layer {n}: expected activations of {told}, got {gates!r} and {others[0]!r}")
    return names


def recurrent_of(n, layer):
    """An LSTM layer, or one of both directions: a Bidirectional of two."""
    if layer.reverse and not layer.last:
        raise ValueError(f"layer {n}: expected the last output alone of a reverse direction, whose outputs Keras gives "
                         "from the last step to the first, got all of them")  # fmt: skip
    expect_plain(f"layer {n}", layer, ("directions", "dropout", "last", "activations", "reverse", "merge"))
    names = cell_names(n, layer)
    bias = any(one.bias is not None for one in layer.directions)
    ways = []
    for one in layer.directions:
        expect_plain(f"layer {n}", one, ("weight_ih", "weight_hh", "bias"))
        G = len(one.weight_hh)
        some = one.bias if one.bias is not None else np.zeros(G, one.weight_hh.dtype)
        ways.append([one.weight_ih.T, one.weight_hh.T, *([some] if bias else [])])
    options = [
        {"units": layer.hidden_size, **names, "use_bias": bias,
         "return_sequences": not layer.last, "return_state": False, "go_backwards": bool(n) or layer.reverse,
         "stateful": False, "unroll": False, "dropout": 0.0, "recurrent_dropout": 0.0}
        for n in range(len(ways))
    ]  # fmt: skip
    if len(ways) == 1:
        return Layer("LSTM", options[0], places("cell/vars", ways[0]))
    inner = [Layer("LSTM", way, {}, name=name) for way, name in zip(options, DIRECTIONS, strict=True)]
    arrays = places("forward_layer/cell/vars", ways[0]) | places("backward_layer/cell/vars", ways[1])
    mode = next(mode for mode, merge in MERGE_MODES.items() if merge == layer.merge)
    return Layer("Bidirectional", {"merge_mode": mode}, arrays, inner=tuple(inner))


def places(path, arrays):
    return {f"{path}/{n}": array for n, array in enumerate(arrays)}


def as_weights(layers, dtype) -> bytes:
    """An HDF5 file: layers/lstm/cell/vars/0, ..., by each class and the number of its kind."""
    h5py, file = h5py_or_why(), io.BytesIO()
    with h5py.File(file, "w") as root:
        root.create_group("vars")  # of the model itself; older versions look for each object's, empty or not
        for layer in layers:
            for inner in ("", *(f"{name}/" for name in ("forward_layer", "backward_layer")[: len(layer.inner)])):
                root.create_group(f"layers/{layer.name}/{inner}vars")
            for place, array in layer.arrays.items():
                root.create_dataset(f"layers/{layer.name}/{place}", data=np.ascontiguousarray(array, dtype))
    return file.getvalue()


def as_archive(layers, network) -> bytes:
    """A .keras file: a zip of configuration, metadata and weights, stored as they are."""
    dtype = str(network.dtype)
    shape = layers[0].options["batch_shape"]
    config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "sequential", "trainable": True, "dtype": dtype,
                   "layers": [layer.config(dtype) for layer in layers], "build_input_shape": shape},
        "build_config": {"input_shape": shape},
    }  # fmt: skip
    notes = {name: value for name, value in network.notes.items() if name not in TURNED}  # not so of this file
    metadata = {"keras_version": VERSION, "cylstm": {"version": __version__, "notes": notes}}
    try:
        parts = {METADATA: json.dumps(metadata), CONFIG: json.dumps(config), WEIGHTS: as_weights(layers, network.dtype)}
    except TypeError as error:
        raise ValueError(f"notes: expected what JSON has, got {describe(network.notes)} ({error})") from None
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(
                zipfile.ZipInfo(name), content
            )  # of one date, so that files of the same model are the same
    return file.getvalue()
