"""The answers to all questions together: tables, how many times faster than each peer, and one picture."""

import json
import statistics

DRAWN = ("inference", "training", "streaming", "lm")
PEERS = ("torch", "onnxruntime", "openvino", "jax")


def label(row):
    """What a row is about, without its figures."""
    return {name: value for name, value in row.items() if not isinstance(value, dict)}


def read(folder):
    """Question -> what was answered, of those whose answers are rows."""
    answers = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {question: data for question, data in answers.items() if "rows" in data}


def table(rows, left_out=()):
    """Rows of one question as a Markdown table: milliseconds or MB, beside them errors, and the best peer's time over
    ours."""
    kind = "seconds" if "seconds" in rows[0] else "bytes"
    labels = list(dict.fromkeys(name for row in rows for name in label(row)))
    names = list(dict.fromkeys(name for row in rows for name in row[kind] if name not in left_out))
    compared = kind == "seconds" and any(peer in names for peer in PEERS)
    heads = [*labels, *names, *(["best peer / ours"] if compared else [])]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = [str(row.get(name, "")) for name in labels]
        for name in names:
            value = row[kind].get(name)
            value = value["median"] * 1e3 if isinstance(value, dict) else value
            value = value / 1e6 if value is not None and kind == "bytes" else value
            beside = f"{row['errors'][name]:.0e}".replace("e-0", "e-") if name in row.get("errors", {}) else ""
            cells.append("" if value is None else three_digits(value) + (f" ({beside})" if beside else ""))
        if compared:
            best = best_peer(row, left_out)
            cells.append(f"{best[1]:.2f}" if best else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speedups(row):
    """Contender -> its median time over ours."""
    times = {name: t["median"] for name, t in row["seconds"].items()}
    return {name: t / times["cylstm"] for name, t in times.items() if name != "cylstm" and "cylstm" in times}


def best_peer(row, left_out=()):
    """The fastest of the others and its time over ours, or None. NumPy is one; its import is part of ours."""
    others = (*PEERS, *(["numpy"] if row["shape"] != "import" else []))
    ratios = [(ratio, name) for name, ratio in speedups(row).items() if name in others and name not in left_out]
    return min(ratios)[::-1] if ratios else None


def milliseconds(row, name):
    return three_digits(row["seconds"][name]["median"] * 1e3)


def three_digits(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def scaling(answers):
    """Shape -> question -> our time on one thread over that on two."""
    gains = {}
    for question, rows in answers.items():
        times = {(row["shape"], row["threads"]): row["seconds"]["cylstm"]["median"] for row in rows}
        for shape, threads in times:
            if threads == 1 and (shape, 2) in times:
                gains.setdefault(shape, {})[question] = times[shape, 1] / times[shape, 2]
    return gains


def gains(answers):
    """The same as rows, a column for each question that is drawn."""
    gained = scaling({question: answers[question] for question in DRAWN if question in answers})
    return [{"shape": shape, **{q: f"{gain[q]:.2f}" if q in gain else "" for q in DRAWN}} for shape, gain in
            gained.items()]  # fmt: skip


def ragged_costs(rows):
    """Per row: our time over fill x padded, and torch's packed time over ours."""
    for row in rows:
        times = {name: t["median"] for name, t in row["seconds"].items()}
        ours = times["cylstm"]
        yield {**label(row), "ours / (fill x padded)": f"{ours / (row['fill'] * times['cylstm, padded']):.2f}",
               "torch packed / ours": f"{times['torch'] / ours:.1f}"}  # fmt: skip


def precision_gains(rows):
    """Per row: our float32 over fewer bits, and the fastest peer over ours: of those in bfloat16, and of all."""
    for row in rows:
        times = {name: t["median"] for name, t in row["seconds"].items()}
        others = {name: t for name, t in times.items() if name.startswith(PEERS)}
        halves = [t for name, t in others.items() if name.endswith("bfloat16")]
        yield {**label(row), "float32 / bfloat16": f"{times['float32'] / times['bfloat16']:.2f}",
               "float32 / int8": f"{times['float32'] / times['int8']:.2f}",
               "bfloat16 peer / bfloat16": f"{min(halves) / times['bfloat16']:.2f}",
               "any peer / bfloat16": f"{min(others.values()) / times['bfloat16']:.2f}",
               "any peer / int8": f"{min(others.values()) / times['int8']:.2f}"}  # fmt: skip


def lines(rows):
    """Dictionaries of the same names as a Markdown table."""
    heads = list(rows[0])
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}",
                      *(f"| {' | '.join(str(row[head]) for head in heads)} |" for row in rows)])  # fmt: skip


def main(folder):
    """Print every answer in a folder with its ratios, as Markdown, and draw them into speed.png."""
    answers = {question: data["rows"] for question, data in read(folder).items()}
    for question, rows in answers.items():
        print(f"\n{question}\n\n{table(rows)}")
    if "ragged" in answers:
        print(f"\nragged, as ratios\n\n{lines(list(ragged_costs(answers['ragged'])))}")
    shown = gains(answers)
    if shown:
        print(f"\none thread / two threads\n\n{lines(shown)}")
    draw({question: answers[question] for question in DRAWN if question in answers}, folder / "speed.png")


def in_words(answers):
    """What the picture says: how often ours is the fastest, and how far the best of the others is behind."""
    best = [found[1] for rows in answers.values() for row in rows if (found := best_peer(row)) is not None]
    ahead = sum(ratio > 1 for ratio in best)
    return (f"cylstm is the fastest in {ahead} of {len(best)} comparisons; "
            f"the best of the others takes {statistics.median(best):.2f} times as long (median)")  # fmt: skip


def draw(answers, path):
    """A bar per peer and shape, ours = 1: bars above the line are slower than cylstm."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    counts = sorted({row["threads"] for rows in answers.values() for row in rows})
    figure, grid = pyplot.subplots(
        len(answers), len(counts), figsize=(7 * len(counts), 2.6 * len(answers)), squeeze=False, layout="constrained"
    )
    figure.suptitle(in_words(answers), fontsize=13)
    for axes, (question, rows) in zip(grid, answers.items(), strict=True):
        for ax, threads in zip(axes, counts, strict=True):
            drawn = [row for row in rows if row["threads"] == threads]
            for k, row in enumerate(drawn):
                there = [(n, speedups(row)[peer]) for n, peer in enumerate(PEERS) if peer in row["seconds"]]
                for n, (color, height) in enumerate(there):
                    ax.bar(k + 0.2 * (n - (len(there) - 1) / 2), height, 0.18, color=f"C{color}")
            ax.axhline(1, color="black", linewidth=1)
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}×")
            ax.yaxis.set_minor_formatter("{x:g}×" if max(ax.get_ylim()) / min(ax.get_ylim()) < 10 else "")
            ax.set_xticks(range(len(drawn)), [row["shape"] for row in drawn])
            ax.set_title(f"{question}, {threads} thread{'s' if threads > 1 else ''}: time / ours", fontsize=10)
            ax.grid(axis="y", which="both", alpha=0.3)
    grid[0][0].legend(handles=[Patch(color=f"C{n}", label=peer) for n, peer in enumerate(PEERS)], fontsize=8)
    figure.savefig(path, dpi=80)
