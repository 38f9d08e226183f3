"""kernels.def for Cython: the two tables of kernels.h, for each kernel an inline function that picks the type, and the
row losses, which have one type of function, by their names.

setup.py calls write() before each build. Names and the order of arguments come from kernels.def alone.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
# The others have the same name in Cython.
TYPES = {"ptrdiff_t": "Py_ssize_t", "cylstm_step": "Step", "cylstm_activation": "Activation", "cylstm_norm": "Norm"}
ENTRY = re.compile(r"^(?:TILE_)?KERNEL\((\w+), (\w+), \((.*?)\)\)$", re.MULTILINE | re.DOTALL)
ROW_LOSS = re.compile(r"^ROW_LOSS\((\w+)\)$", re.MULTILINE)
DEFINITION = re.compile(r"^#define ROW_LOSS\(name\)\s+(KERNEL\(.*?\)\))$", re.MULTILINE | re.DOTALL)
REALS = ((32, "float"), (64, "double"))
HEAD = "# Made from cext/kernels.def by cext/declarations.py.\n\n"


def definitions():
    """kernels.def without its comments and line ends."""
    text = re.sub(r"/\*.*?\*/", "", (HERE / "kernels.def").read_text(), flags=re.DOTALL)
    return text.replace("\\\n", "")


def kernels():
    """(result, name, [(type, argument)]) of each kernel, in Cython's words but for CYLSTM_REAL."""
    text = definitions()
    of_row_losses = DEFINITION.search(text).group(1)
    text = ROW_LOSS.sub(lambda entry: of_row_losses.replace(" name,", f" {entry.group(1)},"), text)
    for result, name, arguments in ENTRY.findall(text):
        pairs = []
        for argument in re.sub(r"\s+", " ", arguments).split(", "):
            words, variable = re.fullmatch(r"(.*?)(\w+)", argument).groups()
            words = [TYPES.get(word, word) for word in words.split()]
            pairs.append((" ".join(words).replace(" *", "*"), variable))
        yield result, name, pairs


def declarations():
    yield from ("from libc.string cimport strcmp", "")
    yield 'cdef extern from "kernels.h" nogil:'
    for bits, real in REALS:
        yield f'    ctypedef struct Table{bits} "cylstm_table_f{bits}":'
        yield from ("        Py_ssize_t lanes", "        int cut_forms")
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


def row_losses():
    """A pair of functions, found by a kernel's name, and the call of the one for a type."""
    names = ROW_LOSS.findall(definitions())
    [arguments] = [arguments for _, name, arguments in kernels() if name == names[0]]
    types = ", ".join(kind for kind, _ in arguments)
    given = ", ".join(f"{kind} {variable}" for kind, variable in arguments).replace("CYLSTM_REAL", "real")
    passed = ", ".join(variable for _, variable in arguments)
    yield "cdef struct RowLoss:  # both NULL: none"
    yield from (f"    double (*f{bits})({types}) noexcept nogil".replace("CYLSTM_REAL", real) for bits, real in REALS)
    yield ""
    yield "cdef inline RowLoss row_loss_named(const Kernels* k, const char* name) noexcept nogil:"
    yield "    cdef RowLoss found"
    yield "    found.f32, found.f64 = NULL, NULL"
    for name in names:
        yield f'    if strcmp(name, "{name}") == 0:'
        yield f"        found.f32, found.f64 = k.f32.{name}, k.f64.{name}"
    yield from ("    return found", "")
    yield f"cdef inline double row_loss(RowLoss loss, {given}) noexcept nogil:"
    yield from ("    if real is double:", f"        return loss.f64({passed})")
    yield from ("    else:", f"        return loss.f32({passed})")


def write(path):
    """Anew only where it has changed: Cython compiles what is newer."""
    text = HEAD + "\n".join([*declarations(), *row_losses(), ""])
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
