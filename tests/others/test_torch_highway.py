"""Stacks whose layers mix their outputs with what goes into them, beside layers of torch and its own gates."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cylstm import LSTM  # noqa: E402


@pytest.mark.parametrize("D", [1, 2])
def test_highways_are_gates_around_torchs_layers(D, rng):
    layer = LSTM(5, 7, 3, bidirectional=D == 2, highway=True, dropout=0.4, dtype="float64", seed=1)
    x, dy = rng.standard_normal((4, 6, 5)), rng.standard_normal((4, 6, 7 * D))
    y, _, tape = layer.forward(x)
    weights = {name: torch.tensor(values, requires_grad=True) for name, values in layer.state_dict().items()}
    inputs = rows = torch.tensor(x, requires_grad=True)
    for n in range(3):
        module = torch.nn.LSTM(rows.shape[2], 7, bidirectional=D == 2, batch_first=True, dtype=torch.float64)
        endings = [f"_l{n}", f"_l{n}_reverse"][:D]
        own = {name + ending.replace(str(n), "0"): weights[name + ending] for ending in endings
               for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
        h, _ = torch.func.functional_call(module, own, rows)
        if n:
            z = [rows @ weights[f"highway_weight{ending}"].T + weights[f"highway_bias{ending}"] for ending in endings]
            t = torch.cat(z, 2).sigmoid()
            h = t * h + (1 - t) * rows
        rows = h * torch.tensor(tape.masks[n]) if n < 2 else h
    np.testing.assert_allclose(y, rows.detach().numpy(), rtol=1e-10, atol=1e-13)
    (rows * torch.tensor(dy)).sum().backward()
    got = layer.backward(tape, dy)
    np.testing.assert_allclose(got.x, inputs.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, values in got.parameters.items():
        of_torch = weights[name.replace("bias_l", "bias_ih_l") if name.startswith("bias") else name].grad.numpy()
        np.testing.assert_allclose(values, of_torch, rtol=1e-9, atol=1e-12, err_msg=name)
