"""The manual: sphinx-build -W docs FOLDER, with cylstm installed (pip install . --group docs)."""

import re

import cylstm

project = "cylstm"
author = copyright = "the cylstm developers"
version = release = cylstm.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
nitpicky = True
suppress_warnings = ["myst.xref_missing"]  # the README's links to files of the repository
nitpick_ignore_regex = [("py:.*", ".*")]  # types of NumPy's and the standard library's: no network to look them up in
html_theme = "furo"
html_title = f"cylstm {version}"
html_static_path = []
ARGUMENT = re.compile(r"^(\w+(?:, \w+)*) : (.*)$")


def arguments_as_definitions(app, what, name, thing, options, lines):
    """Our short form, `name : what it is`, continued on indented lines, as a list of definitions."""
    if "----------" in lines:  # NumPy's form, which napoleon knows
        return
    after_argument = False
    for n, line in enumerate(lines):
        found = ARGUMENT.match(line)
        if found:
            start = "" if after_argument or n == 0 or not lines[n - 1] else "\n"
            lines[n] = f"{start}``{found[1]}``\n    {found[2]}"
        elif after_argument and line and not line.startswith(" "):
            lines[n] = "\n" + line
        after_argument = bool(found) or (after_argument and line.startswith(" "))
    lines[:] = "\n".join(lines).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", arguments_as_definitions, priority=400)
