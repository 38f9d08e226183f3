"""cylstm.torch.LSTM against torch.nn.LSTM in everyday use: needs torch, as all tests beside it."""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_pairs import assert_close, pair, results, rnn, under_test  # noqa: E402

LSTM = under_test.LSTM


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layers, bidirectional", [(1, False), (1, True), (3, False), (2, True)])
@pytest.mark.parametrize("kind", ["batch", "batch without state", "one", "one without state"])
def test_same_numbers_as_torch(bias, batch_first, layers, bidirectional, kind):
    ours, theirs = pair(5, 7, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    B = x.shape[0 if batch_first else 1]
    hx = torch.randn(2, layers * (1 + bidirectional), B, 7, dtype=torch.float64)
    if kind.startswith("one"):
        x, hx = x[:, 0], hx[:, :, 0]
    hx = None if kind.endswith("without state") else tuple(hx)
    assert_close(results(ours, x, hx), results(theirs, x, hx))
    with torch.no_grad():
        y, (h, c) = ours(x, hx)
    assert y.grad_fn is None
    expected_y, (expected_h, expected_c) = theirs(x, hx)
    torch.testing.assert_close([y, h, c], [expected_y.detach(), expected_h.detach(), expected_c.detach()])


@pytest.mark.parametrize("sorted_by", ["torch", "the caller"])
@pytest.mark.parametrize("with_state", [True, False])
def test_packed_sequences(sorted_by, with_state):
    ours, theirs = pair(5, 7, 2, bidirectional=True)
    lengths = [9, 6, 6, 2, 1] if sorted_by == "the caller" else [2, 6, 9, 1, 6]
    rows = [torch.randn(n, 5, dtype=torch.float64) for n in lengths]
    x = rnn.pack_sequence(rows, enforce_sorted=sorted_by == "the caller")
    hx = tuple(torch.randn(2, 4, 5, 7, dtype=torch.float64)) if with_state else None
    assert_close(results(ours, x, hx), results(theirs, x, hx))
    for got, expected in zip(ours(x, hx)[0][1:], theirs(x, hx)[0][1:], strict=True):
        assert (got is None and expected is None) or torch.equal(got, expected)


def test_float32():
    ours, theirs = pair(33, 65, 2, dtype=torch.float32)
    x = torch.randn(20, 9, 33)
    assert_close(results(ours, x, None), results(theirs, x, None), 2e-5)


def test_the_same_seed_makes_the_same_weights_and_leaves_the_same_generator():
    theirs = torch.nn.LSTM(5, 7, 2)
    torch.nn.Dropout(0.5)(torch.ones(3))
    expected = torch.rand(3)
    torch.manual_seed(20260)
    ours = LSTM(5, 7, 2)
    torch.nn.Dropout(0.5)(torch.ones(3))
    ours(torch.ones(2, 3, 5))
    assert torch.equal(torch.rand(3), expected)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[name], values) for name, values in theirs.state_dict().items())


def test_no_weights_are_drawn_behind_a_module(monkeypatch):
    """They are torch's: drawing orthogonal ones for nothing takes far longer than the first call itself."""
    monkeypatch.setattr(np.linalg, "qr", lambda *_: pytest.fail("orthogonal weights are drawn"))
    ours, theirs = pair(3, 40, 2, bidirectional=True)
    x = torch.randn(20, 2, 3, dtype=torch.float64)
    for module in (ours, copy.deepcopy(ours)):
        assert_close(results(module, x, None), results(theirs, x, None))


@pytest.mark.parametrize("options", [{}, dict(num_layers=2, bidirectional=True, bias=False)])
def test_gradcheck(options):
    module = LSTM(3, 4, **options, batch_first=True, dtype=torch.float64)
    states = module.num_layers * (2 if module.bidirectional else 1)
    inputs = [torch.randn(2, 5, 3), *torch.randn(2, states, 2, 4), *module.parameters()]
    inputs = [values.detach().double().requires_grad_() for values in inputs]
    names = [name for name, _ in module.named_parameters()]

    def call(x, h, c, *weights):
        y, (h, c) = torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x, (h, c)))
        return y, h, c

    assert torch.autograd.gradcheck(call, inputs)


def test_gradcheck_of_packed_sequences():
    module = LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    x = rnn.pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in (2, 5, 3)], enforce_sorted=False)

    def call(data):
        y, (h, c) = module(rnn.PackedSequence(data, *x[1:]))
        return y.data, h, c

    assert torch.autograd.gradcheck(call, x.data.detach().requires_grad_())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_backward_twice_over_one_graph(dropout):
    module, x = LSTM(3, 40, 2, dropout=dropout), torch.randn(5, 2, 3, requires_grad=True)
    loss = module(x)[0].pow(2).sum()
    module(x)  # moves the generator of the masks on
    first = torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)
    second = torch.autograd.grad(loss, [x, *module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_two_biases_have_gradients_of_their_own():
    module = LSTM(3, 4)
    module(torch.randn(5, 2, 3))[0].sum().backward()
    before = module.bias_hh_l0.grad.clone()
    module.bias_ih_l0.grad.zero_()
    assert torch.equal(module.bias_hh_l0.grad, before) and before.abs().max() > 0


def test_a_module_made_in_inference_mode():
    with torch.inference_mode():
        ours, theirs = pair(3, 40)
        x = torch.randn(1, 1, 3, dtype=torch.float64)
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])
        ours.weight_hh_l0.data.mul_(2), theirs.weight_hh_l0.data.mul_(2)
        torch.testing.assert_close(ours(x)[1], theirs(x)[1])


def test_two_calls_before_one_backward():
    """A shared module, as in siamese networks."""
    ours, theirs = pair(3, 40)
    a, b = torch.randn(2, 20, 4, 3, dtype=torch.float64)
    for module in (ours, theirs):
        (module(a)[0] * module(b)[0]).sum().backward()
    assert_close({n: p.grad for n, p in ours.named_parameters()}, {n: p.grad for n, p in theirs.named_parameters()})


def script(make):
    """A plain training script: embedding, LSTM with the state carried on, linear, cross-entropy, clipping, Adam."""
    torch.manual_seed(3)
    text = torch.randint(0, 20, (8, 401))
    embedding, lstm, head = torch.nn.Embedding(20, 16), make(16, 48, 2, batch_first=True), torch.nn.Linear(48, 20)
    parameters = [*embedding.parameters(), *lstm.parameters(), *head.parameters()]
    optimizer, state, losses = torch.optim.Adam(parameters, lr=3e-3), None, []
    for start in range(0, 400, 20):
        x, y = text[:, start : start + 20], text[:, start + 1 : start + 21]
        hidden, state = lstm(embedding(x), state)
        state = tuple(part.detach() for part in state)
        loss = torch.nn.functional.cross_entropy(head(hidden).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_one_line_swapped_gives_the_same_losses():
    np.testing.assert_allclose(script(LSTM), script(torch.nn.LSTM), rtol=1e-5)


def test_dropout_drops_in_training_alone():
    ours, theirs = pair(3, 200, 2, dropout=0.4)
    x = torch.randn(5, 16, 3, dtype=torch.float64)
    assert not torch.equal(ours(x)[0], ours(x)[0])
    with torch.no_grad():
        assert not torch.equal(ours(x)[0], ours(x)[0])
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    assert ours(x)[0].requires_grad


def test_copies_pickles_and_types():
    module, x = LSTM(3, 4, 2), torch.randn(20, 2, 3)
    expected = module(x)[0]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(x)[0], expected)
        torch.nn.init.zeros_(other.weight_ih_l0)
        assert not torch.equal(other(x)[0], expected) and torch.equal(module(x)[0], expected)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = LSTM(3, 4, 2)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x)[0], expected)
    torch.testing.assert_close(module.double()(x.double())[0].float(), expected)


def test_frozen_weights_and_inputs_without_gradients():
    module, x = LSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module(x)[0].sum().backward()
    assert x.grad.abs().max() > 0 and module.weight_ih_l0.grad is None
    assert not module(x.detach())[0].requires_grad


@pytest.mark.parametrize("batch_first", [False, True])
def test_an_empty_batch_has_empty_results(batch_first):
    module, x = LSTM(3, 4, 2, bidirectional=True, batch_first=batch_first), torch.ones(0, 7, 3)
    y, (h, c) = module(x if batch_first else x.transpose(0, 1))
    assert y.shape == ((0, 7, 8) if batch_first else (7, 0, 8))
    assert h.shape == c.shape == (4, 0, 4)
    y.sum().backward()
    assert not module.weight_ih_l0.grad.any()


def test_torch_is_not_imported_unasked():
    code = "import sys, cylstm, cylstm.model; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
