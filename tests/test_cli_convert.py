"""`cylstm convert`: models of ours and of other systems, by their files' endings or by name."""

import os
from pathlib import Path

import numpy as np
import pytest
from commands import refused

import cylstm
from cylstm import exchange
from cylstm.cli import main
from cylstm.exchange.network import Network

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def model():
    """A model of text, whose file is model.safetensors."""
    vocabulary = cylstm.Vocabulary.from_text("the cat sat on a mat")
    model = cylstm.Model(len(vocabulary), 5, len(vocabulary), num_layers=2, dropout=0.25, embedding_size=3,
                         vocabulary=vocabulary, seed=3)  # fmt: skip
    model.save("model.safetensors")
    return model


def test_there_and_back(model, capsys):
    assert main(["convert", "model.safetensors", "model.onnx"]) == 0
    assert capsys.readouterr().out == "wrote model.onnx (onnx), from model.safetensors (cylstm)\n"
    assert main(["convert", "model.onnx", "again.safetensors"]) == 0
    again = cylstm.Model.load("again.safetensors")
    assert again.config == model.config and again.vocabulary == model.vocabulary
    assert np.array_equal(again.parameters.flat, model.parameters.flat)


def test_what_is_left_out_is_said_in_a_line(capsys):
    cylstm.Model(3, 5, 2, loss="mse", weight_drop=0.5).save("model.safetensors")
    assert main(["convert", "model.safetensors", "model.onnx"]) == 0
    assert capsys.readouterr().err == "cylstm: weight_drop: of training alone, left out of the network\n"


def test_formats_by_name_and_options(model, capsys):
    options = ["--to", "onnx", "--raw", "--writing", "states=false", "--writing", "dtype=float64"]
    assert main(["convert", "model.safetensors", "file", *options]) == 0
    network = exchange.read("file", format="onnx")
    assert network.layers[-1].activation == "linear" and network.dtype == np.float64
    assert main(["convert", "file", "model.onnx", "--from", "onnx", "--writing", "dtype=float32",
                 "--reading", "output=y"]) == 0  # fmt: skip
    assert np.array_equal(exchange.load("model.onnx").parameters.flat, model.parameters.flat)


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_a_loss_and_labels_go_there_and_back(raw, capsys):
    given = cylstm.Model(3, 5, 4, loss=cylstm.losses.CrossEntropy(smoothing=0.25), labels=list("abcd"), seed=1)
    given.save("model.safetensors")
    assert main(["convert", "model.safetensors", "model.onnx", *raw]) == 0
    assert main(["convert", "model.onnx", "again.safetensors"]) == 0
    again = cylstm.Model.load("again.safetensors")
    assert again.config == given.config and not capsys.readouterr().err
    assert np.array_equal(again.parameters.flat, given.parameters.flat)


def test_ours_into_ours_is_a_copy(capsys):
    given = cylstm.Model(7, 5, 7, embedding_size=5, tied=True, embedding_dropout=0.5, labels=list("abcdefg"), seed=1,
                         loss=cylstm.losses.CrossEntropy(smoothing=0.25))  # fmt: skip
    given.save("model.safetensors")
    assert main(["convert", "model.safetensors", "again.safetensors"]) == 0
    again = cylstm.Model.load("again.safetensors")
    assert again.config == given.config and again.tied and again.loss == given.loss and not capsys.readouterr().err
    assert np.array_equal(again.parameters.flat, given.parameters.flat)


def test_what_a_model_of_ours_has_no_place_for_is_told(capsys):
    exchange.save(cylstm.Model(1, 5, 1, loss="mse", seed=1), "amp.nam", sample_rate=48000)
    assert main(["convert", "amp.nam", "model.safetensors"]) == 0
    assert capsys.readouterr().err == "cylstm: amp.nam: left out, as a model of ours has no place for it: nam\n"


def test_logarithms_that_become_probabilities_are_told_once(model, capsys):
    network = exchange.network_of(model)
    exchange.write(Network(network.layers, {**network.notes, "log": True}), "logs.onnx")
    assert main(["convert", "logs.onnx", "ours.safetensors"]) == 0
    assert capsys.readouterr().err == (
        "cylstm: network: outputs are probabilities, where the file that was read has their logarithms (log)\n"
    )
    assert main(["convert", "logs.onnx", "again.onnx"]) == 0
    assert not capsys.readouterr().err and exchange.read("again.onnx").notes["log"]


def test_weights_that_are_not_read_are_told(capsys):
    model = cylstm.Model(3, 5, 2, loss="mse", after=[cylstm.Dense(4, "linear")], seed=1)
    exchange.save(model, "theirs.safetensors", format="pytorch")
    arguments = ["convert", "theirs.safetensors", "--from", "pytorch", "--reading", "head=after.0."]
    for target in ("out.onnx", "out.safetensors", "out.h"):
        assert main([*arguments, target]) == 0
        told = "cylstm: theirs.safetensors: left out, as no option names it: head.bias, head.weight\n"
        assert capsys.readouterr().err == told


def test_a_state_dict_of_rtneural_takes_pytorchs_options(capsys):
    model = cylstm.Model(3, 5, 2, before=[cylstm.Dense(4, "tanh")], dtype="float64", seed=1)
    model.save("model.safetensors")
    assert main(["convert", "model.safetensors", "m.json", "--writing", "state_dict=true"]) == 0
    assert capsys.readouterr().err == (
        "cylstm: m.json: left out, as RTNeural has no place for it: tanh of before.0, softmax of head\n"
    )
    given = {"head": "head.", "before": '{"before.0.": "tanh"}', "final": "softmax", "dtype": "float64"}
    reading = [text for name, value in given.items() for text in ("--reading", f"{name}={value}")]
    assert main(["convert", "m.json", "out.safetensors", *reading]) == 0
    again = cylstm.Model.load("out.safetensors")
    assert again.config == model.config and np.array_equal(again.parameters.flat, model.parameters.flat)
    capsys.readouterr()
    exchange.save(model, "m.json")  # its layers are named there
    assert refused(capsys, "convert", "m.json", "out.onnx", "--reading", "head=head.") == (
        "m.json: expected a state dict for head, got a file that names its layers")  # fmt: skip


@pytest.mark.parametrize(("text", "states"), [("False", False), ("false", False), ("True", True), ("TRUE", True)])
def test_flags_are_what_they_say(text, states, model):
    assert main(["convert", "model.safetensors", "out.onnx", "--writing", f"states={text}"]) == 0
    assert (b"h0" in Path("out.onnx").read_bytes()) == states


def test_texts_are_texts_and_numbers_numbers(capsys):
    amplifier = cylstm.Model(1, 5, 1, loss="mse", seed=1)
    amplifier.save("model.safetensors")
    writing = ["--writing", "sample_rate=44.1e3", "--writing", 'metadata={"name": "1"}']
    assert main(["convert", "model.safetensors", "amp.nam", *writing]) == 0
    assert exchange.read("amp.nam").notes["nam"] == {"version": "0.5.4", "metadata": {"name": "1"},
                                                     "sample_rate": 44100}  # fmt: skip
    exchange.save(amplifier, "m.onnx")
    capsys.readouterr()
    assert "'1'" in refused(capsys, "convert", "m.onnx", "out.h", "--reading", "output=1")  # as many are called


@pytest.mark.parametrize(("arguments", "message"), [
    (["absent.onnx", "out.safetensors"], "absent.onnx: No such file or directory"),
    (["absent.safetensors", "out.onnx"], "absent.safetensors: No such file or directory"),
    (["corpus.txt", "out.onnx"], "corpus.txt: expected a name that ends in .safetensors, "),
    (["model.safetensors", "out.xyz"], "out.xyz: expected a name that ends in .safetensors, "),
    (["corpus.txt", "out.onnx", "--from", "onnx"], "corpus.txt: expected an ONNX file, got one that is truncated or"),
    (["model.safetensors", "out.onnx", "--to", "xyz"], "--to: expected one of 'cylstm', "),
    (["model.safetensors", "./model.safetensors"], "IN, OUT: expected different files, got model.safetensors twice"),
    (["model.safetensors", "absent/out.onnx"], "OUT: expected a file in an existing folder that can be written to"),
    (["model.safetensors", "out.onnx", "--writing", "length=true"],
     "--writing: expected NAME=VALUE of states, lengths, clip, dtype, got 'length=true'"),
    (["model.safetensors", "out.onnx", "--writing", "states"], "--writing: expected NAME=VALUE of states,"),
    (["model.safetensors", "out.onnx", "--reading", "output=y"],
     "--reading: expected nothing for cylstm, which has no options, got 'output=y'"),
    (["model.safetensors", "out.onnx", "--writing", "dtype=int8"], "dtype: expected"),
    (["model.safetensors", "out.onnx", "--writing", "states=no"],
     "--writing states: expected true or false, got 'no'"),
    (["model.safetensors", "out.onnx", "--writing", "states=0"], "--writing states: expected true or false, got '0'"),
    (["model.safetensors", "out.onnx", "--writing", "states=null"], "--writing states: expected true or false, got"),
    (["model.safetensors", "out.onnx", "--writing", "clip=true", "--writing", "clip=false"],
     "--writing: expected one clip, got 'clip=false' beside another"),
    (["model.safetensors", "out.nam", "--writing", "sample_rate=48k"], "sample_rate: expected a number, got str '48k'"),
    (["model.safetensors", "out.nam", "--writing", "metadata=5"], "metadata: expected a dict, got str '5'"),
    (["theirs.onnx", "out.safetensors", "--raw"],
     "--raw: expected a model of ours and a file of another system, got onnx and cylstm"),
    (["theirs.onnx", "out.keras", "--raw"], "--raw: expected a model of ours and a file of another system, got onnx"),
    (["model.safetensors", "out.safetensors", "--raw"], "--raw: expected a model of ours and a file of another system"),
    (["model.safetensors", "out.h", "--writing", "nam=x"], "--writing: expected NAME=VALUE of name, got 'nam=x'"),
    (["model.h", "out.onnx"], "model.h: format: expected one that can be read, got c_header, which is only written"),
    (["model.safetensors"], "the following arguments are required: OUT (see cylstm convert --help)"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(arguments, message, model, capsys):
    assert refused(capsys, "convert", *arguments).startswith(message)
    assert not os.path.exists("out.onnx") and not os.path.exists("out.safetensors")


MODELS = {"widths": dict(hidden_size=(5, 17, 3)), "begun": dict(first_state=True), "clipped": dict(gate_clip=4.0),
          "double": dict(dtype="float64")}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), [
    (["widths.safetensors", "out.onnx"], "out.onnx: LSTM layers: expected one size, so that their states are one "
     "array, or --writing states=false, got directions x units of 1 x 3, 1 x 5, 1 x 17"),
    (["begun.safetensors", "out.onnx"],
     "out.onnx: LSTM layer 0: expected no first state of its own, or --writing states=false, got one"),
    (["clipped.safetensors", "out.onnx"], "out.onnx: gate_clip: expected None in layer 0 without --writing clip=true,"),
    (["double.safetensors", "out.onnx"], "dtype: expected a network in float32, or --writing dtype=float32 to round"),
    (["torchs.safetensors", "out.onnx"], "torchs.safetensors: expected a cylstm model, got safetensors without its "
     "header; --from pytorch reads weights of PyTorch"),
    (["torchs.safetensors", "out.safetensors", "--from", "pytorch"], "torchs.safetensors: expected a dense layer "
     "behind the LSTM, a model's head, got none (--reading head=PREFIX names one)"),
    (["double.safetensors", "out.onnx", "--from", "pytorch"], "double.safetensors: expected weights of PyTorch, got a "
     "file of cylstm's own, which --from cylstm reads"),
    (["double.safetensors", "out.pt"], "out.pt: expected a name that ends in .safetensors, with --to pytorch, got one"),
])  # fmt: skip
def test_what_helps_is_said_as_the_shell_has_it(arguments, message, capsys):
    for name, options in MODELS.items():
        model = cylstm.Model(**{"input_size": 3, "hidden_size": 5, "output_size": 2, "loss": "mse", **options}, seed=1)
        model.save(f"{name}.safetensors")
    exchange.save(cylstm.LSTM(3, 5, seed=1), "torchs.safetensors", format="pytorch")
    assert refused(capsys, "convert", *arguments).startswith(message)
    assert not os.path.exists(arguments[1])


@pytest.mark.parametrize(("name", "content", "message"), [
    ("m.json", "{}", "expected in_shape and layers, or a state dict's tensors by their names, got nothing"),
    ("m.json", '{"x": "y"}', "expected in_shape and layers, or a state dict's tensors by their names, got x"),
    ("m.keras", "", "expected a file of Keras, got an empty one"),
    ("m.keras", "hello", "expected an HDF5 file of Keras, got a damaged one or another (Unable to "),
    ("m.keras", "PK\3\4", "expected a .keras file, got a damaged archive (File is not a zip file)"),
])  # fmt: skip
def test_a_file_without_a_model_is_said_so(name, content, message, capsys):
    if name == "m.keras":
        pytest.importorskip("h5py")
    Path(name).write_text(content)
    assert refused(capsys, "convert", name, "out.onnx").startswith(f"{name}: {message}")


def test_what_a_model_of_ours_cannot_be_is_refused(model, capsys):
    network = exchange.network_of(model)
    exchange.write(Network(network.layers[1:3]), "layer.onnx")
    assert refused(capsys, "convert", "layer.onnx", "out.safetensors") == (
        "layer.onnx: expected a dense layer behind the LSTM, a model's head, got none")  # fmt: skip
    cylstm.Model(3, 4, {"a": 2, "b": 1}, seed=1).save("two.safetensors")
    assert refused(capsys, "convert", "two.safetensors", "out.onnx") == (
        "two.safetensors: model: expected one head, got 2: a, b")  # fmt: skip
