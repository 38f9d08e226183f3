"""The kernels as C code sees them: the tables of include/kernels.h, through ctypes."""

import ctypes
import re
from pathlib import Path

import cylstm
from cylstm._core import kernels

HEADER = re.sub(r"/\*.*?\*/", "", Path(cylstm.get_include(), "kernels.def").read_text(), flags=re.DOTALL)

PANELS, TILES, ROWS, NARROW = 0, 1, 2, 13  # forms of weights; ROWS: as their owner has them
KERNELS = re.findall(r"^(?:(?:TILE_)?KERNEL\(\w+, |ROW_LOSS\()(\w+)", HEADER, re.MULTILINE)
TILE_KERNELS = set(re.findall(r"TILE_KERNEL\(\w+, (\w+),", HEADER))


class Table(ctypes.Structure):
    _fields_ = [
        ("lanes", ctypes.c_ssize_t),
        ("cut_forms", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in KERNELS),
    ]


class Kernels(ctypes.Structure):
    _fields_ = [("isa", ctypes.c_char_p), ("float32", Table), ("float64", Table)]


pointer = ctypes.pythonapi.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
select = ctypes.CFUNCTYPE(ctypes.POINTER(Kernels), ctypes.c_char_p)(
    pointer(kernels.select, b"cylstm._core.kernels.select")
)


def lanes(isa, dtype):
    return getattr(select(isa.encode()).contents, dtype).lanes


def cut_forms(isa, dtype):
    bits = getattr(select(isa.encode()).contents, dtype).cut_forms
    return {form for form in range(32) if bits >> form & 1}


def addresses(isa, dtype):
    """Of each kernel, by its name; None for NULL."""
    table = getattr(select(isa.encode()).contents, dtype)
    return {name: getattr(table, name) for name in KERNELS}


def call(isa, dtype, name, *arguments):
    """One kernel that returns nothing; arrays go in by their addresses, floats as double, None as NULL."""
    kinds = {int: ctypes.c_ssize_t, float: ctypes.c_double, ctypes.c_float: ctypes.c_float}
    kinds = [kinds.get(type(argument), ctypes.c_void_p) for argument in arguments]
    values = [argument.ctypes.data if hasattr(argument, "ctypes") else argument for argument in arguments]
    address = getattr(getattr(select(isa.encode()).contents, dtype), name)
    ctypes.CFUNCTYPE(None, *kinds)(address)(*values)
