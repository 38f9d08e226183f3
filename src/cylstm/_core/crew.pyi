import numpy as np
from typing_extensions import disjoint_base

from cylstm._core.layer import Layer
from cylstm.heads import Head
from cylstm.parameters import Parameters

COLUMNS: int

@disjoint_base
class Seat: ...

@disjoint_base
class Crew:
    def __init__(
        self,
        layer: Layer,
        head: Head,
        parameters: Parameters,
        sizes: tuple[int, ...],
        T: int,
        has_ids: bool,
        ragged: bool,
        keep: bool,
    ) -> None: ...
    def run(
        self,
        task: str,
        chosen: np.ndarray,
        flat: np.ndarray,
        x: np.ndarray,
        y: np.ndarray | None,
        lengths: np.ndarray | None,
        orders: np.ndarray,
        starts: np.ndarray,
        order_of: np.ndarray,
        results: np.ndarray,
        head_weight: float = 1.0,
        outputs: np.ndarray | None = None,
        learning: dict | None = None,
    ) -> None: ...
