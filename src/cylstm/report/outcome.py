"""What comes out beside what was to come out: tables of classes, and fans of numbers."""

from __future__ import annotations

from html import escape

import numpy as np

from cylstm.report.charts import dots, lines, number
from cylstm.report.inside import evenly

__all__ = ["outcome_html", "visible"]

CLASSES = 20  # of a table, at most
NUMBERS = 4  # of a target, at most
FANS = 3  # of a horizon
ROW_STEPS = 300  # of a forecast along a row
INSTEAD = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "": "∅"}
BAND = (5, 95)  # percentiles


def visible(token) -> str:
    """A token as it can be seen in a table."""
    if isinstance(token, bytes):
        token = token.decode("ascii") if token.isascii() and token.decode("ascii").isprintable() else f"0x{token.hex()}"
    token = "".join(INSTEAD.get(letter, letter) for letter in str(token)) or INSTEAD[""]
    return token if len(token) <= 14 else token[:13] + "…"


def outcome_html(sample, name) -> str:
    """The pictures of one head."""
    outcome = sample.outcomes.get(name)
    if outcome is None:
        return of_labels(sample, name)
    head = outcome.head
    if head.loss.of_classes:
        return confusion(outcome.targets, head.loss.decide(outcome.outputs), names_of(sample.model, head))
    if head.loss.says == "binary":
        return of_binary(outcome)
    return forecasts(sample, name, outcome)


# --- classes ----------------------------------------------------------------------------------------------------------


def names_of(model, head) -> list[str]:
    """What each class is called."""
    if head.labels is not None:
        return [visible(label) for label in head.labels]
    if model.vocabulary is not None and len(model.vocabulary) == head.output_size:
        return [visible(token) for token in model.vocabulary.tokens]
    return [str(n) for n in range(head.output_size)]


def confusion(targets, found, names) -> str:
    """A table of targets (N,) by what was found (N,): the commonest classes, and all others together."""
    counts = np.bincount(targets, minlength=len(names)) + np.bincount(found, minlength=len(names))
    used = np.flatnonzero(counts)
    chosen = used if len(used) <= CLASSES else used[np.argsort(-counts[used], kind="stable")][:CLASSES]
    place = np.full(len(names), len(chosen))
    place[chosen] = np.arange(len(chosen))
    shown = [names[n] for n in chosen] + ["others"] * (len(used) > len(chosen))
    table = np.zeros((len(chosen) + 1, len(chosen) + 1), np.int64)
    np.add.at(table, (place[targets], place[found]), 1)
    table = table[: len(shown), : len(shown)]
    text = f"{(targets == found).mean():.1%} of {len(targets):,} are right."
    if len(used) > len(chosen):
        text += (f" Of {len(used):,} classes the {len(chosen)} commonest have a row; of the others, rights and wrongs "
                 "are in one.")  # fmt: skip
    return f"<p>{text} Shades are shares of a row: of what it was, what was found.</p>" + matrix(table, shown)


def matrix(table, names) -> str:
    """Counts, target by target."""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names)
    rows = []
    for name, row in zip(names, table, strict=True):
        total = max(1, int(row.sum()))
        cells = "".join(f"<td style='--v:{count / total:.3f}'>{count or ''}</td>" for count in row.tolist())
        rows.append(f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>")
    return (f"<div class='wide'><table class='matrix'><thead><tr><th>target \\ found</th>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>")  # fmt: skip


def of_binary(outcome) -> str:
    """A table of no and yes for each output."""
    O, parts = outcome.outputs.shape[1], []
    if not np.isfinite(outcome.targets).any():
        return "<p>No target is there.</p>"
    labels = outcome.head.labels or ("no", "yes")
    for n in range(min(O, NUMBERS * 2)):
        targets = outcome.targets[:, n]
        there = np.isfinite(targets)
        told, found = (targets[there] > 0.5).astype(int), (outcome.outputs[there, n] > 0).astype(int)
        table = np.zeros((2, 2), np.int64)
        np.add.at(table, (told, found), 1)
        right = f"{(told == found).mean():.1%} of {len(told):,} are right." if len(told) else "no target is there."
        title = f"Output {n}: " * (O > 1) + right
        parts.append(f"<div><p>{title}</p>{matrix(table, [visible(label) for label in labels])}</div>")
    more = f"<p>The first {len(parts)} of {O} outputs.</p>" if len(parts) < O else ""
    return f"{more}<div class='grid'>{''.join(parts)}</div>"


def of_labels(sample, name) -> str:
    """Of CTC: the labels of a few rows, found and to be found."""
    head, dataset = sample.model.heads[name], sample.dataset
    if dataset is None:
        return ""
    part = dataset.part(np.arange(min(5, sample.rows)))
    ends = None if part.plan is None else part.plan.lengths
    found = sample.model.predict(part.x, lengths=ends)
    found, targets = found[name] if name else found, part.targets[name].y
    text = names_of(sample.model, head)
    rows = "".join(
        f"<tr><td>{escape(' '.join(text[k] for k in told))}</td><td>{escape(' '.join(map(str, given)))}</td></tr>"
        for told, given in zip(targets, found, strict=True)
    )
    head = "<thead><tr><th>target</th><th>found</th></tr></thead>"
    return f"<div class='wide'><table>{head}<tbody>{rows}</tbody></table></div>"


# --- numbers ----------------------------------------------------------------------------------------------------------


def spread(outcome):
    """What is foretold (N, F), and its lower and upper end, and in words what those are: of the model where it says so,
    otherwise of its own errors here, which are taken per step of a horizon."""
    loss, outputs = outcome.head.loss, outcome.outputs.astype(np.float64)
    if loss.says == "quantiles":
        Q = len(loss.quantiles)
        low, high = outputs[:, ::Q], outputs[:, Q - 1 :: Q]
        middle = outputs[:, int(np.abs(np.array(loss.quantiles) - 0.5).argmin()) :: Q]
        return middle, low, high, f"the quantiles {loss.quantiles[0]:g} to {loss.quantiles[-1]:g} as the model has them"
    middle = loss.decide(outputs)
    if loss.name == "gaussian":
        deviation = loss.deviation(outputs)
        words = "two deviations either way, as the model has them"
        return middle, middle - 2 * deviation, middle + 2 * deviation, words
    groups = outcome.head.groups
    error = (outcome.targets - middle).reshape(-1, groups, middle.shape[1])
    error = np.where(np.isnan(error).all(axis=0), 0, error)  # a number that no target has
    low, high = np.nanpercentile(error, BAND, axis=0)
    low, high = (middle + np.tile(part, (len(error), 1)) for part in (low, high))
    words = f"where {BAND[1] - BAND[0]} % of the errors on these data lie; the model itself says nothing of them"
    return middle, low, high, words


def forecasts(sample, name, outcome) -> str:
    """Fans of numbers: along a horizon, along the first row, or, of rows with one target each, target by forecast."""
    head, targets = outcome.head, outcome.targets.astype(np.float64)
    if not np.isfinite(targets).any():
        return "<p>No target is there.</p>"
    middle, low, high, words = spread(outcome)
    F, k = middle.shape[1], head.groups
    error = middle - targets
    text = (f"<p>Mean absolute error {number(np.nanmean(np.abs(error)))}, root of the mean square "
            f"{number(np.sqrt(np.nanmean(error**2)))}, over {np.isfinite(error).sum():,} numbers. ")  # fmt: skip
    parts = []
    for n in range(min(F, NUMBERS)):
        told = f", number {n}" * (F > 1)
        if k > 1:
            starts, x = evenly(len(middle) // k, FANS), list(range(1, k + 1))
            for place, start in enumerate(starts.tolist()):
                rows = slice(start * k, start * k + k)
                series = {"target": (x, targets[rows, n]), "forecast": (x, middle[rows, n])}
                parts.append(lines(f"Forecast {place + 1} of {len(starts)}{told}", series, x_label="steps ahead",
                                   y_label="value", bands=[(x, low[rows, n], high[rows, n])]))  # fmt: skip
        elif head.per_row:
            parts.append(dots(f"Rows{told}", targets[:, n], middle[:, n], x_label="target", y_label="forecast",
                              diagonal=True))  # fmt: skip
        else:
            steps = min(int(sample.lengths[0]), ROW_STEPS)
            x, rows = list(range(steps)), slice(0, steps)
            series = {"target": (x, targets[rows, n]), "forecast": (x, middle[rows, n])}
            parts.append(lines(f"The first row{told}", series, x_label="step", y_label="value",
                               bands=[(x, low[rows, n], high[rows, n])]))  # fmt: skip
    if k > 1 or not head.per_row:
        text += f"The band is {words}."
    more = f" The first {NUMBERS} of {F} numbers." if F > NUMBERS else ""
    return f"{text}{more}</p><div class='grid'>{''.join(parts)}</div>"
