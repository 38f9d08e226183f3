"""The same LSTM in torch, onnxruntime, openvino and jax, as callables of the same input. torch's number of threads is
torch's own setting; __main__.py binds the process to as many processors, which is all that jax goes by."""

import io

import numpy as np


def torch_lstm(layer):
    """A torch.nn.LSTM with the layer's weights."""
    import torch

    module = torch.nn.LSTM(
        layer.input_size, layer.hidden_size, layer.num_layers, batch_first=True, bidirectional=layer.bidirectional,
        proj_size=layer.cell.proj_size or 0,
    )  # fmt: skip
    module.load_state_dict({name: torch.from_numpy(values) for name, values in layer.state_dict().items()})
    return module


def torch_inference(layer, x, lengths=None):
    """A callable that runs torch without gradients and returns y; a ragged batch goes by pack_padded_sequence."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    module, x = torch_lstm(layer), torch.from_numpy(x)

    def call():
        with torch.inference_mode():
            if lengths is None:
                return module(x)[0]
            packed = pack_padded_sequence(x, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(module(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    return call


def torch_training(layer, x, dy, lengths=None):
    """A callable that runs torch forward and backward and returns y and all gradients, x's and the parameters'."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    module, x, dy = torch_lstm(layer), torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

    def call():
        module.zero_grad()
        x.grad = None
        if lengths is None:
            y = module(x)[0]
        else:
            packed = pack_padded_sequence(x, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False)
            y = pad_packed_sequence(module(packed)[0], batch_first=True, total_length=x.shape[1])[0]
        y.backward(dy)
        return y.detach(), {"x": x.grad, **{name: p.grad for name, p in module.named_parameters()}}

    return call


def torch_step(layer, x):
    """A callable that runs one step of torch.nn.LSTMCell (one layer) and returns h."""
    import torch

    cell = torch.nn.LSTMCell(layer.input_size, layer.hidden_size)
    weights = {name.removesuffix("_l0"): torch.from_numpy(values) for name, values in layer.state_dict().items()}
    cell.load_state_dict(weights)
    x = torch.from_numpy(x)
    state = (torch.zeros(x.shape[0], layer.hidden_size), torch.zeros(x.shape[0], layer.hidden_size))

    def call():
        with torch.inference_mode():
            return cell(x, state)[0]

    return call


def torch_language_model(model, x, y, learning_rate, clip_norm):
    """A callable that makes one update of the same model of ids in torch: embedding or one-hot rows, LSTM, head,
    cross-entropy, clipping, Adam. Returns the loss before the update."""
    import torch
    from torch.nn.functional import cross_entropy, one_hot

    weights = {name: torch.from_numpy(values.copy()) for name, values in model.parameters.items()}
    lstm = torch_lstm(model.lstm)
    head = torch.nn.Linear(model.lstm.output_size, model.output_size)
    head.load_state_dict({"weight": weights["head.weight"], "bias": weights["head.bias"]})
    parts = [lstm, head]
    if model.embedding_size is not None:
        table = torch.nn.Embedding(model.input_size, model.embedding_size)
        table.load_state_dict({"weight": weights["embedding.weight"]})
        parts.append(table)
    # torch adds two biases that have the same gradient, and Adam would move both: as fast, but another model.
    for name, bias in lstm.named_parameters():
        bias.requires_grad_(not name.startswith("bias_hh"))
    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, learning_rate)
    x, y = torch.from_numpy(x), torch.from_numpy(y).reshape(-1)

    def call():
        adam.zero_grad()
        inputs = one_hot(x, model.input_size).float() if model.embedding_size is None else table(x)
        loss = cross_entropy(head(lstm(inputs)[0]).reshape(-1, model.output_size), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        adam.step()
        return loss.item()

    return call


def onnx_model(layer, B, T, states=False):
    """The layer as ONNX LSTM nodes (opset 14): gate order i, o, f, c; time-major; W (1, 4H, I), B (1, 8H). With
    `states`, they go in as h0, c0, h1, ... (1, B, H) and come out as hn0, cn0, ..."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    H = layer.hidden_size
    order = np.r_[0:H, 3 * H : 4 * H, H : 2 * H, 2 * H : 3 * H]
    nodes, tensors, current, going_in, coming_out = [], [], "x", [], []
    for n in range(layer.num_layers):
        W, R = (layer.parameters[f"weight_{kind}_l{n}"][order][None].astype(np.float32) for kind in ("ih", "hh"))
        bias = layer.parameters[f"bias_l{n}"][order]
        biases = np.concatenate([bias, np.zeros_like(bias)])[None].astype(np.float32)
        for name, values in (("W", W), ("R", R), ("B", biases)):
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), f"{name}{n}"))
        given, left = [f"h{n}", f"c{n}"] if states else [], [f"hn{n}", f"cn{n}"] if states else []
        named = [current, f"W{n}", f"R{n}", f"B{n}", *["", *given][: 3 if states else 0]]
        nodes.append(helper.make_node("LSTM", named, [f"d{n}", *left], hidden_size=H))
        going_in += given
        coming_out += left
        nodes.append(helper.make_node("Squeeze", [f"d{n}", "axis"], [f"y{n}"]))
        current = f"y{n}"
    tensors.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, B, layer.input_size])
    y = helper.make_tensor_value_info(current, TensorProto.FLOAT, [T, B, H])
    in_and_out = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, B, H]) for name in names]
                  for names in (going_in, coming_out))  # fmt: skip
    ends = ([one, *others] for one, others in zip((x, y), in_and_out, strict=True))
    graph = helper.make_graph(nodes, "lstm", *ends, tensors)
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
    model = onnx_model(layer, *x.shape[:2])
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"x": np.ascontiguousarray(x.swapaxes(0, 1))}
    return lambda: session.run(None, feed)[0]


def onnxruntime_step(layer, threads):
    """step(x (B, I), h (L, B, H), c) -> y, h, c after one step of onnxruntime, of any B."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    model = onnx_model(layer, "B", 1, states=True)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [(f"h{n}", f"c{n}") for n in range(layer.num_layers)]

    def step(x, h, c):
        feed = {"x": x[None]}
        for n, (of_h, of_c) in enumerate(names):
            feed[of_h], feed[of_c] = h[n : n + 1], c[n : n + 1]
        y, *states = session.run(None, feed)
        return y[0], np.concatenate(states[::2]), np.concatenate(states[1::2])

    return step


def openvino_inference(layer, x, threads, precision="f32"):
    """A callable that runs openvino in float32 (with AMX its default is bfloat16) and returns y, time-major."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(onnx_model(layer, *x.shape[:2]), b""), "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(x.swapaxes(0, 1))))

    def call():
        request.infer()
        return request.get_output_tensor().data

    return call


def jax_lstm(layer):
    """f(weights, x (B, T, I)) -> y, by lax.scan with x W' taken out of the loop; and the weights."""
    import jax
    from jax import numpy as jnp

    weights = [
        [jnp.asarray(layer.parameters[f"{name}_l{n}"].copy()) for name in ("weight_ih", "weight_hh", "bias")]
        for n in range(layer.num_layers)
    ]

    def run(weights, x):
        x = x.swapaxes(0, 1)
        for W, R, b in weights:

            def step(state, gates, R=R):
                h, c = state
                i, f, g, o = jnp.split(gates + h @ R.T, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            zeros = jnp.zeros((x.shape[1], R.shape[1]), x.dtype)
            x = jax.lax.scan(step, (zeros, zeros), x @ W.T + b)[1]
        return x.swapaxes(0, 1)

    return run, weights


def jax_inference(layer, x):
    """A callable that runs jax and returns y."""
    import jax

    run, weights = jax_lstm(layer)
    compiled, x = jax.jit(run), jax.numpy.asarray(x)
    return lambda: compiled(weights, x).block_until_ready()


def jax_training(layer, x, dy):
    """A callable that runs jax forward and backward and returns y and the gradients: ([[dW, dR, db]...], dx)."""
    import jax

    run, weights = jax_lstm(layer)
    x, dy = jax.numpy.asarray(x), jax.numpy.asarray(dy)

    @jax.jit
    def both(weights, x, dy):
        y, pullback = jax.vjp(run, weights, x)
        return y, pullback(dy)

    return lambda: jax.block_until_ready(both(weights, x, dy))
