import numpy as np

def loss(
    logits: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    labels: np.ndarray,
    ends: np.ndarray,
    blank: int,
    gradient: np.ndarray | None = None,
) -> np.ndarray: ...
def align(
    logits: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    labels: np.ndarray,
    ends: np.ndarray,
    blank: int,
) -> tuple[np.ndarray, np.ndarray]: ...
def best_path(
    logits: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    blank: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...
