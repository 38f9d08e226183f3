"""Dropout draws from torch's generator what torch.nn.LSTM draws; checkpointing repeats it, and keeps no tape."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint, checkpoint_sequential  # noqa: E402
from torch_pairs import (  # noqa: E402
    CALLS,
    LAYOUTS,
    accelerated,
    assert_close,
    inputs,
    loss_of,
    options_of,
    pair,
    parts,
    results,
    swapped,
    under_test,
    with_data,
)

DEEP = [dict(num_layers=2), dict(num_layers=3, bidirectional=True)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


def both(run, *args, **options):
    """run(module) on both from the same seed: the same results, and the generator left in the same state."""
    ours, theirs = pair(*args, **options)
    found = []
    for module in (ours, theirs):
        torch.manual_seed(7)
        found.append((run(module), torch.get_rng_state()))
    assert_close(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1]), "the generators are in different states"


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("dropout", [0.3, 1.0])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", DEEP)
def test_the_same_masks(architecture, layout, dropout, make):
    def run(module):
        found = {}
        for T, B in CALLS:
            x, hx = inputs(module, T, B, layout)
            found |= {f"{name} of {T} x {B}": values for name, values in results(module, x, hx).items()}
            with torch.no_grad():
                found |= {f"output {n} of {T} x {B}": part for n, part in enumerate(parts(module(x, hx)))}
        return found

    both(run, 3, 9, **architecture, **options_of(layout), dropout=dropout, make=make)


@pytest.mark.parametrize("T, B", CALLS)
def test_the_same_masks_in_float32(T, B):
    both(lambda m: results(m, *inputs(m, T, B, "time-major")), 5, 33, 2, dropout=0.5, dtype=torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_drawn_where_nothing_is_dropped(layout):
    state = None
    for options, training in (({}, True), (dict(num_layers=2, dropout=0.5), False), (dict(num_layers=2), True)):
        ours, _ = pair(3, 9, **options, **options_of(layout))
        ours.train(training)
        x, hx = inputs(ours, 5, 3, layout)
        state = torch.get_rng_state()
        ours(x, hx)
        with torch.no_grad():
            ours(x, hx)
        assert torch.equal(torch.get_rng_state(), state)


def test_frozen_weights_drop_as_well():
    def run(module):
        module.requires_grad_(False)
        x, hx = inputs(module, 5, 3, "time-major")
        return parts(module(x, hx))

    both(run, 3, 9, 2, dropout=0.5)


def test_dropout_changed_by_hand_is_obeyed():
    def run(module):
        x, hx = inputs(module, 5, 3, "time-major")
        found = []
        for dropout, training in ((0.2, True), (0.7, True), (0.7, False), (0.0, True)):
            module.dropout = dropout
            module.train(training)
            found += parts(module(x, hx))
        return found

    both(run, 3, 9, 2, dropout=0.5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, dict(num_layers=2, dropout=0.5, bidirectional=True)])
def test_dropout_after_the_module_draws_what_it_would(options, layout):
    """A mask follows the strides of what it covers."""

    def run(module):
        x, hx = inputs(module, 6, 3, layout)
        found = []
        for _ in range(2):
            dropped = [torch.nn.functional.dropout(part, 0.5, True) for part in parts(module(x, hx))]
            found += [*dropped, torch.nn.functional.feature_alpha_dropout(dropped[0], 0.5, True)]
            with torch.no_grad():
                found += [torch.nn.functional.dropout(part, 0.5, True) for part in parts(module(x, hx))]
            found += [torch.rand_like(part) for part in parts(module(x, hx))]
        return found

    both(run, 3, 9, **options, **options_of(layout))


def test_generator_states_set_and_forked():
    def run(module):
        x, hx = inputs(module, 5, 3, "time-major")
        found, state = parts(module(x, hx)), torch.get_rng_state()
        first = parts(module(x, hx))
        torch.set_rng_state(state)
        assert all(torch.equal(a, b) for a, b in zip(first, parts(module(x, hx)), strict=True))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            found += parts(module(x, hx))
        torch.manual_seed(3)
        again = parts(module(x, hx))
        torch.manual_seed(3)
        assert all(torch.equal(a, b) for a, b in zip(again, parts(module(x, hx)), strict=True))
        return [*found, *first, *again, torch.rand(3)]

    both(run, 3, 9, 3, dropout=0.5)


def test_a_backward_pass_draws_nothing():
    def run(module):
        x, hx = inputs(module, 5, 3, "time-major")
        first, second = (loss_of(parts(module(x, hx))) for _ in range(2))
        second.backward(retain_graph=True)
        torch.rand(5)
        second.backward()
        first.backward()
        return [p.grad for p in module.parameters()]

    both(run, 3, 9, 2, dropout=0.5)


def test_second_derivatives_have_the_same_masks():
    def run(module):
        x, hx = inputs(module, 5, 3, "time-major")
        x.requires_grad_()
        (first,) = torch.autograd.grad(loss_of(parts(module(x, hx))), x, create_graph=True)
        first.pow(2).sum().backward()
        return [first.detach(), x.grad, *(p.grad for p in module.parameters())]

    both(run, 3, 9, 2, dropout=0.5)


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpointed_calls(layout, reentrant, early_stop):
    def run(module):
        x, hx = inputs(module, 6, 3, layout)
        leaves = [part.detach().clone().requires_grad_() for part in (x.data if layout == "packed" else x, *hx)]
        call = lambda data, h, c: tuple(parts(module(with_data(x, data), (h, c))))  # noqa: E731
        with torch.utils.checkpoint.set_checkpoint_early_stop(early_stop):
            first = checkpoint(call, *leaves, use_reentrant=reentrant)
            second = checkpoint(call, *leaves, use_reentrant=reentrant)
        torch.rand(5)
        loss_of([a * b for a, b in zip(first, second, strict=True)]).backward()
        return [
            *(part.detach() for part in first),
            *(leaf.grad for leaf in leaves),
            *(p.grad for p in module.parameters()),
        ]

    both(run, 3, 9, 2, dropout=0.5, **options_of(layout))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_segments_of_a_model(reentrant):
    class Output(torch.nn.Module):
        def __init__(self, lstm):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            return self.lstm(x)[0]

    def run(module):
        model = torch.nn.Sequential(*(torch.nn.Sequential(Output(module), torch.nn.Dropout(0.2)) for _ in range(3)))
        x = inputs(module, 6, 3, "time-major")[0].requires_grad_()
        y = checkpoint_sequential(model, 3, x, use_reentrant=reentrant)
        loss_of([y]).backward()
        return [y.detach(), x.grad, *(p.grad for p in module.parameters())]

    both(run, 9, 9, 2, dropout=0.5)


def test_second_derivatives_through_a_checkpoint():
    def run(module):
        x = inputs(module, 5, 3, "time-major")[0].requires_grad_()
        y = checkpoint(lambda x: module(x)[0], x, use_reentrant=False)
        (first,) = torch.autograd.grad(loss_of([y]), x, create_graph=True)
        first.pow(2).sum().backward()
        return [x.grad, *(p.grad for p in module.parameters())]

    both(run, 3, 9, 2, dropout=0.5)


HOOKS = {
    "save_on_cpu": lambda: torch.autograd.graph.save_on_cpu(),
    "copies": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t),
    "arrays": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().numpy().copy(), torch.from_numpy),
    "mutation": lambda: torch.autograd.graph.allow_mutation_on_saved_tensors(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("hooks", HOOKS)
def test_saved_tensors_may_be_put_elsewhere(hooks, layout):
    def run(module):
        x, hx = inputs(module, 6, 3, layout)
        with HOOKS[hooks]():
            first, second = results(module, x, hx), results(module, x, hx)
        return first | {f"{name} again": values for name, values in second.items()}

    both(run, 3, 9, 2, dropout=0.5, **options_of(layout))


MEMORY = """if True:
    import resource
    import torch
    from torch.utils.checkpoint import checkpoint
    from {module} import LSTM

    torch.set_num_threads(1)
    lstm, x = LSTM(64, 128, batch_first=True), torch.randn(32, 100, 64)
    run = lambda x: checkpoint(lambda x: lstm(x)[0], x, use_reentrant=False) if {checkpointed} else lstm(x)[0]
    run(x).sum().backward()
    # not the peak of getrusage, in which a process begins where its parent was
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
    before = resident()
    kept = [run(x) for _ in range(15)]
    print(resident() - before)
"""


def held(module, checkpointed):
    """MB that fifteen forward passes add to a process of its own."""
    code = MEMORY.format(module=module, checkpointed=checkpointed)
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_a_checkpointed_call_keeps_no_tape():
    module = "torch.nn" if under_test.LSTM is torch.nn.LSTM else "cylstm.torch"
    ours, theirs, tapes = held(module, True), held("torch.nn", True), held(module, False)
    assert ours < 2 * theirs + 5, f"{ours} MB where torch holds {theirs}"
    assert tapes > 2 * ours, "the tapes would have been seen"
