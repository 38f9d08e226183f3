"""Models with embeddings and dense layers beside torch's modules, with their gradients."""

import numpy as np
import pytest

from cylstm import Dense, Model
from cylstm._core import updates
from cylstm.activations import ACTIVATIONS, as_activation

torch = pytest.importorskip("torch")

TORCHS = {
    "linear": torch.nn.Identity(),
    "relu": torch.nn.ReLU(),
    "leaky_relu": torch.nn.LeakyReLU(),
    "tanh": torch.nn.Tanh(),
    "sigmoid": torch.nn.Sigmoid(),
    "elu": torch.nn.ELU(),
    "softplus": torch.nn.Softplus(threshold=800),  # without one: log(1 + exp(z)) for every z, as ours
    "softsign": torch.nn.Softsign(),
    "gelu_tanh": torch.nn.GELU("tanh"),
    "silu": torch.nn.SiLU(),
    "exponential": torch.exp,
    "hard_sigmoid": lambda z: (0.2 * z + 0.5).clip(0, 1),
    "hard_tanh": torch.nn.Hardtanh(),
    "relu6": torch.nn.ReLU6(),
    "selu": torch.nn.SELU(),
    "thresholded_relu": torch.nn.Threshold(1, 0),
}
NUMBERED = {  # what torch has by these numbers
    ("affine", 2.0, 1.0): lambda z: 2 * z + 1,
    ("hard_sigmoid", 1 / 6, 0.5): lambda z: torch.nn.functional.relu6(z + 3) / 6,
    ("scaled_tanh", 1.7, 0.6): lambda z: 1.7 * (0.6 * z).tanh(),
    ("elu", 0.3): torch.nn.ELU(0.3),
    ("leaky_relu", 0.2): torch.nn.LeakyReLU(0.2),
    ("thresholded_relu", 0.4): torch.nn.Threshold(0.4, 0),
}


def test_every_activation_is_here():
    assert set(ACTIVATIONS) == {*TORCHS, *(name for name, *_ in NUMBERED)}


@pytest.mark.parametrize("name", [*TORCHS, *NUMBERED], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_and_their_slopes(rng, name, dtype):
    """NaN and zeros of either sign included; slopes at NaN are what each says, since no loss is a number then."""
    z = np.concatenate([[np.nan, 0.0, -0.0], rng.uniform(-30, 30, 3000), rng.uniform(-2, 2, 3000)]).astype(dtype)
    d = rng.standard_normal(z.shape).astype(dtype)
    theirs = torch.from_numpy(z.copy()).requires_grad_()
    expected = (TORCHS | NUMBERED)[name](theirs)
    expected.backward(torch.from_numpy(d))
    y, dz = np.empty_like(z), d.copy()
    updates.activate(as_activation("activation", name), z, y)
    updates.activate_backward(as_activation("activation", name), z, dz)
    bound = {"float32": 2e-6, "float64": 5e-15}[dtype]
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=bound, atol=bound)
    np.testing.assert_allclose(dz[1:], theirs.grad.numpy()[1:], rtol=3 * bound, atol=3 * bound)


class Theirs(torch.nn.Module):
    """The same model of torch's parts, with a model's weights."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.tables = torch.nn.ModuleDict({str(n): torch.nn.Embedding(*sizes) for n, sizes in model.embeddings.items()})
        width = model.input_size - len(model.embeddings) + sum(E for _, E in model.embeddings.values())
        self.before, width = self.stack(model.before, width)
        self.lstm = torch.nn.LSTM(width, model.hidden_size, model.num_layers, batch_first=True,
                                  bidirectional=model.bidirectional)  # fmt: skip
        self.after, width = self.stack(model.after, model.lstm.output_size)
        self.head = torch.nn.Linear(width, model.output_size)
        self.double()
        with torch.no_grad():
            for name, values in self.ours(model.parameters).items():
                self.get_parameter(name).copy_(torch.from_numpy(values))
            for name, values in self.named_parameters():
                if "bias_hh" in name:
                    values.zero_()

    @staticmethod
    def stack(layers, width):
        modules = torch.nn.ModuleList()
        for layer in layers:
            modules.append(torch.nn.Linear(width, layer.size, layer.bias))
            width = layer.size
        return modules, width

    def ours(self, values):
        """By the names that the parameters have here."""
        turned = {"embeddings": "tables", "bias_l": "bias_ih_l"}
        names = {name: name for name in values}
        for old, new in turned.items():
            names = {name: here.replace(old, new) for name, here in names.items()}
        return {names[name]: array for name, array in values.items()}

    def forward(self, x):
        numbers = [n for n in range(x.shape[-1]) if n not in self.model.embeddings]
        rows = [table(x[..., int(n)].long()) for n, table in self.tables.items()]
        h = torch.cat([x[..., numbers], *rows], dim=-1)
        for module, layer in zip(self.before, self.model.before, strict=True):
            h = TORCHS[layer.activation](module(h))
        h, (hn, _) = self.lstm(h)
        if self.model.output == "last":
            h = torch.cat(list(hn[-(1 + self.model.bidirectional) :]), dim=-1)
        for module, layer in zip(self.after, self.model.after, strict=True):
            h = TORCHS[layer.activation](module(h))
        return self.head(h)


@pytest.mark.parametrize("options", [{}, {"output": "last", "bidirectional": True}, {"num_layers": 2}])
@pytest.mark.parametrize("name", TORCHS)
def test_a_model_and_its_gradients(rng, name, options):
    model = Model(4, 6, 3, loss="mse", dtype="float64", seed=1, embeddings={2: (7, 3), 0: (5, 2)},
                  before=[Dense(8, name), Dense(5, name, bias=False)], after=[Dense(7, name), 6],
                  **options)  # fmt: skip
    x = 0.3 * rng.standard_normal((3, 9, 4))  # an exponential's exponential stays within what gates tell apart
    x[..., 2], x[..., 0] = rng.integers(0, 7, (3, 9)), rng.integers(0, 5, (3, 9))
    y = rng.standard_normal((3, 3) if model.output == "last" else (3, 9, 3))
    theirs, given = Theirs(model), torch.from_numpy(x).requires_grad_()
    loss = torch.nn.functional.mse_loss(theirs(given), torch.from_numpy(y))
    loss.backward()
    found = model.loss_and_gradients(x, y)
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    for parameter, values in theirs.ours(found.gradients).items():
        expected = theirs.get_parameter(parameter).grad.numpy()
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-13, err_msg=parameter)
    outputs, _, tape = model.forward(x)
    by_x = model.backward(tape, 2 * (outputs - y) / y.size).x
    np.testing.assert_allclose(by_x, given.grad.numpy(), rtol=1e-9, atol=1e-14)
