"""How many threads a call may use, unless somebody says so: as many as this process may have processors.

On Linux that is less than what the machine has where processors are masked (taskset, a container's cpuset), or where a
control group (cgroup), as of a container, has a quota: so many microseconds of processors' time in each period
(cgroups(7); Documentation/admin-guide/cgroup-v2.rst and Documentation/scheduler/sched-bwc.rst of the kernel).
"""

from __future__ import annotations

import os
import sys

from cylstm.checks import positive_int

__all__ = ["default_threads", "processors"]

# By the type of file system through which a group is seen: the files that hold its quota and its period.
FILES = {"cgroup2": ("cpu.max",), "cgroup": ("cpu.cfs_quota_us", "cpu.cfs_period_us")}


def default_threads() -> int:
    """CYLSTM_NUM_THREADS, OMP_NUM_THREADS, or as many as there are processors. Raises ValueError for the first."""
    named = os.environ.get("CYLSTM_NUM_THREADS")
    if named:
        try:
            number = int(named)
        except ValueError:
            raise ValueError(f"CYLSTM_NUM_THREADS: expected an integer, got {named!r}") from None
        return positive_int("CYLSTM_NUM_THREADS", number)
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": of nested teams
    if first.isdecimal() and len(first) < 9 and int(first) > 0:  # what else it may be is for others to say
        return int(first)
    return processors()


def processors(root: str = "") -> int:
    """The number of processors that this process may use: of its affinity mask or, where that is less, as many whole
    ones as its quotas are worth, but 1 at least. Part of one is not counted: a team that has used up its quota stands
    still until the next period begins, and its members meet at every step. root : where /proc and /sys are."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count == 1 or sys.platform != "linux":
        return count
    return max(1, min([count, *quotas(root)]))


def quotas(root):
    """What each quota on this process is worth in whole processors: its group's, and those of all groups around it that
    are to be seen. What cannot be read, or is not as expected, says nothing."""
    groups = {}
    for line in text(f"{root}/proc/self/cgroup").split("\n"):  # "0::/a/b" of version 2, "4:cpu,cpuacct:/a" of version 1
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            groups["cgroup2"] = group
        elif "cpu" in controllers.split(","):
            groups["cgroup"] = group
    for line in text(f"{root}/proc/self/mountinfo").split("\n"):
        if " - cgroup" not in line:  # a host of many containers has thousands of others
            continue
        place, _, system = line.partition(" - ")  # "36 35 0:28 TOP MOUNTED rw,nosuid - cgroup SOURCE rw,cpu,cpuacct"
        place, system = place.split(" "), system.split(" ")
        group = groups.get(system[0])
        if group is None or len(place) < 5 or (system[0] == "cgroup" and "cpu" not in system[-1].split(",")):
            continue
        top, mounted = map(unescaped, place[3:5])  # the group TOP is seen as the folder MOUNTED
        top, group = top.rstrip("/"), group.rstrip("/")
        if not f"{group}/".startswith(f"{top}/") or ".." in group.split("/"):  # ours is not below it
            continue
        folder = root + mounted
        yield from quota_of(folder, FILES[system[0]])
        for name in group[len(top) :].split("/")[1:]:
            folder = f"{folder}/{name}"
            yield from quota_of(folder, FILES[system[0]])


def quota_of(folder, names):
    """Of "150000 100000", in one file or two, 1; of "max 100000", of "-1" and of what is missing, nothing."""
    try:
        quota, period = map(int, " ".join(text(f"{folder}/{name}") for name in names).split())
    except ValueError:
        return
    if quota > 0 and period > 0:
        yield quota // period


def text(path) -> str:
    """What a file holds; of one that cannot be read, nothing."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read())
    except (OSError, ValueError):
        return ""


def unescaped(path) -> str:
    """As mountinfo writes a path, in which fields are parted by spaces."""
    for octal, letter in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        path = path.replace(octal, letter)
    return path
