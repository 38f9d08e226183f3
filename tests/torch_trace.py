"""Makes data/torch_trace.npz: what PyTorch 2.13 computes for three small LSTMs, in float64.

    python tests/torch_trace.py        (needs torch, which the tests do not)

For each case: weights under cylstm's names, x, initial state, outputs, final state, and every gradient of
sum(dy y) + sum(dhn hn) + sum(dcn cn); then the losses of ten training steps for each optimiser, with
the gradients clipped by their global norm.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# I, H, L, bidirectional, B, T, lengths
CASES = {
    "one": (3, 7, 1, False, 4, 6, None),
    "both": (5, 4, 2, True, 3, 7, None),
    "ragged": (2, 9, 1, False, 5, 8, [3, 8, 1, 6, 6]),
    "ragged both": (7, 3, 2, True, 5, 6, [2, 6, 1, 5, 4]),
}
CLASSES = 11
# Of the norms met in training (0.09 to 0.22): some are clipped, some are not.
CLIP_NORM = 0.15


def normal(*shape, scale=1.0):
    return (torch.randn(*shape, dtype=torch.float64) * scale).requires_grad_()


def run(lstm, x, state, lengths):
    if lengths is None:
        return lstm(x, state)
    packed, final = lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), state)
    return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0], final


def our_names(lstm, value):
    """torch's two biases are one here: their sum as a weight, either one's gradient as a gradient."""
    named = {}
    for name, p in lstm.named_parameters():
        if name.startswith("bias_hh"):
            continue
        other = getattr(lstm, name.replace("bias_ih", "bias_hh"))
        named[name.replace("bias_ih", "bias")] = value(p, other if name.startswith("bias") else None)
    return {name: v.detach().numpy().copy() for name, v in named.items()}


def optimizers(parameters):
    return {
        "adam": lambda: torch.optim.Adam(parameters, lr=0.02, betas=(0.85, 0.99)),
        "adam with decay": lambda: torch.optim.Adam(parameters, lr=0.02, weight_decay=0.1),
        "adamw": lambda: torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1),
        "momentum": lambda: torch.optim.SGD(parameters, lr=0.3, momentum=0.8),
        "nesterov": lambda: torch.optim.SGD(parameters, lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01),
    }


def train(lstm, head, make, x, targets, lengths):
    """Ten losses. bias_hh stays 0 and out of the optimiser, so that there is one bias, as in cylstm."""
    optimizer = make()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    real = (
        torch.ones(x.shape[:2], dtype=bool)
        if lengths is None
        else torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]
    )
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        y, _ = run(lstm, x, None, lengths)
        loss = torch.nn.functional.cross_entropy(head(y)[real], targets[real])
        losses.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
    return np.array(losses)


def trace(I, H, L, bidirectional, B, T, lengths):
    D = 2 if bidirectional else 1
    lstm = torch.nn.LSTM(I, H, L, batch_first=True, bidirectional=bidirectional, dtype=torch.float64)
    head = torch.nn.Linear(D * H, CLASSES, dtype=torch.float64)
    with torch.no_grad():
        for name, p in lstm.named_parameters():
            p.copy_(torch.zeros_like(p) if name.startswith("bias_hh") else torch.randn_like(p) * 0.5)
    x, h0, c0 = normal(B, T, I), normal(L * D, B, H), normal(L * D, B, H)
    y, (hn, cn) = run(lstm, x, (h0, c0), lengths)
    dy, dhn, dcn = normal(B, T, D * H), normal(L * D, B, H), normal(L * D, B, H)
    ((dy * y).sum() + (dhn * hn).sum() + (dcn * cn).sum()).backward()
    arrays = dict(x=x, h0=h0, c0=c0, y=y, hn=hn, cn=cn, dy=dy, dhn=dhn, dcn=dcn, dx=x.grad, dh0=h0.grad, dc0=c0.grad)
    arrays = {name: a.detach().numpy().copy() for name, a in arrays.items()}
    arrays |= {
        f"weights/{n}": a for n, a in our_names(lstm, lambda p, other: p if other is None else p + other).items()
    }
    arrays |= {f"gradients/{n}": a for n, a in our_names(lstm, lambda p, other: p.grad).items()}
    arrays |= {f"head/{name}": p.detach().numpy().copy() for name, p in head.named_parameters()}
    targets = torch.randint(0, CLASSES, (B, T))
    arrays["targets"] = targets.numpy()
    if lengths is not None:
        arrays["lengths"] = np.array(lengths)
    for name, p in lstm.named_parameters():
        p.requires_grad_(not name.startswith("bias_hh"))
    start = {name: p.detach().clone() for name, p in (*lstm.named_parameters(), *head.named_parameters())}
    trained = [p for name, p in lstm.named_parameters() if not name.startswith("bias_hh")] + list(head.parameters())
    for name, make in optimizers(trained).items():
        with torch.no_grad():
            for key, p in (*lstm.named_parameters(), *head.named_parameters()):
                p.copy_(start[key])
        arrays[f"losses/{name}"] = train(lstm, head, make, x.detach(), targets, lengths)
    return arrays


if __name__ == "__main__":
    torch.manual_seed(2013)
    torch.set_num_threads(1)
    everything = {f"{case}/{name}": a for case, sizes in CASES.items() for name, a in trace(*sizes).items()}
    everything["clip_norm"] = np.array(CLIP_NORM)
    everything["torch"] = np.array(torch.__version__)
    folder = Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "torch_trace.npz", **everything)
