"""CTC beside torch's, through the softmax: torch's gradient is right only behind log_softmax (pytorch#52241)."""

import numpy as np
import pytest

from cylstm.ctc import ctc_loss

torch = pytest.importorskip("torch")


def torchs(logits, targets, lengths, sizes, blank, zero_infinity=False):
    """Losses (B,), and their gradients by the logits (B, T, V)."""
    z = torch.from_numpy(logits).requires_grad_()
    losses = torch.nn.functional.ctc_loss(
        z.log_softmax(-1).transpose(0, 1), torch.from_numpy(targets), torch.tensor(lengths), torch.tensor(sizes),
        blank=blank, reduction="none", zero_infinity=zero_infinity)  # fmt: skip
    losses.sum().backward()
    return losses.detach().numpy(), z.grad.numpy()


@pytest.mark.parametrize("blank", [0, 3, 8])
def test_losses_and_gradients_are_torchs(dtype, rng, blank):
    B, T, V, L = 7, 30, 9, 12
    logits = rng.normal(0, 2, (B, T, V)).astype(dtype)
    targets = rng.choice(np.delete(np.arange(V), blank)[:3], (B, L))
    lengths, sizes = [30, 25, 17, 30, 24, 1, 30], [12, 7, 3, 0, 12, 1, 5]
    losses, gradients = ctc_loss(
        logits, targets, input_lengths=lengths, target_lengths=sizes, blank=blank, zero_infinity=True, gradients=True
    )
    # In float32, torch's own gradients are off by some 1e-5; what it makes of the same numbers in float64 is not.
    for given, rtol, atol in {
        "float32": ((dtype, 1e-5, 1e-4), ("float64", 1e-6, 2e-6)),
        "float64": ((dtype, 1e-12, 1e-11),),
    }[dtype]:
        expected, dlogits = torchs(logits.astype(given), targets, lengths, sizes, blank, zero_infinity=True)
        np.testing.assert_allclose(losses, expected, rtol=rtol)
        np.testing.assert_allclose(gradients, dlogits, rtol=0, atol=atol)


def test_infinite_losses_are_infinite_in_both(dtype, rng):
    logits, targets = rng.standard_normal((2, 4, 5)).astype(dtype), np.array([[1, 1, 1], [1, 2, 3]])
    losses, gradients = ctc_loss(logits, targets, gradients=True)
    expected, dlogits = torchs(logits, targets, [4, 4], [3, 3], 0)
    assert losses[0] == expected[0] == np.inf and losses[1] == pytest.approx(expected[1], rel=1e-5)
    assert not gradients[0].any() and np.isnan(dlogits[0]).any()  # torch's is NaN there
