"""kernels.def for Cython: the two tables of kernels.h, and for each kernel an inline function that picks the type.

setup.py calls write() before each build. Names and the order of arguments come from kernels.def alone.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
TYPES = {"ptrdiff_t": "Py_ssize_t", "cylstm_step": "Step"}  # the others have the same name in Cython
ENTRY = re.compile(r"^(?:TILE_)?KERNEL\((\w+), (\w+), \((.*?)\)\)$", re.MULTILINE | re.DOTALL)
HEAD = "# Made from cext/kernels.def by cext/declarations.py.\n\n"


def kernels():
    """(result, name, [(type, argument)]) of each kernel, in Cython's words but for CYLSTM_REAL."""
    text = re.sub(r"/\*.*?\*/", "", (HERE / "kernels.def").read_text(), flags=re.DOTALL)
    for result, name, arguments in ENTRY.findall(text):
        pairs = []
        for argument in re.sub(r"\s+", " ", arguments).split(", "):
            words, variable = re.fullmatch(r"(.*?)(\w+)", argument).groups()
            words = [TYPES.get(word, word) for word in words.split()]
            pairs.append((" ".join(words).replace(" *", "*"), variable))
        yield result, name, pairs


def declarations():
    yield 'cdef extern from "kernels.h" nogil:'
    for bits, real in ((32, "float"), (64, "double")):
        yield f'    ctypedef struct Table{bits} "cylstm_table_f{bits}":'
        yield "        Py_ssize_t lanes"
        for result, name, arguments in kernels():
            types = ", ".join(kind for kind, _ in arguments)
            yield f"        {result} (*{name})({types}) noexcept nogil".replace("CYLSTM_REAL", real)
        yield ""
    yield '    ctypedef struct Kernels "cylstm_kernels":'
    yield from ("        const char* isa", "        Table32 f32", "        Table64 f64", "")
    for result, name, arguments in kernels():
        given = ", ".join(f"{kind} {variable}" for kind, variable in arguments).replace("CYLSTM_REAL", "real")
        passed = ", ".join(variable for _, variable in arguments)
        typed = "CYLSTM_REAL" in "".join(kind for kind, _ in arguments)
        back = "" if result == "void" else "return "
        # Where no argument says which of the two it is, the caller does.
        yield f"cdef inline {result.replace('CYLSTM_REAL', 'real')} {name}(const Kernels* k, " + (
            f"{given}) noexcept nogil:" if typed else f"bint doubles, {given}) noexcept nogil:"
        )
        yield f"    {'if real is double' if typed else 'if doubles'}:"
        yield f"        {back}k.f64.{name}({passed})"
        yield "    else:"
        yield f"        {back}k.f32.{name}({passed})"
        yield ""


def write(path):
    """Anew only where it has changed: Cython compiles what is newer."""
    text = HEAD + "\n".join(declarations())
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
