"""What a corpus, or a panel, larger than memory costs beside a small one: resident memory, tokens/s, time to begin.

    python -m benchmarks.large --gigabytes 20 --folder /scratch

makes a text of Python's manual over and over, lets `cylstm train` run on it for some seconds, twice (the second run
finds the ids that the first one kept) and on a small text, and removes what it made. With --panel the same of arrays
(N, 128, 16) of float32 in a .npy file and `Model.fit`. Linux only: it reads /proc.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from cylstm.data import manual
from cylstm.training import read_checkpoint

SMALL = 50_000_000  # bytes: an epoch of it takes longer than it is given
TRAIN = ["--hidden", "256", "--layers", "1", "--streams", "32", "--tbptt", "64", "--sample", "0", "--epochs", "1000",
         "--schedule", "constant", "--quiet"]  # fmt: skip
STEPS, FEATURES = 128, 16

# Run in an interpreter of its own: tokens/s over some seconds of `Model.fit`, after the checks of all data.
PANEL = """
import sys, time
import numpy as np
import cylstm
path, seconds = sys.argv[1], float(sys.argv[2])
x = np.load(path, mmap_mode="r")
began = []
def watch(event):
    began.append(time.perf_counter())
    if began[-1] - began[0] > seconds:
        raise cylstm.training.StopTraining
model = cylstm.Model(x.shape[2], 64, x.shape[2], loss="mse", seed=0)
called = time.perf_counter()
model.fit(x[:, :-1], x[:, 1:], epochs=1000, batch_size=32, progress=False, callbacks=[watch])
with open("/proc/self/status") as file:
    print(file.read())
rate = (len(began) - 1) * 32 * (x.shape[1] - 1) / (began[-1] - began[0])
print("begun", began[0] - called, "rate", rate, flush=True)
"""


def memory(status) -> dict[str, float]:
    """MB by name, of /proc/PID/status: the most that was resident, and what is of no file now."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {name: int(fields[name].split()[0]) / 1000 for name in ("VmHWM", "RssAnon", "RssFile")}


def repeated(path, size):
    """A text of so many bytes."""
    block = (manual() * 20).encode()
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(block[: size - file.tell()] if size - file.tell() >= len(block) else whole(block, size, file))


def whole(block, size, file):
    """The beginning of a block, up to the end of a character."""
    return block[: size - file.tell()].decode(errors="ignore").encode() or b"\n"


def trained(corpus, folder, seconds):
    """A run of `cylstm train`, broken off after so many seconds of training."""
    out = os.path.join(folder, "model.safetensors")
    command = [sys.executable, "-m", "cylstm", "train", corpus, *TRAIN, "--out", out]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if not process.stdout.readline():  # the summary, before the first update's end
            raise RuntimeError(process.stderr.read())
        begun = time.perf_counter() - began
        time.sleep(seconds)
        with open(f"/proc/{process.pid}/status") as file:
            found = memory(file.read())
        process.send_signal(signal.SIGINT)
        process.communicate()
    path = os.path.join(folder, "model.ckpt")
    header = read_checkpoint(path).header
    os.unlink(path)
    return {"begun": begun, "tokens_per_second": 32 * 64 * header["updates"] / header["elapsed"], **found}


def fitted(path, seconds):
    """A run of `Model.fit`."""
    done = subprocess.run([sys.executable, "-c", PANEL, path, str(seconds)], check=True, capture_output=True, text=True)
    _, begun, _, rate = done.stdout.splitlines()[-1].split()
    return {"begun": float(begun), "tokens_per_second": float(rate), **memory(done.stdout)}


def panel(path, size):
    """Random walks of STEPS steps, float32, the same few over and over."""
    rows = size // (4 * STEPS * FEATURES)
    block = np.random.default_rng(0).standard_normal((1024, STEPS, FEATURES), np.float32).cumsum(axis=1) / 10
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, STEPS, FEATURES))
    offset = array.offset
    del array
    with open(path, "r+b") as file:
        file.seek(offset)
        for start in range(0, rows, len(block)):
            file.write(block[: rows - start])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", help="with room for the data twice (default: the system's for temporary files)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training, each time")
    parser.add_argument("--panel", action="store_true")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(dir=args.folder, prefix="cylstm-large-")
    try:
        large, small = (
            os.path.join(folder, f"{name}{'.npy' if args.panel else '.txt'}") for name in ("large", "small")
        )
        make = panel if args.panel else repeated
        make(large, int(args.gigabytes * 1e9))
        make(small, SMALL)
        run = (lambda path: fitted(path, args.seconds)) if args.panel else \
            (lambda path: trained(path, folder, args.seconds))  # fmt: skip
        for name, path in (("large", large), ("large, again", large), ("small", small)):
            print(json.dumps({"data": name, "bytes": os.path.getsize(path), **run(path)}), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
