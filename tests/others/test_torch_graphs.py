"""What makes a graph of a model: compilers, exporters, tracers, fake tensors. It follows its input and the weights."""

import contextlib
import copy
import io
import shutil

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch_pairs import (  # noqa: E402
    ARCHITECTURES,
    accelerated,
    assert_close,
    inputs,
    loss_of,
    options_of,
    pair,
    parts,
    rnn,
    swapped,
    under_test,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and the exporters deprecate much of each other
LAYOUTS = ["time-major", "batch-first", "unbatched"]
MAKERS = [swapped, accelerated]
COMPILED = "inductor" if shutil.which("g++") else "aot_eager"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    # torch refuses to compile an nn.LSTM unless told so, which importing cylstm.torch does.
    told = torch._dynamo.config.patch(allow_rnn=True) if under_test.LSTM is torch.nn.LSTM else contextlib.nullcontext()
    with told:
        yield
    torch._dynamo.reset()


class Net(torch.nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        return y.relu(), h, c


class Stateful(Net):
    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h, c))
        return y.relu(), h, c


class Packed(Net):
    def forward(self, x, lengths):
        x = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, (h, c) = self.lstm(x)
        return rnn.pad_packed_sequence(y)[0], h, c


def nets(*args, kind=Net, **options):
    return [kind(module) for module in pair(*args, **options)]


def gradients(net, given):
    net.zero_grad()
    given = [part.detach().clone().requires_grad_() for part in given]
    outputs = net(*given)
    loss_of(outputs).backward()
    return [*(part.detach() for part in outputs), *(p.grad for p in [*given, *net.parameters()])]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_whole(layout, backend, make, fresh_dynamo):
    ours, theirs = nets(3, 9, 2, **options_of(layout), make=make, kind=Stateful)
    compiled = torch.compile(ours, fullgraph=True, backend=backend)
    for _ in range(2):
        x, hx = inputs(theirs.lstm, 5, 2, layout)
        assert_close(gradients(compiled, (x, *hx)), gradients(theirs, (x, *hx)))
        with torch.no_grad():
            assert_close(compiled(x, *hx), theirs(x, *hx))
            for net in (ours, theirs):
                net.lstm.weight_hh_l0.data.mul_(0.5)  # a graph keeps no copy of the weights


@pytest.mark.parametrize("trains", [False, True])
def test_compiled_to_machine_code(trains, fresh_dynamo):
    ours, theirs = nets(3, 5, dtype=torch.float32)
    x = torch.randn(2, 2, 3)
    compiled = torch.compile(ours, fullgraph=True, backend=COMPILED)
    with torch.set_grad_enabled(trains):
        run = gradients if trains else lambda net, given: net(*given)
        assert_close(run(compiled, (x,)), run(theirs, (x,)))


def test_compiled_for_any_length(fresh_dynamo):
    ours, theirs = nets(3, 5)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager", dynamic=True)
    for T, B in ((5, 2), (3, 4), (1, 1), (7, 2)):
        x, _ = inputs(theirs.lstm, T, B, "time-major")
        assert_close(gradients(compiled, (x,)), gradients(theirs, (x,)))


def test_compiled_with_dropout_between_layers(fresh_dynamo):
    """Something else is dropped in each call (torch 2.13's own graph of nn.LSTM keeps its first mask for ever)."""
    ours, theirs = nets(3, 5, 2, dropout=0.5)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x, _ = inputs(theirs.lstm, 5, 2, "time-major")
    masked = [compiled(x)[0] for _ in range(2)]
    assert not torch.equal(*masked)
    ours.eval(), theirs.eval()
    assert_close(compiled(x), theirs(x))


def test_compiled_around_packed_rows(fresh_dynamo):
    ours, theirs = nets(3, 5, kind=Packed)
    compiled = torch.compile(ours, backend="aot_eager")
    x, _ = inputs(theirs.lstm, 5, 3, "time-major")
    for lengths in ([2, 5, 3], [5, 1, 1]):
        assert_close(compiled(x, torch.tensor(lengths)), theirs(x, torch.tensor(lengths)))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exported(architecture, strict, make):
    ours, theirs = nets(3, 9, **architecture, make=make)
    x, _ = inputs(theirs.lstm, 5, 2, "time-major")
    program = torch.export.export(ours.eval(), (x,), strict=strict)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("lstm" in target for target in targets) and not any("cylstm" in target for target in targets)
    assert program.state_dict.keys() == theirs.state_dict().keys()
    x, _ = inputs(theirs.lstm, 5, 2, "time-major")
    assert_close(program.module()(x), theirs.eval()(x))
    assert_close(ours(x), theirs(x))


def test_exported_for_any_batch_and_saved():
    ours, theirs = nets(3, 9, 2, batch_first=True)
    x, _ = inputs(theirs.lstm, 5, 2, "batch-first")
    program = torch.export.export(ours.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    file = io.BytesIO()
    torch.export.save(program, file)
    assert b"ops.cylstm" not in file.getvalue()  # notes on where each node comes from may name us
    file.seek(0)
    x, _ = inputs(theirs.lstm, 5, 4, "batch-first")
    assert_close(torch.export.load(file).module()(x), theirs.eval()(x))


def kinds(tensors):
    return [(part.shape, part.stride(), part.dtype, part.device, part.requires_grad) for part in tensors]


@pytest.mark.parametrize("where", ["made inside", "fake inputs alone"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors(layout, where):
    found = []
    for make in (under_test.LSTM, torch.nn.LSTM):
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        module = make(3, 9, 2, **options_of(layout))
        x, hx = inputs(module, 5, 2, layout)
        if where == "made inside":
            with mode:
                module = make(3, 9, 2, **options_of(layout))
        x, *hx = (mode.from_tensor(part) for part in (x, *hx))
        with mode:
            outputs = parts(module(x, tuple(hx)))
            sum(part.sum() for part in outputs).backward()
        assert all(type(part).__name__ == "FakeTensor" for part in outputs)
        found.append(kinds([*outputs, *(p.grad for p in module.parameters())]))
    assert found[0] == found[1]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("kind", [Net, Stateful])
def test_fx_takes_the_module_as_one_node(kind, make):
    ours, theirs = nets(3, 9, 2, kind=kind, make=make)
    graphs = [torch.fx.symbolic_trace(net) for net in (ours, theirs)]
    listed = [[(node.op, str(node.target)) for node in graph.graph.nodes] for graph in graphs]
    assert listed[0] == listed[1] and ("call_module", "lstm") in listed[0]
    x, hx = inputs(theirs.lstm, 5, 2, "time-major")
    given = (x,) if kind is Net else (x, *hx)
    assert_close(gradients(graphs[0], given), gradients(theirs, given))


def lstm_nodes(graph):
    return [node.kind() for node in graph.nodes() if "lstm" in node.kind()]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("mode", ["training", "frozen", "no_grad"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_jit_trace_follows_its_input(architecture, layout, mode, make):
    ours, theirs = nets(3, 9, **architecture, **options_of(layout), make=make)
    ours.requires_grad_(mode == "training")
    with torch.set_grad_enabled(mode != "no_grad"):
        traced = torch.jit.trace(ours.eval(), (inputs(theirs.lstm, 5, 2, layout)[0],))
        assert lstm_nodes(traced.inlined_graph) == ["aten::lstm"]
        for T, B in ((5, 2), (7, 3), (20, 1)):
            x, _ = inputs(theirs.lstm, T, B, layout)
            assert_close(traced(x), theirs.eval()(x))
            assert_close(ours(x), theirs(x))
    if mode == "training":
        assert_close(gradients(traced, (x,)), gradients(theirs, (x,)))


def test_jit_trace_of_the_module_itself_and_of_packed_rows():
    ours, theirs = pair(3, 9)
    traced = torch.jit.trace(ours.eval().requires_grad_(False), (torch.randn(5, 2, 3, dtype=torch.float64),))
    x = torch.randn(7, 3, 3, dtype=torch.float64)
    assert_close(parts(traced(x)), parts(theirs(x)))
    packed = torch.jit.trace(Packed(ours), (x, torch.tensor([3, 7, 5])))
    x = torch.randn(7, 3, 3, dtype=torch.float64)
    assert_close(packed(x, torch.tensor([7, 2, 4])), Packed(theirs)(x, torch.tensor([7, 2, 4])))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("kind", [Net, Packed])
def test_jit_script(kind, make):
    ours, theirs = nets(3, 9, 2, bidirectional=True, kind=kind, make=make)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(ours), file)
    file.seek(0)
    for scripted in (torch.jit.script(ours), torch.jit.load(file)):
        for T, B in ((5, 2), (7, 3)):
            x, _ = inputs(theirs.lstm, T, B, "time-major")
            given = (x,) if kind is Net else (x, torch.tensor([2, T, 1][:B]))
            assert_close(scripted(*given), theirs(*given))
    if kind is Net:
        assert_close(gradients(torch.jit.script(ours), given), gradients(theirs, given))


def test_jit_freeze_and_optimise():
    ours, theirs = nets(3, 9, dtype=torch.float32)
    frozen = torch.jit.optimize_for_inference(torch.jit.script(ours.eval()))
    x, _ = inputs(theirs.lstm, 20, 2, "time-major")
    with torch.no_grad():
        assert_close(frozen(x), theirs(x))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx(dynamo, frozen, make, tmp_path):
    ours, theirs = nets(3, 9, 2, bidirectional=True, batch_first=True, dtype=torch.float32, make=make)
    ours.eval().requires_grad_(not frozen)
    x, _ = inputs(theirs.lstm, 5, 2, "batch-first")
    path = str(tmp_path / "net.onnx")
    if dynamo:
        torch.onnx.export(ours, (x,), path, dynamo=True, input_names=["x"], verbose=False)
    else:
        axes = {"x": {0: "batch", 1: "steps"}}
        torch.onnx.export(ours, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
        x, _ = inputs(theirs.lstm, 7, 3, "batch-first")
    session = onnxruntime.InferenceSession(path)
    assert [given.name for given in session.get_inputs()] == ["x"]
    for given in (x, x * -0.5):
        got = session.run(None, {"x": given.numpy()})
        for a, b in zip(got, theirs.eval()(given), strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("copied", [False, True])
def test_numbers_are_as_before_after_graphs_were_made(copied):
    """Tracers leave nothing behind: the module goes on computing, and sees its weights change."""
    ours, theirs = nets(3, 9)
    x, _ = inputs(theirs.lstm, 20, 2, "time-major")
    torch.jit.trace(ours, (x,))
    torch.export.export(ours, (x,))
    torch.fx.symbolic_trace(ours)
    net = copy.deepcopy(ours) if copied else ours
    for each in (net, theirs):
        each.lstm.weight_hh_l0.data.mul_(0.5)
    assert_close(gradients(net, (x,)), gradients(theirs, (x,)))


@pytest.mark.parametrize("wrong", ["h", "c", "resets", "a weight's type", "a weight's shape", "a weight too few"])
def test_the_operator_refuses_what_does_not_fit(wrong):
    """Nothing before it has looked: the graph may be run with other tensors than it was traced with."""
    lstm = torch.nn.LSTM(3, 9, 2).requires_grad_(False)
    x, h, c = torch.randn(5, 2, 3), torch.randn(2, 2, 9), torch.randn(2, 2, 9)
    resets, weights = torch.zeros(5, 2, dtype=torch.bool), list(lstm._flat_weights)
    options = None, resets, True, 2, False, False, False
    torch.testing.assert_close(torch.ops.cylstm.lstm(x, h, c, weights, *options)[0], lstm(x, (h, c))[0])
    if wrong == "h":
        h = h.double()
    elif wrong == "c":
        c = c[:, :1]
    elif wrong == "resets":
        options = None, resets.T, True, 2, False, False, False
    elif wrong == "a weight too few":
        weights.pop()
    else:
        weights[4] = weights[4].double() if wrong == "a weight's type" else weights[4][:, :5]
    with pytest.raises(RuntimeError, match=f"^{wrong if 'weight' not in wrong else 'weights'}: expected"):
        torch.ops.cylstm.lstm(x, h, c, weights, *options)
