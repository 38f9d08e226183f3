"""Air passengers of eight airlines, LSTM: fit, then a year ahead."""

import numpy as np
import pandas as pd
import swap
from neuralforecast import NeuralForecast
from neuralforecast.models import LSTM
from neuralforecast.utils import AirPassengersDF


def run():
    rng = np.random.default_rng(0)
    airlines = pd.concat([
        AirPassengersDF.assign(unique_id=n, y=AirPassengersDF["y"] * rng.lognormal(0, 0.05, len(AirPassengersDF)))
        for n in range(8)
    ])  # fmt: skip
    model = LSTM(
        h=12, input_size=48, encoder_hidden_size=64, encoder_n_layers=2, scaler_type="robust", max_steps=60,
        batch_size=8, windows_batch_size=64, random_seed=0, accelerator="cpu", enable_progress_bar=False,
        enable_checkpointing=False, logger=False)  # fmt: skip
    forecaster = NeuralForecast([swap.accelerate(model)], freq="ME")
    forecaster.fit(airlines)
    losses = [loss for _, loss in forecaster.models[0].train_trajectories]
    return {"losses": losses, "forecast": forecaster.predict()["LSTM"]}
