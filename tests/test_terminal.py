"""What a user sees of a training run: on terminals of 80 and of 40 columns, and in a file."""

import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from commands import SENTENCES

from cylstm import Model
from cylstm.training import progress
from cylstm.training.progress import Progress, folded

RUN = ["train", "corpus.txt", "--hidden", "64", "--epochs", "3", "--tbptt", "16", "--sample", "120",
       "--out", "m.safetensors"]  # fmt: skip
BAR = r"epoch ([123])/3 +(\d+)%\|(.{10,})\| (\d\d:\d\d|\?) left(, loss \d\.\d{4})?(, [\d,]+ tokens/s)?"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text(SENTENCES * 250)


class Screen:
    """A terminal of so many columns: of its codes, those that a bar needs. `states` has what stood on it each time the
    cursor left a row or went back on it."""

    def __init__(self, columns):
        self.columns, self.rows, self.row, self.column = columns, [""], 0, 0
        self.wrapped, self.states = [], []

    def feed(self, text):
        for code in re.findall(r"\x1b\[[0-9]*[A-Za-z]|.", text, re.DOTALL):
            if code in "\r\n":
                self.states.append([row.rstrip() for row in self.rows])
            if code == "\r":
                self.column = 0
            elif code == "\n":
                self.down()
            else:
                assert code.isprintable(), f"{code!r}: a code that this screen does not know"
                if self.column == self.columns:
                    self.wrapped.append(self.rows[self.row])
                    self.down()
                    self.column = 0
                row = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = row[: self.column] + code + row[self.column + 1 :]
                self.column += 1

    def down(self):
        self.row += 1
        self.rows += [""] * (self.row == len(self.rows))

    def lines(self):
        """What stands there, lines that were folded put together again, without samples."""
        text = "\n".join(row.rstrip() for row in self.rows)
        return re.sub(r"(?<=[,;])\n    ", " ", text).rstrip("\n").split("\n")


def on_terminal(columns, *arguments, stdout=None):
    """What arrives at a terminal of `columns` x 24 from a command; its standard output goes there, too, by default."""
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "cylstm", *arguments]
    with subprocess.Popen(command, stdin=slave, stdout=stdout or slave, stderr=slave, env=environment,
                          start_new_session=True) as process:  # fmt: skip
        os.close(slave)
        received = b""
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not block:
                break
            received += block
    os.close(master)
    assert process.returncode == 0, received
    return received.decode()


def parts(lines):
    """The lines of a run without its samples, which are indented."""
    return [line for line in lines if line and not line.startswith("    ")]


@pytest.mark.parametrize("columns", [80, 40])
def test_on_a_terminal_a_bar_says_how_far_the_run_is_and_each_epoch_leaves_a_line(columns):
    screen = Screen(columns)
    screen.feed(on_terminal(columns, *RUN))
    assert not screen.wrapped, "the terminal had to break a line"
    summary, *epochs, test, wrote = parts(screen.lines())
    assert re.fullmatch(r"[\d,]+ tokens, \d+ different; [\d,]+ parameters; 16 streams of [\d,]+ steps", summary)
    assert len(epochs) == 3 and wrote == "wrote m.safetensors, m.json"
    for n, line in enumerate(epochs, 1):
        assert re.fullmatch(rf"epoch {n}/3: loss \d\.\d{{4}}, validation \d\.\d{{4}}, \d+\.\d s", line)
    assert re.fullmatch(r"test: loss .* per token, .*tokens", test)
    bars = []
    for state in screen.states:  # in the middle: below lines that stay there is nothing, or the bar on one row
        *_, last = [row for row in state if row] or [""]
        if "%|" in last:
            bars.append(re.fullmatch(BAR, last))
            assert bars[-1], last
            assert sum("%|" in row for row in state) == 1
    assert bars, "no bar was seen"
    done = [int(bar[2]) for bar in bars]
    assert done == sorted(done) and done[-1] > 67, "the bar is of the whole run"
    assert all((int(bar[1]) - 1) * 33 <= int(bar[2]) <= int(bar[1]) * 34 for bar in bars)
    assert any(bar[5] and bar[6] for bar in bars) == (columns == 80)


def test_on_a_terminal_quiet_is_without_a_bar():
    text = on_terminal(80, *RUN, "--quiet")
    assert "\r" not in text.replace("\r\n", "") and "%|" not in text
    assert len(re.findall(r"^epoch \d/3: training", text, re.M)) == 3


@pytest.mark.parametrize("stderr", ["to the file", "to a terminal"])
def test_a_file_has_a_line_per_epoch_and_nothing_of_a_bar(stderr, tmp_path):
    with open("log.txt", "wb") as log:
        if stderr == "to the file":
            subprocess.run([sys.executable, "-m", "cylstm", *RUN], stdout=log, stderr=log, check=True)
        else:
            assert "%|" in on_terminal(80, *RUN, stdout=log)
    text = (tmp_path / "log.txt").read_bytes().decode().replace(os.linesep, "\n")
    assert "\r" not in text and "\x1b" not in text and "%|" not in text
    lines = parts(text.split("\n"))
    assert [line.split(":")[0] for line in lines[1:-2]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert len(lines) == 6


# --- the bar itself ---------------------------------------------------------------------------------------------------


class Terminal:
    """A stderr that says it is one, of unknown width: 80 columns for tqdm's want of another."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def as_stderr(monkeypatch) -> Terminal:
    """Within a test: pytest puts a stderr of its own in place before each."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    return stderr


def bars(terminal):
    return [line.strip() for line in re.split("[\r\n]", terminal.text) if "%|" in line]


def test_the_time_left_is_that_of_all_epochs(monkeypatch):
    terminal = as_stderr(monkeypatch)
    with Progress(True, 0, 4) as shown:
        shown.begin(0, 10, 0, 0)
        shown.bar.start_t -= 100
        for _ in range(10):
            shown.update(lambda: (70, 0.25))
        shown.end("loss 0.25", 100.0)
        shown.begin(1, 10, 0, 0)
        shown.bar.start_t -= 200  # validation takes its time
        shown.update(lambda: (7, 0.25))
    assert re.search(r"epoch 1/4  25%\|.*\| 05:0\d left, loss 0.2500", bars(terminal)[-2])
    # 1.1 epochs of 4 took 300 s: 791 s for the others
    assert re.search(r"epoch 2/4  28%\|.*\| 13:[01]\d left", bars(terminal)[-1])


def test_a_run_that_goes_on_says_how_far_all_of_it_is(monkeypatch):
    """From the middle of its third epoch, say; the time left is by what has been done since."""
    terminal = as_stderr(monkeypatch)
    with Progress(True, 0, 4) as shown:
        shown.begin(2, 10, 5, 100)
        shown.bar.start_t -= 10
        shown.update(lambda: (120, 0.25))
    assert re.search(r"epoch 3/4  65%\|.*\| 02:[2-4]\d left", bars(terminal)[-1])


def test_batches_of_unknown_number_are_counted_until_an_epoch_has_told(monkeypatch):
    terminal = as_stderr(monkeypatch)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3))

    def batches():
        yield from [(x, x)] * 4

    Model(3, 4, 3, loss="mse", seed=0).fit(batches, epochs=2)
    first, second = ([bar for bar in bars(terminal) if f"epoch {n}/2" in bar] for n in (1, 2))
    assert [re.search(r"(\d+)%.*, (\d) batches", bar).groups() for bar in first] == [("0", str(n)) for n in range(1, 5)]
    assert [re.search(r"(\d+)%", bar)[1] for bar in second] == ["62", "75", "88", "100"]


def test_callbacks_print_on_lines_of_their_own(monkeypatch):
    terminal = as_stderr(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    x = np.random.default_rng(0).standard_normal((8, 5, 3))
    callbacks = [lambda event: event.kind == "epoch" and print("said")]
    Model(3, 4, 3, loss="mse", seed=0).fit(x, x, epochs=2, batch_size=2, callbacks=callbacks)
    screen = Screen(80)
    screen.feed(terminal.text.replace("\n", "\r\n"))
    lines = [line for line in screen.lines() if line]
    assert [line[:9] for line in lines] == ["epoch 1/2", "said", "epoch 2/2", "said"]


def test_an_error_leaves_no_bar_behind(monkeypatch):
    terminal = as_stderr(monkeypatch)
    x = np.random.default_rng(0).standard_normal((8, 5, 3))

    def stop(event):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        Model(3, 4, 3, loss="mse", seed=0).fit(x, x, epochs=2, batch_size=2, callbacks=[stop])
    screen = Screen(80)
    screen.feed(terminal.text.replace("\n", "\r\n"))
    assert not "".join(screen.lines())


def test_what_has_no_room_behind_the_bar_is_left_out():
    shown = Progress(True, 0, 12)
    shown.loss, shown.rate, shown.batches = 1.25, 21191.0, 7
    shown.bar = types.SimpleNamespace(close=lambda: None)
    line = "{desc} {percentage:3.0f}%|{bar}| {remaining} left"
    assert shown.layout(None) == shown.layout(80) == line + ", loss 1.2500, 21,191 tokens/s"
    assert shown.layout(60) == line + ", loss 1.2500" and shown.layout(40) == shown.layout(10) == line


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("epoch 1/3: loss 2.2027, validation 1.7750", 40, "epoch 1/3: loss 2.2027,\n    validation 1.7750"),
        ("epoch 1/3: loss 2.2027, validation 1.7750", 41, "epoch 1/3: loss 2.2027, validation 1.7750"),
        ("epoch 1/3: loss 2.2027, validation 1.7750", None, "epoch 1/3: loss 2.2027, validation 1.7750"),
        ("    the cat sat on a well-known mat", 20, "    the cat sat on a\n    well-known mat"),
        ("a\tb", 9, "a       b"),
        ("a" * 30, 20, "a" * 20 + "\n    " + "a" * 10),
        ("語" * 30, 20, "語" * 30),
        ("a b c", 3, "a b c"),
    ],
)
def test_lines_are_broken_between_words(text, width, expected):
    assert folded(text, width) == expected
