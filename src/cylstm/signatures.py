"""What `help` and `inspect.signature` show of functions that hand **options on."""

from __future__ import annotations

import inspect

__all__ = ["show_options"]


def show_options(source, names=None):
    """A decorator: a function's signature names in place of its **options those that `source` takes by name, with their
    defaults: all that it does not have itself, or some."""

    def decorate(function):
        own = inspect.signature(function)
        kept = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        options = [each for each in inspect.signature(source).parameters.values()
                   if each.kind is each.KEYWORD_ONLY and each.name not in own.parameters
                   and (names is None or each.name in names)]  # fmt: skip
        function.__signature__ = own.replace(parameters=kept + options)
        return function

    return decorate
