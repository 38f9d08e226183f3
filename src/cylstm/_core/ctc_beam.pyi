import numpy as np

MOST_PREFIXES: int

def search(
    logits: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    blank: int,
    width: int,
    wanted: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
