"""Parts of cext/ that the tests compile by themselves, to look at what no Python call shows."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CEXT = Path(__file__).parents[1] / "cext"
COMPILER = shutil.which(os.environ.get("CC", "cc"))


def compiled(folder, source) -> ctypes.CDLL:
    """A library of C source that includes what it likes of cext/, made in a folder; the test is skipped where there is
    no compiler, or only an installed package."""
    if not CEXT.exists() or COMPILER is None:
        pytest.skip("needs the source and a C compiler")
    (folder / "part.c").write_text(source)
    library = folder / "part.so"
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-pthread", f"-I{CEXT}", "-o", library, folder / "part.c"], check=True
    )
    return ctypes.CDLL(library)
