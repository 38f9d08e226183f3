"""What is compiled, and with which flags. Everything else about the project stands in pyproject.toml."""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib

ROOT = Path(__file__).parent
PACKAGE = ROOT / "src" / "cylstm"
DEBUG = os.environ.get("CYLSTM_DEBUG") == "1"  # bounds checks, no optimisation
SANITIZE = os.environ.get("CYLSTM_SANITIZE", "")  # "address,undefined" or "thread"
EMULATE = os.environ.get("CYLSTM_EMULATE", "")  # "amx": in AVX-512 (cext/product/tiles_emulated.h), for tests
MACOS = sys.platform == "darwin"

checks = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g1"] if SANITIZE else []
if EMULATE not in ("", "amx"):
    raise SystemExit(f"CYLSTM_EMULATE: expected 'amx', got {EMULATE!r}")
checks += ["-DCYLSTM_EMULATED_TILES"] if EMULATE else []
# Sanitizers make ten times as much of code at -O3, which takes a quarter of an hour to compile.
flags = ["-std=gnu11", "-O1" if DEBUG or SANITIZE else "-O3", "-g" if DEBUG else "-g0", "-fno-math-errno", *checks]
# A kernel whose arguments are not those of kernels.def must not compile.
flags.append("-Werror=incompatible-pointer-types")
# cext/vector.h says where a multiply and an add are one instruction: compilers differ, by version and by loop.
flags.append("-ffp-contract=off")
if sys.platform == "linux":
    checks.append("-pthread")  # a library of its own in glibc before 2.34
    flags.append("-pthread")
link_flags = [*checks, *(["-static"] if sys.platform == "win32" else [])]  # MinGW's own libraries
if sys.platform == "linux" and not (DEBUG or SANITIZE or "--inplace" in sys.argv):
    link_flags.append("-Wl,-s")  # no names of functions in a wheel: 7 % of each module

if MACOS:
    accelerate = [*link_flags, "-framework", "Accelerate"]
    blas = {"define_macros": [("CYLSTM_ACCELERATE", None)], "extra_link_args": accelerate}
else:
    import scipy_openblas32 as openblas

    # The build environment is gone when the extension is loaded: the library travels inside the package, and
    # the extension finds it next to itself.
    vendored = PACKAGE / "_openblas"
    vendored.mkdir(exist_ok=True)
    (ROOT / "build").mkdir(exist_ok=True)
    for pattern in ("*.so*", "*.dll", "*.lib"):
        for library in Path(openblas.get_lib_dir()).glob(pattern):
            # In another folder at first: a process that runs the package now has the file of before.
            copy = shutil.copyfile(library, ROOT / "build" / library.name)
            if sys.platform == "linux" and shutil.which("strip"):  # names that nothing is linked by: 0.9 MB
                subprocess.run(["strip", "--strip-unneeded", copy], check=True)
            shutil.move(copy, vendored / library.name)
    for file in metadata.files("scipy-openblas32"):
        if file.name == "LICENSE.txt":
            shutil.copyfile(file.locate(), vendored / file.name)
    blas = {
        "libraries": [openblas.get_library()],
        "library_dirs": [str(vendored)],
        "extra_link_args": [*link_flags, *([] if sys.platform == "win32" else ["-Wl,-rpath,$ORIGIN/../_openblas"])],
    }

# The kernels' contract goes along for C code of others (cylstm.get_include()).
for header in ("kernels.h", "kernels.def"):
    shutil.copyfile(ROOT / "cext" / header, PACKAGE / "include" / header)

runpy.run_path(str(ROOT / "cext" / "declarations.py"))["write"](PACKAGE / "_core" / "kernels_declared.pxi")


def isa_flags(platform):
    """The instruction sets to build, and each one's flags, for a platform in sysconfig's words.

    On macOS one call of the compiler may make code for two processors: there x86-64's flags say whose they are, and its
    sources are empty for the other.
    """
    sets, macos = {"baseline": []}, platform.startswith("macosx")
    if macos or "x86_64" in platform or "amd64" in platform:
        sets["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
        sets["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"]
    if platform == "linux-x86_64":
        sets["amx"] = [*sets["avx512"], *([] if EMULATE == "amx" else ["-mamx-tile", "-mamx-bf16", "-mamx-int8"])]
    if macos:
        sets = {name: [part for flag in own for part in ("-Xarch_x86_64", flag)] for name, own in sets.items()}
    return sets


# Of the platform that is built for, which need not be the one that this runs on.
ISA_FLAGS = isa_flags(sysconfig.get_platform())

# Neither objects nor generated sources know which switches made them: other switches than last time build all anew.
switches = f"debug={DEBUG} sanitize={SANITIZE} emulate={EMULATE}"
stamp = ROOT / "build" / "switches"
REBUILD = not stamp.exists() or stamp.read_text() != switches
stamp.parent.mkdir(exist_ok=True)
stamp.write_text(switches)


def kernel_library(isa):
    """A static library of the kernels for one instruction set, with that set's flags and no other's."""
    headers = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "cext").rglob("*.[hd]*"))]
    source = f"cext/isa/{isa}.c"
    return f"cylstm_{isa}", {"sources": [source], "cflags": flags + ISA_FLAGS[isa], "obj_deps": {"": headers}}


pool_headers = [f"cext/{name}.h" for name in ("pool", "crowd", "processors")]
pool = ("cylstm_pool", {"sources": ["cext/pool.c"], "cflags": flags, "obj_deps": {"": pool_headers}})
table = ["cext/kernels.h", "cext/kernels.def"]
dispatch = ("cylstm_dispatch", {"sources": ["cext/dispatch.c"], "cflags": flags, "obj_deps": {"": table}})


def extension(name, **options):
    options.setdefault("extra_link_args", link_flags)
    sources = [f"src/cylstm/{name.replace('.', '/')}.pyx"]
    options.setdefault("define_macros", []).append(("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"))
    include = ["cext", numpy.get_include()]
    depends = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "cext").rglob("*.*"))]  # with the libraries
    return Extension(
        f"cylstm.{name}", sources, include_dirs=include, depends=depends, extra_compile_args=flags, **options
    )


CORE = (
    "kernels",
    "memory",
    "interrupt",
    "ragged",
    "team",
    "packed_rows",
    "apart",
    "forward",
    "backward",
    "gradients",
    "small_matrix",
    "packed_weights",
    "tile_range",
    "packing",
    "highway",
    "network",
    "arena",
    "arguments",
    "places",
    "masks",
    "layer",
    "tape",
    "torch_layer",
    "head",
    "updates",
    "many",
    "crew",
    "ctc",
    "ctc_beam",
)
MODULES = (*(f"_core.{name}" for name in CORE), "calls", "torch._call")
SHARED = "cylstm._core.cython_shared"  # what Cython would write into each of them: memory views, above all
shared = f"src/{SHARED.replace('.', '/')}.c"  # which cythonize() writes


class BuildLibraries(build_clib):
    """Side by side, as `parallel` does for extensions: each instruction set takes half a minute."""

    def build_libraries(self, libraries):
        for name, _ in libraries:  # made anew: ar would keep objects of sources that are there no more
            Path(self.build_clib, self.compiler.library_filename(name)).unlink(missing_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda library: build_clib.build_libraries(self, [library]), libraries))


setup(
    cmdclass={"build_clib": BuildLibraries},
    options={"build_ext": {"parallel": os.cpu_count(), "force": REBUILD}, "build_clib": {"force": REBUILD}},
    libraries=[dispatch, pool, *(kernel_library(isa) for isa in ISA_FLAGS)],
    ext_modules=cythonize(
        [
            Extension(SHARED, [shared], extra_compile_args=flags, extra_link_args=link_flags),
            extension("_core.blas", **blas),
            *(extension(n) for n in MODULES),
        ],
        include_path=["src"],
        shared_utility_qualified_name=SHARED,
        force=REBUILD,
        nthreads=0 if sys.platform == "win32" else os.cpu_count(),
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "embedsignature": True,
            "auto_pickle": False,  # what holds pointers cannot be copied; LSTM and Model say how they are
            "freethreading_compatible": True,
        },
    ),
)
