"""The command line: `cylstm forecast | classify | train | evaluate | generate | report | convert | info`."""

from cylstm.cli.commands import main

__all__ = ["main"]
