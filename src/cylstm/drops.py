"""What training drops, or keeps as it was: the shares that a layer has of it, and the masks that `forward` draws."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from cylstm.checks import describe, one_of, real_in

__all__ = [
    "DROPS", "EACH_GATE", "INPUTS", "OUTPUTS", "PER_ROW", "STATES", "UPDATES", "WEIGHTS", "ZONED_C", "ZONED_H", "Drops",
    "Masks", "OfDrops", "OfLayer",
]  # fmt: skip

# The arguments of `LSTM` and `Model` beside `dropout`, and what they are unless somebody says so.
DROPS = {"dropout_per": "step", "input_dropout": 0.0, "recurrent_dropout": 0.0, "recurrent_dropout_per": "row",
         "weight_drop": 0.0, "update_dropout": 0.0, "zoneout": (0.0, 0.0)}  # fmt: skip

# The masks that a call has, in bits; as in _core/direction.pxd. Zoneout has no masks where nothing is trained, but is.
OUTPUTS, PER_ROW, INPUTS, STATES, WEIGHTS, ZONED_C, ZONED_H, UPDATES, EACH_GATE = (1 << n for n in range(9))


class Masks(NamedTuple):
    """Of one call: 0 where something is dropped, 1/(1-p) elsewhere; None where nothing is.

    inputs (B, I); outputs of all layers but the last, (L-1, N, O) in packed order or, the same at all steps, (L-1, B,
    O); weights (L*D, 4H, Y), of weight_hh; states (L*D, B, Y), of what weight_hh is multiplied by, or, one for each
    gate, (L*D, 4, B, Y); updates (L*D, B, H), of g. Y numbers in h, O in an output. Of zoneout, in packed order, new_c
    bool (L*D, N, H) and new_h (L*D, N, Y): where c and h are not as they were. Where layers have different widths, the
    outputs of all are in one row, layer by layer, and the others but inputs in a list.
    """

    inputs: np.ndarray | None = None
    outputs: np.ndarray | None = None
    weights: np.ndarray | None = None
    states: np.ndarray | None = None
    updates: np.ndarray | None = None
    new_c: np.ndarray | None = None
    new_h: np.ndarray | None = None


class Drops:
    """The shares that the `forward` of a stack of so many layers drops."""

    def __init__(self, layers):
        self.layers, self.shares = layers, {"dropout": 0.0, **DROPS}

    def __getitem__(self, name):
        return self.shares[name]

    def change(self, name, value) -> None:
        """Raises TypeError or ValueError that names it."""
        if name == "dropout_per":
            one_of(name, value, ("step", "sequence"))
            if value != "step" and self.layers == 1:
                raise ValueError(f"dropout_per: expected 'step' with one layer, without dropout, got {value!r}")
        elif name == "recurrent_dropout_per":
            one_of(name, value, ("row", "gate"))
        elif name == "zoneout":
            value = pair_of_shares(name, value)
        else:
            value = real_in(name, value, 0, 1, open_high=True)
            if name == "dropout" and value > 0 and self.layers == 1:
                raise ValueError(f"dropout: expected 0 with one layer, whose outputs are the last ones, got {value:g}")
        self.shares = {**self.shares, name: value}  # another thread may be looking

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that are not as in DROPS."""
        return {name: self.shares[name] for name, value in DROPS.items() if self.shares[name] != value}

    @property
    def drawn(self) -> int:
        """The masks that a call draws, in bits."""
        shares = self.shares
        outputs = OUTPUTS | PER_ROW * (shares["dropout_per"] == "sequence") if shares["dropout"] else 0
        of = {INPUTS: "input_dropout", STATES: "recurrent_dropout", WEIGHTS: "weight_drop", UPDATES: "update_dropout"}
        of_c, of_h = shares["zoneout"]
        zoned = ZONED_C * (of_c > 0) | ZONED_H * (of_h > 0)
        each_gate = EACH_GATE if shares["recurrent_dropout"] and shares["recurrent_dropout_per"] == "gate" else 0
        return zoned | outputs | each_gate | sum(bit for bit, name in of.items() if shares[name])

    def masks(self, kinds, rng, B, N, I, D, sizes, dtype) -> Masks:
        """Masks of these kinds, drawn in the order of their names in `Masks`, for B rows of N steps in all. sizes: H, Y
        and O of each layer."""
        shares, rows, widths = self.shares, B if kinds & PER_ROW else N, [O for _, _, O in sizes[:-1]]
        each = [(H, Y) for H, Y, _ in sizes for _ in range(D)]
        each_gate = (4,) if kinds & EACH_GATE else ()
        outputs = (len(widths), rows, *set(widths)) if len(set(widths)) == 1 else (rows * sum(widths),)
        shapes = {
            "inputs": (INPUTS, "input_dropout", (B, I)),
            "outputs": (OUTPUTS, "dropout", outputs),
            "weights": (WEIGHTS, "weight_drop", in_one([(4 * H, Y) for H, Y in each])),
            "states": (STATES, "recurrent_dropout", in_one([(*each_gate, B, Y) for _, Y in each])),
            "updates": (UPDATES, "update_dropout", in_one([(B, H) for H, _ in each])),
        }
        drawn = {name: mask(rng, shape, shares[share], dtype) for name, (bit, share, shape) in shapes.items()
                 if kinds & bit}  # fmt: skip
        for n, (name, bit) in enumerate({"new_c": ZONED_C, "new_h": ZONED_H}.items()):
            if kinds & bit:
                drawn[name] = kept(rng, in_one([(N, sizes[n]) for sizes in each]), shares["zoneout"][n])
        return Masks(**drawn)


def in_one(shapes):
    """The shape of one array of arrays of these shapes, where they are the same."""
    return (len(shapes), *shapes[0]) if len(set(shapes)) == 1 else shapes


def mask(rng, shape, p, dtype):
    """Zeros in a share p of all places, 1/(1-p) elsewhere (Srivastava et al. 2014). Nobody may write to them:
    backward reads them again. Of several shapes, in a list, several."""
    if isinstance(shape, list):
        return [mask(rng, one, p, dtype) for one in shape]
    kept = rng.random(shape, np.float32) >= p
    values = kept.astype(dtype) / dtype.type(1 - p)
    values.flags.writeable = False
    return values


def kept(rng, shape, p):
    """False in a share p of all places, True elsewhere; read-only. A number costs 8 bits of chance: those that lie
    where p does draw more. Of several shapes, in a list, several."""
    if isinstance(shape, list):
        return [kept(rng, one, p) for one in shape]
    whole, size = int(256 * p), math.prod(shape)
    drawn = rng.integers(0, 1 << 64, (size + 7) // 8, np.uint64).view(np.uint8)[:size]
    values = drawn > whole
    if whole < 256:
        undecided = np.flatnonzero(drawn == whole)
        values[undecided] = rng.random(len(undecided)) >= 256 * p - whole
    values = values.reshape(shape)
    values.flags.writeable = False
    return values


def pair_of_shares(name, value) -> tuple[float, float]:
    """Two numbers in [0, 1]. Raises TypeError or ValueError that names it."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected a pair of shares, of c and of h, got {describe(value)}")
    return tuple(real_in(f"{name}[{n}]", share, 0, 1) for n, share in enumerate(value))


class OfDrops:
    """An attribute of a layer that is one of its `drops`."""

    def __init__(self, doc):
        self.__doc__ = doc

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, owner, kind=None) -> Any:
        return self if owner is None else owner.drops[self.name]

    def __set__(self, owner, value):
        owner._drop(self.name, value)


class OfLayer(OfDrops):
    """The same of a model, whose LSTM has it."""

    def __get__(self, owner, kind=None) -> Any:
        return self if owner is None else getattr(owner.lstm, self.name)

    def __set__(self, owner, value):
        setattr(owner.lstm, self.name, value)
