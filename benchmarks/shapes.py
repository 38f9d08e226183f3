"""The one list of shapes that every benchmark uses: I inputs, H hidden units, L layers, B rows, T steps."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of one case and who has it."""

    name: str
    I: int
    H: int
    L: int
    B: int
    T: int
    who: str


SHAPES = [
    Shape("toy", 4, 50, 1, 1, 14, "a^n b^n, courses"),
    Shape("audio", 1, 40, 1, 1, 512, "amplifier models"),
    Shape("series", 8, 64, 1, 32, 100, "forecasting, sensors"),
    Shape("hydro", 15, 64, 1, 256, 365, "rainfall-runoff"),
    Shape("char", 65, 128, 2, 50, 50, "char-rnn"),
    Shape("char512", 65, 512, 2, 64, 128, "char-rnn, large"),
    Shape("word", 650, 650, 2, 20, 35, "PTB medium"),
    Shape("word1500", 1500, 1500, 2, 20, 35, "PTB large"),
    Shape("long1", 256, 256, 1, 1, 1000, "one long stream"),
    Shape("long8", 256, 256, 2, 8, 2000, "recordings"),
    Shape("step32", 32, 32, 1, 1, 1, "streaming, one call per step"),
    Shape("step128", 128, 128, 1, 1, 1, "streaming, one call per step"),
    Shape("step256", 256, 256, 1, 1, 1, "streaming, one call per step"),
]

# What the limit is asked of beside the list: series with other H and B.
GRID_H, GRID_B = range(8, 65, 4), (1, 8, 32, 128, 512)
GRID = {(H, B): Shape(f"H{H}B{B}", 8, H, 1, B, 100, "small models") for B in GRID_B for H in GRID_H}

BY_NAME = {shape.name: shape for shape in (*SHAPES, *GRID.values())}
