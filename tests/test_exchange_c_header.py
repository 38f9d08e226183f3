"""C headers: compiled, run, and held to the model's own outputs."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from lstm_by_hand import lstm_layer
from test_exchange import arrays

import cylstm
from cylstm import exchange
from cylstm.exchange.network import Dense, Direction, Network, Recurrent

COMPILER = shutil.which(os.environ.get("CC", "cc"))

# As the header says it is used: steps from standard input, outputs to standard output.
PROGRAM = """\
#include <stdio.h>
#include "net.h"

int main(void)
{
    net_state state;
    REAL y[net_outputs];
    INPUT;
    for (int sequence = 0; sequence < 2; sequence++) {
        net_reset(&state);
        for (int t = 0; t < STEPS; t++) {
            if (fread(GIVEN, 1, stdin) != 1) return 1;
            net_step(&state, x, y);
            fwrite(y, sizeof y, 1, stdout);
        }
    }
    return 0;
}
"""


def run_in_c(folder, x, real, ids=False):
    """Outputs of two sequences x (2, T, ...), as a program computes them that includes net.h."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    given, declared = ("&x, sizeof x", "int x") if ids else ("x, sizeof x", f"{real} x[net_inputs]")
    text = PROGRAM.replace("REAL", real).replace("STEPS", str(x.shape[1]))
    text = text.replace("INPUT", declared).replace("GIVEN", given)
    (folder / "main.c").write_text(text)
    command = [COMPILER, "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "main.c", "-o", "main", "-lm"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    if shutil.which("c++"):
        subprocess.run(["c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "main.c"], cwd=folder, check=True)
    run = subprocess.run(
        [str(folder / "main")], input=np.ascontiguousarray(x).tobytes(), capture_output=True, check=True
    )
    outputs = np.frombuffer(run.stdout, "f4" if real == "float" else "f8")
    return outputs.reshape(2, x.shape[1], -1)


ACTIVATIONS = ["linear", "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus", "softsign", "gelu_tanh", "silu"]
NUMBERED = [("leaky_relu", 0.3), ("elu", 0.6), "hard_sigmoid", ("hard_sigmoid", 0.3, 0.7), "hard_tanh", "relu6", "selu",
               "thresholded_relu", ("thresholded_relu", 0.2), ("affine", 0.5, -0.3), ("affine", 1e-5, 1e-7),
               ("affine", 1e5, 0.0), ("scaled_tanh", 1.7, 0.6), "exponential"]  # fmt: skip
MODELS = {
    "plain": dict(output_size=2, loss="mse"),
    "deep": dict(output_size=4, num_layers=3, head_bias=False),
    "double": dict(output_size=1, loss="binary_cross_entropy", dtype="float64", num_layers=2),
    "widths": dict(output_size=2, loss="mse", hidden_size=(5, 17, 3)),
    "dense": dict(output_size=2, loss="mse", before=[cylstm.Dense(4 + n, name) for n, name in enumerate(ACTIVATIONS)],
                  after=[cylstm.Dense(5, "tanh", bias=False)]),
}  # fmt: skip


def random_model(name, rng):
    model = cylstm.Model(3, **{"hidden_size": 5, **MODELS[name]})
    model.parameters.flat = rng.uniform(-0.8, 0.8, model.parameters.size)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_c_gives_the_models_outputs(name, rng, tmp_path):
    model = random_model(name, rng)
    exchange.save(model, tmp_path / "net.h", name="net")
    x = rng.standard_normal((2, 40, 3)).astype(model.dtype)
    expected = model(x)[0] if model.loss.name == "mse" else model.predict_proba(x)
    got = run_in_c(tmp_path, x, "double" if name == "double" else "float")
    np.testing.assert_allclose(got.ravel(), expected.ravel(), rtol=0, atol=1e-14 if name == "double" else 1e-6)


@pytest.mark.parametrize("name", NUMBERED)
def test_c_gives_each_activations_outputs(name, rng, tmp_path):
    model = cylstm.Model(3, 5, 2, loss="mse", before=[cylstm.Dense(6, "linear")], after=[cylstm.Dense(40, name)])
    model.parameters.flat = rng.uniform(-0.8, 0.8, model.parameters.size)
    exchange.save(model, tmp_path / "net.h", name="net")
    x = rng.standard_normal((2, 40, 3)).astype(model.dtype)
    expected = model(x)[0]
    scale = abs(expected).max()
    np.testing.assert_allclose(run_in_c(tmp_path, x, "float") / scale, expected / scale, rtol=0, atol=1e-6)


def test_c_takes_ids(rng, tmp_path):
    model = cylstm.Model(7, 5, 7, embedding_size=4, seed=1)
    exchange.save(model, tmp_path / "net.h", name="net")
    ids = rng.integers(0, 7, (2, 40), dtype="i4")
    np.testing.assert_allclose(run_in_c(tmp_path, ids, "float", ids=True), model.predict_proba(ids), rtol=0, atol=1e-6)


def test_c_begins_with_a_layers_first_state(rng, tmp_path):
    W, U, b, h0, c0 = arrays((20, 3), (20, 5), (20,), (5,), (5,))
    exchange.write(Network((Recurrent((Direction(W, U, b, None, h0, c0),)),)), tmp_path / "net.h", name="net")
    x = rng.standard_normal((2, 9, 3)).astype("f4")
    expected = [lstm_layer(row, W, U, b, h0, c0) for row in x]
    np.testing.assert_allclose(run_in_c(tmp_path, x, "float"), expected, rtol=0, atol=1e-6)


def test_constants_have_the_bits_of_the_weights(tmp_path, rng):
    lstm = cylstm.LSTM(3, 5, bias=False)
    given = rng.standard_normal(lstm.parameters.size) * 10.0 ** rng.integers(-42, 38, lstm.parameters.size)
    lstm.parameters.flat = given.astype("f4")
    lstm.parameters["weight_hh_l0"][0, :4] = 0, -0.0, np.finfo("f4").smallest_subnormal, np.finfo("f4").max
    exchange.save(lstm, tmp_path / "l.h")
    text = (tmp_path / "l.h").read_text()
    for name, array in lstm.parameters.items():
        body = re.search(rf"static const float model_{name}\[20 \* \d\] = \{{([^}}]*)\}}", text)[1]
        got = [np.float32(number.removesuffix("f")) for number in body.replace(",", " ").split()]
        assert np.array_equal(np.array(got, "f4").view("u4"), array.ravel().view("u4"))


def numbers_of(text, name):
    body = re.search(rf"{name}\[[^]]*\] = \{{([^}}]*)\}}", text)[1]
    return [np.float64(number.removesuffix("f")) for number in body.replace(",", " ").split()]


def test_constants_of_float16_are_its_numbers_and_not_its_digits(tmp_path):
    W, U, b, V, c = (array.astype("f2") for array in arrays((20, 3), (20, 5), (20,), (2, 5), (2,)))
    layers = Recurrent((Direction(W, U, b),)), Dense(V, c)
    exchange.write(Network(layers), tmp_path / "half.h")
    text = (tmp_path / "half.h").read_text()
    for name, array in {"lstm_weight_ih_l0": W, "lstm_weight_hh_l0": U, "lstm_bias_l0": b, "head_weight": V,
                        "head_bias": c}.items():  # fmt: skip
        assert np.array_equal(np.float32(numbers_of(text, name)), array.ravel().astype("f4")), name


@pytest.mark.parametrize("make, message", [
    (lambda: cylstm.LSTM(3, 5, bidirectional=True), "expected one direction, as a step in C has, got both"),
    (lambda: cylstm.LSTM(3, 5, activations=("sigmoid", "relu", "tanh")), "expected no activations, which"),
    (lambda: cylstm.LSTM(3, 5, gate_clip=0.5), "expected no gate_clip, which a step in C has not"),
    (lambda: cylstm.LSTM(3, 5, cell_clip=0.5), "expected no cell_clip, which a step in C has not"),
])  # fmt: skip
def test_what_no_step_does_is_not_written(make, message, tmp_path):
    with pytest.raises(ValueError, match=f"l.h: .*{message}"):
        exchange.save(make(), tmp_path / "l.h")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["2nd", "a-b", "", "x;", 3])
def test_a_name_is_an_identifier(name, tmp_path):
    with pytest.raises(ValueError, match="name: expected an identifier of C, got"):
        exchange.save(cylstm.LSTM(3, 5), tmp_path / "l.h", name=name)


def test_numbers_that_c_has_not_are_not_written(tmp_path):
    lstm = cylstm.LSTM(3, 5)
    lstm.parameters["weight_hh_l0"][2, 1] = -np.inf
    with pytest.raises(ValueError, match=r"l.h: weight_hh_l0: expected finite numbers, got NaN or infinity"):
        exchange.save(lstm, tmp_path / "l.h")


def test_a_header_is_only_written(tmp_path):
    with pytest.raises(ValueError, match=r"expected .* that can be read, got c_header, which is only written"):
        exchange.load(tmp_path / "l.h")
