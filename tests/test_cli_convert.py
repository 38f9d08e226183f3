"""`cylstm convert`: models of ours and of other systems, by their files' endings or by name."""

import os

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
    (["model.safetensors"], "the following arguments are required: OUT (see cylstm convert --help)"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(arguments, message, model, capsys):
    assert refused(capsys, "convert", *arguments).startswith(message)
    assert not os.path.exists("out.onnx") and not os.path.exists("out.safetensors")


def test_what_a_model_of_ours_cannot_be_is_refused(model, capsys):
    network = exchange.network_of(model)
    exchange.write(Network(network.layers[1:3]), "layer.onnx")
    assert refused(capsys, "convert", "layer.onnx", "out.safetensors") == (
        "layer.onnx: expected a dense layer behind the LSTM, a model's head, got none")  # fmt: skip
    cylstm.Model(3, 4, {"a": 2, "b": 1}, seed=1).save("two.safetensors")
    assert refused(capsys, "convert", "two.safetensors", "out.onnx") == (
        "two.safetensors: model: expected one head, got 2: a, b")  # fmt: skip
