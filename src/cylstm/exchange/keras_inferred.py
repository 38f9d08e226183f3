"""Layers of a Keras file that has weights alone, as far as their shapes say which they are."""

from __future__ import annotations

from cylstm.checks import describe
from cylstm.exchange.keras_layers import Planned, Told

__all__ = ["inferred"]

MORE = "config= (the text of Keras's model.to_json()), which says more"
PARTS = {"embedding": ("",), "dense": ("",), "time_distributed": ("layer",), "lstm": ("cell",),
         "bidirectional": ("forward_layer/cell", "backward_layer/cell")}  # fmt: skip
# What a layer's weights are called, and the class of the layer.
ROLES = {("embeddings",): "embedding", ("kernel",): "dense", ("kernel", "bias"): "dense",
         ("kernel", "recurrent_kernel"): "lstm", ("kernel", "recurrent_kernel", "bias"): "lstm"}  # fmt: skip


def inferred(inventory, told: Told, ordered: bool) -> list[Planned]:
    """The layers of an inventory (`Weights.inventory`): LSTM layers, of one or two directions, an embedding before them
    and one dense layer behind them. ordered: whether they come in the model's order.

    Raises ValueError, by their names, for layers whose shapes leave open what they do.
    """
    plan = [layer_of(name, base, shapes) for name, base, shapes in inventory]  # and their inputs
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
    inputs = {layer.name: width for layer, width in plan}
    if dense and not (ordered or tables) and fits_before_and_behind(dense[0], recurrent, inputs):
        raise ValueError(f"{dense[0].name}: expected {MORE}, as it fits before and behind the LSTM")
    told.yours.append("weights alone: LSTM layers are taken to have tanh and sigmoid, to run forward and to hand on "
                      f"all steps{', a dense layer to have no activation' if dense else ''}; {MORE}")  # fmt: skip
    return wanted


def fits_before_and_behind(dense, recurrent, inputs):
    return dense.units == inputs[recurrent[0].name] and inputs[dense.name] == recurrent[-1].units


def told_of(plan):
    return ", ".join(f"{layer.kind} {layer.name}" for layer, _ in plan)[:200] or "none"


def layer_of(name, base, shapes):
    """(Planned, its inputs) of one group's shapes, by the names of its weights or, with a class, by their places."""
    if base:
        base, role, first = of_places(base, shapes)
    else:
        base, role, first = of_names(shapes)
    if role is None:
        raise ValueError(f"{name}: expected an embedding, a dense layer or an LSTM, got {describe(shapes)}")
    return planned_of(name, base, role, first)


def of_names(shapes):
    """(class, names of one part's weights, their shapes); (..., None, ...) of another layer."""
    names = tuple(path.rsplit("/", 1)[-1].removesuffix(":0") for path in shapes)
    half = len(names) // 2
    both = half > 1 and names[:half] == names[half:]
    role = names[:half] if both else names
    base = ROLES.get(role)
    if both:
        base = "bidirectional" if base == "lstm" else None
    return base, role if base else None, list(shapes.values())[: len(role)]


def of_places(base, shapes):
    """The same where a layer's class is known, and its weights have numbers in place of names."""
    one = {"bidirectional": "lstm", "time_distributed": "dense"}.get(base, base)
    places = [f"{part}/vars/".lstrip("/") for part in PARTS.get(base, ())]
    parts = [[shape for path, shape in shapes.items() if path.startswith(place)] for place in places]
    fitting = [role for role, of in ROLES.items() if parts and of == one and len(role) == len(parts[0])]
    whole = fitting and sum(map(len, parts)) == len(shapes)
    return base, fitting[0] if whole else None, parts[0] if parts else []


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
