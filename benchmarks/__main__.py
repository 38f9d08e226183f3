"""python -m benchmarks layer [--shapes toy char] [--threads 1 2] [--seconds 1] [--out results.json]"""

import argparse
import json

from benchmarks import layer, timer


def table(rows):
    """The rows as a Markdown table: milliseconds, and how many times faster than the best peer."""
    lines = ["| shape | task | peers' threads | cylstm, 1 thread | torch | onnxruntime | oracle | best peer / ours |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        times = {name: 1e3 * t["median"] for name, t in row["seconds"].items()}
        cells = [f"{times[name]:.3g}" if name in times else "" for name in ("cylstm", "torch", "onnxruntime", "oracle")]
        ratio = min(t for name, t in times.items() if name not in ("cylstm", "oracle")) / times["cylstm"]
        lines.append(f"| {row['shape']} | {row['task']} | {row['threads']} | {' | '.join(cells)} | {ratio:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=layer.__doc__)
    parser.add_argument("question", choices=["layer"])
    parser.add_argument("--shapes", nargs="+", metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="time per contender")
    parser.add_argument("--rounds", type=int, default=9, help="how often each contender has its turn")
    parser.add_argument("--out", help="JSON file for the figures, with the machine stamped")
    arguments = parser.parse_args()
    rows = layer.run(arguments.shapes, arguments.threads, arguments.seconds, arguments.rounds)
    print(table(rows))
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump({"machine": timer.machine(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
