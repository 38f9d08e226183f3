"""Tensors given to the layer and the model themselves: read in place, or refused by name with the way out."""

import numpy as np
import pytest

from cylstm import LSTM, Model

torch = pytest.importorskip("torch")

LAYER, MODEL = LSTM(3, 4, 2, seed=1), Model(3, 4, 2, seed=1)
X, STATE = np.random.default_rng(1).standard_normal((2, 5, 3)).astype("f4"), np.full((2, 2, 2, 4), 0.5, "f4")
CLASSES = torch.zeros(2, 5, dtype=torch.int64)


def calls(x, make):
    """name -> a call that gives a tensor of `make`'s kind for that argument."""
    h = make(torch.zeros(2, 2, 4))
    return {
        "x": [lambda: LAYER(x), lambda: LAYER.forward(x), lambda: MODEL(x), lambda: MODEL.predict(x),
              lambda: MODEL.fit(x, CLASSES), lambda: MODEL.loss_and_gradients(x, CLASSES)],
        "x_t": [lambda: LAYER.step(x[:, 0], None), lambda: MODEL.step(x[:, 0], None)],
        "state.h": [lambda: LAYER(X, (h, STATE[1])), lambda: LAYER.step(X[:, 0], (h, STATE[1]))],
        "state.c": [lambda: LAYER(X, (STATE[0], h))],
        "y": [lambda: Model(3, 4, 3, loss="mse").fit(X, x), lambda: Model(3, 4, 3, loss="mse").evaluate(X, x)],
        "lengths": [lambda: LAYER(X, lengths=make(torch.full((2,), 3.0)))],
        "resets": [lambda: LAYER(X, resets=make(torch.zeros(2, 5)))],
        "dy": [lambda: LAYER.backward(LAYER.forward(X)[2], make(torch.zeros(2, 5, 4)))],
        "x[0]": [lambda: MODEL([x[0], x[1]])],
    }  # fmt: skip


KINDS = {
    "bfloat16": (lambda t: t.bfloat16(), "torch.Tensor torch.bfloat16; {}.float() is one"),
    "requires grad": (lambda t: t.clone().requires_grad_(), "torch.Tensor torch.float32; {}.detach() is one"),
    "both": (lambda t: t.bfloat16().requires_grad_(), "torch.Tensor torch.bfloat16; {}.detach().float() is one"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_numpy_cannot_read_is_named_with_the_way_out(kind):
    make, words = KINDS[kind]
    for name, callables in calls(make(torch.from_numpy(X)), make).items():
        for call in callables:
            with pytest.raises(TypeError) as raised:
                call()
            assert str(raised.value).startswith(f"{name}: expected an array that NumPy can read, got "), raised.value
            assert str(raised.value).endswith(words.format(name)), raised.value


def test_the_way_out_is_one():
    tensor = torch.from_numpy(X).bfloat16().requires_grad_()
    np.testing.assert_allclose(LAYER(tensor.detach().float())[0], LAYER(X)[0], atol=1e-2)
    sparse = torch.from_numpy(X).to_sparse()
    with pytest.raises(TypeError, match=r"x: expected an array that NumPy can read.*; x.to_dense\(\) is one"):
        LAYER(sparse)
    np.testing.assert_array_equal(LAYER(sparse.to_dense())[0], LAYER(X)[0])


def test_other_tensors_that_numpy_cannot_read_are_named_in_torchs_words():
    with pytest.raises(TypeError, match=r"x: expected an array that NumPy can read, got torch.Tensor torch.float32 \("):
        LAYER(torch.zeros(2, 5, 3, device="meta"))
    with pytest.raises(TypeError, match=r"weight_ih_l0: expected an array that.*weight_ih_l0\.detach\(\)"):
        LAYER.load_state_dict(dict(torch.nn.LSTM(3, 4, 2).named_parameters()))


def test_bfloat16_of_ml_dtypes_as_jax_gives_it():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    message = r"x: expected floating-point numbers.*, got bfloat16 \(2, 5, 3\); .astype\('float32'\) makes floats of"
    for call in (LAYER, MODEL, lambda x: MODEL.fit(x, CLASSES)):
        with pytest.raises(TypeError, match=message):
            call(X.astype(ml_dtypes.bfloat16))
