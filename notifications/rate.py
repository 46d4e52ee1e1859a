"""How fast a provider may be asked, as a token bucket."""

from typing import NamedTuple


class Rate(NamedTuple):
    """How fast, at most: a token bucket.

    Attributes:
        per_second: How many tokens come in a second.
        burst: How many there are at most; after a rest so many may go at once.
    """

    per_second: float
    burst: int
