"""Parameters in fewer bits, of layers that only run: the matrices in 16 or 8 bits a number, everything else in float32.

float16, bfloat16
    The nearest number, of two the even one. A float32 has 24 significant bits, a float16 11 and a bfloat16 8, which has
    float32's range.
int8
    W (rows, columns) = scale (rows,) * q, q = round(W / scale) within -127..127 and scale = largest |W| of the row over
    127: symmetric, a scale per output unit and gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cylstm._core.small_matrix import SmallMatrix, expanded
from cylstm.checks import describe

__all__ = ["PRECISIONS", "SmallParameters", "as_float32", "is_small", "type_of"]

PRECISIONS = "float16", "bfloat16", "int8"
INT8_WIDTH = 65536  # columns at most (cext/kernels.h)
TYPES = {"float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}  # a bfloat16's bits
LARGEST = {"float16": float(np.finfo(np.float16).max), "bfloat16": float(np.uint32(0x7F7F0000).view(np.float32)),
           "int8": float(np.finfo(np.float32).max)}  # fmt: skip


def as_float32(name: str, given) -> np.ndarray:
    """Contiguous. Raises ValueError where finite numbers are beyond it."""
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(given, np.float32)
    if given.dtype != values.dtype and (np.isinf(values) & np.isfinite(given)).any():
        most = np.abs(given[np.isfinite(given)]).max()
        raise ValueError(f"{name}: expected numbers that float32 holds, got {most:g}")
    return values


def is_small(name: str) -> bool:
    """Whether it is one of the matrices that are kept in fewer bits: of a layer's gates, of embeddings, dense layers
    and heads."""
    last = name.rpartition(".")[2]
    return last == "weight" or last.startswith(("weight_ih", "weight_hh"))


def type_of(name: str, precision: str) -> np.dtype:
    """Of a parameter as it is kept."""
    return np.dtype(TYPES[precision] if is_small(name) else np.float32)


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 -> the upper halves of the nearest numbers whose lower halves are 0, as uint16; all of them finite."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def as_int8(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (rows, columns) -> q (rows, columns) and the scales (rows,), 1 for a row of zeros."""
    scales = np.abs(values).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1
    # of rows of subnormal numbers, scales are so coarse that q would go beyond
    return np.clip(np.rint(values / scales[:, None]), -127, 127).astype(np.int8), scales


def check_width(name: str, shape) -> None:
    """ValueError for a matrix of so many columns that int8's sums go beyond 32 bits; rows of embeddings are no sums."""
    if is_small(name) and not name.startswith("embedding") and shape[1] > INT8_WIDTH:
        raise ValueError(f"{name}: expected at most {INT8_WIDTH} columns for int8, got {shape[1]}")


class SmallParameters(Mapping):
    """A mapping from names to values, in float32 and read-only: of matrices, what their few bits stand for."""

    def __init__(self, layout: dict[str, tuple[int, ...]], precision: str, stored: dict, scales: dict):
        self.layout, self.precision, self.stored, self.scales = dict(layout), precision, stored, scales
        self.in_order = tuple(self.layout.items())
        self.dtype = np.dtype(np.float32)
        self._operands, self._names, start = {}, {}, 0
        for name, shape in self.layout.items():
            self._names[start] = name
            start += math.prod(shape)
        self.size = start
        for arrays in (stored, scales):
            for array in arrays.values():
                array.flags.writeable = False

    @classmethod
    def of(cls, parameters: Mapping, precision: str) -> SmallParameters:
        """float32 or float64 parameters in this precision. Raises ValueError for numbers that it cannot hold."""
        stored, scales = {}, {}
        layout = {name: np.shape(values) for name, values in parameters.items()}
        for name, given in parameters.items():
            values = as_float32(name, given)
            if not is_small(name):
                stored[name] = values.copy()
                continue
            if precision == "int8":
                check_width(name, values.shape)
            most = float(np.abs(values).max(initial=0))
            if not most <= LARGEST[precision]:
                raise ValueError(f"{name}: expected numbers within -{LARGEST[precision]:g}..{LARGEST[precision]:g}, "
                                 f"which {precision} holds, got {most:g}")  # fmt: skip
            if precision == "int8":
                stored[name], scales[name] = as_int8(values)
            else:
                stored[name] = values.astype(np.float16) if precision == "float16" else as_bfloat16(values)
        return cls(layout, precision, stored, scales)

    def checked(self) -> SmallParameters:
        """Itself. Raises ValueError where numbers of matrices, which kernels rely on, are none that `of` makes."""
        for name in filter(is_small, self.layout):
            values = self.stored[name]
            if self.precision == "int8":
                check_width(name, values.shape)
                scales = self.scales[name]
                with np.errstate(over="ignore"):
                    right = (scales > 0) & np.isfinite(scales * np.float32(127))
                if not right.all() or (values == -128).any():
                    raise ValueError(f"{name}: expected numbers within -127..127 and scales of finite ones, got others")
            elif not (np.isfinite(values) if values.dtype == np.float16 else values & 0x7F80 != 0x7F80).all():
                raise ValueError(f"{name}: expected finite numbers, got others")
        return self

    def raw(self, name: str | None = None) -> np.ndarray:
        """One parameter, or all of them in the order of the layout, in float32."""
        if name is None:
            return np.concatenate([self.raw(each).ravel() for each in self.layout])
        values = self.numbers(name)
        return values * self.scales[name][:, None] if name in self.scales else values

    def numbers(self, name: str) -> np.ndarray:
        """The same without its scales: of int8, whole numbers."""
        return expanded(self.stored[name])

    def rows(self, name: str, ids) -> np.ndarray:
        """Rows of a matrix by their numbers (...): (..., columns) in float32."""
        values = expanded(self.stored[name][ids])
        return values * self.scales[name][ids][..., None] if name in self.scales else values

    def operand(self, name: str):
        """A matrix as the head's products take it."""
        if name not in self.scales and self.stored[name].dtype == np.float32:
            return self.stored[name]
        if name not in self._operands:
            self._operands[name] = SmallMatrix(self.precision, self.stored[name], self.scales.get(name))
        return self._operands[name]

    def child(self, prefix: str) -> SmallParameters:
        """The parameters whose names begin with `prefix`, without it, on the same memory. Raises KeyError where there
        are none."""
        parts = [
            {name[len(prefix) :]: value for name, value in whole.items() if name.startswith(prefix)}
            for whole in (self.layout, self.stored, self.scales)
        ]
        if not parts[0]:
            raise KeyError(prefix)
        return SmallParameters(parts[0], self.precision, *parts[1:])

    def at(self, start: int) -> str:
        """The name of what begins at this place of `raw()`."""
        return self._names[start]

    @property
    def flat(self) -> np.ndarray:
        """All values, as `raw()` has them."""
        return self.raw()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(map(self.bytes_of, self.layout))

    def bytes_of(self, name: str) -> int:
        """Those that one parameter takes."""
        return sum(arrays[name].nbytes for arrays in (self.stored, self.scales) if name in arrays)

    def version(self) -> int:
        """0: they never change."""
        return 0

    def watch(self) -> None:
        """Nothing is to be watched."""

    def touch(self) -> None:
        """Raises TypeError."""
        raise TypeError(f"parameters: expected float32 or float64, to be changed, got {describe(self.precision)}")

    def __getitem__(self, name: str) -> np.ndarray:
        self.layout[name]  # a KeyError for others
        values = self.raw(name).view()
        values.flags.writeable = False
        return values

    def __reduce__(self):
        return SmallParameters, (self.layout, self.precision, self.stored, self.scales)

    __eq__, __hash__ = object.__eq__, object.__hash__  # which parameters they are, not what they hold

    def __iter__(self):
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name} {shape}" for name, shape in self.layout.items())
        return f"SmallParameters({inside}; {self.precision})"
