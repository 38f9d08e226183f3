"""cylstm.torch.LSTMCell against torch.nn.LSTMCell: numbers, derivatives, weights that change, errors."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import assert_close, error_of, loss_of, under_test  # noqa: E402

pytestmark = [  # of torch's own, once in a process
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.trace"),
]
ROWS = [None, 1, 5, 15, 16, 40]  # None: one row without an axis for it
nn = torch.nn


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


def swapped(*args, **options):
    return under_test.LSTMCell(*args, **options)


def accelerated(*args, **options):
    model = nn.Sequential(nn.LSTMCell(*args, **options))
    under_test.accelerate(model)
    return model[0]


def pair(*args, make=swapped, dtype=torch.float64, **options):
    ours, theirs = make(*args, dtype=dtype, **options), nn.LSTMCell(*args, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def inputs(cell, rows):
    batch, dtype = ([] if rows is None else [rows]), cell.weight_ih.dtype
    x = torch.randn(*batch, cell.input_size, dtype=dtype)
    return x, tuple(torch.randn(2, *batch, cell.hidden_size, dtype=dtype))


def results(cell, x, hx):
    cell.zero_grad()
    leaves = [part.detach().clone().requires_grad_() for part in (x, *(hx or ()))]
    outputs = cell(leaves[0], tuple(leaves[1:]) or None)
    assert type(outputs) is tuple
    loss_of(outputs).backward()
    return [*(part.detach() for part in outputs), *(p.grad for p in [*leaves, *cell.parameters()])]


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("with_state", [True, False])
def test_same_numbers_as_torch(rows, with_state, dtype, bias, make):
    ours, theirs = pair(5, 9, bias=bias, dtype=dtype, make=make)
    x, hx = inputs(theirs, rows)
    hx = hx if with_state else None
    assert_close(results(ours, x, hx), results(theirs, x, hx))
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            got, expected = ours(x, hx), theirs(x, hx)
        assert_close(got, expected)
        assert [part.stride() for part in got] == [part.stride() for part in expected]
        assert not got[0].requires_grad


def test_a_sequence_step_by_step():
    """A loop of one's own around the cell, trained: the state of each step enters the next."""
    found = []
    for cell in pair(3, 9):
        torch.manual_seed(4)
        optimizer, losses = torch.optim.Adam(cell.parameters(), lr=0.05, fused=True), []
        for _ in range(4):
            x, state, loss = torch.randn(12, 5, 3, dtype=torch.float64), None, 0.0
            for x_t in x:
                state = cell(x_t, state)
                loss = loss + state[0].pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            with torch.no_grad():
                losses += cell(x[0, :1])
        found.append(losses)
    assert_close(*found)


def test_two_cells_are_a_layer_of_two():
    lstm = nn.LSTM(3, 9, 2, dtype=torch.float64)
    cells = [swapped(3, 9, dtype=torch.float64), swapped(9, 9, dtype=torch.float64)]
    for n, cell in enumerate(cells):
        weights = {
            name.removesuffix(f"_l{n}"): values for name, values in lstm.state_dict().items() if f"_l{n}" in name
        }
        cell.load_state_dict(weights)
    x, states, ys = torch.randn(7, 4, 3, dtype=torch.float64), [None, None], []
    for x_t in x:
        for n, cell in enumerate(cells):
            states[n] = cell(x_t if n == 0 else states[0][0], states[n])
        ys.append(states[1][0])
    assert_close([torch.stack(ys)], [lstm(x)[0]])


CHANGES = {
    "data": lambda cell: cell.weight_hh.data.mul_(0.5),
    "NumPy": lambda cell: cell.weight_hh.detach().numpy().__imul__(0.5),
    "other data": lambda cell: setattr(cell.weight_hh, "data", cell.weight_hh.data * 0.5),
    "another parameter": lambda cell: setattr(cell, "weight_hh", nn.Parameter(cell.weight_hh.detach() * 0.5)),
    "types": lambda cell: cell.half().double(),
    "assigned": lambda cell: cell.load_state_dict({n: v * 0.5 for n, v in cell.state_dict().items()}, assign=True),
    "weight_norm": lambda cell: nn.utils.parametrizations.weight_norm(cell, "weight_hh"),
    "bias": lambda cell: cell.bias_hh.data.add_(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_weights_are_seen(change):
    ours, theirs = pair(3, 9)
    for rows in ROWS:
        x, hx = inputs(theirs, rows)
        with torch.no_grad():
            ours(x, hx)
            if change != "weight_norm" or rows is None:
                CHANGES[change](ours), CHANGES[change](theirs)
            assert_close(ours(x, hx), theirs(x, hx))
        assert_close(results(ours, x, hx), results(theirs, x, hx))


def test_functional_call():
    ours, theirs = pair(3, 9)
    others = {name: torch.randn_like(value) for name, value in theirs.named_parameters()}
    for rows in ROWS:
        given = inputs(theirs, rows)
        got, expected = (torch.func.functional_call(cell, others, given) for cell in (ours, theirs))
        assert_close(got, expected)
        assert_close(ours(*given), theirs(*given))


@pytest.mark.parametrize("rows", [None, 5])
def test_second_derivatives(rows):
    found = []
    for cell in pair(3, 9):
        torch.manual_seed(4)
        leaves = [part.requires_grad_() for part in (lambda x, hx: (x, *hx))(*inputs(cell, rows))]
        first = torch.autograd.grad(loss_of(cell(leaves[0], tuple(leaves[1:]))), leaves, create_graph=True)
        sum(part.pow(2).sum() for part in first).backward()
        found.append([*(part.detach() for part in first), *(p.grad for p in [*leaves, *cell.parameters()])])
    assert_close(*found, bound=1e-9)


def test_gradgradcheck_and_functions():
    ours, theirs = pair(2, 3)
    x, (h, c) = inputs(theirs, 2)
    call = lambda x, h, c: ours(x, (h, c))  # noqa: E731
    leaves = [part.detach().requires_grad_() for part in (x, h, c)]
    assert torch.autograd.gradcheck(call, leaves) and torch.autograd.gradgradcheck(call, leaves)
    jacobians = [torch.func.jacrev(lambda x, cell=cell: cell(x, (h, c))[0])(x) for cell in (ours, theirs)]
    assert_close(*([each] for each in jacobians))
    tangents = [torch.func.jvp(lambda x, cell=cell: cell(x, (h, c))[0], (x,), (x,)) for cell in (ours, theirs)]
    assert_close(*tangents)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_half_precision(dtype, how):
    ours, theirs = pair(3, 9, dtype=torch.float32)
    if how == "weights":
        ours.to(dtype), theirs.to(dtype)
    for rows in ROWS:
        x, hx = inputs(theirs, rows)
        with torch.autocast("cpu", dtype=dtype, enabled=how == "autocast"):
            assert_close(results(ours, x, hx), results(theirs, x, hx), bound=3e-2)


def test_graphs():
    ours, theirs = pair(3, 9)
    given = inputs(theirs, 5)
    traced = torch.jit.trace(ours.eval(), given)
    program = torch.export.export(ours, given)
    assert not any("cylstm" in str(node.target) for node in program.graph.nodes)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    given = inputs(theirs, 5)
    for made in (traced, program.module(), compiled):
        assert_close(made(*given), theirs(*given))
    meta = [cell.to("meta")(*(inputs(cell.to("meta"), 5)[0].to("meta"),))[0] for cell in (ours, theirs)]
    assert meta[0].shape == meta[1].shape and meta[0].device == meta[1].device


x, h, v = torch.ones(2, 3), torch.ones(2, 4), torch.ones(4)
WRONG = {
    "three dimensions": lambda m: m(torch.ones(5, 2, 3)),
    "no dimensions": lambda m: m(torch.ones(())),
    "features": lambda m: m(torch.ones(2, 7)),
    "features, unbatched": lambda m: m(torch.ones(7)),
    "float64": lambda m: m(x.double()),
    "integers": lambda m: m(x.long()),
    "meta": lambda m: m(x.to("meta")),
    "an array": lambda m: m(x.numpy()),
    "nothing": lambda m: m(None),
    "h rows": lambda m: m(x, (torch.ones(3, 4), h)),
    "h units": lambda m: m(x, (torch.ones(2, 5), h)),
    "c units": lambda m: m(x, (h, torch.ones(2, 5))),
    "unbatched state": lambda m: m(x, (v, v)),
    "batched state": lambda m: m(torch.ones(3), (h, h)),
    "three dimensions of state": lambda m: m(x, (h[None], h[None])),
    "state float64": lambda m: m(x, (h.double(), h.double())),
    "h alone": lambda m: m(x, (h,)),
    "a tensor as state": lambda m: m(x, torch.ones(2, 2, 4)),
    "no rows": lambda m: m(torch.ones(0, 3)),
    "keyword": lambda m: m(x, state=(h, h)),
    "a weight of another shape": lambda m: (setattr(m.weight_hh, "data", torch.ones(16, 5)), m(x))[1],
}


def outcome(call):
    try:
        return list(call())
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("grads", ["enabled", "disabled"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_calls_have_torchs_outcome(wrong, grads):
    with torch.set_grad_enabled(grads == "enabled"):
        got, expected = (outcome(lambda: WRONG[wrong](cell)) for cell in pair(3, 4, dtype=torch.float32))  # noqa: B023
    if isinstance(expected, tuple):
        assert got == expected
    else:
        assert_close(got, expected)


def test_wrong_arguments_have_torchs_error():
    for arguments, options in (((3,), {}), ((3, 4), dict(hidden=2)), ((-1, 4), {})):
        assert error_of(lambda: swapped(*arguments, **options)) == error_of(lambda: nn.LSTMCell(*arguments, **options))  # noqa: B023


def test_initial_weights_hooks_and_copies():
    torch.manual_seed(5)
    ours = swapped(3, 9)
    torch.manual_seed(5)
    theirs = nn.LSTMCell(3, 9)
    assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    calls, x = [], torch.randn(20, 3)
    for cell in (ours, theirs):
        cell.register_forward_hook(lambda cell, given, result: calls.append(result[0].sum().item()))
        cell(x)[0].sum().backward()
    assert calls[0] == pytest.approx(calls[1], rel=1e-5)
    twin = copy.deepcopy(ours)
    assert type(twin) is type(ours) and repr(ours) == repr(theirs) and isinstance(ours, nn.LSTMCell)
    twin.weight_hh.data.zero_()
    assert_close(ours(x), theirs(x))
