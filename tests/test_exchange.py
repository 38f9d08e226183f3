"""Networks: what models become, and what becomes a model."""

import dataclasses
import os

import numpy as np
import pytest
from lstm_by_hand import both_ways

import cylstm
from cylstm import exchange
from cylstm.exchange.models import FINAL
from cylstm.exchange.network import Dense, Direction, Embedding, Network, Recurrent
from cylstm.losses import by_name

MODELS = {
    "plain": dict(input_size=3, hidden_size=5, output_size=2, loss="mse"),
    "deep, both ways": dict(input_size=3, hidden_size=4, output_size=6, num_layers=3, bidirectional=True, dropout=0.25),
    "ids": dict(input_size=7, hidden_size=5, output_size=7, embedding_size=4, dtype="float64"),
    "dense layers": dict(input_size=3, hidden_size=5, output_size=1, loss="binary_cross_entropy", output="last",
                         before=[cylstm.Dense(6, "tanh", bias=False)], after=[cylstm.Dense(4, dropout=0.5)],
                         head_bias=False),
    "variants": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", peepholes=True, coupled=True,
                     cell_clip=0.5, gate_clip=4.0, activations=("hard_sigmoid", "relu", ("leaky_relu", 0.2))),
    "a projection": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", num_layers=2, bidirectional=True,
                         proj_size=2, first_state=True, peepholes=True),
    "widths": dict(input_size=3, hidden_size=(4, 6, 2), output_size=2, loss="mse", bidirectional=True, output="last"),
    "merged, residual": dict(input_size=3, hidden_size=4, output_size=2, loss="mse", num_layers=3, bidirectional=True,
                             merge="product", residual=True, output="last"),
    "a first state": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", num_layers=2, first_state=True,
                          reverse=True),
}  # fmt: skip


def arrays(*shapes, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def random_model(name):
    model = cylstm.Model(**MODELS[name], seed=2)
    rng = np.random.default_rng(1)
    model.parameters.flat = rng.uniform(-0.6, 0.6, model.parameters.size)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_from_its_network(name):
    model = random_model(name)
    again = exchange.model_of(exchange.network_of(model))
    assert again.config == model.config
    assert np.array_equal(again.parameters.flat, model.parameters.flat)


def test_a_tied_table_is_two(recwarn):
    model = cylstm.Model(7, 5, 7, embedding_size=5, tied=True, embedding_dropout=0.5, seed=1)
    again = exchange.model_of(exchange.network_of(model))
    x = np.array([[3, 1, 6], [0, 2, 5]])
    assert not again.tied and np.array_equal(again(x)[0], model(x)[0])
    assert "embedding_dropout: of training alone" in str(recwarn.pop(UserWarning).message)
    exchange.network_of(cylstm.LSTM(3, 5, weight_drop=0.5, recurrent_dropout=0.2))
    assert "recurrent_dropout, weight_drop: of training alone" in str(recwarn.pop(UserWarning).message)
    exchange.network_of(cylstm.LSTM(3, 5, recurrent_dropout_per="gate"))
    assert not recwarn.list


def test_a_layer_has_no_word_for_its_last_output_alone(recwarn):
    lstm = exchange.model_of(Network((dataclasses.replace(lstm_layer(), last=True),)))
    assert isinstance(lstm, cylstm.LSTM)
    assert "gives its last output alone" in str(recwarn.pop(UserWarning).message)
    exchange.model_of(Network((lstm_layer(),), {"labels": ["a", "b"], "vocabulary": "{}", "nam": {}}))
    assert str(recwarn.pop(UserWarning).message).endswith("as a layer has no place for it: labels, vocabulary")


def test_a_layer_comes_back_from_its_network():
    lstm = cylstm.LSTM(3, 5, 2, bidirectional=True, bias=False, dropout=0.5, seed=1)
    again = exchange.model_of(exchange.network_of(lstm))
    assert isinstance(again, cylstm.LSTM) and again.options == lstm.options
    assert np.array_equal(again.parameters.flat, lstm.parameters.flat)


def test_a_network_keeps_its_weights_when_the_model_learns():
    model = random_model("plain")
    network = exchange.network_of(model)
    before = network.layers[0].directions[0].weight_hh.copy()
    model.parameters["lstm.weight_hh_l0"][:] = 0
    assert np.array_equal(network.layers[0].directions[0].weight_hh, before)


def test_what_comes_out_last_is_asked_for():
    model = random_model("deep, both ways")
    assert exchange.network_of(model).layers[-1].activation == "softmax"
    assert exchange.network_of(model, probabilities=False).layers[-1].activation == "linear"


def test_every_loss_with_probabilities_has_what_its_outputs_go_through():
    assert set(FINAL) == {name for name, loss in by_name.items() if loss.probabilities is not None}
    z = np.random.default_rng(2).standard_normal((6, 4))
    e = np.exp(z)
    formulas = {"softmax": e / e.sum(axis=1, keepdims=True), "sigmoid": 1 / (1 + np.exp(-z))}
    for name, activation in FINAL.items():
        np.testing.assert_allclose(by_name[name].probabilities(z), formulas[activation], rtol=1e-12)
    model = cylstm.Model(3, 5, 4, loss="ctc", seed=1)
    again = exchange.model_of(exchange.network_of(model))
    x = z[None, :, :3].astype("f4")
    assert np.array_equal(again.predict_proba(x), model.predict_proba(x))


KEPT_LOSSES = {
    "smoothed": cylstm.losses.CrossEntropy(smoothing=0.1), "ctc": cylstm.losses.CTC(blank=3),
    "cross_entropy": "cross_entropy", "binary_cross_entropy": "binary_cross_entropy", "mse": "mse", "mae": "mae",
    "huber": cylstm.losses.Huber(delta=0.5), "gaussian": cylstm.losses.Gaussian(floor=0.01),
    "quantiles": cylstm.losses.Quantiles((0.1, 0.9)),
}  # fmt: skip


@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("ending", [".onnx", ".keras"])
@pytest.mark.parametrize("name", KEPT_LOSSES)
def test_a_loss_comes_back_where_a_format_has_notes(name, ending, probabilities, tmp_path):
    """And so do labels, of outputs that are logits, too."""
    if ending == ".keras":
        pytest.importorskip("h5py")
    O = 1 if name == "binary_cross_entropy" else 4
    labels = {"smoothed": "wxyz", "cross_entropy": "wxyz", "ctc": "wxyz", "binary_cross_entropy": "ny"}.get(name)
    model = cylstm.Model(3, 5, O, loss=KEPT_LOSSES[name], labels=labels and list(labels), seed=1)
    exchange.save(model, tmp_path / f"m{ending}", probabilities=probabilities)
    again = exchange.load(tmp_path / f"m{ending}")
    assert again.config == model.config and again.loss == model.loss
    assert np.array_equal(again.parameters.flat, model.parameters.flat)
    usual = {"cross_entropy", "binary_cross_entropy", "mse"} if probabilities else {"mse"}
    assert ("loss" in exchange.network_of(model, probabilities=probabilities).notes) == (name not in usual)


def test_a_loss_that_a_format_has_no_place_for_is_told(tmp_path):
    model = cylstm.Model(3, 5, 4, loss="gaussian", seed=1)
    for ending, why in {".json": "RTNeural", ".nam": "NAM", ".h": "a C header", ".weights.h5": "weights alone"}.items():
        if ending == ".weights.h5":
            pytest.importorskip("h5py")
        with pytest.warns(UserWarning, match=rf"m{ending}: left out, as {why} .*: loss$"):
            exchange.save(model, tmp_path / f"m{ending}")
    with pytest.warns(UserWarning, match=r"as a layer has no place for it: loss$"):
        exchange.model_of(Network((lstm_layer(),), {"loss": "mae"}))


def test_arrays_of_float16_are_float32_in_every_part():
    half = [array.astype("f2") for array in arrays((20, 3), (20, 2), (20,), (3, 5), (2,), (5,), (2, 5), (4, 3), (4,))]
    direction = Direction(*half[:7])
    for part, given in ((direction, half[:7]), (Dense(*half[7:]), half[7:]), (Embedding(half[0]), half[:1])):
        found = [value for value in vars(part).values() if isinstance(value, np.ndarray)]
        assert len(found) == len(given)
        for one, other in zip(found, given, strict=True):
            assert one.dtype == np.float32 and np.array_equal(one, other)


def test_a_missing_bias_is_zero():
    weights = arrays((20, 3), (20, 5), (20, 5), (20, 5), (20,))
    layers = Recurrent((Direction(*weights[:2]),)), Recurrent((Direction(*weights[2:]),))
    lstm = exchange.model_of(Network(layers))
    assert not lstm.parameters["bias_l0"].any() and np.array_equal(lstm.parameters["bias_l1"], weights[4])


def test_a_missing_peephole_is_zero():
    """Whichever direction, or layer, has one."""
    forward, backward = arrays((20, 3), (20, 5), (20,)), arrays((20, 3), (20, 5), (20,), seed=4)
    (peephole,) = arrays((3, 5), seed=5)
    layer = Recurrent((Direction(*forward), Direction(*backward, peephole)))
    x = arrays((2, 6, 3), seed=6)[0]
    expected = [both_ways(row, forward, (*backward, None, None, peephole)) for row in x]
    np.testing.assert_allclose(exchange.model_of(Network((layer,)))(x)[0], expected, rtol=0, atol=1e-6)
    lstm = exchange.model_of(Network((lstm_layer(), lstm_layer(5, peephole=peephole))))
    assert np.array_equal(lstm.parameters["peephole_l1"], peephole) and not lstm.parameters["peephole_l0"].any()


def test_a_first_state_is_taken_over_where_there_is_one():
    (h0, c0), zeros = arrays((5,), (5,)), np.zeros(5, np.float32)
    plain = exchange.model_of(Network((lstm_layer(h0=zeros), lstm_layer(5, c0=zeros))))
    assert not plain.cell.first_state
    lstm = exchange.model_of(Network((lstm_layer(), lstm_layer(5, h0=h0, c0=c0), lstm_layer(5, c0=zeros))))
    for name, expected in {"h0_l0": zeros, "h0_l1": h0, "c0_l1": c0, "c0_l2": zeros}.items():
        assert np.array_equal(lstm.parameters[name], expected)


def lstm_layer(I=3, H=5, **options):
    weights = arrays((4 * H, I), (4 * H, H), (4 * H,))
    return Recurrent((Direction(*weights, **options),))


def merged_layer(I, merge, **options):
    return Recurrent(lstm_layer(I).directions * 2, merge=merge, **options)


def projected_layer(H):
    W, R, R_p = arrays((20, 5), (20, 2), (2, H))
    return Recurrent((Direction(W, R, projection=R_p),))


HEAD = Dense(*arrays((2, 5)))
REFUSED = {
    "no layers": (lambda: (), "network: expected layers, got none"),
    "no LSTM": (lambda: (HEAD,), "expected at least one LSTM layer, got none"),
    "no head": (lambda: (Dense(*arrays((3, 4))), lstm_layer()), "expected a dense layer behind the LSTM"),
    "widths that do not meet": (lambda: (lstm_layer(), Dense(*arrays((2, 6)))),
                               "layer 1: expected 5 inputs, as many as the layer before it gives, got 6"),
    "an activation": (lambda: (lstm_layer(), Dense(*arrays((2, 5)), activation="relu")),
                      "last layer: expected no activation, softmax or sigmoid, got relu"),
    "dense between": (lambda: (lstm_layer(), Dense(*arrays((3, 5))), lstm_layer(), HEAD), "a dense layer between"),
    "embedding behind": (lambda: (lstm_layer(), Embedding(*arrays((9, 5)))), "layer 1: expected an embedding first"),
    "last too soon": (lambda: (dataclasses.replace(lstm_layer(5), last=True), lstm_layer(5), HEAD),
                      "LSTM layer 0: expected the outputs of all steps"),
    "shapes": (lambda: (Recurrent((Direction(*arrays((20, 3), (20, 4))),)), HEAD), r"weight_hh: expected \(4\*H, H\)"),
    "a projection of no LSTM": (lambda: (lstm_layer(projection=np.ones((5, 5), "f4")), HEAD),
                                r"weight_hh: expected \(4\*H, P\), P < H, beside a projection \(5, 5\), got \(20, 5\)"),
    "a projection of other units": (lambda: (projected_layer(6), HEAD), r"a projection \(2, 6\), got \(20, 2\)"),
    "some projections": (lambda: (lstm_layer(2), projected_layer(5), Dense(*arrays((2, 2)))),
                         "LSTM layer 1: expected a projection as in the first one, 0, got 2"),
    "other merges": (lambda: (merged_layer(3, "sum"), merged_layer(5, "mean"), HEAD),
                     "LSTM layer 1: expected a merge of directions as in the first one, sum, got mean"),
    "a merge of one": (lambda: (dataclasses.replace(lstm_layer(), merge="sum"), HEAD),
                       "expected a merge of two directions, concat, sum, mean, product, got 'sum'"),
    "no merge": (lambda: (merged_layer(3, "max"), HEAD), "expected a merge of two directions, .*, got 'max'"),
    "the first residual": (lambda: (lstm_layer(5), dataclasses.replace(lstm_layer(5), residual=True),
                                    dataclasses.replace(lstm_layer(5), residual=False), HEAD),
                           "LSTM layer 1: expected outputs with no inputs added, got others"),
    "nothing below": (lambda: (merged_layer(5, "sum", residual=True), HEAD),
                      "LSTM layer 0: expected outputs with no inputs added, got others"),
    "one without": (lambda: (lstm_layer(5), lstm_layer(5), dataclasses.replace(lstm_layer(5), residual=True), HEAD),
                    "LSTM layer 1: expected outputs with its inputs added, as by the last one, got others"),
    "residuals of other widths": (lambda: (dataclasses.replace(lstm_layer(3), residual=True), HEAD),
                                  "expected 5 inputs to be added to outputs, got 3"),
    "no numbers": (lambda: (Dense(np.ones((3, 4), int)), HEAD), "weight: expected an array of real numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_model_has_is_refused_by_name(name):
    layers, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        exchange.model_of(Network(layers()))


@pytest.mark.parametrize("options, message", [
    (dict(output_size={"a": 2, "b": 3}), "expected one head, got 2: a, b"),
    (dict(output_size=2, horizon=4, loss="mse"), "horizon: expected None, got 4"),
    (dict(output_size=2, embeddings={1: (4, 2)}, loss="mse"), "embeddings: expected none of columns, got those of 1"),
])  # fmt: skip
def test_what_no_network_has_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        exchange.network_of(cylstm.Model(3, 5, **options))


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".onnx", ".nam", ".json", ".h"])
def test_a_projection_is_written_for_torch_alone(ending, tmp_path):
    """Of zeros, too, which change what the layer computes."""
    if ending in (".keras", ".weights.h5"):
        pytest.importorskip("h5py")
    model = cylstm.Model(1, 5, 1, loss="mse", proj_size=2, seed=1)
    for value in (0.0, 0.5):
        model.parameters["lstm.weight_hr_l0"][:] = value
        with pytest.raises(ValueError, match=r"projection: expected None in layer 0|expected no projection, which"):
            exchange.save(model, tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".keras", ".onnx", ".nam", ".json", ".h", ".safetensors"])
def test_residuals_and_merges_are_written_where_they_can_be(ending, tmp_path):
    if ending == ".keras":
        pytest.importorskip("h5py")
    merged = cylstm.Model(1, 5, 1, loss="mse", bidirectional=True, merge="sum", seed=1)
    residual = cylstm.Model(1, 5, 1, loss="mse", num_layers=2, residual=True, seed=1)
    for name, model in {"merge": merged, "residual": residual}.items():
        path = tmp_path / f"{name}{ending}"
        if ending == ".keras" and name == "merge":
            exchange.save(model, path)
            assert exchange.load(path).config == model.config
            continue
        with pytest.raises(ValueError, match=rf"{name}: expected|expected .*{name}|one direction, as .* has, got both"):
            exchange.save(model, path)
        assert not path.exists()


def test_formats_are_told_by_name():
    with pytest.raises(ValueError, match=r"model.xyz: expected a name that ends in .*, or format=, got neither"):
        exchange.load("model.xyz")
    with pytest.raises(ValueError, match="format: expected"):
        exchange.load("model.xyz", format="xyz")


LAYER = Direction(*arrays((20, 3), (20, 5)))


@pytest.mark.parametrize("make, message", [
    (lambda: Network(5), "layers: expected a tuple of layers, got int 5"),
    (lambda: Network((lstm_layer(), "x")), "layer 1: expected an Embedding, Dense or Recurrent, got str 'x'"),
    (lambda: Network((LAYER,)), "layer 0: expected an Embedding, Dense or Recurrent, got Direction"),
    (lambda: Network((lstm_layer(),), ["labels"]), "notes: expected a dict, got list"),
    (lambda: exchange.model_of("x"), "network: expected a Network .*, got str 'x'"),
])  # fmt: skip
def test_what_is_no_network_is_said_so(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("make, error, message", [
    (lambda: Recurrent(5), TypeError, "LSTM layer: expected a tuple of Directions, got int 5"),
    (lambda: Recurrent(arrays((20, 3), (20, 5))), TypeError, "LSTM layer: expected a tuple of Directions, got list"),
    (lambda: Recurrent((LAYER,), last="no"), TypeError, "LSTM layer's last: expected True or False, got str 'no'"),
    (lambda: Recurrent((LAYER,), activations="tanh"), TypeError, "LSTM layer's activations: expected three activ"),
    (lambda: Recurrent((LAYER,), dropout=1.0), ValueError, "LSTM layer's dropout: expected a number in .*, got 1"),
    (lambda: Recurrent((LAYER,), gate_clip=-1.5), ValueError, "LSTM layer's gate_clip: expected .*, got -1.5"),
    (lambda: Recurrent((LAYER,), gate_clip=float("nan")), ValueError, "LSTM layer's gate_clip: expected .*, got nan"),
    (lambda: Recurrent((LAYER,), cell_clip=0), ValueError, "LSTM layer's cell_clip: expected a number in .*, got 0"),
    (lambda: Recurrent((LAYER,), cell_clip="3"), TypeError, "LSTM layer's cell_clip: expected a number, got str '3'"),
    (lambda: Dense(*arrays((2, 5)), activation=5), TypeError, "dense layer's activation: expected the name of"),
    (lambda: Dense(*arrays((2, 5)), activation="swish"), ValueError, "dense layer's activation: expected one of"),
    (lambda: Dense(*arrays((2, 5)), dropout="0.5"), TypeError, "dense layer's dropout: expected a number, got str"),
    (lambda: Direction(None, LAYER.weight_hh), ValueError, "weight_ih: expected an array of real numbers, got None"),
])  # fmt: skip
def test_a_part_is_looked_at_as_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_note_is_not_taken_for_the_dropout_of_layers():
    with pytest.raises(ValueError, match=r"notes: expected no dropout, which layers have, got list \[0.1, 0.2\]"):
        Network((lstm_layer(), HEAD), {"dropout": [0.1, 0.2]})


def test_what_is_plain_is_plain_however_it_is_spelled(tmp_path):
    layers = [
        Recurrent([LAYER], activations=["sigmoid", "tanh", ("tanh",)]),
        Dense(*arrays((2, 5)), None, ("elu", 1.0)),
    ]
    network = Network(layers)
    assert network.layers[0] == Recurrent((LAYER,)) and network.layers[1].activation == "elu"
    exchange.write(network, tmp_path / "m.json")  # which has neither other cells nor numbers of an activation
    again = exchange.read(tmp_path / "m.json")
    assert again.layers[1].activation == "elu" and np.array_equal(
        again.layers[0].directions[0].weight_hh, LAYER.weight_hh
    )


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".onnx", ".nam", ".json", ".h", ".safetensors"])
def test_only_networks_are_written(ending, tmp_path):
    for wrong in (cylstm.LSTM(3, 5), (lstm_layer(),), None):
        with pytest.raises(TypeError, match="network: expected a Network"):
            exchange.write(wrong, tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".h5", ".onnx", ".nam", ".json", ".safetensors", ".pt", ".h"])
@pytest.mark.parametrize("name", ["a\0b", 5, *(["a\ud800b"] if os.name != "nt" else [])])
def test_a_path_is_one(ending, name, tmp_path):
    format, path = exchange.format_of(f"x{ending}"), name if name == 5 else f"{tmp_path}/{name}{ending}"
    error, got = (TypeError, "int 5") if name == 5 else (ValueError, "str '.*")
    if format != "c_header":
        with pytest.raises(error, match=rf"^(path|source): expected a path, got {got}"):
            exchange.read(path, format=format)
    if ending not in (".h5", ".pt"):
        with pytest.raises(error, match=f"^path: expected a path, got {got}"):
            exchange.save(cylstm.LSTM(3, 5), path, format=format)


NOTED = {".nam": "NAM", ".json": "RTNeural", ".h": "a C header", ".safetensors": "a state dict"}


@pytest.mark.parametrize("ending", NOTED)
def test_what_a_file_has_no_place_for_is_told(ending, tmp_path):
    layers = (dataclasses.replace(lstm_layer(), dropout=0.5), Dense(*arrays((2, 5))))
    notes = {"labels": ["a", "b"], "vocabulary": "{}", "left_out": ["x"], "nam": {"sample_rate": 48000}, "a\nb": 1}
    with pytest.warns(UserWarning) as told:
        exchange.write(Network(layers, notes), tmp_path / f"m{ending}")
    (one,) = told
    names = [name for name in ("labels", "vocabulary", "nam", "a\\nb", "dropout") if (name, ending) != ("nam", ".nam")]
    expected = f"m{ending}: left out, as {NOTED[ending]} has no place for it: {', '.join(names)}"
    assert str(one.message).endswith(expected) and one.filename == __file__


def test_flags_are_true_or_false(tmp_path):
    for call in (lambda: exchange.save(cylstm.LSTM(3, 5), tmp_path / "m.json", state_dict="False"),
                 lambda: exchange.save(cylstm.LSTM(3, 5), tmp_path / "m.json", probabilities="False"),
                 lambda: exchange.network_of(cylstm.Model(3, 5, 2), probabilities=0),
                 lambda: exchange.read({}, format="pytorch", last=0)):  # fmt: skip
        with pytest.raises(TypeError, match=r"^\w+: expected True or False, got (str 'False'|int 0)"):
            call()
