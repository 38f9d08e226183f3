"""Models in fewer bits: embeddings, dense layers and heads, files, the command line."""

import copy
import gc
import json
import pickle
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cylstm import Dense, Head, Model, losses
from cylstm.cli import main
from cylstm.small_parameters import PRECISIONS, SmallParameters


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


def writer(**options):
    """Ids in, classes out."""
    options = {"embedding_size": 24, "before": [Dense(33, "tanh")], "after": [20], "num_layers": 2, **options}
    return Model(50, 40, 50, seed=1, **options)


MODELS = {
    "ids": (writer, {}),
    "one-hot": (lambda **o: Model(50, 40, 50, seed=1, **o), {}),
    "tied": (writer, dict(tied=True, embedding_size=40, before=(), after=())),
    "last": (writer, dict(output="last", bidirectional=True)),
}
ALLOWED = {"float16": 2e-3, "bfloat16": 2e-2, "int8": 6e-2}


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_are_near_and_files_have_the_same_bits(precision, rng, tmp_path, kind):
    make, options = MODELS[kind]
    model = make(**options)
    small, x = model.astype(precision), rng.integers(0, 50, (70, 9))
    (y, _), (expected, _) = small(x), model(x)
    assert np.abs(y - expected).max() <= ALLOWED[precision] * np.abs(expected).max()
    model.save(tmp_path / "plain.safetensors")
    model.save(tmp_path / "small.safetensors", precision=precision)
    loaded = Model.load(tmp_path / "small.safetensors")
    assert (loaded.precision, small.precision, model.precision) == (precision, precision, "float32")
    small.save(tmp_path / "again.safetensors")
    again = Model.load(tmp_path / "again.safetensors")
    for one in (loaded, pickle.loads(pickle.dumps(small)), copy.deepcopy(small), again):
        np.testing.assert_array_equal(one(x)[0], y)
    share = small.parameters.nbytes / model.parameters.nbytes
    assert share < (0.31 if precision == "int8" else 0.52)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("small", "plain")]
    assert abs(sizes[0] - small.parameters.nbytes) < 8000 and sizes[0] < sizes[1]


def test_a_large_model_takes_half_and_a_quarter(precision, tmp_path):
    model = Model(300, 256, 300, embedding_size=200, seed=1)
    model.save(tmp_path / "plain"), model.save(tmp_path / "small", precision=precision)
    share = (tmp_path / "small").stat().st_size / (tmp_path / "plain").stat().st_size
    assert share < {"float16": 0.51, "bfloat16": 0.51, "int8": 0.27}[precision]


def test_heads_are_products_of_the_rounded_weights(isa, rng):
    """float16's h is not rounded, so that a model which has the rounded weights in float32 gives the same."""
    model = Model(9, 40, {"a": 3, "b": Head(2, loss="mse", horizon=5)}, before=[30], seed=2)
    small = model.astype("float16")
    rounded = small.astype("float32")
    x = rng.standard_normal((40, 6, 9)).astype("f4")
    for name, values in small(x)[0].items():
        np.testing.assert_allclose(values, rounded(x)[0][name], rtol=0, atol=2e-6)


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_evaluating_sums_the_losses_of_its_own_outputs(isa, precision, rng, rows):
    model = writer().astype(precision)
    x, y = rng.integers(0, 50, (rows, 7)), rng.integers(0, 50, (rows, 7))
    found = model.evaluate(x, y)
    outputs = np.concatenate([model(part)[0] for part in np.array_split(x, max(1, rows // 100))])
    logits = outputs.reshape(-1, 50).astype(float)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    assert found["loss"] == pytest.approx(-logits[np.arange(len(logits)), y.ravel()].mean(), rel=2e-4)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == y.ravel()).mean(), abs=0.01)


def test_steps_give_what_calls_give(isa, precision, rng):
    model = writer().astype(precision)
    x, state, out = rng.integers(0, 50, (3, 6)), None, None
    y, _ = model(x)
    state = model.initial_state(3)
    for t in range(6):
        outputs, state = model.step(x[:, t], state)
        np.testing.assert_allclose(outputs, y[:, t], atol=1e-6)
    out = model.step(x[:, 0], model.initial_state(3))
    again = model.step(x[:, 0], model.initial_state(3), out=out)
    assert again[0] is out[0]
    np.testing.assert_array_equal(again[0], model.step(x[:, 0], model.initial_state(3))[0])
    assert list(model.generate([3, 1], 5, temperature=0))


def test_columns_of_ids(precision, rng):
    model = Model(5, 24, 2, embeddings={1: (7, 6)}, loss="mse", seed=1)
    x = rng.standard_normal((4, 3, 5)).astype("f4")
    x[..., 1] = rng.integers(0, 7, (4, 3))
    expected = model(x)[0]
    assert np.abs(model.astype(precision)(x)[0] - expected).max() <= ALLOWED[precision] * np.abs(expected).max()


def test_ctc_and_own_losses_run(precision, rng):
    model = Model(5, 24, 6, loss=losses.CTC(), seed=1)
    x = rng.standard_normal((4, 12, 5)).astype("f4")
    labels = [rng.integers(1, 6, 3) for _ in range(4)]
    expected = model.evaluate(x, labels)["loss"]
    assert model.astype(precision).evaluate(x, labels)["loss"] == pytest.approx(expected, rel=0.02)


def test_training_is_refused_before_anything(precision, rng):
    model = writer().astype(precision)
    x = rng.integers(0, 50, (3, 6))
    for call in (model.fit, model.loss_and_gradients):
        with pytest.raises(ValueError, match=f"float32 or float64, .* in {precision}"):
            call(x, x)
    with pytest.raises(ValueError, match="forward: expected parameters in float32 or float64"):
        model.forward(x)


def test_what_is_told(precision, capsys):
    model = writer().astype(precision)
    assert f"{precision}, one direction" in model.summary()
    assert f"{model.parameters.nbytes:,}" in model.summary()
    assert model.astype("float64").precision == "float64"
    with pytest.raises(KeyError):
        model.parameters["nothing"]
    with pytest.raises(KeyError):
        model.parameters.child("nothing.")


def damaged(path, out, change):
    """The file with another header or other tensors."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["cylstm"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, out, metadata={"cylstm": json.dumps(header)})
    return out


DAMAGES = {
    "another name": (lambda header, tensors: header.update(precision="int4"), "precision: expected one of"),
    "no name": (lambda header, tensors: header.update(precision=["int8"]), "precision: expected one of"),
    "wider": (lambda header, tensors: header.update(precision="float16"), "do not fit the sizes"),
    "no scales": (lambda header, tensors: tensors.pop("head.weight.scale"), "head.weight.scale"),
    "short scales": (
        lambda header, tensors: tensors.update({"head.weight.scale": np.ones(3, "f4")}), "head.weight.scale"
    ),
    "no numbers": (lambda header, tensors: tensors["lstm.weight_hh_l0.scale"].fill(np.nan), "scales of finite ones"),
    "negative": (lambda header, tensors: tensors["lstm.weight_hh_l0.scale"].fill(-1), "scales of finite ones"),
    "nobody's scales": (
        lambda header, tensors: tensors.update({"bogus.scale": np.ones(3, "f4")}), "do not fit the sizes"
    ),
    "huge scales": (lambda header, tensors: tensors["head.weight.scale"].fill(3e38), "scales of finite ones"),
    "-128": (lambda header, tensors: tensors["lstm.weight_hh_l0"].fill(-128), "numbers within -127..127"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_files_are_refused(tmp_path, what):
    change, message = DAMAGES[what]
    writer().save(tmp_path / "whole", precision="int8")
    with pytest.raises(ValueError, match=message):
        Model.load(damaged(tmp_path / "whole", tmp_path / "damaged", change))


def test_a_file_of_infinite_halves_is_refused(tmp_path):
    writer().save(tmp_path / "whole", precision="float16")
    change = lambda header, tensors: tensors["head.weight"].fill(np.inf)  # noqa: E731
    path = damaged(tmp_path / "whole", tmp_path / "damaged", change)
    with pytest.raises(ValueError, match=r"head\.weight: expected finite numbers"):
        Model.load(path)


def test_matrices_too_wide_for_int8():
    model = Model(70_000, 8, 3, before=[Dense(4, "linear")], loss="mse", seed=1)
    with pytest.raises(ValueError, match=r"before\.0\.weight: expected at most 65536 columns for int8, got 70000"):
        model.astype("int8")
    words = Model(70_000, 8, 3, embedding_size=4, seed=1).astype("int8")  # rows, which are no sums
    assert words(np.array([[69_999]]))[0].shape == (1, 1, 3)


def test_threads_that_share_a_model_that_is_not_packed_yet(precision, rng):
    """Each call reads from what it began with, whoever packs meanwhile."""
    model = Model(16, 24, 3000, seed=1)
    x = rng.standard_normal((20, 4, 16)).astype("f4")
    expected = model.astype(precision)(x)[0]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(4):
            small = model.astype(precision)
            with ThreadPoolExecutor(6) as pool:
                for found in pool.map(lambda _, small=small: small(x)[0], range(12)):
                    np.testing.assert_array_equal(found, expected)
    finally:
        sys.setswitchinterval(interval)


def test_models_that_are_dropped_go_at_once(precision, rng):
    """None waits for the collector of cycles."""
    gc.collect()
    gc.disable()
    try:
        model = writer().astype(precision)
        model(rng.integers(0, 50, (3, 6)))
        gone = weakref.ref(model.parameters)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_parameters_that_fit_no_int8_layer(rng):
    model = Model(4, 5, 3, proj_size=2, loss="mse", seed=1)
    with pytest.raises(ValueError, match="int8, got one with a projection"):
        model.astype("int8")
    parameters = SmallParameters.of(model.parameters, "bfloat16")
    with pytest.raises(ValueError, match="parameters: expected"):
        Model(4, 6, 3, proj_size=2, loss="mse", parameters=parameters)


def test_converting_on_the_command_line(folder, capsys):
    writer().save("model.safetensors")
    for name in PRECISIONS:
        main(["convert", "model.safetensors", f"{name}.safetensors", "--precision", name])
        main(["info", f"{name}.safetensors"])
        shown = capsys.readouterr().out
        assert f"precision{' ' * 10}" in shown and f"{name}, one direction" in shown
    main(["convert", "int8.safetensors", "back.safetensors", "--precision", "float32"])
    assert Model.load("back.safetensors").precision == "float32"
    assert main(["convert", "model.safetensors", "model.onnx", "--precision", "int8"])
    assert "--precision: expected a file of ours to be written, got onnx" in capsys.readouterr().err
