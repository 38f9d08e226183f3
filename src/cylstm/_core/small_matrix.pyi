import numpy as np
from typing_extensions import disjoint_base

SMALL_FORMS: dict[str | None, int]

@disjoint_base
class Panels: ...

@disjoint_base
class SmallMatrix:
    O: int
    F: int
    stored: np.ndarray
    def __init__(self, precision: str, stored: np.ndarray, scales: np.ndarray | None) -> None: ...

def expanded(stored: np.ndarray) -> np.ndarray: ...
