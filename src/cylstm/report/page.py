"""The page: one file, which asks nothing of any network."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files

from cylstm.checks import file_to_write
from cylstm.report.charts import number
from cylstm.report.sample import sample_of
from cylstm.report.sections import section, tell_inside, tell_outcomes, tell_trained_on, tell_training
from cylstm.summary import precision_of_products
from cylstm.tensor_files import write_atomically
from cylstm.version import __version__

__all__ = ["write"]

# Nothing from elsewhere, whatever a token or a name has in it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
TITLE = "A look inside"


def write(model, path, x=None, y=None, *, lengths=None, ignore=None, missing="error") -> None:
    """Write a page about a model: HTML that needs no other file, no network and no program but a browser.

    path : of the file, which is written atomically.
    x, y, lengths, ignore, missing : data to look at it with, as for `fit`: arrays, or lists of sequences. x may be
        text, for a model with a vocabulary; where that writes tokens, the next ones are the targets if there are no
        others. Without x, the page has what the model itself knows; without y, no losses, tables or forecasts.

    The page has, of what there is: losses, norms of gradients and learning rate, seed, hash and versions of the last
    `fit` (`model.trained`); what comes out (confusion of classes, forecasts with bands); and of a few rows what
    `LSTM.trace` finds: the text coloured by cells and by surprise, cells over time, saturation of gates, time constants
    of forget gates, dead units; and how far back gradients reach. It says what it leaves out.

    Raises TypeError or ValueError, naming the argument, and OSError.
    """
    path = file_to_write("path", path)
    if x is None and (y is not None or lengths is not None):
        raise TypeError("x: expected inputs beside y or lengths, got None")
    program = {}
    if x is not None:
        sample = sample_of(model, x, y, lengths, ignore=ignore, missing=missing)
        parts = [tell_measures(sample), tell_training(model), tell_outcomes(sample), tell_inside(sample, program)]
        parts.insert(1, notes(sample.notes))  # now that they are complete
    else:
        parts = [tell_training(model)]
    parts.append(tell_trained_on(model))
    parts.append(section("The model", f"<div class='wide'><pre>{escape(model.summary())}</pre></div>"))
    write_atomically(path, page(model, "".join(parts), program).encode("utf-8", "xmlcharrefreplace"))


def notes(lines) -> str:
    """What is left out."""
    return "".join(f"<p class='note'>{escape(line)}</p>" for line in lines)


def tell_measures(sample) -> str:
    """The loss, and what else `evaluate` says, in large letters."""
    tiles = {}
    for name, value in sample.measures.items():
        share = name.rpartition(".")[2] == "accuracy"
        tiles["counted" if name == "tokens" else name] = f"{value:.1%}" if share else number(value)
    tiles["steps looked into"] = number(int(sample.lengths.sum()))
    body = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in tiles.items())
    return f"<div class='tiles'>{body}</div>"


def page(model, body, program) -> str:
    """All of the HTML. program: what the page's own program draws."""
    assets = {name: files("cylstm.report").joinpath(f"page.{name}").read_text("utf-8") for name in ("css", "js")}
    # What is told apart by "<" alone, in a script, is written without it.
    data = json.dumps(program, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    H, L = model.lstm.hidden_sizes, model.lstm.num_layers
    widths = "-".join(map(str, H if len(set(H)) > 1 else H[:1]))
    told = (f"LSTM of {L} layer{'s' * (L > 1)}, {widths} units, {model.parameters.size:,} parameters, "
            f"{precision_of_products(model)}; cylstm {__version__}")  # fmt: skip
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{TITLE}</title>
<style>
{assets["css"]}</style>
</head>
<body>
<header><h1>{TITLE}</h1><p>{escape(told)}</p></header>
<noscript><p class="note">Cells over time and the coloured text are drawn by a program in this page, which may not run
here.</p></noscript>
<main>{body}</main>
<script type="application/json" id="data">{data}</script>
<script>
{assets["js"]}</script>
</body>
</html>
"""
