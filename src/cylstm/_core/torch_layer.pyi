import numpy as np
from typing_extensions import disjoint_base

from cylstm._core.layer import Layer
from cylstm._core.tape import Tape

def packed_lengths(sizes: np.ndarray, N: int) -> np.ndarray | None: ...

@disjoint_base
class Module(Layer):
    def __init__(
        self, I: int, H: int, L: int, D: int, bias: bool, P: int, dtype, rounded: bool = False, small=None
    ) -> None: ...
    def run(
        self,
        x: np.ndarray,
        h: np.ndarray | None,
        c: np.ndarray | None,
        addresses: list[int] | None,
        batch_first: bool,
        lengths: np.ndarray | None,
        masks: np.ndarray | None,
        resets: np.ndarray | None,
        keep: bool,
        most: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tape | None]: ...
    def backward(  # type: ignore[override]  # of another kind of call than the layer's
        self,
        tape: Tape,
        dy: np.ndarray | None,
        dh: np.ndarray | None,
        dc: np.ndarray | None,
        input_gradient: bool,
        batch_first: bool,
        most: int,
    ) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, list[np.ndarray]] | None: ...
