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
from cylstm.exchange.network import naming
from cylstm.model import Model

__all__ = ["run_convert"]

OURS = "cylstm"  # a model as `Model.save` writes it
ENDING = ".safetensors"


def run_convert(args) -> None:
    """Read IN, write OUT, and say so. Raises OSError, or ValueError by what either of them cannot say."""
    source, target = format_of(args.source, args.read_as, "--from"), format_of(args.target, args.write_as, "--to")
    if os.path.realpath(args.source) == os.path.realpath(args.target):
        raise ValueError(f"IN, OUT: expected different files, got {args.source} twice")
    reading = options_of(args.reading, source, "read", "--reading")
    writing = options_of(args.writing, target, "write", "--writing")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        convert(args, source, target, reading, writing)
    for warning in told:
        print(f"cylstm: {warning.message}", file=sys.stderr)
    print(f"wrote {args.target} ({target}), from {args.source} ({source})")


def convert(args, source, target, reading, writing) -> None:
    if source == OURS:
        model = Model.load(args.source)
        with naming(args.source):
            network = exchange.network_of(model, probabilities=not args.raw)
    else:
        network = exchange.read(args.source, format=source, **reading)
    if target == OURS:
        with naming(args.source):
            model = exchange.model_of(network)
            if not isinstance(model, Model):
                raise ValueError("expected a dense layer behind the LSTM, a model's head, got none")
        model.save(args.target)
    else:
        exchange.write(network, args.target, format=target, **writing)


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
    """{name: value} of NAME=VALUE pairs: numbers, true, false and null as JSON has them, anything else as text."""
    known = {} if format == OURS else inspect.signature(exchange.way(format, way)).parameters
    given_already = 1 if way == "read" else 2  # the path; the network and the path
    known = [name for name, one in known.items() if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    known = known[given_already:]
    found = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or name not in known:
            told = f"NAME=VALUE of {', '.join(known)}" if known else f"nothing for {format}, which has no options"
            raise ValueError(f"{option}: expected {told}, got {pair!r}")
        try:
            found[name] = json.loads(text)
        except (RecursionError, ValueError):
            found[name] = text
    return found
