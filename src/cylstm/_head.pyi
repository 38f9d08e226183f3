import numpy as np

KINDS: dict[str, int]

def linear(h: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray: ...
def loss(
    kind: str,
    h: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    targets: np.ndarray,
    *,
    spare: list | None = None,
    scale: float = 0.0,
    dh: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
) -> tuple[float, int]: ...
