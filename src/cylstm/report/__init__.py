"""A model in one page of HTML: how it was trained, what goes on inside of it, what comes out. `Model.report`."""

from cylstm.report.page import write

__all__ = ["write"]
