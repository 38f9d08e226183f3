"""Training by several processes, the ranks of an MPI communicator: each takes its parts of every batch.

Every batch is cut into `parts` parts, neighbouring rows with about as many steps each, in the same way by every rank.
A rank computes the gradients of its parts; these are added in a binary tree over all parts, of which each rank holds a
subtree, so that the bits depend on the number of parts alone:

    part 0 --+
    part 1 --+--+        ranks 0 and 1 of two: two parts each; of four: one each
    part 2 --+  +-- sum
    part 3 --+--+

What is random in a part, the dropout masks, comes from a generator of its own, made from a number that the model's
generator draws once per update and from the part's place.

No rank goes on without the others. All that they exchange begins with a meeting, in which each says where it stands
and whether it has failed: a rank that raises an error meets the others once more, and they raise `RankError`.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from contextlib import contextmanager
from functools import reduce

import numpy as np

from cylstm._core import team
from cylstm.batches import batch_of
from cylstm.checks import describe, positive_int
from cylstm.loss_and_gradients import Sums
from cylstm.processors import processors
from cylstm.state import State
from cylstm.training.dataset import Dataset
from cylstm.training.parts import TreeSum, joined

__all__ = ["Alone", "RankError", "Ranks", "end_all", "hashed", "learned", "ranks_of", "world"]

PLACES = ("the beginning", "an agreement", "the weights of a batch", "the gradients", "validation", "a comparison",
          "a checkpoint", "reading", "the end")  # fmt: skip
# What launchers tell the processes that they start: how many there are (MPICH, Open MPI) or, of PMIx, each one's rank.
SIZES, RANK_ALONE = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"), "PMIX_RANK"
FAREWELL = 0.2  # s
STATUS, PLACE, FLAGS = range(3)  # of what a rank says in a meeting, int64


class RankError(RuntimeError):
    """Another rank of the communicator has failed, or ranks do not do the same; all ranks end."""


def ranks_of(comm) -> Alone:
    """What `fit(comm=)` means. Raises ImportError or TypeError."""
    if comm is None:
        return Alone()
    from mpi4py import MPI

    if not isinstance(comm, MPI.Intracomm):
        raise TypeError(f"comm: expected an mpi4py.MPI.Intracomm, such as MPI.COMM_WORLD, got {describe(comm)}")
    return Ranks(comm)


def world():
    """MPI.COMM_WORLD where this process is one of several that a launcher (mpiexec, srun) has started; None otherwise.
    Raises ImportError without mpi4py, or with one that is made for another MPI than the launcher's."""
    said = next((os.environ[name] for name in SIZES if name in os.environ), None)
    if said == "1" or (said is None and RANK_ALONE not in os.environ):
        return None
    try:
        from mpi4py import MPI
    except ImportError as error:
        if said is None:  # srun tells single processes their rank, too
            return None
        raise ImportError(f"expected mpi4py for {said} ranks: pip install 'cylstm[mpi]' ({error})") from None
    if MPI.COMM_WORLD.size == 1 and said is not None:
        library = MPI.Get_library_version().splitlines()[0].strip(" \0")
        raise ImportError(f"expected mpi4py for the MPI of this launcher, which has started {said} ranks, got one for "
                          f"{library}, to which each of them is alone")  # fmt: skip
    return MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None


def end_all(error, code, told=True) -> None:
    """End the other ranks, with this exit code, where they do not know of an error, and would wait for this one.
    told : whether the user does; otherwise it is printed."""
    comm = world()
    if comm is not None and not (isinstance(error, RankError) or getattr(error, "ranks_know", False)):
        if not told:
            traceback.print_exception(error)
        abort(comm, code)


def abort(comm, code) -> None:
    """End all ranks. The launcher passes on what this one has just printed, and may drop it if all ends at once."""
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(FAREWELL)
    comm.Abort(code)


class Alone:
    """One process, that has all parts; what `Ranks` does with several."""

    rank, size = 0, 1

    def share_out(self, parts) -> None:
        """Say how many parts batches have; None for whole batches. Raises TypeError or ValueError."""
        self.parts = None if parts is None else positive_int("parts", parts)
        self.own = range(self.parts or 1)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def first_ones(self, callbacks) -> tuple:
        """The callbacks that this rank calls."""
        return callbacks

    def expect_same(self, make) -> None:
        """RankError unless all ranks have the same in `make()`, a dict."""

    def agree(self, *flags) -> tuple[bool, ...]:
        """For each flag, whether it is true for any rank."""
        return flags

    def collect(self, place, numbers) -> np.ndarray:
        """numbers : (own parts, k). Returns (parts, k)."""
        return numbers

    def add_up(self, flat) -> None:
        """Let a buffer become the sum over all ranks."""

    def merged(self, by_number, seen) -> dict:
        """The union of all ranks' dicts, none of which has another's key. seen : the same for all, or RankError."""
        return by_number

    def of_first(self, make):
        """What `make()` returns to the first rank."""
        return make()

    def whole(self, state) -> State | None:
        """Of states by part, that of all rows, for the first rank; None for others."""
        return joined(state)


class Ranks(Alone):
    """The ranks of an MPI communicator; a context in which each takes its share of this machine's processors, and
    which no rank leaves without the others. An error in the middle of an exchange, which the others can only wait for,
    ends them."""

    def __init__(self, comm):
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.given, self.exchanging, self.received = comm, False, None

    def share_out(self, parts):
        super().share_out(self.size if parts is None else parts)
        each = self.parts // self.size
        if each * self.size != self.parts or each & (each - 1):
            raise ValueError(f"parts: expected {self.size} (as many as there are ranks) times 1, 2, 4, 8, ..., "
                             f"got {self.parts}")  # fmt: skip
        self.own = range(self.rank * each, (self.rank + 1) * each)

    # --- a context ------------------------------------------------------------------------------------------------

    def __enter__(self):
        self.comm = self.given.Dup()  # nobody else's messages
        self.threads = team.num_threads()
        share = self._share_of_processors()
        nobody_said = not {"CYLSTM_NUM_THREADS", "OMP_NUM_THREADS"} & set(os.environ)
        if nobody_said and self.threads == processors():
            team.set_num_threads(share)
        return self

    def __exit__(self, kind, error, place):
        team.set_num_threads(self.threads)
        if error is not None and self.exchanging:
            traceback.print_exception(error)
            abort(self.given, 1)
        try:
            if error is None:
                self._meet("the end")
            elif not isinstance(error, RankError):
                error.ranks_know = True
                self._meet("the end", error=error)
        finally:
            self.comm.Free()

    def _share_of_processors(self):
        """Of those that this process may use, among the ranks of this machine that may use them, too; a quota is taken
        for that of a container with all of these ranks in it."""
        from mpi4py import MPI

        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        machine = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        sharing = sum(not mine.isdisjoint(theirs) for theirs in machine.allgather(mine))
        machine.Free()
        return max(1, processors() // sharing)

    # --- exchange -------------------------------------------------------------------------------------------------

    @contextmanager
    def _exchange(self):
        """What is done by all ranks or by none."""
        self.exchanging = True
        yield
        self.exchanging = False

    def _meet(self, place, flags=0, error=None) -> np.ndarray:
        """The flags of all ranks. RankError where one has failed or stands elsewhere."""
        mine = np.array([error is not None, PLACES.index(place), flags], np.int64)
        found, said = np.empty((self.size, len(mine)), np.int64), None
        with self._exchange():
            self.comm.Allgather(mine, found)
            if found[:, STATUS].any():
                said = self.comm.allgather(None if error is None else f"{type(error).__name__}: {error}")
        if said is not None and error is None:
            first = next(rank for rank, text in enumerate(said) if text is not None)
            raise RankError(f"rank {first} of {self.size} has failed: {said[first]}")
        if said is None and (found[:, PLACE] != found[0, PLACE]).any():
            stand = ", ".join(f"rank {rank} at {PLACES[at]}" for rank, at in enumerate(found[:, PLACE]))
            raise RankError(f"comm: expected ranks that do the same, with as many batches, got {stand}")
        return found[:, FLAGS]

    def first_ones(self, callbacks):
        self._meet("the beginning")
        with self._exchange():
            called = self.comm.bcast(len(callbacks))
        return callbacks if self.rank == 0 else (nothing,) * called

    def expect_same(self, make):
        mine = make()
        self._meet("a comparison")
        with self._exchange():
            found = self.comm.allgather(mine)
        for rank, theirs in enumerate(found):
            for name, value in theirs.items():
                if value != mine[name]:
                    raise RankError(f"comm: expected the same {name} on all ranks, got {describe(mine[name])} on rank "
                                    f"{self.rank} and {describe(value)} on rank {rank}")  # fmt: skip

    def agree(self, *flags):
        found = self._meet("an agreement", sum(bool(flag) << n for n, flag in enumerate(flags)))
        any_of = np.bitwise_or.reduce(found)
        return tuple(bool(any_of >> n & 1) for n in range(len(flags)))

    def collect(self, place, numbers):
        found = np.empty((self.parts, numbers.shape[1]))
        self._meet(place)
        with self._exchange():
            self.comm.Allgather(numbers, found)
        return found

    def add_up(self, flat):
        """Each rank adds up, in the tree's order, a section of what all have, and tells the others. It follows upon a
        meeting, that of what the gradients' losses are."""
        with self._exchange():
            self._add_up(flat)

    def _add_up(self, flat):
        from mpi4py.util import dtlib

        mpi_type, (share, rest) = dtlib.from_numpy_dtype(flat.dtype), divmod(flat.size, self.size)
        counts = [share + (rank < rest) for rank in range(self.size)]
        begins = [0, *np.cumsum(counts)[:-1].tolist()]
        own = counts[self.rank]
        if self.received is None:
            self.received = np.empty((self.size, share + 1), flat.dtype)
        received = self.received.reshape(-1)[: self.size * own].reshape(self.size, own)
        places = [own * rank for rank in range(self.size)]
        self.comm.Alltoallv([flat, counts, begins, mpi_type], [received, [own] * self.size, places, mpi_type])
        step = 1
        while step < self.size:
            for rank in range(0, self.size - step, 2 * step):
                received[rank] += received[rank + step]
            step *= 2
        self.comm.Allgatherv([received[0], own, mpi_type], [flat, counts, begins, mpi_type])

    def merged(self, by_number, seen):
        self._meet("validation")
        with self._exchange():
            found = self.comm.allgather((by_number, seen))
        if any(theirs != seen for _, theirs in found):
            raise RankError("comm: expected the same validation batches on all ranks, got others on some")
        return {key: value for part, _ in found for key, value in part.items()}

    def of_first(self, make):
        made = make() if self.rank == 0 else None
        self._meet("reading")
        with self._exchange():
            return self.comm.bcast(made)

    def whole(self, state):
        self._meet("a checkpoint")
        with self._exchange():
            found = self.comm.gather(state) or ()
        return joined({part: one for of_rank in found if of_rank for part, one in of_rank.items()})


def nothing(event) -> None:
    """The callback of all ranks but the first, whose own are called."""


def hashed(value) -> str:
    """A number that differs for different arrays or what else can be pickled (BLAKE2b, 128 bits, in hexadecimal)."""
    import hashlib  # 8 ms: `import cylstm` has 15

    given = value if isinstance(value, np.ndarray) else pickle.dumps(value)
    return hashlib.blake2b(given, digest_size=16).hexdigest()


# --- an update --------------------------------------------------------------------------------------------------------


def learned(run, batches) -> dict[str, Sums]:
    """Fill `run.gradients` with those of the mean over an update's batches, put together from their parts; returns the
    Sums of all parts by head."""
    model, ranks, heads = run.model, run.ranks, list(run.model.heads)
    own, seen = {part: [] for part in ranks.own}, []
    for batch in batches:
        begins = run.cut(batch)
        if ranks.size > 1 and isinstance(batch, Dataset):  # which comes from each rank's own iterable
            seen.append(batch.fingerprint())
        for part in own:
            rows = slice(begins[part], begins[part + 1])
            if rows.start < rows.stop:
                own[part].append(batch_of(model, run.rows_of(batch, rows)))
    mark = float(int(hashed(seen)[:12], 16))  # 48 bits, which float64 has
    weights = [[mark, *(sum(batch.heads[name].weight for batch in own[part]) for name in heads)] for part in own]
    marks, *columns = ranks.collect("the weights of a batch", np.array(weights)).T.tolist()
    if len(set(marks)) > 1:
        raise RankError("comm: expected the same batches on all ranks, got others on some")
    over = {name: reduce(float.__add__, column) for name, column in zip(heads, columns, strict=True)}
    total, numbers = TreeSum(run.gradients.raw()), []
    several = sum(map(len, own.values())) != 1 or len(own) > 1  # one alone is its own sum: no copy, which may be large
    drawn = int(model.rng.integers(1 << 63))
    after = model.rng.bit_generator.state
    try:
        for part, own_batches in own.items():
            seeds = np.random.SeedSequence([drawn, part])
            model.rng.bit_generator.state = type(model.rng.bit_generator)(seeds).state
            sums = dict.fromkeys(heads, Sums())
            for n, batch in enumerate(own_batches):
                result = run.learn(batch, over, part)
                sums = {name: mine.plus(result.heads[name]) for name, mine in sums.items()}
                if several:
                    total.add(run.gradients.raw(), more=n > 0)
            if not own_batches:
                total.add(0.0)
            numbers.append(np.array([sums[name] for name in heads]).ravel())
    finally:
        model.rng.bit_generator.state = after
    if total.stack:
        run.gradients.raw()[:] = total.value()
    found = ranks.collect("the gradients", np.array(numbers)).tolist()
    ranks.add_up(run.gradients.raw())
    run.gradients.touch()
    of_parts = [[Sums(*row[n : n + 3], int(row[n + 3])) for n in range(0, len(row), 4)] for row in found]
    return {name: reduce(Sums.plus, (row[n] for row in of_parts)) for n, name in enumerate(heads)}
