"""A clip of h behind a projection, as TensorFlow's LSTMCell has it, written out in torch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cylstm import LSTM  # noqa: E402


def test_h_and_gradients_are_those_of_a_loop_over_steps(rng):
    layer = LSTM(5, 7, proj_size=4, proj_clip=0.08, dtype="float64", seed=1)
    x, dy = rng.standard_normal((4, 6, 5)), rng.standard_normal((4, 6, 4))
    y, _, tape = layer.forward(x)
    assert 0.1 < (abs(y) == 0.08).mean() < 0.9
    weights = {name: torch.tensor(values, requires_grad=True) for name, values in layer.parameters.items()}
    W, R, b, R_p = (weights[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias", "weight_hr"))
    inputs, h, c = torch.tensor(x, requires_grad=True), torch.zeros(4, 4).double(), torch.zeros(4, 7).double()
    outputs = []
    for t in range(6):
        i, f, g, o = (inputs[:, t] @ W.T + h @ R.T + b).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = ((o.sigmoid() * c.tanh()) @ R_p.T).clamp(-0.08, 0.08)
        outputs.append(h)
    outputs = torch.stack(outputs, 1)
    np.testing.assert_allclose(y, outputs.detach().numpy(), rtol=1e-10, atol=1e-13)
    (outputs * torch.tensor(dy)).sum().backward()
    got = layer.backward(tape, dy)
    np.testing.assert_allclose(got.x, inputs.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, values in got.parameters.items():
        np.testing.assert_allclose(values, weights[name].grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)
