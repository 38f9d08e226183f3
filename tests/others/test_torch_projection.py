"""Projections (proj_size) in cylstm.torch, beside torch.nn.LSTM's: who computes them, and what they meet there."""

import types

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import CALLS, LAYOUTS, assert_close, inputs, loss_of, options_of, pair, parts, results  # noqa: E402

import cylstm  # noqa: E402
import cylstm.torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
OPTIONS = dict(num_layers=2, bidirectional=True, proj_size=4)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20291)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cylstm_computes_them(layout, monkeypatch):
    calls = []
    fake = types.SimpleNamespace(lstm=lambda *arguments: calls.append(arguments))
    module = cylstm.torch.LSTM(3, 9, **OPTIONS, **options_of(layout))
    monkeypatch.setattr(torch.nn.modules.rnn, "_VF", fake)
    for T, B in CALLS:
        x, hx = inputs(module, T, B, layout)
        assert cylstm.torch.explain(module, x, hx).engine == "cylstm"
        loss_of(parts(module(x, hx))).backward()
    assert calls == []


def test_float32_and_weights_that_change():
    ours, theirs = pair(3, 37, dtype=torch.float32, **OPTIONS)
    for T, B in (*CALLS, (30, 20)):
        x, hx = inputs(theirs, T, B, "time-major")
        assert_close(results(ours, x, hx), results(theirs, x, hx))
        with torch.no_grad():  # R_p alone, which a call has to notice
            for module in (ours, theirs):
                module.weight_hr_l1_reverse.mul_(0.9)


def test_dropout_has_torchs_masks():
    ours, theirs = pair(3, 9, dropout=0.4, **OPTIONS)
    x, hx = inputs(theirs, 12, 3, "time-major")
    found = []
    for module in (ours, theirs):
        torch.manual_seed(7)
        found.append(results(module, x, hx))
    assert_close(*found)


def test_second_derivatives():
    found = []
    modules = pair(3, 6, proj_size=2)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    for module in modules:
        (slope,) = torch.autograd.grad(loss_of(parts(module(x))), x, create_graph=True)
        found.append(torch.autograd.grad(slope.pow(2).sum(), [x, *module.parameters()]))
    assert_close(*map(list, found))


def test_resets_cut_rows_into_pieces():
    module = cylstm.torch.LSTM(3, 9, proj_size=4, dtype=torch.float64)
    x, resets = torch.randn(8, 2, 3, dtype=torch.float64), torch.zeros(8, 2, dtype=torch.bool)
    resets[5, 1] = True
    y, (h, c) = module(x, resets=resets)
    first, _ = module(x[:5, 1:])
    second, (h_1, c_1) = module(x[5:, 1:])
    assert_close([y[:, 1:], h[:, 1:], c[:, 1:]], [torch.cat([first, second]), h_1, c_1])


def test_compiled():
    torch._dynamo.reset()
    ours, theirs = pair(3, 9, **OPTIONS)
    x, hx = inputs(theirs, 6, 2, "time-major")
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    found = []
    for module in (compiled, theirs):
        outputs = parts(module(x, hx))
        loss_of(outputs).backward()
        found.append(outputs)
    assert_close(*found)
    assert_close([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])
    torch._dynamo.reset()


@pytest.mark.parametrize("bias", [False, True])
def test_weights_go_from_torch_to_the_layer_and_back(bias):
    theirs = torch.nn.LSTM(3, 9, bias=bias, dtype=torch.float64, **OPTIONS)
    layer = cylstm.LSTM(3, 9, 2, bidirectional=True, bias=bias, proj_size=4, dtype="float64")
    layer.load_state_dict(theirs.state_dict())
    x, hx = inputs(theirs, 7, 5, "time-major")
    y, (h, c) = layer(x.numpy().swapaxes(0, 1), [part.numpy() for part in hx])
    got = [torch.from_numpy(part) for part in (y.swapaxes(0, 1).copy(), h, c)]
    assert_close(got, [part.detach() for part in parts(theirs(x, hx))])
    assert list(layer.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({name: torch.from_numpy(values) for name, values in layer.state_dict().items()})
    assert_close([part.detach() for part in parts(theirs(x, hx))], got)
