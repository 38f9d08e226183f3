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
    scale: float = 0.0,
    dh: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
) -> tuple[float, int]: ...
def scatter_add_rows(out: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None: ...
def sum_squares(flat: np.ndarray) -> float: ...
def scale_inplace(flat: np.ndarray, factor: float) -> None: ...
def sgd(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray | None,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    gscale: float,
) -> None: ...
def adam(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    gscale: float,
) -> None: ...
