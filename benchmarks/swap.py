"""What does the one swapped line buy in a PyTorch script? torch.nn.LSTM against cylstm.torch.LSTM, all else torch's.

One update: the module, a linear head, the squared error, backward, torch.optim.Adam.
"""

import torch

from cylstm.torch import LSTM

RATE = 1e-3


def update(module, head, x, y):
    """A callable that makes one update and returns the loss before it."""
    parameters = [*module.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)

    def call():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(head(module(x)[0]), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


def cases(shapes, threads):
    """Labels and contenders of each shape of more than one step; the first losses are compared."""
    for shape in shapes:
        if shape.T == 1:
            continue
        torch.manual_seed(1)
        x, y = torch.randn(shape.B, shape.T, shape.I), torch.randn(shape.B, shape.T, 1)
        contenders = {}
        for name, make in (("cylstm", LSTM), ("torch", torch.nn.LSTM)):
            torch.manual_seed(2)
            module = make(shape.I, shape.H, shape.L, batch_first=True)
            contenders[name] = update(module, torch.nn.Linear(shape.H, 1), x, y)
        losses = {name: [call() for _ in range(3)] for name, call in contenders.items()}
        for ours, theirs in zip(losses["cylstm"], losses["torch"], strict=True):
            if abs(ours - theirs) > 1e-4 * abs(theirs):
                raise AssertionError(f"{shape.name}: expected the losses {losses['torch']}, got {losses['cylstm']}")
        yield {"shape": shape.name}, contenders
