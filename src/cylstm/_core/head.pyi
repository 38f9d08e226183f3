import numpy as np

from cylstm._core.small_matrix import SmallMatrix
from cylstm.losses import Loss

def linear(
    h: np.ndarray, weight: np.ndarray | SmallMatrix, bias: np.ndarray | None, rounded: bool = False
) -> np.ndarray: ...
def loss(
    kind: Loss,
    h: np.ndarray,
    weight: np.ndarray | SmallMatrix,
    bias: np.ndarray | None,
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    groups: int = 1,
    spare: list | None = None,
    scale: float = 0.0,
    dh: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
    rounded: bool = False,
) -> tuple[float, float, float]: ...
