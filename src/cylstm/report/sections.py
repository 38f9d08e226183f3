"""The parts of the page, each a heading with what belongs under it."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise

import numpy as np

from cylstm.report import inside
from cylstm.report.charts import bars, dots, lines, number
from cylstm.report.follows import best_pairs, pieces_of
from cylstm.report.outcome import outcome_html, visible
from cylstm.report.reach import ENOUGH, reach_of
from cylstm.text.sampling import writes_tokens

__all__ = ["section", "table", "tell_inside", "tell_outcomes", "tell_trained_on", "tell_training"]

LAYERS = 8  # layers and directions with pictures, at most
SHOWN_DEAD = 40
PLOTTED_PAIRS = 6


def section(title, body, words="") -> str:
    """A part of the page, unless it has nothing."""
    if not body:
        return ""
    words = f"<p>{words}</p>" if words else ""
    return f"<section><h2>{escape(title)}</h2>{words}{body}</section>"


def table(heading, rows, kind="") -> str:
    """Of text."""
    head = "".join(f"<th scope='col'>{escape(str(name))}</th>" for name in heading)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    head = f"<thead><tr>{head}</tr></thead>" if heading else ""
    return f"<div class='wide'><table class='{kind}'>{head}<tbody>{body}</tbody></table></div>"


def layer_name(layer) -> str:
    """ "l1_reverse" in words."""
    number, _, reverse = layer[1:].partition("_")
    return f"layer {int(number) + 1}" + ", reverse" * bool(reverse)


# --- training ---------------------------------------------------------------------------------------------------------


def tell_training(model) -> str:
    """What is known of how it was trained: curves, options, versions."""
    trained = model.trained
    if trained is None:
        return section("Training", "<p>Nothing is known of it: the model was not trained by <code>fit</code>, or comes "
                       "from another system, from a checkpoint, or from a file of an older version.</p>")  # fmt: skip
    history, parts = trained.history, []
    if len(history):
        epochs, columns = list(range(1, len(history) + 1)), history.to_dict()
        losses = {"training": (epochs, columns["train_loss"])}
        if history.validation_loss:
            losses["validation"] = (epochs, columns["validation_loss"])
        parts.append(lines("Loss", losses, x_label="epoch", y_label="mean loss"))
        if history.gradient_norm:
            norms = {"mean norm, before clipping": (epochs, columns["gradient_norm"])}
            limit = trained.options.get("clip_norm")
            if isinstance(limit, (int, float)) and limit > 0 and not trained.options.get("clip_each"):
                norms["clipped from here on"] = ([1, max(2, len(history))], [limit, limit])
            parts.append(lines("Norm of the gradients", norms, x_label="epoch", y_label="norm", log_y=True,
                               dashed=("clipped from here on",)))  # fmt: skip
        parts.append(lines("Learning rate", {"rate": (epochs, columns["learning_rate"])}, x_label="epoch",
                           y_label="rate"))  # fmt: skip
        accuracy = {name: (epochs, columns[f"{key}_accuracy"]) for name, key in
                    (("training", "train"), ("validation", "validation"))
                    if any(value is not None for value in columns[f"{key}_accuracy"])}  # fmt: skip
        if accuracy:
            parts.append(lines("Accuracy", accuracy, x_label="epoch", y_label="share of hits"))
        parts.extend(lines(name, {name: (epochs, columns[name])}, x_label="epoch", y_label=name)
                     for name in history.metrics)  # fmt: skip
    best = history.best_epoch
    words = f"{len(history)} epochs" if len(history) != 1 else "One epoch"
    if history.updates and history.updates[-1] is not None:
        words += f", {number(history.updates[-1])} updates"
    if best is not None:
        words += f"; the best one, by {escape(history.watched[0])}, is epoch {best + 1}"
    return section("Training", f"<div class='grid'>{''.join(parts)}</div>", words + ".")


def tell_trained_on(model) -> str:
    """Options, seed, hash, versions, where they are known."""
    if model.trained is None:
        return ""
    names = {"data": "hash of the data", "rows": "rows of data", "tokens": "tokens of data"}
    rows = [(names.get(name, name.replace("_", " ")), option(value))
            for name, value in model.trained.options.items() if value is not None]  # fmt: skip
    return section("What it was trained on, and with", table((), [*rows, *model.trained.machine.items()], "facts"))


def option(value) -> str:
    """As it is typed, cut short."""
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 300 else text[:299] + "…"


# --- inside -----------------------------------------------------------------------------------------------------------


def tell_inside(sample, page) -> str:
    """Gates, time constants, cells over time, what they follow, how far back it learns. page: gets what its program
    needs, by name."""
    layers = sample.layers[:LAYERS]
    if len(sample.layers) > LAYERS:
        sample.notes.append(f"Pictures are of the first {LAYERS} of {len(sample.layers)} layers and directions.")
    return "".join((tell_follows(sample, page), tell_heat(sample, layers, page), tell_gates(sample, layers),
                    tell_constants(sample, layers), tell_reach(sample), tell_dead(sample)))  # fmt: skip


def tell_gates(sample, layers) -> str:
    rows, pictures = [], []
    for layer in layers:
        found = inside.saturation(sample, layer)
        for gate, (low, high, mean) in found.items():
            rows.append((layer_name(layer), {"i": "input", "f": "forget", "o": "output"}[gate], f"{mean:.2f}",
                         f"{low.mean():.0%}", f"{high.mean():.0%}"))  # fmt: skip
            pictures.append(dots(f"{layer_name(layer)}: {gate}", high, low, x_label="share of time above 0.9",
                                 y_label="below 0.1", kind=f"s{'ifo'.index(gate)}", square=True))  # fmt: skip
    words = ("A point is a unit: how much of the time its gate is nearly open (> 0.9), and nearly shut (< 0.1). On the "
             "line it is always one or the other, a switch; in the corner below, it is never either.")  # fmt: skip
    if sample.model.lstm.cell.activations is not None:
        words += f" Gates are functions of their own here: {escape(str(sample.model.lstm.cell.all_activations))}."
    heading = ("layer", "gate", "mean", "time below 0.1", "time above 0.9")
    return section("Gates", f"<div class='grid small'>{''.join(pictures)}</div>{table(heading, rows)}", words)


def tell_constants(sample, layers) -> str:
    pictures, rows = [], []
    edges = [0, *(2.0**n for n in range(14)), math.inf]
    for layer in layers:
        tau = inside.time_constants(sample, layer)
        counts = [int(((tau >= low) & (tau < high)).sum()) for low, high in pairwise(edges)]
        counts[-1] += int(np.isinf(tau).sum())
        last = max([4, *(k + 1 for k, count in enumerate(counts) if count)])
        labels = [number(edge) if edge else "<1" for edge in edges[:last]]
        pictures.append(bars(layer_name(layer), counts[:last], labels, x_label="steps, from ... on", y_label="units"))
        rows.append((layer_name(layer), number(float(np.median(tau))), number(float(tau.max())), int(tau.argmax())))
    words = ("After so many steps 1/e of what a cell has is left, by its forget gate: -1 / mean(log f). What comes in "
             "anew and what goes out has no part in it.")  # fmt: skip
    cell = sample.model.lstm.cell
    if cell.layer_norm is not None and cell.norm[0]:
        words += " Here cells are normalised at each step besides, so that it is no more than a hint."
    heading = ("layer", "median, steps", "longest, steps", "which unit")
    return section("How long cells remember", f"<div class='grid'>{''.join(pictures)}</div>{table(heading, rows)}",
                   words)  # fmt: skip


def tell_heat(sample, layers, page) -> str:
    maps = [one for one in inside.heat_maps(sample) if one.layer in layers]
    page["heat"] = {"steps": int(sample.lengths[0]), "maps": [
        {"name": layer_name(one.layer), "units": one.units, "parts": {
            part: {"data": data, "scales": scales} for part, (data, scales) in one.parts.items()}}
        for one in maps]}  # fmt: skip
    cut = [one for one in maps if len(one.units) < one.hidden]
    words = (f"The first row, {int(sample.lengths[0]):,} steps from left to right; slow units above, fast ones below. "
             "Cells are coloured by tanh(c), which is what they let out through an open gate.")  # fmt: skip
    if cut:
        words += f" Of each layer {len(cut[0].units)} units, evenly spaced between the slowest and the fastest."
    body = """<div class='controls'><label>layer <select id='heat-layer'></select></label>
<label>show <select id='heat-part'></select></label><output id='heat-told'>point at it</output></div>
<div class='wide'><canvas id='heat' role='img' aria-label='cells over time'></canvas></div>
<div class='scale'><span>-1</span><i></i><span>1</span></div>"""
    return section("Cells over time", body, words)


def tell_dead(sample) -> str:
    rows = []
    for layer in sample.layers:
        dead = inside.dead_units(sample, layer).tolist()
        units = sample.trace[f"h_{layer}"].shape[-1]
        more = ", …" if len(dead) > SHOWN_DEAD else ""
        rows.append((layer_name(layer), f"{len(dead)} of {units}", ", ".join(map(str, dead[:SHOWN_DEAD])) + more))
    words = f"Those whose h stays within a range of {inside.DEAD} at all steps that were looked at."
    return section("Dead units", table(("layer", "dead", "which"), rows), words)


def tell_reach(sample) -> str:
    reach = reach_of(sample)
    title = "How far back it learns"
    if isinstance(reach, str):
        return section(title, f"<p>Not shown. {escape(reach)}</p>")
    lags = reach.lags.tolist()
    series = {f"{layer_name(layer)}, {part}": (lags, norms[:, n]) for layer, norms in reach.norms.items()
              for n, part in enumerate("ch")}  # fmt: skip
    body = lines("Gradient of the loss at one step by c and h before", series, x_label="steps before", log_x=True,
                 y_label="norm", log_y=True)  # fmt: skip
    told = (f"{number(reach.horizon)} steps back it is below {ENOUGH:.0%} of what it is one step back."
            if reach.horizon else f"It is above {ENOUGH:.0%} of that one step back as far as was looked, "
            f"{lags[-1]} steps.")  # fmt: skip
    words = (f"The loss at a step, and its gradient by what the layers held so many steps before: the mean over "
             f"{reach.ends} steps, with whatever training drops. {told}")  # fmt: skip
    if sample.model.bidirectional:
        words += " It is of the forward direction, in rows that end with that step."
    return section(title, f"<div class='one'>{body}</div>", words)


# --- what cells follow ------------------------------------------------------------------------------------------------


def tell_follows(sample, page) -> str:
    pairs, steps = best_pairs(sample), int(sample.lengths[0])
    rows = [(pair.what, f"{layer_name(pair.layer)}, unit {pair.unit}", f"{pair.r:+.2f}") for pair in pairs]
    listed = table(("what", "the cell that follows it best", "correlation"), rows)
    count = f"{int(sample.real.sum()):,}"
    words = (f"Of everything on the list, the cell whose c has the largest correlation with it over {count} steps. "
             "Among many cells some follow anything by chance, the more so the fewer steps there are.")  # fmt: skip
    if sample.ids:
        words += " In the text a cell is red where its c is above its mean, and blue where it is below."
        return section("What cells follow", follows_text(sample, pairs, steps, page) + listed, words)
    x, pictures = list(range(steps)), []
    for pair in pairs[:PLOTTED_PAIRS]:
        cell = sample.trace[f"c_{pair.layer}"][0, :steps, pair.unit].astype(float)
        cell = math.copysign(1, pair.r) * centred(cell)
        series = {pair.what: (x, centred(pair.values[0, :steps])), "cell": (x, cell)}
        turned = ", turned over" * (pair.r < 0)
        pictures.append(lines(f"{pair.what} and {layer_name(pair.layer)}, unit {pair.unit}{turned}: r = {pair.r:+.2f}",
                              series, x_label="step of the first row", y_label="in deviations"))  # fmt: skip
    return section("What cells follow", f"<div class='grid'>{''.join(pictures)}</div>{listed}" if pairs else "", words)


def centred(values):
    """With mean 0 and deviation 1, if they have one."""
    return (values - values.mean()) / (values.std() or 1)


def follows_text(sample, pairs, steps, page) -> str:
    """The first row's tokens, to be coloured by the page's program."""
    ids, vocabulary = sample.x[0, :steps], sample.model.vocabulary
    pieces = pieces_of(vocabulary, ids) if vocabulary is not None else [f"{n} " for n in ids.tolist()]
    marks = []
    if sample.surprise is not None:
        bits, y = sample.surprise[0, :steps], sample.part.targets[""].y[0, :steps]
        if np.array_equal(y[:-1], ids[1:]):  # what was to come is the next token, which is what surprises
            bits = np.concatenate([[np.nan], bits[:-1]])
        told = [None if math.isnan(value) else round(float(value), 2) for value in bits]
        mean = float(np.nanmean(sample.surprise))
        marks.append({"name": f"surprise, in bits (mean {mean:.2f})", "bits": told})
    for pair in pairs:
        cell = sample.trace[f"c_{pair.layer}"][:1, :steps, pair.unit].astype(float)
        data, (scale,) = inside.as_bytes(cell - cell.mean())
        marks.append({"name": f"{pair.what}: {layer_name(pair.layer)}, unit {pair.unit}, r = {pair.r:+.2f}",
                      "data": data, "scale": scale, "mean": float(f"{cell.mean():.6g}")})  # fmt: skip
    if not marks:
        return ""
    shown = [visible(vocabulary.tokens[n]) if vocabulary is not None else str(n) for n in ids.tolist()]
    page["text"] = {"pieces": pieces, "shown": shown, "marks": marks}
    return """<div class='controls'><label>colour by <select id='text-mark'></select></label>
<output id='text-told'>point at a token</output></div><div id='text' class='text'></div>"""


# --- outcomes ---------------------------------------------------------------------------------------------------------


def tell_outcomes(sample) -> str:
    """A part for each head."""
    parts = []
    for name, head in sample.model.heads.items():
        classes = head.loss.of_classes or head.loss.says in ("binary", "labels")
        title = ("Confusion" if classes else "Forecasts") + f": {name}" * bool(name)
        if head.loss.of_classes and writes_tokens(sample.model) and sample.model.vocabulary is not None:
            title = "Confusion of tokens"
        parts.append(section(title, outcome_html(sample, name)))
    return "".join(parts)
