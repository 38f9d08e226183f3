import numpy as np
from typing_extensions import disjoint_base

from cylstm.small_parameters import SmallParameters

SMALL_FORMS: dict[str | None, int]

@disjoint_base
class SmallMatrix:
    O: int
    F: int
    stored: np.ndarray
    def __init__(self, parameters: SmallParameters, name: str) -> None: ...
