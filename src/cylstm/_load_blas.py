"""Loads OpenBLAS with what it reads from the environment as it is loaded, and never again."""

import os

from cylstm import _kernels

# CYLSTM_ISA is for the products of BLAS, too: so they have the same bits on a wider processor.
_CORES = {"baseline": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX", "amx": "SkylakeX"}

_wanted = {"OPENBLAS_NUM_THREADS": "1"}  # starting threads costs an import 12 ms, and the team of _pool is in use
if os.environ.get("CYLSTM_ISA") and "avx2" in _kernels.available() and not os.environ.get("OPENBLAS_CORETYPE"):
    _wanted["OPENBLAS_CORETYPE"] = _CORES[_kernels.instruction_set()]
_asked = {name: os.environ.get(name) for name in _wanted}
os.environ.update(_wanted)
try:
    from cylstm import _blas  # noqa: F401
finally:  # what the caller has set stands for every other library
    for _name, _value in _asked.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value
