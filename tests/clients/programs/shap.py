"""Expected gradients of a small LSTM's forecasts: many small batches forward and backward."""

import numpy as np
import shap
import swap
import torch


class Forecaster(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 32, batch_first=True)
        self.head = torch.nn.Linear(32, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def run():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 24, 3, generator=generator)
    y = x[:, -6:, :1].mean(dim=1) - x[:, -1, 1:2]
    model = swap.accelerate(Forecaster())
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for rows in torch.arange(400).reshape(10, 40).repeat(3, 1):
        loss = torch.nn.functional.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    values = shap.GradientExplainer(model, x[:100], batch_size=20).shap_values(x[100:140], nsamples=100, rseed=0)
    return {"losses": losses, "values": np.asarray(values)}
