from numpy.typing import ArrayLike
from typing_extensions import disjoint_base

from cylstm._core.layer import Layer

@disjoint_base
class Call:
    @property
    def layer(self) -> Layer: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def training(self) -> bool: ...
    def __init__(
        self,
        layer: Layer,
        batch_size: int,
        steps: int,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        training: bool = False,
    ) -> None: ...
    def refresh(self) -> None: ...
