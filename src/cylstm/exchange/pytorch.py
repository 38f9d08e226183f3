"""PyTorch's state dicts: safetensors files, `.pt` files through torch's own reader, or mappings in memory.

A state dict has weights alone: which layer stands before which, and what activations are between them, is in the code
of its module, so `read` is told. `weight_ih_l0` and its like are those of `torch.nn.LSTM`, or of `nn.LSTMCell` without
the number; gates lie as ours do (i, f, g, o), and the two biases, which are only ever added up, become one.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile

import numpy as np

from cylstm.activations import as_activation, name_of
from cylstm.cell import SUFFIXES
from cylstm.checks import describe, flag, one_of, path_name, plain_array
from cylstm.exchange.network import (
    WEIGHTS,
    Dense,
    Direction,
    Embedding,
    Network,
    Recurrent,
    expect_alike,
    expect_plain,
    naming,
    parted,
    shown,
    tell_left_out,
)
from cylstm.tensor_files import expect_file, open_safetensors, write_atomically

__all__ = ["forms_of", "named_arrays", "read", "state_dict", "write"]

DEPTH = 8  # of mappings within mappings that are looked into


@dataclass
class States:
    """A state dict's shapes by name, how one array is had, and which were asked for."""

    shapes: dict[str, tuple[int, ...]]
    get: Callable[[str], np.ndarray]
    taken: set[str] = field(default_factory=set)

    def array(self, name: str) -> np.ndarray:
        """float32 or float64, of float16 and bfloat16 the same numbers. Raises ValueError where there is none."""
        if name not in self.shapes:
            raise ValueError(f"expected a tensor {name}, got {self.told()}")
        self.taken.add(name)
        return self.get(name)

    def told(self) -> str:
        """That none of the tensors is what was expected, with their names."""
        return f"none among {shown(self.shapes)}" if self.shapes else "no tensors"

    def optional(self, name: str) -> np.ndarray | None:
        return self.array(name) if name in self.shapes else None


# --- in ---------------------------------------------------------------------------------------------------------------


def read(
    source, prefix=None, *, embedding=None, before=None, after=None, head=None, final="linear", last=False
) -> Network:
    """A state dict as a network: its LSTM and, where they are named, the layers around that.

    source : a `.safetensors` file; a `.pt` or `.pth` file, for which torch is needed (`torch.load(weights_only=True)`);
        or a mapping of names to arrays or CPU tensors. What is a mapping in a mapping ("model_state") counts as part
        of the names: `model_state.lstm.weight_ih_l0`.
    prefix : what stands before `weight_ih_l0`: "encoder.lstm.", or several, of LSTMs one behind the other. None: that
        of the only LSTM (or LSTMCell) that is there.
    embedding : the prefix of an embedding's `weight`, "encoder.".
    before, after : dense layers before and behind the LSTM, {prefix: activation}, one of `cylstm.Dense`'s.
    head : the prefix of the last linear layer.
    final : what comes behind that, "linear", "softmax" or "sigmoid".
    last : whether only the final state goes on behind the LSTM, of both directions, as `h_n` has it.

    Weights of float16 and bfloat16 become float32, exactly. `notes["left_out"]` has the names that were not asked
    for, which a warning tells, too.
    Raises OSError, ImportError, TypeError, or ValueError: two LSTMs and no prefix, a name that is not there, weights
    that are no floating-point numbers or do not fit together.
    """
    told = "state dict" if isinstance(source, Mapping) else path_name("source", source)
    one_of("final", final, ("linear", "softmax", "sigmoid"))
    flag("last", last)
    prefixes = prefixes_of(prefix)
    before, after = named_layers("before", before), named_layers("after", after)
    if head is None and final != "linear":
        raise ValueError(f"final: expected linear without a head, behind which it comes, got {final}")
    if head is not None:
        if as_prefix("head", head) in after:
            raise ValueError(f"head: expected another layer than those of after, got {head!r}")
        after[head] = final
    if embedding is not None:
        as_prefix("embedding", embedding)
    with naming(told), opened(source) as states:
        prefixes = prefixes or [prefix_of(states)]
        recurrent = [layer for start in prefixes for layer in lstm_layers(states, start)]
        if last and recurrent:
            recurrent[-1] = Recurrent(recurrent[-1].directions, last=True)
        layers = [] if embedding is None else [Embedding(states.array(f"{embedding}weight"))]
        layers += [dense_layer(states, *one) for one in before.items()]
        layers += recurrent + [dense_layer(states, *one) for one in after.items()]
        left_out = [name for name in states.shapes if name not in states.taken]
        network = Network(tuple(layers), {"left_out": left_out} if left_out else {})
    if left_out:
        warnings.warn(f"{told}: left out, as no option names it: {shown(left_out)}", stacklevel=3)
    return network


def as_prefix(name, value) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text that names begin with, got {describe(value)}")
    return value


def prefixes_of(given) -> list[str]:
    """Those of several LSTMs one behind the other, or of one; none where it is to be found."""
    if given is None or isinstance(given, str):
        return [] if given is None else [given]
    if not isinstance(given, (list, tuple)) or not given:
        raise TypeError(f"prefix: expected text that names begin with, or a list of such, got {describe(given)}")
    return [as_prefix(f"prefix[{n}]", one) for n, one in enumerate(given)]


def named_layers(name, given) -> dict:
    """Prefixes and activations of dense layers. Raises TypeError or ValueError."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected {{prefix: activation}}, got {describe(given)}")
    return {
        as_prefix(name, start): value if value == "softmax" else as_activation(f"{name}[{start!r}]", value)
        for start, value in (given or {}).items()
    }


def prefix_of(states) -> str:
    """That of the only LSTM: its recurrent weights are four times as high as wide; those of GRU or RNN are not."""
    found = []
    for name, shape in states.shapes.items():
        match = re.fullmatch(r"((?:.*\.)?)weight_hh(?:_l0)?", name)
        if match and len(shape) == 2 and (shape[0] == 4 * shape[1] or f"{match[1]}weight_hr_l0" in states.shapes):
            found.append(match[1])
    if not found:
        raise ValueError(f"expected an LSTM's weight_hh_l0 (4*H, H), got {states.told()}")
    if len(found) > 1:
        raise ValueError(f"prefix: expected one of {', '.join(map(repr, found))}, as there are several LSTMs, got None")
    return found[0]


def lstm_layers(states, prefix):
    """The layers of one nn.LSTM, or of one nn.LSTMCell."""
    if f"{prefix}weight_ih" in states.shapes:
        endings = [""]
    else:
        endings = list(takewhile(lambda end: f"{prefix}weight_ih{end}" in states.shapes, (f"_l{n}" for n in count())))
    if not endings:
        states.array(f"{prefix}weight_ih_l0")  # which says so
    both = f"{prefix}weight_ih_l0_reverse" in states.shapes
    layers = [
        Recurrent(tuple(direction(states, prefix, end + suffix) for suffix in SUFFIXES[: 1 + both])) for end in endings
    ]
    for name in states.shapes:
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and re.match(r"(weight|bias)_[ih][hr]", rest) and name not in states.taken:
            what = f"the names of an nn.LSTM with layers 0..{len(layers) - 1}"
            raise ValueError(f"{prefix or 'LSTM'}: expected {what}, got {name} {states.shapes[name]}")
    return layers


def direction(states, prefix, ending):
    """One direction's weights."""
    bias = states.optional(f"{prefix}bias_ih{ending}")
    if bias is not None:
        other = states.array(f"{prefix}bias_hh{ending}")
        if other.shape != bias.shape:
            raise ValueError(f"{prefix}bias_hh{ending}: expected shape {bias.shape}, got {other.shape}")
        bias = bias + other
    weights = (states.array(f"{prefix}{name}{ending}") for name in ("weight_ih", "weight_hh"))
    return Direction(*weights, bias, projection=states.optional(f"{prefix}weight_hr{ending}"))


def dense_layer(states, prefix, activation):
    return Dense(states.array(f"{prefix}weight"), states.optional(f"{prefix}bias"), activation)


def opened(source):
    """The states of a source, as a context."""
    if isinstance(source, Mapping):
        return contextlib.nullcontext(of_mapping(source))
    path = path_name("source", source)
    if path.lower().endswith((".pt", ".pth")):
        return contextlib.nullcontext(of_mapping(loaded_by_torch(path)))
    return of_safetensors(path)


def loaded_by_torch(path):
    """What a file of torch.save has, read by torch, which runs nothing that is in it."""
    try:
        import torch
    except ImportError:
        raise ImportError(f"{path}: expected torch, which reads its own files, got none; "
                          "safetensors need none") from None  # fmt: skip
    expect_file(path)
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types: a pickle's, an archive's, torch's own
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"expected a state dict that torch.load(weights_only=True) reads ({text})") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a state dict, got {type(value).__name__}")
    return value


def of_mapping(mapping) -> States:
    """Arrays and tensors by name, those of inner mappings too."""
    values = {}
    for name, value in flattened(mapping, "", DEPTH):
        if name in values:
            raise ValueError(f"{name}: expected one tensor of this name, got several")
        values[name] = value
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    return States(shapes, lambda name: real(name, values[name]))


def flattened(mapping, prefix, depth):
    for key, value in mapping.items():
        if isinstance(value, Mapping) and depth:
            yield from flattened(value, f"{prefix}{key}.", depth - 1)
        elif hasattr(value, "shape") and hasattr(value, "dtype"):
            yield f"{prefix}{key}", value


def real(name, value) -> np.ndarray:
    """A tensor as an array of float32 or float64. Raises ValueError for other numbers."""
    strided = str(getattr(value, "layout", None)) == "torch.strided"
    if strided and value.untyped_storage().nbytes() < value.nbytes:  # a file may say so of a few bytes
        raise ValueError(f"{name}: expected numbers of their own, got {tuple(value.shape)} of fewer that are repeated")
    if str(value.dtype) == "torch.bfloat16":
        value = value.float()
    try:
        array = plain_array(name, value)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if array.dtype.name in ("bfloat16", "float16"):
        array = array.astype(np.float32)
    if array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: expected floating-point numbers, got {describe(array)}")
    return array


@contextlib.contextmanager
def of_safetensors(path):
    """The states of a safetensors file."""
    with open_safetensors(path, "weights of PyTorch") as (file, metadata):
        if "cylstm" in metadata:
            raise ValueError("expected weights of PyTorch, got a file of cylstm's own, which Model.load reads")
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118

        def get(name):
            kind = parts[name].get_dtype()
            if kind == "BF16":
                return of_bfloat16(path, name)
            if kind not in ("F16", "F32", "F64"):
                raise ValueError(f"{name}: expected floating-point numbers, got {kind}")
            return real(name, file.get_tensor(name))

        yield States({name: tuple(part.get_shape()) for name, part in parts.items()}, get)


def of_bfloat16(path, name):
    """The upper halves of float32 as float32; NumPy has no such type. The file's header was checked before."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(begin, 1)
        halves = np.frombuffer(file.read(end - begin), "<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


# --- out --------------------------------------------------------------------------------------------------------------


def named_arrays(network: Network, names=("weight_ih", "weight_hh", "bias", "projection")) -> dict[str, np.ndarray]:
    """All weights by the names that `Model.parameters` has for them; those of LSTM layers alone begin with no "lstm.".

    names : of a direction's weights. Where some LSTM layers have a bias, the others get one of zeros.
    """
    table, before, recurrent, after = parted(network)
    start = "lstm." if table or before or after else ""
    biased = any(one.bias is not None for layer in recurrent for one in layer.directions)
    found = {} if table is None else {"embedding.weight": table.weight}
    for n, layer in enumerate(before):
        found |= {f"before.{n}.weight": layer.weight, f"before.{n}.bias": layer.bias}
    for n, layer in enumerate(recurrent):
        for one, suffix in zip(layer.directions, SUFFIXES, strict=False):
            found |= {f"{start}{WEIGHTS[name]}_l{n}{suffix}": getattr(one, name) for name in names}
            if biased and one.bias is None:
                found[f"{start}bias_l{n}{suffix}"] = np.zeros(len(one.weight_hh), one.weight_hh.dtype)
    for n, layer in enumerate(after):
        name = f"after.{n}" if n < len(after) - 1 else "head"
        found |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return {name: array for name, array in found.items() if array is not None}


def state_dict(network: Network, prefix="") -> dict[str, np.ndarray]:
    """A network's weights as torch's modules have them: `bias_ih`, and zeros for `bias_hh`.

    Raises ValueError for a cell that `torch.nn.LSTM` has not, layers of different sizes, and a state that sequences
    begin with.
    """
    recurrent = parted(network)[2]
    expect_plain("torch.nn.LSTM", recurrent, known=("directions", "last", "projection"))
    expect_alike(recurrent)
    found = {}
    for name, array in named_arrays(network).items():
        bias = re.fullmatch(r"((?:lstm\.)?)bias(_l.*)", name)
        if bias:
            found[f"{prefix}{bias[1]}bias_ih{bias[2]}"] = array
            found[f"{prefix}{bias[1]}bias_hh{bias[2]}"] = np.zeros_like(array)
        else:
            found[f"{prefix}{name}"] = array
    return found


def forms_of(network) -> list[str]:
    """What a network computes that a state dict does not say: the activations of its dense layers, and "last"."""
    _, before, recurrent, after = parted(network)
    names = [f"before.{n}" for n in range(len(before))] + [f"after.{n}" for n in range(len(after) - 1)] + ["head"]
    found = [f"{name_of(layer.activation)} of {name}" for name, layer in zip(names, before + after, strict=False)
             if layer.activation != "linear"]  # fmt: skip
    return found + (["last"] if recurrent[-1].last else [])


def write(network: Network, path, prefix="") -> None:
    """Write a safetensors file with the names of `torch.nn.LSTM`, atomically.

    prefix : what stands before all names. An LSTM alone has `weight_ih_l0`, ...; a network has `embedding.weight`,
    `before.0.weight`, ..., `lstm.weight_ih_l0`, ..., `after.0.weight`, ... and `head.weight`. Activations, dropout and
    what is last are no part of a state dict: a warning names them, and `read` is to be told.
    Raises OSError, TypeError or ValueError.
    """
    from safetensors.numpy import save

    path = path_name("path", path)
    if path.lower().endswith((".pt", ".pth")):
        raise ValueError(f"{path}: expected a name that ends in .safetensors, got one of a file that torch.save writes")
    as_prefix("prefix", prefix)
    with naming(path):
        arrays = {name: np.ascontiguousarray(array) for name, array in state_dict(network, prefix).items()}
    write_atomically(path, save(arrays, metadata={"format": "pt"}))
    tell_left_out(path, "as a state dict has no place for it", network, others=forms_of(network))
