"""How many threads there are by default: affinity, and the quotas of control groups, real ones and made-up ones."""

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cylstm import processors as module
from cylstm.processors import default_threads, processors, quotas

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
UNIFIED = "42 32 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
V1 = "33 32 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
CPUSET = "36 32 0:32 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset"
ROOT = "23 1 254:0 / / rw,relatime - ext4 /dev/vda rw"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes up /proc and /sys of a machine with 64 processors, and says how many of them are ours."""
    if sys.platform != "linux":
        pytest.skip("control groups are Linux's")
    monkeypatch.setattr(os, "sched_getaffinity", lambda who: set(range(64)))
    made = iter(range(1000))

    def ours(groups, mounts, files=()):
        root = tmp_path / str(next(made))
        files = {
            "/proc/self/cgroup": "".join(f"{line}\n" for line in groups),
            "/proc/self/mountinfo": "".join(f"{line}\n" for line in (ROOT, *mounts)),
            **{f"/sys/fs/cgroup{name}": f"{content}\n" for name, content in dict(files).items()},
        }
        for name, content in files.items():
            path = Path(f"{root}{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(content))
        return processors(str(root))

    return ours


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", 64),
        ("100000 100000", 1),
        ("150000 100000", 1),  # 1.5 processors
        ("50000 100000", 1),  # half a one
        ("1000 1000000", 1),
        ("200000 100000", 2),
        ("799999 100000", 7),
        ("20000 5000", 4),
        ("6400000 100000", 64),
        ("9900000 100000", 64),
        (f"{10**30} 100000", 64),
        (f"{'9' * 5000} 100000", 64),  # more digits than Python reads
        ("0 100000", 64),
        ("100000 0", 64),
        ("-100000 100000", 64),
        ("100000", 64),
        ("100000 100000 100000", 64),
        ("a lot", 64),
        ("1e5 1e5", 64),
        ("", 64),
        ("\udcff\udcfe", 64),  # bytes that are no UTF-8
    ],
)
def test_the_quota_of_a_container_with_a_view_of_its_own(machine, content, expected):
    assert machine(["0::/"], [V2], {"/cpu.max": content}) == expected


def test_the_least_of_a_group_and_those_around_it(machine):
    around = {"/cpu.max": "max 100000", "/a/cpu.max": "600000 100000", "/a/b c/cpu.max": "max 100000"}
    assert machine(["0::/a/b c/d"], [V2], {**around, "/a/b c/d/cpu.max": "1600000 100000"}) == 6
    assert machine(["0::/a/b c/d"], [V2], {**around, "/a/b c/d/cpu.max": "300000 100000"}) == 3
    assert machine(["0::/a/b c/d"], [V2], around) == 6  # the group is gone, or has no such controller
    assert machine(["0::/a/b c"], [V2], {**around, "/a/b c/d/cpu.max": "300000 100000"}) == 6  # below us
    assert machine(["0::/e"], [V2], around) == 64


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [(-1, 100000, 64), (400000, 100000, 4), (150000, 100000, 1), (50000, 100000, 1), (30000, 10000, 3), ("", "", 64)],
)
def test_version_1(machine, quota, period, expected):
    files = {"/cpu,cpuacct/a/cpu.cfs_quota_us": quota, "/cpu,cpuacct/a/cpu.cfs_period_us": period}
    groups = ["12:cpuset:/", "4:cpu,cpuacct:/a", "1:name=systemd:/x"]
    assert machine(groups, [CPUSET, V1.format(top="/")], files) == expected


def test_version_1_as_a_container_sees_it(machine):
    """The group has the host's name and is mounted as the root of all that is to be seen."""
    files = {"/cpu,cpuacct/cpu.cfs_quota_us": "500000", "/cpu,cpuacct/cpu.cfs_period_us": "100000"}
    mount = V1.format(top="/docker/0a1b")
    assert machine(["4:cpu,cpuacct:/docker/0a1b"], [mount], files) == 5
    inner = {"/cpu,cpuacct/job/cpu.cfs_quota_us": "200000", "/cpu,cpuacct/job/cpu.cfs_period_us": "100000"}
    assert machine(["4:cpu,cpuacct:/docker/0a1b/job"], [mount], files | inner) == 2
    for other in ("/docker/0a1bc", "/docker", "/", "/docker/0a1b/../x", ""):  # not below it: not our quota
        assert machine([f"4:cpu,cpuacct:{other}"], [mount], files) == 64


def test_both_versions(machine):
    groups = ["4:cpu,cpuacct:/a", "2:cpuset:/", "0::/b"]
    files = {"/cpu,cpuacct/a/cpu.cfs_quota_us": "700000", "/cpu,cpuacct/a/cpu.cfs_period_us": "100000"}
    mounts = [CPUSET, V1.format(top="/"), UNIFIED]
    assert machine(groups, mounts, files) == 7
    assert machine(groups, mounts, {**files, "/unified/b/cpu.max": "300000 100000"}) == 3
    assert machine(groups, mounts, {"/cpuset/a/cpu.max": "300000 100000"}) == 64


def test_a_mount_with_an_awkward_name(machine):
    mount = V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/a\040b\134040")
    assert machine(["0::/"], [mount], {"/a b\\040/cpu.max": "300000 100000"}) == 3


def test_a_root_above_what_is_to_be_seen(machine):
    """A process that has been moved into a namespace, or a mount that comes from outside of it."""
    files = {"/cpu.max": "300000 100000"}
    assert machine(["0::/../x"], [V2], files) == 64
    assert machine(["0::/"], [V2.replace(" / ", " /.. ", 1)], files) == 64


def test_nothing_is_there(machine, tmp_path):
    assert processors(str(tmp_path / "nowhere")) == 64
    assert machine([], []) == machine(["0::/"], []) == machine([], [V2], {"/cpu.max": "200000 100000"}) == 64


def test_whatever_the_files_hold_there_is_a_number(machine):
    rng = random.Random(5)
    pieces = ["0::/", "4:cpu:/a", "cpu", ":", "::", " ", " - ", "/", "/..", "cgroup2", "cgroup", "\\04", "\0", "\n",
              "max", "\udcff", "é", "\x85", "\u2028", V2, V1, UNIFIED, "a" * 5000, "-1", "100000"]  # fmt: skip
    draw = lambda: "".join(rng.choices(pieces, k=rng.randrange(12)))  # noqa: E731
    for _ in range(300):
        found = machine([draw(), draw()], [draw(), V2, draw()], {"/cpu.max": draw(), "/a/cpu.max": draw()})
        assert 1 <= found <= 64


def test_files_that_may_not_be_read(machine, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "open", denied, raising=False)
    assert machine(["0::/"], [V2], {"/cpu.max": "200000 100000"}) == 64


def test_systems_without_control_groups(machine, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine(["0::/"], [V2], {"/cpu.max": "200000 100000"}) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1


@pytest.mark.parametrize(
    ("ours", "openmp", "expected"),
    [("3", "5", 3), (None, "5", 5), ("", "5", 5), (None, "4,2", 4), (None, " 7 ", 7), (None, "", 64), (None, "0", 64),
     (None, "-2", 64), (None, "many", 64), (None, "9" * 50, 64), (None, None, 64)],
)  # fmt: skip
def test_what_the_environment_says_comes_first(monkeypatch, ours, openmp, expected):
    monkeypatch.setattr(module, "processors", lambda: 64)
    for name, value in (("CYLSTM_NUM_THREADS", ours), ("OMP_NUM_THREADS", openmp)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert default_threads() == expected


# --- real ones --------------------------------------------------------------------------------------------------------


def folders():
    """Where this machine lets one make groups with a quota: the folder and the files of a new group."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, system = line.partition(" - ")
        kind, *_, options = system.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            yield Path(place.split(" ")[4]), module.FILES[kind]


@contextlib.contextmanager
def real_group(quota, period=100000):
    """A group of this machine with a quota; skips the test where none can be had."""
    for folder, names in folders():
        group = folder / f"cylstm-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            values = (quota, period) if len(names) == 2 else (f"{quota} {period}",)
            for name, value in zip(names, values, strict=True):
                (group / name).write_text(str(value))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    pytest.skip("this machine lets nobody here make a control group with a quota")


@LINUX
@pytest.mark.parametrize(("quota", "expected"), [(50000, 1), (100000, 1), (150000, 1), (250000, 2)])
def test_a_process_in_a_real_group(quota, expected):
    code = """if True:
        import os, sys
        open(sys.argv[1], "w").write(str(os.getpid()))
        import cylstm
        from cylstm.processors import quotas
        print(cylstm.num_threads(), *quotas(""))
    """
    ours = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    with real_group(quota) as group:
        run = subprocess.run(
            [sys.executable, "-c", code, str(group / "cgroup.procs")], env=ours, capture_output=True, text=True
        )
    assert run.returncode == 0, run.stderr
    threads, *found = map(int, run.stdout.split())
    assert quota // 100000 in found
    assert threads == min(expected, len(os.sched_getaffinity(0)))


@LINUX
def test_this_machine_can_be_read():
    assert all(quota >= 0 for quota in quotas(""))
    assert 1 <= processors() <= len(os.sched_getaffinity(0))
