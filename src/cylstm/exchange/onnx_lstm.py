"""An LSTM node in an ONNX graph: what goes in, and its three outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cylstm.exchange.onnx_dense import settled
from cylstm.exchange.onnx_nodes import node_of, state_of
from cylstm.exchange.onnx_outside import check_state
from cylstm.exchange.onnx_values import Atom, Filled, Outside, Refused, Size, Stream, Unknown, bare, merged_feature

__all__ = ["lstm"]


def lstm(run, node, values):
    """Y, Y_h and Y_c of an LSTM node, which is noted with the graph's others."""
    values = values + [None] * (8 - len(values))
    X, lens, h, c = values[0], values[4], values[5], values[6]
    place = len(run.lstm_nodes)
    run.lstm_nodes.append(None)
    arrays = {n: value for n, value in enumerate(values) if isinstance(value, np.ndarray)}
    last = X.last if isinstance(X, Stream) else None
    try:
        unread = [values[n].reason for n in (1, 2, 3, 7) if isinstance(values[n], Unknown)]
        if unread:
            raise Refused(f"expected its weights in the file, got what cannot be read: {unread[0]}")
        run.spend(2 * sum(value.nbytes for value in arrays.values()))
        found = node_of(node, arrays, place, run.place_of(last))
    except ValueError as error:
        told = str(error) if str(error).startswith(str(node)) else f"{node}: {error}"
        run.lstm_nodes[place] = ValueError(told)
        return Unknown(told)
    run.lstm_nodes[place] = found
    if isinstance(X, Unknown):
        X = anything(X.reason, node)
    X = settled(X)
    axes = check_axes(X, found.layout, found.W.shape[2])
    D, H = len(found.W), found.R.shape[2]
    outside = None
    try:
        own, given = zip(*(first_state(*one, found) for one in ((h, "initial_h"), (c, "initial_c"))), strict=True)
        outside = Outside(str(node), D, *given, lengths_of(lens, axes[0]))
        layer = found.layer(*own)
    except ValueError as error:
        told = str(error) if str(error).startswith(str(node)) else f"{node}: {error}"
        layer, X = found.stand_in(), replace(X, unread=X.unread or told)
    run.note_place(layer, place)
    directions = Atom(f"directions of {node}", D), Atom(f"units of {node}", H)
    ragged = outside is not None and outside.sequence_lens is not None
    made = X.behind(layer, outside, feature=directions, directions=directions, time=axes[0], batch=axes[1],
                    recurrent=layer, ragged=ragged)  # fmt: skip
    time, batch = axes
    one, units = directions[:1] if D == 2 else (), directions[1:]
    Y = (batch, time, one, units) if found.layout else (time, one, batch, units)
    final = (batch, one, units) if found.layout else (one, batch, units)
    return (made.with_axes(Y), replace(made, kind="h").with_axes(final), replace(made, kind="c").with_axes(final))


def anything(reason, node) -> Stream:
    """What stands for an input that could not be read."""
    axes = [(Atom(f"{n} of {node}", Size(1, [f"{n} of {node}"])),) for n in "012"]
    return Stream("", tuple(axes), unread=reason)


def check_axes(X, layout, I):
    """The groups of steps and rows of an LSTM's input (T, B, I), or (B, T, I) in layout 1."""
    if len(X.axes) != 3 or not merged_feature(X):
        raise Refused(f"expected X of 3 axes, the last of them one step's numbers, got {X.shape}")
    time, batch = X.axes[:2][::-1] if layout else X.axes[:2]
    if len(bare(time)) > 1 or len(bare(batch)) > 1:
        raise Refused(f"expected X (T, B, I), got axes that are joined: {X.shape}")
    if X.time is not None and (bare(time), bare(batch)) != (bare(X.time), bare(X.batch)):
        raise Refused("expected steps and rows as the LSTM before it has them, got others")
    size = X.shape[2]
    if isinstance(size, int) and size != I:
        raise Refused(f"expected {I} numbers in each step of X, got {size}")
    return time, batch


def lengths_of(lens, time) -> Stream | None:
    """Lengths that are given from outside; those of a file must be all steps."""
    if lens is None:
        return None
    if isinstance(lens, Stream) and not lens.layers and lens.cut is None and len(lens.axes) < 2:
        return lens
    steps = time[0].size if time else 1
    found = lens.array if isinstance(lens, Filled) else lens
    if isinstance(found, np.ndarray) and all(one == steps for one in found.reshape(-1).tolist()):
        return None
    raise Refused("expected sequence_lens that are an input, or all steps, got others")


def first_state(value, name, node):
    """(D, H), what all rows begin with, or None for zeros; and what is given from outside, or None."""
    if value is None:
        return None, None
    if isinstance(value, Unknown):
        raise Refused(f"expected {name} from outside, or in the file, got what cannot be read: {value.reason}")
    D, H = len(node.W), node.R.shape[2]
    if isinstance(value, Stream) and not value.layers:
        check_state(value, name, D, H, node.layout)
        return None, value
    array = value.array if isinstance(value, Filled) else value
    if not isinstance(array, np.ndarray):
        raise Refused(f"expected {name} from outside, or in the file, got what other nodes make")
    return state_of(array, name, D, H, node.layout), None
