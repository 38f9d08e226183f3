"""What an ONNX file says, as plain objects: nodes, tensors, inputs and outputs, and the names of its wire format.

The numbers of the fields are those of onnx.proto (github.com/onnx/onnx, IR version 10). Tensors stay bytes until
somebody asks for their array.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from cylstm.checks import path_name
from cylstm.exchange.protobuf import FOUR, Truncated, fields, floats_of, integers_of, signed, text_of
from cylstm.tensor_files import expect_file

__all__ = ["BFLOAT16", "DOUBLE", "FLOAT", "INT32", "INT64", "TYPES", "File", "Given", "Node", "Tensor", "read_file"]

FLOAT, INT32, INT64, DOUBLE, BFLOAT16 = 1, 6, 7, 11, 16  # of TensorProto.DataType
TYPES = {FLOAT: "<f4", 2: "<u1", 3: "<i1", 4: "<u2", 5: "<i2", INT32: "<i4", INT64: "<i8", 9: "?", 10: "<f2",
         DOUBLE: "<f8", 12: "<u4", 13: "<u8", BFLOAT16: "<u2"}  # fmt: skip
EXTERNAL = 1
SHOWN = 80  # characters of a name in an error
MOST = 100_000  # nodes, and tensors: each takes some hundred bytes, where a file may have two for it
# Of AttributeProto: the field that a type's value stands in.
BY_TYPE = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9}


@dataclass
class Folder:
    """Where a file lies, and how much was read of others there: no more than twice what they have."""

    path: Path
    sizes: dict = field(default_factory=dict)
    read: int = 0


@dataclass
class Tensor:
    """A TensorProto: its shape, the number of its type, and where its numbers are."""

    name: str = ""
    dims: list = field(default_factory=list)
    type: int = 0
    data: list = field(default_factory=list)  # of raw_data, or numbers as they were packed
    external: dict | None = None  # location, offset, length
    folder: Folder | None = None

    def array(self) -> np.ndarray:
        """The numbers, a view into the file where that has them as such. Raises OSError or ValueError."""
        if self.type not in TYPES:
            raise ValueError(f"tensor {self.name}: expected numbers, got type {self.type}")
        dtype = np.dtype(TYPES[self.type])
        if min(self.dims, default=0) < 0:
            raise ValueError(f"tensor {self.name}: expected a shape, got {tuple(self.dims)}")
        size = prod(self.dims)
        if self.external is not None:
            numbers = np.frombuffer(external_bytes(self, size * dtype.itemsize), dtype)
        else:
            parts = [self.numbers(part, dtype) for part in self.data]
            numbers = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])
        if numbers.size != size:
            raise ValueError(f"tensor {self.name}: expected {size} numbers for its shape, got {numbers.size}")
        if self.type == BFLOAT16:
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.reshape(self.dims)

    def numbers(self, part, dtype):
        """One field's numbers: raw bytes, or whole ones (of float16: its bits) as varints."""
        if isinstance(part, np.ndarray):
            return part.astype(dtype, copy=False)
        if isinstance(part, list):
            whole = np.array(part, np.int64)
            if self.type == 10:
                return whole.astype(np.uint16).view(np.float16)
            return whole.astype(dtype)
        if len(part) % dtype.itemsize:
            raise ValueError(f"tensor {self.name}: expected numbers of {dtype.itemsize} bytes, got {len(part)} bytes")
        return np.frombuffer(part, dtype)


@dataclass
class Node:
    """A NodeProto. attributes: numbers, text, lists of them, or a Tensor; None for what nothing here reads."""

    op: str = ""
    name: str = ""
    domain: str = ""
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    attributes: dict = field(default_factory=dict)

    def __str__(self) -> str:
        name = self.name or (self.outputs[0] if self.outputs else "")
        domain = "" if self.domain in ("", "ai.onnx") else f"{self.domain}."
        return f"node {name[:SHOWN]} ({domain[:SHOWN]}{self.op[:SHOWN]})"

    def given(self, n) -> bool:
        """Whether the node has an n-th input."""
        return n < len(self.inputs) and self.inputs[n] != ""


@dataclass
class Given:
    """A graph's input or output: its name, type and sizes; a size is a whole number, or text for any."""

    name: str = ""
    type: int = 0
    shape: list | None = None


@dataclass
class File:
    """A ModelProto with its graph."""

    path: str
    size: int
    opset: int = 0
    nodes: list = field(default_factory=list)
    tensors: dict = field(default_factory=dict)
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    metadata: dict = field(default_factory=dict)


# --- messages ---------------------------------------------------------------------------------------------------------


def read_file(path) -> File:
    """What a file says. Raises OSError, or ValueError for one that is truncated or none at all."""
    path = path_name("path", path)
    expect_file(path)
    content = Path(path).read_bytes()
    file = File(path, len(content))
    graphs = 0
    try:
        for number, _, value in fields(memoryview(content)):
            if number == 7:
                graphs += 1
                read_graph(file, message(value), Folder(Path(path).parent))
            elif number == 8:
                domain, version = read_opset(message(value))
                file.opset = version if domain in ("", "ai.onnx") else file.opset
            elif number == 14:
                file.metadata.update([read_pair(message(value))])
        if graphs != 1:
            raise Truncated(f"expected a graph, got {graphs}")
        if file.opset < 1:
            raise Truncated("expected the version of its operators, got none")
    except Truncated as error:
        raise ValueError(f"{path}: expected an ONNX file, got one that is truncated or none at all ({error})") from None
    file.inputs = [given for given in file.inputs if given.name not in file.tensors]
    return file


def message(value) -> memoryview:
    """The bytes of a field that has some."""
    if isinstance(value, int):
        raise Truncated(f"expected a message, got the number {value}")
    return value


def whole(value) -> int:
    """The number of a field that has one."""
    if not isinstance(value, int):
        raise Truncated(f"expected a whole number, got {len(value)} bytes")
    return signed(value)


def read_graph(file, graph, folder) -> None:
    """A GraphProto's nodes, initialisers, inputs and outputs."""
    for n, (number, _, value) in enumerate(fields(graph)):
        if n >= MOST:
            raise Truncated(f"expected at most {MOST} nodes and tensors, got more")
        if number == 1:
            file.nodes.append(read_node(message(value), folder))
        elif number == 5:
            tensor = read_tensor(message(value), folder)
            file.tensors[tensor.name] = tensor
        elif number == 11:
            file.inputs.append(read_given(message(value)))
        elif number == 12:
            file.outputs.append(read_given(message(value)))


def read_node(content, folder) -> Node:
    """A NodeProto."""
    node = Node()
    names = {3: "name", 4: "op", 7: "domain"}
    for number, _, value in fields(content):
        if number in (1, 2):
            (node.inputs if number == 1 else node.outputs).append(text_of(value))
        elif number in names:
            setattr(node, names[number], text_of(value))
        elif number == 5:
            name, found = read_attribute(message(value), folder)
            node.attributes[name] = found
    return node


def read_attribute(content, folder):
    """An AttributeProto: its name, and its value as a plain one."""
    name, kind, found = "", 0, {7: [], 8: [], 9: []}
    for number, wire, value in fields(content):
        if number == 1:
            name = text_of(value)
        elif number == 20:
            kind = whole(value)
        elif number == 2:
            if wire != FOUR:
                raise Truncated(f"expected a number of 4 bytes, got a field of wire type {wire}")
            found[2] = float(floats_of(wire, value)[0])
        elif number == 3:
            found[3] = whole(value)
        elif number == 4:
            found[4] = text_of(value)
        elif number == 5:
            found[5] = read_tensor(message(value), folder)
        elif number == 7:
            found[7] += floats_of(wire, value).tolist()
        elif number == 8:
            found[8] += integers_of(wire, value)
        elif number == 9:
            found[9].append(text_of(value))
    if not kind:  # of the first files; a value says itself what it is
        told = [key for key, value in found.items() if key < 7 or value]
        return name, found[told[0]] if told else None
    missing = {1: 0.0, 2: 0, 3: ""}
    return name, found.get(BY_TYPE.get(kind), missing.get(kind))


def read_tensor(content, folder) -> Tensor:
    """A TensorProto, whose numbers stay where they are."""
    tensor, pairs, where = Tensor(folder=folder), {}, 0
    for number, wire, value in fields(content):
        if number == 1:
            tensor.dims += integers_of(wire, value)
        elif number == 2:
            tensor.type = whole(value)
        elif number == 8:
            tensor.name = text_of(value)
        elif number == 9:
            tensor.data.append(message(value))
        elif number in (4, 10):
            tensor.data.append(floats_of(wire, value, "<f4" if number == 4 else "<f8"))
        elif number in (5, 7, 11):
            tensor.data.append(integers_of(wire, value))
        elif number == 13:
            pairs.update([read_pair(message(value))])
        elif number == 14:
            where = whole(value)
    if where == EXTERNAL:
        tensor.external = pairs
    return tensor


def read_given(content) -> Given:
    """A ValueInfoProto with the type of a tensor: name=1, type=2 -> tensor_type=1 -> elem_type=1, shape=2 -> dim=1."""
    given = Given()
    for number, _, value in fields(content):
        if number == 1:
            given.name = text_of(value)
        elif number == 2:
            for _, _, tensor_type in (one for one in fields(message(value)) if one[0] == 1):
                for inner, _, found in fields(message(tensor_type)):
                    if inner == 1:
                        given.type = whole(found)
                    elif inner == 2:
                        given.shape = [read_size(message(dim)) for n, _, dim in fields(message(found)) if n == 1]
    return given


def read_size(content):
    """A dimension: a whole number, its name, or "" where it may be anything."""
    for number, _, value in fields(content):
        if number == 1:
            return whole(value)
        if number == 2:
            return text_of(value)
    return ""


def read_opset(content) -> tuple[str, int]:
    """An OperatorSetIdProto: the domain, and the version."""
    domain, version = "", 0
    for number, _, value in fields(content):
        if number == 1:
            domain = text_of(value)
        elif number == 2:
            version = whole(value)
    return domain, version


def read_pair(content) -> tuple[str, str]:
    """A StringStringEntryProto."""
    found = {1: "", 2: ""}
    found.update((number, text_of(value)) for number, _, value in fields(content) if number in found)
    return found[1], found[2]


# --- data in files beside the file ------------------------------------------------------------------------------------


def external_bytes(tensor, size) -> bytes:
    """The bytes of a tensor that lie in another file of the same folder, or below it. Raises OSError or ValueError."""
    told = f"tensor {tensor.name}"
    location = tensor.external.get("location", "")
    folder = os.path.realpath(tensor.folder.path)
    try:
        path = os.path.realpath(os.path.join(folder, location))
        inside = os.path.commonpath([folder, path]) == folder
    except ValueError:  # a null byte, or another drive
        inside = False
    if not location or os.path.isabs(location) or not inside:
        raise ValueError(f"{told}: expected its data in a file of the model's folder, got {location!r}")
    try:
        offset = int(tensor.external.get("offset") or 0)
        length = int(tensor.external.get("length") or size)
    except ValueError:
        raise ValueError(f"{told}: expected whole numbers for offset and length, got {tensor.external}") from None
    if offset < 0 or length != size:
        raise ValueError(f"{told}: expected {size} bytes in {location} for its shape, got {length} at {offset}")
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{told}: expected its data in a regular file, got {location}")
    if offset + size > found.st_size:
        raise ValueError(f"{told}: expected {size} bytes at {offset} in {location}, got {found.st_size} in all")
    tensor.folder.sizes[path] = found.st_size
    tensor.folder.read += size
    if tensor.folder.read > 2 * sum(tensor.folder.sizes.values()):
        raise ValueError(f"{told}: expected other numbers of {location} than those of other tensors, got them again")
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)
