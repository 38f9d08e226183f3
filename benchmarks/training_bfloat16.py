"""How fast is training in bfloat16, forward and backward together, beside float32 and torch's bfloat16, and how far off
are its gradients?"""

from benchmarks import peers
from benchmarks.inference import layer_and_input
from benchmarks.precision import error
from benchmarks.timer import agree
from benchmarks.training import pass_of
from cylstm import LSTM, Parameters


def torch_autocast(layer, x, dy):
    """As torch trains in mixed precision: weights and their gradients in float32, products in bfloat16."""
    import torch

    call = peers.torch_training(layer, x, dy)

    def autocast():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return call()

    return autocast


def torch_bfloat16(layer, x, dy):
    """With everything in bfloat16, weights, gradients and sums over steps too."""
    import torch

    module = peers.torch_lstm(layer).to(torch.bfloat16)
    x = torch.from_numpy(x).to(torch.bfloat16).requires_grad_()
    dy = torch.from_numpy(dy).to(torch.bfloat16)

    def call():
        module.zero_grad()
        x.grad = None
        y = module(x)[0]
        y.backward(dy)
        return y.detach(), {"x": x.grad, **{name: p.grad for name, p in module.named_parameters()}}

    return call


def in_place(layer, x):
    """As training.pass_of, with gradients that have their memory and weights that change between the calls."""
    call = pass_of(layer, x)
    gradients = Parameters(layer.parameters.layout, layer.dtype)

    def update():
        tape = layer.forward(x)[2]
        layer.backward(tape, call.dy, out=gradients)
        layer.parameters.touch()

    return update


def errors_of(found, expected):
    """Of y and of the gradients, the worst of them."""
    (y, d), (y_expected, d_expected) = found, expected
    return {"y": error(y, y_expected), "d": max(error(d[name], values) for name, values in d_expected.items())}


def named(y, gradients):
    """Of ours, as torch has them."""
    parameters = {name.replace("bias_", "bias_ih_"): values for name, values in gradients.parameters.items()}
    return y, {"x": gradients.x, **parameters}


def as_numpy(y, gradients, names):
    return y.float().numpy(), {name: gradients[name].float().numpy() for name in names}


def cases(shapes, threads):
    """Labels and contenders of each shape of more than one step; float32 is checked against torch's."""
    for shape in shapes:
        if shape.T == 1:
            continue
        layer, x = layer_and_input(shape)
        rounded = LSTM(shape.I, shape.H, shape.L, precision="bfloat16", seed=1)
        rounded.parameters.raw()[:] = layer.parameters.raw()
        rounded.parameters.touch()
        call = pass_of(layer, x)
        expected = named(*call())
        others = {"torch": peers.torch_training(layer, x, call.dy), "torch autocast": torch_autocast(layer, x, call.dy),
                  "torch bfloat16": torch_bfloat16(layer, x, call.dy)}  # fmt: skip
        errors = {"bfloat16": errors_of(named(*pass_of(rounded, x)()), expected)}
        for name, other in others.items():
            found = as_numpy(*other(), expected[1])
            if name == "torch":
                agree(name, found[0], expected[0])
            else:
                errors[name] = errors_of(found, expected)
        labels = {"shape": shape.name, "errors": errors}
        yield labels, {"float32": in_place(layer, x), "bfloat16": in_place(rounded, x), **others}
