"""An LSTM as one writes it in NumPy when it has to be fast: float32, one product for the inputs of all steps, one per
step for the state, one per weight gradient. What the ratios are taken against; the oracle is there to be read instead.
"""

import numpy as np


def sigmoid(z):
    return 0.5 * np.tanh(0.5 * z) + 0.5


def cell(z, c_prev):
    """Gates, c and tanh(c) of one step from z (B, 4H)."""
    H = c_prev.shape[1]
    gates = sigmoid(z)
    gates[:, 2 * H : 3 * H] = np.tanh(z[:, 2 * H : 3 * H])
    i, f, g, _ = np.split(gates, 4, axis=1)
    c = f * c_prev + i * g
    return gates, c, np.tanh(c)


def step(x, h, c, W, R, b):
    """One step of one layer: x (B, I), h and c (B, H) -> h, c."""
    gates, c, tanh_c = cell(x @ W.T + h @ R.T + b, c)
    return gates[:, 3 * h.shape[1] :] * tanh_c, c


def weights_of(parameters, layer):
    """W (4H, I), R (4H, H), b (4H,) of one layer, from parameters by name."""
    return tuple(parameters[f"{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias"))


def forward(x, parameters, num_layers):
    """x (B, T, I) -> y (B, T, H), and what `backward` needs, layer by layer."""
    tape, outputs = [], np.ascontiguousarray(x.swapaxes(0, 1))
    for layer in range(num_layers):
        W, R, b = weights_of(parameters, layer)
        (T, B, I), H = outputs.shape, R.shape[1]
        z = (outputs.reshape(T * B, I) @ W.T + b).reshape(T, B, 4 * H)
        h, c = np.zeros((2, T + 1, B, H), x.dtype)
        gates, tanh_c = np.empty((T, B, 4 * H), x.dtype), np.empty((T, B, H), x.dtype)
        for t in range(T):
            gates[t], c[t + 1], tanh_c[t] = cell(z[t] + h[t] @ R.T, c[t])
            np.multiply(gates[t, :, 3 * H :], tanh_c[t], out=h[t + 1])
        tape.append((outputs, h, c, gates, tanh_c))
        outputs = h[1:]
    return outputs.swapaxes(0, 1), tape


def backward(tape, parameters, dy):
    """dy (B, T, H) -> dx (B, T, I) and the parameters' gradients by name."""
    gradients, dh_all = {}, dy.swapaxes(0, 1)
    for layer in reversed(range(len(tape))):
        W, R, _ = weights_of(parameters, layer)
        x, h, c, gates, tanh_c = tape[layer]
        (T, B, I), H = x.shape, R.shape[1]
        i, f, g, o = np.split(gates, 4, axis=2)
        # What each step's gradient is multiplied by is known before the first: only dh and dc go from step to step.
        dz, dc = np.empty_like(gates), np.zeros((B, H), x.dtype)
        into_c, into_o = o * (1 - tanh_c**2), tanh_c * o * (1 - o)
        into_gates = np.stack([g * i * (1 - i), c[:-1] * f * (1 - f), i * (1 - g**2)], axis=2)
        dh = np.zeros((B, H), x.dtype)
        for t in reversed(range(T)):
            dh = dh + dh_all[t]
            dc = dc + dh * into_c[t]
            np.multiply(dc[:, None], into_gates[t], out=dz[t, :, : 3 * H].reshape(B, 3, H))
            np.multiply(dh, into_o[t], out=dz[t, :, 3 * H :])
            dc = dc * f[t]
            dh = dz[t] @ R
        dz = dz.reshape(T * B, 4 * H)
        gradients[f"weight_ih_l{layer}"] = dz.T @ x.reshape(T * B, I)
        gradients[f"weight_hh_l{layer}"] = dz.T @ h[:-1].reshape(T * B, H)
        gradients[f"bias_l{layer}"] = dz.sum(axis=0)
        dh_all = (dz @ W).reshape(T, B, I)
    return dh_all.swapaxes(0, 1), gradients


def cross_entropy(logits, targets):
    """logits (N, V), targets (N,) -> mean loss, its gradient."""
    rows = np.arange(len(logits))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[rows, targets]).mean()
    p[rows, targets] -= 1
    return loss, p / len(logits)


def loss_and_gradients(ids, targets, parameters, num_layers):
    """ids and targets (B, T) -> mean loss and gradients by name of one-hot rows, LSTM, linear head, cross-entropy."""
    inside = {name.removeprefix("lstm."): values for name, values in parameters.items() if name.startswith("lstm.")}
    head, V = parameters["head.weight"], inside["weight_ih_l0"].shape[1]
    y, tape = forward(np.eye(V, dtype=head.dtype)[ids], inside, num_layers)
    h = y.reshape(-1, y.shape[2])
    loss, dlogits = cross_entropy(h @ head.T + parameters["head.bias"], targets.reshape(-1))
    _, gradients = backward(tape, inside, (dlogits @ head).reshape(y.shape))
    return loss, {
        **{f"lstm.{name}": values for name, values in gradients.items()},
        "head.weight": dlogits.T @ h,
        "head.bias": dlogits.sum(axis=0),
    }
