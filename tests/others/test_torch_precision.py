"""Modules whose products are in bfloat16: float32 in and out, and the numbers of cylstm's own layers."""

import copy
import pickle

import numpy as np
import pytest

import cylstm

torch = pytest.importorskip("torch")

import cylstm.torch  # noqa: E402

ARRAYS = {"plain": {}, "both directions": dict(bidirectional=True), "projection": dict(proj_size=12)}


def pair(rng, **options):
    """A module in bfloat16, and a layer of ours with its weights."""
    torch.manual_seed(0)
    module = cylstm.torch.LSTM(20, 40, num_layers=2, batch_first=True, **options)
    module.precision = "bfloat16"
    layer = cylstm.LSTM(20, 40, 2, precision="bfloat16", **options)
    layer.load_state_dict(module.state_dict())
    return module, layer, rng.standard_normal((24, 7, 20)).astype("f4")


@pytest.mark.parametrize("options", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("rows", [1, 24])
def test_numbers_are_those_of_a_layer(rng, options, rows):
    """With and without gradients, of few steps too."""
    module, layer, x = pair(rng, **options)
    x = torch.from_numpy(x[:rows]).requires_grad_()
    y, _ = module(x)
    expected, _, tape = layer.forward(x.detach().numpy())
    np.testing.assert_array_equal(y.detach(), expected)
    with torch.no_grad():
        np.testing.assert_array_equal(module(x)[0], expected)
        np.testing.assert_array_equal(module(x[:, :2])[0], layer(x[:, :2].numpy())[0])
    assert y.dtype is torch.float32 and cylstm.torch.explain(module, x).engine == "cylstm"
    dy = torch.from_numpy(rng.standard_normal(y.shape).astype("f4"))
    y.backward(dy)
    gradients = layer.backward(tape, dy.numpy())
    np.testing.assert_array_equal(x.grad, gradients.x)
    for name, values in gradients.parameters.items():
        np.testing.assert_array_equal(module.get_parameter(name.replace("bias_", "bias_ih_")).grad, values)
    module.precision = "float32"
    assert 1e-5 < (module(x)[0] - y).abs().max() < 2e-2


def test_weights_that_change_between_a_call_and_its_backward(rng):
    """The layer behind it is made anew while a tape needs the old weights: it rounds as before."""
    module, layer, x = pair(rng)
    x = torch.from_numpy(x)
    first = module(x)[0]
    with torch.no_grad():
        module.weight_hh_l0 += 0.01
    layer.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(module(x)[0].detach(), layer(x.numpy())[0])
    del first


def test_cells(rng):
    torch.manual_seed(0)
    cell = cylstm.torch.LSTMCell(20, 40)
    cell.precision = "bfloat16"
    layer = cylstm.LSTM(20, 40, precision="bfloat16")
    layer.load_state_dict({f"{name}_l0": values for name, values in cell.state_dict().items()})
    x = rng.standard_normal((5, 20)).astype("f4")
    with torch.no_grad():
        h, c = cell(torch.from_numpy(x))
    y, state = layer.step(x, None)
    np.testing.assert_array_equal(h, y)
    np.testing.assert_array_equal(c, state.c[0])


def test_accelerate_sets_it_for_all(rng):
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4), torch.nn.LSTMCell(3, 4))
    cylstm.torch.accelerate(model)
    assert [module.precision for module in model] == ["float32"] * 2
    assert cylstm.torch.accelerate(model, precision="bfloat16") == []
    assert [module.precision for module in model] == ["bfloat16"] * 2
    assert copy.deepcopy(model)[0].precision == "bfloat16"
    assert type(pickle.loads(pickle.dumps(model))[0]) is torch.nn.LSTM
    with pytest.raises(ValueError, match="precision: expected one of 'float32', 'bfloat16', got str 'int4'"):
        cylstm.torch.accelerate(model, precision="int4")
    with pytest.raises(ValueError, match="precision"):
        model[0].precision = "half"


def test_float64_stays_float64(rng):
    module = cylstm.torch.LSTM(3, 40).double()
    x = torch.from_numpy(rng.standard_normal((4, 2, 3)))
    expected = module(x)[0]
    module.precision = "bfloat16"
    assert torch.equal(module(x)[0], expected)


def test_compiled(rng):
    module, layer, x = pair(rng)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x = torch.from_numpy(x).requires_grad_()
    y, _ = compiled(x)
    expected, _, tape = layer.forward(x.detach().numpy())
    np.testing.assert_array_equal(y.detach(), expected)
    y.sum().backward()
    gradients = layer.backward(tape, np.ones_like(expected))
    np.testing.assert_array_equal(x.grad, gradients.x)
    np.testing.assert_array_equal(module.weight_hh_l1.grad, gradients.parameters["weight_hh_l1"])
