"""Many models of one shape at once: `Models`, and what training them leaves."""

from cylstm.many.history import Histories
from cylstm.many.models import Models

__all__ = ["Histories", "Models"]
