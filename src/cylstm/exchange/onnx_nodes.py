"""The LSTM nodes of ONNX graphs, each with all that the operator has: github.com/onnx/onnx/blob/main/docs/Operators.md.

Gates lie there in the order i, o, f, c, peepholes in the order i, o, f, and of a bias there are two halves, added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cylstm.checks import describe
from cylstm.exchange.network import Direction, Network, Recurrent, short
from cylstm.exchange.onnx_functions import cell_of

__all__ = ["LSTMNode", "gates_from", "gates_to", "node_of", "stack_of", "state_of"]

WEIGHTS = {1: "W", 2: "R", 3: "B", 7: "P"}
OTHERS = {4: "sequence_lens", 5: "initial_h", 6: "initial_c"}
ATTRIBUTES = ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget",
              "layout")  # fmt: skip


@dataclass(frozen=True)
class LSTMNode:
    """One LSTM node, with its weights as in the file: W (D, 4H, I), R (D, 4H, H), B (D, 8H) and P (D, 3H) or None.

    sequence_lens, initial_h, initial_c : arrays, names of what is given from outside or computed, or None
    The others are the operator's attributes; None for those that the node does not have and that have no default.
    place : among the graph's LSTM nodes; behind: the place of the one whose outputs go in, or None
    """

    name: str
    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None = None
    P: np.ndarray | None = None
    sequence_lens: np.ndarray | str | None = None
    initial_h: np.ndarray | str | None = None
    initial_c: np.ndarray | str | None = None
    activations: tuple = ()
    activation_alpha: tuple = ()
    activation_beta: tuple = ()
    clip: float | None = None
    direction: str = "forward"
    hidden_size: int | None = None
    input_forget: int = 0
    layout: int = 0
    place: int = 0
    behind: int | None = None

    def __post_init__(self):
        if self.direction not in ("forward", "reverse", "bidirectional"):
            raise ValueError(
                f"{self.told}: expected a direction forward, reverse or bidirectional, got {self.direction!r}"
            )
        D = 2 if self.direction == "bidirectional" else 1
        H = self.R.shape[-1] if self.R.ndim else 0
        I = self.W.shape[-1] if self.W.ndim else 0
        for name, shape in (("W", (D, 4 * H, I)), ("R", (D, 4 * H, H)), ("B", (D, 8 * H)), ("P", (D, 3 * H))):
            array = getattr(self, name)
            if array is not None and (array.shape != shape or array.dtype.kind != "f" or not array.size):
                raise ValueError(
                    f"{self.told}: expected {name} {shape} of real numbers, got {array.shape} of {array.dtype}"
                )
        if self.hidden_size not in (None, H):
            raise ValueError(f"{self.told}: expected R of {self.hidden_size} hidden units, its hidden_size, got {H}")
        if self.layout not in (0, 1) or self.input_forget not in (0, 1):
            raise ValueError(
                f"{self.told}: expected layout and input_forget of 0 or 1, got {self.layout}, {self.input_forget}"
            )

    @property
    def told(self) -> str:
        """How errors call it."""
        return f"node {self.name} (LSTM)"

    def recurrent(self) -> Recurrent:
        """The layer that it is; its first state is that of the file, and zeros where that comes from outside.

        Raises ValueError for what no layer here has, by its name."""
        if isinstance(self.sequence_lens, np.ndarray):
            raise ValueError(f"{self.told}: expected no sequence_lens in the file, got {self.sequence_lens.tolist()}")
        states = [self.own_state(name) for name in ("initial_h", "initial_c")]
        return self.layer(*states)

    def own_state(self, name) -> np.ndarray | None:
        """(D, H), what all rows begin with as the file says; None for zeros and for what it does not say."""
        array = getattr(self, name)
        if not isinstance(array, np.ndarray):
            return None
        try:
            return state_of(array, name, len(self.W), self.R.shape[2], self.layout)
        except ValueError as error:
            raise ValueError(f"{self.told}: {error}") from None

    def layer(self, h0=None, c0=None) -> Recurrent:
        """The layer with this first state, (D, H) each. Raises ValueError."""
        D = len(self.W)
        try:
            activations = cell_of(self.activations, self.activation_alpha, self.activation_beta, D)
        except ValueError as error:
            raise ValueError(f"{self.told}: {error}") from None
        if self.clip is not None and not (isinstance(self.clip, float) and 0 < self.clip < math.inf):
            raise ValueError(f"{self.told}: expected a clip > 0, or none, got {describe(self.clip)}")
        clip = None if self.clip is None else short(self.clip)
        B, P = self.B, self.P
        return Recurrent(tuple(
            Direction(gates_from(self.W[d]), gates_from(self.R[d]), None if B is None else bias_from(B[d]),
                      None if P is None else peephole_from(P[d]), None if h0 is None else h0[d],
                      None if c0 is None else c0[d])
            for d in range(D)
        ), coupled=bool(self.input_forget), activations=activations, gate_clip=clip,
            reverse=self.direction == "reverse")  # fmt: skip

    def stand_in(self) -> Recurrent:
        """A layer of these sizes, in the place of one that there is not."""
        return Recurrent(tuple(Direction(W, R) for W, R in zip(self.W, self.R, strict=True)))


def state_of(array, name, D, H, layout) -> np.ndarray | None:
    """(D, H), the rows of a first state (D, B, H), or (B, D, H) in layout 1, which must be alike; None for zeros."""
    if not array.any():
        return None
    if array.dtype.kind != "f":
        raise ValueError(f"expected {name} ({D}, B, {H}) of real numbers, got {array.dtype}")
    if array.ndim == 3:
        array = array.swapaxes(0, 1) if layout else array
        if len(array) not in (1, D) or array.shape[2] not in (1, H) or not (array == array[:, :1]).all():
            raise ValueError(f"expected {name} ({D}, B, {H}), the same for all rows, got others")
        array = array[:, 0]
    elif array.size != 1:
        raise ValueError(f"expected {name} ({D}, B, {H}), got {array.shape}")
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1, array.shape[-1] if array.ndim else 1), (D, H)))


def node_of(node, arrays, place=0, behind=None) -> LSTMNode:
    """An LSTM node of a graph. arrays: its inputs by place, where they are known. Raises ValueError."""
    unknown = sorted(set(node.attributes) - {*ATTRIBUTES, "output_sequence"})  # the latter of opset 1, without meaning
    if unknown:
        raise ValueError(f"{node}: expected the attributes of an LSTM, got {', '.join(unknown)}")
    found = {name: arrays.get(n) for n, name in WEIGHTS.items()}
    for n, name in WEIGHTS.items():
        if found[name] is None and (node.given(n) or name in "WR"):
            got = f"{node.inputs[n]!r}, which is not in the file" if node.given(n) else "nothing"
            raise ValueError(f"{node}: expected {name}, its weights, in the file, got {got}")
    for n, name in OTHERS.items():
        found[name] = arrays.get(n, node.inputs[n] if node.given(n) else None)
    for name in ATTRIBUTES:
        value = node.attributes.get(name)
        if value is not None:
            found[name] = tuple(value) if isinstance(value, list) else value
    try:
        return LSTMNode(node.name or node.outputs[0], place=place, behind=behind, **found)
    except (IndexError, TypeError) as error:
        raise ValueError(f"{node}: expected the attributes of an LSTM, got others ({error})") from None


def stack_of(nodes) -> Network:
    """The layers that LSTM nodes form, each behind the one before it. Raises ValueError where one is not."""
    nodes = list(nodes)
    for n, node in enumerate(nodes[1:], 1):
        if node.behind is None or node.behind != nodes[n - 1].place:
            raise ValueError(f"{node.told}: expected a node behind {nodes[n - 1].name}, got one behind others")
    return Network(tuple(node.recurrent() for node in nodes))


# --- orders of gates --------------------------------------------------------------------------------------------------


def gates_from(weight) -> np.ndarray:
    """Rows in the order i, f, g, o from i, o, f, g."""
    i, o, f, g = np.split(weight, 4)
    return np.concatenate([i, f, g, o])


def gates_to(weight) -> np.ndarray:
    """Rows in the order i, o, f, g from i, f, g, o."""
    i, f, g, o = np.split(weight, 4)
    return np.concatenate([i, o, f, g])


def bias_from(both) -> np.ndarray:
    """One bias from its two halves; one of them alone keeps its bits."""
    of_inputs, of_states = np.split(both, 2)
    if not of_states.any():
        return gates_from(of_inputs)
    return gates_from(np.add(of_inputs, of_states, dtype=np.promote_types(both.dtype, np.float32)))


def peephole_from(P) -> np.ndarray:
    """(3, H) of i, f, o from 3H numbers of i, o, f."""
    return P.reshape(3, -1)[[0, 2, 1]]
