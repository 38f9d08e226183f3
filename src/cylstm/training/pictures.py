"""Pictures of training: curves, drawn by matplotlib without a screen, into files and notebooks."""

from __future__ import annotations

import io
from pathlib import Path

from cylstm.checks import path_name
from cylstm.tensor_files import write_atomically

__all__ = ["PICTURES", "curves", "ending", "of_epochs", "shown", "write"]

PICTURES = (".png", ".svg", ".pdf")


def ending(path) -> str:
    """Of a file for a picture. Raises TypeError or ValueError."""
    path = path_name("path", path)
    if Path(path).suffix.lower() not in PICTURES:
        raise ValueError(f"path: expected a file ending in {', '.join(PICTURES)}, got {path}")
    return Path(path).suffix[1:]


def curves(panels: int, height: float, even=False, sharex=True):
    """A figure, and its panels below each other, with one axis of x; the first is twice as high as the others unless
    they are even. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [1 if even else 2, *[1] * (panels - 1)]
    axes = figure.subplots(panels, 1, sharex=sharex, squeeze=False, height_ratios=ratios)[:, 0]
    for panel in axes:
        panel.grid(alpha=0.3)
    return figure, axes


def of_epochs(axis, count: int) -> None:
    """Whole numbers of epochs along an axis of x, 1..count."""
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if count == 1:
        axis.set_xlim(0.5, 1.5)  # one point has no range of its own
        axis.set_xticks([1])


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
