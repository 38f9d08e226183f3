"""The tables of the README and of docs/performance.md are what benchmarks/results says."""

import pytest

from benchmarks import compare, pages


def row(shape, **times):
    return {"shape": shape, "threads": 1, "seconds": {name: {"median": time} for name, time in times.items()}}


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page):
    if not page.exists():
        pytest.skip("only the tests and benchmarks are here")
    text = page.read_text(encoding="utf-8")
    assert pages.MARKED.search(text)
    assert pages.filled(text, pages.blocks()) == text, "python -m benchmarks compare writes them anew"


def test_the_readme_is_a_tour():
    readme = pages.PAGES[0]
    if not readme.exists():
        pytest.skip("only the tests and benchmarks are here")
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 150
    assert len(pages.TOUR) == 10


def test_a_stale_table_is_replaced_and_nothing_else():
    text = "one\n\n<!-- compare: a/b -->\n\n| 1 |\n\n<!-- end -->\n\ntwo\n\n<!-- compare: c -->\n<!-- end -->\nthree\n"
    once = pages.filled(text, {"a/b": "| 2 |", "c": "| 3 |"})
    assert once == text.replace("| 1 |", "| 2 |").replace("c -->\n", "c -->\n\n| 3 |\n\n")
    assert pages.filled(once, {"a/b": "| 2 |", "c": "| 3 |"}) == once
    with pytest.raises(KeyError):
        pages.filled(text, {"c": "| 3 |"})


def test_the_best_peer_is_the_fastest_of_the_others():
    times = {"cylstm": 2.0, "cylstm, padded": 1.0, "torch": 6.0, "jax": 5.0, "numpy": 3.0}
    assert compare.best_peer(row("toy", **times)) == ("numpy", 1.5)
    assert compare.best_peer(row("import", **times)) == ("jax", 2.5)  # NumPy's import is part of ours
    assert compare.best_peer(row("toy", **times), ("numpy", "jax")) == ("torch", 3.0)
    assert compare.best_peer(row("toy", cylstm=2.0)) is None


def test_who_cannot_be_held_to_an_instruction_set_has_no_column():
    table = compare.table([row("toy", cylstm=2e-3, torch=6e-3, jax=1e-3)], ("jax",))
    assert table.splitlines()[0] == "| shape | threads | cylstm | torch | best peer / ours |"
    assert table.splitlines()[2] == "| toy | 1 | 2 | 6 | 3.00 |"


def test_the_picture_of_speed_says_one_thing():
    rows = [
        row("toy", cylstm=2.0, torch=6.0, jax=5.0),
        row("toy", cylstm=2.0, torch=1.0),
        row("toy", cylstm=2.0, jax=7.0),
    ]
    words = "cylstm is the fastest in 2 of 3 comparisons; the best of the others takes 2.50 times as long (median)"
    assert compare.in_words({"one": rows[:1], "two": [*rows[1:], row("toy", cylstm=2.0)]}) == words
