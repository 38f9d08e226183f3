import numpy as np

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
def activate(activation: str | tuple, z: np.ndarray, y: np.ndarray) -> None: ...
def activate_backward(activation: str | tuple, z: np.ndarray, d: np.ndarray) -> None: ...
