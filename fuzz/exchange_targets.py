"""Readers of other systems' files, as functions of bytes: what holds in targets.py holds here."""

import contextlib
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np

import cylstm
from cylstm import exchange

RAW, CONTAINER = range(2)
REFUSALS = (ValueError, OSError)
FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def tiny(**options):
    return cylstm.Model(1, 2, 1, loss="mse", seed=0, **options)


def file_with(ending, content):
    path = Path(FOLDER.name) / f"given{ending}"
    path.write_bytes(content)
    return path


def called(read):
    """One call of what came out of a reader."""
    x = np.zeros((1, 2), np.int64) if getattr(read, "embedding_size", None) else np.zeros((1, 2, read.input_size), "f4")
    read(x.astype(read.dtype) if x.dtype == np.float32 else x)


def pytorch(data):
    """A state dict: a safetensors file as it is, or its header before a body of zeros; the LSTM found, or all named."""
    mode, rest = data[0] % 4, data[1:]
    if mode % 2 == CONTAINER:
        rest = struct.pack("<Q", len(rest)) + rest + bytes(4096)
    options = {} if mode < 2 else {"prefix": "lstm.", "before": {"before.0.": "tanh"}, "head": "head."}
    with contextlib.suppress(*REFUSALS), warnings.catch_warnings(action="ignore"):  # of what is left out
        called(exchange.load(file_with(".safetensors", rest), **options))


def rtneural(data):
    """JSON of layers or of a state dict, both types."""
    mode, rest = data[0] % 4, data[1:]
    options = {"dtype": ("float32", "float64")[mode % 2]} | ({} if mode < 2 else {"head": "head.", "prefix": "lstm."})
    with contextlib.suppress(*REFUSALS), warnings.catch_warnings(action="ignore"):  # of what is left out
        network = exchange.read(file_with(".json", rest), **options)
        called(exchange.model_of(network))


def nam(data):
    """An amplifier, there and back again."""
    with contextlib.suppress(*REFUSALS), warnings.catch_warnings(action="ignore"):  # of what is left out
        texts, path = [], file_with(".nam", data)
        for _ in range(2):
            network = exchange.read(path)
            exchange.write(network, path)
            texts.append(path.read_bytes())
        assert texts[0] == texts[1]


TARGETS = {target.__name__: target for target in (pytorch, rtneural, nam)}


def seeds(name):
    """Right files in each of the forms, for the fuzzer to begin with."""
    if name == "nam":
        exchange.save(tiny(num_layers=2), file_with(".nam", b""), sample_rate=48_000, metadata={"name": "a"})
        return [(Path(FOLDER.name) / "given.nam").read_bytes()]
    model, found = tiny(before=[cylstm.Dense(2, "tanh")]), []
    ending, forms = {"pytorch": (".safetensors", ({},)), "rtneural": (".json", ({}, {"state_dict": True}))}[name]
    for n, form in enumerate(forms):
        path = file_with(ending, b"")
        with warnings.catch_warnings(action="ignore"):  # no state dict says an activation
            exchange.save(model, path, **form)
        content = path.read_bytes()
        found.append(bytes([2 * n]) + content)
        if name == "pytorch":
            (length,) = struct.unpack("<Q", content[:8])
            found += [bytes([mode]) + content[8 : 8 + length] for mode in (1, 3)] + [bytes([2]) + content]
    return found
