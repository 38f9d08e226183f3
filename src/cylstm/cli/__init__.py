"""The command line: `cylstm train | evaluate | generate | info`."""

from cylstm.cli.commands import main

__all__ = ["main"]
