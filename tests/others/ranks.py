"""What tests/others/test_mpi.py lets several ranks do: mpiexec -n N python ranks.py SCENARIO [NAME=VALUE...].

Prints on the first rank a hash of the weights; what goes wrong is raised.
"""

import os
import signal
import sys

import numpy as np
from mpi4py import MPI

import cylstm
from cylstm.processors import processors
from cylstm.training.parallel import hashed

COMM = MPI.COMM_WORLD
rng = np.random.default_rng(3)
X = [rng.normal(size=(n, 3)).astype(np.float32) for n in rng.integers(2, 30, 44)]
Y = [rng.integers(0, 4, len(row)) for row in X]
STREAMS = cylstm.data.streams(rng.integers(0, 4, 900), 6)


def told(model, history):
    if COMM.rank == 0:
        print(hashed(model.parameters.raw()), history.train_loss[-1], history.validation_loss[-1:])


def sequences():
    return cylstm.Model(3, 12, 4, num_layers=2, bidirectional=True, dropout=0.3, recurrent_dropout=0.2, seed=1)


def language():
    return cylstm.Model(4, 12, 4, embedding_size=5, num_layers=2, dropout=0.2, seed=1)


def ragged(parts, **options):
    made = sequences()
    options = {"comm": COMM, "epochs": 3, "batch_size": 9, "validation": (X[:20], Y[:20]), **options}
    return made, made.fit(X, Y, parts=int(parts), progress=False, **options)


def batches(parts):
    made = sequences()
    given = [(X[n : n + 11], Y[n : n + 11]) for n in range(0, 44, 11)]
    return made, made.fit(given, comm=COMM, parts=int(parts), epochs=2, validation=given, accumulate=3,
                          progress=False)  # fmt: skip


def streams(parts, stop=0, how=None, path=None, resume=None):
    """Broken off after update `stop`: by a callback, or by a signal to the last rank."""
    made, updates = language(), []

    def happens(model, gradients):
        updates.append(1)
        if how != "callback" and len(updates) == int(stop) and COMM.rank == COMM.size - 1:
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "interrupt": signal.SIGINT}[how])

    def stops(event):
        if how == "callback" and event.kind == "update" and event.update == int(stop):
            raise cylstm.StopTraining

    checkpoint = None if path is None else cylstm.Checkpoint(path, updates=1)
    return made, made.fit(*STREAMS, comm=COMM, parts=int(parts), tbptt=30, epochs=3, optimizer=cylstm.Adam(1e-2),
                          checkpoint=checkpoint, resume=resume, on_gradients=happens, callbacks=[stops],
                          progress=False)  # fmt: skip


def broken(rank):
    """An error of one rank alone, in the middle of an epoch."""

    def fails(model, gradients):
        count[0] += 1
        if COMM.rank == int(rank) and count[0] == 3:
            raise ZeroDivisionError("of this rank alone")

    count = [0]
    return ragged(COMM.size, on_gradients=fails)


def refused(rank):
    """Data that fit does not take, on one rank."""
    if COMM.rank == int(rank):
        X[3][1, 2] = np.nan
    return ragged(COMM.size)


def other_data(rank):
    if COMM.rank == int(rank):
        X[3][1, 2] += 1
    return ragged(COMM.size)


def other_weights(rank):
    made = sequences()
    if COMM.rank == int(rank):
        made.parameters["head.bias"][0] += 1
    return made, made.fit(X, Y, comm=COMM, progress=False)


def fewer_batches(rank):
    made, all_of_them = sequences(), [(X[n : n + 11], Y[n : n + 11]) for n in range(0, 44, 11)]
    return made, made.fit(all_of_them[: 3 if COMM.rank == int(rank) else 4], comm=COMM, progress=False)


def other_parts(rank):
    return ragged(2 * COMM.size if COMM.rank == int(rank) else COMM.size + 1)


def other_batches(rank):
    """As many, but of rows in another order."""
    order = np.random.default_rng(COMM.rank == int(rank)).permutation(44)
    made = sequences()
    given = [([X[n] for n in order[k : k + 11]], [Y[n] for n in order[k : k + 11]]) for k in range(0, 44, 11)]
    return made, made.fit(given, comm=COMM, progress=False)


def other_validation(rank):
    given = [(X[n : n + 11], Y[n : n + 11]) for n in range(0, 44, 11)]
    return ragged(COMM.size, validation=given[: 3 if COMM.rank == int(rank) else 4])


def noise(rank):
    """Of each rank's own, on all of them."""
    own = np.random.default_rng(COMM.rank)

    def add(model, gradients):
        gradients.raw()[:] += own.normal(0, 1e-3, gradients.raw().shape)

    return ragged(COMM.size, on_gradients=add)


def rates(rank):
    """A callback, which is called on the first rank alone, lowers the rate."""
    optimizer = cylstm.Adam(1e-2)

    def lower(event):
        optimizer.lr = 1e-3

    return ragged(COMM.size, optimizer=optimizer, callbacks=[lower])


def other_generators():
    """Those of NumPy whose states hold arrays."""
    made = cylstm.Model(3, 12, 4, dropout=0.3, num_layers=2, seed=np.random.Generator(np.random.MT19937(3)))
    return made, made.fit(X, Y, comm=COMM, epochs=2, progress=False)


def no_memory(rank):
    """In the middle of an exchange."""
    ranks_type = cylstm.training.parallel.Ranks

    def fails(self, flat):
        raise MemoryError

    if COMM.rank == int(rank):
        ranks_type._add_up = fails
    return ragged(COMM.size)


def callbacks():
    """The first rank's alone are called."""
    called = []
    found = ragged(COMM.size, callbacks=[called.append] if COMM.rank != 1 else [])
    assert bool(called) == (COMM.rank == 0)
    return found


def diverged():
    return ragged(COMM.size, optimizer=cylstm.SGD(1e30), clip_norm=None)


def threads():
    before, during = cylstm.num_threads(), []
    found = ragged(COMM.size, on_gradients=lambda *_: during.append(cylstm.num_threads()))
    machine = processors()
    assert set(during) == {max(1, machine // COMM.size)} and cylstm.num_threads() == before
    cylstm.set_num_threads(machine + 3)  # which is not the share that nobody has asked for
    during.clear()
    ragged(COMM.size, on_gradients=lambda *_: during.append(cylstm.num_threads()))
    assert set(during) == {machine + 3} == {cylstm.num_threads()}
    return found


def main():
    try:
        told(*globals()[sys.argv[1]](**dict(argument.split("=", 1) for argument in sys.argv[2:])))
    except KeyboardInterrupt:
        sys.exit(f"rank {COMM.rank}: interrupted")


if __name__ == "__main__":
    main()
