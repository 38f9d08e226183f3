import numpy as np

from cylstm._layer import Layer, Tape

def packed_lengths(sizes: np.ndarray, N: int) -> np.ndarray | None: ...

class Module(Layer):
    def __init__(self, I: int, H: int, L: int, D: int, bias: bool, dtype) -> None: ...
    def run(
        self,
        x: np.ndarray,
        h: np.ndarray | None,
        c: np.ndarray | None,
        addresses: list[int],
        batch_first: bool,
        lengths: np.ndarray | None,
        masks: np.ndarray | None,
        resets: np.ndarray | None,
        keep: bool,
        most: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tape | None]: ...
