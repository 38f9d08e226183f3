"""What do variants of the cell cost, forward and backward, beside the plain cell and beside the same in torch, which
has no kernel for most of them: a loop over steps there, as its users write it."""

import numpy as np

from benchmarks import peers
from benchmarks.inference import layer_and_input
from benchmarks.timer import agree
from benchmarks.training import pass_of
from cylstm import LSTM

SHAPES = "series", "char"
VARIANTS = {
    "peepholes": dict(peepholes=True),
    "coupled": dict(coupled=True),
    "cell_clip": dict(cell_clip=3.0),
    # Without corners, at which a last bit of difference is a slope of 0 or not.
    "softsign": dict(activations=("sigmoid", "softsign", "softsign")),
    "gate_clip": dict(gate_clip=5.0),
    "proj_size": dict(proj_size=32),
    "proj_clip": dict(proj_size=32, proj_clip=0.5),
    "first_state": dict(first_state=True),
    "weight_drop": dict(weight_drop=0.5),
    "recurrent_dropout": dict(recurrent_dropout=0.3),
    "recurrent_dropout per gate": dict(recurrent_dropout=0.3, recurrent_dropout_per="gate"),
    "update_dropout": dict(update_dropout=0.3),
    "layer_norm ba": dict(layer_norm="ba"),
    "layer_norm torchscript": dict(layer_norm="torchscript"),
    "zoneout": dict(zoneout=(0.5, 0.05)),
    "residual": dict(residual=True),
    "highway": dict(highway=True),
}


def functions():
    """Our names of the activations that are measured, in torch."""
    import torch

    return {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "softsign": torch.nn.functional.softsign,
    }


def torch_loop(layer, x, dy, tape=None):
    """A callable that runs the layer's variant in torch, step by step, forward and backward: y and the gradients. tape:
    whose masks are taken; each call draws its own otherwise."""
    import torch

    cell, L, H = layer.cell, layer.num_layers, layer.hidden_size
    values = {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in layer.parameters.items()}
    known = functions()
    f_gates, f_g, f_c = (known[name] for name in cell.all_activations)
    x, dy = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

    def mask(kind, share, n, shape):
        given = getattr(tape, kind, None)
        return (
            torch.from_numpy(given[n].copy())
            if given is not None
            else torch.empty(shape).bernoulli_(1 - share) / (1 - share)
        )

    def zoned(m, n, steps):
        """Where c (m = 0) or h is not kept as it was."""
        if not layer.zoneout[m]:
            return None
        if tape is not None:
            return torch.from_numpy(tape.zoneout_masks[m][n])
        return torch.empty((*steps, H)).bernoulli_(1 - layer.zoneout[m]).bool()

    def cut(z):
        return z if cell.gate_clip is None else z.clamp(-cell.gate_clip, cell.gate_clip)

    def norm(z, gain, shift=None):
        return torch.nn.functional.layer_norm(z, z.shape[-1:], gain, shift, cell.norm[1])

    def run(inputs, n):
        W, R, b = (values[f"{name}_l{n}"] for name in ("weight_ih", "weight_hh", "bias"))
        P = values[f"peephole_l{n}"] if cell.peepholes else None
        h, c = (inputs.new_zeros(inputs.shape[0], width) for width in (layer.h_size, H))
        if cell.first_state:
            h, c = (values[f"{name}_l{n}"].expand(len(inputs), H) for name in ("h0", "c0"))
        if layer.weight_drop:
            R = R * mask("weight_masks", layer.weight_drop, n, R.shape)
        of_gates = (4,) if layer.recurrent_dropout_per == "gate" else ()
        kept = None
        if layer.recurrent_dropout:
            kept = mask("recurrent_masks", layer.recurrent_dropout, n, (*of_gates, *h.shape))
        update = mask("update_masks", layer.update_dropout, n, c.shape) if layer.update_dropout else None
        by_x, by_h, by_c = (values.get(f"{name}_l{n}") for name in ("norm_ih", "norm_hh", "norm_c"))
        from_inputs, outputs = inputs @ W.T + b if by_x is None else norm(inputs @ W.T, by_x) + b, []
        new_c, new_h = (zoned(m, n, from_inputs.shape[:2]) for m in (0, 1))
        for t, z in enumerate(from_inputs.unbind(1)):
            old_c, old_h = c, h
            if kept is None or kept.dim() == 2:
                recurrent = (h if kept is None else h * kept) @ R.T
            else:
                recurrent = torch.bmm(h * kept, R.reshape(4, H, -1).mT).transpose(0, 1).flatten(1)
            i, f, g, o = (z + (recurrent if by_h is None else norm(recurrent, by_h))).chunk(4, 1)
            if P is not None:
                i, f = i + P[0] * c, f + P[1] * c
            i = f_gates(cut(i))
            f = 1 - i if cell.coupled else f_gates(cut(f))
            g = f_g(cut(g))
            c = f * c + i * (g if update is None else g * update)
            if cell.cell_clip is not None:
                c = c.clamp(-cell.cell_clip, cell.cell_clip)
            if P is not None:
                o = o + P[2] * c
            seen = c if by_c is None else norm(c, by_c[0], by_c[1])
            c = seen if by_c is not None and cell.norm[0] else c
            h = f_gates(cut(o)) * f_c(seen)
            if cell.proj_size:
                h = h @ values[f"weight_hr_l{n}"].T
            if cell.proj_clip is not None:
                h = h.clamp(-cell.proj_clip, cell.proj_clip)
            if new_c is not None:
                c = torch.where(new_c[:, t], c, old_c)
            if new_h is not None:
                h = torch.where(new_h[:, t], h, old_h)
            outputs.append(h)
        return torch.stack(outputs, 1)

    def call():
        for value in (x, *values.values()):
            value.grad = None
        y = x
        for n in range(L):
            below, y = y, run(y, n)
            if n and cell.residual:
                y = y + below
            if n and cell.highway:
                share = torch.sigmoid(below @ values[f"highway_weight_l{n}"].T + values[f"highway_bias_l{n}"])
                y = below + share * (y - below)
        y.backward(dy)
        return y.detach(), {"x": x.grad, **{name: value.grad for name, value in values.items()}}

    return call


def compare(layer, x, dy, fused=None):
    """Ours beside torch's module, or beside the loop with the same masks. Raises AssertionError."""
    y, _, tape = layer.forward(x)
    gradients = layer.backward(tape, dy)
    y_torch, d_torch = torch_loop(layer, x, dy, tape)() if fused is None else fused()
    agree("torch", y_torch, y)
    agree("torch dx", d_torch["x"], gradients.x)
    for key, d in gradients.parameters.items():
        if not (layer.cell.coupled and key.startswith(("weight", "bias"))):  # those of f: None there, 0 here
            agree(f"torch d{key}", d_torch[key if fused is None else key.replace("bias_", "bias_ih_")], np.asarray(d))


def cases(shapes, threads):
    """Labels and contenders of each shape and variant; outputs and gradients are compared first."""
    for shape in shapes:
        if shape.name not in SHAPES:
            continue
        plain, x = layer_and_input(shape)
        for name, options in VARIANTS.items():
            if name in ("residual", "highway") and shape.L == 1:
                continue
            layer = LSTM(shape.I, shape.H, shape.L, seed=1, **options)
            ours = pass_of(layer, x)
            fused = layer.cell.proj_size and layer.cell.proj_clip is None  # torch has a kernel for those
            torch = peers.torch_training if fused else torch_loop
            contenders = {"cylstm": ours, "plain cell": pass_of(plain, x), "torch": torch(layer, x, ours.dy)}
            if fused:
                compare(layer, x, ours.dy, contenders["torch"])
            else:  # in float64: norms of what is next to nothing, as at a first step, make much of a last bit
                double = LSTM(shape.I, shape.H, shape.L, seed=1, dtype="float64", **options)
                compare(double, x.astype("float64"), ours.dy.astype("float64"))
            yield {"shape": shape.name, "variant": name}, contenders
