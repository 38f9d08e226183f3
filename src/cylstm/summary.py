"""A model in a few lines, to be read by a person."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["precision_of_products", "summary"]

TARGETS = {"classes": "classes", "labels": "labels of each row"}  # by what a loss says; numbers otherwise


class Layer(NamedTuple):
    """Parameters that belong together, and what they make of what."""

    name: str
    shapes: list[tuple[int, ...]]
    goes_in: str
    comes_out: str
    products: int  # multiply-adds of its matrix products, per step or per row
    per_row: bool = False
    bytes: int = 0

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes))


def summary(model) -> str:
    """`Model.summary`."""
    layers = layers_of(model)
    rows = [("layer", "in", "out", "parameters", "bytes", "multiply-adds")]
    for layer in layers:
        per_row = " per row" * layer.per_row
        rows.append((layer.name, layer.goes_in, layer.comes_out, f"{layer.parameters:,}",
                     f"{layer.bytes:,}", f"{layer.products:,}{per_row}"))  # fmt: skip
    per_step = sum(layer.products for layer in layers if not layer.per_row)
    rows.append(("all", "", "", f"{model.parameters.size:,}", f"{model.parameters.nbytes:,}", f"{per_step:,} per step"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(f"{cell:{'<' if n < 3 else '>'}{width}}" for n, (cell, width) in
                       enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]  # fmt: skip
    return "\n".join([*heading(model), "", *table, *notes(model)])


def layers_of(model) -> list[Layer]:
    """In the order of the parameters: a group for what shares a name up to its last point, and for each LSTM layer."""
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in model.parameters.layout.items():
        number = re.search(r"_l(\d+)(_reverse)?$", name)
        groups.setdefault(f"lstm l{number[1]}" if number else name.rpartition(".")[0], {})[name] = shape
    if model.tied:
        groups.setdefault("head", {})  # whose weight is the embedding's
    return [
        layer_of(model, name, shapes)._replace(bytes=sum(map(model.parameters.bytes_of, shapes)))
        for name, shapes in groups.items()
    ]


def layer_of(model, name, shapes) -> Layer:
    matrices = [shape for parameter, shape in shapes.items() if ".weight" in parameter]
    if name == "head" and model.tied:
        matrices = [model.parameters.layout["embedding.weight"]]
    O, I = matrices[0]
    products = sum(map(math.prod, matrices))
    kind, _, of = name.partition(".")
    if kind in ("embedding", "embeddings"):
        goes_in = f"column {of} of x" if of else "ids (B, T)"
        return Layer(name, list(shapes.values()), goes_in, f"(B, T, {I})", 0)
    if name.startswith("lstm"):
        O = model.lstm.cell.output_size(model.lstm.hidden_sizes[int(name[6:])], model.lstm.num_directions)
        return Layer(name, list(shapes.values()), f"(B, T, {I})", f"(B, T, {O})", products)
    heads = [model.heads[of]] if kind == "head" else model.heads.values()
    last = kind != "before" and all(head.output == "last" for head in heads)
    steps, tail = ("B",) if last else ("B", "T"), heads[0].tail if kind == "head" else (O,)
    return Layer(name, list(shapes.values()), shape((*steps, I)), shape((*steps, *tail)), products, last)


def heading(model) -> list[str]:
    """What goes in, what comes out, and what the model is made with."""
    features = f"features (B, T, {model.input_size})"
    goes_in = "ids (B, T)" if model.embedding_size is not None else features
    if model.inputs is None:
        goes_in += " or ids (B, T)"
    lstm, drops = model.lstm, {"dropout": model.dropout, **model.lstm.drops.config}
    options = {**drops, **lstm.cell.chosen}
    chosen = [name if value is True else f"{name} {value}" for name, value in options.items() if value]
    lines = [f"Model: {goes_in} -> outputs{':' * ('' not in model.heads)}"]
    for name, head in model.heads.items():
        steps = ("B",) if head.output == "last" else ("B", "T")
        targets = TARGETS.get(head.loss.says, "numbers")
        if not head.loss.of_rows:
            targets += f" {shape((*steps, *head.width))}"
        if name:
            lines.append(f"  {name} {shape((*steps, *head.tail))}, weight {head.weight:g}")
        else:
            lines[0] += f" {shape((*steps, *head.tail))}"
        lines.append(f"{'  ' if name else ''}loss {described(head.loss)}, of targets: {targets}")
    directions = "both directions" if model.bidirectional else "one direction"
    return [*lines, ", ".join([precision_of_products(model), directions, *chosen]) + f"; state {state_of(lstm)}"]


def precision_of_products(model) -> str:
    """And of the weights, where that is another one."""
    return "bfloat16, weights float32" if model.lstm.rounded else model.precision


def state_of(lstm) -> str:
    """The shapes of h and c."""
    h, c = [f"({lstm.num_layers * lstm.num_directions}, B, {width})" for width in (lstm.h_size, lstm.hidden_size)]
    return f"h and c {h}" if h == c else f"h {h} and c {c}"


def shape(sizes) -> str:
    """As NumPy writes it."""
    return f"({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)})"


def described(loss) -> str:
    """Its name, and what it was given."""
    config = loss.config
    if isinstance(config, str):
        return config
    return f"{config['name']} ({', '.join(f'{name} {value}' for name, value in config.items() if name != 'name')})"


def notes(model) -> list[str]:
    """What the numbers of multiply-adds leave out."""
    lines = ["", "multiply-adds: of matrix products, for one step of one row, forward"]
    if model.inputs is None:
        saved = 4 * model.lstm.hidden_sizes[0] * model.input_size * model.lstm.num_directions
        lines.append(f"ids gather rows of the first layer's weights, which saves {saved:,} of them")
    return lines
