"""explain says who computes a call, and why; who does is seen by watching torch's own functions."""

import contextlib
import types

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import ARCHITECTURES, CALLS, LAYOUTS, accelerated, inputs, loss_of, options_of, parts, rnn, swapped  # noqa: E402

import cylstm.torch  # noqa: E402
from cylstm.torch import explain  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


@pytest.fixture
def watched(monkeypatch):
    """The calls of torch's own lstm and lstm_cell."""
    calls, real = [], torch.nn.modules.rnn._VF

    def watch(name):
        return lambda *arguments: calls.append(name) or getattr(real, name)(*arguments)

    fake = types.SimpleNamespace(lstm=watch("lstm"), lstm_cell=watch("lstm_cell"))
    monkeypatch.setattr(torch.nn.modules.rnn, "_VF", fake)
    return calls


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, dict(num_layers=2, dropout=0.5)])
def test_everyday_calls_are_computed_by_cylstm(architecture, layout, dtype, make, watched):
    module = make(3, 9, **architecture, **options_of(layout), dtype=dtype)
    for T, B in CALLS:
        x, hx = inputs(module, T, B, layout)
        for state in (None, hx):
            assert explain(module, x, state).engine == "cylstm"
            loss_of(parts(module(x, state))).backward()
            for context in (torch.no_grad, torch.inference_mode):
                with context():
                    assert explain(module, x, state).engine == "cylstm"
                    module(x, state)
    assert watched == []


@pytest.mark.parametrize("rows", [None, 1, 16, 40])
def test_everyday_calls_of_a_cell_are_computed_by_cylstm(rows, watched):
    cell = cylstm.torch.LSTMCell(3, 9)
    x = torch.randn(3) if rows is None else torch.randn(rows, 3)
    assert explain(cell, x).engine == "cylstm"
    state = cell(x)
    assert explain(cell, x, state).engine == "cylstm"
    loss_of(cell(x, state)).backward()
    with torch.no_grad():
        cell(x, state)
    assert watched == []


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def ones(*shape, **options):
    return torch.ones(*(shape or (5, 2, 3)), **options)


BY_TORCH = {
    "bfloat16": (lambda: cylstm.torch.LSTM(3, 4).bfloat16(), lambda: ones().bfloat16(), contextlib.nullcontext),
    "float16": (lambda: cylstm.torch.LSTM(3, 4).half(), lambda: ones().half(), contextlib.nullcontext),
    "meta": (lambda: cylstm.torch.LSTM(3, 4, device="meta"), lambda: ones(device="meta"), contextlib.nullcontext),
    "autocast": (lambda: cylstm.torch.LSTM(3, 4), ones, autocast),
}


@pytest.mark.parametrize("word", BY_TORCH)
def test_other_calls_are_torchs_and_the_reason_is_named(word, watched):
    make, given, context = BY_TORCH[word]
    module, x = make(), given()
    with context():
        said = explain(module, x)
        module(x)
    assert said.engine == "torch" and word in said.reason
    assert watched == ["lstm"]


@pytest.mark.parametrize("word", ["bfloat16", "float16", "autocast"])
def test_other_calls_of_a_cell_are_torchs(word, watched):
    cell, x = cylstm.torch.LSTMCell(3, 4), ones(2, 3)
    if word != "autocast":
        cell, x = cell.to(getattr(torch, word)), x.to(getattr(torch, word))
    with autocast() if word == "autocast" else contextlib.nullcontext():
        said = explain(cell, x)
        cell(x)
    assert said.engine == "torch" and word in said.reason
    assert watched == ["lstm_cell"]


def test_it_computes_nothing_and_changes_nothing(watched):
    module, x = cylstm.torch.LSTM(3, 4, 2, dropout=0.5), ones()
    module.register_forward_hook(lambda *_: pytest.fail("explain has run the module"))
    state, before = torch.get_rng_state(), dict(module.__dict__)
    said = explain(module, x)
    assert said.engine == "cylstm" and isinstance(said.reason, str)
    assert explain(module, rnn.pack_sequence([x[:, 0]])).engine == "cylstm"
    assert torch.equal(torch.get_rng_state(), state) and module.__dict__.keys() == before.keys()
    assert watched == []


@pytest.mark.parametrize("make, x", [(torch.nn.LSTM, ones()), (torch.nn.LSTMCell, ones(2, 3))])
def test_modules_of_torch_are_torchs(make, x):
    said = explain(make(3, 4), x)
    assert said.engine == "torch" and said.reason


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # as for nn.LSTM
@pytest.mark.parametrize("make", [swapped, accelerated])
def test_graphs_are_made_of_torchs_lstm(make, watched):
    """What traces a call is to see nn.LSTM's."""
    module, x = make(3, 4).eval().requires_grad_(False), ones()
    torch.export.export(module, (x,))
    assert watched
    watched.clear()
    module(x)
    assert watched == []
