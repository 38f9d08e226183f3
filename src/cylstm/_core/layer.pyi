from collections.abc import Sequence
from typing import TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import disjoint_base

from cylstm._core.tape import Tape
from cylstm.cell import CellType
from cylstm.drops import Drops
from cylstm.parameters import Parameters
from cylstm.state import Gradients, State

_States = TypeVar("_States", bound=Sequence[State])

@disjoint_base
class Layer:
    input_size: int
    hidden_size: int
    num_layers: int
    num_directions: int
    h_size: int
    output_size: int
    dtype: np.dtype
    parameters: Parameters
    dropout: float
    drops: Drops
    embedded: bool
    rounded: bool
    rng: np.random.Generator
    def __init__(
        self,
        I: int,
        H: int | tuple[int, ...],
        L: int,
        D: int,
        cell: CellType,
        dropout: float,
        dtype,
        parameters: Parameters,
        rng: np.random.Generator,
    ) -> None: ...
    def _drop(self, name: str, value) -> None: ...
    def __call__(
        self,
        x: ArrayLike,
        state: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[np.ndarray, State]: ...
    def forward(
        self,
        x: ArrayLike,
        state: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[np.ndarray, State, Tape]: ...
    @overload
    def step(
        self, x_t: ArrayLike, state: State | None, *, rows: ArrayLike | None = None, out: State | None = None
    ) -> tuple[np.ndarray, State]: ...
    @overload
    def step(
        self, x_t: ArrayLike, state: _States, *, rows: None = None, out: None = None
    ) -> tuple[np.ndarray, _States]: ...
    def initial_state(self, batch_size: int = 1) -> State: ...
    def backward(
        self,
        tape: Tape,
        dy: ArrayLike,
        dstate: State | None = None,
        *,
        out: Parameters | None = None,
        input_gradient: bool = True,
    ) -> Gradients: ...
