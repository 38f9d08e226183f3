"""PyTorch's state dicts, in memory and as safetensors; torch itself is in tests/others."""

import contextlib
import json
import os
import struct
import sys

import numpy as np
import pytest
import safetensors.numpy
from lstm_by_hand import both_ways, lstm_layer
from test_exchange import arrays, random_model

import cylstm
from cylstm import exchange, oracle
from cylstm.exchange.network import Direction, Network, Recurrent


def lstm_of(rng, I, H, L=1, ways=("",), prefix="", dtype=np.float32):
    """Weights as an nn.LSTM has them."""
    shapes = {}
    for n in range(L):
        for way in ways:
            inputs = len(ways) * H if n else I
            for name, shape in dict(weight_ih=(4 * H, inputs), weight_hh=(4 * H, H), bias_ih=(4 * H,),
                                    bias_hh=(4 * H,)).items():  # fmt: skip
                shapes[f"{prefix}{name}_l{n}{way}"] = shape
    return {name: rng.uniform(-0.7, 0.7, shape).astype(dtype) for name, shape in shapes.items()}


def arguments_of(state, ending, prefix=""):
    """Those of lstm_layer, without x."""
    W, U, b1, b2 = (state[f"{prefix}{name}{ending}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return W, U, b1 + b2


def saved(path, state, **metadata):
    safetensors.numpy.save_file(state, path, metadata=metadata or None)
    return path


def near(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_an_lstm_in_memory_is_a_layer(rng):
    state = lstm_of(rng, 3, 5, 2, ("", "_reverse"))
    lstm, x = exchange.load(state, format="pytorch"), rng.standard_normal((9, 3)).astype("f4")
    assert isinstance(lstm, cylstm.LSTM) and lstm.bidirectional and lstm.num_layers == 2
    h = both_ways(x, arguments_of(state, "_l0"), arguments_of(state, "_l0_reverse"))
    near(lstm(x)[0], both_ways(h, arguments_of(state, "_l1"), arguments_of(state, "_l1_reverse")))
    assert np.array_equal(lstm.parameters["weight_hh_l1_reverse"], state["weight_hh_l1_reverse"])


def test_a_whole_module_is_a_model(rng, tmp_path):
    state = lstm_of(rng, 6, 5, prefix="body.rnn.")
    for name, shape in {"table": (7, 4), "in": (6, 4), "mid": (3, 5), "out": (2, 3)}.items():
        state[f"{name}.weight"] = rng.standard_normal(shape).astype("f4")
    state |= {"in.bias": np.float32([1, 0, -1, 2, 0.5, -2]), "out.bias": np.float32([0.5, -0.25])}
    model = exchange.load(saved(tmp_path / "m.safetensors", state), embedding="table.", before={"in.": "tanh"},
                          after={"mid.": "relu"}, head="out.", final="softmax")  # fmt: skip
    ids = np.array([3, 0, 6, 6, 2])
    h = np.tanh(state["table.weight"][ids] @ state["in.weight"].T + state["in.bias"])
    h = lstm_layer(h, *arguments_of(state, "_l0", "body.rnn."))
    e = np.exp(np.maximum(h @ state["mid.weight"].T, 0) @ state["out.weight"].T + state["out.bias"])
    near(model.predict_proba(ids), e / e.sum(axis=1, keepdims=True))


def test_only_the_last_output_goes_on_where_asked(rng):
    state = lstm_of(rng, 3, 5) | {"out.weight": rng.standard_normal((2, 5)).astype("f4")}
    model, x = exchange.load(state, format="pytorch", head="out.", last=True), rng.standard_normal((9, 3)).astype("f4")
    near(model(x)[0], lstm_layer(x, *arguments_of(state, "_l0"))[-1] @ state["out.weight"].T)


def test_a_prefix_chooses(rng, tmp_path):
    a, b = lstm_of(rng, 3, 5, prefix="a.lstm."), lstm_of(rng, 5, 5, prefix="b.")
    path = saved(tmp_path / "two.safetensors", {**a, **b})
    with pytest.raises(ValueError, match=r"two.safetensors: prefix: expected one of 'a.lstm.', 'b.', .* got None"):
        exchange.load(path)
    with pytest.warns(UserWarning, match=r"two.safetensors: left out, as no option names it: a.lstm.bias_hh_l0, .*l0$"):
        network = exchange.read(path, prefix="b.")
    assert np.array_equal(network.layers[0].directions[0].weight_hh, b["b.weight_hh_l0"])
    assert sorted(network.notes["left_out"]) == sorted(a)
    both, x = exchange.load(path, prefix=["a.lstm.", "b."]), rng.standard_normal((9, 3)).astype("f4")
    h = lstm_layer(x, *arguments_of(a, "_l0", "a.lstm."))
    near(both(x)[0], lstm_layer(h, *arguments_of(b, "_l0", "b.")))


def test_the_only_lstm_is_found_deep_inside_and_a_gru_is_none(rng):
    state = lstm_of(rng, 3, 5, prefix="core.")
    gru = {f"gru.{name}_l0": np.ones((15, 5), "f4") for name in ("weight_ih", "weight_hh")}
    file = {"step": 3, "model": {**state, **gru}, "moments": {0: {"m": [1.0]}}}
    with pytest.warns(UserWarning, match="^state dict: left out, as no option names it: model.gru.weight_ih_l0, "):
        network = exchange.read(file, format="pytorch")
    assert network.layers[0].hidden_size == 5
    assert network.notes["left_out"] == ["model.gru.weight_ih_l0", "model.gru.weight_hh_l0"]


def test_a_cell_is_a_layer(rng):
    state = {name.replace("_l0", ""): array for name, array in lstm_of(rng, 3, 5, prefix="cell.").items()}
    x = rng.standard_normal((9, 3)).astype("f4")
    near(exchange.load(state, format="pytorch")(x)[0], lstm_layer(x, *arguments_of(state, "", "cell.")))


def test_a_name_is_one_tensors(rng):
    state = lstm_of(rng, 3, 5)
    twice = {f"a.{name}": array for name, array in state.items()} | {"a": {"bias_ih_l0": state["bias_hh_l0"]}}
    with pytest.raises(ValueError, match=r"^state dict: a.bias_ih_l0: expected one tensor of this name, got several"):
        exchange.read(twice, format="pytorch")


def test_a_missing_bias_is_none(rng):
    state = {name: array for name, array in lstm_of(rng, 3, 5).items() if "bias" not in name}
    assert "bias_l0" not in exchange.load(state, format="pytorch").parameters


def bits_of(x, dtype):
    return np.asarray(x, dtype).tobytes()


def container(path, entries):
    """A safetensors file of {name: (type, shape, bytes)}."""
    header, body = {}, b""
    for name, (kind, shape, content) in entries.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_half_precision_becomes_float32_exactly(rng, tmp_path):
    single = lstm_of(rng, 3, 5)
    upper = {name: (array.view("u4") >> 16).astype("u2") for name, array in single.items()}
    entries = {name: ("BF16", list(single[name].shape), bits.tobytes()) for name, bits in upper.items()}
    path = container(tmp_path / "b.safetensors", entries)
    got = exchange.read(path).layers[0].directions[0]
    assert got.weight_ih.dtype == np.float32
    assert np.array_equal(got.weight_ih, (single["weight_ih_l0"].view("u4") & 0xFFFF0000).view("f4"))
    half = {name: array.astype("f2") for name, array in single.items()}
    half["weight_hh_l0"][:3, 0] = 6e-8, 65504, -0.0  # the smallest and the largest there are
    got = exchange.read(saved(tmp_path / "h.safetensors", half)).layers[0].directions[0]
    assert bits_of(got.weight_hh, "f4") == bits_of(half["weight_hh_l0"], "f4")
    assert np.array_equal(got.bias, half["bias_ih_l0"].astype("f4") + half["bias_hh_l0"].astype("f4"))


@pytest.mark.parametrize("name", ["plain", "deep, both ways", "ids", "dense layers"])
def test_a_model_comes_back_to_the_bit(name, tmp_path):
    model = random_model(name)
    path = tmp_path / "m.safetensors"
    told = {"deep, both ways": "dropout, softmax of head", "ids": "softmax of head",
            "dense layers": "dropout, tanh of before.0, relu of after.0, sigmoid of head, last"}.get(name)  # fmt: skip
    with (
        pytest.warns(UserWarning, match=f"as a state dict has no place for it: {told}$")
        if told
        else contextlib.nullcontext()
    ):
        exchange.save(model, path, prefix="net.")
    layers = {"before": {"net.before.0.": "tanh"}, "after": {"net.after.0.": "relu"}} if model.before else {}
    table = {} if model.embedding_size is None else {"embedding": "net.embedding."}
    final = exchange.network_of(model).layers[-1].activation
    again = exchange.load(path, head="net.head.", final=final, last=model.output == "last", **layers, **table)
    assert again.dtype == model.dtype and list(again.parameters) == list(model.parameters)
    assert np.array_equal(again.parameters.flat, model.parameters.flat)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"} and not file.get_tensor("net.lstm.bias_hh_l0").any()


def test_a_layer_comes_back_to_the_bit(tmp_path):
    lstm = cylstm.LSTM(3, 5, 2, bidirectional=True, bias=False, dtype="float64", seed=1)
    exchange.save(lstm, tmp_path / "l.safetensors")
    assert np.array_equal(exchange.load(tmp_path / "l.safetensors").parameters.flat, lstm.parameters.flat)
    assert set(safetensors.numpy.load_file(tmp_path / "l.safetensors")) == set(lstm.parameters)


def test_a_projection_comes_in_and_goes_out(tmp_path, rng):
    shapes = dict(
        weight_ih_l0=(20, 3),
        weight_hh_l0=(20, 2),
        bias_ih_l0=(20,),
        bias_hh_l0=(20,),
        weight_hr_l0=(2, 5),
        weight_ih_l1=(20, 2),
        weight_hh_l1=(20, 2),
        bias_ih_l1=(20,),
        bias_hh_l1=(20,),
        weight_hr_l1=(2, 5),
    )
    state = {name: rng.uniform(-0.7, 0.7, shape).astype("f4") for name, shape in shapes.items()}
    lstm, x = exchange.load(saved(tmp_path / "in.safetensors", state)), rng.standard_normal((2, 9, 3)).astype("f4")
    ours = {name: array.astype(float) for name, array in state.items() if "bias" not in name}
    ours |= {f"bias_l{n}": state[f"bias_ih_l{n}"].astype(float) + state[f"bias_hh_l{n}"] for n in range(2)}
    assert lstm.cell.proj_size == 2 and lstm(x)[0].shape == (2, 9, 2)
    near(lstm(x)[0], oracle.forward(x, ours, num_layers=2)[0])
    exchange.save(lstm, tmp_path / "out.safetensors")
    written = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    assert {name: array.shape for name, array in written.items()} == shapes
    assert np.array_equal(written["weight_hr_l1"], state["weight_hr_l1"])
    again = exchange.load(tmp_path / "out.safetensors")
    assert again.options == lstm.options and np.array_equal(again.parameters.flat, lstm.parameters.flat)


def test_a_layer_without_a_bias_gets_zeros_where_others_have_one(tmp_path):
    W, U, b, V, Z = arrays((20, 3), (20, 5), (20,), (20, 5), (20, 5))
    layers = Recurrent((Direction(W, U, b),)), Recurrent((Direction(V, Z),))
    exchange.write(Network(layers), tmp_path / "l.safetensors")
    state = safetensors.numpy.load_file(tmp_path / "l.safetensors")
    assert np.array_equal(state["bias_ih_l0"], b) and np.array_equal(state["bias_ih_l1"], np.zeros(20, "f4"))


def test_our_own_files_and_theirs_point_to_each_other(tmp_path, rng):
    random_model("plain").save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"own.safetensors: expected weights of PyTorch, .* which Model.load reads"):
        exchange.load(tmp_path / "own.safetensors")
    with pytest.raises(
        ValueError, match=r"theirs.safetensors: expected a cylstm model, .*; cylstm.exchange.load reads"
    ):
        cylstm.Model.load(saved(tmp_path / "theirs.safetensors", lstm_of(rng, 3, 5)))


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def changed(name, value):
    return lambda state: {**state, name: value}


F4 = np.float32


def projected(state):
    return {**state, "weight_hh_l0": np.ones((20, 2), F4), "weight_hr_l0": np.ones((3, 5), F4)}


WRONG = {
    "nothing": (lambda state: {}, {}, r"expected an LSTM's weight_hh_l0 \(4\*H, H\), got no tensors$"),
    "no LSTM": (lambda state: {"weight": np.ones((3, 4), F4)}, {}, r"expected an LSTM's weight_hh_l0 \(4\*H, H\), got"),
    "prefix": (dict, {"prefix": "rnn."}, "expected a tensor rnn.weight_ih_l0, got none among .*weight_ih_l0"),
    "half a bias": (without("bias_hh_l0"), {}, "expected a tensor bias_hh_l0, got none"),
    "two lengths": (changed("bias_hh_l0", np.ones(1, F4)), {}, r"bias_hh_l0: expected shape \(20,\), got \(1,\)"),
    "one way more": (changed("weight_ih_l0_reverse", np.ones((20, 3), F4)), {}, "weight_hh_l0_reverse, got none"),
    "a gap": (changed("weight_ih_l2", np.ones((20, 5), F4)), {}, r"the names .* layers 0\.\.0, got weight_ih_l2"),
    "projection": (projected, {}, r"projection: expected shape \(2, any\), got \(3, 5\)"),
    "integers": (changed("weight_ih_l0", np.ones((20, 3), "i1")), {}, "weight_ih_l0: expected floating-point numbers"),
    "shapes": (changed("weight_ih_l0", np.ones((19, 3), F4)), {}, r"weight_ih: expected shape \(20, any\), got \(19"),
    "no head": (dict, {"head": "out."}, "expected a tensor out.weight, got none"),
    "activation": (dict, {"after": {"weight": "swish"}}, r"after\['weight'\]: expected one of 'linear', "),
    "no head for it": (dict, {"final": "softmax"}, "final: expected linear without a head, .*, got softmax"),
    "twice": (dict, {"after": {"x.": "relu"}, "head": "x."}, "head: expected another layer than those of after, got"),
    "final": (dict, {"final": "relu"}, "final: expected one of 'linear', 'softmax', 'sigmoid', got str 'relu'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_wrong_is_said_by_name(name, in_memory, tmp_path, rng):
    change, options, message = WRONG[name]
    state = change(lstm_of(rng, 3, 5))
    with pytest.raises(ValueError, match=message):
        if in_memory:
            exchange.load(state, format="pytorch", **options)
        else:
            exchange.load(saved(tmp_path / "m.safetensors", state), **options)


@pytest.mark.parametrize("options, message", [
    (dict(prefix=5), "prefix: expected text that names begin with, or a list of such, got int 5"),
    (dict(prefix=[]), "prefix: expected text that names begin with, or a list of such, got list"),
    (dict(prefix=["a.", 5]), r"prefix\[1\]: expected text that names begin with, got int 5"),
    (dict(embedding=5), "embedding: expected text that names begin with, got int 5"),
    (dict(head=b"head."), "head: expected text that names begin with, got bytes"),
    (dict(before={5: "relu"}), "before: expected text that names begin with, got int 5"),
    (dict(after=["x."]), "after: expected {prefix: activation}, got list"),
])  # fmt: skip
def test_prefixes_are_text(options, message, rng):
    with pytest.raises(TypeError, match=f"^{message}"):
        exchange.read(lstm_of(rng, 3, 5), format="pytorch", **options)


def test_what_names_begin_with_is_text_where_they_are_written_too(tmp_path):
    with pytest.raises(TypeError, match=r"^prefix: expected text that names begin with, got int 5"):
        exchange.save(cylstm.LSTM(3, 5), tmp_path / "l.safetensors", prefix=5)
    assert not list(tmp_path.iterdir())


def layer_of(I, H, ways=1):
    return Recurrent(tuple(Direction(*arrays((4 * H, I), (4 * H, H), seed=n)) for n in range(ways)))


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
@pytest.mark.parametrize("second, message", [
    (lambda: layer_of(5, 6), "expected hidden units as in the first one, 5, got 6"),
    (lambda: layer_of(5, 5, 2), "expected directions as in the first one, 1, got 2|expected one direction, as RTN"),
    (lambda: Recurrent((Direction(*arrays((20, 5), (20, 2)), projection=arrays((2, 5))[0]),)),
     "expected a projection as in the first one, 0, got 2|expected no projection"),
])  # fmt: skip
def test_a_stack_that_no_lstm_of_torch_is_is_not_written(second, message, ending, tmp_path):
    options = {"state_dict": True} if ending == ".json" else {}
    with pytest.raises(ValueError, match=f"l{ending}: LSTM layer [01]: {message}"):
        exchange.write(Network((layer_of(3, 5), second())), tmp_path / f"l{ending}", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options, message", [
    (dict(peepholes=True), "LSTM layer 0: expected no peephole, which torch.nn.LSTM has not"),
    (dict(coupled=True), "LSTM layer 0: expected no coupled, which torch.nn.LSTM has not, got bool True"),
    (dict(cell_clip=2.0), "LSTM layer 0: expected no cell_clip"),
])  # fmt: skip
def test_what_torch_has_not_is_not_written(options, message, tmp_path, rng):
    lstm = cylstm.LSTM(3, 5, **options)
    lstm.parameters.flat = rng.standard_normal(lstm.parameters.size)
    with pytest.raises(ValueError, match=f"l.safetensors: {message}"):
        exchange.save(lstm, tmp_path / "l.safetensors")
    assert not list(tmp_path.iterdir())


def test_torchs_own_files_are_left_to_torch(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"l.pt: expected a name that ends in .safetensors"):
        exchange.save(cylstm.LSTM(3, 5), tmp_path / "l.pt")
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    with pytest.raises(ImportError, match=r"l.pt: expected torch, which reads its own files, got none"):
        exchange.load(tmp_path / "l.pt")


@pytest.mark.parametrize("content", [b"", b"\x08", struct.pack("<Q", 2**62) + b"{}", b"PK\x03\x04" * 9])
def test_damaged_files_are_refused_by_name(content, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^:]*x.safetensors: expected weights of PyTorch, got a file that is"):
        exchange.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        exchange.load(tmp_path / "absent.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("ending", [".safetensors", ".json", ".nam"])
def test_a_pipe_is_not_waited_for(ending, tmp_path):
    os.mkfifo(tmp_path / f"p{ending}")
    with pytest.raises(ValueError, match=rf"^[^:]*p{ending}: expected a regular file, got a pipe or a device"):
        exchange.load(tmp_path / f"p{ending}")


def test_a_claim_of_too_much_allocates_nothing(tmp_path, traced):
    path = container(tmp_path / "x.safetensors", {"weight_hh_l0": ("F32", [4 * 10**9, 10**9], bytes(80))})

    def read():
        with pytest.raises(ValueError, match=r"x.safetensors: expected weights of PyTorch, got"):
            exchange.load(path)

    assert traced(read) < 1e6
