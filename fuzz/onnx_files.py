"""The reader of ONNX files as a function of bytes: what holds in targets.py holds here.

The first byte says what the others are: a whole file; nodes, in a graph whose tensors, inputs and outputs are right; or
notes, in a file that is otherwise right.
"""

import contextlib
import functools
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np

import cylstm
from cylstm import exchange
from cylstm.exchange.onnx import read_nodes, stack_of
from cylstm.exchange.onnx_notes import KEY
from cylstm.exchange.protobuf import encoded, fields

RAW, NODES, NOTES = range(3)
REFUSALS = (ValueError, OSError)
FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
PATH = Path(FOLDER.name) / "given.onnx"


@functools.cache
def right_file():
    """A file as cylstm writes it: its bytes, and the fields of its graph by number."""
    model = cylstm.Model(4, 2, 4, embedding_size=2, before=[cylstm.Dense(2, "silu")], bidirectional=True, seed=0,
                         activations=("hard_sigmoid", ("leaky_relu", 0.2), "tanh"), gate_clip=2.0)  # fmt: skip
    exchange.save(model, PATH, lengths=True, clip=True)
    content = PATH.read_bytes()
    graph = next(value for number, _, value in fields(memoryview(content)) if number == 7)
    parts = {}
    for number, _, value in fields(graph):
        parts.setdefault(number, []).append(bytes(value))
    return content, parts


def onnx(data):
    """exchange.load with one call of what comes out of it, and the stack of the graph's LSTM nodes."""
    mode, content = data[0] % 3, data[1:]
    whole, parts = right_file()
    if mode == NODES:
        around = encoded(*((number, parts[number]) for number in (5, 11, 12)))
        content = encoded((7, content + around), (8, encoded((2, 14))))
    elif mode == NOTES:
        content = whole + encoded((14, encoded((1, KEY), (2, content))))
    PATH.write_bytes(content)
    with contextlib.suppress(*REFUSALS), warnings.catch_warnings(action="ignore"):  # of dropout that no model has
        read = exchange.load(PATH)
        x = np.zeros((1, 2), np.int64) if getattr(read, "embedding_size", None) else np.zeros((1, 2, read.input_size))
        read(x)
    with contextlib.suppress(*REFUSALS):
        stack_of(read_nodes(PATH))


def seeds():
    """A right file in each of the forms."""
    whole, parts = right_file()
    notes = json.dumps({"labels": list("abcd"), "dropout": [0.0, 0.0, 0.5, 0.0], "log": True}).encode()
    return [bytes([RAW]) + whole, bytes([NODES]) + encoded((1, parts[1])), bytes([NOTES]) + notes]
