"""What is ours in reading Keras's files, as a function of bytes: configurations, and the inventory of weights alone.

HDF5 itself is libhdf5's to read, which falls over damaged files now and then; what it hands on is made up here, of the
shapes that were asked for.
"""

import contextlib
import json
import warnings

import numpy as np

from cylstm import exchange
from cylstm.exchange.keras import as_json, network_of
from cylstm.exchange.keras_config import planned
from cylstm.exchange.keras_inferred import inferred
from cylstm.exchange.keras_layers import Told

MOST = 1 << 16  # numbers in one array
KERAS_2, KERAS_3, ALONE, ALONE_IN_ORDER = range(4)


def inventory_of(text):
    """Names, classes and shapes, from lines like "lstm lstm cell/vars/0:3,16 cell/vars/1:4,16"."""
    for line in text.split("\n"):
        name, _, rest = line.partition(" ")
        base, *places = rest.split(" ")
        shapes = {}
        for place in places:
            path, _, sizes = place.rpartition(":")
            shapes[path] = tuple(int(size) for size in sizes.split(",") if size.isdecimal() and len(size) < 6)
        yield name, base, shapes


def arrays_for(plan):
    """Arrays for the layers of a plan, or None where they are large; inputs as many as the layer before gives."""
    found, width = [], 3
    for layer in plan:
        shapes = {name: tuple(width if n is None else n for n in shape) for name, shape in layer.arrays.items()}
        if any(np.prod([float(n) for n in shape]) > MOST for shape in shapes.values()):
            return None
        found.append([{name: np.ones(shape, np.float32) for name, shape in shapes.items()} for _ in layer.parts])
        width = layer.units[1] if layer.kind == "Embedding" else layer.units * len(layer.parts)
    return found


def keras(data):
    """A plan of layers, the network of its arrays, and the model of that."""
    mode, text = data[0] % 4, data[1:].decode("utf-8", "replace")
    with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
        told = Told(major=2 if mode == KERAS_2 else 3)
        if mode in (KERAS_2, KERAS_3):
            plan = planned(as_json(text, "config.json"), told)
        else:
            plan = inferred(list(inventory_of(text)), told, mode == ALONE_IN_ORDER)
        told.text()
        arrays = arrays_for(plan)
        if arrays is not None:
            exchange.model_of(network_of(plan, arrays, {}))


def layer(class_name, name, *calls, **options):
    tensors = [{"config": {"keras_history": [one, 0, 0]}} for one in calls]
    return {"class_name": class_name, "name": name, "config": {"name": name, **options},
            "inbound_nodes": [{"args": tensors, "kwargs": {"training": False}}] if calls else []}  # fmt: skip


def seeds():
    cell = dict(units=4, activation="tanh", recurrent_activation="sigmoid", return_sequences=True, dropout=0.1)
    layers = [
        layer("InputLayer", "in", batch_shape=[None, None]),
        layer("Embedding", "e", "in", input_dim=7, output_dim=3, mask_zero=True),
        layer("Bidirectional", "b", "e", merge_mode="concat", layer=layer("LSTM", "f", **cell)),
        layer("Dropout", "d", "b", rate=0.5),
        layer("LSTM", "l", "d", **cell | dict(activation="hard_sigmoid")),
        layer("TimeDistributed", "t", "l", layer=layer("Dense", "x", units=5, activation=layer("ELU", "y", alpha=1.0))),
        layer("Dense", "z", "t", units=2),
        layer("LeakyReLU", "r", "z", negative_slope=0.01),
    ]
    two = [{**one, "inbound_nodes": [[[node["args"][0]["config"]["keras_history"][0], 0, 0, {}]] for node in
                                     one["inbound_nodes"]]} for one in layers]  # fmt: skip
    ends = {"input_layers": [["in", 0, 0]], "output_layers": [["r", 0, 0]]}
    functional = [{"class_name": "Functional", "config": {"layers": some, **ends}} for some in (layers, two)]
    sequential = {"class_name": "Sequential", "config": {"layers": layers}}
    texts = [(KERAS_3, functional[0]), (KERAS_2, functional[1]), (KERAS_3, sequential)]
    alone = "lstm lstm cell/vars/0:3,16 cell/vars/1:4,16 cell/vars/2:16\ndense dense vars/0:4,2 vars/1:2"
    old = "e  e/embeddings:0:7,3\nl  l/kernel:0:3,16 l/recurrent_kernel:0:4,16\nd  d/kernel:0:4,2 d/bias:0:2"
    return [
        *(bytes([mode]) + json.dumps(config, separators=(",", ":")).encode() for mode, config in texts),
        bytes([ALONE]) + alone.encode(),
        bytes([ALONE_IN_ORDER]) + old.encode(),
    ]
