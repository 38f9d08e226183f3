import numpy as np
from numpy.typing import DTypeLike

LARGEST: int

def aligned_empty(size: int, dtype: DTypeLike) -> np.ndarray: ...
def same_bytes(a: np.ndarray, b: np.ndarray) -> bool: ...
