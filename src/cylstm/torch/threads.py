"""Beside torch, calls run on torch's threads: its OpenMP threads go on spinning for a while after work of their own,
and a team of others would have to share the processors with them."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch

from cylstm._core import team

__all__ = ["borrow_torchs"]


def borrow_torchs() -> bool:
    """Whether they could be had: torch's wheels for Linux bring GNU's OpenMP along. Elsewhere, cylstm's own threads go
    on."""
    if sys.platform != "linux":
        return False
    for library in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        openmp = ctypes.CDLL(str(library))  # loaded already, by torch
        functions = openmp.GOMP_parallel, openmp.omp_get_thread_num, openmp.omp_get_num_threads
        team.borrow(*(ctypes.cast(function, ctypes.c_void_p).value for function in functions))
        return True
    return False
