"""Mistakes in what lies between layers, put back into the oracle: see test_mutations.py."""

import numpy as np
import pytest
from gradcheck import RTOL, gradient_error
from mistakes import mutated

from cylstm import LSTM, oracle

MERGE_MUTATIONS = {
    "halves of a sum": ('(2 if merge == "mean" else 1)\n\n', '(2 if merge == "sum" else 1)\n\n'),
    "forward, a difference": ("return (y_f + y_r)", "return (y_f - y_r)"),
    "forward, a product and a sum": ("return y_f * y_r", "return y_f * y_r + y_f"),
    "a product's gradient by the same direction": ("return dy * y_r, dy * y_f", "return dy * y_f, dy * y_r"),
    "a product's as of a sum": ("return dy * y_r, dy * y_f", "return dy, dy"),
    "a mean's as of a sum": ('half = dy / (2 if merge == "mean" else 1)', "half = dy"),
    "one direction's alone": ("return half, half", "return half, 0 * half"),
}
WIDTH_MUTATIONS = {
    "a narrow layer begins with the last numbers of h": (
        "state[0][n][:, : R.shape[1]]",
        "state[0][n][:, -R.shape[1] :]",
    ),
    "and of c": ("state[1][n][:, : len(R) // 4]", "state[1][n][:, -(len(R) // 4) :]"),
    "gradients of the last numbers of final states": ("dhn[n][:, : R.shape[1]]", "dhn[n][:, -R.shape[1] :]"),
    "and of c's": ("dcn[n][:, : len(R) // 4]", "dcn[n][:, -(len(R) // 4) :]"),
}
HIGHWAY_MUTATIONS = {
    "forward, the shares the other way": (
        "return t * h + (1 - t) * share(x, d, h)",
        "return (1 - t) * h + t * share(x, d, h)",
    ),
    "forward, the other direction's half": ("(1 - t) * share(x, d, h)\n\n", "(1 - t) * share(x, 1 - d, h)\n\n"),
    "no gradient through the gate": ("dz = dy * (h - share(x, d, h)) * t * (1 - t)", "dz = 0 * dy"),
    "a gradient of h alone": ("dz = dy * (h - share(x, d, h)) * t", "dz = dy * h * t"),
    "what is carried has none": ("share(dx, d, h)[...] += (1 - t) * dy", "pass"),
    "it is the other half's": ("share(dx, d, h)[...] +=", "share(dx, 1 - d, h)[...] +="),
    "that of h is dy": ("return t * dy, dx,", "return dy, dx,"),
    "its gate has no gradient by x": ("dx = dz @ W\n", "dx = 0 * dz @ W\n"),
}
RESIDUAL_MUTATIONS = {
    "what was dropped is added": ("y = y + below\n", "y = y + below * dropout_masks[layer - 1].swapaxes(0, 1)\n"),
    "the first outputs to all": ("layer_input = below = y\n", "layer_input, below = y, below if layer else y\n"),
    "no gradient through it": ("dlayer = dlayer + dabove\n", "pass\n"),
    "its gradient is dropped": ("dlayer + dabove\n", "dlayer + dabove * masks[layer - 1].swapaxes(0, 1)\n"),
    "the gradient of the layer's own": ("dabove, dlayer = dlayer, dinput\n", "dabove = dlayer = dinput\n"),
}


def stack_errors(module, **options):
    """Relative errors of gradients of three layers in both directions, with dropout between them, one at a time."""
    rng = np.random.default_rng(9)
    layout = LSTM.layout(2, 2, 3, bidirectional=True, merge=options["merge"], highway=options.pop("highway", False))
    params = {name: rng.standard_normal(shape) * 0.6 for name, shape in layout.items()}
    x, dy = rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3, 4 if options["merge"] == "concat" else 2))
    masks = rng.permutation(np.arange(2 * dy.size) % 3 > 0).reshape(2, *dy.shape) * 1.5
    options |= dict(num_layers=3, bidirectional=True, dropout_masks=masks, lengths=[3, 2])
    _, _, tape = module.forward(x, params, **options)
    dx, _, dparams = module.backward(tape, dy)
    names = ["weight_ih_l0", "weight_ih_l1_reverse", *(name for name in params if name.startswith("highway"))]

    def loss():
        return (dy * module.forward(x, params, **options)[0]).sum()

    for pair in [(x, dx), *((params[name], dparams[name]) for name in names)]:
        yield gradient_error(loss, *pair)


def is_found(module, **options):
    return any(error > 1000 * RTOL for error in stack_errors(module, **options))


def widths_error(module):
    """The largest relative error of the gradients of the initial state of two layers, the second one narrower."""
    rng = np.random.default_rng(10)
    params = {name: rng.standard_normal(shape) * 0.6 for name, shape in LSTM.layout(2, (3, 2)).items()}
    x, dy, (h0, c0, dh, dc) = rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3, 2)), rng.random((4, 2, 2, 3))

    def loss():
        y, (h, c), _ = module.forward(x, params, (h0, c0), num_layers=2)
        return (dy * y).sum() + (dh * h).sum() + (dc * c).sum()

    _, _, tape = module.forward(x, params, (h0, c0), num_layers=2)
    _, (dh0, dc0), _ = module.backward(tape, dy, (dh, dc))
    return max(gradient_error(loss, h0, dh0), gradient_error(loss, c0, dc0))


def test_the_unchanged_widths_pass():
    assert widths_error(oracle) <= RTOL


@pytest.mark.parametrize("mistake", WIDTH_MUTATIONS)
def test_a_mistake_in_widths_fails_the_gradient_check(mistake):
    assert widths_error(mutated(*WIDTH_MUTATIONS[mistake])) > 1000 * RTOL


MERGES = ["concat", "sum", "mean", "product"]


@pytest.mark.parametrize("merge", MERGES)
def test_the_unchanged_stack_passes(merge):
    assert max(stack_errors(oracle, merge=merge, residual=True)) <= RTOL


@pytest.mark.parametrize("mistake", MERGE_MUTATIONS)
def test_a_mistake_in_merging_fails_the_gradient_check(mistake):
    module = mutated(*MERGE_MUTATIONS[mistake])
    assert any(is_found(module, merge=merge) for merge in MERGES[1:])


@pytest.mark.parametrize("mistake", RESIDUAL_MUTATIONS)
def test_a_mistake_in_residuals_fails_the_gradient_check(mistake):
    assert is_found(mutated(*RESIDUAL_MUTATIONS[mistake]), merge="concat", residual=True)


def test_the_unchanged_highway_passes():
    assert max(stack_errors(oracle, merge="concat", highway=True)) <= RTOL


@pytest.mark.parametrize("mistake", HIGHWAY_MUTATIONS)
def test_a_mistake_in_highways_fails_the_gradient_check(mistake):
    assert is_found(mutated(*HIGHWAY_MUTATIONS[mistake]), merge="concat", highway=True)
