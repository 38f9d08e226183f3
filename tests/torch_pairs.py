"""What the tests of cylstm.torch share: two modules with the same weights, calls of every kind, and all that comes out.

With CYLSTM_TESTS_ON=torch in the environment, torch.nn.LSTM takes our place: what fails then is the test itself.
"""

import os
import types

import torch

if os.environ.get("CYLSTM_TESTS_ON") == "torch":
    under_test = types.SimpleNamespace(LSTM=torch.nn.LSTM, LSTMCell=torch.nn.LSTMCell, accelerate=lambda model: [])
else:
    import cylstm.torch as under_test

rnn = torch.nn.utils.rnn

LAYOUTS = ["time-major", "batch-first", "unbatched", "packed"]
# T, B: calls of 1, 5, 15, 16 and 40 steps of rows.
CALLS = [(1, 1), (5, 1), (3, 5), (4, 4), (10, 4)]
ARCHITECTURES = [{}, dict(num_layers=2), dict(bidirectional=True), dict(num_layers=2, bidirectional=True, bias=False)]


def swapped(*args, **options):
    return under_test.LSTM(*args, **options)


def accelerated(*args, **options):
    holder = torch.nn.ModuleList([torch.nn.LSTM(*args, **options)])
    under_test.accelerate(holder)
    return holder[0]


def pair(*args, make=swapped, dtype=torch.float64, **options):
    """The two modules, with the same weights: ours and torch's."""
    ours, theirs = make(*args, dtype=dtype, **options), torch.nn.LSTM(*args, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def inputs(module, T, B, layout, states=True):
    """x and hx for a module; a packed x has rows of different lengths, in no order."""
    dtype, D = module.weight_ih_l0.dtype, 2 if module.bidirectional else 1
    H = module.proj_size or module.hidden_size
    x, batch = torch.randn(T, B, module.input_size, dtype=dtype), [] if layout == "unbatched" else [B]
    if layout == "packed":
        lengths = [max(1, T - (3 * row) % T) for row in range(B)]
        x = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    elif layout == "unbatched":
        x = x[:, 0]
    elif module.batch_first:
        x = x.transpose(0, 1).contiguous()
    hx = tuple(torch.randn(module.num_layers * D, *batch, size, dtype=dtype) for size in (H, module.hidden_size))
    return x, hx if states else None


def options_of(layout):
    return dict(batch_first=layout == "batch-first")


def parts(result):
    """Output, h_n and c_n as three tensors."""
    y, (h, c) = result
    return [y.data if isinstance(y, rnn.PackedSequence) else y, h, c]


def with_data(x, data):
    return rnn.PackedSequence(data, *x[1:]) if isinstance(x, rnn.PackedSequence) else data


def loss_of(tensors):
    """A loss in which every number counts differently."""
    weights = [torch.linspace(-1, 2, part.numel(), dtype=part.dtype).reshape(part.shape) for part in tensors]
    return sum((part * weight).sum() for part, weight in zip(tensors, weights, strict=True))


def results(module, x, hx, *extra, **keywords):
    """Output, final state and every gradient of loss_of them."""
    module.zero_grad()
    data = x.data if isinstance(x, rnn.PackedSequence) else x
    leaves = [data.detach().clone().requires_grad_(), *(part.detach().clone().requires_grad_() for part in hx or ())]
    outputs = parts(module(with_data(x, leaves[0]), tuple(leaves[1:]) or None, *extra, **keywords))
    loss_of(outputs).backward()
    named = {f"output {n}": part.detach() for n, part in enumerate(outputs)}
    named |= {f"gradient of input {n}": leaf.grad for n, leaf in enumerate(leaves)}
    return named | {name: parameter.grad for name, parameter in module.named_parameters()}


def bound_of(dtype):
    return {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]


def assert_close(got, expected, bound=None):
    """Dictionaries or lists of tensors: of the same shapes and types, off by a share of the largest value at most."""
    got, expected = (dict(enumerate(each)) if isinstance(each, (list, tuple)) else each for each in (got, expected))
    assert got.keys() == expected.keys()
    for name, values in got.items():
        other = expected[name]
        if values is None or other is None:
            assert values is other, name
            continue
        assert values.shape == other.shape and values.dtype == other.dtype, name
        allowed = bound or bound_of(values.dtype)
        scale = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(
            values, other, rtol=allowed, atol=allowed * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_same(ours, theirs, calls=CALLS, trains=True):
    """Calls of every length and layout without gradients; with them, every length in one of the layouts."""
    layouts = ["batch-first" if ours.batch_first else "time-major", "unbatched", "packed"]
    for n, (T, B) in enumerate(calls):
        for layout in layouts:
            x, hx = inputs(theirs, T, B, layout, states=layout != "unbatched")
            with torch.no_grad():
                assert_close(parts(ours(x, hx)), parts(theirs(x, hx)))
            if trains and layout == layouts[n % 3]:
                assert_close(results(ours, x, hx), results(theirs, x, hx))


def warm(module, dtype=None):
    """Calls without gradients, short and long, so that whatever is kept between calls is kept."""
    dtype = dtype or module.weight_ih_l0.dtype
    with torch.no_grad():
        for T in (1, 40):
            module(torch.randn(T, module.input_size, dtype=dtype))


def error_of(call):
    """Type and text of what a call raises; the test fails where it raises nothing."""
    try:
        result = call()
    except Exception as error:
        return type(error), str(error)
    raise AssertionError(f"no error, but {result}")
