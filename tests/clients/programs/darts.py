"""Three centuries of sunspots, RNNModel("LSTM"): fit, then the years to come one after the other."""

import statsmodels.api
import swap
from darts import TimeSeries
from darts.models import RNNModel
from pytorch_lightning import Callback


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_epoch_end(self, trainer, module):
        self.values.append(float(trainer.callback_metrics["train_loss"]))


def run():
    spots = statsmodels.api.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy("float32") / 100
    series, losses = TimeSeries.from_values(spots), Losses()
    model = RNNModel(
        24, model="LSTM", hidden_dim=32, training_length=48, batch_size=32, n_epochs=15, random_state=0,
        pl_trainer_kwargs={"accelerator": "cpu", "callbacks": [losses], "enable_progress_bar": False})  # fmt: skip
    with swap.patch():
        model.fit(series[:-36])
    return {"losses": losses.values, "forecast": model.predict(36).values()}
