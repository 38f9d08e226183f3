"""The job's own lines of each script: `python -m examples.count`.

All lines of code count but imports, the docstring at the top, the statement that loads the data, those that print the
figures, and the picture: a function of that name, and the call that has it drawn. None is longer than 100 characters,
and none has two statements: where one does, counting is refused.
"""

import ast
from pathlib import Path

JOBS = ("forecast", "series", "vowels", "distortion", "many_models", "policy", "language")
LIBRARIES = {"cylstm": "", "Keras": "keras"}
FOLDER = Path(__file__).parent
LONGEST = 100


def script(job, library):
    """The path of a job's script."""
    return FOLDER / LIBRARIES[library] / f"{job}.py"


def left_out(statement) -> bool:
    """Whether a statement at the top imports, loads, prints or draws, or is a docstring."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    if isinstance(statement, ast.FunctionDef):
        return statement.name == "picture"
    names = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    if isinstance(statement, ast.Expr) and (isinstance(statement.value, ast.Constant) or names[0] == "print"):
        return True
    return "loading" in names


def docstrings(tree) -> set[int]:
    """The lines of docstrings, anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.update(range(node.lineno, node.end_lineno + 1))
    return found


def own_lines(path) -> int:
    """How many lines of a script are the job's own. ValueError for what is no honest line."""
    text = path.read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    counted = set()
    for statement in tree.body:
        if not left_out(statement):
            counted.update(range(statement.lineno, statement.end_lineno + 1))
    counted -= docstrings(tree)
    begins = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    for number in sorted(counted):
        line = lines[number - 1].split("  # ")[0]
        if len(line) > LONGEST or begins.count(number) > 1:
            raise ValueError(f"{path.name}:{number}: expected one statement in {LONGEST} characters, got {line!r}")
    return sum(bool(lines[n - 1].strip()) and not lines[n - 1].lstrip().startswith("#") for n in counted)


if __name__ == "__main__":
    for job in JOBS:
        print(job, *(f"{library} {own_lines(script(job, library))}" for library in LIBRARIES))
