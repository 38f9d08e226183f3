"""What gates and cells do, in numbers: how saturated, how forgetful, how dead."""

from __future__ import annotations

import base64
from typing import NamedTuple

import numpy as np

__all__ = ["DEAD", "HeatMap", "as_bytes", "dead_units", "evenly", "heat_maps", "saturation", "time_constants"]

LOW, HIGH = 0.1, 0.9
DEAD = 0.01  # a unit whose h has no wider range is dead
HEAT_BYTES = 1_200_000  # of all heat maps together, before base64
HEAT_UNITS = 128  # of a layer, at most


def saturation(sample, layer) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Of gates i, f and o: the share of time (H,) that each unit's is below LOW, and above HIGH, and the mean
    (Karpathy, Johnson & Fei-Fei 2015)."""
    found = {}
    for gate in "ifo":
        values = sample.values(gate, layer)
        found[gate] = (values < LOW).mean(axis=0), (values > HIGH).mean(axis=0), float(values.mean())
    return found


def time_constants(sample, layer) -> np.ndarray:
    """(H,) steps after which 1/e is left of what a cell has, -1 / mean(log f): of what each step leaves, with zoneout
    z + (1 - z) f. Infinite where nothing is forgotten."""
    old = sample.inner.lstm.zoneout[0]
    left = old + (1 - old) * np.abs(sample.values("f", layer).astype(np.float64))
    with np.errstate(divide="ignore"):
        rate = -np.log(left).mean(axis=0)
        return np.where(rate > 0, 1 / np.where(rate == 0, 1, rate), np.inf)


def dead_units(sample, layer) -> np.ndarray:
    """The units whose h stays within a range of DEAD at all steps that are looked at."""
    h = sample.values("h", layer)
    return np.flatnonzero(h.max(axis=0) - h.min(axis=0) < DEAD)


def evenly(count: int, most: int) -> np.ndarray:
    """At most so many of 0..count-1, evenly spaced, first and last among them."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int)


def as_bytes(values) -> tuple[str, list[float]]:
    """Rows of numbers (N, T) as whole ones in -127..127, in base64, and the scale of each row."""
    values = np.asarray(values, np.float64)
    scales = np.abs(values).max(axis=1, initial=0) / 127
    whole = np.rint(values / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    return base64.b64encode(np.ascontiguousarray(whole).tobytes()).decode(), [float(f"{s:.6g}") for s in scales]


class HeatMap(NamedTuple):
    """Of one layer: units x steps of c and of h in the first row, slow units first."""

    layer: str
    units: list[int]
    hidden: int
    parts: dict[str, tuple[str, list[float]]]


def heat_maps(sample) -> list[HeatMap]:
    """As many units of each layer as fit into HEAT_BYTES in all."""
    steps, layers = int(sample.lengths[0]), sample.layers
    most = max(8, min(HEAT_UNITS, HEAT_BYTES // max(1, 2 * steps * len(layers))))
    found = []
    for layer in layers:
        tau = time_constants(sample, layer)
        chosen = np.argsort(-tau, kind="stable")[evenly(len(tau), most)]
        arrays = {"c": sample.trace[f"c_{layer}"][0, :steps].T[chosen]}
        h = sample.trace[f"h_{layer}"][0, :steps].T
        if len(h) == len(tau):  # with a projection h has no units of the cell
            arrays["h"] = h[chosen]
        found.append(HeatMap(layer, chosen.tolist(), len(tau), {name: as_bytes(v) for name, v in arrays.items()}))
    return found
