"""The platform's own record of what it did to its posts in a run: plain data."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Bookkeeping:
    """What the platform knows of its own changes.

    Attributes:
        changed: By how much the platform changed each post's count itself; 0 for a post that it touched and left alike.
        refusals: How often the platform refused updates.
        unreported: Those of which no worker said anything in time, each in a sentence.
    """

    changed: Counter[str] = field(default_factory=Counter)
    refusals: int = 0
    unreported: list[str] = field(default_factory=list)
