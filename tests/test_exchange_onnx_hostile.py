"""ONNX files that are cut short, changed or malicious: a ValueError or OSError with the file's name, and no memory."""

import os

import numpy as np
import pytest
from onnx_graphs import H, I, dense, model, node, numbers, tensor, weights

import cylstm
from cylstm import exchange
from cylstm.exchange import onnx
from cylstm.exchange.protobuf import encoded, written_varint

GRAPH = [node("Transpose", "x", "steps", perm=[1, 0, 2]), node("LSTM", "steps W R B", "Y Yh", hidden_size=H),
         node("Squeeze", "Yh zero", "h"), node("MatMul", "h M", "y")]  # fmt: skip
TENSORS = {**weights(), "M": dense(2, H)[0], "zero": np.array([0])}
OPSET = (8, encoded((2, 14)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "given.onnx"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small file of ours, with all that a file may have."""
    path = tmp_path_factory.mktemp("whole") / "whole.onnx"
    made = cylstm.Model(4, 1, 2, embedding_size=1, bidirectional=True, num_layers=2, dropout=0.5, output="last",
                        before=[cylstm.Dense(1, "gelu_tanh")], labels=["a", "b"], seed=1)  # fmt: skip
    exchange.save(made, path, lengths=True)
    return path.read_bytes()


def read_or_refuse(path):
    """Whether the file was read."""
    try:
        exchange.load(path)
    except (OSError, ValueError) as error:
        assert str(path) in str(error) and "\n" not in str(error), error
        return False
    return True


def test_a_file_that_ends_anywhere_is_refused(path, whole):
    path.write_bytes(whole)
    read = []
    for n in range(len(whole) - 1, -1, -1):
        os.truncate(path, n)
        read += [n] * read_or_refuse(path)
    assert len(read) == 1 and whole[read[0]] == 14 << 3 | 2  # before the last field, which holds the notes


@pytest.mark.filterwarnings("ignore:network. expected one dropout")  # which is a file that can be read
def test_changed_bytes_are_read_or_refused(path, whole):
    rng = np.random.default_rng(3)
    outcomes = set()
    path.write_bytes(whole)
    with open(path, "r+b", buffering=0) as file:
        for n, byte in list(enumerate(whole))[::7]:  # the others are the fuzzer's
            file.seek(n)
            file.write(bytes([byte ^ (int(rng.integers(1, 256)) if n % 2 else 1 << n % 7)]))
            outcomes.add(read_or_refuse(path))
            file.seek(n)
            file.write(bytes([byte]))
    assert outcomes == {True, False}


def test_random_bytes_are_refused(path):
    rng = np.random.default_rng(4)
    with open(path, "wb", buffering=0) as file:
        for n in range(200):
            file.seek(0)
            file.write(rng.bytes(n))
            assert not read_or_refuse(path)


def claims():
    """Files of a few bytes that claim to be large, and what is said of them."""
    huge = 2**60
    field = bytes([7 << 3 | 2]) + written_varint(huge)
    yield "a graph", field, f"expected a field of {huge} bytes, got 0"
    tensors = [encoded((1, [huge, 16, 3]), (2, 1), (8, "W"), (9, b"1234"))]
    yield (
        "a shape",
        model(GRAPH, {"W": tensors[0], **{k: TENSORS[k] for k in ("R", "B", "M", "zero")}}),
        "numbers for its",
    )
    negative = encoded((1, [-1, 16, 3]), (2, 1), (8, "W"), (9, b""))
    yield (
        "a size",
        model(GRAPH, {"W": negative, **{k: TENSORS[k] for k in ("R", "B", "M", "zero")}}),
        "expected a shape",
    )
    fill = [node("ConstantOfShape", "sizes", "W"), *GRAPH]
    rest = {**{k: TENSORS[k] for k in ("R", "B", "M", "zero")}, "sizes": np.array([huge, 16, 3])}
    yield "a filling", model(fill, rest), "expected W, its weights, in the file, got 'W', which is not in"
    grown = [node("Expand", "zero sizes", "big"), node("Add", "big big", "W"), *GRAPH]
    yield "an expansion", model(grown, rest), "expected its weights in the file, got what cannot"
    outer = [node("Mul", "row column", "W"), *GRAPH]
    wide = {**rest, "row": np.ones((1, 30000), "f4"), "column": np.ones((30000, 1), "f4")}
    yield "a product", model(outer, wide), "expected constants of about the file's size, got more"
    sizes = [node("Shape", "x", "s0"), *(node("Mul", f"s{n} s{n}", f"s{n + 1}") for n in range(60)),
             node("Reshape", "x s60", "steps"), *GRAPH[1:]]  # fmt: skip
    yield "a size of sizes", model(sizes, TENSORS), "expected a size that an int64 can hold"


def crowds():
    """Files of many small things, each of which takes little of the file."""
    yield "nodes", encoded((7, bytes([1 << 3 | 2, 0]) * 100_001), OPSET), "expected at most 100000 nodes and tensors"
    lstms = [node("LSTM", f"{f's{n}' if n else 'steps'} W S B", f"Y{n}") for n in range(600)]
    chain = [part for n, one in enumerate(lstms) for part in (one, node("Squeeze", f"Y{n} one", f"s{n + 1}"))]
    deep = {**weights(I=H), "one": np.array([1]), "S": weights()["R"]}
    inputs = [("steps", 1, ("time", "batch", H))]
    yield "layers", model(chain, deep, inputs, ["s600"]), "expected at most 500 layers one behind the other, got more"
    wide = [node("Unsqueeze", "x axes", "wide"), *GRAPH]
    yield "axes", model(wide, {**TENSORS, "axes": np.arange(70)}, outputs=["wide"]), "expected at most 64 axes, got 73"
    doubled = [*GRAPH[:2], *(node("Concat", f"p{n} p{n}", f"p{n + 1}", axis=0) for n in range(40))]
    doubled.insert(2, node("Identity", "Yh", "p0"))
    yield (
        "final states",
        model(doubled, TENSORS, outputs=["p40"]),
        r"concat of p\d+ .Concat.: expected the final states of",
    )
    filled = [node("Expand", "zero sizes", f"big{n}") for n in range(100)]
    yield "sizes", model(filled, {**TENSORS, "sizes": np.ones(5000, int)}, outputs=["big7"]), "expected at most 64 axes"
    large = {"W": np.zeros((1, 4000, I), "f4"), "R": np.ones((1, 4000, 1000), "f4")}
    same = [node("LSTM", "x W R", f"Y{n}") for n in range(9)]
    yield "weights that are shared", model(same, large, outputs=["Y8"]), "expected constants of about the file's size"


CLAIMS = {name: (content, message) for name, content, message in (*claims(), *crowds())}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_file_that_claims_too_much_allocates_nothing(name, path, traced):
    content, message = CLAIMS[name]
    path.write_bytes(content)

    def refused():
        with pytest.raises(ValueError, match=message) as error:
            exchange.load(path)
        assert str(error.value).startswith(f"{path}: ")

    refused()  # imports
    assert traced(refused) < 200 * len(content) + 2_000_000


def behind_a_chain(depth, many):
    """A chain of dense layers of one number, and many more behind its end."""
    nodes = [node("MatMul", f"y{n} M", f"y{n + 1}") for n in range(depth)]
    nodes += [node("MatMul", f"y{depth} M", f"z{n}") for n in range(many)]
    return model(nodes, {"M": dense(1, 1)[0]}, [("y0", 1, ("batch", "time", 1))], ["nothing"])


def test_values_of_a_graph_share_the_layers_before_them(path, traced):
    """Each knows the 490 before it: not in a list of its own."""
    taken = []
    for depth in (1, 490):
        path.write_bytes(behind_a_chain(depth, 3000))

        def refused():
            with pytest.raises(ValueError, match="nothing: expected the output of a node before it"):
                exchange.load(path)

        refused()  # imports
        taken.append(traced(refused))
    assert taken[1] < 1.5 * taken[0]


def test_formulas_that_double_are_refused(path):
    nodes = [node("MatMul", "x M", "s0"), *(node("Add", f"s{n} s{n}", f"s{n + 1}") for n in range(40))]
    path.write_bytes(model(nodes, {"M": dense(2, I)[0]}, outputs=["s40"]))
    with pytest.raises(
        ValueError, match=r"node add of s7 .Add.: expected at most 64 operators in an activation, got m"
    ):
        exchange.load(path)


def test_nesting_is_not_followed(path):
    """A graph in a node's attribute, again and again: nobody reads it."""
    inner = b""
    for _ in range(5000):
        attribute = encoded((1, "body"), (6, inner), (20, 5))
        inner = encoded((1, [encoded((4, "If"), (2, "y"), (3, "n"), (5, attribute))]))
    graph = encoded((1, encoded((4, "If"), (2, "y"), (3, "n"), (5, attribute))), (12, encoded((1, "y"))))
    path.write_bytes(encoded((7, graph), OPSET))
    with pytest.raises(ValueError, match=r"given.onnx: node n \(If\): expected an operator that a model here has"):
        exchange.load(path)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "got one that is truncated or none at all .expected a graph, got 0."),
    (b"\x3b", "expected a field of wire type 0, 1, 2 or 5, got 3"),
    (b"\x00\x00", "expected a field's number, got 0"),
    (b"\x38\x01", "expected a message, got the number 1"),
    (b"\x08" + b"\xff" * 11, "expected a varint, got one without an end"),
    (b"\x08", "expected a varint, got one without an end"),
    (encoded((7, encoded((2, "a"))), (7, encoded((2, "b")))), "expected a graph, got 2"),
    (encoded((7, encoded((1, encoded((4, b"\xff\xfe")))))), "expected UTF-8 text, got"),
    (encoded((7, b""), (8, encoded((1, "them"), (2, 1)))), "expected the version of its operators, got none"),
    (encoded((7, encoded((12, encoded((1, "y"))))), OPSET), "y: expected the output of a node before it, got"),
    (encoded((7, b""), OPSET), "graph: expected an output, got none"),
])  # fmt: skip
def test_what_is_no_file_is_refused(content, message, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        exchange.load(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("notes", "message"), [
    (b"{", "metadata cylstm: expected JSON, got some that is truncated"),
    (b"[" * 100_000, "metadata cylstm: expected JSON, got"),
    (b"[1]", "metadata cylstm: expected a JSON object, got list"),
    (b'{"dropout": [0.5]}', "expected dropout in .0, 1. of 5 layers, got .0.5."),
    (b'{"dropout": [0, 0, 1, 0, 0]}', "expected dropout in .0, 1. of 5 layers"),
    (b'{"dropout": [0.5, 0, 0, 0, 0]}', "metadata cylstm: expected no dropout of an embedding, got 0.5"),
    (b'{"labels": {}}', "labels: expected a list of 2 labels, got dict"),
    (b'{"labels": [[1], 2]}', "labels: expected strings, finite numbers or booleans, got"),
    (b'{"labels": ["a"]}', "labels: expected 2 different labels"),
    (b'{"labels": ["a", Infinity]}', "labels: expected strings, finite numbers or booleans, got float inf"),
    (b'{"loss": "mse"}', "loss: expected one whose outputs go through softmax, got 'mse'"),
    (b'{"loss": 5}', "loss: expected one of 'cross_entropy', .*, got int 5"),
    (b'{"loss": {"name": ["mse"]}}', "loss: expected one of 'cross_entropy', .*, got dict"),
    (b'{"loss": {"name": "cross_entropy", "smoothing": "1"}}', "smoothing: expected a number, got str '1'"),
    (b'{"loss": {"name": "cross_entropy", "delta": 1}}', "for 'cross_entropy' smoothing, got str 'delta'$"),
    (b'{"loss": {"name": "mse", "\\u001b[2J": 1}}', r"expected for 'mse' no parameters, got str '.x1b.2J'$"),
    (b'{"loss": {"name": "mse"' + b"".join(b', "%d": 1' % n for n in range(20000)) + b"}}", "got str '[0-9]+'$"),
    (b'{"loss": {"name": "quantiles", "quantiles": [' + b"0.5, " * 20000 + b"0.5]}}", "got tuple .{,70}$"),
    (b'{"loss": {"name": "ctc", "blank": 2}}', "blank: expected a class in 0..1, got int 2$"),
    (b'{"loss": {"name": "ctc", "blank": 1%s}}' % (b"0" * 4200), "blank: expected a class in 0..1, got int .{,60}$"),
    (b'{"loss": {"name": "ctc", "zero_infinity": "False"}}', "zero_infinity: expected True or False, got str 'False'"),
    (b'{"vocabulary": 3}', "vocabulary: expected JSON, got int"),
    (b'{"vocabulary": "[]"}', "text: expected the JSON of a vocabulary"),
])  # fmt: skip
def test_notes_that_are_wrong_are_refused(notes, message, path, whole):
    path.write_bytes(whole + encoded((14, encoded((1, "cylstm"), (2, notes)))))
    with pytest.raises(ValueError, match=message) as error:
        exchange.load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_what_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"absent\.onnx"):
        onnx.read(tmp_path / "absent.onnx")
    with pytest.raises(IsADirectoryError):
        onnx.read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.onnx")
        with pytest.raises(ValueError, match="expected a regular file, got a pipe or a device"):
            onnx.read(tmp_path / "pipe.onnx")


# --- data in other files ----------------------------------------------------------------------------------------------


def with_external(*pairs):
    """A graph whose W is in another file."""
    moved = tensor("W", TENSORS["W"], external=pairs)
    return model(GRAPH, {**TENSORS, "W": moved})


def test_weights_in_another_file_are_read(path, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "data.bin").write_bytes(b"12345678" + TENSORS["W"].tobytes() + b"90")
    path.write_bytes(with_external(("location", "below/data.bin"), ("offset", 8), ("length", TENSORS["W"].nbytes)))
    assert np.array_equal(onnx.read_nodes(path)[0].W, TENSORS["W"])
    path.write_bytes(with_external(("location", "below/data.bin"), ("offset", 8)))
    assert np.array_equal(onnx.read_nodes(path)[0].W, TENSORS["W"])


SIZE = TENSORS["W"].nbytes


@pytest.mark.parametrize(("pairs", "message"), [
    ((("location", "../outside.bin"),), "expected its data in a file of the model's folder, got '../outside.bin'"),
    ((("location", "link.bin"),), "expected its data in a file of the model's folder, got 'link.bin'"),
    ((("location", "/etc/hostname"),), "expected its data in a file of the model's folder, got '/etc/hostname'"),
    ((("location", ""),), "expected its data in a file of the model's folder, got ''"),
    ((("location", "a\0b"),), "expected its data in a file of the model's folder, got"),
    ((("location", "."),), "expected its data in a regular file, got ."),
    ((("location", "absent.bin"),), "No such file or directory"),
    ((("location", "data.bin"), ("offset", 9)), f"expected {SIZE} bytes at 9 in data.bin, got {SIZE + 8} in all"),
    ((("location", "data.bin"), ("offset", -8)), f"expected {SIZE} bytes in data.bin for its shape, got {SIZE} at -8"),
    ((("location", "data.bin"), ("length", 8)), f"expected {SIZE} bytes in data.bin for its shape, got 8 at 0"),
    ((("location", "data.bin"), ("offset", "x")), "expected whole numbers for offset and length"),
])  # fmt: skip
def test_data_that_is_elsewhere_or_too_short_is_refused(pairs, message, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (folder / "data.bin", tmp_path / "outside.bin"):
        place.write_bytes(bytes(8) + TENSORS["W"].tobytes())
    os.symlink(tmp_path / "outside.bin", folder / "link.bin")
    (folder / "given.onnx").write_bytes(with_external(*pairs))
    for read in (exchange.load, onnx.read_nodes):
        with pytest.raises((OSError, ValueError), match=message) as error:
            read(folder / "given.onnx")
        assert str(folder / "given.onnx") in str(error.value)


def test_numbers_that_are_claimed_again_and_again(tmp_path):
    (tmp_path / "data.bin").write_bytes(bytes(3) + TENSORS["W"].tobytes())
    tensors = {name: tensor(name, TENSORS["W"], external=(("location", "data.bin"), ("offset", n)))
               for n, name in enumerate(("W", "A", "C", "E"))}  # fmt: skip
    (tmp_path / "given.onnx").write_bytes(model([node("Add", "A C", "F"), node("Add", "F E", "G"), *GRAPH],
                                                {**TENSORS, **tensors}))  # fmt: skip
    with pytest.raises(ValueError, match=r"tensor W: expected other numbers of data\.bin than those of other tensors"):
        exchange.load(tmp_path / "given.onnx")


def test_a_shape_that_no_file_can_fill(tmp_path):
    path = tmp_path / "given.onnx"
    (tmp_path / "data.bin").write_bytes(numbers(30).tobytes())
    claimed = encoded((1, [2**40, 16, 3]), (2, 1), (8, "W"), (13, [encoded((1, "location"), (2, "data.bin"))]), (14, 1))
    path.write_bytes(model(GRAPH, {**TENSORS, "W": claimed}))
    with pytest.raises(ValueError, match=r"in data\.bin, got 120 in all"):
        exchange.load(path)
