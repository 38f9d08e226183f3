"""ONNX files beside onnxruntime, openvino and onnx's own evaluator: ours there, and the operator's own tests here."""

import importlib.util

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx.backend.test.case.node import lstm as node_tests  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from test_exchange_onnx import ACTIVATIONS, NUMBERED  # noqa: E402
from test_exchange_onnx_cells import OURS as CELLS  # noqa: E402

import cylstm  # noqa: E402
from cylstm import exchange  # noqa: E402
from cylstm.exchange.network import Network  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and the exporters deprecate much of each other
B, T = 4, 7


def close(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def by_onnxruntime(path, given):
    return onnxruntime.InferenceSession(path).run(None, given)


def by_openvino(path, given):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # not bfloat16, its default
    found = compiled(given)
    return [found[n] for n in range(len(compiled.outputs))]


def by_onnx(path, given):
    """The reference, which knows no lengths."""
    return ReferenceEvaluator(path).run(None, given)


RUNTIMES = [by_onnxruntime, by_onnx] + ([by_openvino] if importlib.util.find_spec("openvino") else [])

# --- ours, there ------------------------------------------------------------------------------------------------------

MODELS = {
    "plain": dict(input_size=3, hidden_size=5, output_size=2, loss="mse"),
    "both directions": dict(input_size=3, hidden_size=5, output_size=4, num_layers=3, bidirectional=True),
    "ids": dict(input_size=9, hidden_size=6, output_size=9, embedding_size=4, num_layers=2),
    "the last state": dict(input_size=9, hidden_size=6, output_size=1, embedding_size=4, num_layers=2, output="last",
                           bidirectional=True, loss="binary_cross_entropy"),
    "dense layers": dict(input_size=3, hidden_size=5, output_size=3, loss="mse", head_bias=False,
                         before=[cylstm.Dense(6, name, bias=n % 2 == 0) for n, name in enumerate(ACTIVATIONS)],
                         after=[cylstm.Dense(6, name) for name in ACTIVATIONS]),
    "peepholes": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", peepholes=True, num_layers=2),
    "coupled": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", coupled=True, bidirectional=True),
}  # fmt: skip
# What a runtime leaves out in silence: the evaluator (1.23) and openvino (2026.4) input_forget, openvino P.
CANNOT = {("coupled", by_onnx), ("coupled", by_openvino), ("peepholes", by_openvino)}


def random_model(name):
    model = cylstm.Model(**MODELS[name], seed=2)
    model.parameters.flat = np.random.default_rng(1).uniform(-0.6, 0.6, model.parameters.size)
    return model


def inputs_of(model, rng):
    ids = model.embedding_size is not None
    x = rng.integers(0, model.input_size, (B, T)) if ids else rng.standard_normal((B, T, model.input_size)).astype("f4")
    LD = model.num_layers * (2 if model.bidirectional else 1)
    return x, rng.standard_normal((2, LD, B, model.hidden_size)).astype("f4")


def outputs_of(model, x, state=None, **options):
    """Those of the file: probabilities, where the loss has some, and states."""
    y, final = model(x, state, **options)
    if model.loss.name == "cross_entropy":
        y = np.exp(y - y.max(axis=-1, keepdims=True))
        y /= y.sum(axis=-1, keepdims=True)
    return [1 / (1 + np.exp(-y)) if model.loss.name == "binary_cross_entropy" else y, final.h, final.c]


@pytest.mark.parametrize(
    ("name", "run"), [(name, run) for name in MODELS for run in RUNTIMES if (name, run) not in CANNOT]
)
def test_a_model_gives_the_same_numbers_there(name, run, tmp_path, rng):
    path, model = str(tmp_path / "model.onnx"), random_model(name)
    exchange.save(model, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    x, (h, c) = inputs_of(model, rng)
    close(run(path, {"x": x, "h0": h, "c0": c}), outputs_of(model, x, (h, c)))
    exchange.save(model, path, states=False)
    close(run(path, {"x": x[:3, :5]}), outputs_of(model, x[:3, :5])[:1])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer_gives_the_same_numbers_there(bidirectional, tmp_path, rng):
    path = str(tmp_path / "layer.onnx")
    lstm = cylstm.LSTM(3, 5, 2, bidirectional=bidirectional, bias=False, seed=1)
    exchange.save(lstm, path)
    x, (h, c) = rng.standard_normal((B, T, 3)).astype("f4"), rng.standard_normal((2, lstm.num_directions * 2, B, 5))
    h, c = h.astype("f4"), c.astype("f4")
    y, final = lstm(x, (h, c))
    for run in RUNTIMES:
        close(run(path, {"x": x, "h0": h, "c0": c}), [y, final.h, final.c])


@pytest.mark.parametrize("name", NUMBERED)
def test_dense_layers_with_numbers_there(name, tmp_path, rng):
    path = str(tmp_path / "model.onnx")
    model = cylstm.Model(3, 5, 2, loss="mse", after=[cylstm.Dense(20, name)], seed=1)
    model.parameters.flat = rng.uniform(-0.8, 0.8, model.parameters.size)
    exchange.save(model, path, states=False)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    x = rng.standard_normal((B, T, 3)).astype("f4")
    for run in RUNTIMES:
        close(run(path, {"x": x}), [model(x)[0]])


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("variant", [{}, dict(peepholes=True, bidirectional=True), dict(coupled=True)])
@pytest.mark.parametrize("activations", [*CELLS, None])
def test_cells_with_activations_and_a_clip_there(activations, variant, clip, tmp_path, rng):
    """In onnxruntime; others leave the clip or activations out."""
    path = str(tmp_path / "cell.onnx")
    lstm = cylstm.LSTM(3, 5, 2, activations=activations, gate_clip=clip, seed=1, **variant)
    lstm.parameters.flat = rng.uniform(-0.3, 0.3, lstm.parameters.size)
    exchange.save(lstm, path, clip=True)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    x, (h, c) = rng.standard_normal((B, T, 3)).astype("f4"), rng.standard_normal((2, lstm.num_directions * 2, B, 5))
    h, c = h.astype("f4"), c.astype("f4")
    y, final = lstm(x, (h, c))
    close(by_onnxruntime(path, {"x": x, "h0": h, "c0": c}), [y, final.h, final.c])


@pytest.mark.parametrize("name", ["the last state", "both directions"])
def test_lengths_there(name, tmp_path, rng):
    path, model = str(tmp_path / "model.onnx"), random_model(name)
    exchange.save(model, path, lengths=True)
    x, (h, c) = inputs_of(model, rng)
    lengths = np.array([7, 1, 5, 2], np.int32)
    y, *final = by_onnxruntime(path, {"x": x, "h0": h, "c0": c, "lengths": lengths})
    expected, *state = outputs_of(model, x, (h, c), lengths=lengths)
    close(final, state)
    if model.output == "last":
        close([y], [expected])
    else:
        for row, length in enumerate(lengths):
            close([y[row, :length]], [expected[row, :length]])


def test_a_first_state_of_its_own_there(tmp_path, rng):
    path, lstm = str(tmp_path / "layer.onnx"), cylstm.LSTM(3, 5, bidirectional=True, seed=1)
    network = exchange.network_of(lstm)
    h, c = rng.standard_normal((2, 2, 5)).astype("f4")
    for n, direction in enumerate(network.layers[0].directions):
        object.__setattr__(direction, "h0", h[n])
        object.__setattr__(direction, "c0", c[n])
    exchange.write(network, path, states=False)
    x = rng.standard_normal((B, T, 3)).astype("f4")
    expected, _ = lstm(x, tuple(np.repeat(one[:, None], B, axis=1) for one in (h, c)))
    for run in RUNTIMES:
        close(run(path, {"x": x}), [expected])
    assert np.array_equal(exchange.read(path).layers[0].directions[1].c0, c[1])


def test_doubles_in_the_evaluator(tmp_path, rng):
    path = str(tmp_path / "model.onnx")
    model = cylstm.Model(3, 5, 2, loss="mse", dtype="float64", seed=1)
    exchange.save(model, path, dtype="float64", states=False)
    x = rng.standard_normal((B, T, 3))
    np.testing.assert_allclose(by_onnx(path, {"x": x})[0], model(x)[0], rtol=1e-12, atol=1e-12)


# --- the operator's own tests -----------------------------------------------------------------------------------------


def node_cases():
    """The cases of the package's node tests: (name, node, inputs, outputs) of each, as they are exported."""
    found = []

    def note(node, inputs, outputs, name):
        found.append(pytest.param(node, inputs, outputs, id=name.removeprefix("test_")))

    before, node_tests.expect = node_tests.expect, note
    try:
        for name in sorted(vars(node_tests.LSTM)):
            if name.startswith("export"):
                getattr(node_tests.LSTM, name)()
    finally:
        node_tests.expect = before
    return found


CASES = node_cases()


def test_there_are_node_tests():
    assert {case.id for case in CASES} >= {
        "lstm_defaults", "lstm_with_initial_bias", "lstm_with_peepholes", "lstm_batchwise", "lstm_bidirectional",
        "lstm_reverse"}  # fmt: skip


@pytest.mark.parametrize(("node", "inputs", "outputs"), CASES)
def test_the_operators_own_tests(node, inputs, outputs, tmp_path):
    given = dict(zip((name for name in node.input if name), inputs, strict=True))
    path = tmp_path / "node.onnx"
    write_node(node, given, path)
    lstm = exchange.load(path)
    (read,) = exchange.onnx.read_nodes(path)
    X = given["X"] if read.layout else given["X"].swapaxes(0, 1)
    y, state = lstm(X, first_state(read, given), lengths=given.get("sequence_lens"))
    y = y.reshape(*y.shape[:2], -1, lstm.hidden_size)
    made = {"Y": y if read.layout else y.transpose(1, 2, 0, 3)}
    made |= {name: one.swapaxes(0, 1) if read.layout else one for name, one in zip(("Y_h", "Y_c"), state, strict=True)}
    close([made[name] for name in node.output if name], outputs)


def first_state(read, given):
    """What the case begins with, as we take it; None for zeros."""
    if "initial_h" not in given:
        return None
    return tuple(given[name].swapaxes(0, 1) if read.layout else given[name] for name in ("initial_h", "initial_c"))


def write_node(node, given, path):
    """A model of one node whose weights are in the file, as in files that people have."""
    weights = [onnx.numpy_helper.from_array(given[name], name) for name in "WRBP" if name in given]
    outer = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
             for name, array in given.items() if name not in "WRBP"]  # fmt: skip
    outputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", outer, outputs, weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)]), path)


def test_nothing_of_a_network_is_lost_between_two_files(tmp_path):
    """Written, read, and written again: the same bytes."""
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    exchange.save(random_model("dense layers"), paths[0])
    network = exchange.read(paths[0])
    assert isinstance(network, Network)
    exchange.write(network, paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
