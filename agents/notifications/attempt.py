"""Attempt: sends one message to a provider, recorded in the queue before and after.

Input: a delivery, its address and a route. Output: the delivery after the attempt.

After a crash: an attempt whose result is not recorded is found as `sending` in the queue, and counts as an attempt.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import structlog

from agents.notifications.delivery_context import DeliveryContext
from agents.notifications.leased_item import LeaseLost
from delivery.retry import Retrier
from notifications.item import Item
from notifications.message_builder import Address, MessageBuilder, new_log
from notifications.messages import Email, Push
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent
from notifications.replies import OURS
from notifications.states import Delivery, begin, settle
from providers.registry import Route
from runtime.metrics import DELIVERY_ATTEMPTS, REPLIES, SEND_SECONDS
from sinks.mongo.delivery_logs import DeliveryLogs
from sinks.mongo.notification_queue import LEASE
from sinks.postgres.suppressions import Suppressions

log = structlog.get_logger(__name__)

TIMEOUT = timedelta(seconds=20)
"""How long a provider may take, whatever the time-outs of its client are."""

_MARGIN = timedelta(seconds=5)
"""Between the latest end of an attempt and the end of the lease."""


class Attempts:
    """Makes attempts.

    Args:
        message_builder: Builds messages.
        delivery_logs: The messages' logs.
        suppressions: Where addresses that do not exist any more are recorded.
        now: Returns the current time.
        chance: Spreads attempts.
        mongo: Retries while MongoDB is down.
        postgres: Retries while PostgreSQL is down.
    """

    def __init__(
        self,
        message_builder: MessageBuilder,
        delivery_logs: DeliveryLogs,
        suppressions: Suppressions,
        now: Callable[[], datetime],
        chance: Random,
        mongo: Retrier,
        postgres: Retrier,
    ) -> None:
        self._message_builder = message_builder
        self._delivery_logs = delivery_logs
        self._suppressions = suppressions
        self._now = now
        self._chance = chance
        self._mongo = mongo
        self._postgres = postgres

    async def make(self, context: DeliveryContext, delivery: Delivery, address: Address, route: Route[Any]) -> Delivery:
        """Make one attempt; return the delivery after it.

        Raises:
            IllegalTransition: A receipt or a command changed the delivery first.
            LeaseLost: Too little time is left, or another worker has the item.
        """
        leased, item = context.leased, context.leased.item
        _require_time(context)
        begun = await leased.move(delivery, lambda it: begin(it, route.name, self._now()))
        _require_time(context)
        given_back_at = delivery.since if delivery.given_back else None
        outcome = await self._send(context, begun, address, route, given_back_at)
        if isinstance(outcome, Refused) and outcome.recipient_is_gone:
            await self._postgres.run(partial(self._suppressions.add, address.channel, address.text, "gone"))
        settled = await leased.move(
            begun,
            lambda it: settle(it, outcome, item.policy(it.channel), self._now(), self._chance),
            error=None if isinstance(outcome, Sent) else f"{route.name}: {outcome.code}: {outcome.message}",
        )
        await self._record(item, settled, outcome)
        return settled

    async def record_end(self, item: Item, delivery: Delivery) -> None:
        """Record the outcome of a delivery that has ended in its log; without an attempt there is no log."""
        if outcome := _final_outcome(delivery):
            await self._record(item, delivery, outcome)

    async def _send(
        self,
        context: DeliveryContext,
        delivery: Delivery,
        address: Address,
        route: Route[Any],
        given_back_at: datetime | None,
    ) -> Outcome:
        """Build the message, create its log, and send it."""
        item = context.leased.item
        key = delivery.key(item.notification_id)
        try:
            message = self._message_builder.build(item, delivery, address, context.notification)
        except Exception as error:  # as in `attempt`: it counts as an attempt, so it is not retried without end
            log.exception("a message was not composed", item=item.id)
            return Failed(type(error).__name__, "the message can't be composed", may_have_arrived=False)
        body = new_log(item, message, route.name, self._now())
        await self._mongo.run(partial(self._delivery_logs.open, delivery.channel, key, body))
        return await attempt(route, message, self._now, given_back_at)

    async def _record(self, item: Item, delivery: Delivery, outcome: Outcome) -> None:
        """Record the outcome of an attempt in the message's log."""
        write = partial(
            self._delivery_logs.settle,
            delivery.channel,
            delivery.key(item.notification_id),
            outcome,
            is_final=delivery.state != "waiting",
            now=delivery.since,
        )
        await self._mongo.run(write)


async def attempt(
    route: Route[Email] | Route[Push],
    message: Email | Push,
    now: Callable[[], datetime],
    given_back_at: datetime | None = None,
) -> Outcome:
    """Send a message to a provider within `TIMEOUT`; return the outcome.

    It never raises: a bug that one message triggers counts as a failed attempt of that message, so it neither stops
    other messages nor is retried without end. The outcome is counted, and reported to the provider's circuit breaker.

    Args:
        route: To the provider.
        message: The message.
        now: Returns the current time.
        given_back_at: When an attempt of this message last did not count, because the provider seemed to refuse us;
            otherwise `None`.
    """
    began = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            outcome = await route.provider.send(message)  # type: ignore[arg-type]  # a route gets what it is for
    except TimeoutError:
        outcome = Failed("timeout", "the provider did not answer in time", may_have_arrived=True)
    except Exception as error:
        log.exception("a message was not sent", provider=route.name, key=message.key)
        outcome = Failed(type(error).__name__, "a fault of our own", may_have_arrived=True, concerns="recipient")
    if route.refusal_guard is not None:
        recipient = message.to if isinstance(message, Email) else message.token
        outcome = route.refusal_guard.judge(outcome, recipient, now(), given_back_at)
    route.breaker.record(outcome, now())
    SEND_SECONDS.labels(route.name).observe(time.monotonic() - began)
    DELIVERY_ATTEMPTS.labels(route.name, type(outcome).__name__.lower()).inc()
    if not isinstance(outcome, Sent):
        REPLIES.labels(route.name, outcome.category).inc()
        known = {"provider": route.name, "category": outcome.category, "code": outcome.code, "problem": outcome.message}
        if isinstance(outcome, Misconfigured):
            log.error("a provider refuses us", **known)
        elif outcome.category in OURS:
            log.warning("a message was refused because of us", **known)
    return outcome


def _require_time(context: DeliveryContext) -> None:
    """Check that an attempt can end before the lease does: later, another worker could have the item.

    Raises:
        LeaseLost: It can't.
    """
    if time.monotonic() - context.began > (LEASE - TIMEOUT - _MARGIN).total_seconds():
        raise LeaseLost


def _final_outcome(delivery: Delivery) -> Outcome | None:
    """Return the outcome of a delivery that has ended, for its log; `None` if it has not, or had no attempt."""
    if delivery.provider is None:
        return None
    match delivery.state:
        case "sent" | "delivered":
            return Sent(delivery.provider_id)
        case "failed":
            return Refused(delivery.code or "", delivery.message or "", recipient_is_gone=False)
        case "skipped":
            return Refused(delivery.reason or "", "not tried again", recipient_is_gone=False)
        case _:
            return None
