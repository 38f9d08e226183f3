"""The same LSTM in torch, onnxruntime and NumPy (the oracle), as callables of the same input, for one thread or two."""

import io

import numpy as np


def torch_lstm(layer, threads):
    """A torch.nn.LSTM with the layer's weights."""
    import torch

    torch.set_num_threads(threads)
    module = torch.nn.LSTM(
        layer.input_size, layer.hidden_size, layer.num_layers, batch_first=True, bidirectional=layer.bidirectional
    )
    module.load_state_dict({name: torch.from_numpy(values) for name, values in layer.state_dict().items()})
    return module


def torch_inference(layer, x, threads):
    """A callable that runs torch without gradients and returns y."""
    import torch

    module, x = torch_lstm(layer, threads), torch.from_numpy(x)

    def call():
        with torch.inference_mode():
            return module(x)[0]

    return call


def torch_training(layer, x, dy, threads):
    """A callable that runs torch forward and backward and returns y and all gradients, x's and the parameters'."""
    import torch

    module, x, dy = torch_lstm(layer, threads), torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

    def call():
        module.zero_grad()
        x.grad = None
        y = module(x)[0]
        y.backward(dy)
        return y.detach(), {"x": x.grad, **{name: p.grad for name, p in module.named_parameters()}}

    return call


def torch_step(layer, x, threads):
    """A callable that runs one step of torch.nn.LSTMCell (one layer) and returns h."""
    import torch

    torch.set_num_threads(threads)
    cell = torch.nn.LSTMCell(layer.input_size, layer.hidden_size)
    weights = {name.removesuffix("_l0"): torch.from_numpy(values) for name, values in layer.state_dict().items()}
    cell.load_state_dict(weights)
    x = torch.from_numpy(x)
    state = (torch.zeros(x.shape[0], layer.hidden_size), torch.zeros(x.shape[0], layer.hidden_size))

    def call():
        with torch.inference_mode():
            return cell(x, state)[0]

    return call


def onnx_model(layer):
    """The layer as ONNX LSTM nodes (opset 14): gate order i, o, f, c; time-major; W (1, 4H, I), B (1, 8H)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    H = layer.hidden_size
    order = np.r_[0:H, 3 * H : 4 * H, H : 2 * H, 2 * H : 3 * H]
    nodes, tensors, current = [], [], "x"
    for n in range(layer.num_layers):
        W, R = (layer.parameters[f"weight_{kind}_l{n}"][order][None].astype(np.float32) for kind in ("ih", "hh"))
        bias = layer.parameters[f"bias_l{n}"][order]
        B = np.concatenate([bias, np.zeros_like(bias)])[None].astype(np.float32)
        for name, values in (("W", W), ("R", R), ("B", B)):
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), f"{name}{n}"))
        nodes.append(helper.make_node("LSTM", [current, f"W{n}", f"R{n}", f"B{n}"], [f"d{n}"], hidden_size=H))
        nodes.append(helper.make_node("Squeeze", [f"d{n}", "axis"], [f"y{n}"]))
        current = f"y{n}"
    tensors.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", layer.input_size])
    y = helper.make_tensor_value_info(current, TensorProto.FLOAT, ["T", "B", H])
    graph = helper.make_graph(nodes, "lstm", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    buffer = io.BytesIO()
    onnx.save(model, buffer)
    return buffer.getvalue()


def onnxruntime_inference(layer, x, threads):
    """A callable that runs onnxruntime and returns y, time-major."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_model(layer), options, providers=["CPUExecutionProvider"])
    feed = {"x": np.ascontiguousarray(x.swapaxes(0, 1))}
    return lambda: session.run(None, feed)[0]
