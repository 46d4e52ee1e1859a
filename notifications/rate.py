"""The rate of messages to a provider, as a token bucket."""

from typing import NamedTuple


class Rate(NamedTuple):
    """A token bucket.

    Attributes:
        per_second: How many tokens are added in a second.
        burst: The capacity: how many messages may be sent at once after a pause.
    """

    per_second: float
    burst: int
