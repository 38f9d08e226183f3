"""What PyTorch's two exporters write of networks with nn.LSTM, read into models that give the same numbers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from cylstm import exchange  # noqa: E402
from cylstm.exchange import onnx  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and the exporters deprecate much of each other
nn = torch.nn
B, T, V, E, H = 3, 6, 11, 4, 5
BOTH = pytest.mark.parametrize("dynamo", [False, True])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


class Net(nn.Module):
    """Ids or numbers, LSTMs, and what `choose` takes of their outputs y (B, T, D*H) and final states h."""

    def __init__(self, choose, head, ids=True, **options):
        super().__init__()
        self.embedding = nn.Embedding(V, E) if ids else nn.Identity()
        self.lstm = nn.LSTM(E, H, batch_first=True, **options)
        self.head, self.choose = head, choose

    def forward(self, x):
        y, (h, _) = self.lstm(self.embedding(x))
        return self.head(self.choose(y, h))


def head(inputs, *activations, outputs=3):
    layers = []
    for activation in activations:
        layers += [nn.Linear(inputs, 6), activation]
        inputs = 6
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def steps(y, h):
    return y


NETS = {
    "a sequence": lambda: Net(steps, head(H), num_layers=2),
    "a sequence of both directions": lambda: Net(steps, head(2 * H), num_layers=2, bidirectional=True),
    "numbers, without biases": lambda: Net(steps, head(H), ids=False, bias=False),
    "the last step": lambda: Net(lambda y, h: y[:, -1], head(H, nn.ReLU())),
    "the last step, sliced": lambda: Net(lambda y, h: y[:, -1:][:, 0], head(H, nn.Tanh())),
    "h_n[-1]": lambda: Net(lambda y, h: h[-1], head(H, nn.LeakyReLU()), num_layers=2),
    "h_n of both directions": lambda: Net(lambda y, h: torch.cat((h[-2], h[-1]), 1), head(2 * H, nn.ELU()),
                                          num_layers=2, bidirectional=True),
    "both ends": lambda: Net(lambda y, h: torch.cat((y[:, -1, :H], y[:, 0, H:]), 1), head(2 * H, nn.Softsign()),
                             bidirectional=True),
    "activations": lambda: Net(steps, head(H, nn.GELU("tanh"), nn.SiLU(), nn.Softplus(), nn.Sigmoid()), dropout=0.5,
                               num_layers=2),
    "softmax": lambda: Net(steps, nn.Sequential(head(H), nn.Softmax(-1))),
    "a logistic unit": lambda: Net(lambda y, h: h[-1], nn.Sequential(head(H, outputs=1), nn.Sigmoid())),
    "rows of all steps": lambda: Net(lambda y, h: y.reshape(-1, H), head(H, nn.ReLU())),
}  # fmt: skip


def export(net, args, path, dynamo, dims=None):
    names = [f"x{n}" for n in range(len(args))]
    if dynamo:
        shapes = None
        if dims:
            sizes = [torch.export.Dim(name, min=2, max=64) for name in ("batch", "steps")]
            shapes = {"x": dict(enumerate(sizes))}
        torch.onnx.export(net, args, path, dynamo=True, input_names=names, verbose=False, dynamic_shapes=shapes)
    else:
        axes = {"x0": {0: "batch", 1: "steps"}} if dims else {}
        torch.onnx.export(net, args, path, dynamo=False, input_names=names, dynamic_axes=axes)


def outputs_of(model, x):
    """What the file's outputs are: probabilities, where it ends in them."""
    if model.loss.name == "cross_entropy":
        return model.predict_proba(x)
    y = model(x)[0]
    return 1 / (1 + np.exp(-y)) if model.loss.name == "binary_cross_entropy" else y


@pytest.mark.parametrize(
    ("name", "dims", "dynamo"),
    [*((name, not dynamo, dynamo) for name in NETS for dynamo in (False, True)),
     ("a sequence of both directions", True, True), ("h_n[-1]", True, True)],  # the exporter takes long
)  # fmt: skip
def test_networks(name, dims, dynamo, tmp_path):
    path, net = str(tmp_path / "net.onnx"), NETS[name]().eval()
    x = torch.randn(B, T, E) if isinstance(net.embedding, nn.Identity) else torch.randint(0, V, (B, T))
    export(net, (x,), path, dynamo, dims)
    model = exchange.load(path)
    expected = net(x).detach().numpy()
    got = outputs_of(model, x.numpy())
    np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


@BOTH
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers(bidirectional, batch_first, dynamo, tmp_path):
    path, lstm = str(tmp_path / "lstm.onnx"), nn.LSTM(E, H, 3, bidirectional=bidirectional, batch_first=batch_first)
    x = torch.randn(B, T, E) if batch_first else torch.randn(T, B, E)
    export(lstm, (x,), path, dynamo)
    network = exchange.read(path)
    assert network.notes == ({} if batch_first else {"time_major": True})
    rows = x.numpy() if batch_first else x.numpy().swapaxes(0, 1)
    expected, (h, c) = lstm(x)
    expected = expected.detach().numpy()
    model = exchange.model_of(network)
    y, state = model(rows)
    np.testing.assert_allclose(y, expected if batch_first else expected.swapaxes(0, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.h, h.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, c.detach().numpy(), rtol=1e-5, atol=1e-6)
    nodes = onnx.read_nodes(path)
    assert [node.behind for node in nodes] == [None, 0, 1]
    assert np.array_equal(exchange.model_of(onnx.stack_of(nodes)).parameters.flat, model.parameters.flat)


@BOTH
def test_states_from_outside(dynamo, tmp_path):
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(E, H, 2, batch_first=True), nn.Linear(H, 2)

        def forward(self, x, h, c):
            y, (h, c) = self.lstm(x, (h, c))
            return self.head(y), h, c

    path, net = str(tmp_path / "net.onnx"), Step().eval()
    args = torch.randn(B, T, E), torch.randn(2, B, H), torch.randn(2, B, H)
    export(net, args, path, dynamo)
    model = exchange.load(path)
    x, h, c = (one.numpy() for one in args)
    y, state = model(x, (h, c))
    for got, expected in zip((y, *state), net(*args), strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


@BOTH
@pytest.mark.parametrize(("choose", "message"), [
    (lambda y, h: y[:, -1], "expected a layer's final state, got one step of its outputs"),
    (lambda y, h: y.mean(1), r"ReduceMean\): expected an operator that a model here has"),
    (lambda y, h: y[:, :, ::2].repeat(1, 1, 2), "expected"),
])  # fmt: skip
def test_what_no_model_does_is_refused(choose, message, dynamo, tmp_path):
    path, net = str(tmp_path / "net.onnx"), Net(choose, head(2 * H), bidirectional=True).eval()
    export(net, (torch.randint(0, V, (B, T)),), path, dynamo)
    with pytest.raises(ValueError, match=message):
        exchange.load(path)


@BOTH
def test_an_activation_that_no_model_has(dynamo, tmp_path):
    path, net = str(tmp_path / "net.onnx"), Net(steps, head(H, nn.GELU())).eval()  # by erf
    export(net, (torch.randint(0, V, (B, T)),), path, dynamo)
    with pytest.raises(ValueError, match=r"expected one of the activations linear, relu, .*, got another|Erf"):
        exchange.load(path)
