"""A network as an ONNX file, in operators that every runtime has: opset 14, IR version 7, layout 0.

A clip and sequence_lens only where they are asked for, and a list of activations only where they are not the usual
ones, since runtimes differ in what they make of those.
"""

from __future__ import annotations

import math

import numpy as np

from cylstm.activations import name_of
from cylstm.checks import describe, flag, one_of
from cylstm.exchange import onnx_notes
from cylstm.exchange.network import (
    TURNED,
    Dense,
    Embedding,
    Recurrent,
    expect_network,
    naming,
    numbered,
    shown,
    tell_turned,
    unsaid,
)
from cylstm.exchange.onnx_file import DOUBLE, FLOAT, INT32, INT64
from cylstm.exchange.onnx_functions import attributes_of
from cylstm.exchange.onnx_nodes import gates_to
from cylstm.exchange.protobuf import encoded
from cylstm.tensor_files import write_atomically
from cylstm.version import __version__

__all__ = ["write"]

IR_VERSION, OPSET = 7, 14
LARGEST = 2**31 - 1  # bytes of a message
# Operators for activations of dense layers, which take our numbers as attributes of the same names.
OPERATORS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softplus": "Softplus", "softsign": "Softsign",
             "selu": "Selu", "exponential": "Exp", "leaky_relu": "LeakyRelu", "elu": "Elu",
             "hard_sigmoid": "HardSigmoid", "thresholded_relu": "ThresholdedRelu"}  # fmt: skip
BOUNDS = {"relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}


def write(network, path, *, states=True, lengths=False, clip=False, dtype=None) -> None:
    """Write a network as an ONNX file, atomically: x (batch, time, I), or ids (batch, time), in; y (batch, time, O), or
    (batch, O) where the last LSTM gives its final state, out.

    states : whether first states h0 and c0 go in and final ones, hn and cn, come out, each (L*D, batch, H) as in
        `State`; all zeros begin a sequence. Without them, sequences begin with the network's own first state.
    lengths : whether lengths (batch), int32, go in. What stands past a row's end in y then means nothing.
    clip : whether a gate_clip may be written, as the operator's clip. Not all runtimes cut what its text says.
    dtype : "float32" or "float64"; None for the network's own, which must be float32: onnxruntime has no LSTM of
        doubles, and "float32" rounds them.

    Dropout, which no file for inference has, and notes stand in the file's metadata, where `read` finds them. With the
    note "log", outputs are logarithms, by LogSoftmax; rows come first, whatever "time_major" says, which is told.
    Raises OSError, TypeError, or ValueError for what ONNX cannot say, by its name.
    """
    expect_network(network)
    states, lengths, clip = flag("states", states), flag("lengths", lengths), flag("clip", clip)
    if dtype is None and network.dtype != np.float32:
        raise ValueError("dtype: expected a network in float32, or dtype='float32' to round it, or 'float64' for "
                         f"runtimes that have an LSTM of doubles, got one in {network.dtype}")  # fmt: skip
    dtype = np.dtype(one_of("dtype", dtype or "float32", ("float32", "float64")))
    with naming(path):
        check(network.layers, [layer for layer in network.layers if isinstance(layer, Recurrent)], states, clip)
        last = getattr(network.layers[-1], "activation", None)
        if network.notes.get("log") and last != "softmax":
            raise ValueError(f"notes: expected log of a network whose last layer is softmax, got {last or 'an LSTM'}")
        content = Writer(network, states, lengths, dtype).content()
        if len(content) > LARGEST:
            raise ValueError(f"network: expected at most {LARGEST} bytes, as ONNX files have, got {len(content)}")
    write_atomically(path, content)
    tell_turned(path, network.notes, kept=("log",))


class Writer:
    """The graph while it grows: nodes and tensors as messages, and the inputs and outputs."""

    def __init__(self, network, states, lengths, dtype):
        self.network, self.states, self.lengths, self.dtype = network, states, lengths, dtype
        self.type = FLOAT if dtype == np.float32 else DOUBLE
        self.nodes, self.tensors, self.inputs, self.outputs = [], {}, [], []
        self.recurrent = [layer for layer in network.layers if isinstance(layer, Recurrent)]
        self.finals = {"hn": [], "cn": []}

    def content(self) -> bytes:
        """The file."""
        self.graph()
        graph = encoded((1, self.nodes), (2, "cylstm"), (5, list(self.tensors.values())), (11, self.inputs),
                        (12, self.outputs))  # fmt: skip
        return encoded(
            (1, IR_VERSION), (2, "cylstm"), (3, __version__), (7, graph), (8, encoded((1, ""), (2, OPSET))),
            (14, self.metadata()),
        )  # fmt: skip

    def metadata(self) -> list[bytes]:
        """Notes, and dropout, as one entry; none where there is nothing to say."""
        notes = {name: value for name, value in self.network.notes.items() if name not in TURNED}
        dropout = [getattr(layer, "dropout", 0.0) for layer in self.network.layers]
        if any(dropout):
            notes["dropout"] = dropout
        return [encoded((1, onnx_notes.KEY), (2, onnx_notes.notes_to(notes)))] if notes else []

    # --- parts of a graph -----------------------------------------------------------------------------------------

    def node(self, op, inputs, output, **attributes) -> str:
        """Add a node of one output, or of several; returns the first."""
        outputs = [output] if isinstance(output, str) else output
        told = [attribute(name, value) for name, value in attributes.items()]
        name = next(filter(None, outputs))
        self.nodes.append(encoded((1, inputs), (2, outputs), (3, name), (4, op), (5, told)))
        return outputs[0]

    def tensor(self, name, array, dtype=None) -> str:
        """Add an array to the file. Two of one name, which are sizes or a number that it says, are the same."""
        array = np.asarray(array, dtype or self.dtype)
        kind = INT64 if array.dtype == np.int64 else self.type
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self.tensors[name] = encoded((1, list(array.shape)), (2, kind), (8, name), (9, raw))
        return name

    def sizes(self, *numbers) -> str:
        """Whole numbers as a tensor."""
        return self.tensor("sizes " + ",".join(map(str, numbers)), np.array(numbers, np.int64), np.int64)

    def number(self, value) -> str:
        """A number as a tensor of shape ()."""
        return self.tensor(f"number {float(value)!r}", value)

    # --- the graph ------------------------------------------------------------------------------------------------

    def graph(self) -> None:
        """All nodes. Between the first LSTM and the last one, steps come first."""
        layers = self.network.layers
        self.begin()
        value, left = "x", len(self.recurrent)
        for n, layer in enumerate(layers):
            name = f"layer{n}"
            if isinstance(layer, Embedding):
                value = self.node(
                    "Gather", [self.tensor(f"{name}.weight", layer.weight), value], f"{name}.rows", axis=0
                )
            elif isinstance(layer, Dense):
                value = self.dense(name, layer, value)
            else:
                if left == len(self.recurrent):
                    value = self.node("Transpose", [value], "time_major", perm=[1, 0, 2])
                left -= 1
                value = self.lstm(name, layer, value, final=not left)
        self.node("Identity", [value], "y")
        last = any(layer.last for layer in self.recurrent)
        self.outputs.append(info("y", self.type, ("batch", *(() if last else ("time",)), layers[-1].width)))
        if self.states and self.recurrent:
            self.end()

    def begin(self) -> None:
        """The inputs."""
        first = self.network.layers[0]
        if isinstance(first, Embedding):
            self.inputs.append(info("x", INT64, ("batch", "time")))
        else:
            weight = first.directions[0].weight_ih if isinstance(first, Recurrent) else first.weight
            self.inputs.append(info("x", self.type, ("batch", "time", weight.shape[1])))
        if self.states and self.recurrent:
            self.inputs += [info(name, self.type, self.state_shape()) for name in ("h0", "c0")]
        if self.lengths:
            self.inputs.append(info("lengths", INT32, ("batch",)))

    def end(self) -> None:
        """The final states of all layers, one behind the other."""
        for name, parts in self.finals.items():
            if len(parts) == 1:
                self.node("Identity", parts, name)
            else:
                self.node("Concat", parts, name, axis=0)
            self.outputs.append(info(name, self.type, self.state_shape()))

    def state_shape(self):
        """(L*D, batch, H)."""
        return sum(len(layer.directions) for layer in self.recurrent), "batch", self.recurrent[0].hidden_size

    def dense(self, name, layer, value) -> str:
        """f(h weight' + bias); behind the last layer of a network whose notes say "log", its logarithm."""
        value = self.node("MatMul", [value, self.tensor(f"{name}.weight", layer.weight.T)], f"{name}.product")
        if layer.bias is not None:
            value = self.node("Add", [value, self.tensor(f"{name}.bias", layer.bias)], f"{name}.sum")
        log = layer is self.network.layers[-1] and bool(self.network.notes.get("log"))
        return self.activation(f"{name}.{name_of(layer.activation)}", layer.activation, value, log)

    def activation(self, name, activation, z, log=False) -> str:
        """f(z), or its logarithm."""
        if activation == "linear":
            return z
        known, numbers = numbered(activation)
        if known in OPERATORS:
            return self.node(OPERATORS[known], [z], name, **numbers)
        if known in BOUNDS:
            return self.node("Clip", [z, *map(self.number, BOUNDS[known])], name)
        if known == "affine":
            scaled = self.node("Mul", [z, self.number(numbers["alpha"])], f"{name}.scaled")
            return self.node("Add", [scaled, self.number(numbers["beta"])], name)
        if known == "scaled_tanh":
            scaled = self.node("Mul", [z, self.number(numbers["beta"])], f"{name}.scaled")
            tanh = self.node("Tanh", [scaled], f"{name}.tanh")
            return self.node("Mul", [tanh, self.number(numbers["alpha"])], name)
        if activation == "softmax":
            return self.node("LogSoftmax" if log else "Softmax", [z], name, axis=-1)
        if activation == "silu":
            return self.node("Mul", [z, self.node("Sigmoid", [z], f"{name}.sigmoid")], name)
        if activation == "gelu_tanh":
            return self.gelu(name, z)
        raise ValueError(f"activation: expected one that ONNX has, got {activation!r}")

    def gelu(self, name, z) -> str:
        """z (1 + tanh(sqrt(2 / pi) z (1 + 0.044715 z^2))) / 2: opset 14 has no operator for it."""
        square = self.node("Mul", [z, z], f"{name}.square")
        small = self.node("Mul", [square, self.number(0.044715)], f"{name}.small")
        factor = self.node("Add", [small, self.number(1.0)], f"{name}.factor")
        cubic = self.node("Mul", [z, factor], f"{name}.cubic")
        inner = self.node("Mul", [cubic, self.number(math.sqrt(2 / math.pi))], f"{name}.inner")
        outer = self.node("Add", [self.node("Tanh", [inner], f"{name}.tanh"), self.number(1.0)], f"{name}.outer")
        half = self.node("Mul", [z, self.number(0.5)], f"{name}.half")
        return self.node("Mul", [half, outer], name)

    # --- an LSTM layer --------------------------------------------------------------------------------------------

    def lstm(self, name, layer, value, final) -> str:
        """One layer on (T, B, I): outputs for the next one, or as they leave the last."""
        D, H = len(layer.directions), layer.hidden_size
        at = len(self.finals["hn"])
        first = self.first_states(name, layer, at * D)
        outputs = [f"{name}.Y", f"{name}.Y_h", f"{name}.Y_c"]
        for kind, output in zip(self.finals.values(), outputs[1:], strict=True):
            kind.append(output)
        options = {"hidden_size": H, **attributes_of(layer.activations, D)}
        if layer.gate_clip is not None:
            options["clip"] = float(layer.gate_clip)
        if D == 2 or layer.reverse:
            options["direction"] = "bidirectional" if D == 2 else "reverse"
        if layer.coupled:
            options["input_forget"] = 1
        inputs = [
            value,
            *self.weights(name, layer),
            "lengths" if self.lengths else "",
            *first,
            self.peephole(name, layer),
        ]
        while not inputs[-1]:
            inputs.pop()
        self.node("LSTM", inputs, outputs, **options)
        return self.merged(name, layer, outputs, final)

    def merged(self, name, layer, outputs, final):
        """Directions side by side: (T, B, D*H) for a layer behind; (B, T, D*H) or (B, D*H) behind the last layer."""
        D, H = len(layer.directions), layer.hidden_size
        source, perm, kept = outputs[0], [2, 0, 1, 3] if final else [0, 2, 1, 3], [0, 0]
        if layer.last:
            source, perm, kept = outputs[1], [1, 0, 2], [0]
        turned = self.node("Transpose", [source], f"{name}.turned", perm=perm)
        return self.node("Reshape", [turned, self.sizes(*kept, D * H)], f"{name}.outputs")

    def weights(self, name, layer):
        """W (D, 4H, I), R (D, 4H, H) and B (D, 8H), whose second half is 0, or none."""
        directions = layer.directions
        W = self.tensor(f"{name}.W", np.stack([gates_to(one.weight_ih) for one in directions]))
        R = self.tensor(f"{name}.R", np.stack([gates_to(one.weight_hh) for one in directions]))
        if all(one.bias is None for one in directions):
            return W, R, ""
        H = layer.hidden_size
        biases = [np.zeros(4 * H, self.dtype) if one.bias is None else gates_to(one.bias) for one in directions]
        both = np.stack([np.concatenate([bias, np.zeros(4 * H, self.dtype)]) for bias in biases])
        return W, R, self.tensor(f"{name}.B", both)

    def peephole(self, name, layer):
        """P (D, 3H) in the order i, o, f, or none."""
        if all(one.peephole is None for one in layer.directions):
            return ""
        H = layer.hidden_size
        rows = [np.zeros((3, H), self.dtype) if one.peephole is None else one.peephole for one in layer.directions]
        return self.tensor(f"{name}.P", np.stack([row[[0, 2, 1]].reshape(-1) for row in rows]))

    def first_states(self, name, layer, at):
        """initial_h and initial_c (D, B, H): rows `at` and on of what is given, or the layer's own for each row."""
        D, H = len(layer.directions), layer.hidden_size
        if self.states:
            if len(self.recurrent) == 1:
                return "h0", "c0"
            ends = [self.sizes(at), self.sizes(at + D), self.sizes(0)]
            return [self.node("Slice", [given, *ends], f"{name}.{given}") for given in ("h0", "c0")]
        found = []
        for kind in ("h0", "c0"):
            own = [getattr(one, kind) for one in layer.directions]
            if all(one is None for one in own):
                found.append("")
                continue
            rows = [np.zeros(H, self.dtype) if one is None else one for one in own]
            batch = self.node("Slice", [self.node("Shape", ["x"], f"{name}.{kind}.shape"), self.sizes(0), self.sizes(1),
                                        self.sizes(0)], f"{name}.{kind}.batch")  # fmt: skip
            shape = self.node("Concat", [self.sizes(D), batch, self.sizes(H)], f"{name}.{kind}.sizes", axis=0)
            own = self.tensor(f"{name}.{kind}.own", np.stack(rows)[:, None])
            found.append(self.node("Expand", [own, shape], f"{name}.{kind}"))
        return found


# What the graph says of each part of a network; dropout stands in the metadata.
SAID = {"directions", "reverse", "coupled", "dropout", "last", "weight_ih", "weight_hh", "bias", "peephole", "h0", "c0",
        "weight", "activation", "activations"}  # fmt: skip
WHY = {"projection": ", as ONNX's LSTM has no projection (proj_size)",
       "cell_clip": ", as ONNX clips the sums of the gates alone",
       "gate_clip": " without clip=True, as not all runtimes cut the sums of the gates as ONNX says"}  # fmt: skip


def check(layers, recurrent, states, clip) -> None:
    """ValueError for what ONNX, or this writer, cannot say."""
    said = SAID | {"gate_clip"} if clip else SAID
    for n, layer in enumerate(layers):
        for part in (layer, *getattr(layer, "directions", ())):
            for one, value in unsaid(part, said):
                told = f"{one.default} in layer {n}{WHY.get(one.name, '')}"
                got = describe(value) if isinstance(value, np.ndarray) else value
                raise ValueError(f"{one.name}: expected {told}, got {got}")
    low, high = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)  # as the attribute is
    for n, layer in enumerate(recurrent):
        bound = layer.gate_clip
        if bound is not None and not low <= bound <= high:
            raise ValueError(f"LSTM layer {n}: expected a gate_clip that float32 has, got {bound:g}")
        own = any(state is not None for one in layer.directions for state in (one.h0, one.c0))
        if states and own:
            raise ValueError(f"LSTM layer {n}: expected no first state of its own, or states=False, got one")
    sizes = sorted({(len(layer.directions), layer.hidden_size) for layer in recurrent})
    if states and len(sizes) > 1:
        got = shown([f"{D} x {H}" for D, H in sizes])
        raise ValueError("LSTM layers: expected one size, so that their states are one array, or states=False, got "
                         f"directions x units of {got}")  # fmt: skip


# --- messages ---------------------------------------------------------------------------------------------------------


def attribute(name, value) -> bytes:
    """An AttributeProto of a whole number, a real one, text, or several of one of them."""
    if isinstance(value, int):
        return encoded((1, name), (3, value), (20, 2))
    if isinstance(value, float):
        return encoded((1, name), (2, value), (20, 1))
    if isinstance(value, str):
        return encoded((1, name), (4, value), (20, 3))
    field, kind = {float: (7, 6), int: (8, 7), str: (9, 8)}[type(value[0])]
    return encoded((1, name), (field, list(value)), (20, kind))


def info(name, kind, shape) -> bytes:
    """A ValueInfoProto; a size that is text may be any."""
    dims = [encoded((2, size)) if isinstance(size, str) else encoded((1, size)) for size in shape]
    tensor_type = encoded((1, kind), (2, encoded((1, dims))))
    return encoded((1, name), (2, encoded((1, tensor_type))))
