"""Derivatives of every kind that torch offers: the second ones, forward mode, torch.func, batched gradients."""

import functools

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import (  # noqa: E402
    ARCHITECTURES,
    CALLS,
    LAYOUTS,
    accelerated,
    assert_close,
    inputs,
    loss_of,
    options_of,
    pair,
    parts,
    swapped,
    with_data,
)

pytestmark = [  # of torch's own, once in a process
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning"),
]
functional = torch.autograd.functional
forward_ad = torch.autograd.forward_ad


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260)


def both(run, *args, bound=None, **options):
    """run(module) on our module and on torch's, from the same state of the generator; the results must agree."""
    ours, theirs = pair(*args, **options)
    state = torch.get_rng_state()
    got = run(ours)
    torch.set_rng_state(state)
    assert_close(got, run(theirs), bound)


def leaves_of(module, T, B, layout):
    x, hx = inputs(module, T, B, layout)
    data = x.data if layout == "packed" else x
    leaves = [part.detach().clone().requires_grad_() for part in (data, *hx)]
    return leaves, lambda data, h, c: parts(module(with_data(x, data), (h, c)))


@pytest.mark.parametrize("make", [swapped, accelerated])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_penalty(architecture, layout, dtype, make):
    """As WGAN-GP has it: the norm of the gradient of the input is part of the loss."""

    def run(module):
        leaves, call = leaves_of(module, 6, 3, layout)
        outputs = call(*leaves)
        gradients = torch.autograd.grad(loss_of(outputs), leaves, create_graph=True)
        assert all(gradient.requires_grad for gradient in gradients)
        penalty = sum(((gradient.norm(2, dim=-1) - 1) ** 2).mean() for gradient in gradients)
        (outputs[0].pow(2).mean() + 10 * penalty).backward()
        return [*gradients, *(leaf.grad for leaf in leaves), *(p.grad for p in module.parameters())]

    both(
        run,
        3,
        9,
        **architecture,
        **options_of(layout),
        dtype=dtype,
        make=make,
        bound=1e-9 if dtype == torch.float64 else 1e-4,
    )


@pytest.mark.parametrize("T, B", CALLS)
def test_backward_with_create_graph_then_backward_of_the_gradients(T, B):
    def run(module):
        x, _ = inputs(module, T, B, "time-major")
        parameters = list(module.parameters())
        loss_of(parts(module(x))).backward(create_graph=True)
        first = [p.grad for p in parameters]
        second = torch.autograd.grad(sum((g**2).sum() for g in first), parameters)
        for parameter in parameters:
            parameter.grad = None  # or the graph would hold itself
        return [*(g.detach() for g in first), *second]

    both(run, 3, 9, 2, bound=1e-9)


def test_penalty_on_the_gradients_of_weights():
    """As of sharpness, or a step of MAML: the update itself is part of the graph."""

    def run(module):
        x, hx = inputs(module, 7, 2, "time-major")
        names, values = zip(*module.named_parameters(), strict=True)
        loss = module(x, hx)[0].pow(2).mean()
        gradients = torch.autograd.grad(loss, values, create_graph=True)
        moved = {n: p - 0.1 * g for n, p, g in zip(names, values, gradients, strict=True)}
        outer = torch.func.functional_call(module, moved, (x, hx))[0].pow(2).sum()
        return list(torch.autograd.grad(outer, values))

    both(run, 3, 9, 2, bound=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hessian_and_its_products(layout):
    def run(module):
        leaves, call = leaves_of(module, 3, 2, layout)
        h, c = (leaf.detach() for leaf in leaves[1:])
        scalar = lambda data: loss_of([part.tanh() for part in call(data, h, c)])  # noqa: E731
        x, v = leaves[0].detach(), torch.randn_like(leaves[0])
        hessian = functional.hessian(scalar, x)
        assert hessian.abs().max() > 0
        return [hessian, functional.hvp(scalar, x, v)[1], functional.vhp(scalar, x, v)[1]]

    both(run, 2, 5, **options_of(layout), bound=1e-9)


def test_hessian_of_weights():
    def run(module):
        x, hx = inputs(module, 4, 2, "time-major")

        def scalar(weight):
            return torch.func.functional_call(module, {"weight_hh_l0": weight}, (x, hx))[0].pow(2).sum()

        weight = module.weight_hh_l0.detach()
        return [functional.hessian(scalar, weight), torch.func.hessian(scalar)(weight)]

    both(run, 2, 3, bound=1e-9)


@pytest.mark.parametrize("options", [{}, dict(bidirectional=True, bias=False)])
def test_gradgradcheck(options):
    ours, _ = pair(2, 3, **options)
    leaves, _ = leaves_of(ours, 2, 2, "time-major")
    names, weights = zip(*ours.named_parameters(), strict=True)

    def run(x, h, c, *weights):
        y, (h, c) = torch.func.functional_call(ours, dict(zip(names, weights, strict=True)), (x, (h, c)))
        return y, h, c

    assert torch.autograd.gradgradcheck(run, (*leaves, *weights))


@pytest.mark.parametrize("T, B", CALLS)
@pytest.mark.parametrize("vectorize", [False, True])
def test_jacobians(vectorize, T, B):
    def run(module):
        x, _ = inputs(module, T, B, "time-major")
        jacobian = functools.partial(functional.jacobian, vectorize=vectorize)
        final = lambda x: module(x)[1][0]  # noqa: E731
        return [jacobian(final, x), jacobian(final, x, create_graph=True).detach()]

    both(run, 2, 5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batched_gradients(layout):
    def run(module):
        leaves, call = leaves_of(module, 5, 3, layout)
        outputs = call(*leaves)
        batched = [torch.randn(4, *part.shape, dtype=part.dtype) for part in outputs]
        wanted = [*leaves, *module.parameters()]
        return list(torch.autograd.grad(outputs, wanted, batched, is_grads_batched=True))

    both(run, 3, 9, 2, bidirectional=True, **options_of(layout))


@pytest.mark.parametrize("layout", ["time-major", "batch-first", "unbatched"])
def test_derivatives_by_functions(layout):
    def run(module):
        (x, h, c), call = leaves_of(module, 5, 3, layout)
        x, h, c = x.detach(), h.detach(), c.detach()
        v = torch.randn_like(x)
        output = lambda x: call(x, h, c)[0]  # noqa: E731
        y, back = torch.func.vjp(output, x)
        _, forward = torch.func.jvp(output, (x,), (v,))
        gradients = torch.func.grad(lambda x, h, c: loss_of(call(x, h, c)), argnums=(0, 1, 2))(x, h, c)
        penalised = torch.func.grad(lambda x: torch.func.grad(lambda x: output(x).pow(2).sum())(x).pow(2).sum())(x)
        return [y, *back(torch.ones_like(y)), forward, *gradients, penalised]

    both(run, 3, 9, **options_of(layout), bound=1e-9)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians_by_functions(transform):
    def run(module):
        x, _ = inputs(module, 4, 2, "time-major")
        return [transform(lambda x: module(x)[0])(x)]

    both(run, 2, 5)


def test_gradients_of_weights_by_functions():
    def run(module):
        x, hx = inputs(module, 5, 3, "time-major")
        weights = {name: value.detach() for name, value in module.named_parameters()}
        loss = lambda weights: loss_of(parts(torch.func.functional_call(module, weights, (x, hx))))  # noqa: E731
        gradients, value = torch.func.grad_and_value(loss)(weights)
        return [value, *gradients.values()]

    both(run, 3, 9, 2)


def right_or_refused(call, expected):
    """Of what torch.nn.LSTM itself cannot do: torch's "Batching rule not implemented", or the numbers of a loop."""
    try:
        got = call()
    except RuntimeError:
        return
    assert_close(got, expected)


@pytest.mark.parametrize("grads", ["enabled", "disabled"])
@pytest.mark.parametrize("layout", ["time-major", "batch-first", "unbatched"])
def test_vmap_over_inputs(layout, grads):
    ours, theirs = pair(3, 9, 2, **options_of(layout))
    many = torch.stack([inputs(theirs, 5, 3, layout)[0] for _ in range(4)]).requires_grad_(grads == "enabled")
    expected = [torch.stack([theirs(x)[0] for x in many])]
    with torch.set_grad_enabled(grads == "enabled"):
        right_or_refused(lambda: [torch.vmap(lambda x: ours(x)[0])(many)], expected)
    if grads == "enabled":
        expected = torch.autograd.grad(loss_of(expected), many)
        right_or_refused(lambda: torch.autograd.grad(loss_of([torch.vmap(lambda x: ours(x)[0])(many)]), many), expected)


def test_gradients_per_row():
    """As differential privacy needs them."""
    ours, theirs = pair(3, 9, batch_first=True)
    x, _ = inputs(theirs, 5, 3, "batch-first")
    weights = {name: value.detach() for name, value in ours.named_parameters()}
    loss = lambda weights, x: torch.func.functional_call(ours, weights, (x[None],))[0].pow(2).sum()  # noqa: E731
    rows = [torch.autograd.grad(theirs(row[None])[0].pow(2).sum(), list(theirs.parameters())) for row in x]
    expected = [torch.stack(each) for each in zip(*rows, strict=True)]
    right_or_refused(lambda: list(torch.vmap(torch.func.grad(loss), (None, 0))(weights, x).values()), expected)


@pytest.mark.parametrize("grads", ["enabled", "disabled"])
def test_vmap_over_weights(grads):
    """An ensemble in one call."""
    ours, theirs = zip(*(pair(3, 9, 2) for _ in range(3)), strict=True)
    x = inputs(theirs[0], 5, 2, "time-major")[0]
    weights, buffers = torch.func.stack_module_state(list(ours))
    call = lambda weights: torch.func.functional_call(ours[0], (weights, buffers), (x,))[0]  # noqa: E731
    with torch.set_grad_enabled(grads == "enabled"):
        right_or_refused(lambda: [torch.vmap(call)(weights)], [torch.stack([module(x)[0] for module in theirs])])


@pytest.mark.parametrize("grads", ["enabled", "disabled"])
@pytest.mark.parametrize("where", ["input", "state", "weight"])
def test_dual_numbers(where, grads):
    def run(module):
        x, (h, c) = inputs(module, 5, 3, "time-major")
        with torch.set_grad_enabled(grads == "enabled"), forward_ad.dual_level():
            if where == "input":
                outputs = parts(module(forward_ad.make_dual(x, torch.ones_like(x)), (h, c)))
            elif where == "state":
                outputs = parts(module(x, (h, forward_ad.make_dual(c, torch.ones_like(c)))))
            else:
                weight = forward_ad.make_dual(module.weight_hh_l0.detach(), torch.ones_like(module.weight_hh_l0))
                outputs = parts(torch.func.functional_call(module, {"weight_hh_l0": weight}, (x, (h, c))))
            duals = [forward_ad.unpack_dual(part) for part in outputs]
            assert all(dual.tangent is not None for dual in duals)
            return [part.detach() for dual in duals for part in dual]

    both(run, 3, 9, 2)


def test_a_graph_is_walked_many_times():
    def run(module):
        x, _ = inputs(module, 5, 3, "time-major")
        x.requires_grad_()
        y, (h, c) = module(x)
        wanted = [x, *module.parameters()]
        grads = [torch.autograd.grad(part.sum(), wanted, retain_graph=True) for part in (y, h, c, y)]
        return [gradient for each in grads for gradient in each]

    both(run, 3, 9, 2)


def test_a_graph_that_was_walked_is_gone():
    for module in pair(3, 9):
        x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
        loss = module(x)[0].sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()


@pytest.mark.parametrize("frozen", ["all weights", "biases", "the first layer", "the input"])
def test_only_what_asks_for_gradients_has_them(frozen):
    def run(module):
        for name, parameter in module.named_parameters():
            fits = {"all weights": True, "biases": "bias" in name, "the first layer": "l0" in name, "the input": False}
            parameter.requires_grad_(not fits[frozen])
        x, hx = inputs(module, 5, 3, "time-major")
        x.requires_grad_(frozen != "the input")
        outputs = parts(module(x, hx))
        assert all(part.requires_grad for part in outputs)
        loss_of(outputs).backward()
        return [x.grad, *(p.grad for p in module.parameters())]

    both(run, 3, 9, 2)
