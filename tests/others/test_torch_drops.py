"""Weights, states and rows that training drops: torch.nn.LSTM with masked weights, and cells of torch step by step."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cylstm import LSTM  # noqa: E402


def leaves(layer):
    """The weights under torch's names, to be differentiated by."""
    return {name: torch.tensor(values, requires_grad=True) for name, values in layer.state_dict().items()}


def suffixes(layer):
    return [f"_l{n}{end}" for n in range(layer.num_layers) for end in ("", "_reverse")[: layer.num_directions]]


def dropped(weights, layer, tape):
    """The same with masked weight_hh."""
    masks = {
        f"weight_hh{end}": torch.tensor(mask) for end, mask in zip(suffixes(layer), tape.weight_masks, strict=True)
    }
    return {name: weight * masks[name] if name in masks else weight for name, weight in weights.items()}


def compare(layer, got, weights, x):
    np.testing.assert_allclose(got.x, x.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, values in got.parameters.items():
        of_torch = weights[name.replace("bias", "bias_ih")].grad.numpy()
        np.testing.assert_allclose(values, of_torch, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("D", [1, 2])
def test_weight_drop_and_locked_dropout_are_torchs_with_the_same_masks(D, rng):
    options = dict(bidirectional=D == 2, dropout=0.4, dropout_per="sequence", input_dropout=0.3, weight_drop=0.5)
    layer = LSTM(5, 7, 2, dtype="float64", seed=1, **options)
    x, dy = rng.standard_normal((4, 6, 5)), rng.standard_normal((4, 6, 7 * D))
    y, (h, c), tape = layer.forward(x)
    weights, inputs = leaves(layer), torch.tensor(x, requires_grad=True)
    masked, rows, states = dropped(weights, layer, tape), inputs * torch.tensor(tape.input_mask)[:, None], []
    for n in range(2):  # a layer at a time, with the locked mask between them
        width = rows.shape[2]
        module = torch.nn.LSTM(width, 7, bidirectional=D == 2, batch_first=True, dtype=torch.float64)
        own = {name.replace(f"_l{n}", "_l0"): weight for name, weight in masked.items() if f"_l{n}" in name}
        rows, state = torch.func.functional_call(module, own, rows)
        states.append(state)
        rows = rows * torch.tensor(tape.masks[0]) if n == 0 else rows
    np.testing.assert_allclose(y, rows.detach().numpy(), rtol=1e-10, atol=1e-13)
    for found, place in ((h, 0), (c, 1)):
        of_torch = torch.cat([state[place] for state in states]).detach().numpy()
        np.testing.assert_allclose(found, of_torch, rtol=1e-10, atol=1e-13)
    (rows * torch.tensor(dy)).sum().backward()
    compare(layer, layer.backward(tape, dy), weights, inputs)


def agrees_step_by_step(rng, step_of, **options):
    """AssertionError unless a layer with these options gives outputs and gradients of a step in torch, which
    step_of(layer, tape, weights) makes: (x, h, c) -> h, c."""
    layer = LSTM(5, 7, dtype="float64", seed=1, **options)
    x, dy, start = rng.standard_normal((4, 6, 5)), rng.standard_normal((4, 6, 7)), rng.standard_normal((2, 1, 4, 7))
    y, _, tape = layer.forward(x, tuple(start))
    weights, inputs = leaves(layer), torch.tensor(x, requires_grad=True)
    step, (h, c), outputs = step_of(layer, tape, weights), torch.tensor(start[:, 0]), []
    for t in range(6):
        h, c = step(inputs[:, t], h, c)
        outputs.append(h)
    outputs = torch.stack(outputs, 1)
    np.testing.assert_allclose(y, outputs.detach().numpy(), rtol=1e-10, atol=1e-13)
    (outputs * torch.tensor(dy)).sum().backward()
    compare(layer, layer.backward(tape, dy), weights, inputs)


def test_recurrent_dropout_is_that_of_cells_whose_state_is_masked(rng):
    def step_of(layer, tape, weights):
        cell, mask = torch.nn.LSTMCell(5, 7, dtype=torch.float64), torch.tensor(tape.recurrent_masks[0])
        own = {name.removesuffix("_l0"): weight for name, weight in dropped(weights, layer, tape).items()}
        return lambda x, h, c: torch.func.functional_call(cell, own, (x, (h * mask, c)))

    agrees_step_by_step(rng, step_of, recurrent_dropout=0.4, weight_drop=0.3)


def test_masks_of_gates_are_those_of_four_products(rng):
    def step_of(layer, tape, weights):
        W, R, b = (weights[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih"))
        gates = list(zip(torch.tensor(tape.recurrent_masks[0]), R.chunk(4), strict=True))

        def step(x, h, c):
            z = x @ W.T + b + torch.cat([(mask * h) @ R_n.T for mask, R_n in gates], 1)
            i, f, g, o = z.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            return o.sigmoid() * c.tanh(), c

        return step

    agrees_step_by_step(rng, step_of, recurrent_dropout=0.4, recurrent_dropout_per="gate")


def test_update_dropout_is_that_of_semeniutas_equation(rng):
    def step_of(layer, tape, weights):
        W, R, b = (weights[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih"))
        mask = torch.tensor(tape.update_masks[0])

        def step(x, h, c):
            i, f, g, o = (x @ W.T + h @ R.T + b).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * (mask * g.tanh())
            return o.sigmoid() * c.tanh(), c

        return step

    agrees_step_by_step(rng, step_of, update_dropout=0.4)


@pytest.mark.parametrize("zoneout", [(0.5, 0.05), (0.3, 0.4)])
def test_zoneout_is_that_of_cells_whose_states_are_kept(rng, zoneout):
    """As the authors' wrapper for TensorFlow has it, (new - old) m + old, but for the output, which is h after that."""
    layer = LSTM(5, 7, zoneout=zoneout, dtype="float64", seed=1)
    x, dy, start = rng.standard_normal((4, 6, 5)), rng.standard_normal((4, 6, 7)), rng.standard_normal((2, 1, 4, 7))
    y, _, tape = layer.forward(x, tuple(start))
    weights, inputs = leaves(layer), torch.tensor(x, requires_grad=True)
    cell = torch.nn.LSTMCell(5, 7, dtype=torch.float64)
    own = {name.removesuffix("_l0"): weight for name, weight in weights.items()}

    def run(new_c, new_h):
        (h, c), outputs = torch.tensor(start[:, 0]), []
        for t in range(6):
            one, other = torch.func.functional_call(cell, own, (inputs[:, t], (h, c)))
            h, c = (one - h) * new_h[:, t] + h, (other - c) * new_c[:, t] + c
            outputs.append(h)
        return torch.stack(outputs, 1)

    outputs = run(*(torch.tensor(new[0] * 1.0) for new in tape.zoneout_masks))
    np.testing.assert_allclose(y, outputs.detach().numpy(), rtol=1e-10, atol=1e-13)
    (outputs * torch.tensor(dy)).sum().backward()
    compare(layer, layer.backward(tape, dy), weights, inputs)
    mean = run(*(torch.full((4, 6, 7), 1 - z, dtype=torch.float64) for z in zoneout)).detach().numpy()
    np.testing.assert_allclose(layer(x, tuple(start))[0], mean, rtol=1e-10, atol=1e-13)
