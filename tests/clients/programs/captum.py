"""Which steps made a classifier of sensor traces decide: integrated gradients and their layer's."""

import swap
import torch
from captum.attr import IntegratedGradients


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(6, 64, num_layers=2, batch_first=True)
        self.head = torch.nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def run():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 80, 6, generator=generator).cumsum(dim=1) / 10
    y = (x[:, -20:, :4].mean(dim=1)).argmax(dim=1)
    model = swap.accelerate(Classifier())
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for rows in torch.arange(256).reshape(8, 32).repeat(3, 1):
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    attributions, gap = IntegratedGradients(model).attribute(
        x[:16], torch.zeros(16, 80, 6), target=y[:16], n_steps=50, return_convergence_delta=True)  # fmt: skip
    return {"losses": losses, "attributions": attributions, "gap": attributions.sum(dim=(1, 2)) + gap}
