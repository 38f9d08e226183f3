"""Pictures of the commands that take tables: fans of forecasts; a confusion matrix beside the curves of training."""

from __future__ import annotations

import warnings

import numpy as np

from cylstm.training import pictures

__all__ = ["fans", "matrix_and_curves"]

MOST_PANELS = 6
MOST_LABELS = 30  # that stand beside a matrix


def fans(path, panels, levels, title) -> None:
    """Forecasts behind what is known. panels : of each series its name, the known times and numbers, the times and the
    quantiles (n, Q) ahead; the first MOST_PANELS are drawn. levels : of the quantiles, 0.5 among them."""
    shown, middle = panels[:MOST_PANELS], levels.index(0.5)
    figure, axes = pictures.curves(len(shown), 1.2 + 2.4 * len(shown), even=True, sharex=False)
    for axis, (name, times, known, ahead, bounds) in zip(axes, shown, strict=True):
        axis.plot(times, known, color="C0", linewidth=1.2, label="known")
        for n in range(middle):
            low, high = bounds[:, n], bounds[:, len(levels) - 1 - n]
            share = f"{levels[len(levels) - 1 - n] - levels[n]:.0%}"
            axis.fill_between(ahead, low, high, color="C1", alpha=0.2, linewidth=0, label=share)
        axis.plot(ahead, bounds[:, middle], color="C1", linewidth=1.5, label="median")
        axis.set_title(name, fontsize=9, parse_math=False)
        axis.tick_params("x", rotation=30)  # each has its own times
    axes[0].legend(loc="upper left", fontsize=8)
    more = f" ({len(shown)} of {len(panels)} series)" if len(panels) > len(shown) else ""
    figure.suptitle(title + more, parse_math=False)
    write(figure, path)


def matrix_and_curves(path, counts, labels, history, title, test_loss) -> None:
    """counts : (K, K), of each label (a row) how often each was found."""
    figure, axes = pictures.curves(2, 9, even=True, sharex=False)
    top, below = axes
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    top.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    top.grid(False)
    K = len(labels)
    if K <= MOST_LABELS:
        texts = [label if len(label) <= 16 else label[:15] + "…" for label in labels]
        top.set_xticks(range(K), texts, rotation=90 if K > 6 else 0, parse_math=False)
        top.set_yticks(range(K), texts, parse_math=False)
    if K <= 12:
        for row, column in np.ndindex(K, K):
            color = "white" if shares[row, column] > 0.5 else "black"
            top.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=color, fontsize=8)
    top.set_ylabel("is")
    top.set_xlabel("was found")
    top.set_title(title, parse_math=False)
    history.plot(axis=below, test=test_loss, title="Training", unit="mean per sequence")
    write(figure, path)


def write(figure, path) -> None:
    """Into a file; a name in letters that the font does not have is drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        pictures.write(figure, path)
