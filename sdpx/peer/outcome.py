"""How a pairing ended by itself. Pure."""

from enum import Enum, auto


class PairOutcome(Enum):
    """Else it was cancelled from outside."""

    FAILED = auto()
    DONE = auto()
