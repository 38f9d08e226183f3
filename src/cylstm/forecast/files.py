"""Forecasters in files: one safetensors file with the weights of all members and everything that a forecast needs."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from cylstm import model_files, tensor_files
from cylstm.checks import flag, one_of, positive_int, real_in
from cylstm.forecast.features import History, Layout
from cylstm.forecast.flights import FARTHEST, Flights, origins_of, sizes
from cylstm.forecast.frames import Index
from cylstm.forecast.panel import Panel
from cylstm.model import Model
from cylstm.scaling import Scaler
from cylstm.state import State

__all__ = ["load", "save"]

ARRAYS = ("y", "known", "past", "future", "static")  # of a History


def save(forecaster, path) -> None:
    """`LSTMForecaster.save`."""
    flights = forecaster.flights_
    tensors = {"mix": forecaster.mix_, "stretch": forecaster.stretch_,
               "aloft": flights.aloft, "widening": flights.widening}  # fmt: skip
    for n, (model, state) in enumerate(zip(forecaster.models_, forecaster.states_, strict=True)):
        tensors.update({f"members.{n}.{name}": model.parameters.raw(name) for name in model.parameters})
        tensors.update({f"states.{n}.h": state.h, f"states.{n}.c": state.c})
        tensors.update({f"flights.{n}.{part}": getattr(flights.states[n], part) for part in "hc"})
    for n, series in enumerate(forecaster.series_):
        tensors.update({f"series.{n}.{name}": getattr(series, name) for name in ARRAYS})
    for name, scaler in forecaster.scalers_.items():
        if scaler is not None:
            tensors.update({f"scalers.{name}.{key}": value for key, value in scaler.state().items()})
    header = {
        "options": forecaster.options, "layout": asdict(forecaster.layout_), "log": forecaster.log_,
        "members": [model.header() for model in forecaster.models_],
        "series": [{"scale": float(series.scale), "start": series.start, "latest": series.latest}
                   for series in forecaster.series_],
        "columns": forecaster.columns_,
        "panel": {**asdict(forecaster.panel_), "names": [plain_name(name) for name in forecaster.panel_.names]},
    }  # fmt: skip
    tensor_files.write_tensors(path, "forecaster", header, tensors)


def plain_name(name):
    """A name as JSON has it. Raises TypeError for one that a file cannot give back."""
    name = name.item() if isinstance(name, np.generic) else name
    if name is not None and not isinstance(name, (str, int, float, bool)):
        raise TypeError(f"series: expected names that are text or numbers, which a file can hold, got {name!r}")
    return name


def load(cls, path):
    """`LSTMForecaster.load`."""
    with tensor_files.open_tensors(path, "forecaster") as file:
        try:
            return read(cls, file)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected a forecaster as it was saved, got one that is damaged ({error})"
            ) from None


def read(cls, file):
    """A forecaster of the sizes that a file claims. Raises KeyError, TypeError or ValueError."""
    header, shapes = file.header, file.shapes

    def tensor(name, dtype=np.float64):
        return file.read(name, shapes.get(name, ()), np.dtype(dtype))

    forecaster = cls(**header["options"])
    layout = Layout(**{name: positive_int(name, value, name in ("season", "horizon"))
                       for name, value in header["layout"].items()})  # fmt: skip
    if layout.horizon != (forecaster.horizon if forecaster.strategy == "direct" else 1):
        raise ValueError(f"layout: expected the horizon of {forecaster!r}, got {layout.horizon}")
    forecaster.layout_, forecaster.log_ = layout, flag("log", header["log"])
    forecaster.season_, forecaster.histories_ = forecaster.layout_.season, None
    form = one_of("form", header["panel"]["form"], ("one", "columns", "list", "dict"))
    forecaster.panel_ = Panel(form, tuple(header["panel"]["names"]),
                              tuple(Index(**index).checked() for index in header["panel"]["indices"]))  # fmt: skip
    forecaster.columns_ = {name: columns and tuple(columns) for name, columns in header.get("columns", {}).items()}
    forecaster.stretch_ = file.read("stretch", (len(forecaster.levels),), np.dtype(np.float64))
    forecaster.mix_ = mix = file.read("mix", (layout.horizon, 2), np.dtype(np.float64))
    if not ((mix >= 0) & (mix <= 1)).all():
        raise ValueError("mix: expected numbers from 0 to 1, got others")
    widths = {"past": forecaster.layout_.P, "future": forecaster.layout_.C, "static": forecaster.layout_.S}
    forecaster.scalers_ = {
        name: Scaler(**{key: file.read(f"scalers.{name}.{key}", (width,), np.dtype(np.float64))
                        for key in ("center", "scale")}) if width else None
        for name, width in widths.items()
    }  # fmt: skip
    forecaster.series_ = []
    for n, plain in enumerate(header["series"]):
        arrays = {name: tensor(f"series.{n}.{name}", bool if name == "known" else np.float64) for name in ARRAYS}
        T = len(arrays["y"])
        expected = {
            "known": (T,),
            "past": (T, widths["past"]),
            "future": (T, widths["future"]),
            "static": (widths["static"],),
        }
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                raise ValueError(f"series.{n}.{name}: expected {shape}, got {arrays[name].shape}")
        scale = real_in("scale", plain["scale"], 0, open_low=True)
        start, latest = positive_int("start", plain["start"], 0), real_in("latest", plain["latest"], -np.inf)
        forecaster.series_.append(History(**arrays, scale=scale, start=start, latest=latest))
    N, G = len(forecaster.series_), sizes(layout.horizon)[1]
    models, forecaster.states_, flying = [], [], []
    for n, model_header in enumerate(header["members"]):
        prefix = f"members.{n}."
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        model = model_files.from_header(Model, file.path, model_header, own)
        if model.input_size != forecaster.layout_.width or model.output_size != len(forecaster.levels):
            raise ValueError(
                f"members.{n}: expected {forecaster.layout_.width} inputs and {len(forecaster.levels)} outputs"
            )
        for name, shape in model.parameters.layout.items():
            model.parameters.raw(name)[:] = file.read(prefix + name, shape, model.dtype)
        model.parameters.touch()
        for name, states, count in (("states", forecaster.states_, N), ("flights", flying, N * G)):
            like = model.initial_state(count)
            states.append(State(*(file.read(f"{name}.{n}.{part}", array.shape, array.dtype)
                                  for part, array in zip("hc", like, strict=True))))  # fmt: skip
        models.append(model)
    widening = file.read("widening", (N, G, len(forecaster.levels)), np.dtype(np.float64))
    forecaster.flights_ = checked(Flights(flying, file.read("aloft", (N, G), np.dtype(bool)), widening), forecaster)
    indices = 1 if form in ("one", "columns") else N
    if len(models) != forecaster.members or (len(forecaster.panel_.names), len(forecaster.panel_.indices)) != (
        N,
        indices,
    ):
        raise ValueError("header: expected as many members, names and indices as there are models and series")
    forecaster.models_ = models
    return forecaster


def checked(flights, forecaster):
    """Flights whose origins the series reach back to. Raises ValueError."""
    if not (np.abs(flights.widening) <= FARTHEST).all():
        raise ValueError(f"widening: expected numbers from {-FARTHEST} to {FARTHEST}, got others")
    layout = forecaster.layout_
    for n, series in enumerate(forecaster.series_):
        row = series.start + len(series)
        origins = origins_of(layout.horizon, row)
        first = layout.base(origins, row - origins) - series.start  # of the values that the next row is compared with
        if len(series) < layout.season or (first[flights.aloft[n] & (row - origins <= layout.horizon)] < 0).any():
            raise ValueError(f"series.{n}.y: expected as many rows as forecasts look back to, got {len(series)}")
    return flights
