"""The error of labels that CTC finds: by a table as textbooks have it, row by row."""

import math

import numpy as np
import pytest

from cylstm import Head, Model, label_metrics, loss_and_gradients, metrics
from cylstm.losses import CTC

I, H, O, B, T = 3, 7, 5, 7, 12
LENGTHS = np.array([12, 5, 3, 9, 1, 12, 7])
LABELS = [[1, 2, 2, 3], [3], [], [1, 3, 1, 2, 4], [2], [4, 3, 2, 1], [1, 2, 3]]


def table(found, wanted):
    """The whole table of edit distances (Wagner & Fischer 1974), one number after the other."""
    d = [[i + j if 0 in (i, j) else None for j in range(len(wanted) + 1)] for i in range(len(found) + 1)]
    for i, f in enumerate(found):
        for j, w in enumerate(wanted):
            d[i + 1][j + 1] = min(d[i][j] + (f != w), d[i][j + 1] + 1, d[i + 1][j] + 1)
    return d[-1][-1]


def made(loss="ctc", **options):
    """A model that finds labels, if wrong ones."""
    model = Model(I, H, O, **{"loss": loss, "dtype": "float64", "seed": 3, "bidirectional": True, **options})
    model.parameters["head.weight"][:] *= 15
    return model


def by_hand(model, x, labels=LABELS, weights=None, **options):
    """Edits over wanted labels, of what `predict` finds."""
    found, weights = model.predict(x, **options), np.ones(len(labels)) if weights is None else weights
    edits = [table(list(row), list(wanted)) for row, wanted in zip(found, labels, strict=True)]
    assert sum(edits) > 0 and len({*map(len, found)}) > 2
    return np.dot(weights, edits) / np.dot(weights, [len(row) for row in labels])


@pytest.mark.parametrize("letters", [2, 5, 30])
def test_distances_are_those_of_a_table(rng, letters):
    rows = [[rng.integers(0, letters, rng.integers(0, longest)) for _ in range(60)] for longest in (9, 14)]
    expected = [table(*pair) for pair in zip(*rows, strict=True)]
    for found, wanted in (rows, rows[::-1]):
        np.testing.assert_array_equal(label_metrics.edit_distances(found, wanted), expected)


def test_distances_of_words_and_of_nothing():
    words = ["kitten", "sitting", "", "abc", "", "intention", "flaw"], ["sitting", "kitten", "ab", "", "", "execution",
             "lawn"]  # fmt: skip
    found, wanted = ([np.array([ord(letter) for letter in word]) for word in row] for row in words)
    assert list(label_metrics.edit_distances(found, wanted)) == [3, 3, 2, 3, 0, 5, 2]
    assert list(label_metrics.edit_distances(found[4:5] * 2, wanted[3:5])) == [0, 0]  # no label anywhere


@pytest.mark.parametrize("form", ["plain", "lengths", "list", "mask", "batches"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blank", [0, 4])
def test_edits_over_labels(rng, form, weighted, blank):
    model, labels = made(CTC(blank=blank)), [np.array(row, int) - (blank == 4) for row in LABELS]
    x, weights = rng.standard_normal((B, T, I)), np.array([1, 3, 0.5, 0, 2, 0.25, 1]) if weighted else np.ones(B)
    mask, options, data = np.arange(T)[::-1] < LENGTHS[:, None], {}, (x, labels)
    if form == "lengths":
        options = {"lengths": LENGTHS}
    elif form == "mask":
        options = {"mask": mask}
    elif form != "plain":
        data = [row[keep] for row, keep in zip(x, mask, strict=True)], labels
    expected = by_hand(model, data[0], labels, weights, **options)
    if weighted:
        options["sample_weight"] = weights
    if form == "batches":
        parts = [slice(0, 3), slice(3, 4), slice(4, 7)]
        data = ([dict(x=data[0][p], y=labels[p], sample_weight=weights[p]) for p in parts],)
        options = {}
    for size in (3, 256):
        found = model.evaluate(*data, **options, metrics=["label_error"], batch_size=size)
        assert found["label_error"] == pytest.approx(expected, rel=1e-12)


def test_one_sequence_alone_and_names_in_the_place_of_numbers(rng):
    names = ["-", "a", "b", "c", "d"]
    model, x = made(labels=names), rng.standard_normal((B, T, I))
    labels = [[names[n] for n in row] for row in LABELS]
    expected = by_hand(model, x, labels)
    assert model.evaluate(x, labels, metrics=["label_error"])["label_error"] == pytest.approx(expected, rel=1e-12)
    found = model.evaluate(x[3], labels[3], metrics=["label_error"])["label_error"]
    assert found == pytest.approx(table(list(model.predict(x[3])), labels[3]) / 5, rel=1e-12)


def test_it_is_watched_after_each_epoch(rng):
    x, seen = rng.standard_normal((B, T, I)), []
    for validation in (None, (x[:4], LABELS[:4])):
        model, data = made(), validation or (x, LABELS)
        seen = []
        keep = lambda event, model=model, data=data, seen=seen: event.kind == "epoch" and seen.append(by_hand(  # noqa: E731
            model, *data))  # fmt: skip
        history = model.fit(x, LABELS, epochs=4, validation=validation, metrics=["label_error"], monitor="label_error",
                            progress=False, callbacks=[keep])  # fmt: skip
        assert history.metrics["label_error"] == pytest.approx(seen, rel=1e-12)
        assert history.watched == ("label_error", "min") and history.best_epoch == np.argmin(seen)


def test_of_one_of_several_heads(rng):
    heads = {"said": Head(O, loss="ctc"), "mood": Head(2, loss="mse", output="last")}
    model, x = Model(I, H, heads, dtype="float64", seed=3), rng.standard_normal((B, T, I))
    model.parameters["head.said.weight"][:] *= 15
    y = {"said": LABELS, "mood": rng.random((B, 2))}
    asked = {"said": ["label_error"], "mood": ["mae"]}
    found = model.evaluate(x, y, lengths=LENGTHS, metrics=asked, batch_size=3)
    edits = [table(list(row), wanted) for row, wanted in zip(model.predict(x, lengths=LENGTHS)["said"], LABELS,
                                                             strict=True)]  # fmt: skip
    assert found["said.label_error"] == pytest.approx(sum(edits) / sum(map(len, LABELS)), rel=1e-12)
    apart = np.abs(model(x, lengths=LENGTHS)[0]["mood"] - y["mood"]).mean()
    assert found["mood.mae"] == pytest.approx(apart, rel=1e-12)


def test_a_function_gets_the_labels_of_each_row_that_counts(rng):
    model, x, seen = made(), rng.standard_normal((B, T, I)), {}
    weights = np.array([1, 3, 0.5, 0, 2, 0.25, 1])

    def exact(wanted, found, sample_weight):
        seen.update(wanted=wanted, found=found, weights=sample_weight)
        return np.mean([list(a) == list(b) for a, b in zip(wanted, found, strict=True)])

    options = dict(lengths=LENGTHS, sample_weight=weights, batch_size=2, metrics=[exact])
    assert model.evaluate(x, LABELS, **options)["exact"] < 1
    predicted = model.predict(x, lengths=LENGTHS)
    expected = [(LABELS[n], list(predicted[n]), weights[n]) for n in range(B) if weights[n]]
    got = [(list(a), list(b), w) for a, b, w in zip(*(seen[name] for name in ("wanted", "found", "weights")),
                                                    strict=True)]  # fmt: skip
    assert isinstance(seen["wanted"], list) and isinstance(seen["found"][0], np.ndarray)
    assert sorted(got) == sorted(expected)  # rows come sorted by their lengths
    right = model.evaluate(x, predicted, lengths=LENGTHS, metrics=[exact, "label_error"])
    assert right["exact"] == 1 and right["label_error"] == 0


def test_what_there_is_no_error_of_is_no_number(rng):
    model, x = made(), rng.standard_normal((B, T, I))
    assert math.isnan(model.evaluate(x, [[]] * B, metrics=["label_error"])["label_error"])
    model.parameters["head.bias"][2] = np.nan
    found = model.evaluate(x, LABELS, metrics=["label_error"])
    assert math.isnan(found["label_error"]) and math.isnan(found["loss"])


def test_many_rows_go_in_pieces(rng, monkeypatch):
    model, x, pieces = made(), rng.standard_normal((B, T, I)), []
    expected = model.evaluate(x, LABELS, lengths=LENGTHS, metrics=["label_error"])["label_error"]
    best_path = label_metrics.core.best_path
    monkeypatch.setattr(metrics, "AT_ONCE", 2 * T * O + 1)
    monkeypatch.setattr(label_metrics.core, "best_path", lambda *a: pieces.append(a[0].shape) or best_path(*a))
    found = model.evaluate(x, LABELS, lengths=LENGTHS, metrics=["label_error"])["label_error"]
    assert found == pytest.approx(expected, rel=1e-12) and pieces == [(2 * T, O)] * 3 + [(T, O)]
    long = made(CTC(zero_infinity=True))  # whose rows may have more labels than steps
    pieces.clear()
    found = long.evaluate(x, [[1, 2] * 12] * B, metrics=["label_error"])["label_error"]
    assert pieces == [(T, O)] * B and found > 0.5


def test_distances_take_a_row_of_the_table_and_not_all_of_it(rng, traced):
    rows = [rng.integers(0, 9, 700) for _ in range(8)]
    peak = traced(lambda: label_metrics.edit_distances(rows[:4], rows[4:]))
    assert peak < 12 * 8 * 4 * 701  # some rows of int64; the tables have 700


def test_without_it_nothing_is_decoded(rng, monkeypatch):
    monkeypatch.setattr(label_metrics.core, "best_path", None)
    monkeypatch.setattr(loss_and_gradients.metrics, "add_batch", None)
    made().evaluate(rng.standard_normal((B, T, I)), LABELS, lengths=LENGTHS)


@pytest.mark.parametrize(("given", "error", "message"), [
    (["f1"], TypeError, "metrics: expected functions or names of 'label_error' with loss='ctc', got 'f1'"),
    (["top_2"], TypeError, "metrics: expected functions or names of 'label_error' with loss='ctc', got 'top_2'"),
    (["label_error"] * 2, ValueError, "metrics: expected another name than 'label_error', which is given twice"),
    ([("mine", lambda found: 0)], TypeError, r"metrics: expected mine\(targets, outputs\) or mine\("),
])  # fmt: skip
def test_what_does_not_fit_is_refused(rng, given, error, message):
    x = rng.standard_normal((B, T, I))
    for call in (made().evaluate, made().fit):
        with pytest.raises(error, match=message):
            call(x, LABELS, metrics=given)
    with pytest.raises(TypeError, match="with loss='cross_entropy', got 'label_error'"):
        Model(I, H, O).evaluate(x, np.ones((B, T), int), metrics=["label_error"])
