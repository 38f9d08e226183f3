"""`Model.report` and `cylstm report`: the page's numbers, what it leaves out, and that it asks nothing of anybody."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from commands import TEXT, TINY, refused
from tasks import sequences

from cylstm import Head, Model, Vocabulary, losses
from cylstm.cli import main
from cylstm.report import follows, inside, reach, sample
from cylstm.training import Trained

VOID = {"meta", "line", "circle", "polyline", "polygon", "link", "img", "base"}


class Page(HTMLParser):
    """What is in a page: its elements have to close, and nothing in it may lead elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.text, self.open, self.titles, self.inside_title = path.read_text("utf-8"), [], [], False
        self.feed(self.text)
        self.close()
        assert not self.open
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.text, re.S)[1]
        self.data = json.loads(found)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            assert name not in ("src", "href", "action", "data"), (tag, name, value)
            assert not name.startswith("on"), (tag, name)
        if tag not in VOID:
            self.open.append(tag)
        self.inside_title = tag == "h2"

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.inside_title = False

    def handle_data(self, data):
        if self.inside_title:
            self.titles.append(data)


def series(rng, B=6, T=40):
    """Noisy waves (B, T, 2)."""
    phase = rng.uniform(0, 6, (B, 1, 1)) + np.array([0, 1.5])
    return np.sin(phase + 0.3 * np.arange(T)[:, None]) + 0.1 * rng.standard_normal((B, T, 2))


def text_model(**options):
    vocabulary = Vocabulary.from_text(TEXT)
    V = len(vocabulary)
    return Model(V, 9, V, vocabulary=vocabulary, seed=3, **options)


def told(path, model, *data, **options):
    model.report(path, *data, **options)
    return Page(path)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_a_model_of_text_has_everything(tmp_path):
    model = text_model(num_layers=2, embedding_size=5)
    ids = model.vocabulary.encode(TEXT)
    model.fit(ids[:601], ids[1:602], epochs=2, progress=False, validation=(ids[:50], ids[1:51]), seed=11)
    page = told(tmp_path / "a.html", model, TEXT)
    assert page.titles == ["Training", "Confusion of tokens", "What cells follow", "Cells over time", "Gates",
                           "How long cells remember", "How far back it learns", "Dead units",
                           "What it was trained on, and with", "The model"]  # fmt: skip
    assert model.trained.options["data"] in page.text and "<td>11</td>" in page.text
    for word in ("Norm of the gradients", "Learning rate", "instruction set", "validation", "clipped from here on"):
        assert word in page.text
    steps = page.data["heat"]["steps"]
    assert steps == 1000 and f"no more than 1,000 of {len(ids) - 1:,} steps" in page.text
    assert "".join(page.data["text"]["pieces"]) == TEXT[:1000]
    surprise, *cells = page.data["text"]["marks"]
    p = model.predict_proba(ids[:1000])[np.arange(1000), ids[1:1001]]
    np.testing.assert_allclose(surprise["bits"][1:], -np.log2(p[:-1]), atol=0.006)  # in its place: as it comes
    assert surprise["bits"][0] is None and len(cells) > 5
    trace = model.lstm.trace(model.embed(ids[:1000]))
    layer, unit = re.search(r"layer (\d), unit (\d+)", cells[0]["name"]).groups()
    np.testing.assert_allclose(numbers_of(cells[0]["data"]) * cells[0]["scale"] + cells[0]["mean"],
                               trace[f"c_l{int(layer) - 1}"][:, int(unit)], atol=0.51 * cells[0]["scale"])  # fmt: skip
    first = page.data["heat"]["maps"][0]
    values = numbers_of(first["parts"]["c"]["data"]).reshape(9, 1000)
    scales = np.array(first["parts"]["c"]["scales"])[:, None]
    assert (np.abs(values * scales - trace["c_l0"].T[first["units"]]) <= 0.52 * scales).all()


def numbers_of(data):
    return np.frombuffer(base64.b64decode(data), np.int8)


HEADS = {
    "mse": (dict(output_size=2, loss="mse"), lambda y: y, "The band is where 90 %"),
    "gaussian": (dict(output_size=4, loss="gaussian"), lambda y: y, "two deviations either way"),
    "quantiles": (dict(output_size=6, loss=losses.Quantiles([0.1, 0.5, 0.9])), lambda y: y, "quantiles 0.1 to 0.9"),
    "horizon": (dict(output_size=2, loss="mae", output="last", horizon=5), lambda y: y[:, :5], "Forecast 3 of 3"),
    "last": (dict(output_size=2, loss="huber", output="last"), lambda y: y[:, -1], "Mean absolute error"),
    "classes": (dict(output_size=3), lambda y: (y[..., 0] > 0) + (y[..., 0] > 0.5) * 1, "of 240 are right"),
    "labels": (dict(output_size=2, labels=("<low>", "high")),
               lambda y: np.where(y[..., 0] > 0, "high", "<low>"), "&lt;low&gt;"),
    "binary": (dict(output_size=2, loss="binary_cross_entropy"), lambda y: (y > 0) * 1.0, "Output 1: "),
    "ctc": (dict(output_size=4, loss="ctc"), lambda y: [np.array([1, 2, 3])] * len(y), "<td>1 2 3</td>"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_each_loss_has_its_picture(tmp_path, rng, kind):
    options, make, words = HEADS[kind]
    model, x = Model(2, 6, seed=1, **options), series(rng)
    page = told(tmp_path / "a.html", model, x, make(np.roll(x, -1, axis=1)))
    assert words in page.text and {"Gates", "Dead units"} < set(page.titles)
    assert "Nothing is known of it" in page.text and "nan" not in page.text.lower().replace("nanosecond", "")


@pytest.mark.parametrize("options", [
    dict(num_layers=2, bidirectional=True, merge="sum"), dict(reverse=True), dict(proj_size=3),
    dict(zoneout=(0.2, 0.1)), dict(num_layers=2, layer_norm="torchscript"), dict(hidden_size=(8, 4)),
    dict(first_state=True, coupled=True),
    dict(activations=("hard_sigmoid", "relu", "tanh")), dict(before=[5], after=[4]),
    dict(num_layers=3, residual=True),
    dict(num_layers=3, dropout=0.5, recurrent_dropout=0.2), dict(dtype="float64", peepholes=True),
    dict(precision="bfloat16"),
])  # fmt: skip
def test_every_variant_has_a_page(tmp_path, rng, options):
    model, x = Model(2, **{"hidden_size": 6, **options}, output_size=2, loss="mse", seed=1), series(rng, 3, 20)
    before = model.rng.bit_generator.state, model.parameters.flat.copy()
    page = told(tmp_path / "a.html", model, list(x), list(x))
    assert "How far back it learns" in page.titles and len(page.data["heat"]["maps"]) >= model.num_layers
    assert model.rng.bit_generator.state == before[0] and np.array_equal(model.parameters.flat, before[1])
    assert ("in float32, of weights as bfloat16" in page.text) == ("precision" in options)


def test_several_heads_and_rows_of_several_lengths(tmp_path, rng):
    heads = {"a": Head(3), "b": Head(2, loss="mse", output="last")}
    model, x = Model(2, 6, heads, seed=1), list(series(rng, 3, 20))
    x[1] = x[1][:7]
    y = {"a": [rng.integers(0, 3, len(row)) for row in x], "b": rng.standard_normal((3, 2))}
    page = told(tmp_path / "a.html", model, x, y)
    assert {"Confusion: a", "Forecasts: b"} < set(page.titles) and "a.accuracy" in page.text
    assert ">47</b><span>steps looked into" in page.text


def test_without_targets_and_without_data(tmp_path, rng):
    model, x = Model(2, 6, 2, loss="mse", seed=1), series(rng)
    page = told(tmp_path / "a.html", model, x)
    assert "Gates" in page.titles and "There are no targets" in page.text
    page = told(tmp_path / "b.html", model)
    assert page.titles == ["Training", "The model"] and page.data == {}
    ids = told(tmp_path / "c.html", Model(9, 6, 9, seed=1), rng.integers(0, 9, (2, 30)))
    assert ids.data["text"]["pieces"][0].strip().isdigit()


def test_missing_targets_are_left_out(tmp_path, rng):
    model, x = Model(2, 6, 2, loss="mse", seed=1), series(rng)
    y = x.copy()
    y[:, ::2, 0] = np.nan
    page = told(tmp_path / "a.html", model, x, y, missing="skip")
    assert f"over {np.isfinite(y).sum()} numbers" in page.text
    with pytest.raises(ValueError, match=r"^y\[0, 0, 0\]: expected a finite number"):
        model.report(tmp_path / "b.html", x, y)


def test_a_number_that_is_missing_throughout(tmp_path, rng):
    x = series(rng)
    y = np.where([True, False], np.nan, (x > 0) * 1.0)
    for loss, output in (("mse", "sequence"), ("binary_cross_entropy", "sequence"), ("mae", "last")):
        model = Model(2, 6, 2, loss=loss, output=output, seed=1)
        page = told(tmp_path / "a.html", model, x, y if output == "sequence" else y[:, -1], missing="skip")
        assert ("no target is there" in page.text) == (loss == "binary_cross_entropy")


def test_what_is_ignored_has_no_part(tmp_path, rng):
    model, x = Model(9, 6, 9, seed=1), rng.integers(0, 9, (3, 30))
    y = (x + 1) % 9
    y[:, ::3] = y[2] = -100
    page = told(tmp_path / "a.html", model, x, y, ignore=-100)
    assert f" of {(y >= 0).sum()} are right" in page.text and "target is -100" not in page.text
    bits = page.data["text"]["marks"][0]["bits"]
    assert [n for n, value in enumerate(bits) if value is None] == list(range(0, 30, 3))
    found = reach.reach_of(sample.sample_of(model, x, y, ignore=-100))
    assert 0 < found.ends < 6


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_fewer_bits_are_looked_at_in_float32(tmp_path, rng, precision):
    model, x = Model(2, 6, 2, loss="mse", seed=1).astype(precision), series(rng)
    page = told(tmp_path / "a.html", model, x, x)
    assert f"of weights as {precision} has them" in page.text


def test_a_token_cannot_leave_its_place(tmp_path):
    tokens = ["</script>", "<b>", "&amp;", "'\"", "\u2028", "]]>", " ", "\n", "<img src=x>"]
    vocabulary = Vocabulary(["x", "y"], "word", unknown="</script><script>alert(1)</script>", end="<img src=x>")
    model = Model(4, 5, 4, vocabulary=vocabulary, seed=1)
    page = told(tmp_path / "a.html", model, np.array([0, 1, 2, 3, 2, 1] * 4))
    assert page.text.count("<script") == page.text.count("</script>") == 2
    assert "<img" not in page.text and page.data["text"]["pieces"][2] == "</script><script>alert(1)</script>"
    model = Model(9, 5, 9, labels=tokens, seed=1)
    ids = np.arange(18) % 9
    page = told(tmp_path / "b.html", model, ids, np.array(tokens)[ids])
    assert page.text.count("<script") == 2 and "<img" not in page.text
    model = Model(2, 4, {"<img src=x>": Head(1, loss="mse")}, seed=1)
    x = np.ones((1, 5, 2))
    told(tmp_path / "c.html", model, x, {"<img src=x>": x[..., :1]})


def test_bytes_that_are_no_text(tmp_path):
    model = Model(256, 5, 256, vocabulary=Vocabulary(level="byte"), seed=1)
    page = told(tmp_path / "a.html", model, "é — 漢字 " * 20)
    assert "".join(page.data["text"]["pieces"]).startswith("é — 漢字") and "0xc3" in page.text


def test_large_ones_stay_small(tmp_path, rng):
    V = 9000
    model = Model(V, 130, V, num_layers=9, embedding_size=20, seed=1)
    page = told(tmp_path / "a.html", model, *(rng.integers(0, V, (1, 1200)) for _ in range(2)))
    assert "first 8 of 9 layers" in page.text
    assert len(page.text) < 4e6 and "evenly spaced" in page.text and "Losses and what comes out are of" in page.text


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (("nowhere/a.html",), ValueError, "path: expected a file in an existing folder"),
    ((3,), TypeError, "path: expected a path, got int 3"),
    (("a.html", None, np.ones(3)), TypeError, "x: expected inputs beside y or lengths, got None"),
    (("a.html", "text"), TypeError, "x: expected ids or features for a model without a vocabulary, got text"),
    (("a.html", np.ones((2, 5, 3))), ValueError, r"x: expected \(B, T, 2\)"),
    (("a.html", np.full((2, 5, 2), np.nan)), ValueError, r"x\[0, 0, 0\]: expected a finite number"),
    (("a.html", np.ones((2, 5, 2)), np.ones((2, 5, 3))), ValueError, r"y: expected \(2, 5, 2\), got"),
])  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_written(monkeypatch, tmp_path, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"^{message}"):
        Model(2, 6, 2, loss="mse", seed=1).report(*arguments)
    assert not list(tmp_path.iterdir())


def test_weights_and_states_that_are_no_numbers_are_said_so(tmp_path, rng):
    model, x = Model(2, 6, 2, loss="mse", activations=("relu", "relu", "linear"), seed=1), series(rng)
    model.lstm.parameters["bias_l0"][...] = 1e30
    with pytest.raises(
        ValueError, match=r"^model: expected gates and states that are finite numbers, got others in i_l0"
    ):
        model.report(tmp_path / "a.html", x)
    model.parameters["lstm.bias_l0"][3] = np.nan
    with pytest.raises(ValueError, match=r"^lstm.bias_l0\[3\]: expected a finite number, got nan"):
        model.report(tmp_path / "a.html", x)


def test_a_history_of_a_stranger_stays_in_its_place(tmp_path):
    model = Model(2, 6, 2, loss="mse", seed=1)
    nothing = {name: [None, None] for name in ("train_accuracy", "validation_loss", "validation_accuracy", "seconds")}
    history = {**nothing, "train_loss": [None, -1e300], "learning_rate": [0, 1e308], "updates": [None, 3],
               "gradient_norm": [0.0, -1.0], "<script>alert(1)</script>": [None] * 2, "'\"$&": [1, np.nan]}  # fmt: skip
    options = {"<img src=x>": "<img src=x>", "clip_norm": float("inf"), "seed": [None, "\ud800", True], "monitor": 3}
    model.trained = Trained.from_dict({"history": history, "options": options, "machine": {"</td>": -1e400}})
    page = told(tmp_path / "a.html", model)
    assert page.titles[0] == "Training" and page.text.count("<script") == 2 and "<img" not in page.text


# --- its numbers ------------------------------------------------------------------------------------------------------


def sample_of(model, x, y=None, lengths=None):
    return sample.sample_of(model, x, y, lengths)


def test_measures_are_those_of_evaluate(rng):
    x, y = sequences(rng, [9, 4, 7])
    model = Model(7, 6, 7, seed=1)
    assert sample_of(model, x, y).measures == pytest.approx(model.evaluate(x, y))


def test_time_constants_are_those_of_a_constant_gate(rng):
    model = Model(2, 5, 1, loss="mse", seed=1, zoneout=(0.5, 0.0))
    for name in ("weight_ih_l0", "weight_hh_l0"):
        model.parameters[f"lstm.{name}"][...] = 0
    f = np.array([0.1, 0.5, 0.9, 0.99, 0.999])
    model.parameters["lstm.bias_l0"][5:10] = np.log(f / (1 - f))
    found = inside.time_constants(sample_of(model, series(rng)), "l0")
    np.testing.assert_allclose(found, -1 / np.log(0.5 + 0.5 * f), rtol=1e-3)
    low, high, mean = inside.saturation(sample_of(model, series(rng)), "l0")["f"]
    assert low.tolist() == [0, 0, 0, 0, 0] or low.tolist() == [1, 0, 0, 0, 0]  # 0.1, rounded
    assert high.tolist()[1:] in ([0, 0, 1, 1], [0, 1, 1, 1]) and mean == pytest.approx(f.mean(), rel=1e-3)


def test_dead_units_are_found(rng):
    model = Model(2, 5, 1, loss="mse", seed=1)
    model.parameters["lstm.bias_l0"][15 + 3] = -20  # of unit 3's output gate
    found = sample_of(model, series(rng))
    assert inside.dead_units(found, "l0").tolist() == [3]


@pytest.mark.parametrize("options", [dict(output="last"), dict(output="sequence", bidirectional=True)])
def test_gradients_reach_back_as_differences_do(rng, options):
    """Those by the state some steps before one loss, against differences of the model's own loss."""
    model = Model(2, 4, 1, num_layers=2, loss="mse", seed=1, dtype="float64", **options)
    x, per_row = series(rng, 1, 12), options["output"] == "last"
    y = rng.standard_normal((1, 1) if per_row else (1, 12, 1))
    found, D = reach.reach_of(sample_of(model, x, y)), model.lstm.num_directions
    ends = [11] if per_row else [6, 7, 8, 9, 10, 11]
    assert found.ends == len(ends) and found.lags[-1] == ends[0]
    trace = model.lstm.trace(x)
    for place, lag in ((0, 1), (3, 4), (-1, ends[0])):
        assert found.lags[place] == lag
        norms = np.zeros((2, 2))
        for end in ends:
            begin, part_x = model.initial_state(1), x[:, end - lag + 1 : end + 1]
            for n in range(2):
                begin.h[n * D], begin.c[n * D] = (trace[f"{part}_l{n}"][:, end - lag] for part in "hc")
            kept = {} if per_row else {"sample_weight": np.eye(lag)[-1:]}
            target = y if per_row else y[:, end - lag + 1 : end + 1]
            for m, part in enumerate("ch"):
                slopes = []
                for n, k in np.ndindex(2, 4):
                    both = []
                    for step in (1e-6, -1e-6):
                        state = begin.copy()
                        getattr(state, part)[n * D, 0, k] += step
                        both.append(model.evaluate(part_x, target, state=state, **kept)["loss"])
                    slopes.append((both[0] - both[1]) / 2e-6)
                norms[:, m] += np.linalg.norm(np.reshape(slopes, (2, 4)), axis=1) / len(ends)
        np.testing.assert_allclose([found.norms[f"l{n}"][place] for n in range(2)], norms, rtol=1e-4, atol=1e-8)


def test_what_cells_follow_is_found(rng):
    model = Model(2, 6, 1, loss="mse", seed=1)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0"):
        model.parameters[f"lstm.{name}"][...] = 0
    model.parameters["lstm.weight_ih_l0"][2 * 6 + 4, 1] = 0.5  # g of unit 4 sees input 1
    model.parameters["lstm.bias_l0"][6:12] = -20  # and nothing is kept
    best = follows.best_pairs(sample_of(model, series(rng)))
    assert (best[0].what, best[0].layer, best[0].unit) == ("input 1", "l0", 4) and best[0].r > 0.99


def test_a_cell_may_follow_the_other_way_round(rng):
    model = Model(2, 6, 1, loss="mse", num_layers=2, seed=1)
    for name in model.lstm.parameters:
        model.lstm.parameters[name][...] = 0
    model.lstm.parameters["weight_ih_l0"][2 * 6 + 4, 1] = -0.5
    model.lstm.parameters["bias_l0"][6:12] = -20
    best = follows.best_pairs(sample_of(model, series(rng)))
    assert (best[0].what, best[0].layer, best[0].unit) == ("input 1", "l0", 4) and best[0].r < -0.99


def test_what_a_reader_would_say_of_a_text():
    text = '  A "bc" (9\n\nx'
    found = {name: values.astype(int).tolist() for name, values in follows.of_text(list(text)).items()}
    assert found["place in the line"] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 1]
    assert found["inside of quotes"] == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found["inside of brackets"] == [0] * 9 + [1, 1, 1, 0, 0]
    assert found["indentation of the line"] == [1, 2] + [2] * 9 + [0, 0, 0]
    assert found["place in the word"] == [0, 0, 1, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 1]
    assert [name for name in found if found[name][10]] == ["place in the line", "place in the word",
                                                           "indentation of the line", "inside of brackets",
                                                           "digit"]  # fmt: skip


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_page(capsys, folder):
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--out", "m.safetensors"]) == 0
    capsys.readouterr()
    assert main(["report", "m.safetensors", "corpus.txt", "--part", "test", "--out", "a.html"]) == 0
    assert capsys.readouterr().out == "wrote a.html\n"
    page = Page(folder / "a.html")
    assert "Confusion of tokens" in page.titles and "2 epochs" in page.text and page.data["text"]["marks"]
    assert main(["report", "m.safetensors", "corpus.txt"]) == 0 and (folder / "report.html").exists()
    capsys.readouterr()
    assert refused(capsys, "report", "m.safetensors", "corpus.txt", "--out", "corpus.txt") == (
        "--out: expected a file that is not read, got corpus.txt"
    )
    assert refused(capsys, "report", "absent") == "absent: No such file or directory"
    (folder / "other.txt").write_text("¡" * 50)
    assert "expected characters in the vocabulary" in refused(capsys, "report", "m.safetensors", "other.txt")


def test_the_command_takes_models_of_numbers(capsys, folder):
    Model(2, 4, 1, loss="mse", seed=1).save("m.safetensors")
    assert main(["report", "m.safetensors"]) == 0
    assert "model.report(path, x, y) has more" in capsys.readouterr().err
    assert Page(folder / "report.html").titles == ["Training", "The model"]
    assert "expected a model with a vocabulary" in refused(capsys, "report", "m.safetensors", "corpus.txt")
    with pytest.raises(ValueError, match=r"x\[0\]: expected a step, got none"):
        Model(2, 4, 1, loss="mse", seed=1).report("a.html", [np.zeros((0, 2)), np.ones((5, 2))])
    Model(3, 4, 2, output="last", vocabulary=Vocabulary.from_text("abc")).save("c.safetensors")
    assert main(["report", "c.safetensors"]) == 0
