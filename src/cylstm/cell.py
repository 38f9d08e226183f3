"""The cell, described once: which parameters a layer has, and its variants.

Layouts, offsets, initial weights, files and PyTorch's names all come from PARAMETERS: a variant that brings a parameter
adds a row here, and its equations in cell_oracle.py; where the kernels have to know of it, a bit in cext/kernels.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from cylstm._core.memory import LARGEST
from cylstm.activations import PLAIN, as_cell
from cylstm.checks import describe, flag, one_of, positive_int, real_in
from cylstm.init import forget_gate, gain_and_shift, mostly_carried, ones, orthogonal_gates, uniform, zeros

__all__ = [
    "MERGES", "PARAMETERS", "VARIANTS", "CellType", "check_stack", "hidden_sizes", "initialise", "layout", "offsets",
    "one_or_each", "parameters_of",
]  # fmt: skip

SUFFIXES = "", "_reverse"  # of the names of a layer's directions
MOST_LAYERS = 10_000
MERGES = "concat", "sum", "mean", "product"  # as in _core/direction.pxd

# Layer norms by name, and whether the next step gets the normalised c: Ba, Kiros & Hinton 2016, and PyTorch's
# LayerNormLSTMCell (custom_lstms).
LAYER_NORMS = {"ba": False, "torchscript": True}
EPS = 1e-5  # beside a variance, where nothing else is said
LEAST_EPS = 1e-12


def as_layer_norm(argument: str, given):
    """A name of LAYER_NORMS, a pair of it and eps where that is not EPS, or None. Raises TypeError or ValueError."""
    if given is None:
        return None
    parts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (tuple, list)) else ()
    if len(parts) not in (1, 2) or not isinstance(parts[0], str) or parts[0] not in LAYER_NORMS:
        raise ValueError(f"{argument}: expected one of {', '.join(map(repr, LAYER_NORMS))}, a pair of it and eps, or "
                         f"None, got {describe(given)}")  # fmt: skip
    name, eps = str(parts[0]), real_in(f"{argument}[1]", parts[1] if len(parts) == 2 else EPS, LEAST_EPS, 1.0)
    return name if eps == EPS else (name, eps)


@dataclass(frozen=True)
class CellType:
    """Which cell a layer has; the defaults are the plain one.

    peepholes: i and f see the cell state before the step, o the one after it (Gers, Schraudolph & Schmidhuber 2002).
    coupled: f = 1 - i, whatever f's own weights are (Greff et al. 2017). cell_clip: the cell state stays within
    -cell_clip..cell_clip (Sak, Senior & Beaufays 2014); None for no bounds. activations: of the gates i, f and o, of g,
    and of c in h, as cylstm.activations has them; None for sigmoid, tanh, tanh. gate_clip: what the gates and g are
    functions of stays within -gate_clip..gate_clip (ONNX). first_state: what begins, begins with a state that is
    learnt, not with zeros. reverse: the only direction runs from the end of each row to its start. proj_size: P, with
    which h = R_p (o tanh c) has P numbers, 0 < P < H (Sak, Senior & Beaufays 2014); 0 for no projection. proj_clip:
    these stay within -proj_clip..proj_clip (TensorFlow's LSTMCell). layer_norm: which of LAYER_NORMS, or a pair of it
    and eps; None for none. merge: how two directions give the outputs of their layer, one of MERGES. residual: whether
    what goes into a layer, from the second one on, is added to its outputs (Wu et al. 2016). highway: whether its
    outputs are mixed with what goes into it, as a gate says (Srivastava, Greff & Schmidhuber 2015).
    """

    bias: bool = True
    peepholes: bool = False
    coupled: bool = False
    cell_clip: float | None = None
    activations: tuple | None = None
    gate_clip: float | None = None
    first_state: bool = False
    reverse: bool = False
    proj_size: int = 0
    proj_clip: float | None = None
    layer_norm: str | tuple | None = None
    merge: str = "concat"
    residual: bool = False
    highway: bool = False

    @classmethod
    def checked(cls, dtype, *, cell_clip, activations, gate_clip, proj_size, proj_clip, layer_norm, merge,
                **switches) -> CellType:  # fmt: skip
        """Raises TypeError or ValueError that names the argument."""
        info = np.finfo(dtype)
        numbers = {
            name: None if clip is None else real_in(name, clip, float(info.tiny), float(info.max))
            for name, clip in (("cell_clip", cell_clip), ("gate_clip", gate_clip), ("proj_clip", proj_clip))
        }
        numbers["proj_size"] = positive_int("proj_size", proj_size, 0)
        if proj_clip is not None and not numbers["proj_size"]:
            raise ValueError(f"proj_clip: expected None without proj_size, got {proj_clip:g}")
        merge = str(one_of("merge", merge, MERGES))
        activations, layer_norm = as_cell("activations", activations), as_layer_norm("layer_norm", layer_norm)
        if layer_norm is not None and switches["peepholes"]:
            raise ValueError(f"layer_norm: expected None for a cell with peepholes, got {layer_norm!r}")
        numbers.update(activations=activations, layer_norm=layer_norm, merge=merge)
        return cls(**{name: flag(name, value) for name, value in switches.items()}, **numbers)

    @property
    def all_activations(self) -> tuple:
        """The three of `activations`, whichever they are."""
        return self.activations or PLAIN

    def width(self, H: int) -> int:
        """How many numbers h has, of H hidden units: Y, which are P with a projection and H without. Raises TypeError
        or ValueError that names proj_size."""
        P = positive_int("proj_size", self.proj_size, 0)
        if P >= H:
            raise ValueError(f"proj_size: expected less than hidden_size, {H}, got {P}")
        return P or H

    def output_size(self, H: int, D: int) -> int:
        """How many numbers an output has, of D directions: O, which is D*Y, or Y where directions are merged."""
        return self.width(H) * (D if self.merge == "concat" else 1)

    @property
    def norm(self) -> tuple[bool, float]:
        """Of layer norms: whether the next step gets the normalised c, and eps."""
        kind, eps = (self.layer_norm, EPS) if isinstance(self.layer_norm, str) else self.layer_norm
        return LAYER_NORMS[kind], eps

    @property
    def variant(self) -> dict:
        """What VARIANTS are."""
        return {name: getattr(self, name) for name in VARIANTS}

    @property
    def chosen(self) -> dict:
        """Those of them that are not as in the plain cell."""
        return {name: value for name, value in self.variant.items() if value != getattr(type(self), name)}

    @property
    def flags(self) -> int:
        """The bits of cext/kernels.h."""
        squeezed = self.gate_clip is not None
        activated = squeezed or self.activations is not None
        return (self.peepholes | self.coupled << 1 | (self.cell_clip is not None) << 2 | activated << 3 | squeezed << 4
                | (self.layer_norm is not None) << 5)  # fmt: skip


# The arguments of `LSTM` that say which cell it is.
VARIANTS = tuple(field.name for field in fields(CellType) if field.name != "bias")


def hidden_sizes(hidden_size, L) -> tuple[int, ...]:
    """H of each layer, from one for all L or, in a list or tuple, one for each, which may say how many there are where
    L is 1. Raises TypeError or ValueError."""
    several, L = isinstance(hidden_size, (list, tuple)), positive_int("num_layers", L)
    most = max(L, len(hidden_size)) if several else L
    if most > MOST_LAYERS:
        raise ValueError(f"num_layers: expected at most {MOST_LAYERS}, got {most}")
    if not several:
        return (positive_int("hidden_size", hidden_size),) * L
    if not hidden_size or L not in (1, len(hidden_size)):
        told = f"for each of {L} layers" if L > 1 else "for each layer"
        raise ValueError(f"hidden_size: expected one, or one {told}, got {len(hidden_size)}")
    return tuple(positive_int(f"hidden_size[{n}]", one) for n, one in enumerate(hidden_size))


def check_stack(cell: CellType, sizes, D) -> None:
    """ValueError for what cannot lie between layers of these widths, or be made of so many directions."""
    if cell.reverse and D == 2:
        raise ValueError("reverse: expected False for a bidirectional layer, which has such a direction, got True")
    if cell.merge != "concat" and D == 1:
        raise ValueError(f"merge: expected 'concat' without bidirectional=True, got {cell.merge!r}")
    if cell.highway and cell.merge != "concat":
        raise ValueError(f"merge: expected 'concat' with highway=True, got {cell.merge!r}")
    if cell.highway and cell.residual:
        raise ValueError("highway: expected False with residual=True, which adds the same inputs, got True")
    for name in ("residual", "highway"):
        if getattr(cell, name) and len(sizes) == 1:
            raise ValueError(f"{name}: expected False with one layer, which has none below it, got True")
        if getattr(cell, name) and not cell.proj_size and len(set(sizes)) > 1:
            raise ValueError(f"{name}: expected False for layers of different widths, {sizes}, got True")


def one_or_each(sizes):
    """H of all layers where that is one, else as they are."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


class Row(NamedTuple):
    """One parameter of each layer and direction.

    shape: of its I inputs, H hidden units and the Y numbers of h. initial: fills an array in place. torch: what
    torch.nn.LSTM calls it, several names where its parts are summed, as its biases are.
    """

    name: str
    shape: Callable[[int, int, int], tuple[int, ...]]
    initial: Callable
    torch: tuple[str, ...]
    belongs: Callable[[CellType], bool] = lambda cell: True
    above: bool = False  # layers above the first one alone have it


PARAMETERS = (
    Row("weight_ih", lambda I, H, Y: (4 * H, I), uniform, ("weight_ih",)),
    Row("weight_hh", lambda I, H, Y: (4 * H, Y), orthogonal_gates, ("weight_hh",)),
    Row("bias", lambda I, H, Y: (4 * H,), forget_gate, ("bias_ih", "bias_hh"), lambda cell: cell.bias),
    Row("peephole", lambda I, H, Y: (3, H), zeros, ("peephole",), lambda cell: cell.peepholes),  # of i, f, o
    Row("weight_hr", lambda I, H, Y: (Y, H), uniform, ("weight_hr",), lambda cell: cell.proj_size > 0),
    Row("norm_ih", lambda I, H, Y: (4 * H,), ones, ("norm_ih",), lambda cell: cell.layer_norm is not None),
    Row("norm_hh", lambda I, H, Y: (4 * H,), ones, ("norm_hh",), lambda cell: cell.layer_norm is not None),
    # gain and shift of c
    Row("norm_c", lambda I, H, Y: (2, H), gain_and_shift, ("norm_c",), lambda cell: cell.layer_norm is not None),
    Row("highway_weight", lambda I, H, Y: (Y, I), uniform, ("highway_weight",), lambda cell: cell.highway, True),
    Row("highway_bias", lambda I, H, Y: (Y,), mostly_carried, ("highway_bias",), lambda cell: cell.highway, True),
    Row("h0", lambda I, H, Y: (Y,), zeros, ("h0",), lambda cell: cell.first_state),
    Row("c0", lambda I, H, Y: (H,), zeros, ("c0",), lambda cell: cell.first_state),
)


class Parameter(NamedTuple):
    """A row in one layer and direction, which `ending` names."""

    name: str
    shape: tuple[int, ...]
    row: Row
    ending: str

    @property
    def torch(self) -> list[str]:
        """Under which names torch.nn.LSTM has it."""
        return [name + self.ending for name in self.row.torch]


def parameters_of(I, H, L, D, cell: CellType) -> Iterator[Parameter]:
    """In the order of the flat buffer: layer by layer, direction by direction. H: as `hidden_sizes` takes it, here and
    below."""
    for layer, width in enumerate(hidden_sizes(H, L)):
        Y = cell.width(width)
        for suffix in SUFFIXES[:D]:
            for row in PARAMETERS:
                if row.belongs(cell) and (layer > 0 or not row.above):
                    ending = f"_l{layer}{suffix}"
                    yield Parameter(row.name + ending, row.shape(I, width, Y), row, ending)
        I = cell.output_size(width, D)


def layout(I, H, L, D, cell: CellType) -> dict[str, tuple[int, ...]]:
    """Names and shapes. Raises ValueError for more columns than a product can have."""
    widest = max(hidden_sizes(H, L))
    if max(I, 4 * (widest + 16)) > LARGEST:
        raise ValueError(f"input_size, hidden_size: expected less than {LARGEST}, got {I}, {widest}")
    return {parameter.name: parameter.shape for parameter in parameters_of(I, H, L, D, cell)}


def offsets(I, H, L, D, cell: CellType) -> np.ndarray:
    """Where in the flat buffer each row of PARAMETERS lies, intp (L*D, rows); -1 for one that the cell has not."""
    found = np.full((L * D, len(PARAMETERS)), -1, np.intp)
    end, n, last = 0, -1, None
    for parameter in parameters_of(I, H, L, D, cell):
        n, last = n + (parameter.ending != last), parameter.ending
        found[n, PARAMETERS.index(parameter.row)] = end
        end += math.prod(parameter.shape)
    return found


def initialise(values, I, H, L, D, cell: CellType, forget_bias: float, rng) -> None:
    """values: Parameters of this layout."""
    for parameter in parameters_of(I, H, L, D, cell):
        parameter.row.initial(values.raw(parameter.name), forget_bias, rng)
    values.touch()
