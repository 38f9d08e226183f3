"""What do fewer bits gain, and what do they cost? Ours in float32, float16, bfloat16 and int8, beside the peers' in
bfloat16 and int8, with the error of each against float32, relative to the largest output."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import peers
from benchmarks.inference import layer_and_input
from benchmarks.shapes import Shape
from benchmarks.timer import agree

OURS = "float16", "bfloat16", "int8"
MORE = (Shape("step512", 512, 512, 1, 1, 1, "streaming, one call per step"),)


def torch_inference_in(layer, x, change):
    """A callable that runs torch.nn.LSTM as `change` makes it, on x of its type, and returns y in float32."""
    import torch

    module = change(peers.torch_lstm(layer).eval())
    kind = next((p.dtype for p in module.parameters()), torch.float32)
    x = torch.from_numpy(x).to(kind)

    def call():
        with torch.inference_mode():
            return module(x)[0]

    return call


def torch_bfloat16(layer, x):
    import torch

    return torch_inference_in(layer, x, lambda module: module.to(torch.bfloat16))


def torch_int8(layer, x):
    """Dynamic quantisation of torch.ao, which replaces children of a module: int8 weights, one scale of x, one of h."""
    import torch

    def change(module):
        return torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(module), {torch.nn.LSTM}, torch.qint8)

    return torch_inference_in(layer, x, change)


def onnxruntime_int8(layer, x, threads):
    """Its dynamic quantisation: DynamicQuantizeLSTM. y is time-major."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        plain, small = (str(Path(folder, f"{name}.onnx")) for name in ("plain", "small"))
        onnx.save(onnx.load_from_string(peers.onnx_model(layer, *x.shape[:2])), plain)
        quantize_dynamic(plain, small, weight_type=QuantType.QInt8, per_channel=True)
        model = Path(small).read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"x": np.ascontiguousarray(x.swapaxes(0, 1))}
    return lambda: session.run(None, feed)[0]


def openvino_bfloat16(layer, x, threads):
    return peers.openvino_inference(layer, x, threads, "bf16")


def ours(layer, x, precision):
    """A call on whole sequences or, of one step, `step` with its state in place, as streams have it."""
    small = layer.astype(precision)
    if x.shape[1] > 1:
        return lambda: small(x)[0]
    x_t, state = np.ascontiguousarray(x[0, 0]), small.initial_state()
    state.h[...] = state.c[...] = 0
    return lambda: small.step(x_t, state, out=state)[0]


def cases(shapes, threads):
    """Labels and contenders of each shape; float32 is checked against torch's."""
    for shape in (*shapes, *MORE):
        layer, x = layer_and_input(shape)
        y = layer(x)[0]
        contenders = {"float32": ours(layer, x, "float32"), **{name: ours(layer, x, name) for name in OURS}}
        errors = {name: error(layer.astype(name)(x)[0], y) for name in OURS}
        others = {
            "torch": peers.torch_inference(layer, x),
            "onnxruntime": peers.onnxruntime_inference(layer, x, threads),
            "torch bfloat16": torch_bfloat16(layer, x),
            "torch int8": torch_int8(layer, x),
            "onnxruntime int8": onnxruntime_int8(layer, x, threads),
            "openvino bfloat16": openvino_bfloat16(layer, x, threads),
        }
        for name, call in others.items():
            got = call()
            got = got.float().numpy() if name.startswith("torch") else np.asarray(got).swapaxes(0, 1)
            if name in ("torch", "onnxruntime"):
                agree(name, got, y)
            else:
                errors[name] = error(got, y)
        yield {"shape": shape.name, "errors": errors}, {**contenders, **others}


def error(got, expected):
    found = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not found < 0.2:
        raise AssertionError(f"outputs differ by {found:.1e}")
    return found
