"""An ONNX graph read node by node, each of which gives a known array, a layer's outputs, or what cannot be read.

What cannot be read is an error only where the network's output comes of it, and then names the node.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cylstm.exchange import onnx_dense, onnx_notes, onnx_pieces, onnx_shapes
from cylstm.exchange.network import TURNED, Dense, Embedding, Network, Recurrent
from cylstm.exchange.onnx_file import File
from cylstm.exchange.onnx_formulas import activation_of
from cylstm.exchange.onnx_lstm import lstm
from cylstm.exchange.onnx_outside import check_outside
from cylstm.exchange.onnx_values import Atom, Pile, Refused, Size, Stream, Unknown, bare, merged_feature

__all__ = ["Graph"]

WRONG = (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError)  # of hostile nodes
LEAST_MEMORY = 1 << 24  # bytes that constants may take beside the file's own
OPERATORS = {**onnx_shapes.OPERATORS, **onnx_pieces.OPERATORS, **onnx_dense.OPERATORS, "LSTM": lstm}


class Graph:
    """The values of a file's graph by name, and its LSTM nodes (a ValueError where one cannot be read)."""

    def __init__(self, file: File):
        self.file, self.opset = file, file.opset
        self.left = LEAST_MEMORY + 8 * file.size
        self.lstm_nodes, self.layers, self.places = [], [], {}
        self.values = {given.name: input_of(given) for given in file.inputs}
        for node in file.nodes:
            self.run(node)

    def spend(self, size) -> None:
        """Refused where constants would take more memory than a file of this size has a use for."""
        if size > self.left:
            raise Refused("expected constants of about the file's size, got more")
        self.left -= int(size)

    def place_of(self, layer) -> int | None:
        """The place among LSTM nodes of the one that a layer was made of."""
        return self.places.get(id(layer))

    def note_place(self, layer, place) -> None:
        """Remember of which LSTM node a layer, which is kept, was made."""
        self.layers.append(layer)
        self.places[id(layer)] = place

    def value_of(self, name):
        """What a name stands for; None for an input that is left out."""
        if not name:
            return None
        if name not in self.values and name in self.file.tensors:
            try:
                self.values[name] = self.loaded(self.file.tensors[name])
            except OSError as error:
                self.values[name] = Unknown(f"tensor {name}: {error.filename}: {error.strerror}")
            except ValueError as error:
                self.values[name] = Unknown(str(error))
        if name not in self.values:
            return Unknown(f"{name}: expected the output of a node before it, got no such name")
        return self.values[name]

    def loaded(self, tensor) -> np.ndarray:
        """A tensor's array; what stands in another file counts as the file's own."""
        array = tensor.array()
        self.left += 8 * array.nbytes if tensor.external is not None else 0
        return array

    def run(self, node) -> None:
        """The values of a node's outputs."""
        values = []
        try:
            values = [self.value_of(name) for name in node.inputs]
            found = self.outputs_of(node, values)
        except Refused as error:
            found = Unknown(f"{node}: {error}")
        except WRONG as error:
            told = str(error) or type(error).__name__
            found = Unknown(told if told.startswith(f"{node}: ") else f"{node}: expected what it takes, got {told}")
        before = next((value.unread for value in values if isinstance(value, Stream) and value.unread), "")
        if before and isinstance(found, Unknown):
            found = Unknown(before)
        several = found if isinstance(found, tuple) else (found,) * len(node.outputs)
        self.values.update((name, value) for name, value in zip(node.outputs, several, strict=False) if name)

    def outputs_of(self, node, values):
        """One value, or a tuple of them."""
        if node.domain not in ("", "ai.onnx"):
            raise Refused(f"expected an operator of ONNX itself, got one of {node.domain}")
        unknown = next((value for value in values if isinstance(value, Unknown)), None)
        if unknown is not None and node.op != "LSTM":
            return unknown
        if values and node.op in onnx_shapes.ON_ARRAYS and all(isinstance(value, np.ndarray) for value in values):
            return onnx_shapes.ON_ARRAYS[node.op](self, node, values)
        if node.op not in OPERATORS:
            raise Refused("expected an operator that a model here has, got another")
        return OPERATORS[node.op](self, node, values)

    # --- layers ---------------------------------------------------------------------------------------------------

    def embedding(self, node, table, ids):
        """Rows of a table (V, E)."""
        if not (isinstance(table, np.ndarray) and table.ndim == 2 and node.attributes.get("axis", 0) == 0):
            raise Refused("expected rows (V, E) of a table in the file, got something else")
        if ids.layers or ids.cut is not None:
            raise Refused("expected ids that are an input, got what layers make of one")
        atom = Atom(f"E of {node}", table.shape[1])
        return replace(ids, whole=False).behind(Embedding(table), axes=(*ids.axes, (atom,)), feature=(atom,))

    def dense(self, stream, weight, bias=None):
        """The layer with weights (F, O)."""
        stream = onnx_dense.settled(stream)
        if not (isinstance(weight, np.ndarray) and weight.ndim == 2):
            raise Refused("expected weights (F, O) in the file, got something else")
        if not merged_feature(stream):
            raise Refused("expected one step's numbers along the last axis, got others")
        size = stream.shape[-1]
        if isinstance(size, int) and size != len(weight):
            raise Refused(f"expected weights for {size} numbers, got {weight.shape}")
        self.spend(weight.nbytes)
        layer = Dense(np.ascontiguousarray(weight.T), bias)
        atom = Atom(f"output {stream.depth}", layer.width)
        return stream.behind(layer, feature=(atom,), axes=(*stream.axes[:-1], (atom,)))

    # --- the network ----------------------------------------------------------------------------------------------

    def network(self, output=None) -> Network:
        """The network of an output by name, or of the one that is no state. Raises ValueError."""
        names = [given.name for given in self.file.outputs]
        if output is not None and output not in names:
            raise ValueError(f"output: expected one of {', '.join(names)}, got {output!r}")
        values = {name: self.value_of(name) for name in names if output in (None, name)}
        chosen = output if output is not None else self.only_output(values)
        value = values[chosen]
        if isinstance(value, Unknown):
            raise ValueError(value.reason)
        if not isinstance(value, Stream) or not value.layers:
            raise ValueError(f"output {chosen}: expected outputs of layers, got something else")
        if value.unread:
            raise ValueError(value.unread)
        try:
            stream = onnx_dense.settled(value)
            check_output(stream)
            check_outside(stream)
            layers = layers_of(stream)
        except Refused as error:
            raise ValueError(f"output {chosen}: {error}") from None
        notes = self.notes(stream)
        if "dropout" in notes:
            layers = onnx_notes.with_dropout(layers, notes.pop("dropout"))
        return Network(layers, notes)

    def only_output(self, values):
        """The name of the output that is no final state; of a graph that has nothing else, of the first."""
        names = [name for name, value in values.items() if not is_state(value)]
        unread = [value for value in values.values() if isinstance(value, Unknown)]
        if len(unread) == len(values) > 0:
            raise ValueError(unread[0].reason)
        if len(names) > 1:
            raise ValueError(f"output: expected the name of one output, as there are several: {', '.join(names)}")
        if not values:
            raise ValueError("graph: expected an output, got none")
        return names[0] if names else next(iter(values))

    def notes(self, stream) -> dict:
        """What the file says beside the layers: what `write` put there, and what the graph alone decides: "time_major"
        where steps are the input's first axis, "log" where its outputs are logarithms of the network's."""
        notes = {}
        if onnx_notes.KEY in self.file.metadata:
            notes |= onnx_notes.notes_from(self.file.metadata[onnx_notes.KEY])
            notes = {name: value for name, value in notes.items() if name not in TURNED}  # the graph says them
        first = next(input_of(given).axes for given in self.file.inputs if given.name == stream.source)[:1]
        if stream.time and stream.time in first:
            notes["time_major"] = True
        return notes | ({"log": True} if stream.log else {})


def input_of(given) -> Stream:
    """An input of the graph: numbers, ids, a state or lengths, as its use will tell. Sizes of any number have names."""
    axes = []
    for n, size in enumerate(given.shape or ()):
        name = f"{given.name}.{n}"
        known = isinstance(size, int) and size > 0
        axes.append((Atom(name, size if known else Size(1, [name])),))
    return Stream(given.name, tuple(axes))


def layers_of(stream) -> tuple:
    """The layers of an output; an LSTM of which only the final state goes on is `last`. Raises Refused for
    what no activation is."""
    found, final = [], stream.final
    for link in reversed(stream.layers.links()):
        layer = link.last
        if final and isinstance(layer, Recurrent):
            layer, final = replace(layer, last=True), False
        if link.formula is not None:
            layer = replace(layer, activation=activation_of(link.formula))
        final = final or link.final
        found.append(layer)
    return tuple(reversed(found))


def check_output(stream) -> None:
    """Refused unless an output has rows, steps and one step's numbers, in whatever order of axes."""
    atoms = bare(atom for group in stream.axes for atom in group)
    numbers = tuple(atom for atom in atoms if atom in stream.feature)
    outer = {*(stream.time or ()), *(stream.batch or ())}
    if numbers != bare(stream.feature) or (stream.time is not None and set(atoms) - outer - set(numbers)):
        raise Refused(f"expected rows, steps and one step's numbers, got axes of {stream.shape}")


def is_state(value) -> bool:
    """Whether this is a final state, which every model gives beside its outputs."""
    return isinstance(value, Pile) or (isinstance(value, Stream) and value.kind in "hc")
