"""Pictures of training: curves, drawn by matplotlib without a screen, into files and notebooks."""

from __future__ import annotations

import io
from pathlib import Path

from cylstm.checks import path_name
from cylstm.tensor_files import write_atomically

__all__ = ["PICTURES", "curves", "ending", "shown", "write"]

PICTURES = (".png", ".svg", ".pdf")


def ending(path) -> str:
    """Of a file for a picture. Raises TypeError or ValueError."""
    path = path_name("path", path)
    if Path(path).suffix.lower() not in PICTURES:
        raise ValueError(f"path: expected a file ending in {', '.join(PICTURES)}, got {path}")
    return Path(path).suffix[1:]


def curves(panels: int, height: float):
    """A figure, and its panels below each other, with one axis of x. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[2, *[1] * (panels - 1)])[:, 0]
    for panel in axes:
        panel.grid(alpha=0.3)
    return figure, axes


def write(figure, path) -> None:
    """Into a file, atomically. Raises OSError."""
    picture = io.BytesIO()
    figure.savefig(picture, format=ending(path), dpi=120)
    write_atomically(path, picture.getvalue())


def shown(figure) -> str:
    """SVG for a notebook's page."""
    picture = io.StringIO()
    figure.savefig(picture, format="svg")
    text = picture.getvalue()
    return text[text.index("<svg") :]
