import numpy as np

from cylstm._steps import Plan

class Weights:
    L: int
    D: int
    H: int
    Hp: int
    dtype: np.dtype
    buffer: np.ndarray
    users: int
    def __init__(self, I: int, H: int, L: int, D: int, bias: bool, dtype: np.dtype) -> None: ...
    def current(self) -> bool: ...
    def pack(self, flat: np.ndarray) -> None: ...
    def holds(self, flat: np.ndarray) -> bool: ...
    def pack_for_backward(self, flat: np.ndarray) -> None: ...

class Tape:
    weights: Weights
    x: np.ndarray | None
    ids: np.ndarray | None
    masks: np.ndarray | None
    memory: np.ndarray
    keep: bool
    joined: bool
    used: bool
    @property
    def nbytes(self) -> int: ...
    @property
    def dropout_masks(self) -> list[np.ndarray] | None: ...
    def take(self) -> None: ...

def forward(
    weights: Weights,
    plan: Plan,
    x: np.ndarray | None,
    ids: np.ndarray | None,
    h0: np.ndarray,
    c0: np.ndarray,
    masks: np.ndarray | None,
    keep: bool,
    y: np.ndarray,
    hn: np.ndarray,
    cn: np.ndarray,
) -> Tape | None: ...
def backward(
    tape: Tape,
    dy: np.ndarray,
    dhn: np.ndarray | None,
    dcn: np.ndarray | None,
    dh0: np.ndarray,
    dc0: np.ndarray,
    dflat: np.ndarray,
) -> np.ndarray | None: ...
