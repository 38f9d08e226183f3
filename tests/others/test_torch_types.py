"""Types, devices, projections, empty and wrong inputs: torch.nn.LSTM's numbers, and its errors word for word."""

import functools

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import (  # noqa: E402
    ARCHITECTURES,
    CALLS,
    LAYOUTS,
    accelerated,
    assert_close,
    assert_same,
    error_of,
    inputs,
    loss_of,
    options_of,
    pair,
    parts,
    results,
    rnn,
    swapped,
    under_test,
    with_data,
)

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


def outcome(call):
    """What a call gives, or its error: where torch.nn.LSTM fails, so shall ours."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def assert_same_outcome(ours, theirs, bound=None):
    got, expected = outcome(ours), outcome(theirs)
    if isinstance(expected, tuple):
        assert got == expected
    else:
        assert_close(got, expected, bound)


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_modules_of_half_precision(architecture, layout, dtype, make):
    ours, theirs = pair(3, 9, **architecture, **options_of(layout), make=make, dtype=torch.float32)
    ours.to(dtype), theirs.to(dtype)
    for T, B in CALLS:
        x, hx = inputs(theirs, T, B, layout)
        assert_same_outcome(lambda: results(ours, x, hx), lambda: results(theirs, x, hx))  # noqa: B023
        with torch.no_grad():
            assert_same_outcome(lambda: parts(ours(x)), lambda: parts(theirs(x)))  # noqa: B023


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_autocast(layout, dtype, make):
    ours, theirs = pair(3, 9, 2, **options_of(layout), make=make, dtype=torch.float32)
    for T, B in CALLS:
        x, hx = inputs(theirs, T, B, layout)
        with torch.autocast("cpu", dtype=dtype):
            assert_same_outcome(lambda: results(ours, x, hx), lambda: results(theirs, x, hx))  # noqa: B023
            with torch.no_grad():
                assert_same_outcome(lambda: parts(ours(x)), lambda: parts(theirs(x)))  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_between_linear_layers(dtype):
    """The recipe of mixed precision: what enters has half precision, the weights have not."""
    found = []
    for module in pair(6, 9, batch_first=True, dtype=torch.float32):
        torch.manual_seed(4)
        before, after = torch.nn.Linear(3, 6), torch.nn.Linear(9, 1)
        with torch.autocast("cpu", dtype=dtype):
            hidden = before(torch.randn(2, 20, 3))
            assert hidden.dtype == dtype
            y, (h, c) = module(hidden)
            loss = after(y).float().pow(2).mean()
        loss.backward()
        found.append([y, h, c, loss, *(p.grad for p in [*before.parameters(), *module.parameters()])])
    assert_close(*found)


def test_autocast_switched_off_inside():
    ours, theirs = pair(3, 9, dtype=torch.float32)
    x, hx = inputs(theirs, 20, 2, "time-major")
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert_close(results(ours, x, hx), results(theirs, x, hx))


def test_a_backward_pass_under_autocast():
    """Forward outside, backward inside: the gradients have the types of what they belong to."""
    found = []
    for module in pair(3, 9, dtype=torch.float32):
        torch.manual_seed(4)
        x, hx = inputs(module, 20, 2, "time-major")
        loss = loss_of(parts(module(x, hx)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss.backward()
        found.append([p.grad for p in module.parameters()])
    assert_close(*found, bound=2e-2)


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_projections(architecture, batch_first, make):
    ours, theirs = pair(3, 9, **architecture, proj_size=4, batch_first=batch_first, make=make)
    assert_same(ours, theirs)


def test_types_changed_back_and_forth():
    ours, theirs = pair(3, 9, 2, dtype=torch.float32)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float32, torch.float64):
        ours.to(dtype), theirs.to(dtype)
        for T, B in CALLS:
            x, hx = inputs(theirs, T, B, "time-major")
            assert_close(results(ours, x, hx), results(theirs, x, hx))


@pytest.mark.parametrize("layout", LAYOUTS[:3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_empty_batches(architecture, layout):
    ours, theirs = pair(3, 9, **architecture, **options_of(layout))
    x, hx = inputs(theirs, 5, 2, layout)
    if layout != "unbatched":
        x, hx = (x[:0] if ours.batch_first else x[:, :0]), tuple(part[:, :0] for part in hx)
        for state in (None, hx):
            assert_same_outcome(lambda: results(ours, x, state), lambda: results(theirs, x, state))  # noqa: B023
    nothing = x[:, :0] if ours.batch_first and layout != "unbatched" else x[:0]
    for state in (None, hx):
        assert_same_outcome(lambda: parts(ours(nothing, state)), lambda: parts(theirs(nothing, state)))  # noqa: B023


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_meta_device(layout):
    """Shapes, strides and types without numbers, gradients too."""

    def run(module):
        x, hx = inputs(module, 5, 2, layout)
        module.to("meta")
        hx = tuple(part.to("meta").requires_grad_() for part in hx)
        given = with_data(x, (x.data if layout == "packed" else x).to("meta"))
        outputs = parts(module(given, hx))
        sum(part.sum() for part in outputs).backward()
        tensors = [*outputs, *(leaf.grad for leaf in [*hx, *module.parameters()])]
        return [(part.shape, part.stride(), part.dtype, part.device) for part in tensors]

    got, expected = (outcome(lambda: run(m)) for m in pair(3, 9, 2, bidirectional=True, **options_of(layout)))  # noqa: B023
    assert got == expected


f32, f64 = torch.ones, functools.partial(torch.ones, dtype=torch.float64)

x, h, h2 = f32(5, 2, 3), f32(1, 2, 4), f32(1, 4)
packed = rnn.pack_sequence([f32(3, 3), f32(2, 3)])
WRONG = {
    "one dimension": lambda m: m(f32(3)),
    "four dimensions": lambda m: m(f32(1, 5, 2, 3)),
    "no dimensions": lambda m: m(torch.ones(())),
    "features": lambda m: m(f32(5, 2, 7)),
    "features, unbatched": lambda m: m(f32(5, 7)),
    "features, packed": lambda m: m.double()(rnn.pack_sequence([f64(3, 7)])),
    "no steps": lambda m: m(f32(0, 2, 3)),
    "no steps, unbatched": lambda m: m(f32(0, 3)),
    "no rows": lambda m: m(f32(5, 0, 3), (h, h)),
    "float64": lambda m: m(x.double()),
    "float64, packed": lambda m: m(rnn.pack_sequence([f32(3, 3).double()])),
    "bfloat16": lambda m: m(x.bfloat16()),
    "float16": lambda m: m(x.half()),
    "integers": lambda m: m(x.long()),
    "booleans": lambda m: m(x.bool()),
    "complex": lambda m: m(x.to(torch.complex64)),
    "meta": lambda m: m(x.to("meta")),
    "sparse": lambda m: m(x.to_sparse()),
    "an array": lambda m: m(x.numpy()),
    "a list": lambda m: m([[1.0, 2.0, 3.0]]),
    "nothing": lambda m: m(None),
    "no argument": lambda m: m(),
    "h rows": lambda m: m(x, (f32(1, 3, 4), h)),
    "c rows": lambda m: m(x, (h, f32(1, 3, 4))),
    "h units": lambda m: m(x, (f32(1, 2, 5), h)),
    "c units": lambda m: m(x, (h, f32(1, 2, 5))),
    "layers": lambda m: m(x, (f32(2, 2, 4), f32(2, 2, 4))),
    "unbatched state": lambda m: m(x, (h2, h2)),
    "batched state": lambda m: m(f32(5, 3), (h, h)),
    "one state unbatched": lambda m: m(x, (h, h2)),
    "state of a packed": lambda m: m(packed, (f32(1, 3, 4), f32(1, 3, 4))),
    "state of a packed, unbatched": lambda m: m(packed, (h2, h2)),
    "h float64": lambda m: m(x, (h.double(), h)),
    "c float64": lambda m: m(x, (h, h.double())),
    "state float64": lambda m: m(x, (h.double(), h.double())),
    "state bfloat16": lambda m: m(x, (h.bfloat16(), h.bfloat16())),
    "state of integers": lambda m: m(x, (h.long(), h.long())),
    "state on meta": lambda m: m(x, (h.to("meta"), h.to("meta"))),
    "h alone": lambda m: m(x, (h,)),
    "a tensor as state": lambda m: m(x, f32(2, 1, 2, 4)),
    "a list as state": lambda m: m(x, [h, h]),
    "three states": lambda m: m(x, (h, h, h)),
    "None in the state": lambda m: m(x, (h, None)),
    "arrays as state": lambda m: m(x, (h.numpy(), h.numpy())),
    "another keyword": lambda m: m(x, state=(h, h)),
    "too many arguments": lambda m: m(x, (h, h), None),
    "weights of two types": lambda m: (setattr(m.bias_ih_l0, "data", m.bias_ih_l0.data.double()), m(x))[1],
    "a weight of another shape": lambda m: (setattr(m.double().weight_hh_l0, "data", f64(16, 5)), m(x.double()))[1],
    "a weight missing": lambda m: (delattr(m, "weight_hh_l0"), m(x))[1],
    "a wrong hidden_size": lambda m: (setattr(m.double(), "hidden_size", 5), m(x.double()))[1],
    "a wrong num_layers": lambda m: (setattr(m, "num_layers", 2), m(x))[1],
    "bias switched off": lambda m: (setattr(m, "bias", False), m(x))[1],
    "both directions switched on": lambda m: (setattr(m, "bidirectional", True), m(x))[1],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("grads", ["enabled", "disabled"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_calls_have_torchs_outcome(wrong, grads):
    """torch's error by type and text; where torch takes what looks wrong, its numbers."""
    ours, theirs = pair(3, 4, dtype=torch.float32)
    with torch.set_grad_enabled(grads == "enabled"):
        got, expected = (outcome(lambda: parts(WRONG[wrong](module))) for module in (ours, theirs))  # noqa: B023
    if isinstance(expected, tuple):
        name = type(ours).__name__
        assert got[0] is expected[0]
        assert got[1].replace(f"{name}.forward()", "LSTM.forward()") == expected[1]
    else:
        assert_close(got, expected)


UNSEEN = {
    "features, packed": lambda m: m(rnn.pack_sequence([f32(3, 7)])),
    "a weight of another shape": lambda m: (setattr(m.weight_hh_l0, "data", f32(16, 5)), m(x))[1],
    "a wrong hidden_size": lambda m: (setattr(m, "hidden_size", 5), m(x))[1],
}


@pytest.mark.parametrize("grads", ["enabled", "disabled"])
@pytest.mark.parametrize("wrong", UNSEEN)
def test_what_torch_reads_past_the_end_of_is_an_error(wrong, grads):
    """oneDNN, in float32, takes any shape here and reads other memory; there are no numbers to agree with."""
    ours, _ = pair(3, 4, dtype=torch.float32)
    with torch.set_grad_enabled(grads == "enabled"), pytest.raises((RuntimeError, ValueError)):
        UNSEEN[wrong](ours)


@pytest.mark.parametrize(
    "arguments, options",
    [
        ((3,), {}),
        ((3, 0), {}),
        ((0, 4), {}),
        ((3, 4, 0), {}),
        ((3.0, 4), {}),
        ((3, 4), dict(dropout=1.5)),
        ((3, 4), dict(dropout=True)),
        ((3, 4), dict(bias=1)),
        ((3, 4), dict(batch_first=1)),
        ((3, 4), dict(proj_size=4)),
        ((3, 4), dict(proj_size=-1)),
        ((3, 4), dict(nonlinearity="relu")),
        ((3, 4), dict(dtype=torch.int64)),
    ],
)
def test_wrong_arguments_have_torchs_error(arguments, options):
    assert error_of(lambda: under_test.LSTM(*arguments, **options)) == error_of(
        lambda: torch.nn.LSTM(*arguments, **options)
    )


def test_dropout_with_one_layer_warns_as_torch_does():
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        under_test.LSTM(3, 4, dropout=0.5)
