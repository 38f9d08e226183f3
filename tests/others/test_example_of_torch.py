"""The example of a PyTorch program whose LSTM is swapped."""

import re

import pytest

pytest.importorskip("torch")

import made_up


def test_a_swapped_program_learns_the_same(monkeypatch, capsys, tmp_path):
    made_up.run("swap", monkeypatch, tmp_path)
    out = capsys.readouterr().out
    assert float(re.search(r"losses differ by at most (\S+)", out)[1]) < 1e-4
    assert len(re.findall(r"^milliseconds an update, (nn.LSTM|accelerated) \d", out, re.MULTILINE)) == 2
