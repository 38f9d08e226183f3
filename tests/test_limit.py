"""The benchmarks' own account of what is possible (benchmarks/kernels.py): what is counted, and which share is told."""

import shutil

import pytest

import cylstm
from benchmarks import __main__ as command
from benchmarks import kernels
from benchmarks.shapes import BY_NAME, GRID, SHAPES, Shape

STACK = Shape("stack", I=3, H=5, L=2, B=7, T=11, who="this test")


def test_inference_reads_x_once_and_the_weights_of_every_step():
    reads, writes = kernels.traffic(STACK, "float32", "inference")
    x, R, W = 4 * 7 * 11 * 3, 4 * 4 * 5 * 5, (4 * 4 * 5 * 3, 4 * 4 * 5 * 5)
    assert reads == [(x, x), (11 * R, R), (W[0], W[0]), (11 * R, R), (W[1], W[1])]
    assert writes == [(4 * 7 * 11 * 5, 4 * 7 * 11 * 5)]


def test_fewer_bits_are_fewer_bytes_of_weights_alone():
    for precision, part in (("bfloat16", 2), ("int8", 4)):
        plain, small = (kernels.traffic(STACK, name, "inference") for name in ("float32", precision))
        assert small[1] == plain[1] and small[0][0] == plain[0][0]
        assert small[0][1:] == [(moved // part, held // part) for moved, held in plain[0][1:]]


def test_one_step_reads_both_weights_together():
    step = STACK._replace(L=1, T=1)
    assert kernels.traffic(step, "float32", "inference")[0][1:] == [(4 * 4 * 5 * (3 + 5), 4 * 4 * 5 * (3 + 5))]


def test_training_writes_the_tape_and_reads_it_back():
    reads, writes = kernels.traffic(STACK, "float32", "training")
    x, y, tape = (4 * 7 * 11 * numbers for numbers in (3, 5, 2 * 6 * 5))
    flat = 4 * sum(parameter.size for parameter in cylstm.LSTM(3, 5, 2).parameters.values())
    assert reads[:3] == [(2 * x, x), (y, y), (tape, tape)]
    assert reads[3:] == 2 * kernels.weights_read(STACK, "float32")
    assert writes == [(tape, tape), (x, x), (flat, flat)]


def test_a_level_is_a_number_of_whole_kilobytes_that_can_be_measured():
    assert [kernels.level(n) for n in (1, 16 << 10, (16 << 10) + 1)] == [16 << 10, 16 << 10, 17 << 10]
    assert kernels.level(10**12) == kernels.LARGEST


def row(shape, task="inference", seconds=8.0, **limits):
    limits = {"multiply-adds": 3.0, "activations": 2.0, "bytes": 1.0, **limits}
    return {"shape": shape, "pass": task, "threads": 1, "seconds": {"float32": {"median": seconds}},
            "limits": {"float32": limits}}  # fmt: skip


def test_units_are_shared_by_products_and_activations_and_not_by_bytes():
    assert kernels.shares(row("toy")) == (3 / 8, 5 / 8)
    assert kernels.shares(row("toy", bytes=4.0)) == (4 / 8, 5 / 8)
    assert kernels.shares(row("toy", bytes=7.0)) == (7 / 8, 7 / 8)


class Rates:
    """A machine whose rates are known."""

    isa, peaks, cells = "avx512", {"float32": 1e3, "int8": 4e3}, {0: 50.0, 1: 20.0}
    reading = writing = dict.fromkeys(range(16 << 10, 32 << 10, 1024), 1e6)


def test_training_has_three_times_the_products_and_both_directions_of_the_cell():
    first, both = (kernels.Machine.limits(Rates, STACK, "float32", task) for task in kernels.PASSES)
    products, units = 8 * 5 * (3 + 5 + 5 + 5) * 7 * 11, 7 * 11 * 2 * 5
    assert first["multiply-adds"] == pytest.approx(products / 1e3)
    assert both["multiply-adds"] == pytest.approx(3 * products / 1e3)
    assert first["activations"] == pytest.approx(units / 50)
    assert both["activations"] == pytest.approx(units / 50 + units / 20)
    for task, limits in zip(kernels.PASSES, (first, both), strict=True):
        moved = sum(n for way in kernels.traffic(STACK, "float32", task) for n, _ in way)
        assert limits["bytes"] == pytest.approx(moved / 1e6)
    assert kernels.Machine.limits(Rates, STACK, "int8", "inference")["multiply-adds"] == pytest.approx(products / 4e3)


def test_the_tables_take_the_list_and_the_grid_apart():
    rows = [row("toy"), row("H12B8", seconds=6.0), row("H64B512", "training", seconds=5.0)]
    lines = kernels.table(rows).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| toy | inference | 8000 |") and "| 38 / 62 |" in lines[2]
    head, _, *body = (line.strip("| ").split(" | ") for line in kernels.grid(rows).splitlines())
    cells = {(cells[0], name): cell for cells in body for name, cell in zip(head, cells, strict=False)}
    assert cells["12", "inference, B = 8"] == "50 / 83" and len(body) == 15 and len(head) == 11
    assert kernels.grid(rows).splitlines()[-1].endswith("| 60 / 100 |")


def test_the_grid_is_series_with_other_units_and_rows():
    assert len(GRID) == 75 and not {shape.name for shape in GRID.values()} & {shape.name for shape in SHAPES}
    assert GRID[64, 32][1:6] == BY_NAME["series"][1:6]


def test_shapes_are_chosen_by_patterns_and_only_kernels_has_the_grid():
    assert [shape.name for shape in command.chosen("training", ["step*", "H8B*"])] == ["step32", "step128", "step256"]
    assert [shape.name for shape in command.chosen("kernels", ["toy", "H8B?"])] == ["toy", "H8B1", "H8B8"]
    assert command.chosen("inference", None) == SHAPES and len(command.chosen("kernels", None)) == 13 + 75


def test_parts_of_an_answer_come_together():
    before = [row("series"), row("hydro", seconds=1.0), row("H8B1"), {**row("toy"), "threads": 2}, row("import")]
    found = command.merged(before, [row("hydro", seconds=2.0), row("toy")])
    assert [(r["shape"], r["threads"]) for r in found] == [
        *((name, 1) for name in ("toy", "series", "hydro", "H8B1", "import")),
        ("toy", 2),
    ]
    assert found[2]["seconds"]["float32"]["median"] == 2.0


def test_rows_of_another_machine_are_refused():
    machine = {"processor": "one", "instruction_set": "avx2", "forced": {}, "date": "today"}
    command.same_machine(machine, {**machine, "date": "tomorrow"})
    with pytest.raises(ValueError, match="processor: expected 'one', as before, got 'two'"):
        command.same_machine(machine, {**machine, "processor": "two"})


def test_every_rate_is_measured(tmp_path, isa):
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    machine = kernels.Machine(isa, tmp_path)
    machine.look({16 << 10, 96 << 10}, {32 << 10})
    rates = {**machine.peaks, **machine.reading, **machine.writing, **machine.cells}
    assert set(machine.peaks) == set(machine.precisions) and set(machine.reading) == {16 << 10, 96 << 10}
    assert set(machine.writing) == {32 << 10} and set(machine.cells) == {0, 1}
    assert all(0 < rate < float("inf") for rate in rates.values())
