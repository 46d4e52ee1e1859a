"""How long to wait before the next attempt, and how many attempts there are.

Input: the number of an attempt, a policy and a source of randomness. Output: a duration. There is no state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from types import MappingProxyType
from typing import Literal

UNSAID = timedelta(minutes=1)
"""The wait after throttling if the provider names none: the minimum that FCM requires
(`QUOTA_EXCEEDED` in https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode)."""

MOST_GIVEN_BACK = 100
"""How many attempts of a message may not count, because the provider throttles or seems to refuse us; then each counts.

With the waits in between this takes at least two days; with an outage of a provider, during which few messages are
tried, much longer. Without a limit one message could be retried for ever."""

LONGEST_WAIT = timedelta(days=1)
"""The longest wait that a provider may request, so that a wrong clock there delays nothing for ever."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How the attempts of one channel follow each other.

    Attributes:
        base: The longest wait after the first attempt.
        factor: By how much the longest wait grows with each further attempt; 1 or more.
        cap: What the longest wait never exceeds.
        max_attempts: How many attempts there are in all, the first included. An item of the queue has its own:
            `dataclasses.replace(policy, max_attempts=...)`.

    Raises:
        ValueError: A value is out of range.
    """

    base: timedelta
    factor: float
    cap: timedelta
    max_attempts: int = 5

    def __post_init__(self) -> None:
        """Check the values."""
        if not timedelta(0) < self.base <= self.cap:
            raise ValueError("a policy's base must be greater than 0 and no greater than cap")
        if self.factor < 1:
            raise ValueError("a policy's factor must be at least 1")
        if self.max_attempts < 1:
            raise ValueError("a policy's max_attempts must be at least 1")


POLICIES: Mapping[Literal["email", "push"], RetryPolicy] = MappingProxyType(
    {
        "email": RetryPolicy(base=timedelta(seconds=30), factor=4, cap=timedelta(hours=2)),
        "push": RetryPolicy(base=timedelta(seconds=10), factor=4, cap=timedelta(minutes=30)),
    }
)
"""The policy of each channel that has attempts; `inApp` has none, as storing the notification is all there is to it."""


def growing(times: int, base: timedelta, factor: float, cap: timedelta) -> timedelta:
    """Return `base * factor ** (times - 1)`, and `cap` where that is less; `times` counts from 1."""
    try:
        seconds = base.total_seconds() * factor ** (times - 1)
    except OverflowError:
        return cap
    return timedelta(seconds=min(seconds, cap.total_seconds()))


def backoff(attempt: int, policy: RetryPolicy, chance: Random) -> timedelta:
    """Draw the wait after a failed attempt: between 0 and the longest wait that the policy allows after it.

    This is the full jitter of Marc Brooker's "Exponential Backoff And Jitter", AWS Architecture Blog
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): messages that failed together are
    retried at different times, with the least work for the provider.

    Args:
        attempt: From 1.
        policy: The channel's.
        chance: Where the randomness comes from.
    """
    return growing(attempt, policy.base, policy.factor, policy.cap) * chance.random()


def bounded(wait: timedelta) -> timedelta:
    """Return the wait that a provider requests, limited to between 0 and `LONGEST_WAIT`."""
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


def after_throttling(
    retry_after: timedelta | None, policy: RetryPolicy, chance: Random, given_back: int = 0
) -> timedelta:
    """Draw the wait after throttling: the requested wait plus a backoff.

    It is never shorter than the provider requested, up to `LONGEST_WAIT`. The backoff is up to one `base` the first
    time and then grows, up to the policy's cap: it spreads messages that were throttled together, and keeps a daily
    limit from being hit every minute.

    Args:
        retry_after: The wait that the provider requested; `None` if it named none.
        policy: The channel's.
        chance: Where the randomness comes from.
        given_back: How many attempts of the message did not count before.
    """
    asked = UNSAID if retry_after is None else bounded(retry_after)
    return asked + backoff(given_back + 1, policy, chance)
