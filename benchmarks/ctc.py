"""What does CTC cost, loss and gradient by logits, beside torch's log_softmax and CTCLoss, forward and backward?

Sizes are those of warp-ctc's table: T steps, L labels, V classes, B rows, all of one length.
"""

import numpy as np

from benchmarks.timer import agree
from cylstm.ctc import ctc_loss

T = 150
SIZES = [("letters", 40, 28, (1, 16, 64, 128)), ("characters", 20, 5000, (1, 16, 64))]  # name, L, V, B


def torch_loss(logits, targets):
    """A callable that runs torch and returns the losses and their gradients by the logits."""
    import torch

    z, y = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(targets)
    B, T, _ = z.shape
    lengths, sizes = torch.full((B,), T), torch.full((B,), y.shape[1])

    def call():
        z.grad = None
        log_p = z.log_softmax(-1).transpose(0, 1)
        losses = torch.nn.functional.ctc_loss(log_p, y, lengths, sizes, reduction="none")
        losses.sum().backward()
        return losses.detach().numpy(), z.grad.numpy()

    return call


def cases(shapes, threads):
    """Labels and contenders; losses and gradients are compared, torch's by the gradient's own size: it is float32."""
    for name, L, V, batches in SIZES:
        for B in batches:
            rng = np.random.default_rng(1)
            logits = rng.standard_normal((B, T, V)).astype(np.float32)
            targets = rng.integers(1, V, (B, L))
            contenders = {
                "cylstm": lambda z=logits, y=targets: ctc_loss(z, y, gradients=True),
                "cylstm, loss alone": lambda z=logits, y=targets: ctc_loss(z, y),
                "torch": torch_loss(logits, targets),
            }
            losses, gradients = contenders["cylstm"]()
            torch_losses, torch_gradients = contenders["torch"]()
            agree("torch's losses", torch_losses, losses)
            error = np.abs(torch_gradients - gradients).max()
            if not error < 1e-3:
                raise AssertionError(f"torch's gradients: differ by {error:.1e}")
            yield {"shape": name, "B": B, "L": L, "V": V}, contenders
