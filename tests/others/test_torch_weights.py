"""Whatever changes a weight, and however, the next call has the new value: in a stream as in a long call."""

import ctypes
import multiprocessing
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import parametrize, prune  # noqa: E402
from torch_pairs import CALLS, accelerated, assert_same, inputs, loss_of, pair, parts, swapped, under_test, warm  # noqa: E402

MAKERS = [swapped, accelerated]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


def each(change):
    """A change of every parameter by itself."""

    def run(module):
        for parameter in list(module.parameters()):
            change(parameter)

    return run


def updated_by(optimizer, **options):
    """A few updates, with gradients that are the same for both modules."""

    def run(module):
        made = optimizer(module.parameters(), lr=0.1, **options)
        for _ in range(3):
            for parameter in module.parameters():
                parameter.grad = torch.linspace(-1, 2, parameter.numel(), dtype=parameter.dtype).view_as(parameter)
            made.step()

    return run


def by_address(parameter):
    halved = parameter.detach().numpy() * 0.5
    ctypes.memmove(parameter.data_ptr(), halved.ctypes.data, halved.nbytes)


def by_dlpack(parameter):
    torch.utils.dlpack.from_dlpack(parameter.detach()).mul_(0.5)


def halved_in_inference_mode(parameter):
    with torch.inference_mode():
        parameter.data.mul_(0.5)


def halved_state(module):
    return {name: values.clone() * 0.5 for name, values in module.state_dict().items()}


def pointed_into_one_vector(module):
    vector = torch.nn.utils.parameters_to_vector(module.parameters()) * 0.5
    torch.nn.utils.vector_to_parameters(vector, module.parameters())
    vector.detach().mul_(0.5)


def averaged(module):
    """A target network's soft update."""
    for parameter in module.parameters():
        parameter.data.copy_(0.9 * parameter.data + 0.1 * torch.ones_like(parameter))


def flat_weight_assigned(module):
    with torch.no_grad():
        module._flat_weights[1] = module._flat_weights[1] * 0.5


def parameter_assigned(module):
    module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0.detach() * 0.5)


def parameter_deleted_and_assigned(module):
    value = module.weight_hh_l0.detach() * 0.5
    del module.weight_hh_l0
    module.weight_hh_l0 = torch.nn.Parameter(value)


def registered(module):
    module.register_parameter("weight_hh_l0", torch.nn.Parameter(module.weight_hh_l0.detach() * 0.5))


def through_other_types(module):
    module.half().to(torch.float64)


def swapped_on_conversion(module):
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.float().double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def swapped_tensors(module):
    module._flat_weight_refs = []  # torch swaps no tensor that has a weak reference
    for name, parameter in list(module.named_parameters()):
        torch.utils.swap_tensors(parameter, torch.nn.Parameter(parameter.detach() * 0.5))
        assert getattr(module, name) is parameter
    module._flat_weight_refs = [weakref.ref(parameter) for parameter in module._flat_weights]


def drawn_again(module):
    torch.manual_seed(5)
    module.reset_parameters()


class Halved(torch.nn.Module):
    def forward(self, value):
        return value * 0.5


def parametrized(module):
    parametrize.register_parametrization(module, "weight_hh_l0", Halved())


def parametrized_and_removed(module):
    parametrized(module)
    parametrize.remove_parametrizations(module, "weight_hh_l0")


def parametrized_and_changed(module):
    parametrized(module)
    module.parametrizations.weight_hh_l0.original.data.mul_(0.5)


def weight_norm_changed(module):
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    module.parametrizations.weight_hh_l0.original0.data.mul_(0.5)


def pruned(module):
    prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
    prune.random_structured(module, "weight_ih_l0", amount=0.5, dim=0)


def pruned_for_good(module):
    prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
    prune.remove(module, "weight_hh_l0")


def pruned_and_changed(module):
    prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
    module.weight_hh_l0_orig.data.mul_(0.5)


def resized(module):
    """What tools for structured pruning do: fewer hidden units, the module's attributes with them."""
    H, keep = module.hidden_size, module.hidden_size - 3
    rows = torch.cat([torch.arange(keep) + gate * H for gate in range(4)])
    for name, parameter in list(module.named_parameters()):
        value = parameter.detach()[rows]
        if "weight_hh" in name:
            value = value[:, :keep]
        elif "weight_ih" in name and "l0" not in name:
            value = value[:, torch.cat([torch.arange(keep) + d * H for d in range(value.shape[1] // H)])]
        setattr(module, name, torch.nn.Parameter(value.clone()))
    module.hidden_size = keep


CHANGES = {
    "fused Adam": updated_by(torch.optim.Adam, fused=True),
    "fused AdamW": updated_by(torch.optim.AdamW, fused=True),
    "fused SGD": updated_by(torch.optim.SGD, fused=True),
    "fused Adagrad": updated_by(torch.optim.Adagrad, fused=True),
    "foreach Adam": updated_by(torch.optim.Adam, foreach=True),
    "in place": each(lambda p: p.detach().mul_(0.5)),
    "data": each(lambda p: p.data.mul_(0.5)),
    "one element of data": lambda module: module.weight_hh_l0.data[-1, -1].fill_(3.0),
    "one bias": lambda module: module.bias_hh_l0.data.mul_(-0.5),
    "soft update": averaged,
    "inference mode": each(halved_in_inference_mode),
    "NumPy": each(lambda p: np.multiply(p.detach().numpy(), 0.5, out=p.detach().numpy())),
    "DLPack": each(by_dlpack),
    "an address": each(by_address),
    "other data": each(lambda p: setattr(p, "data", p.data * 0.5)),
    "other data with strides": each(lambda p: setattr(p, "data", (p.data * 0.5).t().contiguous().t())),
    "other storage": each(lambda p: p.data.set_(p.data * 0.5)),
    "views of one vector": pointed_into_one_vector,
    "a state_dict": lambda module: module.load_state_dict(halved_state(module)),
    "an assigned state_dict": lambda module: module.load_state_dict(halved_state(module), assign=True),
    "a flat weight": flat_weight_assigned,
    "another parameter": parameter_assigned,
    "a parameter deleted and made again": parameter_deleted_and_assigned,
    "a parameter registered again": registered,
    "half and back": through_other_types,
    "a conversion that swaps": swapped_on_conversion,
    "swap_tensors": swapped_tensors,
    "reset_parameters": drawn_again,
    "parametrized": parametrized,
    "parametrized and removed": parametrized_and_removed,
    "parametrized and changed": parametrized_and_changed,
    "weight_norm": lambda module: torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0"),
    "weight_norm and changed": weight_norm_changed,
    "spectral_norm": lambda module: torch.nn.utils.parametrizations.spectral_norm(module.eval(), "weight_hh_l0"),
    "pruned": pruned,
    "pruned for good": pruned_for_good,
    "pruned and changed": pruned_and_changed,
    "fewer hidden units": resized,
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(change, make):
    ours, theirs = pair(3, 9, 2, make=make)
    warm(ours)
    for module in (ours, theirs):
        torch.manual_seed(4)
        CHANGES[change](module)
    assert_same(ours, theirs)


@pytest.mark.parametrize("change", ["fused Adam", "data", "NumPy", "other data", "a flat weight", "fewer hidden units"])
@pytest.mark.parametrize("T, B", CALLS)
def test_changes_are_seen_between_two_calls_of_a_stream(change, T, B):
    """The call right after the change is the one that could be stale: nothing else runs in between."""
    ours, theirs = pair(3, 12, 2, bidirectional=True)
    for _ in range(3):
        x, _ = inputs(theirs, T, B, "time-major")
        with torch.no_grad():
            state, expected_state = ours(x)[1], theirs(x)[1]
            for module in (ours, theirs):
                CHANGES[change](module)
            if change == "fewer hidden units":
                state = expected_state = None
            for _ in range(2):
                (y, state), (expected, expected_state) = ours(x, state), theirs(x, expected_state)
                torch.testing.assert_close((y, state), (expected, expected_state))


@pytest.mark.parametrize("change", ["fused Adam", "data", "an assigned state_dict"])
def test_changes_are_seen_in_float32(change):
    ours, theirs = pair(5, 33, 2, dtype=torch.float32)
    warm(ours)
    for module in (ours, theirs):
        CHANGES[change](module)
    # With the weights that Adam leaves here, gradients grow so fast over 40 steps that roundings show.
    assert_same(ours, theirs, trains=change != "fused Adam")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_writes_of_another_process_are_seen():
    ours, theirs = pair(3, 9)
    ours.share_memory()
    warm(ours)
    process = multiprocessing.get_context("fork").Process(
        target=each(lambda p: p.detach().numpy().fill(0.25)), args=(ours,)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    each(lambda p: p.detach().fill_(0.25))(theirs)
    assert_same(ours, theirs)


def test_writes_into_a_mapped_file_are_seen(tmp_path):
    ours, theirs = pair(3, 9)
    path, shape = tmp_path / "weights", theirs.weight_hh_l0.shape
    np.zeros(shape).tofile(path)
    for module in (ours, theirs):
        module.weight_hh_l0.data = torch.from_file(
            str(path), shared=True, size=shape.numel(), dtype=torch.float64
        ).view(shape)
    warm(ours)
    np.memmap(path, dtype=np.float64, mode="r+", shape=shape)[:] = np.linspace(-1, 1, shape.numel()).reshape(shape)
    assert_same(ours, theirs)
    assert theirs.weight_hh_l0.abs().max() == 1


def test_functional_call_takes_its_own_weights_for_once():
    ours, theirs = pair(3, 9, 2)
    others = {name: torch.randn_like(value, requires_grad=True) for name, value in theirs.named_parameters()}
    warm(ours)
    for T, B in CALLS:
        x, hx = inputs(theirs, T, B, "time-major")
        got, expected = (parts(torch.func.functional_call(module, others, (x, hx))) for module in (ours, theirs))
        torch.testing.assert_close(got, expected)
        gradients = [torch.autograd.grad(loss_of(each), list(others.values())) for each in (got, expected)]
        torch.testing.assert_close(*gradients)
        with torch.no_grad():
            torch.testing.assert_close(parts(ours(x, hx)), parts(theirs(x, hx)))


def test_a_weight_written_between_forward_and_backward_is_an_error():
    ours, theirs = pair(3, 9)
    for module in (ours, theirs):
        loss = module(torch.randn(5, 2, 3, dtype=torch.float64))[0].sum()
        with torch.no_grad():
            module.weight_hh_l0.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_weight_that_other_calls_changed_meanwhile_does_not_change_a_gradient():
    """`p.data = other` leaves the graph its old values, in torch; calls with the new ones come in between."""
    gradients = []
    for module in pair(3, 9, 2):
        x = torch.linspace(-1, 1, 40 * 3, dtype=torch.float64).reshape(40, 1, 3).requires_grad_()
        loss = loss_of(parts(module(x)))
        for parameter in module.parameters():
            parameter.data = parameter.data * 0.5
        warm(module)
        module(x)[0].sum().backward()
        x.grad = None
        module.zero_grad()
        loss.backward()
        gradients.append([x.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("make", MAKERS)
def test_tied_weights_of_two_modules(make):
    ours, theirs = pair(9, 9, make=make)
    for module, maker in ((ours, make), (theirs, torch.nn.LSTM)):
        other = maker(9, 9, dtype=torch.float64)
        for name, parameter in list(module.named_parameters()):
            setattr(other, name, parameter)
        module.__dict__["other"] = other
    warm(ours.other)
    for module in (ours, theirs):
        each(lambda p: p.data.mul_(0.5))(module)
    assert_same(ours.other, theirs.other)
    x = torch.randn(6, 2, 9, dtype=torch.float64)
    for module in (ours, theirs):
        module.zero_grad()
        module.other(module(x)[0])[0].pow(2).sum().backward()
    torch.testing.assert_close([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])


def test_tied_weights_of_two_layers():
    ours, theirs = pair(9, 9, 2)
    for module in (ours, theirs):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(module, f"{kind}_l1", getattr(module, f"{kind}_l0"))
    assert len(list(ours.parameters())) == 4
    assert_same(ours, theirs)
    for module in (ours, theirs):
        each(lambda p: p.data.mul_(0.5))(module)
    assert_same(ours, theirs)


def test_an_averaged_model_follows():
    ours, theirs = pair(3, 9)
    averages = [torch.optim.swa_utils.AveragedModel(module) for module in (ours, theirs)]
    warm(averages[0].module)
    for _ in range(2):
        for module, average in zip((ours, theirs), averages, strict=True):
            each(lambda p: p.data.mul_(0.5))(module)
            average.update_parameters(module)
        assert_same(averages[0].module, averages[1].module)


def test_inference_tensors_as_weights():
    with torch.inference_mode():
        ours, theirs = pair(3, 9, 2)
        warm(ours)
        for module in (ours, theirs):
            each(lambda p: p.mul_(0.5))(module)
        assert_same(ours, theirs, trains=False)


def test_a_module_made_on_meta_and_filled_later():
    _, theirs = pair(3, 9, 2)
    ours = under_test.LSTM(3, 9, 2, device="meta", dtype=torch.float64).to_empty(device="cpu")
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs)
