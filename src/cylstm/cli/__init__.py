"""The command line: `cylstm train | evaluate | generate | report | convert | info`."""

from cylstm.cli.commands import main

__all__ = ["main"]
