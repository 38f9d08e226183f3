import numpy as np
from typing_extensions import disjoint_base

@disjoint_base
class Linear:
    weight: np.ndarray
    bias: np.ndarray | None
    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, tail: tuple[int, ...]) -> None: ...
    def rows(self, h: np.ndarray, out: np.ndarray | None = None) -> np.ndarray: ...

def description() -> str: ...
def multiply_add(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, transpose_a: bool, transpose_b: bool, alpha: float, beta: float
) -> None: ...
