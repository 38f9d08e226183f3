"""What does a call of cylstm.torch.LSTM cost over the layer behind it, beside torch.nn.LSTM? Small layers of 1 to 64
steps, forward alone and with backward; and one step of a stream, by the module and by LSTMCell.

`python -m benchmarks module` interleaves them; the difference of the first two columns is the cost.
"""

import numpy as np
import torch

import cylstm
import cylstm.torch

STEPS = 1, 4, 16, 64
STREAMS = 32, 128, 256


def pair(I, H):
    """The module, torch's and the layer, all with the same weights."""
    torch.manual_seed(1)
    ours, theirs = cylstm.torch.LSTM(I, H), torch.nn.LSTM(I, H)
    theirs.load_state_dict(ours.state_dict())
    layer = cylstm.LSTM(I, H, seed=0)
    layer.load_state_dict(ours.state_dict())
    return ours, theirs, layer


def inference(module, x):
    def call():
        with torch.no_grad():
            return module(x)[0]

    return call


def training(module, x, dy):
    def call():
        y = module(x)[0]
        y.backward(dy)
        return y

    return call


def layer_training(layer, x, dy):
    def call():
        y, _, tape = layer.forward(x)
        layer.backward(tape, dy)
        return y

    return call


def cases(shapes, threads):
    """Labels and contenders, outputs compared."""
    for T in STEPS:
        ours, theirs, layer = pair(3, 8)
        x, dy = torch.randn(T, 1, 3), torch.randn(T, 1, 8)
        rows, gradients = x.numpy().swapaxes(0, 1), dy.numpy().swapaxes(0, 1)
        yield checked({"shape": f"{T} steps", "task": "inference"},
                      inference(ours, x), lambda layer=layer, rows=rows: layer(rows)[0],
                      inference(theirs, x))  # fmt: skip
        yield checked({"shape": f"{T} steps", "task": "training"}, training(ours, x, dy),
                      layer_training(layer, rows, gradients), training(theirs, x, dy))  # fmt: skip
    for H in STREAMS:
        ours, theirs, layer = pair(H, H)
        x, state = torch.randn(1, 1, H), (torch.zeros(1, 1, H), torch.zeros(1, 1, H))
        row = x.numpy()[0]
        start = layer.initial_state(1)

        def call(module, x=x, state=state):
            with torch.no_grad():
                return module(x, state)[0]

        yield checked({"shape": f"step{H}", "task": "stream"}, lambda ours=ours: call(ours),
                      lambda layer=layer, row=row, start=start: layer.step(row, start)[0],
                      lambda theirs=theirs: call(theirs))  # fmt: skip
        cells = cylstm.torch.LSTMCell(H, H), torch.nn.LSTMCell(H, H)
        for cell in cells:
            for name, values in ours.named_parameters():
                getattr(cell, name.removesuffix("_l0")).data.copy_(values)

        def step(cell, x=x[0], h=state[0][0], c=state[1][0]):
            with torch.no_grad():
                return cell(x, (h, c))[0]

        yield checked({"shape": f"step{H}", "task": "cell"}, lambda cell=cells[0]: step(cell),
                      lambda layer=layer, row=row, start=start: layer.step(row, start)[0],
                      lambda cell=cells[1]: step(cell))  # fmt: skip


def checked(labels, ours, layer, theirs):
    expected = theirs().detach().numpy().ravel()
    for name, got in (("module", ours().detach().numpy()), ("layer", layer())):
        np.testing.assert_allclose(np.ravel(got), expected, rtol=1e-3, atol=1e-5, err_msg=f"{labels} {name}")
    return labels, {"cylstm": ours, "layer": layer, "torch": theirs}
