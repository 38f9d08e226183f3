"""The options of `forecast` and `classify`, and the files that they write."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from cylstm.cli.arguments import check_target, real, whole

__all__ = ["add_classify_options", "add_forecast_options", "complete_tables"]

FORECAST = """Learn the series of a table and foretell what comes next, as quantiles. The table is a CSV file (UTF-8;
commas, semicolons, tabs or bars; names of columns in the first line) with a series in each column of numbers or, with
--group, one below the other. Empty cells and missing rows are gaps. Writes a model, a picture and a table, and says how
good such forecasts would have been, with naive ones beside them. With --model, a forecaster that was written before
goes on over new rows."""
CLASSIFY = """Learn which label a sequence has, from a table with a sequence in each row (all columns but the label are
its steps, empty cells stand behind its end) or, with --group, the steps of each sequence in rows, one below the other.
The table is a CSV file (UTF-8; commas, semicolons, tabs or bars; names of columns in the first line). Writes a model, a
picture and a table, and says how many of the sequences that were kept for it are found right. With --model, the labels
of new ones."""
ONCE = {"forecast": ("time", "group", "target", "future", "season", "members", "time_format"),
        "classify": ("label", "group", "leave_out", "test_fraction", "hidden", "out")}  # fmt: skip


def add_forecast_options(commands) -> None:
    parser = commands.add_parser("forecast", help="foretell the series of a CSV file", description=FORECAST)
    add_common(parser, "forecast")
    columns = parser.add_argument_group("columns")
    columns.add_argument("--target", metavar="COLUMN", action="append", default=[],
                         help="numbers to foretell; may be said again (default: all columns of numbers)")  # fmt: skip
    columns.add_argument("--time", metavar="COLUMN", help="of dates, or of whole numbers (default: the first of dates, "
                         "or the first column where it counts on)")  # fmt: skip
    columns.add_argument("--time-format", metavar="FORMAT", help="as Python's strptime has it, such as %%d/%%m/%%y")
    columns.add_argument("--group", metavar="COLUMN", help="says which series a row belongs to")
    columns.add_argument("--future", metavar="COLUMN", action="append", default=[],
                         help="numbers that are known ahead: the file has rows of the steps to come, with these and "
                         "an empty target; may be said again")  # fmt: skip
    how = parser.add_argument_group("forecasts")
    how.add_argument("--horizon", type=whole(1), help="steps to foretell (default: 12; with --future, as many as the "
                     "file has rows to come)")  # fmt: skip
    how.add_argument("--season", type=whole(1), help="steps of a season, 1 for none (default: it is found)")
    add_training(how, epochs=200)
    how.add_argument("--members", type=whole(1), help="models whose mean is taken (default: 5)")
    how.add_argument("--no-backtest", action="store_true", help="do not hold earlier forecasts against what came, "
                     "which takes as long again")  # fmt: skip


def add_classify_options(commands) -> None:
    parser = commands.add_parser("classify", help="find the labels of sequences in a CSV file", description=CLASSIFY)
    add_common(parser, "classify")
    columns = parser.add_argument_group("columns")
    columns.add_argument("--label", metavar="COLUMN", help="what a sequence is; needed but with --model")
    columns.add_argument("--group", metavar="COLUMN", help="says which sequence a row belongs to")
    columns.add_argument("--leave-out", metavar="COLUMN", action="append", default=[],
                         help="a column that is no step and no feature; may be said again")  # fmt: skip
    how = parser.add_argument_group("training")
    how.add_argument("--test-fraction", type=real(0, 1, open_low=True, open_high=True),
                     help="of the sequences of each label, kept to test with (default: 0.2)")  # fmt: skip
    how.add_argument("--hidden", type=whole(1, 65536), help="hidden units, in either direction (default: 64)")
    add_training(how, epochs=100)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_common(parser, command) -> None:
    parser.add_argument("csv", metavar="CSV", help="a table")
    parser.add_argument("--decimal", choices=("point", "comma"), help="the sign before decimals (default: as the file "
                        "has it)")  # fmt: skip
    parser.add_argument("--model", metavar="FILE", help=f"that `cylstm {command}` wrote")
    parser.add_argument("--out", metavar="FILE", help="the model; picture and table go beside it (default: the table's "
                        "name, in this folder)")  # fmt: skip


def add_training(group, epochs) -> None:
    group.add_argument("--epochs", type=whole(1), help=f"at most (default: {epochs})")
    group.add_argument("--seed", type=whole(0), help="(default: 0)")


def complete_tables(args):
    """Where the files go, and what does not go together. Raises ValueError."""
    forecast = args.command == "forecast"
    if args.model is not None:
        learns = ("epochs", "seed", *ONCE[args.command])
        for name in learns:
            if getattr(args, name) not in (None, []):
                raise ValueError(f"--{name.replace('_', '-')}: expected none beside --model, which has its own, got "
                                 f"{getattr(args, name)}")  # fmt: skip
    elif not forecast and args.label is None:
        raise ValueError("--label: expected a column of labels, or a --model that has learnt some, got neither")
    usual = Path(args.csv).stem
    if args.model is not None:
        args.out = args.out or args.model
        usual = usual if not forecast else Path(args.out).stem
    args.out = args.out or f"{usual}.safetensors"
    beside = Path(args.out.removesuffix(".safetensors")) if forecast or args.model is None else Path(usual)
    name = "forecast" if forecast else "predictions"
    args.table, args.picture = f"{beside}-{name}.csv", f"{beside}-{name}.png"
    written = [args.out, args.table, args.picture]
    for path in written:
        check_target("--out", path)
    read = [args.csv, *filter(None, [args.model if not forecast else None])]
    if {os.path.realpath(path) for path in written[0 if args.model is None or forecast else 1 :]} & \
            {os.path.realpath(path) for path in read}:  # fmt: skip
        raise ValueError(f"--out: expected files that are not read, got {', '.join(written)}")
    if importlib.util.find_spec("matplotlib") is None:
        args.picture = None
    return args
