"""Every block of Python in the README and the manual is run: those of a page in turn, in an empty folder."""

import os
import tempfile

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

# Before NumPy is imported: beside other programs the threads of its BLAS wait for one another in loops, and what layers
# begin with, QR factors of small matrices, then takes a hundred times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def enter(namespace):
    namespace["before"], namespace["folder"] = os.getcwd(), tempfile.TemporaryDirectory()
    os.chdir(namespace["folder"].name)


def leave(namespace):
    os.chdir(namespace["before"])
    namespace["folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["README.md", "docs/*.md"], setup=enter, teardown=leave
).pytest()
