"""The examples that need PyTorch or scikit-learn: a program whose LSTM is swapped, and digits side by side."""

import re

import made_up
import numpy as np
import pytest

from examples import loading


def test_a_swapped_program_learns_the_same(monkeypatch, capsys, tmp_path):
    pytest.importorskip("torch")
    made_up.run("swap", monkeypatch, tmp_path)
    out = capsys.readouterr().out
    assert float(re.search(r"losses differ by at most (\S+)", out)[1]) < 1e-4
    assert len(re.findall(r"^milliseconds an update, (nn.LSTM|accelerated) \d", out, re.MULTILINE)) == 2


def test_strips_have_the_digits_that_they_are_said_to_have():
    images, names = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    whole = images.reshape(-1, 8, 8).transpose(0, 2, 1) / 16  # columns first
    (x, y), (x_test, y_test) = loading.digit_strips(20, 5)
    assert len(x) == len(y) == 20 and len(x_test) == len(y_test) == 5
    for strip, row in zip(x + x_test, y + y_test, strict=True):
        assert strip.dtype == "float32" and strip.shape[1] == 10 and strip.min() == 0 and strip.max() == 1
        assert 3 <= len(row) <= 8 and 6 * len(row) < len(strip) < 11 * len(row) + 8
    for strip, row, known in ((x[0], y[0], slice(1347)), (x_test[0], y_test[0], slice(1347, None))):
        # Columns of the first digit, but the two that the next one may overlap, are those of an image of its class.
        places = [strip[at : at + 6, top : top + 8] for at in (1, 2, 3) for top in (0, 1, 2)]
        of_class = whole[known][names[known] == row[0], :6]
        assert min(np.abs(of_class - place).max(axis=(1, 2)).min() for place in places) < 1e-6
