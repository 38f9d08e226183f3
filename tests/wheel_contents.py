"""python tests/wheel_contents.py WHEEL SDIST: what the one must hold and must not; the other, all sources."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

MOST = 10_000_000  # bytes
ROOT = Path(__file__).parent.parent
SOURCES = [
    *ROOT.glob("src/cylstm/**/*.py"), *ROOT.glob("src/cylstm/**/*.p[yx][xdi]"),
    *ROOT.glob("src/cylstm/report/*.*"), *ROOT.glob("cext/**/*.*"),
    *ROOT.glob("tests/**/*.*"),
    *ROOT.glob("benchmarks/*.py"), *ROOT.glob("fuzz/*.*"), *ROOT.glob("examples/**/*.py"),
    *ROOT.glob("docs/**/*.*"), ROOT / "src/cylstm/include/cylstm.h",
    *(ROOT / name for name in ("setup.py", "conftest.py", "pyproject.toml", "README.md", "LICENSE", "SECURITY.md")),
]  # fmt: skip


def check_wheel(path):
    """One BLAS, no OpenMP, no sources that only the build needs, at most MOST bytes."""
    names = zipfile.ZipFile(path).namelist()
    blas = [name for name in names if "blas" in name.lower() and ".so" in name and "cylstm/_core/blas" not in name]
    assert len(blas) == 1, blas
    assert not [name for name in names if "gomp" in name or "iomp" in name], names
    assert not [name for name in names if name.endswith((".c", ".pyx"))], names
    page = "report/page.css", "report/page.js"
    for needed in ("calls.pxd", "include/cylstm.h", "include/kernels.h", "include/kernels.def", "py.typed", *page):
        assert f"cylstm/{needed}" in names, needed
    assert Path(path).stat().st_size <= MOST, Path(path).stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(path).extractall(folder)
        for library in Path(folder).rglob("*.so*"):
            needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
            assert "gomp" not in needed and "iomp" not in needed, library
    print(f"{Path(path).name}: {Path(path).stat().st_size / 1e6:.1f} MB, {len(names)} files, BLAS: {blas[0]}")


def check_sdist(path):
    """Every source file of this tree."""
    with tarfile.open(path) as archive:
        held = {name.split("/", 1)[-1] for name in archive.getnames()}
    missing = [str(source.relative_to(ROOT)) for source in SOURCES if str(source.relative_to(ROOT)) not in held]
    made = (".so", ".c.orig", "_declared.pxi")
    missing = [name for name in missing if "__pycache__" not in name and not name.endswith(made)]
    assert not missing, missing
    print(f"{Path(path).name}: {Path(path).stat().st_size / 1e6:.1f} MB, {len(SOURCES)} sources")


if __name__ == "__main__":
    check_wheel(sys.argv[1])
    check_sdist(sys.argv[2])
