"""The arrays of Keras's HDF5 files: those of layers by their place (Keras 3) or by their names (the older form).

Nothing is read before its shape is what a layer needs, and its bytes are in the file; links to other files and datasets
made of others' are refused, as Keras does.
"""

from __future__ import annotations

import contextlib
import math
import re

import numpy as np

from cylstm.checks import describe
from cylstm.exchange.keras_attributes import text_lengths
from cylstm.exchange.keras_layers import Planned
from cylstm.exchange.network import shown

__all__ = ["Weights", "h5py_or_why", "major_of", "opened", "why"]

# Files compressed by other tools: zeros take next to nothing, but no layer is made of them alone.
MOST_EXPANSION = 64
SMALL = 1 << 20  # bytes
MOST_OF_A_LIST = 1 << 16  # bytes; Keras cuts what is longer into several attributes
SNAKE = re.compile(r"(\w+?)(?:_(\d+))?")


def h5py_or_why():
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"Keras's files: expected h5py (pip install 'cylstm[keras]'), got: {error}") from None
    return h5py


@contextlib.contextmanager
def damage():
    """What h5py raises for a damaged file, all as a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except (AttributeError, ArithmeticError, LookupError, OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"expected an HDF5 file of Keras, got a damaged one or another ({why(error)})") from None


def why(error) -> str:
    """What another's library says, in a line."""
    return shown([str(error)]) or type(error).__name__


@contextlib.contextmanager
def opened(file):
    """The `Weights` of an open file. Raises ValueError for what is no HDF5, or damaged."""
    h5py, size = h5py_or_why(), file.seek(0, 2)
    if not size:
        raise ValueError("expected a file of Keras, got an empty one")
    with damage():
        root = h5py.File(file, "r")
    try:
        with damage():
            weights = Weights(h5py, root, file, size)
        yield weights
    finally:
        with contextlib.suppress(Exception):  # of a damaged file, which was told
            root.close()


class Weights:
    """An open file. `old`: whether layers are named, in attributes, else they are numbered by class."""

    def __init__(self, h5py, root, file, size):
        self.h5py, self.root, self.file, self.size = h5py, root, file, size
        self.left = size  # bytes that are not yet any layer's
        self.top = self.group(root, "model_weights") if "model_weights" in root else root
        self.old = "layer_names" in self.top.attrs or "layer_names0" in self.top.attrs
        if not self.old:
            names = [name for name in ("_layer_checkpoint_dependencies", "layers") if name in root]
            if not names:
                raise ValueError("expected groups of layers, as Keras writes them, got none")
            self.top = self.group(root, names[0])

    def config(self) -> str | None:
        """The text of the model's configuration, which older files may have."""
        with damage():
            return self.text(self.root, "model_config")

    def version(self) -> str | None:
        """Keras's version that an older file tells."""
        with damage():
            return self.text(self.top, "keras_version") or self.text(self.root, "keras_version")

    def text(self, group, name):
        """An attribute that is one text, or None where there is none."""
        if name not in group.attrs:
            return None
        claim = group.attrs.get_id(name)
        if claim.shape != () or self.bytes_of_texts(group, name, claim, "text") > self.size:
            raise ValueError(f"{name}: expected one text, got {claim.dtype} {describe_shape(claim.shape)}")
        value = group.attrs[name]
        return value.decode("utf-8") if isinstance(value, bytes) else value

    def names(self, group, name) -> list[str]:
        """An attribute that lists names, in pieces where it was too long for one."""
        pieces = [name] if name in group.attrs else []
        while pieces[:1] != [name] and f"{name}{len(pieces)}" in group.attrs:
            pieces.append(f"{name}{len(pieces)}")
        found = []
        for piece in pieces:
            claim = group.attrs.get_id(piece)
            if claim.shape is not None and 0 in claim.shape:  # of any type
                continue
            if self.bytes_of_texts(group, piece, claim, "names") > MOST_OF_A_LIST:
                raise ValueError(f"{name}: expected at most {MOST_OF_A_LIST} bytes in one attribute, got more")
            found += np.ravel(group.attrs[piece]).tolist()
        return [one.decode("utf-8") if isinstance(one, bytes) else one for one in found]

    def bytes_of_texts(self, group, name, claim, expected) -> int:
        """How many bytes reading an attribute takes. ValueError for one that is no texts."""
        kind = None if claim.shape is None else self.h5py.check_string_dtype(claim.dtype)
        if kind is None:
            raise ValueError(f"{name}: expected {expected}, got {claim.dtype} {describe_shape(claim.shape)}")
        if kind.length is not None:
            return claimed_bytes(claim)
        return sum(text_lengths(self.file, self.h5py, group, name, math.prod(claim.shape)))

    # --- what stands where --------------------------------------------------------------------------------------------

    def group(self, parent, name):
        """A group by its path, through no link."""
        return self.inner(parent, name, self.h5py.Group)

    def inner(self, parent, path, kind):
        for name in path.split("/") if path else ():
            link = parent.get(name, getlink=True) if isinstance(parent, self.h5py.Group) else None
            if link is None:
                raise ValueError(f"expected {path[:200]} in {parent.name}, got none")
            if not isinstance(link, self.h5py.HardLink):
                raise ValueError(f"{path}: expected weights in the file itself, got a link")
            parent = parent[name]
        if not isinstance(parent, kind):
            raise ValueError(f"{path}: expected a {kind.__name__.lower()}, got a {type(parent).__name__.lower()}")
        return parent

    def shape(self, dataset) -> tuple[int, ...]:
        """The shape of a dataset whose bytes are in the file. ValueError for any other."""
        name = dataset.name
        if dataset.is_virtual or dataset.external:
            raise ValueError(f"{name}: expected weights in the file itself, got those of other files")
        if dataset.dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(f"{name}: expected real numbers, got {dataset.dtype}")
        shape, stored = dataset.shape, dataset.id.get_storage_size()
        claimed, chunk = claimed_bytes(dataset), math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if not stored or not claimed or max(claimed, chunk) > MOST_EXPANSION * stored + SMALL:
            told = f"a chunk of {describe_shape(dataset.chunks)}" if chunk > claimed else describe_shape(shape)
            raise ValueError(f"{name}: expected as many bytes as {told} takes, got {stored}")
        return shape

    def read(self, dataset, expected) -> np.ndarray:
        shape = self.shape(dataset)
        if len(shape) != len(expected) or any(n not in (None, m) for n, m in zip(expected, shape, strict=True)):
            raise ValueError(f"{dataset.name}: expected shape {describe_shape(expected)}, got {describe_shape(shape)}")
        self.left -= dataset.id.get_storage_size()
        if self.left < 0:
            raise ValueError(f"{dataset.name}: expected weights of its own, got those of another layer again")
        return np.asarray(dataset[()])

    def datasets(self, layer: Planned, group) -> list[dict]:
        """The datasets of a layer's parts, by the names that Keras gives to their weights."""
        expected = list(layer.arrays)
        if self.old:
            paths = self.names(group, "weight_names")
            found = [(path.rsplit("/", 1)[-1].removesuffix(":0"), path) for path in paths]
        else:
            paths = [f"{part}/vars".lstrip("/") for part in layer.parts]
            kept = [(path, sorted(self.group(group, path))) for path in paths]
            if any(names != [str(n) for n in range(len(expected))] for _, names in kept):
                raise ValueError(f"{layer.name}: expected {len(expected)} arrays in {', '.join(paths)}, got "
                                 f"{describe(dict(kept))}")  # fmt: skip
            found = [(name, f"{path}/{n}") for path in paths for n, name in enumerate(expected)]
        if [name for name, _ in found] != expected * len(layer.parts):
            raise ValueError(f"{layer.name}: expected {', '.join(expected * len(layer.parts))}, got "
                             f"{', '.join(name for name, _ in found) or 'nothing'}")  # fmt: skip
        opened = [(name, self.inner(group, path, self.h5py.Dataset)) for name, path in found]
        return [dict(opened[n : n + len(expected)]) for n in range(0, len(opened), len(expected))]

    def of(self, plan: list[Planned]) -> list[list[dict[str, np.ndarray]]]:
        """For each layer, and each of its parts, its arrays by Keras's names. Raises ValueError."""
        with damage():
            if not self.old:
                groups = self.by_number(plan)
            else:
                groups = self.by_name(plan) if "model_config" in self.root.attrs else self.by_order(plan)
            return [
                [{name: self.read(dataset, layer.arrays[name]) for name, dataset in part.items()}
                 for part in self.datasets(layer, group)]
                for layer, group in zip(plan, groups, strict=True)
            ]  # fmt: skip

    def inventory(self) -> list[tuple[str, str, list[dict]]]:
        """What a file without a configuration tells: (name, class or "", shapes by their paths) of each group with
        weights, in the model's order where that is kept."""
        with damage():
            numbered = self.numbered()
            order = self.names(self.top, "layer_names") if self.old else [n for some in numbered.values() for n in some]
            found = [(name, self.shapes(self.group(self.top, name))) for name in order]
            bases = {} if self.old else {name: base for base, names in numbered.items() for name in names}
            return [(name, bases.get(name, ""), shapes) for name, shapes in found if shapes]

    def shapes(self, group) -> dict[str, tuple[int, ...]]:
        """Shapes by names of weights, or by paths; without the states of generators of random numbers."""
        if self.old:
            paths = self.names(group, "weight_names")
        else:
            paths = []
            group.visititems(lambda path, one: paths.append(path) if isinstance(one, self.h5py.Dataset) else None)
        kept = [path for path in paths if "seed_generator" not in path.split("/")]
        return {path: self.shape(self.inner(group, path, self.h5py.Dataset)) for path in kept}

    def by_name(self, plan):
        known = set(self.names(self.top, "layer_names"))
        for layer in plan:
            if layer.name not in known:
                others = ", ".join(sorted(known))
                raise ValueError(f"{layer.name}: expected weights of this layer, got those of {others[:200]}")
        return [self.group(self.top, layer.name) for layer in plan]

    def by_order(self, plan):
        """Of a file whose layers may be called otherwise than those of the configuration that came beside it."""
        groups = [self.group(self.top, name) for name in self.names(self.top, "layer_names")]
        groups = [group for group in groups if self.names(group, "weight_names")]
        if len(groups) != len(plan):
            raise ValueError(f"expected weights of {len(plan)} layers, got those of {len(groups)}")
        return groups

    def numbered(self) -> dict[str, list[str]]:
        """Names of groups by class, in the order of their numbers: lstm, lstm_1; of Keras 2.13 lstm, lstm_2."""
        found = {}
        for name in self.top:
            match = SNAKE.fullmatch(name)
            base, number = (match[1], int(match[2] or 0)) if match else (name, 0)
            found.setdefault(base, []).append((number, name))
        return {base: [name for _, name in sorted(several)] for base, several in found.items()}

    def by_number(self, plan):
        numbered = self.numbered()
        for base in dict.fromkeys(layer.group for layer in plan):
            layers, there = sum(layer.group == base for layer in plan), len(numbered.get(base, ()))
            if layers != there:
                raise ValueError(f"layers: expected {layers} groups called {base}, got {there}")
        ordered = {base: iter(names) for base, names in numbered.items()}
        return [self.group(self.top, next(ordered[layer.group])) for layer in plan]


def major_of(version) -> int | None:
    """2 or 3, of the text of a version; None where there is none. Raises ValueError for Keras 1, whose weights are
    others, and for what nobody knows yet."""
    found = re.match(r"([23])(?![0-9])", version) if isinstance(version, str) else None
    if found is None and version is not None:
        raise ValueError(f"expected a file of Keras 2 or 3, got one of Keras {shown([str(version)])}")
    return None if found is None else int(found[1])


def claimed_bytes(what) -> int:
    """Bytes that a dataset, or an attribute of no variable length, says it has."""
    return 0 if what.shape is None else math.prod(what.shape) * what.dtype.itemsize


def describe_shape(shape) -> str:
    """As NumPy does, of any dimensions too."""
    told = ", ".join("any" if n is None else str(n) for n in shape or ())
    return f"({told},)" if len(shape or ()) == 1 else f"({told})"
