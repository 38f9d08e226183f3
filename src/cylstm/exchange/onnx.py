"""ONNX files (https://onnx.ai): networks in and out, and the LSTM nodes of any graph, without the package `onnx`."""

from __future__ import annotations

from cylstm.exchange.network import Network
from cylstm.exchange.onnx_file import read_file
from cylstm.exchange.onnx_graph import Graph
from cylstm.exchange.onnx_nodes import LSTMNode, stack_of
from cylstm.exchange.onnx_values import LONGEST
from cylstm.exchange.onnx_write import write

__all__ = ["LSTMNode", "read", "read_nodes", "stack_of", "write"]


def read(path, *, output=None) -> Network:
    """The network of a file's graph: Gather of a table, MatMul or Gemm with Add and activations, LSTM, and what only
    moves axes (Transpose, Reshape, Squeeze, Slice, ...) around them.

    output : the name of the output to read; None for the one that is no final state. The graph's inputs are ids or
    numbers, and, if it likes, first states and lengths. Notes: "time_major" is true where the first axis of the input
    is steps, "log" where the file's last operator is LogSoftmax; the network's outputs are (B, T, O) and probabilities.

    Raises OSError, or ValueError, which names the file and the node, for what no network says.
    """
    file = read_file(path)
    try:
        return Graph(file).network(output)
    except ValueError as error:
        raise ValueError(f"{file.path}: {in_a_line(error)}") from None


def read_nodes(path) -> list[LSTMNode]:
    """The LSTM nodes of a file's graph, whatever else it has, each with its weights and all attributes of the operator.

    `node.recurrent()` is the layer that one is, and `stack_of(nodes)` the network of several, each behind the one
    before. Raises OSError, or ValueError where weights are not in the file.
    """
    file = read_file(path)
    nodes = Graph(file).lstm_nodes
    wrong = next((node for node in nodes if isinstance(node, ValueError)), None)
    if wrong is not None:
        raise ValueError(f"{file.path}: {in_a_line(wrong)}")
    return nodes


def in_a_line(error) -> str:
    """What is wrong, with names that may be a stranger's, of any length and of any characters."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(error)[:LONGEST])
    return shown if len(shown) < LONGEST else f"{shown[:LONGEST]}..."
