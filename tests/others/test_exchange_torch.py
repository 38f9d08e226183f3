"""PyTorch's own files and modules, both ways."""

import numpy as np
import pytest

import cylstm
from cylstm import exchange

torch = pytest.importorskip("torch")


class Tagger(torch.nn.Module):
    """Ids to classes, as half of all LSTM modules are written."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.proj = torch.nn.Linear(6, 4)
        self.rnn = torch.nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.mid = torch.nn.Linear(10, 7, bias=False)
        self.out = torch.nn.Linear(7, 3)

    def forward(self, ids):
        y, _ = self.rnn(torch.tanh(self.proj(self.embed(ids))))
        return self.out(torch.nn.functional.gelu(self.mid(y), approximate="tanh"))


TAGGER = dict(embedding="embed.", before={"proj.": "tanh"}, after={"mid.": "gelu_tanh"}, head="out.")


@pytest.fixture
def tagger():
    torch.manual_seed(3)
    return Tagger().eval()


def ids():
    return torch.from_numpy(np.random.default_rng(1).integers(0, 11, (4, 9)))


def near(got, tensor, bound=2e-6):
    np.testing.assert_allclose(got, tensor.detach().double().numpy(), rtol=0, atol=bound)


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_a_file_of_torch_is_a_model(ending, tagger, tmp_path):
    path = tmp_path / f"tagger{ending}"
    torch.save({"epoch": 3, "net": tagger.state_dict(), "args": {"lr": 0.1}, "losses": [0.5, 0.25]}, path)
    options = {key: value if isinstance(value, dict) else f"net.{value}" for key, value in TAGGER.items()}
    for name in ("before", "after"):
        options[name] = {f"net.{prefix}": activation for prefix, activation in TAGGER[name].items()}
    model = exchange.load(path, **options)
    near(model(ids().numpy())[0], tagger(ids()))


def test_a_state_dict_is_a_model(tagger):
    near(exchange.load(tagger.state_dict(), format="pytorch", **TAGGER)(ids().numpy())[0], tagger(ids()))
    with pytest.warns(UserWarning, match="^state dict: left out, as no option names it: embed.weight, "):
        lstm, x = exchange.load(tagger.state_dict(), format="pytorch"), torch.randn(4, 9, 4)
    near(lstm(x.numpy())[0], tagger.rnn(x)[0])


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-13), (torch.bfloat16, 2e-6), (torch.float16, 2e-6)])
def test_other_types_are_read_exactly(dtype, bound, tagger):
    state = tagger.to(dtype).state_dict()
    with pytest.warns(UserWarning, match="left out"):
        lstm, x = exchange.load(state, format="pytorch"), torch.randn(4, 9, 4, dtype=torch.float64)
    wide = tagger.double().rnn  # the same numbers
    assert lstm.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert np.array_equal(lstm.parameters["weight_hh_l1"], wide.weight_hh_l1.detach().numpy())
    near(lstm(x.numpy().astype(lstm.dtype))[0], wide(x)[0], bound)


def test_what_we_write_torch_loads(tmp_path):
    from safetensors.torch import load_file

    lstm, x = cylstm.LSTM(3, 5, 2, bidirectional=True, seed=1), torch.randn(4, 9, 3)
    exchange.save(lstm, tmp_path / "l.safetensors", prefix="rnn.")
    module = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True)})
    module.load_state_dict(load_file(tmp_path / "l.safetensors"))
    near(lstm(x.numpy())[0], module["rnn"](x)[0])


class Payload:
    def __reduce__(self):
        return (print, ("it ran",))


def repeated(name, shape):
    return lambda state: {**state, name: torch.zeros(1).expand(shape)}


FILES = {
    "code": (lambda state: {**state, "x": Payload()}, r"expected a state dict that torch.load.* reads"),
    "no mapping": (lambda state: [1, 2], "expected a state dict, got list"),
    "repeated": (repeated("weight_ih_l0", (20, 10**9)), r"weight_ih_l0: expected numbers of their own, got \(20, 100"),
    "sparse": (lambda state: {**state, "weight_ih_l0": state["weight_ih_l0"].to_sparse()}, "weight_ih_l0: expected"),
    "meta": (lambda state: {**state, "weight_ih_l0": torch.empty(20, 10**9, device="meta")}, "weight_ih_l0: expected"),
    "complex": (lambda state: {**state, "weight_ih_l0": state["weight_ih_l0"] * 1j}, "weight_ih_l0: expected floating"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_weights_are_refused_by_name(name, tmp_path):
    change, message = FILES[name]
    torch.save(change(torch.nn.LSTM(3, 5).state_dict()), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=f"^[^:]*x.pt: {message}"):
        exchange.load(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 9, b"\x80\x04.", bytes(range(256))])
def test_damaged_files_are_refused_by_name(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^[^:]*x.pt: expected a state dict that torch.load\(weights_only=True\) reads"
    ):
        exchange.load(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError):
        exchange.load(tmp_path / "absent.pt")
