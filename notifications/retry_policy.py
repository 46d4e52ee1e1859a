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
"""How long a provider that throttles is left alone where it does not say: the least that FCM asks for
(`QUOTA_EXCEEDED` in https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode)."""

MOST_GIVEN_BACK = 100
"""How often a message's attempt is given back, as the provider throttles or seems to refuse us; then each one counts.

With the waits in between that is two days at the least, and with an outage of a provider, during which few messages are
tried at all, much more. Without an end one message could be tried for ever."""

LONGEST_WAIT = timedelta(days=1)
"""No provider's wish is followed for longer, so that a slip of its clock holds nothing up for ever."""


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
        ValueError: Where one of them makes no sense.
    """

    base: timedelta
    factor: float
    cap: timedelta
    max_attempts: int = 5

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not timedelta(0) < self.base <= self.cap:
            raise ValueError("a policy's base is more than nothing, and its cap no less than that")
        if self.factor < 1:
            raise ValueError("a policy's factor is 1 or more")
        if self.max_attempts < 1:
            raise ValueError("a policy allows at least one attempt")


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
    """Draw the wait after the attempt of this number, which failed: from nothing up to what the policy allows by then.

    This is the full jitter of Marc Brooker's "Exponential Backoff And Jitter", AWS Architecture Blog
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): a crowd that failed together comes back
    spread out, with the least work for the provider.

    Args:
        attempt: From 1.
        policy: The channel's.
        chance: Where the randomness comes from.
    """
    return growing(attempt, policy.base, policy.factor, policy.cap) * chance.random()


def bounded(wait: timedelta) -> timedelta:
    """Return a wait that a provider asks for, within reason: no less than nothing, and `LONGEST_WAIT` at most."""
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


def after_throttling(
    retry_after: timedelta | None, policy: RetryPolicy, chance: Random, given_back: int = 0
) -> timedelta:
    """Draw the wait after a provider said that it is too much: as long as it asked for, and a backoff more.

    It is never less than what the provider asked for, up to `LONGEST_WAIT`. The rest is up to one `base` the first
    time and grows from then on, up to the policy's cap: it keeps those that were throttled together from coming back
    together, and a daily limit from being met every minute.

    Args:
        retry_after: What the provider asked for; `None` where it did not say.
        policy: The channel's.
        chance: Where the randomness comes from.
        given_back: How often the message was given back before.
    """
    asked = UNSAID if retry_after is None else bounded(retry_after)
    return asked + backoff(given_back + 1, policy, chance)
