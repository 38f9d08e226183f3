"""What the tests of the command line share: a corpus, small options, a process, and how bad input ends."""

import csv
import os
import random
import signal
import subprocess
import sys

from cylstm.cli import main

SENTENCES = "The cat sat on the mat, and the dog ran after it.\nA bird sang; nobody heard it, though it sang well.\n"
TEXT = " ".join(random.Random(7).sample(words := (SENTENCES * 20).split(" "), len(words)))
TINY = ["--hidden", "9", "--embedding", "5", "--epochs", "2", "--streams", "3", "--tbptt", "8", "--sample", "15",
        "--schedule", "constant"]  # fmt: skip


# Windows knows no signals between processes, and its Ctrl-C goes to the whole console: there a byte asks for one.
ASKED = """
import os, signal, sys, threading
from cylstm.cli import main
def listen():
    if os.read(0, 1): signal.raise_signal(signal.SIGINT)
threading.Thread(target=listen, daemon=True).start()
sys.exit(main())
"""
SIGNALS = os.name != "nt"


def start(*arguments):
    """The command in a process of its own, its pipes unbuffered on our side."""
    command = [sys.executable, *(["-m", "cylstm"] if SIGNALS else ["-c", ASKED]), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=None if SIGNALS else pipe, stdout=pipe, stderr=pipe, bufsize=0)


def press_ctrl_c(process):
    """What a user does to a command that start() started."""
    if SIGNALS:
        process.send_signal(signal.SIGINT)
    else:
        process.stdin.write(b"!")


def printed(capsys, *arguments):
    """What a command prints; it must go well, and say nothing on stderr."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0 and err == "", err
    return out


def read(name):
    """The rows of a CSV file, as dicts."""
    with open(name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys, *arguments):
    """The one line that a command with bad input ends with; nothing new may be left in the folder."""
    before = sorted(os.listdir())
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cylstm: error: ") and err.endswith("\n") and err.count("\n") == 1
    assert sorted(os.listdir()) == before
    return err.removeprefix("cylstm: error: ").rstrip("\n")
