"""Routing: chooses the provider for a message.

Input: an address. Output: a route to a provider whose circuit breaker and rate admit the message; otherwise the time of
the next try, or the reason why no provider will ever take it.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from notifications.message_builder import Address
from notifications.retry_policy import growing
from notifications.states import Delivery, Reason
from providers.registry import Providers, Route
from sinks.redis.rate_limits import RateLimits

LONGEST_PAUSE = timedelta(seconds=2)
"""How long a message waits in the worker for its provider's rate; for a longer wait it returns to the queue."""

_SHORTEST_WAIT = timedelta(seconds=1)
_LONGEST_BACKOFF = timedelta(hours=1)
_BETTER_BY_ANOTHER = ("policy", "configuration", "throttled")
"""After a reply of these categories another provider is tried first."""


class Router:
    """Chooses the provider for a message.

    Args:
        providers: The configured providers.
        rate_limits: The providers' rates, shared by all workers.
        now: Returns the current time.
        chance: Spreads attempts.
    """

    def __init__(
        self, providers: Providers, rate_limits: RateLimits, now: Callable[[], datetime], chance: Random
    ) -> None:
        self._providers = providers
        self._rate_limits = rate_limits
        self._now = now
        self._chance = chance

    async def route(self, address: Address, delivery: Delivery) -> Route[Any] | datetime | Reason:
        """Return the route for a message, or when to try again, or `no-provider`."""
        routes = self._candidates(address, delivery)
        if not routes:
            return "no-provider"
        for route in routes:
            if route.breaker.admits_at(self._now()) > self._now():
                continue
            later = await self._wait_for_rate(route)
            if later is not None:
                return later
            if route.breaker.admit(self._now()):
                return route
        return self._next_try(routes, delivery)

    def _candidates(self, address: Address, delivery: Delivery) -> Sequence[Route[Any]]:
        """Return the routes that take such a message, the preferred one first."""
        if address.device is not None:
            route = self._providers.push(address.device.platform, address.text)
            return [] if route is None else [route]
        if delivery.category in _BETTER_BY_ANOTHER:
            return sorted(self._providers.email, key=lambda route: route.name == delivery.provider)
        return self._providers.email

    async def _wait_for_rate(self, route: Route[Any]) -> datetime | None:
        """Wait until the provider's rate admits another message; return when to try again if that takes too long."""
        while route.rate is not None:
            wait = await self._rate_limits.take(f"provider:{route.name}", route.rate)
            if not wait:
                break
            if wait > LONGEST_PAUSE:
                return self._now() + wait
            await asyncio.sleep(wait.total_seconds())
        return None

    def _next_try(self, routes: Sequence[Route[Any]], delivery: Delivery) -> datetime:
        """Return when to try again while all circuits are open."""
        # Grows with the time waited, and is random, so that a long outage does not keep the queue busy.
        waited = (self._now() - delivery.since) / 10
        backoff = max(_SHORTEST_WAIT, waited, growing(delivery.given_back, _SHORTEST_WAIT, 2, _LONGEST_BACKOFF))
        opens_at = min(route.breaker.admits_at(self._now()) for route in routes)
        return max(opens_at, self._now() + _SHORTEST_WAIT) + backoff * self._chance.random()
