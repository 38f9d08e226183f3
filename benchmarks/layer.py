"""How fast is the layer? Inference, training and the streaming step, ours beside the oracle, torch and onnxruntime."""

import numpy as np

from benchmarks import peers, timer
from benchmarks.shapes import SHAPES
from cylstm import LSTM, oracle

# The oracle is there to be read; beyond this many multiplications a call of it would take longer than all the rest.
ORACLE_LIMIT = 3e8

# Relative to the largest element. Both are float32: sums over thousands of steps leave each about 1e-5 off.
TOLERANCE = 1e-4


def agree(name, got, expected):
    """Outputs are compared before anything is timed."""
    error = float(np.abs(np.asarray(got) - np.asarray(expected)).max() / np.abs(expected).max())
    if not error < TOLERANCE:
        raise AssertionError(f"{name}: outputs differ by {error:.1e}")


def inference(shape, layer, x, threads):
    """name -> callable, all checked against ours."""
    y = layer(x)[0]
    contenders = {"cylstm": lambda: layer(x)}
    if shape.T == 1:
        state = layer.initial_state(shape.B)
        contenders["cylstm"] = lambda: layer.step(x[:, 0], state)
        contenders["torch"] = peers.torch_step(layer, x[:, 0], threads)
        agree("torch", contenders["torch"](), y[:, 0])
    else:
        contenders["torch"] = peers.torch_inference(layer, x, threads)
        agree("torch", contenders["torch"](), y)
    contenders["onnxruntime"] = peers.onnxruntime_inference(layer, x, threads)
    agree("onnxruntime", contenders["onnxruntime"]().swapaxes(0, 1), y)
    if shape.B * shape.T * shape.L * 4 * shape.H * (shape.I + shape.H) < ORACLE_LIMIT:
        weights = {name: values.astype(float) for name, values in layer.parameters.items()}
        contenders["oracle"] = lambda: oracle.forward(x, weights, num_layers=shape.L)
        agree("oracle", contenders["oracle"]()[0], y)
    return contenders


def training(shape, layer, x, threads):
    """Forward and backward; name -> callable, all checked against ours."""
    dy = np.random.default_rng(2).standard_normal((shape.B, shape.T, shape.H)).astype(np.float32)

    def ours():
        y, _, tape = layer.forward(x)
        return y, layer.backward(tape, dy)

    y, gradients = ours()
    contenders = {"cylstm": ours, "torch": peers.torch_training(layer, x, dy, threads)}
    y_torch, d_torch = contenders["torch"]()
    agree("torch", y_torch, y)
    agree("torch dx", d_torch["x"], gradients.x)
    for name, d in gradients.parameters.items():
        agree(f"torch d{name}", d_torch[name.replace("bias_", "bias_ih_")], d)
    return contenders


def run(names=None, threads=(1, 2), seconds=1.0, rounds=9):
    """One row per shape, task and number of the peers' threads; the layer itself runs on one thread so far."""
    rows = []
    for shape in SHAPES:
        if names and shape.name not in names:
            continue
        layer = LSTM(shape.I, shape.H, shape.L, seed=1)
        x = np.random.default_rng(1).standard_normal((shape.B, shape.T, shape.I)).astype(np.float32)
        for count in threads:
            for task in (inference, training) if shape.T > 1 else (inference,):
                times = timer.interleaved(task(shape, layer, x, count), seconds=seconds, rounds=rounds)
                rows.append({"shape": shape.name, "task": task.__name__, "threads": count, "seconds": times})
                best = {name: f"{1e3 * t['median']:.3g}" for name, t in times.items()}
                print(f"{shape.name:9} {task.__name__:9} {count} thread(s), ms: {best}", flush=True)
    return rows
