"""How a forecaster learns: windows, a piece of each series that a model is held away from, and what shows there: how
much the model is to be believed, and how wide intervals are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cylstm.losses import Quantiles
from cylstm.model import Model
from cylstm.training.optim import AdamW

__all__ = ["Settings", "Windows", "learnt", "mixed", "stretched", "windows"]

MOST_WINDOWS = 4096  # of longer data every second, third, ... origin serves
FOLDS = 5  # pieces of each series
TENTHS = np.array([(total - last, last) for total in range(11) for last in range(total + 1)]) / 10  # mixtures
NARROWEST, WIDEST = 0.5, 5.0  # what intervals are stretched by at the most


@dataclass(frozen=True)
class Settings:
    """What `LSTMForecaster` was told of its network and of its training."""

    quantiles: tuple[float, ...]
    lags: int
    hidden_size: int
    num_layers: int
    dropout: float
    members: int
    epochs: int
    patience: int
    batch_size: int
    lr: float
    seed: int


@dataclass
class Windows:
    """x (M, lags + horizon, I): a context, and then the steps ahead; mask (M, lags + horizon): False before a context
    begins; y (M, lags + horizon, 1): targets ahead, NaN elsewhere and where missing; share (M, lags + horizon): how
    much of its series is over at a step; drift (M, horizon): by how much the last known value is above the base."""

    x: np.ndarray
    mask: np.ndarray
    y: np.ndarray
    share: np.ndarray
    drift: np.ndarray


def windows(layout, histories, lags: int, rng=None) -> Windows:
    """A window for each step of each series after which something is to be foretold.

    rng : draws how much of its context a window has, from half on; None for all of it.
    """
    stride = max(1, -(-sum(map(len, histories)) // MOST_WINDOWS))
    parts = [one_series(layout, history, lags, rng, stride) for history in histories]
    arrays = [np.concatenate(each) for each in zip(*parts, strict=True)]  # in the order of Windows
    there = ~np.isnan(arrays[2]).all(axis=(1, 2))
    return Windows(*(array[there] for array in arrays))


def one_series(layout, history, lags, rng, stride):
    season, H, T = layout.season, layout.horizon, len(history)
    first = int(np.argmax(history.known))  # a gap before it is filled from it, which would be a look ahead
    origins = np.arange(max(season, first), T - 1)[::-1][::stride][::-1]
    over = np.zeros((T, layout.width))
    over[season:] = layout.after(history, history.y, np.arange(season, T))
    steps = origins[:, None] + np.arange(1 - lags, H + 1)  # of contexts and ahead
    ahead = np.arange(1, H + 1)
    base = layout.base(origins[:, None], ahead)
    unknown = np.full((H, layout.C), np.nan)  # behind the end, where no target is either
    future = np.concatenate([history.future, unknown])
    x = np.concatenate([
        over[np.maximum(steps[:, :lags], 0)],
        layout.ahead(history, history.y, steps[:, lags:], base, ahead / H, future)], axis=1)  # fmt: skip
    y = np.full(steps.shape, np.nan)
    inside = np.clip(steps, 0, T - 1)
    y[:, lags:] = (history.y[inside[:, lags:]] - history.y[base]) / history.scale
    y[(steps >= T) | ~history.known[inside]] = np.nan
    length = np.full(len(origins), lags) if rng is None else rng.integers((lags + 1) // 2, lags + 1, len(origins))
    mask = (steps >= season) & (np.arange(lags + H) >= lags - length[:, None])
    drift = (history.y[origins][:, None] - history.y[base]) / history.scale
    return x.astype(np.float32), mask, y[..., None].astype(np.float32), (steps - season) / (T - season), drift


def learnt(layout, histories, settings: Settings, progress=False):
    """The trained models; how they are mixed, (horizon, 2); what the distance of each quantile from the median is to be
    stretched by, (Q,); and their Histories.

    Of FOLDS pieces of each series every model is held away from one, where its training is stopped, and where it shows
    how good it is and how wide its intervals should have been: the last piece, the last but one, and so on.
    """
    data = windows(layout, histories, settings.lags, np.random.default_rng(settings.seed))
    if len(data.x) < 2:
        behind = f" behind the first season of {layout.season}" if layout.season > 1 else ""
        rows = sum(map(len, histories))
        raise ValueError(f"series: expected more values to learn from{behind}, got {rows} rows in all")
    never = np.isnan(data.y[:, settings.lags :]).all(axis=(0, 2))
    if never.any():
        raise ValueError(f"horizon: expected at most {never.argmax()}, which is as far ahead as the series have values "
                         f"to learn from, got {layout.horizon}")  # fmt: skip
    piece = np.floor(data.share * FOLDS)[..., None]
    models, runs, scores = [], [], []
    for member in range(settings.members):
        seed = settings.seed + member
        model = Model(layout.width, settings.hidden_size, len(settings.quantiles), num_layers=settings.num_layers,
                      input_dropout=settings.dropout, loss=Quantiles(settings.quantiles), seed=seed)  # fmt: skip
        held_out = piece == FOLDS - 1 - member % FOLDS
        train, test = part(data, ~held_out), part(data, held_out)
        if not len(test["x"]) or not len(train["x"]):
            raise ValueError(f"series: expected values in each fifth behind the first season of {layout.season}, got a "
                             "fifth without")  # fmt: skip
        run = model.fit(**train, validation=test, missing="skip", epochs=settings.epochs, patience=settings.patience,
                        batch_size=settings.batch_size, optimizer=AdamW(settings.lr), seed=seed,
                        progress=progress)  # fmt: skip
        runs.append(run)
        outputs, y = model(test["x"], mask=test["mask"])[0][:, settings.lags :], test["y"][:, settings.lags :]
        scores.append((outputs, y, data.drift[has_target(held_out, data.y)]))
        models.append(model)
    mix = mixture(scores, settings.quantiles)
    scores = [(mixed(outputs, drift, mix, settings.quantiles)[~np.isnan(y[..., 0])], y[~np.isnan(y)][:, None])
              for outputs, y, drift in scores]  # fmt: skip
    return models, mix, stretches(scores, settings.quantiles), runs


def part(data, chosen) -> dict:
    """Arguments of `fit`: the chosen targets (M, lags + horizon, 1), and the windows that have one."""
    has = has_target(chosen, data.y)
    return {"x": data.x[has], "y": np.where(chosen, data.y, np.nan)[has], "mask": data.mask[has]}


def has_target(chosen, y) -> np.ndarray:
    """(M,): which windows have a chosen target; chosen, y: (M, lags + horizon, 1)."""
    return (chosen & ~np.isnan(y)).any(axis=(1, 2))


def mixture(scores, quantiles) -> np.ndarray:
    """(horizon, 2), w and v >= 0 with w + v <= 1, in tenths: the median of a step is w times the model's change since
    the base and v times that to the last known value, which is (1 - w - v) base + w model + v last value. Those with
    the least absolute error of held-out targets, so that a model that has nothing to say does not speak (stacking:
    Wolpert 1992, Breiman 1996).

    scores : of each model, outputs (M, horizon, Q), targets (M, horizon, 1), drift (M, horizon)."""
    outputs, targets, drift = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*scores, strict=True))
    median, targets = np.sort(outputs, axis=-1)[..., quantiles.index(0.5)], targets[..., 0]
    error = np.stack([np.nansum(np.abs(targets - w * median - v * drift), axis=0) for w, v in TENTHS])
    unseen = np.isnan(targets).all(axis=0)
    error[:, unseen] = error.sum(axis=1, keepdims=True)  # what is best for all
    return TENTHS[np.argmin(error, axis=0)]


def mixed(outputs, drift, mix, quantiles) -> np.ndarray:
    """Outputs (..., Q) in rising order, moved to where `mixture` has their median. drift (...,); mix (..., 2)."""
    outputs = np.sort(outputs.astype(np.float64), axis=-1)
    median = outputs[..., quantiles.index(0.5)]
    return outputs + ((mix[..., 0] - 1) * median + mix[..., 1] * drift)[..., None]


def stretches(scores, quantiles) -> np.ndarray:
    """(Q,) factors with which each quantile has its share of the held-out targets below it: intervals of a network are
    too narrow where it has learnt its series by heart (after Romano, Patterson & Candès 2019).

    scores : of each model, outputs (N, Q) and targets (N, 1)."""
    outputs, targets = (np.concatenate(arrays) for arrays in zip(*scores, strict=True))
    outputs, middle = np.sort(outputs, axis=-1), quantiles.index(0.5)
    median, found = outputs[:, middle], np.ones(len(quantiles))
    for n, q in enumerate(quantiles):
        if n != middle:
            distance = np.sign(q - 0.5) * np.maximum(np.abs(outputs[:, n] - median), 1e-3)
            ratio = (targets[:, 0] - median) / distance
            found[n] = np.clip(np.quantile(ratio, max(q, 1 - q)), NARROWEST, WIDEST)
    return found


def stretched(outputs, stretch, quantiles) -> np.ndarray:
    """Outputs (..., Q) in rising order, each as far from the median as held-out targets say."""
    outputs = np.sort(outputs.astype(np.float64), axis=-1)
    middle = quantiles.index(0.5)
    median = outputs[..., middle : middle + 1]
    return np.sort(median + stretch * (outputs - median), axis=-1)
