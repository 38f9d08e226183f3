"""What a run shows while it goes on: a bar for each epoch or, where nothing can be drawn over, a line at its end."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["EpochLine", "can_draw", "epoch_bar"]


def can_draw() -> bool:
    """Whether stderr is a terminal or a notebook's; a file would keep every state of a bar."""
    try:
        return type(sys.stderr).__module__.startswith("ipykernel") or sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


def epoch_bar(progress, name, batches, done):
    """A bar, or what does in its place."""
    if not progress or not can_draw():
        return EpochLine(name, progress)
    from tqdm import tqdm  # 30 ms: `import cylstm` has 15

    return tqdm(total=batches, initial=done, desc=name, unit="batch", leave=True)


class EpochLine:
    """A bar's calls, of which it heeds the epoch's last one."""

    def __init__(self, name, shown):
        self.name, self.shown = name, shown

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self):
        """One batch is done."""

    def set_postfix_str(self, text, refresh=True):
        """How it goes; to be shown at once with `refresh`."""
        if self.shown and refresh and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # closed, or gone: a run is worth more than its report
                print(f"{self.name}: {text}", file=sys.stderr, flush=True)
