"""Modules in fewer bits: `cylstm.torch.astype`. Their numbers are those of cylstm's own layers to the bit."""

import copy
import io
import pickle

import numpy as np
import pytest

import cylstm

torch = pytest.importorskip("torch")

import cylstm.torch  # noqa: E402
from cylstm.torch import SmallLSTM, SmallLSTMCell, astype  # noqa: E402

PRECISIONS = "float16", "bfloat16", "int8"
VARIANTS = {
    "plain": {}, "both directions": dict(bidirectional=True), "no bias": dict(bias=False),
    "two layers": dict(num_layers=2), "projection": dict(proj_size=12),
}  # fmt: skip


def pair(precision, *, swapped=False, dtype=torch.float32, **options):
    """A small module, and a small layer of ours with the same weights."""
    torch.manual_seed(0)
    module = torch.nn.LSTM(20, 40, batch_first=True, **options).to(dtype)
    layer = cylstm.LSTM(20, 40, options.pop("num_layers", 1), dtype=str(dtype).removeprefix("torch."), **options)
    layer.load_state_dict(module.state_dict())
    if swapped:
        cylstm.torch.accelerate(module)
    return astype(module, precision), layer.astype(precision)


def numbers(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape).astype("f4"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_numbers_are_those_of_a_layer(rng, precision, name):
    if name == "projection" and precision == "int8":
        pytest.skip("int8 has none")
    module, layer = pair(precision, **VARIANTS[name])
    assert type(module) is SmallLSTM and module.precision == precision
    for rows, steps in ((1, 1), (1, 9), (24, 7), (3, 40)):
        x = numbers(rng, rows, steps, 20)
        y, (h, c) = module(x)
        expected, state = layer(x.numpy())
        np.testing.assert_array_equal(y, expected)
        assert not y.requires_grad
        y, (h, c) = module(x, (h, c))
        expected, state = layer(x.numpy(), state)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(h, state.h)
        np.testing.assert_array_equal(c, state.c)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forms_of_input(rng, precision):
    """Time-major, without rows, packed in any order, and with resets."""
    module, layer = pair(precision)
    x, lengths, resets = numbers(rng, 4, 9, 20), [3, 9, 1, 5], rng.random((4, 9)) < 0.3
    np.testing.assert_array_equal(module(x[1])[0], layer(x[1].numpy())[0])
    np.testing.assert_array_equal(module(x, resets=torch.from_numpy(resets))[0], layer(x.numpy(), resets=resets)[0])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, (h, _) = module(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
    expected, state = layer(x.numpy(), lengths=lengths)
    np.testing.assert_array_equal(padded, expected)
    np.testing.assert_array_equal(h, state.h)
    module.batch_first = False
    np.testing.assert_array_equal(module(x.transpose(0, 1))[0].transpose(0, 1), layer(x.numpy())[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_cell(rng, precision):
    torch.manual_seed(0)
    cell = torch.nn.LSTMCell(20, 40)
    layer = cylstm.LSTM(20, 40)
    layer.load_state_dict({f"{name}_l0": values for name, values in cell.state_dict().items()})
    small, layer = astype(cell, precision), layer.astype(precision)
    x = numbers(rng, 5, 20)
    state, expected = None, None
    for _ in range(3):
        state = small(x, state)
        expected = layer.step(x.numpy(), expected)[1]
        np.testing.assert_array_equal(state[0], expected.h[0])
        np.testing.assert_array_equal(state[1], expected.c[0])
    np.testing.assert_array_equal(small(x[0])[0], layer.step(x[0].numpy(), None)[0])


def test_a_model_is_copied_without_its_lstms_weights(rng):
    """What stands at several places is one module there, too; the model itself does not change."""
    lstm, cell, head = torch.nn.LSTM(20, 40), torch.nn.LSTMCell(20, 40), torch.nn.Linear(40, 3)
    model = torch.nn.ModuleDict({"first": lstm, "again": lstm, "cell": cell, "head": head}).eval()
    small = astype(model, "int8")
    assert type(small["first"]) is SmallLSTM and small["again"] is small["first"]
    assert type(small["cell"]) is SmallLSTMCell and not small["cell"].training
    assert [name for name, _ in small.named_parameters()] == ["head.weight", "head.bias"]
    assert small["head"] is not head and torch.equal(small["head"].weight, head.weight)
    assert type(model["first"]) is torch.nn.LSTM
    kept = sum(array.nbytes for array in small["first"].weights.stored.values())
    assert kept < 0.3 * sum(p.numel() * 4 for p in lstm.parameters())
    x = numbers(rng, 6, 2, 20)
    before = small["first"](x)[0]
    with torch.no_grad():
        lstm.weight_hh_l0 += 1
    assert torch.equal(small["first"](x)[0], before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_types(rng, dtype):
    torch.manual_seed(0)
    module = torch.nn.LSTM(20, 40).to(dtype)
    x = numbers(rng, 5, 2, 20)
    assert torch.equal(astype(module, "float16")(x)[0], astype(copy.deepcopy(module).float(), "float16")(x)[0])


def test_modules_that_were_swapped_or_are_parametrised(rng):
    x = numbers(rng, 2, 5, 20)
    expected = pair("int8")[0](x)[0]
    assert torch.equal(pair("int8", swapped=True)[0](x)[0], expected)
    for swapped in (False, True):
        torch.manual_seed(0)
        module = torch.nn.LSTM(20, 40, batch_first=True)
        if swapped:
            cylstm.torch.accelerate(module)
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        with torch.no_grad():
            module.parametrizations.weight_hh_l0.original0 *= 2
        y = astype(module, "float16")(x)[0]
        assert (y - expected).abs().max() > 1e-3 and (y - module(x)[0]).abs().max() < 2e-3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_files(rng, precision):
    module, _ = pair(precision, num_layers=2)
    x = numbers(rng, 2, 5, 20)
    expected = module(x)[0]
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = astype(torch.nn.LSTM(20, 40, 2, batch_first=True), precision)
    assert not torch.equal(other(x)[0], expected)
    other.load_state_dict(torch.load(file, weights_only=True))
    for again in (other, copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(x)[0], expected) and again.precision == precision
    with pytest.raises(ValueError, match=r"numbers: expected .*weight_hh_l0"):
        astype(torch.nn.LSTM(20, 41, 2), precision).load_state_dict(module.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(torch.nn.LSTM(20, 40, 2).state_dict())


def test_another_precisions_file_is_refused():
    states = {precision: pair(precision)[0].state_dict() for precision in PRECISIONS}
    for precision in PRECISIONS:
        for other in set(PRECISIONS) - {precision}:
            with pytest.raises(ValueError, match=f"expected {precision}, got {other}"):
                pair(precision)[0].load_state_dict(states[other])


def test_what_is_refused(rng):
    module, _ = pair("int8", num_layers=2, dropout=0.5)
    x = numbers(rng, 2, 5, 20)
    with pytest.raises(RuntimeError, match=r"dropout: expected a module after eval\(\)"):
        module(x)
    module.eval()
    with pytest.raises(RuntimeError, match=r"input: expected a call under .* as int8 has no gradients"):
        module(x.clone().requires_grad_())
    with torch.no_grad():
        module(x.clone().requires_grad_())
    others = {
        "float64": x.double(),
        "float16": x.half(),
        "2, 5, 3": x[..., :3],
        "ndarray": x.numpy(),
        "meta": x.to("meta"),
    }
    for why, wrong in {**others, "meta": x.to("meta")}.items():
        with pytest.raises(TypeError, match=f"input: expected a call that cylstm computes in int8.*{why}"):
            module(wrong)
    with pytest.raises(TypeError, match="hx holds"):
        module(x, (torch.zeros(2, 3, 40), torch.zeros(2, 3, 40)))
    for wrong in (1.5, float("nan")):
        with pytest.raises(ValueError, match=r"hx.h: expected numbers within -1..1"):
            module(x, (torch.full((2, 2, 40), wrong), torch.zeros(2, 2, 40)))
    with torch.autocast("cpu"), pytest.raises(TypeError, match="autocast"):
        module(x)


def test_models_that_are_refused():
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module"):
        astype([torch.nn.LSTM(3, 4)], "int8")
    with pytest.raises(ValueError, match="precision: expected one of 'float16', 'bfloat16', 'int8'"):
        astype(torch.nn.LSTM(3, 4), "float32")
    with pytest.raises(ValueError, match=r"expected one with an nn\.LSTM"):
        astype(torch.nn.Linear(3, 4), "int8")
    with pytest.raises(ValueError, match="a projection"):
        astype(torch.nn.LSTM(3, 4, proj_size=2), "int8")

    class Own(torch.nn.LSTM):
        pass

    own = Own(3, 4)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"0: expected an nn.LSTM or nn.LSTMCell, got a subclass, .*Own"):
            astype(torch.nn.Sequential(own), "int8")
        cylstm.torch.accelerate(own)
    hooked, own = torch.nn.LSTM(3, 4), torch.nn.LSTM(3, 4)
    hooked.register_forward_hook(lambda *_: None)
    own.forward = lambda x, hx=None: (x * 0, None)
    for module in (hooked, own):
        with pytest.raises(ValueError, match="the model: expected a module without hooks and a forward of its own"):
            astype(module, "int8")
    with pytest.raises(ValueError, match=r"the model.weight_ih_l0: expected .* in memory"):
        astype(torch.nn.LSTM(3, 4, device="meta"), "int8")
    wild = torch.nn.LSTM(3, 4)
    with torch.no_grad():
        wild.weight_hh_l0[3, 2] = float("nan")
    with pytest.raises(ValueError, match="weight_hh_l0: expected numbers within"):
        astype(wild, "int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_compiled(rng, precision):
    torch._dynamo.reset()  # it compiles a function eight times at most
    module, _ = pair(precision)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x = numbers(rng, 3, 5, 20)
    y, state = module(x)
    assert torch.equal(compiled(x)[0], y) and torch.equal(compiled(x, state)[0], module(x, state)[0])
    assert torch.equal(compiled(x[0])[0], module(x[0])[0])
    cell = astype(torch.nn.LSTMCell(20, 40), precision)
    compiled = torch.compile(cell, backend="aot_eager", fullgraph=True)
    for part in (x[0], x[0, 0]):
        h, c = cell(part)
        assert torch.equal(compiled(part)[0], h) and torch.equal(compiled(part, (h, c))[1], cell(part, (h, c))[1])
    with pytest.raises(RuntimeError, match="fewer bits, which only runs"):
        torch.compile(module, backend="aot_eager", fullgraph=True)(x.clone().requires_grad_())[0].sum().backward()


def test_graphs_refuse_what_calls_do(rng):
    torch._dynamo.reset()
    x = numbers(rng, 2, 5, 20)
    module, _ = pair("float16", num_layers=2, dropout=0.5)
    cell = astype(torch.nn.LSTMCell(20, 40), "float16")
    with pytest.raises(Exception, match=r"expected a module after eval\(\)"):
        torch.compile(module, backend="eager", fullgraph=True)(x)
    module.eval()
    with pytest.raises(Exception, match="of 1 or 2 dimensions"):
        torch.compile(cell, backend="eager", fullgraph=True)(x)
    with torch.autocast("cpu"), pytest.raises(Exception, match="autocast is on"):
        torch.compile(module, backend="eager", fullgraph=True)(x)
    for one, given in ((module, x), (cell, x[0])):
        with pytest.raises(Exception, match="export: expected a module in float32 or float64, got one in float16"):
            torch.export.export(one, (given,))


def test_a_graph_whose_module_is_gone(rng):
    x = numbers(rng, 2, 5, 20)
    with pytest.raises(RuntimeError, match="expected the one that the graph was compiled for"):
        torch.ops.cylstm.small_lstm(x, None, None, None, 10**9, True)


def test_states_of_files_that_are_none():
    module, _ = pair("int8")
    state = {name: {**part, "scales": None} if name else part for name, part in module.state_dict().items()}
    for key in ("numbers", "precision"):
        wrong = copy.deepcopy(state)
        for part in wrong.values():
            part.pop(key)
        with pytest.raises(ValueError, match="state: expected precision, numbers and scales"):
            module.load_state_dict(wrong)


def test_what_is_shown():
    module, _ = pair("int8", bidirectional=True)
    assert repr(module) == "SmallLSTM(20, 40, precision='int8', batch_first=True, bidirectional=True)"
    module.flatten_parameters()
    with pytest.raises(ValueError, match="astype"):
        cylstm.torch.accelerate(torch.nn.LSTM(3, 4), precision="int8")
