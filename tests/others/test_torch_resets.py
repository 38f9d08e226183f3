"""resets=: nothing flows across, forward or backward. torch.nn.LSTM on the pieces, one by one, says what is right."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import (  # noqa: E402
    ARCHITECTURES,
    accelerated,
    assert_close,
    inputs,
    loss_of,
    options_of,
    pair,
    parts,
    results,
    rnn,
    swapped,
    under_test,
    warm,
)

LAYOUTS = ["time-major", "batch-first", "unbatched"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


def by_pieces(module, x, hx, resets):
    """x (T, B, I), resets (T, B): each row is cut before its resets, each piece a call of torch.nn.LSTM by itself."""
    N = module.num_layers * (2 if module.bidirectional else 1)
    backwards = [module.bidirectional and n % 2 == 1 for n in range(N)]
    rows = []
    for b in range(x.shape[1]):
        cuts = [0, *(t for t in range(1, x.shape[0]) if resets[t, b]), x.shape[0]]
        pieces = []
        for start, stop in itertools.pairwise(cuts):
            # Forward, the given state enters the first piece unless a reset stands before it; backward, the last.
            enters = [stop == x.shape[0] if back else start == 0 and not resets[0, b] for back in backwards]
            enters = torch.tensor(enters)[:, None, None]
            state = tuple(torch.where(enters, part[:, b : b + 1], torch.zeros(())) for part in hx)
            pieces.append(module(x[start:stop, b : b + 1], state))
        y = torch.cat([piece[0] for piece in pieces])
        ends = [pieces[0 if back else -1][1] for back in backwards]
        rows.append((y, *(torch.stack([end[part][n] for n, end in enumerate(ends)]) for part in (0, 1))))
    return [torch.cat(parts, 1) for parts in zip(*rows, strict=True)]


def expected_results(theirs, x, hx, resets, layout):
    """What results() gives for ours with resets, from pieces."""
    theirs.zero_grad()
    leaves = [x.detach().clone().requires_grad_(), *(part.detach().clone().requires_grad_() for part in hx)]
    change = {
        "time-major": lambda values, axis: values,
        "batch-first": lambda values, axis: values.transpose(0, 1) if axis == 0 else values,
        "unbatched": lambda values, axis: values.unsqueeze(1),
    }[layout]
    back = {"unbatched": lambda values, axis: values.squeeze(1)}.get(layout, change)
    outputs = by_pieces(theirs, change(leaves[0], 0), [change(leaf, 1) for leaf in leaves[1:]], change(resets, 0))
    outputs = [back(part, n) for n, part in enumerate(outputs)]
    loss_of(outputs).backward()
    named = {f"output {n}": part.detach() for n, part in enumerate(outputs)}
    named |= {f"gradient of input {n}": leaf.grad for n, leaf in enumerate(leaves)}
    return named | {name: parameter.grad for name, parameter in theirs.named_parameters()}


def drawn_resets(x, layout, share):
    shape = x.shape[:1] if layout == "unbatched" else x.shape[:2]
    return torch.rand(shape) < share


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("T, B", [(1, 1), (5, 1), (3, 5), (4, 4), (10, 4)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_as_pieces_one_by_one(architecture, layout, T, B, share):
    ours, theirs = pair(3, 9, **architecture, **options_of(layout))
    theirs.batch_first = False  # for the pieces
    x, hx = inputs(ours, T, B, layout)
    resets = drawn_resets(x, layout, share)
    expected = expected_results(theirs, x, hx, resets, layout)
    assert_close(results(ours, x, hx, resets=resets), expected)
    with torch.no_grad():
        assert_close(parts(ours(x, hx, resets=resets)), [expected[f"output {n}"] for n in range(3)])


@pytest.mark.parametrize("make", [swapped, accelerated])
def test_float32_and_no_state(make):
    ours, theirs = pair(5, 33, 2, make=make, dtype=torch.float32)
    x, _ = inputs(ours, 9, 4, "time-major")
    hx = torch.zeros(2, 2, 4, 33)
    resets = drawn_resets(x, "time-major", 0.3)
    got, expected = results(ours, x, None, resets=resets), expected_results(theirs, x, hx, resets, "time-major")
    assert_close(got, {name: expected[name] for name in got})


@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_rows_in_the_callers_order(batch_first):
    """Resets of a packed batch lie as those of the padded one; what stands past a row's end means nothing."""
    ours, theirs = pair(3, 9, 2, bidirectional=True, batch_first=batch_first)
    theirs.batch_first = False
    lengths = [2, 7, 5]
    padded = torch.randn(7, 3, 3, dtype=torch.float64)
    resets = torch.rand(7, 3) < 0.4
    given = padded.transpose(0, 1) if batch_first else padded
    x = rnn.pack_padded_sequence(given, lengths, batch_first=batch_first, enforce_sorted=False)
    y, (h, c) = ours(x, resets=resets.T if batch_first else resets)
    y, _ = rnn.pad_packed_sequence(y)
    for b, length in enumerate(lengths):
        zeros = torch.zeros(2, 4, 1, 9, dtype=torch.float64)
        row = by_pieces(theirs, padded[:length, b : b + 1], zeros, resets[:length, b : b + 1])
        assert_close([y[:length, b : b + 1], h[:, b : b + 1], c[:, b : b + 1]], row)


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_dropout_between_layers_is_drawn_as_without_resets(probability):
    """The masks depend on the generator alone: resets that are all false change no number."""
    ours, _ = pair(3, 9, 3, dropout=probability)
    x, hx = inputs(ours, 6, 4, "time-major")
    torch.manual_seed(4)
    expected = results(ours, x, hx)
    torch.manual_seed(4)
    assert_close(results(ours, x, hx, resets=torch.zeros(6, 4, dtype=torch.bool)), expected)


def test_one_call_instead_of_a_loop_over_episodes():
    """As recurrent policies are trained: steps with the state zeroed by hand where an episode begins."""
    ours, theirs = pair(3, 9)
    x, hx = inputs(theirs, 12, 4, "time-major")
    begins = torch.rand(12, 4) < 0.3
    ys, state = [], hx
    for x_t, begins_t in zip(x, begins, strict=True):
        y, state = theirs(x_t[None], tuple(part * ~begins_t[None, :, None] for part in state))
        ys.append(y)
    assert_close(parts(ours(x, hx, resets=begins)), parts((torch.cat(ys), state)))


@pytest.mark.parametrize(
    "resets",
    [
        torch.zeros(4, 6, dtype=torch.bool),
        torch.zeros(6, 5, dtype=torch.bool),
        torch.zeros(6, dtype=torch.bool),
        torch.zeros(6, 4),
        torch.zeros(6, 4, dtype=torch.int64),
        torch.zeros(6, 4, 1, dtype=torch.bool),
    ],
)
def test_other_shapes_and_types_are_refused(resets):
    ours, _ = pair(3, 9)
    with pytest.raises((ValueError, TypeError), match="resets"):
        ours(torch.randn(6, 4, 3, dtype=torch.float64), resets=resets)


REFUSED = {
    "bfloat16": lambda: under_test.LSTM(3, 9).bfloat16(),
    "float16": lambda: under_test.LSTM(3, 9).half(),
    "meta": lambda: under_test.LSTM(3, 9, device="meta"),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("reason", REFUSED)
def test_calls_that_torch_would_compute_are_refused_with_the_reason(reason):
    module = REFUSED[reason]()
    x = torch.ones(6, 4, 3, dtype=module.weight_ih_l0.dtype, device=module.weight_ih_l0.device)
    module(x)
    with pytest.raises(ValueError, match="resets") as caught:
        module(x, resets=torch.zeros(6, 4, dtype=torch.bool, device=x.device))
    assert reason in str(caught.value)


def test_refused_under_autocast():
    module = under_test.LSTM(3, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match=r"resets.*autocast"):
        module(torch.ones(6, 4, 3), resets=torch.zeros(6, 4, dtype=torch.bool))


def test_a_second_derivative_is_right_or_refused():
    ours, theirs = pair(3, 9)
    x = torch.randn(6, 1, 3, dtype=torch.float64, requires_grad=True)
    resets = torch.tensor([False, False, True, False, False, True])[:, None]
    zeros = torch.zeros(2, 1, 1, 9, dtype=torch.float64)
    gradients = []
    for y in (lambda: by_pieces(theirs, x, zeros, resets)[0], lambda: ours(x, resets=resets)[0]):
        try:
            (first,) = torch.autograd.grad(y().pow(2).sum(), x, create_graph=True)
            gradients.append(torch.autograd.grad(first.pow(2).sum(), x)[0])
        except (RuntimeError, ValueError):
            gradients.append(gradients[0])
    torch.testing.assert_close(*gradients)


def test_a_backward_after_other_weights_came_is_right():
    ours, theirs = pair(3, 9)
    x, hx = inputs(ours, 10, 4, "time-major")
    resets = drawn_resets(x, "time-major", 0.3)
    x.requires_grad_()
    loss = loss_of(parts(ours(x, hx, resets=resets)))
    for parameter in ours.parameters():
        parameter.data = parameter.data * 0.5
    warm(ours)
    loss.backward()
    expected = expected_results(theirs, x, hx, resets, "time-major")
    torch.testing.assert_close(x.grad, expected["gradient of input 0"])
