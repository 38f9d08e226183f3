"""Swap: a PyTorch program whose LSTMs are handed to cylstm by one line; all else, the training too, stays torch's.

A network foretells the next step of a thousand series. Two copies of it learn side by side from the same batches, one
as it is, one accelerated: their losses are the same to rounding, and what differs is the time that an update takes.
"""

import copy
import time

import numpy as np
import torch
from torch import nn

import cylstm.torch
from examples import loading

series = loading.waves()  # (1000, 239)


def foretold(network, x):
    """(B, T, 1) -> (B, T, 1)."""
    lstm, head = network
    return head(lstm(x)[0])


torch.manual_seed(0)
torch.set_num_threads(1)
x = torch.tensor(series, dtype=torch.float32)[..., None]
network = nn.ModuleList([nn.LSTM(1, 64, batch_first=True), nn.Linear(64, 1)])
networks = {"nn.LSTM": network, "accelerated": copy.deepcopy(network)}
cylstm.torch.accelerate(networks["accelerated"])  # the line
optimizers = {name: torch.optim.Adam(networks[name].parameters(), 5e-3) for name in networks}
losses, took = ({name: [] for name in networks} for _ in range(2))
for batch in torch.cat([torch.randperm(len(x)) for _ in range(4)]).split(50):
    for name in networks:
        began = time.process_time()  # of the processor: other programs may be at work, too
        loss = nn.functional.mse_loss(foretold(networks[name], x[batch, :-1]), x[batch, 1:])
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()
        took[name].append(1000 * (time.process_time() - began))
        losses[name].append(loss.item())

print(f"losses differ by at most {np.abs(np.subtract(*losses.values())).max():.0e}")
print("\n".join(f"milliseconds an update, {name} {np.median(took[name]):.2f}" for name in networks))


def picture(figure):
    """Both courses of the loss on top of each other, and how long updates took."""
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    for name, style, width in zip(networks, ("C0-", "C1--"), (3, 1.5), strict=True):
        left.semilogy(losses[name], style, lw=width, label=name)
        right.bar_label(right.bar(name, np.median(took[name]), color=style[:2]), fmt="%.1f")
    left.set(xlabel="update", ylabel="mean squared error", title="The same training, twice")
    left.legend()
    right.set(ylabel="milliseconds of one processor, median", title="What an update takes")


loading.draw(picture, "swap")
