"""Fifty noisy daily rhythms, DeepAR: train, then 100 sampled paths of each."""

import numpy as np
import swap
import torch
from gluonts.dataset.common import ListDataset
from gluonts.torch import DeepAREstimator
from lightning.pytorch import Callback


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_epoch_end(self, trainer, module):
        self.values.append(float(trainer.callback_metrics["train_loss"]))


def run():
    rng, hours = np.random.default_rng(0), np.arange(24 * 20)
    rhythms = [10 + 5 * np.sin(2 * np.pi * (hours + rng.integers(24)) / 24) + rng.standard_normal(len(hours))
               for _ in range(50)]  # fmt: skip
    data = ListDataset([{"start": "2026-01-01", "target": rhythm.astype("float32")} for rhythm in rhythms], freq="h")
    losses = Losses()
    estimator = DeepAREstimator(
        freq="h", prediction_length=24, context_length=72, num_layers=2, hidden_size=40,
        num_batches_per_epoch=10, lags_seq=[1, 2, 24, 168],
        trainer_kwargs={"max_epochs": 3, "accelerator": "cpu", "callbacks": [losses], "logger": False,
                        "enable_progress_bar": False})  # fmt: skip
    with swap.patch():
        predictor = estimator.train(data)
    torch.manual_seed(1)
    forecasts = list(predictor.predict(data, num_samples=100))
    return {"losses": losses.values, "forecast": [forecast.mean for forecast in forecasts]}
