"""accelerate and restore change classes and nothing else; pickles are torch's."""

import abc
import copy
import io
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import assert_close, assert_same, loss_of, parts, results  # noqa: E402

import cylstm.torch  # noqa: E402
from cylstm.torch import accelerate, explain, restore  # noqa: E402

nn = torch.nn


class Peephole(nn.LSTM):
    """A user's own subclass: its forward is to run, around whoever computes."""

    def __init__(self, *args, scale=2.0, **options):
        super().__init__(*args, **options)
        self.scale = scale

    def forward(self, input, hx=None):
        y, state = super().forward(input, hx)
        return y * self.scale, state


class Recurrent(abc.ABC, nn.Module):
    """A library's common face of its layers, with a metaclass."""

    @abc.abstractmethod
    def initial(self, B): ...


class Abstract(Recurrent, nn.LSTM):
    def initial(self, B):
        return (torch.zeros(self.num_layers, B, self.hidden_size),) * 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 3)
        self.encoder = nn.Sequential(nn.Linear(3, 5), nn.ModuleDict({"rnn": nn.LSTM(5, 7, 2)}))
        self.cell = nn.LSTMCell(7, 7)
        self.own = Peephole(7, 7)
        self.same = self.own
        self.gru = nn.GRU(7, 7)
        self.double()

    def forward(self, ids):
        x = self.encoder[0](self.embedding(ids))
        y, _ = self.encoder[1]["rnn"](x)
        y = self.same(self.own(y)[0])[0]
        h, c = self.cell(y[-1])
        return self.gru(y)[0] + h + c


NAMES = ["encoder.1.rnn", "cell", "own"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


@pytest.fixture
def nets():
    """Two of the same: one to be changed, one to be compared with."""
    net = Net()
    return net, copy.deepcopy(net)


def gradients(net, ids):
    net.zero_grad()
    y = net(ids)
    loss_of([y]).backward()
    return [y.detach(), *(p.grad for p in net.parameters())]


def classes(net):
    """As numbers, so that no class passes for another by __eq__."""
    return {name: id(type(module)) for name, module in net.named_modules(remove_duplicate=False)}


def test_every_lstm_is_changed_and_given_back(nets):
    net, other = nets
    ids, before, kept = torch.randint(11, (6, 4)), classes(net), dict(net.named_parameters())
    changes = accelerate(net)
    assert [change.name for change in changes] == NAMES
    assert [change.before for change in changes] == [nn.LSTM, nn.LSTMCell, Peephole]
    assert [change.after for change in changes] == [type(net.get_submodule(name)) for name in NAMES]
    assert changes[0].after is cylstm.torch.LSTM and changes[1].after is cylstm.torch.LSTMCell
    assert changes[2].after is not Peephole and issubclass(changes[2].after, Peephole)
    assert changes[2].after.__name__ == "Peephole"
    for name, parameter in net.named_parameters():
        assert parameter is kept[name]
    assert_close(gradients(net, ids), gradients(other, ids))
    back = restore(net)
    assert [(change.name, change.after, change.before) for change in back] == [
        (change.name, change.before, change.after) for change in changes
    ]
    assert classes(net) == before and dict(net.named_parameters()).keys() == kept.keys()
    assert all(parameter is kept[name] for name, parameter in net.named_parameters())
    assert net.own.__dict__.keys() == other.own.__dict__.keys()
    assert_close(gradients(net, ids), gradients(other, ids))


def test_twice_is_once(nets):
    net, _ = nets
    accelerate(net)
    after = classes(net)
    assert accelerate(net) == [] and classes(net) == after
    restore(net)
    after = classes(net)
    assert restore(net) == [] and classes(net) == after


@pytest.mark.parametrize("make", [nn.LSTM, nn.LSTMCell, Peephole])
def test_the_model_itself(make):
    module = make(3, 4)
    kept = list(module.parameters())
    (change,) = accelerate(module)
    assert change.name == "" and change.before is make and change.after is type(module) and type(module) is not make
    assert isinstance(module, make) and all(a is b for a, b in zip(kept, module.parameters(), strict=True))
    (change,) = restore(module)
    assert change.name == "" and change.after is make is type(module)


def test_a_model_without_lstm_and_swapped_modules_are_left_alone():
    assert accelerate(nn.Sequential(nn.Linear(3, 4), nn.GRU(3, 4), nn.RNN(3, 4), nn.GRUCell(3, 4))) == []
    swapped = nn.Sequential(cylstm.torch.LSTM(3, 4))
    assert accelerate(swapped) == []


def test_restore_gives_torchs_class_to_a_swapped_module():
    model = nn.Sequential(cylstm.torch.LSTM(3, 4), cylstm.torch.LSTMCell(3, 4))
    assert [change.name for change in restore(model)] == ["0", "1"]
    assert [type(module) for module in model] == [nn.LSTM, nn.LSTMCell]


def test_a_users_forward_runs_and_its_class_too():
    module, other = Peephole(3, 4, scale=3.0, dtype=torch.float64), nn.LSTM(3, 4, dtype=torch.float64)
    other.load_state_dict(module.state_dict())
    accelerate(module)
    x = torch.randn(20, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(module(x)[0], other(x)[0] * 3.0)
    assert explain(module, x).engine == "cylstm"
    assert repr(module) == "Peephole(3, 4)"
    assert accelerate(nn.ModuleList([Peephole(3, 4)]))[0].after is type(module)


def test_optimisers_hooks_and_gradients_survive(nets):
    seen, losses = [], []
    for net in nets:
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        net.encoder[1]["rnn"].register_forward_hook(lambda module, given, result: seen.append(type(module)))
        net.encoder[1]["rnn"].weight_hh_l0.register_hook(lambda gradient: gradient * 0.5)
        torch.manual_seed(4)
        for update in range(6):
            if net is nets[0]:
                {2: accelerate, 4: restore}.get(update, lambda net: None)(net)
            optimizer.zero_grad()
            loss = net(torch.randint(11, (5, 3))).pow(2).sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:6] == pytest.approx(losses[6:], rel=1e-9)
    assert seen[:6] == [nn.LSTM] * 2 + [cylstm.torch.LSTM] * 2 + [nn.LSTM] * 2


def test_state_dict_is_the_same(nets):
    net, other = nets
    accelerate(net)
    assert list(net.state_dict()) == list(other.state_dict())
    assert_close(dict(net.state_dict()), dict(other.state_dict()))
    net.load_state_dict(other.state_dict())
    other.load_state_dict(net.state_dict())


def test_tied_and_frozen_weights_stay_so():
    model = nn.ModuleList([nn.LSTM(4, 4, dtype=torch.float64), nn.LSTM(4, 4, dtype=torch.float64)])
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    model[0].bias_hh_l0.requires_grad_(False)
    accelerate(model)
    assert model[1].weight_hh_l0 is model[0].weight_hh_l0 and not model[0].bias_hh_l0.requires_grad
    model[0].weight_hh_l0.data.mul_(0.5)
    theirs = nn.LSTM(4, 4, dtype=torch.float64)
    theirs.load_state_dict(model[1].state_dict())
    assert_same(model[1], theirs)


def test_deepcopy_stays_accelerated_and_apart(nets):
    net, _ = nets
    accelerate(net)
    ids = torch.randint(11, (6, 4))
    expected = net(ids)
    twin = copy.deepcopy(net)
    assert classes(twin) == classes(net)
    torch.testing.assert_close(twin(ids), expected)
    with torch.no_grad():
        twin.encoder[1]["rnn"].weight_hh_l0.zero_()
    assert not torch.equal(twin(ids), expected)
    torch.testing.assert_close(net(ids), expected)
    restore(twin)
    assert type(twin.own) is Peephole and type(net.own) is not Peephole


def saved(model, how):
    file = io.BytesIO()
    if how == "torch.save":
        torch.save(model, file)
    else:
        pickle.dump(model, file)
    return file.getvalue()


def models():
    torch.manual_seed(3)
    swapped = nn.Sequential(cylstm.torch.LSTM(3, 4, 2), cylstm.torch.LSTMCell(3, 4))
    accelerated = nn.Sequential(nn.LSTM(3, 4, 2), nn.LSTMCell(3, 4))
    accelerate(accelerated)
    return {
        "swapped": swapped,
        "accelerated": accelerated,
        "swapped alone": swapped[0],
        "accelerated alone": accelerated[0],
    }


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("how", ["torch.save", "pickle"])
@pytest.mark.parametrize("which", ["swapped", "accelerated", "swapped alone", "accelerated alone"])
def test_a_pickle_is_torchs(which, how, used, tmp_path):
    """It loads where cylstm is not installed, gives the same numbers there, and can be saved again."""
    model = models()[which]
    lstm = model if which.endswith("alone") else model[0]
    x = torch.linspace(-1, 1, 20 * 2 * 3).reshape(20, 2, 3)
    if used:
        lstm(x)
    data, before = saved(model, how), classes(model)
    assert b"cylstm" not in data
    assert classes(model) == before
    (tmp_path / "model").write_bytes(data)
    code = """if True:
        import pickle, sys
        sys.modules["cylstm"] = None
        import torch
        how, alone, path = sys.argv[1:]
        load = (lambda file: torch.load(file, weights_only=False)) if how == "torch.save" else pickle.load
        with open(path, "rb") as file:
            model = load(file)
        lstm = model if alone == "True" else model[0]
        assert type(lstm) is torch.nn.LSTM, type(lstm)
        assert alone == "True" or type(model[1]) is torch.nn.LSTMCell
        y, _ = lstm(torch.linspace(-1, 1, 20 * 2 * 3).reshape(20, 2, 3))
        pickle.dumps(model)
        torch.save(y, path + ".y")
    """
    path = tmp_path / "model"
    subprocess.run([sys.executable, "-c", code, how, str(which.endswith("alone")), str(path)], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "model.y"), lstm(x)[0].detach())


def test_a_pickled_model_is_accelerated_again_on_request(nets):
    net, other = nets
    accelerate(net)
    again = pickle.loads(pickle.dumps(net))
    assert type(again.own) is Peephole and type(again.cell) is nn.LSTMCell and again.same is again.own
    assert [change.name for change in accelerate(again)] == NAMES
    ids = torch.randint(11, (6, 4))
    assert_close(gradients(again, ids), gradients(other, ids))


def quantised(model, *spec):
    return torch.ao.quantization.quantize_dynamic(model, *spec, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("spec", [(), ({nn.LSTM},), ({nn.LSTM, nn.LSTMCell, nn.Linear},)])
@pytest.mark.parametrize("which", ["swapped", "accelerated"])
def test_quantize_dynamic_finds_the_modules(which, spec):
    model = models()[which]
    theirs = nn.Sequential(nn.LSTM(3, 4, 2), nn.LSTMCell(3, 4))
    theirs.load_state_dict(model.state_dict())
    got, expected = quantised(model.eval(), *spec), quantised(theirs.eval(), *spec)
    assert type(got[0]) is type(expected[0]) is torch.ao.nn.quantized.dynamic.LSTM
    # torch quantises no class of cells but its own, and says so with an error where a table holds another: ours stay
    # as they are.
    assert type(got[1]) is cylstm.torch.LSTMCell
    x = torch.randn(6, 2, 3)
    assert_close(parts(got[0](x)), parts(expected[0](x)), 1e-6)
    assert type(model[0]) is cylstm.torch.LSTM, "quantize_dynamic works on a copy unless told otherwise"


def test_a_subclass_with_a_metaclass():
    module = Abstract(3, 4)
    x = torch.randn(5, 2, 3)
    expected, _ = module(x, module.initial(2))
    (change,) = accelerate(module)
    assert isinstance(module, (Recurrent, cylstm.torch.LSTM)) and change.before is Abstract
    assert explain(module, x).engine == "cylstm"
    assert_close([module(x, module.initial(2))[0]], [expected], 1e-5)
    assert type(pickle.loads(pickle.dumps(module))) is Abstract
    restore(module)
    assert type(module) is Abstract


def test_a_parametrised_module_and_without_its_parametrisation():
    torch.manual_seed(3)
    ours = nn.utils.parametrizations.weight_norm(nn.LSTM(3, 4, 2), "weight_hh_l0")
    theirs, parametrised = copy.deepcopy(ours), type(ours)
    x = torch.randn(20, 2, 3)
    (change,) = accelerate(ours)
    assert change.before is parametrised and explain(ours, x).engine == "cylstm"
    assert_close(results(ours, x, None), results(theirs, x, None), 2e-5)
    assert [undone.after for undone in restore(ours)] == [parametrised] and type(ours) is parametrised
    accelerate(ours)
    for module in (ours, theirs):
        nn.utils.parametrize.remove_parametrizations(module, "weight_hh_l0")
    assert type(ours) is cylstm.torch.LSTM and type(theirs) is nn.LSTM
    assert_close(results(ours, x, None), results(theirs, x, None), 2e-5)
