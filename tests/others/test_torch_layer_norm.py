"""Layer norms beside torch's LayerNorm and autograd, in the loop of PyTorch's custom_lstms example and in Ba's."""

import numpy as np
import pytest

from cylstm import LSTM

torch = pytest.importorskip("torch")


class Cell(torch.nn.Module):
    """One layer, one direction. Its norms of W x and R h have shifts of their own, as in LayerNormLSTMCell."""

    def __init__(self, layer):
        super().__init__()
        I, H = layer.input_size, layer.hidden_size
        self.carried, eps = layer.cell.norm
        self.W, self.R = torch.nn.Linear(I, 4 * H, bias=False), torch.nn.Linear(H, 4 * H, bias=False)
        self.norm_x, self.norm_h = (torch.nn.LayerNorm(4 * H, eps=eps) for _ in range(2))
        self.norm_c = torch.nn.LayerNorm(H, eps=eps)
        self.double()
        p = {name: torch.from_numpy(values.copy()) for name, values in layer.parameters.items()}
        with torch.no_grad():
            for theirs, ours in (
                (self.W.weight, p["weight_ih_l0"]), (self.R.weight, p["weight_hh_l0"]),
                (self.norm_x.weight, p["norm_ih_l0"]), (self.norm_h.weight, p["norm_hh_l0"]),
                (self.norm_x.bias, 0.25 * p["bias_l0"]), (self.norm_h.bias, 0.75 * p["bias_l0"]),
                (self.norm_c.weight, p["norm_c_l0"][0]), (self.norm_c.bias, p["norm_c_l0"][1]),
            ):  # fmt: skip
                theirs.copy_(ours)

    def forward(self, x, h, c):
        outputs = []
        for x_t in x.unbind(1):
            i, f, g, o = (self.norm_x(self.W(x_t)) + self.norm_h(self.R(h))).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            seen = self.norm_c(c)
            c = seen if self.carried else c
            h = o.sigmoid() * seen.tanh()
            outputs.append(h)
        return torch.stack(outputs, 1), h, c


@pytest.mark.parametrize("kind", ["ba", "torchscript", ("torchscript", 1e-3)])
def test_outputs_and_gradients(rng, kind):
    layer = LSTM(5, 13, dtype="float64", layer_norm=kind, seed=1)
    for values in layer.parameters.values():
        values[...] += 0.3 * rng.standard_normal(values.shape)
    x, h0, c0 = rng.standard_normal((4, 9, 5)), rng.standard_normal((1, 4, 13)), rng.standard_normal((1, 4, 13))
    dy, dc = rng.standard_normal((4, 9, 13)), rng.standard_normal((1, 4, 13))
    cell = Cell(layer)
    given = [torch.from_numpy(array).requires_grad_() for array in (x, h0, c0)]
    y, h, c = cell(given[0], given[1][0], given[2][0])
    ((y * torch.from_numpy(dy)).sum() + (c * torch.from_numpy(dc[0])).sum()).backward()
    ours, state, tape = layer.forward(x, (h0, c0))
    gradients = layer.backward(tape, dy, (np.zeros_like(dc), dc))
    pairs = [
        (ours, y), (state.h[0], h), (state.c[0], c), (gradients.x, given[0].grad),
        (gradients.state.h, given[1].grad), (gradients.state.c, given[2].grad),
        *((gradients.parameters[name], parameter.grad) for name, parameter in (
            ("weight_ih_l0", cell.W.weight), ("weight_hh_l0", cell.R.weight), ("norm_ih_l0", cell.norm_x.weight),
            ("norm_hh_l0", cell.norm_h.weight), ("bias_l0", cell.norm_x.bias), ("bias_l0", cell.norm_h.bias))),
        (gradients.parameters["norm_c_l0"][0], cell.norm_c.weight.grad),
        (gradients.parameters["norm_c_l0"][1], cell.norm_c.bias.grad),
    ]  # fmt: skip
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-9, atol=1e-11)
