"""`cylstm classify CSV`: the sequences of a table, a model of their labels, a picture, and a table of what it finds."""

from __future__ import annotations

import csv
import io
from collections import Counter

import numpy as np

from cylstm.cli.classifier import Classifier
from cylstm.cli.sequences import Sequences, columns_of, expect_same, read_sequences
from cylstm.cli.series import listed
from cylstm.cli.tables import Table
from cylstm.model import Model
from cylstm.scaling import Scaler
from cylstm.tensor_files import write_atomically
from cylstm.training.optim import AdamW

__all__ = ["held_out", "run_classify"]

TEST, VALIDATION = 0.2, 0.15  # shares of the sequences of each label; the latter of those that are left
PATIENCE = 20
SHOWN = 12  # labels of a matrix that is printed


def run_classify(args, say, progress) -> None:
    """Read, learn, test and write, or find the labels of new sequences. say : prints. progress : as for `fit`."""
    table = Table(args.csv, args.decimal, ragged=True)
    if args.model:
        find(args, table, say)
    else:
        learn(args, table, say, progress)


def learn(args, table, say, progress) -> None:
    """A new classifier."""
    columns, left = columns_of(table, args)
    found = read_sequences(table, columns, learning=True)
    names = names_of(table, found)
    lengths = [len(row) for row in found.rows]
    steps = f"{min(lengths)} to {max(lengths)} steps" if min(lengths) < max(lengths) else f"{lengths[0]} steps"
    features = f" of {len(columns.features)} features ({listed(columns.features)})" if args.group else ""
    counts = Counter(found.labels)
    say(f"{table.path}: {len(found.rows):,} sequences of {steps}{features}")
    say(f"labels in {args.label!r}: {told([f'{name!r} {counts[name]:,}' for name in names])}")
    if left:
        say(f"left out: {listed(left)}")
    order = {name: n for n, name in enumerate(names)}
    places = np.array([order[label] for label in found.labels])
    seed = args.seed or 0
    rng = np.random.default_rng(seed)
    rest, test = held_out(np.arange(len(places)), places, args.test_fraction or TEST, rng)
    training, validation = held_out(rest, places, VALIDATION, rng)
    scaler = Scaler().fit([found.rows[n] for n in rest])
    model = Model(len(scaler.center), args.hidden or 64, len(names), labels=names, bidirectional=True, output="last",
                  seed=seed)  # fmt: skip
    classifier = Classifier(model, scaler, columns)
    x, y = classifier.inputs(found.rows), np.array(found.labels)

    def part(chosen):
        return [x[n] for n in chosen], y[chosen]

    history = model.fit(*part(training), validation=part(validation) if len(validation) else None, patience=PATIENCE,
                        epochs=args.epochs or 100, optimizer=AdamW(5e-3), seed=seed, progress=progress)  # fmt: skip
    best = history.best_epoch + 1
    on = f" on {len(validation):,} others" if len(validation) else ""
    say(f"learnt from {len(training):,} sequences; epoch {best} of {len(history)} was the best{on}")
    outcome = picked(found, test)
    probabilities = classifier.predict_proba(outcome.rows)
    matrix = confusion(outcome.labels, probabilities, names)
    common = counts.most_common(1)[0][0]
    say(f"test, with {len(test):,} more: {verdict(matrix, names, common)}")
    classifier.save(args.out)
    write_atomically(args.table, as_table(outcome, probabilities, names, columns))
    if args.picture:
        from cylstm.cli.pictures import matrix_and_curves

        title = f"{table.path}: {np.trace(matrix) / matrix.sum():.1%} of {len(test):,} sequences found"
        loss = model.evaluate(*part(test))["loss"]
        matrix_and_curves(args.picture, matrix, names, history, title, loss)
    say(f"wrote {', '.join(filter(None, (args.out, args.table, args.picture)))}")
    if not args.picture:
        say("no picture: pip install 'cylstm[plot]'")


def find(args, table, say) -> None:
    """The labels of new sequences, and how many are right where the table says."""
    classifier = Classifier.load(args.model)
    found = read_sequences(table, expect_same(table, classifier.columns))
    names = list(classifier.model.labels)
    probabilities = classifier.predict_proba(found.rows)
    right = ""
    if found.labels is not None:
        for label, line in zip(found.labels, found.lines.tolist(), strict=True):
            if label not in names:
                raise table.error(
                    line, f"a label of the model ({listed(names)})", repr(label), classifier.columns.label
                )
        matrix = confusion(found.labels, probabilities, names)
        right = f": {verdict(matrix, names, Counter(found.labels).most_common(1)[0][0])}"
    say(f"{table.path}, {len(found.rows):,} sequences{right}")
    write_atomically(args.table, as_table(found, probabilities, names, classifier.columns))
    say(f"wrote {args.table}")


def names_of(table, found) -> list[str]:
    """The labels in order, numbers by size. Raises ValueError for one that is there once, or alone."""
    counts = Counter(found.labels)
    if len(counts) < 2:
        raise ValueError(f"{table.path}: expected at least two labels, got {listed(counts)} alone")
    label, count = min(counts.items(), key=lambda item: item[1])
    if count < 2:
        line = int(found.lines[found.labels.index(label)])
        raise table.error(line, "at least two sequences of each label, one to learn from and one to test with",
                          f"one of {label!r}")  # fmt: skip
    try:
        return sorted(counts, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(counts)


def held_out(indices, places, fraction, rng) -> tuple[np.ndarray, np.ndarray]:
    """Some of these rows, and the others: a share of those of each place, but one at least, where there are two."""
    kept = []
    for place in np.unique(places[indices]):
        own = rng.permutation(indices[places[indices] == place])
        kept.append(own[: min(max(1, round(fraction * len(own))), len(own) - 1)])
    kept = np.sort(np.concatenate(kept))  # of a place with one row, none
    return np.setdiff1d(indices, kept), kept


def picked(found, chosen) -> Sequences:
    """Some of them."""
    groups = None if found.groups is None else [found.groups[n] for n in chosen]
    return Sequences([found.rows[n] for n in chosen], found.lines[chosen], [found.labels[n] for n in chosen], groups)


# --- what is said and written -----------------------------------------------------------------------------------------


def told(parts) -> str:
    """Some, and how many there are."""
    return ", ".join(parts[:SHOWN]) + (f", ... ({len(parts)})" if len(parts) > SHOWN else "")


def confusion(labels, probabilities, names) -> np.ndarray:
    """(K, K): of each label how often each was found."""
    places = {name: n for n, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, ([places[label] for label in labels], probabilities.argmax(axis=1)), 1)
    return matrix


def verdict(matrix, names, common) -> str:
    """The share that is right, beside that of one label for all; and the matrix, where it is small."""
    right, total = int(np.trace(matrix)), int(matrix.sum())
    always = int(matrix[names.index(common)].sum())
    better = "" if right > always else "NO BETTER than that: "
    text = f"{better}{right / total:.1%} right ({right:,} of {total:,}); always {common!r} has {always / total:.1%}"
    if len(names) > SHOWN:
        return text
    width = max(6, *(len(name) + 2 for name in names))
    lines = [f"{'is / found':{width + 4}}" + "".join(f"{name:>{width}}" for name in names)]
    lines += [f"{name:{width + 4}}" + "".join(f"{count:>{width}}" for count in row)
              for name, row in zip(names, matrix.tolist(), strict=True)]  # fmt: skip
    return "\n".join([text, *lines])


def as_table(found, probabilities, names, columns) -> bytes:
    """CSV: a line of each sequence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["line", *(["sequence"] if found.groups else []), *(["label"] if found.labels else []), "found"]
    writer.writerow([*header, *(f"p({name})" for name in names)])
    for n, row in enumerate(probabilities):
        known = [*([found.groups[n]] if found.groups else []), *([found.labels[n]] if found.labels else [])]
        writer.writerow([found.lines[n], *known, names[int(row.argmax())], *(f"{p:.6g}" for p in row)])
    return text.getvalue().encode()
