"""Arguments of the command line: files to write, and numbers from their text."""

from __future__ import annotations

import argparse
import math
import os

from cylstm.checks import positive_int, real_in

__all__ = ["check_folder", "check_target", "real", "whole"]


def check_target(option, path):
    """ValueError unless a file can be written there."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise ValueError(f"{option}: expected a file, got the folder {path!r}")
    if not path or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise ValueError(f"{option}: expected a file in an existing folder that can be written to, got {path!r}")


def check_folder(option, path):
    """ValueError unless files can be written there."""
    if path is not None and not (os.path.isdir(path) and os.access(path, os.W_OK)):
        raise ValueError(f"{option}: expected an existing folder that can be written to, got {path!r}")


def whole(minimum, maximum=None):
    """An integer between minimum and maximum, from its text."""
    expected = f"an integer >= {minimum}" if maximum is None else f"an integer in {minimum}..{maximum}"

    def convert(text):
        try:
            number = positive_int("", int(text), minimum)
        except ValueError:
            number = None
        if number is None or (maximum is not None and number > maximum):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return number

    return convert


def real(low, high=math.inf, **ends):
    """A number between low and high, from its text."""

    def convert(text):
        try:
            return real_in("number", float(text), low, high, **ends)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("number: ")) from None

    return convert
