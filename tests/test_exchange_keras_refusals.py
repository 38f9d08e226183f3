"""What a Keras file may say that a network does not have: refused by its name, or told."""

import json
import re
import warnings

import pytest
from keras_by_hand import archive, arrays, by_layers, call, dense, layer, lstm, old, sequential

from cylstm import exchange
from fuzz import keras_files

CONTENT = arrays(embedding=(7, 2), lstm=(2, 4), dense=(4, 3))
TABLE = layer("Embedding", name="embedding", input_dim=7, output_dim=2)


def told_by(config, path, content=CONTENT, **options):
    """What reading a file with this configuration warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        network = exchange.read(archive(path / "m.keras", config, content, **options))
    return network, [str(one.message).removeprefix(f"{path / 'm.keras'}: ") for one in told]


LAYERS = {
    "recurrent activation": (lstm(4, recurrent_activation="silu"),
                             "lstm: expected recurrent_activation of linear, relu, .*, got silu"),
    "activation": (lstm(4, activation="softmax"),
                   "lstm: expected activation of linear, relu, tanh, sigmoid, elu, softplus, softsign, selu, "
                   "exponential, relu6, hard_tanh, leaky_relu, hard_sigmoid, or a layer of ReLU, LeakyReLU, ELU, "
                   "ThresholdedReLU, got softmax"),
    "an activation that is a layer": (lstm(4, activation=layer("Softmax", name="s", axis=-1)),
                                      "lstm: expected activation of linear, .*, or a layer of ReLU, .*, got Softmax"),
    "of another formula": (lstm(4, activation="mish"), "lstm: expected activation of linear, .*, got mish"),
    "no activation": (layer("LSTM", name="lstm", units=4),
                      "lstm: expected recurrent_activation, by its name, got NoneType None"),
    "backwards": (lstm(4, go_backwards=True, return_sequences=True),
                  "lstm: expected return_sequences False with go_backwards, .*, got bool True"),
    "nearly backwards": (lstm(4, go_backwards=1), "lstm: expected go_backwards False, got int 1"),
    "time first": (lstm(4, time_major=True), "lstm: expected time_major False"),
    "option": (lstm(4, zoneout=0.5), "lstm: expected no option 'zoneout', which is not known here, got float 0.5"),
    "units": (lstm("4"), "lstm: units: expected an integer, got str '4'"),
    "other units": (lstm(5), r"cell/vars/0: expected shape \(any, 20\), got \(2, 16\)"),
    "no bias": (lstm(4, use_bias=False), "lstm: expected 2 arrays in cell/vars"),
    "a bias of another kind": (lstm(4, use_bias="no"), "lstm: expected use_bias true or false, got no"),
    "quantised": (lstm(4, dtype={"config": {"name": "int8_from_float32"}}), "lstm: expected dtype one of float16"),
    "another's": (lstm(4) | {"module": "mine"}, "lstm: expected a layer of Keras, got LSTM of mine"),
    "registered": (lstm(4) | {"registered_name": "My>LSTM"}, "lstm: expected a layer of Keras, got My>LSTM of keras"),
    "dropout": (lstm(4, dropout=1.5), r"lstm: dropout: expected a number in \[0, 1\), got 1.5"),
    "GRU": (layer("GRU", name="gru", units=4), "gru: expected a layer of InputLayer, .*, got GRU"),
    "two outputs": (layer("Bidirectional", name="both", merge_mode=None, layer=lstm(4)),
                    "both: expected merge_mode concat, sum, ave, mul, got NoneType None"),
    "a merge of no mode": (layer("Bidirectional", name="both", merge_mode=["sum"], layer=lstm(4)),
                           "both: expected merge_mode concat, sum, ave, mul, got list"),
    "both backwards": (layer("Bidirectional", name="both", layer=lstm(4, "inner", go_backwards=True)),
                       "inner: expected go_backwards False, got bool True"),
    "otherwise backwards": (layer("Bidirectional", name="both", go_backwards=True, layer=lstm(4)),
                            "both: expected go_backwards False, got bool True"),
    "other outputs": (layer("Bidirectional", name="both", return_sequences=False, layer=lstm(4)),
                      "both: expected return_sequences True, got bool False"),
    "of both": (layer("Bidirectional", name="a", layer=layer("Bidirectional", name="b", layer=lstm(4))),
                "b: expected an LSTM layer, got Bidirectional"),
    "of GRUs": (layer("Bidirectional", name="both", layer=layer("GRU", name="gru", units=4)),
                "gru: expected an LSTM layer, got GRU"),
    "unequal": (layer("Bidirectional", name="both", layer=lstm(4), backward_layer=lstm(5, go_backwards=True)),
                "both: expected two LSTM layers of the same options"),
    "two forwards": (layer("Bidirectional", name="both", layer=lstm(4), backward_layer=lstm(4)),
                     "lstm: expected go_backwards True, got bool False"),
    "no config": ({"class_name": "LSTM"}, "LSTM: expected config in the configuration, got NoneType None"),
    "no layer": ("LSTM", "a layer: expected class_name in the configuration, got NoneType None"),
    "name": (lstm(4, name="a\nb"), r"LSTM: expected a name, got str 'a\\nb'"),
    "embedding behind": (layer("Embedding", name="e", input_dim=7, output_dim=2),
                         "e: expected an embedding first of all layers, got one behind embedding"),
    "ragged": (layer("InputLayer", name="in", ragged=True), "in: expected ragged false, got bool True"),
    "conv over time": (layer("TimeDistributed", name="td", layer=layer("Conv1D", name="c")),
                       "td: expected a Dense layer in it, got Conv1D"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_no_network_has(name, tmp_path):
    one, message = LAYERS[name]
    path = archive(tmp_path / "m.keras", sequential(TABLE, one, dense(3)), CONTENT)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{message}"):
        exchange.load(path)


def test_files_of_keras_1_are_refused(tmp_path):
    path = old(tmp_path / "m.h5", sequential(lstm(4)), by_layers(arrays(lstm=(2, 4))), "1.2.2")
    with pytest.raises(ValueError, match="expected a file of Keras 2 or 3, got one of Keras 1"):
        exchange.load(path)


ACTIVATIONS = {
    "gelu": dense(3, activation="gelu"),  # by erf
    "mish": dense(3, activation="mish"),
    "a function": dense(3, activation={"class_name": "function", "config": "relu", "module": "builtins"}),
    "a list": dense(3, activation=["relu"]),
    "a falling LeakyReLU": dense(3, activation=layer("LeakyReLU", name="a", alpha=-0.3)),
    "a slope of text": dense(3, activation=layer("LeakyReLU", name="a", alpha="0.3")),
    "both names": dense(3, activation=layer("LeakyReLU", name="a", alpha=0.01, negative_slope=0.2)),
    "ELU": dense(3, activation=layer("ELU", name="a", alpha=1e9)),
    "a bounded ReLU": dense(3, activation=layer("ReLU", name="a", max_value=5.0)),
    "a bounded leaky ReLU": dense(3, activation=layer("ReLU", name="a", max_value=6.0, negative_slope=0.1)),
    "a threshold": dense(3, activation=layer("ReLU", name="a", threshold=0.5)),
    "Softmax over steps": dense(3, activation=layer("Softmax", name="a", axis=1)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_another_formula(name, tmp_path):
    with pytest.raises(
        ValueError, match=r"(dense|a): expected (an activation of|one of neg|a number for|the alpha|ReLU with|Soft)"
    ):
        exchange.read(archive(tmp_path / "m.keras", sequential(TABLE, lstm(4), ACTIVATIONS[name]), CONTENT))


@pytest.mark.parametrize("one, ours", [
    (layer("LeakyReLU", name="a", negative_slope=0.01), "leaky_relu"),
    (layer("LeakyReLU", name="a", alpha={"class_name": "__numpy__", "config": {"value": 0.009999999776482582}}),
     "leaky_relu"),
    (layer("ReLU", name="a", negative_slope=0.0, max_value=None, threshold=0.0), "relu"),
    (layer("ReLU", name="a"), "relu"), (layer("ELU", name="a", alpha=1.0), "elu"),
    (layer("Softmax", name="a", axis=-1), "softmax"), (layer("Activation", name="a", activation="swish"), "silu"),
    (layer("Activation", name="a", activation="linear"), "linear"),
])  # fmt: skip
def test_layers_that_are_activations(one, ours, tmp_path):
    network, told = told_by(sequential(TABLE, lstm(4), dense(3), one), tmp_path)
    assert network.layers[-1].activation == ours and not told
    if ours != "linear":
        for others in ([lstm(4), one, dense(3)], [lstm(4), dense(3, activation="tanh"), one]):
            with pytest.raises(ValueError, match="a: expected a dense layer without an activation before it"):
                told_by(sequential(TABLE, *others), tmp_path)


def functional(*calls, inputs=(["ids", 0, 0],), outputs=("dense", 0, 0)):
    parts = [layer("InputLayer", name="ids"), TABLE, lstm(4), dense(3)]
    config = sequential(*(part | one for part, one in zip(parts, calls, strict=True)), class_name="Functional")
    config["config"] |= {"input_layers": list(inputs), "output_layers": list(outputs)}
    return config


HALVES = [("mixed_bfloat16", "mixed_bfloat16"), ("float16", "float16"), ("mixed_float16", "mixed_float16")]


@pytest.mark.parametrize("policy, name", [*HALVES, ({"class_name": "DTypePolicy", "config": {"name": "mixed_bfloat16"}},
                                                    "mixed_bfloat16")])  # fmt: skip
def test_half_precision_is_told(policy, name, tmp_path):
    layers = TABLE, lstm(4, dtype=policy), layer("Dropout", name="d", rate=0.5, dtype=policy), dense(3)
    network, told = told_by(sequential(*layers), tmp_path)
    assert told == [f"computed in half precision there ({name}), in float32 here"] and network.dtype == "float32"
    _, told = told_by(sequential(TABLE, lstm(4, dtype="float32"), dense(3, dtype={"name": "float64"})), tmp_path)
    assert not told


CHAIN = [call("ids"), call("embedding", "ids"), call("lstm", "embedding"), call("dense", "lstm")]
CHAINS = {
    "a branch": (dict(calls=[*CHAIN[:3], call("dense", "embedding")]), "embedding: expected one layer behind it"),
    "two inputs": (dict(calls=[*CHAIN[:3], call("dense", "lstm", "embedding")]), "dense: expected one input"),
    "a state": (dict(calls=[*CHAIN[:3], call("dense", "lstm", tensor=1)]), "dense: expected one input, the first"),
    "another call": (dict(calls=[*CHAIN[:3], call("dense", "lstm", number=1)]), "dense: expected one input"),
    "in training": (dict(calls=[*CHAIN[:2], call("lstm", "embedding", training=True), CHAIN[3]]),
                    "lstm: expected a call without training, got bool True"),
    "a mask": (dict(calls=[*CHAIN[:2], call("lstm", "embedding", mask=["ids", 0, 0]), CHAIN[3]]),
               "lstm: expected a call without mask"),
    "called twice": (dict(calls=[*CHAIN[:3], {"name": "dense", "inbound_nodes": [[["lstm", 0, 0]]] * 2}]),
                     "dense: expected it to be called once, got 2 times"),
    "round": (dict(calls=[CHAIN[0], call("embedding", "lstm"), call("lstm", "embedding"), CHAIN[3]]),
              "Functional: expected a chain of layers that ends with dense, got one that ends with ids"),
    "one name": (dict(calls=[*CHAIN[:3], call("lstm", "embedding")]), "lstm: expected a name of its own, got it twice"),
    "a middle": (dict(calls=CHAIN, outputs=("lstm", 0, 0)), "expected a chain of layers that ends with lstm"),
    "outputs": (dict(calls=CHAIN, outputs=(["lstm", 0, 0], ["dense", 0, 0])), "expected one of output_layers"),
    "no inputs": (dict(calls=CHAIN, inputs=()), "expected one of input_layers"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_functional_models_that_are_no_chain(name, tmp_path):
    options, message = CHAINS[name]
    with pytest.raises(ValueError, match=message):
        told_by(functional(*options.pop("calls"), **options), tmp_path)


def changed_somewhere(value):
    """A piece of JSON with each of its parts, in turn, replaced by each of some others, or gone."""
    for other in (None, True, -1, 3, 0.5, 1e400, "x", "LSTM", [], ["x"], {}, {"config": 1}):
        yield other
    for key in list(value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
        for other in changed_somewhere(value[key]):
            copy = value.copy()
            copy[key] = other
            yield copy
        copy = value.copy()
        del copy[key]
        yield copy


@pytest.mark.parametrize("n", range(len(keras_files.seeds()) - 2))
def test_a_configuration_with_anything_in_any_place_is_read_or_refused(n):
    seed = keras_files.seeds()[n]
    tried = [bytes([seed[0]]) + json.dumps(config).encode() for config in changed_somewhere(json.loads(seed[1:]))]
    assert len(tried) > 1000
    for one in tried:
        keras_files.keras(one)  # a ValueError, or nothing


def test_calls_of_keras_2(tmp_path):
    pairs = (("ids", None), ("embedding", "ids"), ("lstm", "embedding"), ("dense", "lstm"))
    calls = [{"name": name, "inbound_nodes": [[[before, 0, 0, {"training": False}]]] if before else []}
             for name, before in pairs]  # fmt: skip
    network, told = told_by(functional(*calls), tmp_path, version="2.15.0")
    assert len(network.layers) == 3 and not told


TOLD = {
    "dropouts": ([TABLE, layer("Dropout", name="d", rate=0.5), lstm(4, dropout=0.1, recurrent_dropout=0.2),
                  layer("SpatialDropout1D", name="s", rate=0.3), dense(3)],
                 "dropout 0.1 of lstm, recurrent_dropout 0.2 of lstm, SpatialDropout1D s"),
    "noise": ([TABLE, lstm(4), layer("GaussianNoise", name="g", stddev=0.1), dense(3)], "GaussianNoise g"),
    "steps share a mask": ([TABLE, lstm(4), layer("Dropout", name="d", rate=0.5, noise_shape=[None, 1, 4]), dense(3)],
                           "d of 0.5"),
    "before an activation": ([TABLE, lstm(4), dense(3), layer("Dropout", name="d", rate=0.5),
                              layer("Activation", name="a", activation="tanh")], "dropout 0.5 before a"),
    "regularised": ([TABLE, lstm(4, kernel_regularizer=layer("L2", l2=0.1)),
                     dense(3, bias_constraint="x", trainable=False)],
                    "kernel_regularizer of lstm, bias_constraint of dense, trainable=False of dense"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_what_training_alone_knows_is_told(name, tmp_path):
    layers, message = TOLD[name]
    _, told = told_by(sequential(*layers), tmp_path)
    assert len(told) == 1 and told[0].startswith("left out, as training alone knows it: ") and message in told[0]


def test_masks_and_states_are_the_callers(tmp_path):
    config = sequential(layer("Masking", name="m", mask_value=0.0), lstm(4, stateful=True), dense(3))
    _, told = told_by(config, tmp_path, arrays(lstm=(2, 4), dense=(4, 3)))
    assert told == ["the state of lstm, which is stateful, is yours to hand on; "
                    "masks (Masking m) are yours to give, by lengths= or mask="]  # fmt: skip


def test_dropout_where_a_network_has_it(tmp_path):
    layers = [TABLE, lstm(4), layer("Dropout", name="d", rate=0.25), dense(3), layer("Dropout", name="e", rate=0.5)]
    network, told = told_by(sequential(*layers), tmp_path)
    assert [layer.dropout for layer in network.layers[1:]] == [0.25, 0.5] and not told
    behind, told = told_by(sequential(*layers, layer("ReLU", name="r")), tmp_path)  # where it makes no difference
    assert (behind.layers[-1].activation, behind.layers[-1].dropout) == ("relu", 0.5) and not told
    got = "got 0.25 behind LSTM layer 0, 0.5 behind the last dense layer: others are left out"
    with pytest.warns(UserWarning, match=f"expected one dropout between all LSTM layers, .*, {got}"):
        exchange.model_of(network)
