"""Layers of a Keras file that has weights alone, as far as their shapes say which they are."""

from __future__ import annotations

from cylstm.checks import describe
from cylstm.exchange.keras_layers import Planned, Told

__all__ = ["inferred"]

MORE = "config= (the text of Keras's model.to_json()), which says more"
PARTS = {"embedding": ("",), "dense": ("",), "time_distributed": ("layer",), "lstm": ("cell",),
         "bidirectional": ("forward_layer/cell", "backward_layer/cell")}  # fmt: skip
ROLES = (["embeddings"], ["kernel"], ["kernel", "bias"], ["kernel", "recurrent_kernel"],
         ["kernel", "recurrent_kernel", "bias"])  # fmt: skip


def inferred(inventory, told: Told, ordered: bool) -> list[Planned]:
    """The layers of an inventory (`Weights.inventory`): LSTM layers, of one or two directions, an embedding before them
    and one dense layer behind them. ordered: whether they come in the model's order.

    Raises ValueError, by their names, for layers whose shapes leave open what they do.
    """
    plan = [layer_of(name, base, shapes) for name, base, shapes in inventory]
    tables, recurrent, dense = (
        [layer for layer, _ in plan if layer.kind in kinds]
        for kinds in (("Embedding",), ("LSTM", "CuDNNLSTM", "Bidirectional"), ("Dense",))
    )
    if not recurrent or len(tables) > 1 or len({layer.kind for layer in recurrent}) > 1:
        raise ValueError(f"expected LSTM layers of one kind and one embedding at most, or {MORE}, got {told_of(plan)}")
    if len(dense) > 1 or (dense and recurrent[0].kind == "Bidirectional"):
        raise ValueError(f"{dense[-1].name}: expected {MORE}, as activations, and which outputs of an LSTM go on, are "
                         "not among the weights")  # fmt: skip
    wanted = [*tables, *recurrent, *dense]
    if ordered and [layer for layer, _ in plan] != wanted:
        raise ValueError(f"expected an embedding, LSTM layers, a dense layer, or {MORE}, got {told_of(plan)}")
    widths = {id(layer): inputs for layer, inputs in plan}
    if dense and not ordered and not tables and dense[0].units == widths[id(recurrent[0])] and (
        widths[id(dense[0])] == recurrent[-1].units
    ):  # fmt: skip
        raise ValueError(f"{dense[0].name}: expected {MORE}, as it fits before and behind the LSTM")
    told.yours.append("weights alone: LSTM layers are taken to have tanh and sigmoid and to hand on all steps"
                      f"{', a dense layer to have no activation' if dense else ''}; {MORE}")  # fmt: skip
    return wanted


def told_of(plan):
    return ", ".join(f"{layer.kind} {layer.name}" for layer, _ in plan)[:200] or "none"


def layer_of(name, base, shapes):
    """(Planned, its inputs) of one group's shapes by the names of its weights, or by their places."""
    if base:
        parts = PARTS.get(base, ())
        split = [
            [shape for path, shape in shapes.items() if path.startswith(f"{part}/vars/".lstrip("/"))] for part in parts
        ]
        roles = [role for role in ROLES if len(role) == len(split[0]) and fits(base, role)] if split else []
        if not roles or sum(map(len, split)) != len(shapes):
            raise ValueError(f"{name}: expected an embedding, a dense layer or an LSTM, got {describe(shapes)}")
        role = roles[0]
    else:
        names = [path.rsplit("/", 1)[-1].removesuffix(":0") for path in shapes]
        both = len(names) > 3 and names[: len(names) // 2] == names[len(names) // 2 :]
        role = names[: len(names) // 2] if both else names
        flat = list(shapes.values())
        split = [flat[: len(role)], flat[len(role) :]] if both else [flat]
        if role not in ROLES:
            raise ValueError(f"{name}: expected an embedding, a dense layer or an LSTM, got {', '.join(names)[:200]}")
        base = (
            "bidirectional"
            if both
            else "lstm"
            if "recurrent_kernel" in role
            else "dense"
            if "kernel" in role
            else "embedding"
        )
    return planned_of(name, base, role, split[0])


def fits(base, role):
    """Whether a group of a class can have arrays of these roles."""
    return ("recurrent_kernel" in role) == (base in ("lstm", "bidirectional")) and (
        ("embeddings" in role) == (base == "embedding")
    )


def planned_of(name, base, role, shapes):
    first = shapes[0]
    ranks = [1 if one == "bias" else 2 for one in role]
    if [len(shape) for shape in shapes] != ranks:
        raise ValueError(f"{name}: expected {', '.join(role)} of {ranks} dimensions, got shapes {shapes}")
    bias = "bias" in role
    if base == "embedding":
        return Planned(name, "Embedding", base, PARTS[base], first), first[0]
    if "recurrent_kernel" not in role:
        return Planned(name, "Dense", base, PARTS[base], first[1], bias), first[0]
    H = shapes[1][0]
    if first[1] != 4 * H:
        raise ValueError(f"{name}: expected the (I, 4*H) and (H, 4*H) of an LSTM, got {first} and {shapes[1]}")
    kind = "Bidirectional" if base == "bidirectional" else "LSTM"
    if kind == "LSTM" and bias and shapes[2] == (8 * H,):
        kind = "CuDNNLSTM"
    return Planned(name, kind, base, PARTS[base], H, bias), first[0]
