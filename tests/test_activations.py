"""Other functions than sigmoid and tanh in a cell, and bounds of what they are of: against the oracle and alone."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
from against_oracle import agrees, oracle_options
from gradcheck import check_gradients, gradient_error

import cylstm
from cylstm import LSTM, Dense, Model, activations, oracle, set_num_threads, tensor_files
from cylstm.activations import ACTIVATIONS, CELL, KINDS

# Of those that have numbers, some numbers.
GIVEN = {"affine": ("affine", 0.7, 0.2), "scaled_tanh": ("scaled_tanh", 0.9, 0.7), "leaky_relu": ("leaky_relu", 0.3),
         "elu": ("elu", 0.4), "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
         "thresholded_relu": ("thresholded_relu", 0.1)}  # fmt: skip
EVERY = {name: GIVEN.get(name, name) for name in CELL}
IN_GATES = {"hard_sigmoid", "softsign", "hard_tanh", "tanh", "sigmoid", "scaled_tanh"}  # with which nothing explodes


def cells_of(name):
    """Two cells with an activation: as g and the outputs' together with bounds, and in the gates, too."""
    one = EVERY[name]
    return {
        "g, output": dict(activations=("hard_sigmoid", one, one), gate_clip=0.8, peepholes=True),
        "all": dict(activations=(one if name in IN_GATES else "sigmoid", one, one), coupled=True, cell_clip=0.9),
    }


SQUEEZED = dict(gate_clip=0.7)
CASES = {f"{name}: {where}": cell for name in EVERY for where, cell in cells_of(name).items()} | {
    "clip alone": SQUEEZED
}


def made(I, H, L, D, dtype, cell, seed):
    layer = LSTM(I, H, L, bidirectional=D == 2, dtype=dtype, seed=seed, **cell)
    rng = np.random.default_rng(seed)
    for values in layer.parameters.values():
        values[...] += 0.3 * rng.standard_normal(values.shape)
    return layer, {name: values.astype(float) for name, values in layer.parameters.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_oracles_gradients_are_differences(name):
    """By small differences: those across a corner or a step are none. Each draw of numbers has some of each array's."""
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        layer, params = made(5, 3, 1, 1, "float64", CASES[name], seed)
        x, h0, c0 = (rng.standard_normal(shape) for shape in ((2, 3, 5), (1, 2, 3), (1, 2, 3)))
        dy, dh, dc = (rng.standard_normal(shape) for shape in ((2, 3, 3), (1, 2, 3), (1, 2, 3)))

        def loss(x=x, h0=h0, c0=c0, dy=dy, dh=dh, dc=dc, params=params, layer=layer):
            y, (h, c), _ = oracle.forward(x, params, (h0, c0), **oracle_options(layer))
            return (dy * y).sum() + (dh * h).sum() + (dc * c).sum()

        _, _, tape = oracle.forward(x, params, (h0, c0), **oracle_options(layer))
        dx, (dh0, dc0), dparams = oracle.backward(tape, dy, (dh, dc))
        pairs = [(params[key], dparams[key]) for key in dparams]
        errors.append(max(gradient_error(loss, *pair, 1e-5) for pair in [*pairs, (x, dx), (h0, dh0), (c0, dc0)]))
    assert max(errors) < 5e-6, errors


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_oracle(isa, dtype, close, name):
    rng = np.random.default_rng(11)
    for n, (T, B, I, H) in enumerate([(7, 5, 3, 9), (3, 33, 4, 20)]):
        layer, _ = made(I, H, 1 + n % 2, 1 + (n + 1) % 2, dtype, CASES[name], n)
        lengths, resets = rng.integers(1, T + 1, B) if n % 2 == 0 else None, rng.random((B, T)) < 0.2
        agrees(layer, close, rng, B, T, lengths=lengths, resets=resets)


@pytest.mark.parametrize("name", ["relu: g, output", "hard_sigmoid: all", "softplus: all", "clip alone"])
def test_steps_and_threads_give_the_same_bits(isa, dtype, name):
    layer, _ = made(6, 35, 2, 1, dtype, CASES[name], 4)
    rng = np.random.default_rng(4)
    x, dy = (rng.standard_normal((64, 12, width)).astype(dtype) for width in (6, 35))  # enough for threads

    def everything():
        y, state, tape = layer.forward(x)
        got = layer.backward(tape, dy)
        return [array.tobytes() for array in (y, *state, got.x, *got.state, got.parameters.flat)]

    state, outputs = None, []
    for t in range(12):
        y_t, state = layer.step(x[:, t], state)
        outputs.append(y_t)
    assert np.array_equal(np.stack(outputs, axis=1), layer(x)[0])
    one = everything()
    set_num_threads(3)
    assert everything() == one


@pytest.mark.parametrize("cell", [
    dict(activations=(("affine", 0.3, 1.5), "exponential", "tanh")),
    dict(activations=(("affine", 0.3, -1.5), "exponential", "tanh"), coupled=True),
])  # fmt: skip
def test_units_that_are_none_have_no_part_in_it(isa, dtype, close, cell):
    """What pads a vector of units has no weights: of these functions its cells would grow until they are infinite."""
    layer, _ = made(3, 5, 2, 1, dtype, cell, 0)
    for name, values in layer.parameters.items():
        values[...] = 0.05 * values + name.startswith("bias") * (6 if "coupled" in cell else -3)
    rng = np.random.default_rng(8)
    agrees(layer, close, rng, 2, {"float32": 150, "float64": 1200}[dtype])


def test_gates_of_softplus_that_are_nearly_shut_have_gradients(isa, dtype, close):
    layer, _ = made(2, 5, 1, 1, dtype, dict(activations=("softplus", "tanh", "tanh")), 0)
    layer.parameters["bias_l0"][:10] = -18
    agrees(layer, close, np.random.default_rng(9), 2, 3)


def test_the_plain_names_are_the_plain_cell():
    plain, named = LSTM(3, 5, seed=1), LSTM(3, 5, seed=1, activations=["sigmoid", "tanh", "tanh"])
    assert named.cell == plain.cell and named.options == plain.options
    numbers = ("hard_sigmoid", 0.2, 0.5)
    assert LSTM(3, 5, activations=[numbers, "tanh", "tanh"]).cell.activations == ("hard_sigmoid", "tanh", "tanh")


@pytest.mark.parametrize("numbers, name", [
    (("affine", 1, 0), "linear"), (("affine", 1.0, -0.0), "linear"), (("leaky_relu", 1), "linear"),
    (("leaky_relu", 0), "relu"), (("elu", 0), "relu"), (("thresholded_relu", 0), "relu"),
    (("scaled_tanh", 1, 1), "tanh"),
])  # fmt: skip
def test_numbers_that_make_another_activation_give_its_name(numbers, name):
    from cylstm import dense_oracle

    assert activations.as_activation("a", numbers) == name == Dense(3, numbers).activation
    assert LSTM(3, 5, activations=("hard_sigmoid", numbers, "relu")).cell.activations == ("hard_sigmoid", name, "relu")
    z = np.linspace(-8, 8, 402)
    for given, expected in zip(dense_oracle.activation(numbers, z), dense_oracle.activation(name, z), strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-15)


def test_a_run_whose_file_has_the_numbers_goes_on(tmp_path):
    """A file from when ("affine", 1, 0) was not "linear" yet."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((8, 5, 2)).astype("f4"), rng.standard_normal((8, 5, 1)).astype("f4")
    options = dict(activations=("sigmoid", "linear", "tanh"), before=[Dense(4, "relu")], loss="mse", seed=1)
    model, other = Model(2, 6, 1, **options), Model(2, 6, 1, **options)
    model.fit(x, y, epochs=1, progress=False, checkpoint=tmp_path / "run.ckpt")
    with tensor_files.open_tensors(tmp_path / "run.ckpt", "checkpoint") as file:
        header, arrays = file.header, {name: file.get(name) for name in file.shapes}
    header["config"] |= {"activations": ["sigmoid", ["affine", 1.0, 0.0], "tanh"]}
    header["config"]["before"][0]["activation"] = ["elu", 0.0]
    tensor_files.write_tensors(tmp_path / "old.ckpt", "checkpoint", header, arrays)
    for one, path in ((model, "run.ckpt"), (other, "old.ckpt")):
        one.fit(x, y, epochs=3, progress=False, resume=tmp_path / path)
    assert np.array_equal(model.parameters.flat, other.parameters.flat)


@pytest.mark.parametrize("numbers", [("affine", 1, 1e-6), ("leaky_relu", 0.999), ("elu", 1e-6), ("scaled_tanh", 1, 0.5),
                                     ("thresholded_relu", 1e-3)])  # fmt: skip
def test_others_keep_their_numbers(numbers):
    assert activations.as_activation("a", numbers) == (numbers[0], *map(float, numbers[1:]))


def test_a_model_with_them_learns_and_comes_back(tmp_path):
    options = dict(activations=("hard_sigmoid", ("leaky_relu", 0.2), "softsign"), gate_clip=4.0, cell_clip=3.0)
    model = Model(2, 12, 1, loss="mse", seed=1, after=[Dense(6, ("elu", 0.5)), Dense(4, "hard_tanh")], **options)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((40, 15, 2)).astype("float32")
    y = x.cumsum(axis=1)[..., :1] / 4
    common = dict(batch_size=8, progress=False, optimizer=cylstm.Adam(1e-2))
    history = model.fit(x, y, epochs=15, checkpoint=tmp_path / "run.ckpt", **common)
    assert history.train_loss[-1] < 0.3 * history.train_loss[0]
    model.save(tmp_path / "model.safetensors")
    again = Model.load(tmp_path / "model.safetensors")
    assert again.config == model.config and again.lstm.cell == model.lstm.cell
    for other in (again, copy.deepcopy(model)):
        assert np.array_equal(other(x)[0], model(x)[0])
    other = Model.from_checkpoint(tmp_path / "run.ckpt")
    for one in (model, other):
        one.fit(x, y, epochs=17, resume=tmp_path / "run.ckpt", **common)
    assert np.array_equal(other.parameters.flat, model.parameters.flat)
    assert "leaky_relu" in repr(model) and "leaky_relu" in repr(model.lstm)


def test_a_models_gradients_are_differences():
    model = Model(3, 5, 2, loss="mse", dtype="float64", seed=3, activations=("sigmoid", "tanh", "softplus"),
                  after=[Dense(4, ("scaled_tanh", 1.7, 0.6))])  # fmt: skip
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6, 2))
    gradients = model.loss_and_gradients(x, y).gradients
    values = {name: model.parameters[name] for name in model.parameters}
    check_gradients(lambda: model.loss_and_gradients(x, y).loss, values, gradients)


@pytest.mark.parametrize("given, error, message", [
    (3, TypeError, "activations: expected three activations"),
    ("tanh", TypeError, "activations: expected three activations"),
    (["sigmoid", "tanh"], TypeError, "activations: expected three activations"),
    (["sigmoid", "silu", "tanh"], ValueError, r"activations\[1\]: expected one of 'linear', .*, got 'silu'"),
    (["sigmoid", 4, "tanh"], TypeError, r"activations\[1\]: expected the name of an activation"),
    (["sigmoid", ("affine", 2), "tanh"], ValueError, r"activations\[1\]: expected \('affine', alpha, beta\)"),
    (["sigmoid", ("tanh", 2), "tanh"], ValueError, r"activations\[1\]: expected 'tanh' with no numbers"),
    (["sigmoid", "tanh", ("elu", -1)], ValueError, r"activations\[2\]: expected the alpha of 'elu' in 0..1e\+06"),
    ([("hard_sigmoid", np.nan), "tanh", "tanh"], ValueError, r"activations\[0\]: expected the alpha"),
    ([("hard_sigmoid", True), "tanh", "tanh"], TypeError, r"activations\[0\]: expected a number for the alpha"),
])  # fmt: skip
def test_what_is_none_is_refused_by_its_place(given, error, message):
    with pytest.raises(error, match=message):
        Model(3, 4, 5, activations=given)


def test_bounds_that_are_none_are_refused():
    for clip in (0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="gate_clip: expected a number in"):
            LSTM(3, 4, gate_clip=clip)


def test_kinds_are_those_of_the_header():
    header = Path(cylstm.get_include(), "kernels.h").read_text()
    [names] = re.findall(r"enum \{\s*(CYLSTM_RELU.*?)\}", header, re.DOTALL)
    assert [name.strip().removeprefix("CYLSTM_").lower() for name in names.split(",")] == list(KINDS)


def test_every_activation_is_one_of_the_oracle():
    from cylstm import dense_oracle

    assert set(ACTIVATIONS) == set(dense_oracle.ACTIVATIONS)
    z = np.linspace(-8, 8, 401)
    for name in ACTIVATIONS:
        values = dense_oracle.activation(GIVEN.get(name, name), z)[0]
        assert (np.diff(values) >= 0).all() == (name in CELL)
        if activations.are_bounded([name]):
            assert abs(values).max() <= 6
