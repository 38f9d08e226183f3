"""`cylstm convert IN OUT`: models of other systems into ours, ours into theirs, and theirs into each other's."""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from pathlib import Path

from cylstm import exchange
from cylstm.checks import one_of
from cylstm.exchange.network import naming, tell_left_out
from cylstm.model import Model

__all__ = ["run_convert"]

OURS = "cylstm"  # a model as `Model.save` writes it
ENDING = ".safetensors"
KEPT = ("loss", "labels", "vocabulary", "dropout", "log")  # what a model of ours has, too, or `model_of` tells
NUMBERS = ("sample_rate",)  # options
HANDED_ON = {("rtneural", "read"): ("pytorch", "read")}  # of a state dict in lists
# What errors name as the way out: in Python, and in the shell.
IN_SHELL = {
    "states=False": "--writing states=false",
    "clip=True": "--writing clip=true",
    "dtype='float32'": "--writing dtype=float32",
    "cylstm.exchange.load reads weights": "--from pytorch reads weights",
    "Model.load reads": "--from cylstm reads",
    "name that ends in .safetensors, got": "name that ends in .safetensors, with --to pytorch, got",
}


def run_convert(args) -> None:
    """Read IN, write OUT, and say so. Raises OSError, or ValueError by what either of them cannot say."""
    source, target = format_of(args.source, args.read_as, "--from"), format_of(args.target, args.write_as, "--to")
    if os.path.realpath(args.source) == os.path.realpath(args.target):
        raise ValueError(f"IN, OUT: expected different files, got {args.source} twice")
    if args.raw and (source != OURS or target == OURS):
        raise ValueError(f"--raw: expected a model of ours and a file of another system, got {source} and {target}")
    if args.precision is not None and target != OURS:
        raise ValueError(f"--precision: expected a file of ours to be written, got {target}")
    if source != OURS:
        with naming(args.source):
            exchange.way(source, "read")
    reading = options_of(args.reading, source, "read", "--reading")
    writing = options_of(args.writing, target, "write", "--writing")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            convert(args, source, target, reading, writing)
        except (TypeError, ValueError) as error:
            raise ValueError(in_shell(str(error))) from None
    for warning in told:
        print(f"cylstm: {warning.message}", file=sys.stderr)
    print(f"wrote {args.target} ({target}), from {args.source} ({source})")


def convert(args, source, target, reading, writing) -> None:
    if source == OURS:
        model = Model.load(args.source)
        if target == OURS:  # as it is: no network has a table that is tied, or several heads
            model.save(args.target, precision=args.precision)
            return
        with naming(args.source):
            network = exchange.network_of(model, probabilities=not args.raw)
    else:
        network = exchange.read(args.source, format=source, **reading)
    if target == OURS:
        with naming(args.source):
            model = exchange.model_of(network)
            if not isinstance(model, Model):
                way = " (--reading head=PREFIX names one)" if "head" in defaults_of(source, "read") else ""
                raise ValueError(f"expected a dense layer behind the LSTM, a model's head, got none{way}")
        tell_left_out(args.source, "as a model of ours has no place for it", network, KEPT)
        model.save(args.target, precision=args.precision)
    else:
        exchange.write(network, args.target, format=target, **writing)


def in_shell(text) -> str:
    """What an error says of Python, as it is said in the shell."""
    for there, here in IN_SHELL.items():
        text = text.replace(there, here)
    return text


def format_of(path, given, option) -> str:
    """The name of a file's format: as given, or by its ending; ours for .safetensors."""
    if given is not None:
        return one_of(option, given, (OURS, *exchange.FORMATS))
    if Path(path).name.lower().endswith(ENDING):
        return OURS
    try:
        return exchange.format_of(path)
    except ValueError:
        endings = [ENDING, *(ending for several in exchange.FORMATS.values() for ending in several)]
        raise ValueError(f"{path}: expected a name that ends in {', '.join(dict.fromkeys(endings))}, or {option}, "
                         "got neither") from None  # fmt: skip


def options_of(given, format, way, option) -> dict:
    """{name: value} of NAME=VALUE pairs, by `value_of`. Raises ValueError for names that a format does not have."""
    known = {} if format == OURS else defaults_of(format, way)
    found = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or name not in known:
            told = f"NAME=VALUE of {', '.join(known)}" if known else f"nothing for {format}, which has no options"
            raise ValueError(f"{option}: expected {told}, got {pair!r}")
        if name in found:
            raise ValueError(f"{option}: expected one {name}, got {pair!r} beside another")
        found[name] = value_of(f"{option} {name}", name, known[name], text)
    return found


def defaults_of(format, way) -> dict:
    """The options of a format by name, each with its default; first those that it hands on to another's."""
    parameters = inspect.signature(exchange.way(format, way)).parameters
    known = [one for one in parameters.values() if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    own = {one.name: one.default for one in known[1 if way == "read" else 2 :]}  # behind path, or network and path
    other = HANDED_ON.get((format, way))
    return own if other is None else defaults_of(*other) | own


def value_of(place, name, default, text):
    """An option's value: a flag where its default is one, a number of those that are; else null, a list, an object or a
    text in quotes as JSON has them, and any other text as it stands: an output may be called 1."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{place}: expected true or false, got {text!r}")
        return text.lower() == "true"
    try:
        value = json.loads(text)
    except (RecursionError, ValueError):
        return text
    return text if isinstance(value, (bool, int, float)) and name not in NUMBERS else value
