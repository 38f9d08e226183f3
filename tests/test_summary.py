"""`model.summary()`: its numbers, counted in another way."""

import re

import pytest

from cylstm import Head, Model, losses


def table(model):
    """Cells by layer."""
    lines = model.summary().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("layer"))
    rows = [re.split(r" {2,}", line) for line in lines[start + 1 : lines.index("", start)]]
    return {row[0]: row[1:] for row in rows}


def test_what_goes_through_the_layers_and_what_it_costs():
    model = Model(65, 256, 65, num_layers=2, embedding_size=16, dropout=0.2, seed=0)
    cells = table(model)
    assert list(cells) == ["embedding", "lstm l0", "lstm l1", "head", "all"]
    assert cells["embedding"] == ["ids (B, T)", "(B, T, 16)", "1,040", "4,160", "0"]
    products = 4 * 256 * (16 + 256)
    assert cells["lstm l0"] == ["(B, T, 16)", "(B, T, 256)", f"{products + 1024:,}", f"{4 * (products + 1024):,}",
                                f"{products:,}"]  # fmt: skip
    assert cells["head"][:2] == ["(B, T, 256)", "(B, T, 65)"] and cells["head"][-1] == f"{65 * 256:,}"
    assert cells["all"] == [f"{model.parameters.size:,}", f"{model.parameters.nbytes:,}",
                            f"{products + 4 * 256 * 512 + 65 * 256:,} per step"]  # fmt: skip
    assert model.summary().startswith("Model: ids (B, T) -> outputs (B, T, 65)\n"
                                      "loss cross_entropy, of targets: classes (B, T)\n"
                                      "float32, one direction, dropout 0.2; state h and c (2, B, 256)\n")  # fmt: skip


def test_both_directions_of_the_last_step():
    model = Model(4, 8, 6, loss=losses.Quantiles([0.1, 0.5, 0.9]), bidirectional=True, output="last", num_layers=2,
                  peepholes=True, cell_clip=3.0, head_bias=False, dtype="float64", seed=0)  # fmt: skip
    cells, text = table(model), model.summary()
    assert cells["lstm l0"] == ["(B, T, 4)", "(B, T, 16)", "880", "7,040", "768"]  # 2 (32 (4 + 8 + 1) + 3 * 8)
    assert cells["lstm l1"][:2] == ["(B, T, 16)", "(B, T, 16)"] and cells["lstm l1"][-1] == f"{2 * 32 * 24:,}"
    assert cells["head"] == ["(B, 16)", "(B, 6)", "96", "768", "96 per row"]
    assert cells["all"][-1] == f"{768 + 2 * 32 * 24:,} per step"
    assert "features (B, T, 4) or ids (B, T) -> outputs (B, 6)" in text and "numbers (B, 2)" in text
    assert "quantiles [0.1, 0.5, 0.9]" in text and "both directions, peepholes, cell_clip 3.0" in text
    assert "ids gather rows of the first layer's weights, which saves 256 of them" in text  # 2 * 32 * 4


@pytest.mark.parametrize(("loss", "targets"), [("ctc", "labels of each row"), ("mse", "numbers (B, T, 5)")])
def test_targets_are_told(loss, targets):
    assert f"of targets: {targets}\n" in Model(3, 4, 5, loss=loss, seed=0).summary()
    assert "classes (B,)\n" in Model(3, 4, 5, output="last", seed=0).summary()


def test_what_stands_around_the_lstm():
    model = Model(4, 5, {"a": Head(3), "b": Head(2, output="last")}, embeddings={1: (7, 2)}, before=[6], after=[8])
    lines = {line.split("  ")[0]: line for line in model.summary().splitlines()}
    shapes = {"embeddings.1": ["column 1 of x", "(B, T, 2)"], "before.0": ["(B, T, 5)", "(B, T, 6)"],
              "lstm l0": ["(B, T, 6)", "(B, T, 5)"], "after.0": ["(B, T, 5)", "(B, T, 8)"],
              "head.a": ["(B, T, 8)", "(B, T, 3)"], "head.b": ["(B, 8)", "(B, 2)", "per row"]}  # fmt: skip
    for name, parts in shapes.items():
        assert all(part in lines[name] for part in parts), lines[name]
    assert "or ids" not in model.summary()
    last = Model(4, 5, 2, output="last", after=[8]).summary()
    assert "per row" in next(line for line in last.splitlines() if line.startswith("after.0"))
