"""Outputs are torch.nn.LSTM's in strides, kinds and what may be done to them; hooks see the same."""

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import (  # noqa: E402
    ARCHITECTURES,
    CALLS,
    LAYOUTS,
    accelerated,
    assert_close,
    error_of,
    inputs,
    loss_of,
    options_of,
    pair,
    parts,
    rnn,
    swapped,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


def kind(part):
    return (part.shape, part.stride(), part.dtype, part.requires_grad, part.is_leaf, part.is_contiguous(), part.layout)


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("mode", ["training", "frozen", "no_grad", "inference_mode"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kinds_and_strides(architecture, layout, mode, make):
    ours, theirs = pair(3, 9, **architecture, **options_of(layout), make=make)
    for module in (ours, theirs):
        module.requires_grad_(mode != "frozen")
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}.get(mode, torch.enable_grad)
    for T, B in CALLS:
        x, hx = inputs(theirs, T, B, layout)
        for state in (None, hx):
            with context():
                got, expected = ours(x, state), theirs(x, state)
            assert type(got) is type(expected) and type(got[1]) is type(expected[1])
            assert [kind(part) for part in parts(got)] == [kind(part) for part in parts(expected)]
            assert_close(parts(got), parts(expected))
            if mode == "inference_mode":
                assert [part.is_inference() for part in parts(got)] == [part.is_inference() for part in parts(expected)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strides", ["other order", "every second", "expanded", "backward"])
def test_inputs_of_any_strides(layout, strides):
    ours, theirs = pair(4, 9, 2, **options_of(layout))
    x, hx = inputs(theirs, 6, 3, layout)
    data = x.data if layout == "packed" else x
    turned = {
        "other order": lambda v: v.transpose(0, -1).contiguous().transpose(0, -1),
        "every second": lambda v: torch.stack([v, -v], -1)[..., 0],
        "expanded": lambda v: v[:1].expand(v.shape),
        "backward": lambda v: v.flip(-1).conj().flip(-1),
    }[strides]
    state = tuple(turned(part) for part in hx)
    given = rnn.PackedSequence(turned(data), *x[1:]) if layout == "packed" else turned(data)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            got, expected = parts(ours(given, state)), parts(theirs(given, state))
        assert_close(got, expected)
        assert [kind(part) for part in got] == [kind(part) for part in expected]


USES = {
    "view": lambda y, h, c: [y.view(-1, y.shape[-1]), h.view(-1)],
    "view of all": lambda y, h, c: [y.view(-1), c.view(-1)],
    "flatten": lambda y, h, c: [y.flatten(0, 1)],
    "in place on the output": lambda y, h, c: [y.mul_(2), h, c],
    "in place on the states": lambda y, h, c: [y, h.add_(1), c.tanh_()],
    "relu_": lambda y, h, c: [torch.relu_(y)],
    "masked_fill_": lambda y, h, c: [y.masked_fill_(y > 0, 3.0)],
    "dropout in place": lambda y, h, c: [torch.nn.functional.dropout(y, 0.5, True, inplace=True)],
    "a part assigned": lambda y, h, c: [y.index_fill_(0, torch.tensor([0]), 0.0), h, c],
    "detach_ of the output": lambda y, h, c: [y.detach_(), h, c],
    "detach_ of the states": lambda y, h, c: [y, h.detach_(), c.detach_()],
    "detached and written": lambda y, h, c: [y, h, c, y.detach().zero_()],
    "last step": lambda y, h, c: [y[-1] * y[0]],
    "hook and retain_grad": lambda y, h, c: [y.retain_grad(), y.register_hook(lambda g: g * 2), y][2:],
    "unsafe chunks": lambda y, h, c: list(y.chunk(3, -1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("use", USES)
def test_uses_of_outputs(use, layout):
    """The same numbers and gradients, or the same error of the same type, at once or in the backward pass."""
    found = []
    for module in pair(3, 9, 2, **options_of(layout)):
        torch.manual_seed(4)
        x, hx = inputs(module, 6, 3, layout)
        leaves = [part.requires_grad_() for part in hx]
        try:
            used = USES[use](*parts(module(x, tuple(leaves))))
            loss_of(used).backward()
            found.append([*(part.detach() for part in used), *(leaf.grad for leaf in [*leaves, *module.parameters()])])
        except Exception as error:
            found.append(type(error))
    if not isinstance(found[1], type):
        assert_close(*found)
    elif not (layout == "unbatched" and use.startswith("detach_")):  # views there, not here
        assert found[0] == found[1]


def test_a_state_written_after_the_call_does_not_reach_into_it():
    """A stream that keeps its state in one buffer: what went in, what came out, and nothing behind either."""
    found = []
    for module in pair(3, 9, 2):
        torch.manual_seed(4)
        buffers = [torch.zeros(2, 1, 9, dtype=torch.float64) for _ in range(2)]
        ys = []
        with torch.no_grad():
            for _ in range(6):
                y, state = module(torch.randn(1, 1, 3, dtype=torch.float64), tuple(buffers))
                for buffer, part in zip(buffers, state, strict=True):
                    buffer.copy_(part)
                    part.fill_(7.0)
                ys.append(y)
        found.append([torch.cat(ys), *buffers])
    assert_close(*found)


def test_results_of_earlier_calls_stay():
    """Nothing that was handed out is written again by a later call."""
    ours, theirs = pair(3, 9, 2)
    with torch.no_grad():
        for T, B in CALLS:
            given = [inputs(theirs, T, B, "time-major") for _ in range(3)]
            got, expected = ([parts(module(*each)) for each in given] for module in (ours, theirs))
            for a, b in zip(got, expected, strict=True):
                assert_close(a, b)


@pytest.mark.parametrize("what", ["input", "h", "c"])
def test_an_input_written_between_forward_and_backward_is_an_error(what):
    for module in pair(3, 9):
        x, (h, c) = inputs(module, 5, 2, "time-major")
        loss = loss_of(parts(module(x, (h, c))))
        {"input": x, "h": h, "c": c}[what].zero_()
        assert "modified by an inplace operation" in error_of(loss.backward)[1]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_come_back_as_they_went_in(layout, enforce_sorted):
    ours, theirs = pair(3, 9, batch_first=layout == "batch-first")
    lengths = [5, 4, 2] if enforce_sorted else [2, 5, 4]
    x = rnn.pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in lengths], enforce_sorted=enforce_sorted)
    got, expected = ours(x)[0], theirs(x)[0]
    assert type(got) is rnn.PackedSequence and got.batch_sizes is x.batch_sizes
    assert got.sorted_indices is x.sorted_indices and got.unsorted_indices is x.unsorted_indices
    assert got.data.stride() == expected.data.stride() and got.data.is_contiguous()
    padded = [rnn.pad_packed_sequence(each)[0] for each in (got, expected)]
    torch.testing.assert_close(*padded)


def test_hooks_fire():
    heard = []
    for module in pair(3, 9, 2):
        calls = []
        note = lambda *seen, calls=calls: calls.append(seen[-1][0].sum().item())  # noqa: E731
        module.register_forward_pre_hook(lambda module, given: (given[0] * 2, *given[1:]))
        module.register_forward_hook(note)
        module.register_full_backward_pre_hook(note)
        module.register_full_backward_hook(note)
        module.weight_hh_l0.register_hook(lambda gradient: gradient * 3)
        module.weight_hh_l0.register_post_accumulate_grad_hook(lambda p, note=note: note([p.grad]))
        x = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 2, 3).requires_grad_()
        y, (h, _) = module(x)
        (y.pow(2).sum() + h.sum()).backward()
        heard.append([*calls, x.grad.sum().item(), module.weight_hh_l0.grad.sum().item()])
    assert len(heard[1]) == 6 and heard[0] == pytest.approx(heard[1], rel=1e-9)
