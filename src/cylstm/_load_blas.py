"""Loads OpenBLAS without its threads: starting them costs an import 12 ms, and the team of _pool is the one in use."""

import os

# OpenBLAS reads this as it is loaded, and never again: what the caller has set stands for every other library.
_VARIABLE = "OPENBLAS_NUM_THREADS"
_asked = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = "1"
try:
    from cylstm import _blas  # noqa: F401
finally:
    if _asked is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = _asked
