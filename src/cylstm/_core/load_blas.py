"""Loads OpenBLAS with what it reads from the environment as it is loaded, and never again."""

import os
import sys

from cylstm._core import kernels

# CYLSTM_ISA is for the products of BLAS, too: so they have the same bits on a wider processor.
_CORES = {"baseline": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX", "amx": "SkylakeX"}


def _core() -> str | None:
    """OpenBLAS's name of the processor that its kernels are to be for; None leaves the choice to OpenBLAS."""
    if os.environ.get("OPENBLAS_CORETYPE"):
        return None
    if os.environ.get("CYLSTM_ISA") and "avx2" in kernels.available():
        return _CORES.get(kernels.instruction_set())
    return "NEOVERSEN1" if _has_matrix_extension() else None


def _has_matrix_extension() -> bool:
    """Whether this is Linux on aarch64 with SME, the scalable matrix extension. OpenBLAS's kernels for it have given
    wrong products in release after release (its issues 5414, 5763); 0.3.34's in double precision do wherever streaming
    vectors are not 512 bits wide."""
    if sys.platform != "linux" or os.uname().machine != "aarch64":
        return False
    import ctypes

    capabilities = 26  # AT_HWCAP2 of <elf.h>
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return bool(getauxval(capabilities) >> 23 & 1)  # HWCAP2_SME of <asm/hwcap.h>


_wanted = {"OPENBLAS_NUM_THREADS": "1"}  # starting threads costs an import 12 ms, and the team of threads is in use
if _name := _core():
    _wanted["OPENBLAS_CORETYPE"] = _name
_asked = {name: os.environ.get(name) for name in _wanted}
os.environ.update(_wanted)
try:
    from cylstm._core import blas  # noqa: F401
finally:  # what the caller has set stands for every other library
    for _name, _value in _asked.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value
