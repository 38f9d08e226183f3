"""Training by several ranks: the same bits for any number, and no rank that hangs. Needs mpi4py, and an MPI with
mpiexec, such as the package mpich."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mpi4py")

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")
SCRIPT = Path(__file__).with_name("ranks.py")
ENDS_WITHIN = 120  # seconds: a rank that hangs is a failure


def ranks(count, scenario, **options):
    """What `count` ranks print."""
    env = {name: value for name, value in os.environ.items() if name not in ("CYLSTM_NUM_THREADS", "OMP_NUM_THREADS")}
    command = [MPIEXEC, "-n", str(count), sys.executable, str(SCRIPT), scenario]
    command += [f"{name}={value}" for name, value in options.items()]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=ENDS_WITHIN)


def weights(count, scenario, **options):
    """The hash of the weights in the end, and the losses."""
    done = ranks(count, scenario, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("scenario", ["ragged", "batches", "streams"])
def test_the_bits_depend_on_the_parts_alone(scenario):
    found = {count: weights(count, scenario, parts=4) for count in (1, 2, 4)}
    assert found[1] == found[2] == found[4]
    assert weights(2, scenario, parts=2) != found[2]


@pytest.mark.parametrize("how", ["callback", "interrupt", "kill"])
def test_another_number_of_ranks_goes_on_to_the_same_bits(tmp_path, how):
    path = tmp_path / "run.ckpt"
    broken_off = ranks(4, "streams", parts=4, stop=7, how=how, path=path)
    assert (broken_off.returncode == 0) == (how == "callback")
    if how == "interrupt":
        assert [broken_off.stderr.count(f"rank {rank}: interrupted") for rank in range(4)] == [1] * 4
    whole = weights(1, "streams", parts=4)
    for count in (1, 2):
        assert weights(count, "streams", parts=4, resume=path) == whole


@pytest.mark.parametrize("scenario, rank, said", [
    ("broken", 1, "RankError: rank 1 of 3 has failed: ZeroDivisionError: of this rank alone"),
    ("broken", 0, "RankError: rank 0 of 3 has failed: ZeroDivisionError"),
    ("refused", 2, "RankError: rank 2 of 3 has failed: ValueError: x[3][1, 2]: expected"),
    ("other_data", 1, "RankError: comm: expected the same options on all ranks"),
    ("other_weights", 2, "RankError: comm: expected the same weights on all ranks"),
    ("fewer_batches", 1, "RankError: comm: expected ranks that do the same, with as many batches"),
    ("other_parts", 1, "parts: expected 3 (as many as there are ranks) times 1, 2, 4, 8, ..., got 4"),
    ("other_batches", 2, "RankError: comm: expected the same batches on all ranks, got others on some"),
    ("other_validation", 0, "RankError: comm: expected the same validation batches on all ranks"),
    ("noise", 0, "RankError: comm: expected the same weights on all ranks"),
    ("rates", 0, "RankError: comm: expected the same weights on all ranks"),
    ("no_memory", 1, "MemoryError"),
])  # fmt: skip
def test_an_error_of_one_rank_ends_all(scenario, rank, said):
    done = ranks(3, scenario, rank=rank)
    assert done.returncode != 0 and said in done.stderr, done.stderr


@pytest.mark.parametrize("scenario", ["callbacks", "other_generators"])
def test_callbacks_are_the_first_ranks_and_generators_any(scenario):
    weights(2, scenario)


def test_what_all_ranks_see_they_all_raise():
    done = ranks(2, "diverged")
    assert done.stderr.count("NonFiniteLoss: ") == 2 and "RankError" not in done.stderr, done.stderr


def test_ranks_share_the_processors():
    weights(2, "threads")


def test_parts_are_a_multiple_of_the_ranks_by_a_power_of_two():
    for parts in (2, 9):
        done = ranks(3, "ragged", parts=parts)
        said = f"parts: expected 3 (as many as there are ranks) times 1, 2, 4, 8, ..., got {parts}"
        assert done.returncode != 0 and done.stderr.count(said) == 3
    weights(3, "ragged", parts=6)


def test_a_communicator_is_mpi4pys():
    import cylstm

    model = cylstm.Model(3, 4, 2)
    with pytest.raises(TypeError, match=r"comm: expected an mpi4py\.MPI\.Intracomm, such as MPI\.COMM_WORLD, got str"):
        model.fit([[1, 2]], [[1, 0]], comm="world")


def train(count, *options, cwd, second=()):
    """`cylstm train` by several ranks, in a folder; `second` : the options of one more rank."""
    command = [MPIEXEC, "-n", str(count), sys.executable, "-m", "cylstm", "train", *options]
    command += [":", "-n", "1", sys.executable, "-m", "cylstm", "train", *second] if second else []
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=ENDS_WITHIN)


@pytest.fixture
def corpus(tmp_path):
    text = "".join(f"line {n} of {n * n} lines, and {n % 7} more\n" for n in range(400))
    (tmp_path / "corpus.txt").write_text(text)
    return tmp_path


def test_the_command_line_trains_by_ranks(corpus):
    """The first one alone writes and prints; the file's bytes are those of one rank; a checkpoint keeps the parts."""
    small = ["corpus.txt", "--hidden", "24", "--epochs", "2", "--sample", "20"]
    alone = train(1, *small, "--parts", "2", "--out", "alone.safetensors", cwd=corpus)
    both = train(2, *small, "--out", "both.safetensors", "--checkpoint", "both.ckpt", cwd=corpus)
    assert alone.returncode == both.returncode == 0, both.stderr
    assert both.stdout.count("epoch 2/2") == both.stdout.count("wrote both.safetensors") == 1
    assert (corpus / "alone.safetensors").read_bytes() == (corpus / "both.safetensors").read_bytes()
    longer = ["--epochs", "3", "--out", "longer.safetensors", "--schedule", "cosine"]
    assert "--epochs: expected 2 as in both.ckpt" in train(1, "--resume", "both.ckpt", *longer, cwd=corpus).stderr
    resumed = train(1, "--resume", "both.ckpt", "--out", "resumed.safetensors", cwd=corpus)
    assert resumed.returncode == 0, resumed.stderr
    assert (corpus / "resumed.safetensors").read_bytes() == (corpus / "both.safetensors").read_bytes()


def test_a_rank_that_never_gets_to_train_ends_the_others(corpus):
    done = train(1, "corpus.txt", cwd=corpus, second=["missing.txt"])
    assert done.returncode == 2 and "cylstm: error: missing.txt: No such file or directory" in done.stderr


READING = """
import sys
from cylstm.cli import main
from cylstm.text import corpus
original = corpus.read_text
def told(path, *rest):
    print("the text is read", file=sys.stderr, flush=True)
    return original(path, *rest)
corpus.read_text = told
sys.exit(main(sys.argv[1:]))
"""


def test_ranks_share_a_file_of_ids(tmp_path):
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat. the dog sat on the log. " * 200)
    options = ["--hidden", "9", "--streams", "4", "--tbptt", "16", "--epochs", "1", "--sample", "0", "--encoded", "."]
    command = [MPIEXEC, "-n", "2", sys.executable, "-c", READING, "train", "corpus.txt", *options]
    for reads in (2, 0):  # for the vocabulary, and for the ids
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=ENDS_WITHIN)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("the text is read") == reads, done.stderr
    assert (tmp_path / "corpus.txt.char.ids").exists()
