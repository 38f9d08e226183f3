"""Neural Amp Modeler's `.nam` files of its LSTM: JSON with sizes and one flat list of weights.

For each layer the weights of inputs and hidden units side by side (4H, I + H), row by row, gates i, f, g, o; the bias
(4H); the state h0 (H), c0 (H) that a player begins with. Then the linear head's weight (O, H) and bias (O).
Source: NAM/lstm.cpp of github.com/sdatkinson/NeuralAmpModelerCore, nam/models/recurrent.py of neural-amp-modeler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from cylstm.checks import describe, one_of, path_name, positive_int, real_in
from cylstm.exchange.json_files import array_of, expect_keys, read_object, write_object
from cylstm.exchange.network import (
    Dense,
    Direction,
    Network,
    Recurrent,
    expect_plain,
    naming,
    parted,
    tell_left_out,
)

__all__ = ["read", "write"]

NEEDED = "version", "architecture", "config", "weights"
OF_NETWORK = "architecture", "config", "weights"  # what the network decides
SIZES = "input_size", "hidden_size", "num_layers"
CHANNELS = "in_channels", "out_channels"
VERSION = "0.5.4"  # that of files written here; an LSTM's are the same in each since 0.5.0, in which it came
LAST = 7  # 0.7.x: by the format's rules, what comes later may mean something else


def read(path, *, dtype="float32") -> Network:
    """A `.nam` file of an LSTM as a network.

    dtype : of the weights, "float32" or "float64".

    `notes["nam"]` has what the file says besides: "version", "sample_rate", "metadata", ...; `write` puts it back. A
    state h0, c0 of zeros counts as none.

    Raises OSError, TypeError, or ValueError: other architectures (WaveNet, ...) and versions by their names, weights
    that are more or fewer than the sizes ask for.
    """
    path = path_name("path", path)
    one_of("dtype", dtype, ("float32", "float64"))
    with naming(path):
        file = expect_keys("file", read_object(path), NEEDED, None)
        if file["architecture"] != "LSTM":
            raise ValueError(f"architecture: expected LSTM, got {describe(file['architecture'])}")
        check_version(file["version"])
        I, H, L, O = sizes_of(file["config"])
        weights = array_of("weights", file["weights"], 1, dtype)
        needed = 4 * H * (I + H + 1) + 2 * H + (L - 1) * (4 * H * (2 * H + 1) + 2 * H) + O * (H + 1)
        if len(weights) != needed:
            raise ValueError(f"weights: expected {needed} numbers for {describe(file['config'])}, got {len(weights)}")
        notes = {key: value for key, value in file.items() if key not in OF_NETWORK}
        return Network(layers_of(weights, I, H, L, O), {"nam": notes})


def check_version(version):
    numbers = re.fullmatch(r"0\.(\d{1,4})\.\d{1,4}", version) if isinstance(version, str) else None
    if not numbers or not 5 <= int(numbers[1]) <= LAST:
        raise ValueError(f"version: expected 0.5.0 to 0.{LAST}, got {describe(version)}")


def sizes_of(config):
    """I, H, L, O."""
    expect_keys("config", config, SIZES, CHANNELS)
    config = {"out_channels": 1, "in_channels": config["input_size"], **config}
    try:
        I, H, L, inputs, O = (positive_int(f"config.{name}", config[name]) for name in (*SIZES, *CHANNELS))
    except TypeError as error:
        raise ValueError(str(error)) from None
    if inputs != I:
        raise ValueError(f"config.in_channels: expected {I}, its input_size, got {inputs}")
    return I, H, L, O


def layers_of(weights, I, H, L, O):
    """Layers of a list that is as long as it should be."""
    begin = 0

    def take(*shape):
        nonlocal begin
        end = begin + int(np.prod(shape))
        part, begin = weights[begin:end].reshape(shape), end
        return part

    parts = [(take(4 * H, (H if n else I) + H), take(4 * H), take(H), take(H)) for n in range(L)]
    starts = any(part.tobytes().strip(b"\0") for _, _, *states in parts for part in states)  # -0.0 comes back, too
    layers = [
        Recurrent((Direction(side[:, :-H].copy(), side[:, -H:].copy(), bias, None, *((h0, c0) if starts else ())),))
        for side, bias, h0, c0 in parts
    ]
    return (*layers, Dense(take(O, H), take(O)))


def write(network: Network, path, *, sample_rate=None, metadata=None) -> None:
    """Write a `.nam` file, atomically; numbers are written in full.

    sample_rate : of the sound, in Hz; None: that of `notes["nam"]`.
    metadata : {"name": ..., "gear_type": ..., ...}; None: that of `notes["nam"]`.
    What else `notes["nam"]` has goes into the file beside what the network says.

    Raises OSError, TypeError, or ValueError for what NAM has not: an embedding, dense layers beside one linear head,
    both directions, variants of the cell, layers of unequal width, weights that are not finite.
    """
    path = path_name("path", path)
    with naming(path):
        parts = parted(network)
        notes = notes_of(network, sample_rate, metadata)
        recurrent, head = checked(*parts)
        O, H = head.weight.shape
        I = recurrent[0].directions[0].weight_ih.shape[1]
        config = {"input_size": I, "hidden_size": H, "num_layers": len(recurrent)}
        if (I, O) != (1, 1):
            config |= {"in_channels": I, "out_channels": O}
        parts = [part.ravel() for layer in recurrent for part in parts_of(layer.directions[0])]
        parts += [head.weight.ravel(), np.zeros(O) if head.bias is None else head.bias]
        weights = [number for part in parts for number in part.tolist()]
    first = {key: notes.pop(key) for key in ("version", "metadata") if key in notes}
    write_object(path, {**first, "architecture": "LSTM", "config": config, "weights": weights, **notes})
    tell_left_out(path, "as NAM has no place for it", network, ("nam",))


def notes_of(network, sample_rate, metadata):
    """What a file says beside the network: what was noted of another one, and what is given."""
    noted = network.notes.get("nam", {"metadata": {}})
    if not isinstance(noted, dict):
        raise ValueError(f"notes: expected a dict of what a NAM file says, got {describe(noted)}")
    notes = {"version": VERSION} | {key: value for key, value in noted.items() if key not in OF_NETWORK}
    check_version(notes["version"])
    if sample_rate is not None:
        rate = real_in("sample_rate", sample_rate, 0, open_low=True)
        notes["sample_rate"] = int(rate) if rate.is_integer() else rate
    if metadata is not None:
        if not isinstance(metadata, Mapping):
            raise TypeError(f"metadata: expected a dict, got {describe(metadata)}")
        notes["metadata"] = dict(metadata)
    return notes


def checked(table, before, recurrent, after):
    """The LSTM layers and the head, of a network's parts, where NAM can say them."""
    if table is not None or before:
        raise ValueError("network: expected the LSTM first, as NAM has it, got an embedding or a dense layer before it")
    if len(after) != 1 or after[0].activation != "linear":
        told = ", ".join(str(one.activation) for one in after) or "none"
        raise ValueError(f"network: expected one linear layer behind the LSTM, as NAM has it, got {told}")
    expect_plain("NAM", recurrent, known=("h0", "c0"))
    widths = sorted({layer.hidden_size for layer in recurrent})
    if len(widths) > 1:
        raise ValueError(f"network: expected layers of one width, as NAM has them, got {widths}")
    return recurrent, after[0]


def parts_of(one):
    H = one.weight_hh.shape[1]
    yield np.concatenate([one.weight_ih, one.weight_hh], axis=1)
    for value, size in ((one.bias, 4 * H), (one.h0, H), (one.c0, H)):
        yield np.zeros(size) if value is None else value
