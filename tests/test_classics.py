"""The classic tasks: their generators are as the papers say, their criteria can fail, and one is learnt."""

from pathlib import Path

import numpy as np
import pytest

from cylstm import State
from examples import classics
from examples.classic_tasks import (
    LEGAL,
    SYMBOLS,
    Adding,
    ContinualReber,
    Reber,
    TemporalOrder,
    adding,
    reber_strings,
    temporal_order,
    walk,
)

PAGE = Path(__file__).parent.parent / "docs" / "classics.md"
# Reber's graph by the names of its nodes, as it is drawn in the papers: left, upper and lower ones, right.
GRAPH = {
    "left": {"B": "fork"},
    "fork": {"T": "upper", "P": "lower"},
    "upper": {"S": "upper", "X": "upper right"},
    "lower": {"T": "lower", "V": "lower right"},
    "upper right": {"X": "lower", "S": "right"},
    "lower right": {"P": "upper right", "V": "right"},
    "right": {"E": None},
}


def expected_next(string):
    """What may follow each symbol of a string of the embedded grammar, the last one apart; None where it is none."""
    if string[:1] != "B" or string[1:2] not in ("T", "P"):
        return None
    found, node = ["TP", "B"], "left"
    for symbol in string[2:-2]:
        if node is None or symbol not in GRAPH[node]:
            return None
        node = GRAPH[node][symbol]
        found.append("".join(GRAPH[node]) if node else string[1])
    return [*found, "E"] if node is None and string[-2:] == string[1] + "E" else None


def letters(ids):
    return "".join(SYMBOLS[symbol] for symbol in ids)


@pytest.mark.parametrize("inner", ["BTSSXXTVVE", "BPVVE", "BTXXVPSE", "BTSXSE", "BPTVPXTTVVE"])
def test_strings_of_the_literature_are_legal(inner):
    assert expected_next(f"BP{inner}PE") and expected_next(f"BT{inner}TE") and not expected_next(f"BT{inner}PE")


@pytest.mark.parametrize("inner", ["BTSSPXSE", "BPTVVB", "BTXXVVSE", "BTVE", "BTXS", ""])
def test_and_others_are_not(inner):
    assert not expected_next(f"BP{inner}PE")


def test_strings_are_those_of_the_grammar_and_what_may_follow_is_known():
    symbols, nodes = reber_strings(np.random.default_rng(0), 500)
    assert len(symbols) == len(nodes) == 500
    for row, after in zip(symbols, nodes, strict=True):
        following = [set(letters(np.flatnonzero(LEGAL[node]))) for node in after]
        assert following == [*map(set, expected_next(letters(row))), {"B"}]
    assert min(map(len, symbols)) == 9 and 11 < np.mean([len(row) for row in symbols]) < 13
    pairs = [letters(row[1:4]) for row in symbols]
    assert all(100 < sum(pair == wanted for pair in pairs) < 150 for wanted in ("TBT", "TBP", "PBT", "PBP"))


def test_a_walk_goes_on_where_it_was():
    coins, start = np.random.default_rng(1).integers(0, 2, (3, 90)), np.zeros(3, int)
    symbols, nodes = walk(coins, start)
    first = walk(coins[:, :40], start)
    second = walk(coins[:, 40:], first[1][:, -1])
    np.testing.assert_array_equal(np.hstack([first[0], second[0]]), symbols)
    np.testing.assert_array_equal(np.hstack([first[1], second[1]]), nodes)


@pytest.mark.parametrize("T", [100, 20])
def test_adding_is_as_the_paper_has_it(T):
    x, target, lengths = adding(np.random.default_rng(2), 1500, T)
    assert set(lengths) == set(range(T, T + T // 10 + 1)) and x.shape == (1500, T + T // 10, 2)
    assert -1 <= x[..., 0].min() < -0.99 and 0.99 < x[..., 0].max() <= 1 and abs(x[..., 0].mean()) < 0.02
    seen = set()
    for row, wanted, length in zip(x, target, lengths, strict=True):
        values, marks = row[:length].T
        assert marks[0] == marks[-1] == -1 and set(marks[1:-1]) <= {0, 1}
        at = np.flatnonzero(marks == 1)
        assert len(at) == 2 or (len(at) == 1 and values[0] == 0)
        assert wanted == pytest.approx([0.5 + values[at].sum() / 4])
        assert max(at) < T // 2 and (len(at) == 1 or min(at) < 10)
        seen.update(at)
    assert seen == set(range(1, T // 2))


def test_the_first_and_the_second_mark_are_drawn_alike():
    x, _, _ = adding(np.random.default_rng(3), 20_000)
    shares = (x[..., 1] == 1).mean(axis=0)
    # Of ten, and of the 49 others among the first 50.
    np.testing.assert_allclose(shares[1:10], 0.1 + 0.9 / 49, atol=0.01)
    np.testing.assert_allclose(shares[10:50], 1 / 49, atol=0.006)


def test_temporal_order_is_as_the_paper_has_it():
    ids, target, lengths = temporal_order(np.random.default_rng(4), 1500)
    assert set(lengths) == set(range(100, 111))
    classes, first, second = {"XX": 0, "XY": 1, "YX": 2, "YY": 3}, set(), set()
    for row, wanted, length in zip(ids, target, lengths, strict=True):
        string = "".join("EBabcdXY"[symbol] for symbol in row[:length])
        at = [n for n, symbol in enumerate(string) if symbol in "XY"]
        assert len(at) == 2 and string[0] == "E" and string[-1] == "B"
        assert set(string[1 : at[0]]) | set(string[at[1] + 1 : -1]) <= set("abcd")
        np.testing.assert_array_equal(wanted, np.eye(4)[classes[string[at[0]] + string[at[1]]]])
        first.add(at[0])
        second.add(at[1])
    assert first == set(range(10, 21)) and second == set(range(50, 61))
    np.testing.assert_allclose(target.mean(axis=0), 0.25, atol=0.03)
    np.testing.assert_allclose([(ids == symbol).mean() for symbol in range(2, 6)], 0.24, atol=0.01)


@pytest.mark.parametrize("B", [1, 8])
def test_the_last_2000_sequences_must_be_right(B):
    task, near, far = Adding(np.random.default_rng(0), B), np.full((B, 1), -0.009), np.full((B, 1), 0.041)
    assert task.judge(near, None).shape == (B,)
    while task.seen < 2000 - B:
        task.judge(near, None)
    assert not task.solved(None)
    task.judge(near, None)
    assert task.seen == 2000 and task.solved(None)
    one_wrong = near.copy()
    one_wrong[0] = far[0]
    task.judge(one_wrong, None)
    assert not task.solved(None)
    for _ in range(2000 // B - 1):
        task.judge(near, None)
    assert task.right == 2000 - 1 and not task.solved(None)
    task.judge(near, None)
    assert task.solved(None)


def test_and_their_mean_error_small():
    task = TemporalOrder(np.random.default_rng(0), 4)
    for _ in range(600):
        task.judge(np.full((4, 4), 0.11), None)
    assert task.right == 2400 and not task.solved(None)
    for _ in range(300):
        task.judge(np.full((4, 4), -0.05), None)
    assert task.solved(None)


class Knowing:
    """In a model's place: it knows the grammar, in a state that is carried on, and fails at some step of some row."""

    def __init__(self, fails=None):
        self.fails, self.done = fails, 0

    def __call__(self, ids, state=None, *, lengths=None):
        nodes = np.empty(ids.shape, int)
        node, self.done = (np.zeros(len(ids), int), 0) if state is None else (state, self.done)
        for t in range(ids.shape[1]):
            node = self.after(node, ids[:, t])
            nodes[:, t] = node
        outputs = np.where(LEGAL[nodes] == 1, 3.0, -3.0)
        if self.fails is not None and 0 <= self.fails - self.done < ids.shape[1]:
            outputs[-1, self.fails - self.done] *= -1
        self.done += ids.shape[1]
        return outputs, node

    @staticmethod
    def after(node, ids):
        heads, tails = ([walk(np.full((19, 1), coin), np.arange(19))[n][:, 0] for coin in (0, 1)] for n in (0, 1))
        return np.where(heads[0][node] == ids, tails[0][node], tails[1][node])


def test_every_symbol_of_all_strings_must_be_right():
    task = Reber(np.random.default_rng(5), 8)
    assert len(task.ids) == 512
    task.seen = 256
    assert task.solved(Knowing()) and not task.solved(Knowing(fails=4))
    task.seen = 264
    assert not task.solved(Knowing())  # it is looked at after every 256


def test_strings_to_learn_by_are_of_the_first_half():
    task = Reber(np.random.default_rng(6), 64)
    rows = {letters(row[:length]) for row, length in zip(task.ids[:256], task.lengths[:256], strict=True)}
    for _ in range(4):
        ids, target, how = task.batch()
        counts = task.judge(np.zeros(target.shape), None)
        for row, following, length, counted in zip(ids, target.argmax(axis=-1), how["lengths"], counts, strict=True):
            assert letters(row[:length]) in rows and counted.sum() == length and counted[:length].all()
            np.testing.assert_array_equal(following[: length - 1], row[1:length])
            assert SYMBOLS[following[length - 1]] == "E"
    assert task.seen == 256


def test_a_stream_ends_at_its_first_error():
    task = ContinualReber(np.random.default_rng(7), 3)
    ids, target, how = task.batch()
    assert how["state"] is None and ids.shape == (3, 50) and task.seen == 3
    error, state = np.full(target.shape, 0.48), State(np.ones((1, 3, 8)), np.ones((1, 3, 8)))
    error[1, 20, 3] = error[1, 30, 2] = -0.49
    counts = task.judge(error, state)
    assert counts[[0, 2]].all() and counts[1].tolist() == [True] * 21 + [False] * 29
    assert task.seen == 4 and task.ended
    assert task.state.h[0, :, 0].tolist() == task.state.c[0, :, 0].tolist() == [1, 0, 1]
    before, (ids, target, how) = task.nodes[:, -1], task.batch()
    assert letters(ids[1, :1]) == "B" and how["state"] is state
    assert all(LEGAL[before[row], ids[row, 0]] for row in (0, 2))
    task.judge(np.zeros(target.shape), state)
    assert not task.ended and task.seen == 4 and not task.solved(Knowing())
    task.longest = 150
    task.batch()
    task.judge(np.zeros(target.shape), state)
    assert task.ended and task.seen == 6 and task.age.tolist() == [0, 100, 0]


def test_ten_streams_must_be_without_an_error():
    task = ContinualReber(np.random.default_rng(8), 3)
    task.ended, task.longest = True, 1000
    assert task.solved(Knowing()) and not task.solved(Knowing(fails=999)) and not task.solved(Knowing(fails=0))
    assert task.solved(Knowing(fails=1000))
    task.ended = False
    assert not task.solved(Knowing())


class ShortOrder(TemporalOrder):
    T, last = 20, 400


def test_a_short_order_is_learnt_and_a_net_without_its_input_is_not():
    recipe = classics.Recipe(16, 6, 0.05, 3.0, -2.0)
    sequences, model = classics.train(ShortOrder, recipe, 0, 20_000)
    assert 400 < sequences < 20_000
    task = ShortOrder(np.random.default_rng(9), 1)
    assert task.wrong(model, 500) < 50
    model.parameters["lstm.weight_ih_l0"][...] = 0
    assert task.wrong(model, 500) > 300
    assert classics.train(ShortOrder, recipe, 0, 800)[0] == np.inf


def test_what_is_printed_and_drawn(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(classics, "TASKS", {"order": ShortOrder})
    monkeypatch.setitem(classics.RECIPES, "order", [classics.Recipe(16, 6, 0.05, 3.0, -2.0)])
    classics.main(["order", "--seeds", "1", "--picture", str(tmp_path / "p.svg")])
    printed = capsys.readouterr()
    row = printed.out.splitlines()[2].strip("| ").split(" | ")
    assert row[:5] == ["Temporal order, 4 classes", "4", "31,390", "6", "16"] and row[5] == "1 of 1"
    assert printed.err.startswith("order Recipe(B=16, ") and " of 2560 wrong\n" in printed.err
    assert "<svg" in (tmp_path / "p.svg").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        classics.main(["sorting"])
    assert "expected tasks of order" in capsys.readouterr().err


def test_a_table_says_what_was_not_solved():
    recipe = classics.RECIPES["reber"][0]
    rows = classics.table({("reber", recipe): [5120, np.inf, 2304]}).splitlines()
    assert rows[2].endswith(f"| {recipe.H} | 1 | 2 of 3 | 5,120 | 2,304 to never |")


def test_the_page_has_the_recipes():
    if not PAGE.exists():
        pytest.skip("only the tests and benchmarks are here")
    text = PAGE.read_text(encoding="utf-8")
    found = {(name, recipe): [1.0] for name, recipes in classics.RECIPES.items() for recipe in recipes}
    heading, _, *rows = classics.table(found).splitlines()
    assert heading in text
    for row in rows:
        assert " | ".join(row.split(" | ")[:5]) in text, "python -m examples.classics writes it anew"
    for name, recipe in found:
        B, _, *numbers = recipe
        cells = " | ".join([classics.PAPERS[name].title, str(B), *(f"{number:g}" for number in numbers)])
        assert f"| {cells} |" in text
