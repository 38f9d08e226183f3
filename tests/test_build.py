"""What setup.py asks of compilers that are not at hand. It needs the source tree, which tests of a wheel lack."""

import runpy
import shutil
import sys
import sysconfig
from pathlib import Path

import Cython.Build
import pytest
import setuptools

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function: what setup.py defines, and what it tells setup(), on a platform of macOS, where it needs no OpenBLAS.

    From a copy, since it writes beside itself.
    """
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / "cext", tmp_path / "cext")
    for folder in ("include", "_core"):
        (tmp_path / "src" / "cylstm" / folder).mkdir(parents=True)
    told = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: told.update(arguments))
    monkeypatch.setattr(Cython.Build, "cythonize", lambda extensions, **_: extensions)

    def ask(platform):
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(sysconfig, "get_platform", lambda: platform)
        defined = runpy.run_path(str(tmp_path / "setup.py"))
        return defined, told

    return ask


def flags_of_sets(libraries):
    return {name.removeprefix("cylstm_"): options["cflags"] for name, options in libraries}


@pytest.mark.parametrize("platform", ["macosx-11.0-universal2", "macosx-11.0-arm64", "macosx-10.13-x86_64"])
def test_on_macos_every_flag_of_one_processor_says_so(asked, platform):
    """A universal interpreter builds for two at once, and ARCHFLAGS can ask that of any."""
    flags = flags_of_sets(asked(platform)[1]["libraries"])
    assert {"baseline", "avx2", "avx512"} <= flags.keys() and "amx" not in flags
    for name in flags:
        for before, flag in zip(["", *flags[name]], flags[name], strict=False):
            assert not flag.startswith("-m") or before == "-Xarch_x86_64"
    assert "-mavx2" in flags["avx2"] and "-mavx512f" in flags["avx512"]


@pytest.mark.parametrize(
    ("platform", "sets"),
    [
        ("linux-x86_64", ["baseline", "avx2", "avx512", "amx"]),
        ("linux-aarch64", ["baseline"]),  # also where a compiler on x86-64 makes it
        ("win-amd64", ["baseline", "avx2", "avx512"]),
        ("win-arm64", ["baseline"]),
        ("mingw_x86_64_ucrt", ["baseline", "avx2", "avx512"]),
    ],
)
def test_the_instruction_sets_are_those_of_the_platform_built_for(asked, platform, sets):
    isa_flags = asked("macosx-11.0-arm64")[0]["isa_flags"]
    assert list(isa_flags(platform)) == sets
    assert all(flag.startswith("-m") for flags in isa_flags(platform).values() for flag in flags)


def test_no_compiler_makes_multiply_adds_of_its_own(asked):
    _, told = asked("macosx-11.0-arm64")
    compiled = [options["cflags"] for _, options in told["libraries"]]
    compiled += [extension.extra_compile_args for extension in told["ext_modules"]]
    assert len(compiled) > 15 and all("-ffp-contract=off" in flags for flags in compiled)
