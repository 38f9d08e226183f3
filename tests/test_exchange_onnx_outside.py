"""ONNX graphs whose inputs are cast, cut and used in other places than a model's: read as they are, or refused."""

import numpy as np
import pytest
from onnx_graphs import B, H, I, T, dense, lstm, model, node, numbers, weights

from cylstm import exchange
from cylstm.exchange import onnx
from cylstm.exchange.onnx_file import BFLOAT16, DOUBLE, FLOAT, INT32, INT64

BOOL, FLOAT16, INT8, UINT32 = 9, 10, 3, 12
X = numbers(T, B, I)
SIZES = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "three": np.array([3]),
         "nothing": np.array(0), "first": np.array(1)}  # fmt: skip
HEAD = [node("Squeeze", "Y one", "s"), node("MatMul", "s W2", "y")]
GIVEN = {**weights(), **SIZES, "W2": dense(2, H)[0], "table": numbers(9, I)}
STEPS = ("x", FLOAT, ("time", "batch", I))


@pytest.fixture
def read(tmp_path):
    """A network from a graph."""

    def read(nodes, inputs, load=False, **more):
        path = tmp_path / "graph.onnx"
        path.write_bytes(model(nodes, {**GIVEN, **more}, inputs=inputs))
        return (exchange.load if load else onnx.read)(path)

    return read


# --- casts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [BOOL, FLOAT16, BFLOAT16, INT8, UINT32, INT32, INT64])
def test_a_cast_that_changes_numbers_is_refused(to, read):
    nodes = [node("Cast", "x", "cast", to=to), node("Cast", "cast", "steps", to=FLOAT),
             node("LSTM", "steps W R B", "Y"), *HEAD]  # fmt: skip
    with pytest.raises(
        ValueError, match=r"graph.onnx: node (cast of cast \(Cast\)|lstm of Y \(LSTM\)): expected .*num"
    ):
        read(nodes, [STEPS])
    nodes = [node("Cast", "x", "cast", to=to), node("MatMul", "cast W3", "steps"), node("LSTM", "steps W R B", "Y"),
             *HEAD]  # fmt: skip
    with pytest.raises(
        ValueError, match=r"node (cast of cast \(Cast\)|matmul of steps \(MatMul\)): expected .*numbers"
    ):
        read(nodes, [STEPS], W3=dense(I, I)[0])


@pytest.mark.parametrize("to", [FLOAT, DOUBLE])
def test_a_cast_between_floats_is_read(to, read):
    ours = read([node("Cast", "x", "steps", to=to), node("LSTM", "steps W R B", "Y"), *HEAD], [STEPS], load=True)
    Y, _, _ = lstm(X, **weights())
    np.testing.assert_allclose(ours(X.swapaxes(0, 1))[0], Y[:, 0].swapaxes(0, 1) @ GIVEN["W2"], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("to", [INT32, INT64, BOOL, INT8, UINT32, FLOAT16])
def test_ids_are_cast_to_whole_numbers(to, read):
    nodes = [node("Cast", "x", "ids", to=to), node("Gather", "table ids", "steps"), node("LSTM", "steps W R B", "Y"),
             *HEAD]  # fmt: skip
    inputs = [("x", FLOAT, ("time", "batch"))]
    if to in (INT32, INT64):
        assert np.array_equal(read(nodes, inputs).layers[0].weight, GIVEN["table"])
    else:
        with pytest.raises(
            ValueError, match=r"cast of ids \(Cast\): expected numbers that stay in floating point of 32"
        ):
            read(nodes, inputs)


def test_a_state_that_is_cast(read):
    inputs = [STEPS, ("h", DOUBLE, (1, "batch", H))]
    for to in (FLOAT, INT64):
        nodes = [node("Cast", "h", "h0", to=to), node("LSTM", "x W R B - h0", "Y"), *HEAD]
        if to == FLOAT:
            assert read(nodes, inputs).layers[0].directions[0].h0 is None
        else:
            with pytest.raises(ValueError, match=r"of Y \(LSTM\): expected initial_h .1, B, 4. that is an input, or "
                               "rows of one, got what a Cast makes whole"):  # fmt: skip
                read(nodes, inputs)


@pytest.mark.parametrize("to", [INT32, INT8])
def test_a_state_of_one_number_that_is_cast(to, read):
    """ConstantOfShape of 2.75, which is no state of 2.75 behind a Cast."""
    nodes = [node("ConstantOfShape", "shape", "f", value=np.array([2.75], "f4")), node("Cast", "f", "w", to=to),
             node("Cast", "w", "h0", to=FLOAT), node("LSTM", "x W R B - h0", "Y"), *HEAD]  # fmt: skip
    network = read(nodes, [STEPS], shape=np.array([1, B, H]))
    assert np.array_equal(network.layers[0].directions[0].h0, np.full(H, 2.0))


@pytest.mark.parametrize("array", [np.full((1, B, H), 3), np.array(2)])
def test_a_state_of_whole_numbers_is_refused(array, read):
    """Which is not as none."""
    with pytest.raises(ValueError, match=r"of Y \(LSTM\): expected initial_h .1, B, 4. of real numbers, got int64"):
        read([node("LSTM", "x W R B - state", "Y"), *HEAD], [STEPS], state=array)


# --- first states -----------------------------------------------------------------------------------------------------


def stacked(first, second, *before):
    """Two LSTM nodes with these last inputs."""
    return [*before, node("LSTM", f"x W R B {first}", "Y0 Yh0 Yc0"), node("Squeeze", "Y0 one", "s0"),
            node("LSTM", f"s0 V S B {second}", "Y"), *HEAD]  # fmt: skip


def rows(source, start, end, output):
    return node("Slice", f"{source} {start} {end} zero", output)


def state(name, L=2, batch="batch"):
    return name, FLOAT, (L, batch, H)


ORDERED = [rows("h", "zero", "one", "h0"), rows("h", "one", "two", "h1"), rows("c", "zero", "one", "c0"),
           rows("c", "one", "two", "c1")]  # fmt: skip
AS_ROWS = [part for kind in "hc" for n, place in enumerate(("nothing", "first")) for part in (
    node("Gather", f"{kind} {place}", f"{kind}g{n}"), node("Unsqueeze", f"{kind}g{n} zero", f"{kind}{n}"))]  # fmt: skip
READ = {
    "slices in order": (stacked("- h0 c0", "- h1 c1", *ORDERED), [state("h"), state("c")]),
    "slices of any size": (stacked("- h0 c0", "- h1 c1", *ORDERED), [state("h", "rows"), state("c", "rows")]),
    "rows in order": (stacked("- h0 c0", "- h1 c1", *AS_ROWS), [state("h"), state("c")]),
    "pieces in order": (stacked("- h0 c0", "- h1 c1", node("Split", "h", "h0 h1"), node("Split", "c", "c0 c1")),
                        [state("h"), state("c")]),
    "batches first": (stacked("- h0 c0", "- h1 c1", node("Transpose", "hb", "h", perm=[1, 0, 2]), *ORDERED),
                      [("hb", FLOAT, ("batch", 2, H)), state("c")]),
    "inputs of their own": (stacked("- h0 c0", "- h1 c1"), [state(name, 1) for name in ("h0", "h1", "c0", "c1")]),
    "no sizes": (stacked("- h0 c0", "- h1 c1"), [(name, FLOAT, ()) for name in ("h0", "h1", "c0", "c1")]),
    "lengths": (stacked("n", "n"), [("n", INT32, ("batch",))]),
    "lengths of two axes": (stacked("n", "n", node("Squeeze", "k one", "n")), [("k", INT32, ("batch", 1))]),
}  # fmt: skip
REFUSED = {
    "x for a state": (stacked("- x", ""), [], r"of Y0 \(LSTM\): expected initial_h .1, B, 4. that is an input, or r"),
    "a step of x": ([rows("q", "zero", "one", "p"), node("LSTM", "q V S B - p", "Y"), *HEAD], [state("q", "time")],
                    r"of Y \(LSTM\): expected initial_h that is an input of its own, .*, got q, which is X of a node"),
    "one for two": (stacked("- h c", "- h c"), [state("h", 1), state("c", 1)],
                    r"node lstm of Y \(LSTM\): expected initial_h that is an input of its own, or the next rows of one"
                    ", as layers go, got rows 0..1 of h"),
    "one for both": (stacked("- h h", ""), [state("h", 1)], "expected initial_c .*, got h, which is initial_h of a n"),
    "another order": (stacked("- h1 c0", "- h0 c1", *ORDERED), [state("h"), state("c")],
                      r"node lstm of Y0 \(LSTM\): expected initial_h .*, got rows 1..2 of h"),
    "another order of c": (stacked("- h0 c1", "- h1 c0", *ORDERED), [state("h"), state("c")],
                           r"node lstm of Y0 \(LSTM\): expected initial_c .*, got rows 1..2 of c"),
    "h for c in one": (stacked("- h0 c0", "- c1 h1", *ORDERED), [state("h"), state("c")],
                       r"node lstm of Y \(LSTM\): expected initial_h .*, got c, which is initial_c of a node"),
    "the first rows twice": (stacked("- h0", "- h0", *ORDERED), [state("h"), state("c")], "got rows 0..1 of h"),
    "one row of a batch": (stacked("- g", "", node("Slice", "h zero one one", "g")), [state("h", 1)],
                           r"expected initial_h .1, B, 4. that is an input, or rows of one, got other parts of h"),
    "another row of a batch": (stacked("- g", "", node("Squeeze", "h zero", "a"), node("Gather", "a nothing", "b"),
                                       node("Unsqueeze", "b both", "g")), [state("h", 1)], "got other parts of h"),
    "a part of units": (stacked("- g", "", node("Slice", "h zero units two", "g")), [("h", FLOAT, (1, B, H + 1))],
                        "got other parts of h"),
    "a part of a part": (stacked("- g", "", rows("h", "zero", "two", "a"), rows("a", "zero", "one", "g")),
                         [state("h", "rows"), state("c")], "got other parts of h"),
    "too many rows": (stacked("- h", ""), [state("h")], r"expected initial_h .1, B, 4. .*, got .2, batch|h.1, 4."),
    "other units": (stacked("- h", ""), [("h", FLOAT, (1, "batch", H + 1))], "expected initial_h .1, B, 4. that is an"),
    "a plane": (stacked("- h", ""), [("h", FLOAT, ("batch", H))], "expected initial_h .1, B, 4. that is an input, or"),
    "axes that are joined": (stacked("- g", "", node("Reshape", "h joined", "g")), [("h", FLOAT, (1, 2, 3, H))],
                             "expected initial_h .1, B, 4. that is an input, or"),
    "two lengths": (stacked("n", "m"), [("n", INT32, ("batch",)), ("m", INT32, ("batch",))],
                    r"of Y \(LSTM\): expected sequence_lens that are an input of their own, the same for al.*, got m"),
    "lengths for one": (stacked("", "n"), [("n", INT32, ("batch",))], r"of Y .LSTM.: expected sequence_lens .*, got n"),
    "lengths for the first": (stacked("n", ""), [("n", INT32, ("batch",))], "expected sequence_lens .*, got none"),
    "lengths that are a state": (stacked("n n", "n"), [("n", INT32, ())], "expected sequence_lens .* of their own"),
    "a part of lengths": (stacked("m", "m", rows("n", "zero", "two", "m")), [("n", INT32, ("all",))],
                          r"of Y0 \(LSTM\): expected sequence_lens that are an input, or all steps, got others"),
}  # fmt: skip
SECOND = {"V": weights(I=H)["W"], "S": weights(seed=6)["R"], "joined": np.array([1, 6, H]), "units": np.array([H]),
          "both": np.array([0, 1])}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_first_states_and_lengths_that_a_caller_can_give(name, read):
    nodes, inputs = READ[name]
    layers = read(nodes, [STEPS, *inputs], **SECOND).layers
    assert [layer.directions[0].h0 for layer in layers[:2]] == [None, None]


@pytest.mark.parametrize("name", REFUSED)
def test_first_states_and_lengths_that_no_caller_can_give(name, read):
    nodes, inputs, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        read(nodes, [STEPS, *inputs] if name != "a step of x" else inputs, **SECOND)
    assert "\n" not in str(error.value)


def test_both_directions_take_two_rows_each(read):
    """In layout 0 and 1."""
    given = {**weights(2), "V": weights(2, I=2 * H)["W"], "four": np.array([4]), "all": np.array([0, 0, 2 * H]),
             "W2": dense(2, 2 * H)[0]}  # fmt: skip
    both = dict(direction="bidirectional", layout=1)
    for axis, shape in (("one", ("batch", 4, H)), ("zero", (4, "batch", H))):
        nodes = [node("Slice", f"h zero two {axis}", "h0"), node("Slice", f"h two four {axis}", "h1"),
                 node("LSTM", "x W R B - h0", "Y0", **both), node("Reshape", "Y0 all", "s0"),
                 node("LSTM", "s0 V R B - h1", "Y", **both), node("Reshape", "Y all", "s"), HEAD[1]]  # fmt: skip
        inputs = [("x", FLOAT, ("batch", "time", I)), ("h", FLOAT, shape)]
        if axis == "one":
            assert len(read(nodes, inputs, **given).layers) == 3
        else:
            with pytest.raises(ValueError, match=r"expected initial_h .2, B, 4. that is an input, or rows of one, got"):
                read(nodes, inputs, **given)
