"""Handwritten digits read row by row, a classifier in a scikit-learn pipeline: fit, then the probabilities."""

import swap
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier


class Reader(torch.nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.lstm = torch.nn.LSTM(8, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(2 * hidden, 10)

    def forward(self, x):
        return torch.softmax(self.head(self.lstm(x)[0].mean(dim=1)), dim=1)


def run():
    digits = load_digits()
    x, x_test, y, _ = train_test_split(digits.images.astype("float32") / 16, digits.target, random_state=0)
    net = NeuralNetClassifier(
        Reader, max_epochs=8, lr=2e-3, optimizer=torch.optim.Adam, batch_size=64, warm_start=True,
        verbose=0)  # fmt: skip
    net.initialize()
    swap.accelerate(net.module_)
    net.fit(x, y)
    return {"losses": net.history[:, "train_loss"], "probabilities": net.predict_proba(x_test)}
