"""The same by PyTorch: packed, and numbered. nn.LSTM drops nothing of h between steps: that is left out."""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from examples import loading
from examples.sequences import RECIPES, SEEDS

job = sys.argv[1]
train, test = getattr(loading, job)()

steps, names = np.concatenate(train[0]), np.unique(train[1])
center, scale = steps.mean(axis=0), steps.std(axis=0)


def prepared(x, y):
    rows = [torch.tensor((row - center) / scale, dtype=torch.float32) for row in x]
    return rows, torch.tensor(np.searchsorted(names, y))


class Network(nn.Module):
    def __init__(self, input_dropout):
        super().__init__()
        self.drop = nn.Dropout1d(input_dropout)  # a feature at all steps alike
        self.lstm = nn.LSTM(len(center), 64, batch_first=True, bidirectional=True)
        self.head = nn.Linear(128, len(names))

    def forward(self, rows):
        x = self.drop(pad_sequence(rows, batch_first=True).mT).mT
        lengths = torch.tensor([len(row) for row in rows])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.head(torch.cat([h[0], h[1]], dim=1))


def accuracy(seed, epochs, rate, input_dropout, recurrent_dropout):
    torch.manual_seed(seed)
    network, (rows, y) = Network(input_dropout), prepared(*train)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(rows) // 32))
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(32):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network([rows[n] for n in batch]), y[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5)
            optimizer.step()
            schedule.step()
    network.eval()
    rows, y = prepared(*test)
    with torch.no_grad():
        return (network(rows).argmax(dim=1) == y).float().mean().item()


found = [accuracy(seed, **RECIPES[job]) for seed in SEEDS]

print(f"{job} {np.median(found):.4f} ({min(found):.4f} to {max(found):.4f})")
