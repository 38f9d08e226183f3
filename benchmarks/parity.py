"""Does it learn as PyTorch does? The manual inside Python, 2 x 128, the same initial weights and the same batches.

    python -m benchmarks.parity [--epochs 10] [--dtype float64] [--out benchmarks/results/parity.json]

90/5/5 split, 32 parallel streams, truncated BPTT over 64 steps with the state carried, Adam, clipping at 5.
"""

import argparse
import json
import time

import numpy as np

import cylstm
from benchmarks.timer import machine
from cylstm import data

STREAMS, STEPS, LEARNING_RATE, CLIP = 32, 64, 2e-3, 5.0


def torch_model(model, V, H, L):
    """The same model with the same initial weights: one-hot rows, LSTM, linear head."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(V, H, L, batch_first=True)
            self.head = torch.nn.Linear(H, V)

        def forward(self, ids, state=None):
            y, state = self.lstm(torch.nn.functional.one_hot(ids, V).to(self.head.weight.dtype), state)
            return self.head(y), state

    net = Net()
    net.lstm.load_state_dict({name: torch.from_numpy(w) for name, w in model.lstm.state_dict().items()})
    net.head.load_state_dict(
        {name: torch.from_numpy(model.parameters[f"head.{name}"].copy()) for name in ("weight", "bias")}
    )
    # One bias, as in cylstm: a second one would train at twice the speed.
    for name, parameter in net.lstm.named_parameters():
        parameter.requires_grad_(not name.startswith("bias_hh"))
    return net


def torch_epochs(net, train, validation, epochs):
    """Training and validation loss per token, for each epoch."""
    import torch

    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    cross_entropy = torch.nn.functional.cross_entropy

    def chunks(x, y):
        for start in range(0, x.shape[1], STEPS):
            yield tuple(torch.from_numpy(a[:, start : start + STEPS].astype(np.int64)) for a in (x, y))

    for _ in range(epochs):
        state, total, count = None, 0.0, 0
        for x, y in chunks(*train):
            optimizer.zero_grad()
            logits, state = net(x, state)
            state = tuple(s.detach() for s in state)
            loss = cross_entropy(logits.flatten(0, 1), y.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            total, count = total + loss.item() * y.numel(), count + y.numel()
        training = total / count
        state, total, count = None, 0.0, 0
        with torch.no_grad():
            for x, y in chunks(*validation):
                logits, state = net(x, state)
                total += cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
                count += y.numel()
        yield training, total / count


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    text = data.manual()
    vocabulary = data.Vocabulary.from_text(text, "char")
    parts = data.split(vocabulary.encode(text), (0.9, 0.05, 0.05))
    train, validation = (data.streams(part, STREAMS) for part in parts[:2])
    V = len(vocabulary)
    model = cylstm.Model(V, arguments.hidden, V, num_layers=2, dtype=arguments.dtype, seed=1)
    torch.set_num_threads(2)
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    net = torch_model(model, V, arguments.hidden, 2)
    start = time.perf_counter()
    history = model.fit(*train, validation=validation, epochs=arguments.epochs, optimizer=cylstm.Adam(lr=LEARNING_RATE),
                        clip_norm=CLIP, tbptt=STEPS, shuffle=False, seed=0, progress=False)  # fmt: skip
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    theirs = list(torch_epochs(net, train, validation, arguments.epochs))
    seconds_torch = time.perf_counter() - start
    rows = [
        {"epoch": n + 1, "train": ours, "validation": held_out, "train_torch": torchs[0], "validation_torch": torchs[1]}
        for n, (ours, held_out, torchs) in enumerate(
            zip(history.train_loss, history.validation_loss, theirs, strict=True)
        )
    ]
    print("| epoch | train | torch | validation | torch | difference |\n|---|---|---|---|---|---|")
    for row in rows:
        difference = row["validation"] / row["validation_torch"] - 1
        print(f"| {row['epoch']} | {row['train']:.4f} | {row['train_torch']:.4f} | {row['validation']:.4f} "
              f"| {row['validation_torch']:.4f} | {100 * difference:+.2g} % |")  # fmt: skip
    print(f"cylstm {seconds:.0f} s, torch {seconds_torch:.0f} s")
    if arguments.out:
        result = {
            "machine": machine(),
            "dtype": arguments.dtype,
            "epochs": rows,
            "seconds": seconds,
            "seconds_torch": seconds_torch,
        }
        with open(arguments.out, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
