"""Seasons with trends, DeepAR, whose LSTM is a subclass of nn.LSTM: fit, then sampled forecasts."""

import swap
import torch
from lightning.pytorch import Callback, Trainer
from pytorch_forecasting import DeepAR, TimeSeriesDataSet
from pytorch_forecasting.data.examples import generate_ar_data


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.values.append(float(outputs["loss"]))


def run():
    table = generate_ar_data(seasonality=10.0, timesteps=200, n_series=50, seed=0)
    table["static"] = "2"
    known = table[table["time_idx"] < 180]
    columns = {"group_ids": ["series"], "time_varying_unknown_reals": ["value"], "static_categoricals": ["static"]}
    data = TimeSeriesDataSet(
        known, "time_idx", "value", max_encoder_length=60, max_prediction_length=20,
        time_varying_known_reals=["time_idx"], **columns)  # fmt: skip
    model = DeepAR.from_dataset(data, hidden_size=32, rnn_layers=2, learning_rate=0.01, log_interval=-1)
    swap.accelerate(model)
    losses = Losses()
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", limit_train_batches=30, callbacks=[losses], logger=False,
        gradient_clip_val=0.1, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False)  # fmt: skip
    trainer.fit(model, data.to_dataloader(train=True, batch_size=64, num_workers=0))
    coming = TimeSeriesDataSet.from_dataset(data, table, predict=True, stop_randomization=True)
    torch.manual_seed(1)
    forecast = model.predict(
        coming.to_dataloader(train=False, batch_size=50, num_workers=0), n_samples=20,
        trainer_kwargs={"accelerator": "cpu", "logger": False, "enable_progress_bar": False})  # fmt: skip
    return {"losses": losses.values, "forecast": forecast.cpu()}
