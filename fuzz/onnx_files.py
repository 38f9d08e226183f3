"""The reader of ONNX files as a function of bytes: what holds in targets.py holds here.

The first byte says what the others are: a whole file; nodes, in a graph whose tensors, inputs and outputs are right;
notes, in a file that is otherwise right; or choices among operators, their inputs and attributes, behind a small graph.
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
from cylstm.exchange.onnx_file import FLOAT, INT64
from cylstm.exchange.onnx_functions import FUNCTIONS
from cylstm.exchange.onnx_graph import OPERATORS
from cylstm.exchange.onnx_notes import KEY
from cylstm.exchange.onnx_shapes import ON_ARRAYS
from cylstm.exchange.onnx_write import attribute, info
from cylstm.exchange.protobuf import encoded, fields

RAW, NODES, NOTES, CHOICES = range(4)
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


# --- graphs that are chosen -------------------------------------------------------------------------------------------

OPS = sorted({*OPERATORS, *ON_ARRAYS})
INPUTS = [("x", FLOAT, ("time", "batch", 2)), ("ids", INT64, ("time", "batch")), ("h0", FLOAT, (2, "batch", 2)),
          ("lengths", INT64, ("batch",)), ("fixed", FLOAT, (3, 1, 2)), ("any", FLOAT, ())]  # fmt: skip
ARRAYS = {"W": np.ones((1, 8, 2), "f4"), "R": np.full((1, 8, 2), 0.5, "f4"), "B": np.ones((1, 16), "f4"),
          "M": np.eye(2, dtype="f4"), "bias": np.array([0.5, -1], "f4"), "half": np.array(0.5, "f4"),
          "row": np.array([[0.25]], "f4"), "zero": np.array([0]), "one": np.array([1]), "last": np.array(-1),
          "shape": np.array([0, 0, -1]), "state": np.ones((1, 1, 2), "f4")}  # fmt: skip
ATTRIBUTES = [
    ("axis", 0), ("axis", 1), ("axis", -1), ("to", FLOAT), ("to", 6), ("to", 9), ("to", 10), ("to", 16), ("to", 77),
    ("perm", [1, 0, 2]), ("perm", [0, 2, 1, 3]), ("perm", [0, 0]), ("alpha", 0.5), ("beta", 0.25), ("alpha", -2.0),
    ("alpha", "text"), ("transB", 1), ("direction", "bidirectional"), ("direction", "reverse"), ("layout", 1),
    ("axes", [0]), ("axes", [1]), ("starts", [0]), ("ends", [1]), ("split", [1, 1]), ("hidden_size", 2),
    ("activations", ["Relu", "Tanh", "Elu"]), ("clip", 1.5), ("min", -1.0), ("max", 1.0), ("approximate", "tanh"),
    ("input_forget", 1), ("start", 1), ("shape", [3, 2]), ("value_float", 0.5), ("value_ints", [2, 1]),
]  # fmt: skip
NUMBERS = {"f": FLOAT, "i": INT64}
# How many inputs an operator has, as a rule; 1 for those that are not here.
USUAL = {name: of for name, (_, of) in FUNCTIONS.items()} | dict.fromkeys(
    ("Concat", "Equal", "Expand", "Gather", "MatMul", "Reshape", "Squeeze", "Unsqueeze"), 2
) | {"Gemm": 3, "LSTM": 4, "Slice": 4}  # fmt: skip


def made(op, inputs, outputs, *attributes):
    """A NodeProto."""
    told = [attribute(*one) for one in attributes]
    return encoded((1, inputs), (2, outputs), (3, outputs[0]), (4, op), (5, told))


def names_of() -> list[str]:
    """What a first chosen node may take."""
    return [*(name for name, *_ in INPUTS), *ARRAYS, "", "Y", "Yh", "Yc", "s", "m"]


def chosen(content) -> bytes:
    """A file whose nodes are chosen, six bytes each: an operator, how many inputs and attributes, three inputs, the
    first attribute."""
    nodes = [made("LSTM", ["x", "W", "R", "B"], ["Y", "Yh", "Yc"]), made("Squeeze", ["Y", "one"], ["s"]),
             made("MatMul", ["s", "M"], ["m"])]  # fmt: skip
    names = names_of()
    for n in range(0, len(content) - 5, 6):
        op, many, *places, told = content[n : n + 6]
        inputs = [names[place % len(names)] if place < 128 else names[-1 - place % 4] for place in places]
        inputs += [names[(place * 7 + told) % len(names)] for place in places]
        given = [ATTRIBUTES[(told + extra) % len(ATTRIBUTES)] for extra in range(many // 8 % 3)]
        kind = OPS[op % len(OPS)]
        size = many % 8 if many >= 192 else USUAL.get(kind, 1)
        nodes.append(made(kind, inputs[:size], [f"v{n}", f"w{n}"], *given))
        names += [f"w{n}", f"v{n}"]
    tensors = [encoded((1, list(one.shape)), (2, NUMBERS[one.dtype.kind]), (8, name), (9, one.tobytes()))
               for name, one in ARRAYS.items()]  # fmt: skip
    graph = encoded((1, nodes), (5, tensors), (11, [info(*one) for one in INPUTS]), (12, info(names[-1], FLOAT, ())))
    return encoded((7, graph), (8, encoded((2, 14))))


def onnx(data):
    """exchange.load with one call of what comes out of it, and the stack of the graph's LSTM nodes."""
    mode, content = CHOICES if data[0] == CHOICES else data[0] % 3, data[1:]
    whole, parts = right_file()
    if mode == NODES:
        around = encoded(*((number, parts[number]) for number in (5, 11, 12)))
        content = encoded((7, content + around), (8, encoded((2, 14))))
    elif mode == CHOICES:
        content = chosen(content)
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
    m, half, to = names_of().index("m"), names_of().index("half"), ATTRIBUTES.index(("to", FLOAT))
    nodes = bytes([OPS.index("Greater"), 0, m, half, 0, 0, OPS.index("Cast"), 8, 128, 0, 0, to])
    return [bytes([RAW]) + whole, bytes([NODES]) + encoded((1, parts[1])), bytes([NOTES]) + notes,
            bytes([CHOICES]) + nodes]  # fmt: skip
