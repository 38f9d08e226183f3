"""The examples that need PyTorch or scikit-learn: a program whose LSTM is swapped, and digits side by side."""

import re
import runpy

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


@pytest.mark.parametrize("job, package, name, bounds", [
    ("forecast", "river", "mean absolute error", (0.4, 0.45)),  # "as yesterday" is 0.456
    ("policy", "numpy", "right after", (0.99, 1)),
    ("stream", "numpy", "error to signal", (0, 0.005)),
    ("ocr", "sklearn", "character error rate", (0.02, 0.08)),
    ("export", "statsmodels", "ONNX", (0, 1e-3)),
])  # fmt: skip
def test_an_example_on_its_own_data(monkeypatch, capsys, tmp_path, job, package, name, bounds):
    """What the package brings, as whoever runs the script gets it; vowels and language take more of the index."""
    pytest.importorskip(package)
    monkeypatch.setenv("PICTURES", str(tmp_path))
    names = runpy.run_module(f"examples.{job}", run_name="__main__")
    found = re.search(rf"^{name}\D* ([\d.e-]+)", capsys.readouterr().out, re.MULTILINE)
    assert bounds[0] <= float(found[1]) <= bounds[1]
    made_up.look_at(tmp_path / f"{job}.png", names["picture"])
