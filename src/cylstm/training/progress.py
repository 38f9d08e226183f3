"""What a run shows while it goes on: one bar for all its epochs, in a terminal or a notebook, and a line per epoch."""

from __future__ import annotations

import contextlib
import re
import sys
import textwrap
import time

__all__ = ["Progress", "can_draw", "folded"]

EVERY = 0.1  # seconds between two states of the bar
LEAST_BAR = 10  # columns, before anything is said behind it


def can_draw() -> bool:
    """Whether stderr is a terminal or a notebook's; a file would keep every state of a bar."""
    try:
        return type(sys.stderr).__module__.startswith("ipykernel") or sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


def folded(text, width, indent="    ") -> str:
    """A line in as many as a terminal of `width` columns (None: of any) takes to show it, broken after a comma or
    semicolon where that will do, otherwise between words. Letters that take two columns are left to the terminal."""
    from tqdm.utils import disp_len

    text = text.expandtabs()
    if width is None or disp_len(text) <= width or disp_len(text) != len(text) or width <= 2 * len(indent):
        return text
    if max(map(len, re.split(r"(?<=[,;]) ", text))) + len(indent) <= width:
        text = re.sub(r"(?<![,;]) ", "\xa0", text)  # which is not broken at
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False).replace("\xa0", " ")


class Progress:
    """A run's progress on stderr; a context, after which the bar is gone and the epochs' lines stay.

    shown : whether there is any.
    first, epochs : the run is of the epochs from `first` on, to `epochs` in all.
    """

    def __init__(self, shown, first, epochs):
        self.shown, self.first, self.epochs = shown, first, epochs
        self.bar, self.epoch, self.batches, self.done, self.seen = None, first, None, 0, 0
        self.drawn = self.told = time.perf_counter()
        self.loss, self.rate = None, 0.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()

    @property
    def name(self):
        return f"epoch {self.epoch + 1}/{self.epochs}"

    def begin(self, epoch, batches, done, tokens):
        """An epoch begins, or goes on, of so many updates (None: nobody knows) of which some are done."""
        self.epoch, self.done, self.seen = epoch, done, tokens
        self.batches = batches or self.batches
        self.told = time.perf_counter()
        self.loss, self.rate = None, 0.0
        if self.bar is None and self.shown and can_draw():
            from tqdm import tqdm  # 30 ms: `import cylstm` has 15

            # The time left is by the mean speed since the beginning: validation and what callbacks do is part of it.
            self.bar = tqdm(total=self.epochs - self.first, initial=self.how_far(), smoothing=0, leave=False,
                            dynamic_ncols=True, bar_format="{desc}", desc=self.name)  # fmt: skip

    def how_far(self) -> float:
        """Epochs of the run that are done."""
        share = min(self.done / self.batches, 1.0) if self.batches else 0.0
        return self.epoch - self.first + share

    def update(self, measured):
        """One update is done. measured : returns (tokens of this epoch, their mean loss so far)."""
        self.done += 1
        now = time.perf_counter()
        if self.bar is None or now - self.drawn < EVERY:
            return
        tokens, loss = measured()
        if tokens and now > self.told:
            self.rate, self.loss = (tokens - self.seen) / (now - self.told), loss
            self.seen, self.told = tokens, now
        self.bar.n, self.bar.desc = self.how_far(), self.name
        self.bar.bar_format = self.layout(self.bar.format_dict["ncols"])
        self.bar.refresh()
        self.drawn = time.perf_counter()

    def layout(self, width) -> str:
        """tqdm's format of the bar: what there is room for in `width` columns (None: any), the most needed first."""
        line = "{desc} {percentage:3.0f}%|{bar}| {remaining} left"
        room = None if width is None else width - len(f"{self.name} 100%|| 00:00:00 left") - LEAST_BAR
        said = [] if self.loss is None else [f", loss {self.loss:.4f}", f", {self.rate:,.0f} tokens/s"]
        if self.batches is None:
            said.insert(0, f", {self.done} batches")
        for text in said:
            if room is not None:
                room -= len(text)
                if room < 0:
                    break
            line += text
        return line

    def end(self, text, seconds):
        """An epoch is over, so many seconds after the run began: say how it went, on a line that stays, and leave the
        next lines to callbacks that print."""
        line, width = f"{self.name}: {text}", None
        self.batches = self.done  # which the next epoch is told by, where nobody knows its number
        if self.bar is not None:
            self.bar.clear()
            line, width = f"{line}, {seconds:.1f} s", self.bar.format_dict["ncols"]
        if self.shown and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # closed, or gone: a run is worth more than its report
                print(folded(line, width), file=sys.stderr, flush=True)
