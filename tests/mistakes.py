"""Mistakes put into the oracle, one line at a time, and what tells them: the gradient check."""

import inspect
import sys
import types

import numpy as np
from gradcheck import RTOL, gradient_error

from cylstm import LSTM, between_oracle, cell_oracle, loss_oracle, norm_oracle, oracle

# One may import those before it.
MODULES = norm_oracle, cell_oracle, between_oracle, loss_oracle, oracle


def mutated(line, mistake):
    """The oracle with one line replaced, which has to be there exactly once in all of its modules."""
    sources = {module.__name__: inspect.getsource(module) for module in MODULES}
    found = [name for name, source in sources.items() for _ in range(source.count(line))]
    assert len(found) == 1, f"expected exactly one line {line!r}, got {found}"
    assert line != mistake
    sources[found[0]] = sources[found[0]].replace(line, mistake)
    kept = {name: sys.modules[name] for name in sources}
    try:
        for name, source in sources.items():
            module = sys.modules[name] = types.ModuleType(name)
            exec(compile(source, f"mutated {name}", "exec"), module.__dict__)
        return module
    finally:
        sys.modules.update(kept)


def gradient_errors(module, peepholes=False, proj_size=0, **cell):
    """The relative error of each gradient of one layer, with every step and the final state in the loss. One at a time:
    who looks for a mistake need not have the others worked out."""
    rng = np.random.default_rng(5)
    layout = LSTM.layout(5, 3, peepholes=peepholes, proj_size=proj_size, layer_norm=cell.get("layer_norm"))
    Y = proj_size or 3
    params = {name: rng.standard_normal(shape) * 0.6 for name, shape in layout.items()}
    x, h0, c0 = rng.standard_normal((2, 4, 5)), rng.standard_normal((1, 2, Y)), rng.standard_normal((1, 2, 3))
    dy, dh, dc = rng.standard_normal((2, 4, Y)), rng.standard_normal((1, 2, Y)), rng.standard_normal((1, 2, 3))

    def loss():
        y, (h, c), _ = module.forward(x, params, (h0, c0), **cell)
        return (dy * y).sum() + (dh * h).sum() + (dc * c).sum()

    _, _, tape = module.forward(x, params, (h0, c0), **cell)
    dx, (dh0, dc0), dparams = module.backward(tape, dy, (dh, dc))
    pairs = [*((params[name], gradient) for name, gradient in dparams.items()), (x, dx), (h0, dh0), (c0, dc0)]
    for values, gradient in sorted(pairs, key=lambda pair: pair[0].size):
        yield gradient_error(loss, values, gradient)


def worst_gradient_error(module, **cell):
    return max(gradient_errors(module, **cell))


def is_found(module, *cells):
    """Whether the gradients of one of these cells are wrong by far more than differences are."""
    return any(error > 1000 * RTOL for cell in cells for error in gradient_errors(module, **cell))
