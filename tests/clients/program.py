"""One program with one LSTM, in a process of its own, again for each line that comes: run.py starts it.

python tests/clients/program.py NAME[:VARIANT] torch|moved|cylstm
"""

import functools
import gc
import importlib.util
import json
import os
import pathlib
import random
import sys
import time
import warnings

import numpy as np
import swap
import torch


def load(name):
    """The program's run, by its path: programs bear their clients' names."""
    name, _, variant = name.partition(":")
    path = pathlib.Path(__file__).parent / "programs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"program_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # for pickle
    spec.loader.exec_module(module)
    return functools.partial(module.run, variant) if variant else module.run


def load_what_torch_loads_late():
    """An optimiser's first step imports half of torch: no part of a program's time."""
    weight = torch.nn.Parameter(torch.ones(2))
    weight.sum().backward()
    torch.optim.Adam([weight]).step()


def measure(run):
    """Numbers, seconds and calls of one run from the same seeds."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    gc.collect()
    swap.begin()
    start = time.perf_counter()
    numbers = run()
    seconds = time.perf_counter() - start
    numbers = {name: np.asarray(values, dtype="float64").ravel().tolist() for name, values in numbers.items()}
    return {"numbers": numbers, "seconds": seconds, "calls": swap.calls()}


def main(name, engine):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what clients print is no answer
    warnings.simplefilter("ignore")
    swap.choose(engine)
    run = load(name)
    load_what_torch_loads_late()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(run)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
