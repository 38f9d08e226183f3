"""Losses beside torch's, with their gradients."""

import numpy as np
import pytest

from cylstm import Model, losses

torch = pytest.importorskip("torch")


def gaussian(outputs, targets):
    variances = outputs[..., 1::2].exp() + 0.01
    return torch.nn.functional.gaussian_nll_loss(outputs[..., ::2], targets, variances, full=True, eps=1e-9)


def smoothed(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), label_smoothing=0.3)


def pinball(outputs, targets):
    q, error = torch.tensor([0.2, 0.7], dtype=torch.float64), targets.repeat_interleave(2, dim=-1) - outputs
    q = q.repeat(targets.shape[-1])
    return torch.maximum(q * error, (q - 1) * error).mean()


OTHERS = {
    "cross_entropy": (
        losses.CrossEntropy(),
        lambda z, y: torch.nn.functional.cross_entropy(z.flatten(0, 1), y.flatten()),
    ),
    "smoothed": (losses.CrossEntropy(smoothing=0.3), smoothed),
    "mse": (losses.SquaredError(), torch.nn.functional.mse_loss),
    "mae": (losses.AbsoluteError(), torch.nn.functional.l1_loss),
    "huber": (losses.Huber(0.3), lambda z, y: torch.nn.functional.huber_loss(z, y, delta=0.3)),
    "quantiles": (losses.Quantiles([0.2, 0.7]), pinball),
    "gaussian": (losses.Gaussian(floor=0.01), gaussian),
    "binary_cross_entropy": (losses.BinaryCrossEntropy(), torch.nn.functional.binary_cross_entropy_with_logits),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_loss_and_its_gradients_are_torchs(rng, name):
    assert set(losses.by_name) - {"ctc"} <= set(OTHERS)  # which test_torch_ctc.py has
    loss, function = OTHERS[name]
    model = Model(3, 5, 6, loss=loss, dtype="float64", seed=1)
    x = rng.standard_normal((4, 7, 3))
    y = rng.integers(0, 6, (4, 7)) if loss.of_classes else rng.random((4, 7, *loss.width(6)))
    found = model.loss_and_gradients(x, y)
    head = torch.nn.Linear(5, 6).double()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(model.parameters["head.weight"]))
        head.bias.copy_(torch.from_numpy(model.parameters["head.bias"]))
    expected = function(head(torch.from_numpy(model.lstm(x)[0])), torch.from_numpy(y))
    expected.backward()
    assert found.loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(found.gradients["head.weight"], head.weight.grad, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.gradients["head.bias"], head.bias.grad, rtol=1e-10, atol=1e-13)


def test_weights_of_classes_and_a_class_to_ignore_are_torchs(rng):
    model = Model(3, 5, 6, dtype="float64", seed=1)
    x, y, weights = rng.standard_normal((4, 7, 3)), rng.integers(0, 6, (4, 7)), rng.exponential(1, 6)
    y[::2, 3:] = -100
    found = model.loss_and_gradients(x, y, class_weight=dict(enumerate(weights)), ignore=-100)
    outputs = torch.from_numpy(model(x)[0]).flatten(0, 1).requires_grad_()
    expected = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y).flatten(), torch.from_numpy(weights))
    expected.backward()
    assert found.loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(found.gradients["head.bias"], outputs.grad.sum(dim=0), rtol=1e-10, atol=1e-13)
