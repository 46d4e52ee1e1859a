"""Eligibility: decides whether a message may be sent now.

Input: a delivery and its address. Output: the reason to skip it, the time until which to postpone it, or `None` if it
may be sent. The checks run in this order: expiry, preferences, quiet hours, suppression, daily limits.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from agents.notifications.delivery_context import DeliveryContext
from delivery.retry import Retrier
from notifications.item import Item
from notifications.message_builder import Address
from notifications.preferences import DEFAULTS
from notifications.states import Delivery, Reason
from schemas.notifications import Channel
from sinks.postgres.suppressions import Suppressions
from sinks.redis.rate_limits import RateLimits

_DAY = timedelta(days=1)


class Limits(NamedTuple):
    """The daily limits of one person on each channel; urgent and transactional notifications do not count.

    Attributes:
        of_type: Notifications of one type.
        of_all: Notifications of all types.
    """

    of_type: int
    of_all: int


class Eligibility:
    """Decides whether a message may be sent now.

    Args:
        suppressions: The suppressed addresses.
        rate_limits: Counts each person's notifications.
        limits: The daily limits.
        now: Returns the current time.
        postgres: Retries while PostgreSQL is down.
    """

    def __init__(
        self,
        suppressions: Suppressions,
        rate_limits: RateLimits,
        limits: Limits,
        now: Callable[[], datetime],
        postgres: Retrier,
    ) -> None:
        self._suppressions = suppressions
        self._rate_limits = rate_limits
        self._limits = limits
        self._now = now
        self._postgres = postgres

    async def blocked_by(
        self, context: DeliveryContext, delivery: Delivery, address: Address | None
    ) -> Reason | datetime | None:
        """Return the reason to skip a delivery, or until when to postpone it; `None` if it may be sent.

        Without an address only the item and the preferences are checked.
        """
        item = context.leased.item
        preferences = context.person.preferences if context.person else DEFAULTS
        blocked_by = item.blocked_by(delivery, preferences, self._now())
        if blocked_by is not None or address is None:
            return blocked_by
        if await self._is_suppressed(item, address):
            return "suppressed"
        return None if await self._is_within_limits(item, delivery.channel) else "throttled"

    async def _is_suppressed(self, item: Item, address: Address) -> bool:
        reason = await self._postgres.run(partial(self._suppressions.reason, address.channel, address.text))
        # Transactional messages, such as a new password, also go to people who unsubscribed.
        return reason is not None and not (reason == "unsubscribed" and item.transactional)

    async def _is_within_limits(self, item: Item, channel: Channel) -> bool:
        """Count the item against the person's limits; repeated for the same item, the answer is the same."""
        if item.is_urgent or item.transactional:
            return True
        name = f"user:{item.user_id}:{channel}"
        admit = self._rate_limits.admit
        return await admit(f"{name}:{item.type}", self._limits.of_type, _DAY, item.id) and await admit(
            name, self._limits.of_all, _DAY, item.id
        )
