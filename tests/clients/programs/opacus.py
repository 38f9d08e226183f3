"""Digits read row by row, learned in private: opacus replaces nn.LSTM by an LSTM of its own, and ours too."""

import swap
import torch
from opacus import PrivacyEngine
from opacus.validators import ModuleValidator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 32, batch_first=True)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def run():
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target)
    model = ModuleValidator.fix(swap.accelerate(Reader()))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=5e-3), []
    model, optimizer, loader = PrivacyEngine(secure_mode=False).make_private(
        module=model, optimizer=optimizer, data_loader=DataLoader(TensorDataset(x, y), batch_size=128),
        noise_multiplier=1.0, max_grad_norm=1.0)  # fmt: skip
    for rows, labels in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(rows), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        return {"losses": losses, "scores": model(x[:200])}
