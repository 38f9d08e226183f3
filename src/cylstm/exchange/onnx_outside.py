"""What the LSTM nodes of an ONNX graph take from outside beside x: first states and lengths.

A caller gives one `State` (L*D, B, H) for all layers and one `lengths`. So each layer's state must be an input of its
own, or the next rows of one that has those of several layers, in their order; and lengths must be the same for all.
"""

from __future__ import annotations

from cylstm.exchange.onnx_values import PART, Refused, bare

__all__ = ["check_outside", "check_state"]


def check_state(stream, name, D, H, layout) -> None:
    """Refused unless an input of the graph, or a part of it, is a first state (D, B, H), or (B, D, H) in layout 1."""
    told = f"expected {name} ({D}, B, {H}) that is an input, or rows of one"
    if stream.whole:
        raise Refused(f"{told}, got what a Cast makes whole")
    if not stream.axes and stream.cut is None:  # an input that does not say its shape
        return
    if len(stream.axes) != 3:
        raise Refused(f"{told}, got {stream.shape}")
    rows, batch = stream.axes[:2][::-1] if layout else stream.axes[:2]
    units = stream.axes[2]
    sizes = ((stream.shape[1 if layout else 0], D), (stream.shape[2], H))
    right = all(not isinstance(size, int) or size == expected for size, expected in sizes)
    if not right or any(len(bare(group)) > 1 for group in (rows, batch, units)):
        raise Refused(f"{told}, got {stream.shape}")
    if stream.cut is not None and not (
        stream.cut[0] and batch and are_parts(rows, True) and are_parts((*batch, *units), False)
    ):
        raise Refused(f"{told}, got other parts of {stream.source}")


def are_parts(group, expected) -> bool:
    """Whether all atoms are parts of an input's axis, or none of them, as expected."""
    return all(atom.name.startswith(PART) == expected for atom in group)


def rows_of(stream, D):
    """Where the rows of a first state begin and end in its input."""
    if stream.cut is None:
        return 0, D
    _, start, end = stream.cut
    return start, start + D if end is None else end


def check_outside(stream) -> None:
    """Refused unless first states and lengths of all LSTM nodes before an output are those that a caller can give."""
    nodes = [link.outside for link in stream.layers.links() if link.outside is not None]
    roles, ends = {stream.source: "X"}, {}
    for node in nodes:
        for name in ("initial_h", "initial_c"):
            state = getattr(node, name)
            if state is None:
                continue
            start, end = rows_of(state, node.D)
            told = f"{node.node}: expected {name} that is an input of its own, or the next rows of one, as layers go"
            if roles.setdefault(state.source, name) != name:
                raise Refused(f"{told}, got {state.source}, which is {roles[state.source]} of a node, too")
            if start != ends.get(state.source, 0):
                raise Refused(f"{told}, got rows {start}..{end} of {state.source}")
            ends[state.source] = end
    lengths = [None if node.sequence_lens is None else node.sequence_lens.source for node in nodes]
    for node, source in zip(nodes, lengths, strict=True):
        if source != lengths[0] or source in roles:
            raise Refused(f"{node.node}: expected sequence_lens that are an input of their own, the same for all LSTM "
                          f"nodes, got {source or 'none'}")  # fmt: skip
