"""Six seconds of a guitar through a distortion: nam's LSTM (a subclass of nn.LSTM), trained in pieces, then played."""

import numpy as np
import swap
import torch
from nam.models.recurrent import LSTM

RATE = 44100


def run():
    rng, seconds = np.random.default_rng(0), np.arange(RATE * 6) / RATE
    clean = sum(np.sin(2 * np.pi * tone * seconds + rng.random()) for tone in (82.4, 164.8, 247)) / 3
    clean *= 0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 1.5 * seconds))
    clean, played = (torch.tensor(part, dtype=torch.float32) for part in (clean, np.tanh(4 * clean) * 0.8))
    model = LSTM(hidden_size=16, train_burn_in=512, train_truncate=512, sample_rate=RATE)
    swap.accelerate(model)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=4e-3), []
    for batch in torch.arange(120)[torch.randperm(120, generator=torch.Generator().manual_seed(0))].reshape(8, 15):
        x, y = (torch.stack([part[2048 * n : 2048 * (n + 1)] for n in batch]) for part in (clean, played))
        loss = torch.nn.functional.mse_loss(model(x, pad_start=False)[:, 512:], y[:, 512:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        return {"losses": losses, "played": model(clean, pad_start=False)[::10]}
