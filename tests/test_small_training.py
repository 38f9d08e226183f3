"""Training in bfloat16: layers and models of float32 that round what they multiply."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import with_some_weights
from small_numbers import bfloat16

from cylstm import LSTM, Adam, Dense, Head, Model, set_num_threads
from cylstm._core import head, kernels
from cylstm.calls import Call
from cylstm.cli import main
from cylstm.losses import GivenGradient


def of_tiles():
    """Whether the kernels in use round gradients, x and h of the weights' gradients, too."""
    return "bfloat16_tiles" in kernels.units()


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def as_is(values):
    return values


def bptt(layer, x, dy, rounded, of_gradients):
    """A plain layer of one direction in float64, every product of it of operands that `rounded` has made, and that
    `of_gradients` has made where gradients of gates are multiplied."""
    W, R, b = (layer.parameters[name].astype(float) for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0"))
    B, T, _ = x.shape
    H = R.shape[1]
    h, c, kept = np.zeros((B, H)), np.zeros((B, H)), []
    for t in range(T):
        z = b + rounded(x[:, t]) @ rounded(W).T + rounded(h) @ rounded(R).T
        i, f, o = (sigmoid(z[:, n * H : (n + 1) * H]) for n in (0, 1, 3))
        g, before = np.tanh(z[:, 2 * H : 3 * H]), (h, c)
        c = f * c + i * g
        h = o * np.tanh(c)
        kept.append((i, f, g, o, c, *before))
    dW, dR, db, dx = np.zeros_like(W), np.zeros_like(R), np.zeros_like(b), np.zeros(x.shape)
    dh, dc = np.zeros((B, H)), np.zeros((B, H))
    for t in reversed(range(T)):
        i, f, g, o, c, h_before, c_before = kept[t]
        dh = dh + dy[:, t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        dz = np.hstack([dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g),
                        dh * np.tanh(c) * o * (1 - o)])  # fmt: skip
        db += dz.sum(axis=0)
        dz, dc = of_gradients(dz), dc * f
        dW += dz.T @ of_gradients(x[:, t])
        dR += dz.T @ of_gradients(h_before)
        dh, dx[:, t] = dz @ rounded(R), dz @ rounded(W)
    return {"weight_ih_l0": dW, "weight_hh_l0": dR, "bias_l0": db, "x": dx}


def rms(values):
    return np.sqrt(np.square(values).mean())


@pytest.mark.parametrize("I, H, B", [(7, 20, 5), (33, 48, 17), (40, 65, 40)])
def test_gradients_are_those_of_rounded_products(isa, rng, I, H, B):
    """An element that float32 rounds to the other side is one bfloat16 unit off: so they need not be equal, but are far
    nearer than those of any product that is not rounded, or is rounded and should not be."""
    layer = with_some_weights(LSTM(I, H, seed=1, precision="bfloat16"), rng)
    x, dy = rng.standard_normal((B, 9, I)).astype("f4"), rng.standard_normal((B, 9, H)).astype("f4")
    tape = layer.forward(x)[2]
    found = layer.backward(tape, dy)
    found = {**found.parameters, "x": found.x}
    tiles = of_tiles()
    expected = bptt(layer, x, dy, bfloat16, bfloat16 if tiles else as_is)
    others = [bptt(layer, x, dy, as_is, as_is), bptt(layer, x, dy, bfloat16, as_is if tiles else bfloat16)]
    for name, values in expected.items():
        off = rms(found[name] - values)
        assert off < 2e-4 * rms(values), name
        for other in others if name != "bias_l0" else others[:1]:
            assert off < rms(found[name] - other[name]) / 5, name


@pytest.mark.parametrize("options", [{}, dict(bidirectional=True), dict(layer_norm="ba"), dict(hidden_size=(60, 33))])
@pytest.mark.parametrize("ids", [False, True])
def test_forward_is_that_of_astype_to_the_bit(isa, rng, options, ids):
    """What has been trained is what is used: by call, by forward, by steps, with lengths and resets."""
    layer = LSTM(50, **{"hidden_size": 70, **options}, num_layers=2, seed=1, precision="bfloat16")
    x = rng.integers(0, 50, (9, 6)) if ids else rng.standard_normal((9, 6, 50)).astype("f4")
    lengths, resets = rng.integers(1, 7, 9), rng.random((9, 6)) < 0.2
    small = layer.astype("bfloat16")
    y, final = small(x, lengths=lengths, resets=resets)
    for one in (layer, layer.forward):
        got = one(x, lengths=lengths, resets=resets)
        np.testing.assert_array_equal(got[0], y)
        np.testing.assert_array_equal(got[1].c, final.c)
    if not layer.bidirectional:
        (y_t, _), (expected, _) = layer.step(x[:, 0], None), small.step(x[:, 0], None)
        np.testing.assert_array_equal(y_t, expected)
    assert np.abs(y - LSTM.astype(layer, "float32")(x, lengths=lengths, resets=resets)[0]).max() > 1e-4


VARIANTS = {
    "both directions": dict(bidirectional=True),
    "merged, reset": dict(bidirectional=True, merge="product"),
    "reverse": dict(reverse=True),
    "peepholes": dict(peepholes=True),
    "coupled and clipped": dict(coupled=True, cell_clip=0.7),
    "layer norm": dict(layer_norm="torchscript"),
    "projection": dict(proj_size=20),
    "first state": dict(first_state=True),
    "activations": dict(activations=("hard_sigmoid", "softsign", "tanh"), gate_clip=2.0),
    "residual": dict(residual=True),
    "highway": dict(highway=True),
    "widths": dict(hidden_size=(50, 24)),
    "no bias": dict(bias=False),
    "dropped": dict(dropout=0.3, input_dropout=0.2, recurrent_dropout=0.3, zoneout=(0.1, 0.1)),
    "dropped by gates": dict(recurrent_dropout=0.3, recurrent_dropout_per="gate", update_dropout=0.2),
    "dropped weights": dict(weight_drop=0.4),
    "dropped by gates, layer norm": dict(recurrent_dropout=0.3, recurrent_dropout_per="gate", layer_norm="ba"),
    "dropped by gates, projection": dict(recurrent_dropout=0.3, recurrent_dropout_per="gate", proj_size=35),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("ids", [False, True])
def test_variants_have_gradients_near_those_of_float32(isa, rng, name, ids):
    options = {"hidden_size": 50, **VARIANTS[name]}
    if ids and options.pop("input_dropout", 0):
        options["dropout"] = 0.4
    x = rng.integers(0, 30, (19, 8)) if ids else rng.standard_normal((19, 8, 30)).astype("f4")
    lengths, resets, dy = rng.integers(1, 9, 19), rng.random((19, 8)) < 0.2, None
    found = []
    for precision in ("float32", "bfloat16"):
        layer = with_some_weights(LSTM(30, num_layers=2, seed=1, **options), np.random.default_rng(2), 0.2)
        layer.precision = precision
        y, _, tape = layer.forward(x, lengths=lengths, resets=resets)
        dy = rng.standard_normal(y.shape).astype("f4") if dy is None else dy
        gradients = layer.backward(tape, dy)
        found.append({"y": y, **gradients.parameters, **({} if ids else {"x": gradients.x})})
    for what, expected in found[0].items():
        off = rms(found[1][what] - expected)
        assert off < 0.04 * rms(expected) + 1e-7, what
    assert rms(found[1]["weight_hh_l0"] - found[0]["weight_hh_l0"]) > 1e-4 * rms(found[0]["weight_hh_l0"])


SHARED = {  # H, B, and what makes members of a team wait for each other elsewhere
    "units": (300, 6, {}),
    "units, both directions": (200, 9, dict(bidirectional=True)),
    "rows": (130, 70, {}),
    "rows, layer norm": (130, 70, dict(layer_norm="ba")),
    "rows, projection": (130, 70, dict(proj_size=97)),
    "rows, dropped by gates": (130, 70, dict(recurrent_dropout=0.3, recurrent_dropout_per="gate")),
    "rows, dropped by gates, projection": (
        130, 70, dict(recurrent_dropout=0.3, recurrent_dropout_per="gate", proj_size=97)),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_threads_do_not_change_bits(isa, rng, name):
    H, B, options = SHARED[name]
    layer = LSTM(40, H, seed=1, precision="bfloat16", **options)
    x, found = rng.standard_normal((B, 20, 40)).astype("f4"), []
    dy = rng.standard_normal((B, 20, layer.output_size)).astype("f4")
    for threads in (1, *[2, 3] * 4):
        set_num_threads(threads)
        layer.rng = np.random.default_rng(3)
        y, _, tape = layer.forward(x)
        gradients = layer.backward(tape, dy)
        found.append({"y": y, "x": gradients.x, **gradients.parameters})
    for other in found[1:]:
        for what, values in found[0].items():
            np.testing.assert_array_equal(other[what], values, what)


class Changing:
    """What is read as a state, and changes the layer's precision when it is: as another thread might at that moment."""

    def __init__(self, layer, precision, values):
        self.layer, self.precision, self.values = layer, precision, values

    def __array__(self, dtype=None, copy=None):
        self.layer.precision = self.precision
        return self.values


@pytest.mark.parametrize("I", [10, 40])
@pytest.mark.parametrize("before, after", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_call_keeps_the_precision_it_began_with(isa, rng, I, before, after):
    layer, ids = LSTM(I, 40, seed=1, precision=before), rng.integers(0, I, (16, 6))
    zeros = np.zeros((1, 16, 40), "f4")
    expected = layer(ids)[0]
    np.testing.assert_array_equal(layer(ids, (Changing(layer, after, zeros), zeros))[0], expected)
    assert layer.precision == after and np.abs(layer(ids)[0] - expected).max() > 1e-5


def test_precision_changes_and_is_kept(rng, tmp_path):
    layer, x = LSTM(20, 40, seed=1), rng.standard_normal((9, 5, 20)).astype("f4")
    y = layer(x)[0]
    layer.precision = "bfloat16"
    assert (layer.precision, layer.dtype) == ("bfloat16", np.float32)
    rounded = layer(x)[0]
    assert 1e-4 < np.abs(rounded - y).max() < 2e-2
    for one in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert one.precision == "bfloat16"
        np.testing.assert_array_equal(one(x)[0], rounded)
        one.forward(x)
    tape = layer.forward(x)[2]
    layer.precision = "float32"  # a tape goes on as it began
    np.testing.assert_array_equal(layer(x)[0], y)
    late = layer.backward(tape, rounded).parameters
    layer.precision = "bfloat16"
    for name, values in layer.backward(layer.forward(x)[2], rounded).parameters.items():
        np.testing.assert_array_equal(late[name], values)
    assert layer.astype("float32").precision == "float32"
    again = eval(repr(layer), {"LSTM": LSTM})
    assert (again.precision, again.dtype) == ("bfloat16", np.float32)
    assert "bfloat16" not in repr(layer.astype("float32"))


def test_a_precision_that_there_is_not():
    for precision in ("float16", "int8", "half", "float64"):
        with pytest.raises(ValueError, match="precision: expected one of 'float32', 'bfloat16'"):
            LSTM(3, 4, precision=precision)
    with pytest.raises(ValueError, match="precision: expected one of 'float64', got str 'bfloat16'"):
        Model(3, 4, 5, dtype="float64", precision="bfloat16")
    model = Model(3, 4, 5, seed=1)
    with pytest.raises(ValueError, match="precision"):
        model.fit(np.zeros((2, 3), int), np.zeros((2, 3), int), precision="int8")
    with pytest.raises(ValueError, match="precision: expected one of 'bfloat16', got str 'float32'"):
        model.astype("bfloat16").precision = "float32"
    assert model.precision == "float32"
    for layer in (LSTM(3, 4, dtype="float64"), LSTM(3, 4).astype("int8")):
        with pytest.raises(ValueError, match="rounded: expected weights in float32"):
            layer.rounded = True


def test_a_models_tape_is_for_the_precision_it_began_with(rng):
    model, x = writer(), rng.integers(0, 50, (4, 5))
    outputs, _, tape = model.forward(x)
    model.precision = "bfloat16"
    with pytest.raises(ValueError, match="tape: expected the precision that forward had, 'float32', got 'bfloat16'"):
        model.backward(tape, outputs)
    model.precision = "float32"
    model.backward(tape, outputs)


def writer(**options):
    """Ids in, classes out, with dense layers on both sides."""
    options = {"embedding_size": 24, "before": [Dense(33, "tanh")], "after": [20], "num_layers": 2, **options}
    return Model(50, 40, 50, seed=1, **options)


@pytest.mark.parametrize("N, F, O", [(70, 33, 20), (300, 70, 50), (2500, 64, 600)])
def test_products_of_heads_are_of_rounded_numbers(isa, rng, N, F, O):
    """Where there are tiles; elsewhere they are float32's. In one chunk of rows and in several."""
    rounded = bfloat16 if of_tiles() else as_is
    h, weight, dz = (rng.standard_normal(shape).astype("f4") for shape in ((N, F), (O, F), (N, O)))
    bias = rng.standard_normal(O).astype("f4")
    dh, dweight, dbias = (np.empty_like(like) for like in (h, weight, bias))
    head.loss(GivenGradient(), h, weight, bias, dz, scale=1.0, dh=dh, dweight=dweight, dbias=dbias, rounded=True)
    h, weight, d = (rounded(values).astype(float) for values in (h, weight, dz))
    found = head.linear(h.astype("f4"), weight.astype("f4"), bias, True)
    for got, expected in ((found, h @ weight.T + bias), (dh, d @ weight), (dweight, d.T @ h), (dbias, dz.sum(axis=0))):
        assert rms(got - expected) < 2e-6 * rms(expected)
    if of_tiles():
        nearly = (h * (1 + 2**-10)).astype("f4")  # which rounding makes h again
        np.testing.assert_array_equal(head.linear(nearly, weight.astype("f4"), bias, True), found)


def test_a_model_hands_on_that_it_rounds(rng):
    """To the head's outputs and gradients, and to dense layers: the bits of their kernels."""
    model, x = (
        Model(9, 40, 50, seed=1, after=[Dense(64, "tanh")], precision="bfloat16"),
        rng.standard_normal((20, 9, 9)),
    )
    outputs, _, tape = model.forward(x.astype("f4"))
    weight, bias = model.parameters["head.weight"], model.parameters["head.bias"]
    h = model.seen_by_head(model.lstm(x.astype("f4"))[0].reshape(180, 40))
    np.testing.assert_array_equal(outputs.reshape(180, 50), head.linear(h, weight, bias, True))
    d_outputs = rng.standard_normal(outputs.shape).astype("f4")
    gradients = model.backward(tape, d_outputs).parameters
    dh, dweight, dbias = np.empty_like(h), np.empty_like(weight), np.empty_like(bias)
    head.loss(GivenGradient(), h, weight, bias, d_outputs.reshape(180, 50), scale=1.0, dh=dh, dweight=dweight,
              dbias=dbias, rounded=True)  # fmt: skip
    np.testing.assert_array_equal(gradients["head.weight"], dweight)
    y = model.lstm(x.astype("f4"))[0].reshape(180, 40)
    dz, dy = (dh * (1 - h * h)).astype("f4"), np.empty_like(y)
    weight = model.parameters["after.0.weight"]
    dweight, dbias = np.empty_like(weight), np.empty(64, "f4")
    found = []
    for rounded in (True, False):
        head.loss(GivenGradient(), y, weight, None, dz, scale=1.0, dh=dy, dweight=dweight, dbias=dbias, rounded=rounded)
        found.append(rms(gradients["after.0.weight"] - dweight) / rms(dweight))
    assert found[0] < 2e-4 and (found[1] > 10 * found[0] or not of_tiles())


def test_products_of_heads_and_dense_layers_are_rounded_where_there_are_units(rng):
    x, y = rng.integers(0, 50, (20, 9)), rng.integers(0, 50, (20, 9))
    plain = Model(50, 40, 50, embedding_size=24, after=[Dense(64, "tanh")], seed=1)
    rounded, layer_alone = copy.deepcopy(plain), copy.deepcopy(plain)
    rounded.precision = layer_alone.precision = "bfloat16"
    layer_alone.behind.lstm = plain.lstm  # which does not round
    losses = [model.loss_and_gradients(x, y).loss for model in (plain, rounded, layer_alone)]
    assert len(set(losses)) == (3 if of_tiles() else 2)
    assert np.ptp(losses) < 1e-3 * losses[0]
    found, expected = (model.loss_and_gradients(x, y).gradients for model in (rounded, plain))
    for name, values in expected.items():
        assert rms(found[name] - values) < 0.06 * rms(values), name


@pytest.mark.parametrize("heads", [50, {"a": Head(50), "b": Head(3, loss="mse")}])
def test_a_run_learns_as_in_float32_and_resumes_to_the_bit(rng, tmp_path, heads):
    x = (rng.integers(0, 40, (64, 12)) * (np.arange(12) % 3 == 0) + np.arange(12) % 7) % 50
    y = (x + 1) % 50
    if isinstance(heads, dict):
        y = {"a": y, "b": rng.standard_normal((64, 12, 3)).astype("f4")}
    curves, ends = {}, []

    def fit(precision, epochs, **options):
        model = Model(50, 40, heads, embedding_size=24, seed=1, dropout=0.2, num_layers=2)
        history = model.fit(x, y, epochs=epochs, optimizer=Adam(lr=0.01), batch_size=16, progress=False,
                            precision=precision, **options)  # fmt: skip
        return model, history.train_loss

    for precision in ("float32", "bfloat16"):
        model, curves[precision] = fit(precision, 4)
        assert model.precision == precision
        ends.append(model.parameters.raw().copy())
    np.testing.assert_allclose(curves["bfloat16"], curves["float32"], rtol=0.005)
    assert curves["bfloat16"] != curves["float32"] and curves["float32"][-1] < 0.8 * curves["float32"][0]
    fit("bfloat16", 2, checkpoint=tmp_path / "run")
    model, _ = fit("bfloat16", 4, resume=tmp_path / "run")
    np.testing.assert_array_equal(model.parameters.raw(), ends[1])
    assert Model.from_checkpoint(tmp_path / "run").precision == "bfloat16"
    with pytest.raises(ValueError, match=r"resume: expected the same model .* precision=bfloat16, got float32"):
        fit("float32", 4, resume=tmp_path / "run")
    other = Model(50, 40, heads, embedding_size=24, seed=1, dropout=0.2, num_layers=2)
    with pytest.raises(FileNotFoundError):
        other.fit(x, y, precision="bfloat16", resume=tmp_path / "missing", progress=False)
    assert other.precision == "float32"  # as it was before what was refused


def test_files_say_it(rng, tmp_path):
    model, x = writer(precision="bfloat16"), rng.integers(0, 50, (9, 5))
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.precision == "bfloat16" and again.parameters.raw().dtype == np.float32
    np.testing.assert_array_equal(again.parameters.raw(), model.parameters.raw())
    np.testing.assert_array_equal(again(x)[0], model(x)[0])
    again.fit(x, x, epochs=1, progress=False)
    writer().save(tmp_path / "plain")
    assert Model.load(tmp_path / "plain").precision == "float32"
    small = again.astype("int8")
    small.save(tmp_path / "small")
    assert Model.load(tmp_path / "small").precision == "int8"


def test_the_command_trains_in_bfloat16(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("in the beginning was the word, and the word was in the beginning. " * 40)
    options = ["--epochs", "1", "--hidden", "32", "--layers", "1", "--quiet"]
    assert main(["train", "text", "--out", "model", "--precision", "bfloat16", *options]) == 0
    assert Model.load("model").precision == "bfloat16"


def test_a_call_from_c_is_for_the_precision_that_it_was_made_for():
    layer = LSTM(3, 20, seed=1)
    call = Call(layer, 2, 3)
    call.refresh()
    layer.precision = "bfloat16"
    with pytest.raises(ValueError, match=r"refresh: expected a layer with the precision .* got 'bfloat16'"):
        call.refresh()
