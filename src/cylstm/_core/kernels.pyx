"""Which instruction set the kernels run on, and the elementwise kernels for the tests that measure their error."""

import os

import numpy as np

from cpython.pycapsule cimport PyCapsule_New

from cylstm.activations import numbers_of

cdef const Kernels* in_use = NULL
cdef int forms = 0

# Units of the processor that products take in the place of what every processor of the instruction set has.
UNITS = {"bfloat16_dot": BFLOAT16_DOT, "bfloat16_tiles": BFLOAT16_TILES, "int8_dot": INT8_DOT, "int8_tiles": INT8_TILES}


cdef const Kernels* active() noexcept nogil:
    return in_use


cdef int forms_in_use() noexcept nogil:
    return forms


def units():
    """Which of UNITS products in bfloat16 and int8 take."""
    return [name for name, form in UNITS.items() if forms >> form & 1]


def use_units(names=None):
    """Let layers made from now on take these of UNITS alone, or with None all that the kernels in use have."""
    global forms
    cdef int found = cylstm_forms_of(in_use)
    wanted = UNITS if names is None else names
    for name, form in UNITS.items():
        if name not in wanted:
            found &= ~(1 << <int>form)
    forms = found
    return units()


def use(isa=None):
    """Select the kernels of one instruction set for every call from now on, and return its name.

    `isa` is "baseline" (SSE2 or NEON), "avx2", "avx512" or "amx"; None takes the widest that this processor has.
    The environment variable CYLSTM_ISA does the same at import. Raises ValueError for a set that is unknown or
    that this processor lacks. Results differ between sets in the last bits.
    """
    global in_use
    cdef bytes name
    cdef const Kernels* found
    if isa is None:
        found = cylstm_select(NULL)
    else:
        name = str(isa).encode()
        found = cylstm_select(name)
    if found == NULL:
        raise ValueError(f"isa: expected one of {', '.join(map(repr, available()))} on this processor, got {isa!r}")
    in_use = found
    use_units()
    return instruction_set()


def available():
    """The instruction sets that this processor can run, narrowest first."""
    cdef int n = 0
    found = []
    while cylstm_available(n) != NULL:
        found.append(cylstm_available(n).isa.decode())
        n += 1
    return found[::-1]


def instruction_set():
    """The name of the instruction set in use: "baseline", "avx2", "avx512" or "amx"."""
    return in_use.isa.decode()


cdef Activation activation_of(given) except *:
    cdef Activation found
    found.kind, found.alpha, found.beta, found.low, found.high = numbers_of(given)
    return found


def elementwise(str function, real[::1] x):
    """exp, sigmoid or tanh of a contiguous vector, by the kernels in use."""
    y = np.empty(x.shape[0], dtype=np.float32 if real is float else np.float64)
    cdef real[::1] out = y
    if x.shape[0] == 0:
        return y
    if function == "exp":
        map_exp(in_use, x.shape[0], &x[0], &out[0])
    elif function == "sigmoid":
        map_sigmoid(in_use, x.shape[0], &x[0], &out[0])
    elif function == "tanh":
        map_tanh(in_use, x.shape[0], &x[0], &out[0])
    else:
        raise ValueError(f"function: expected 'exp', 'sigmoid' or 'tanh', got {function!r}")
    return y


# For include/cylstm.h: how C code of other packages gets at the kernels.
select = PyCapsule_New(<void*>cylstm_select, "cylstm._core.kernels.select", NULL)

try:
    use(os.environ.get("CYLSTM_ISA") or None)
except ValueError as error:
    raise ValueError(f"CYLSTM_ISA{str(error).removeprefix('isa')}") from None
