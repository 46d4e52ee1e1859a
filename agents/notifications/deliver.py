"""Deliver: sends one notification to its person, on every channel that is due.

Input: a leased item of the queue. Output: messages to providers, the messages' logs, and the item, released with the
results. Each delivery passes `eligibility`, `routing` and `attempt`. docs/notification-states.md has the states.

After a crash: another worker recovers the item. Each attempt is recorded before the provider gets the message and again
after its response, so the queue lacks only the result of the attempt that was interrupted.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog

from agents.notifications.attempt import Attempts
from agents.notifications.delivery_context import DeliveryContext, devices_of
from agents.notifications.eligibility import Eligibility
from agents.notifications.leased_item import LeasedItem, LeaseLost
from agents.notifications.routing import Router
from delivery.retry import Retrier
from notifications.item import Item, UnreadableItemError
from notifications.states import (
    INTERRUPTED_MESSAGE,
    Delivery,
    IllegalTransition,
    Reason,
    expired,
    is_due,
    next_due,
    postpone,
    recover,
    skip,
)
from providers.registry import Route
from runtime.metrics import LEASES_LOST
from sinks.mongo.notification_queue import Claim, NotificationQueue
from sinks.mongo.notifications import Notifications
from sinks.postgres.recipients import Recipients

log = structlog.get_logger(__name__)

_LONGEST_MISSING = timedelta(days=1)
_SHORTEST_WAIT = timedelta(seconds=1)


class DeliverNotification:
    """Sends one notification.

    Args:
        queue: The queue of notifications.
        notifications: The notifications' documents.
        recipients: People's addresses and preferences.
        eligibility: Decides whether a message may be sent now.
        router: Chooses providers.
        attempts: Sends messages.
        now: Returns the current time.
        mongo: Retries while MongoDB is down.
        postgres: Retries while PostgreSQL is down.
    """

    def __init__(
        self,
        queue: NotificationQueue,
        notifications: Notifications,
        recipients: Recipients,
        eligibility: Eligibility,
        router: Router,
        attempts: Attempts,
        now: Callable[[], datetime],
        mongo: Retrier,
        postgres: Retrier,
    ) -> None:
        self._queue = queue
        self._notifications = notifications
        self._recipients = recipients
        self._eligibility = eligibility
        self._router = router
        self._attempts = attempts
        self._now = now
        self._mongo = mongo
        self._postgres = postgres

    async def __call__(self, claim: Claim) -> datetime | None:
        """Send what is due of an item, and release it; return when more of it is due, `None` if nothing waits."""
        began = time.monotonic()
        try:
            item = Item.from_document(claim.item)
        except UnreadableItemError as error:
            log.error("an item of the queue is unreadable", item=claim.id, problem=str(error))
            problem = f"the item can't be read: {error}"
            await self._mongo.run(partial(self._queue.give_up, claim, problem, self._now()))
            return None
        leased = LeasedItem(claim, item, self._queue, self._now, self._mongo)
        try:
            return await self._process(leased, began)
        except LeaseLost:
            LEASES_LOST.inc()
            log.warning("an item of the queue has gone to another worker", item=claim.id)
            return None

    async def _process(self, leased: LeasedItem, began: float) -> datetime | None:
        item = leased.item
        await self._recover(leased)
        notification = await self._mongo.run(partial(self._notifications.find, item.notification_id))
        if notification is None:
            now = self._now()
            again = _again_without_notification(item, now)
            if again is not None:
                await self._mongo.run(partial(self._queue.put_back, leased.claim, again, now))
                return again
        if notification is None or expired(item.expires_at, self._now()):
            await self._skip_all(leased)
        else:
            person = await self._postgres.run(partial(self._recipients.find, item.user_id))
            now = self._now()
            leased.plan(lambda it: it.plan(devices_of(it, person), now))
            context = DeliveryContext(leased, notification, person, began)
            due = [delivery for delivery in leased.item.deliveries if is_due(delivery, self._now())]
            await _all(self._deliver(context, delivery) for delivery in due)
        await self._mongo.run(partial(self._notifications.mark_sent, leased.item))
        await leased.release()
        return next_due(leased.item.deliveries)

    async def _recover(self, leased: LeasedItem) -> None:
        """Recover what a worker left that lost its lease: attempts without a result, and logs without an end."""
        for delivery in leased.item.deliveries:
            known = delivery
            if delivery.state == "sending":
                with suppress(IllegalTransition):  # a receipt was faster, and knows better
                    known = await leased.move(
                        delivery,
                        lambda it: recover(it, leased.item.policy(it.channel), self._now()),
                        error=INTERRUPTED_MESSAGE,
                    )
            await self._attempts.record_end(leased.item, known)

    async def _skip_all(self, leased: LeasedItem) -> None:
        """Skip every waiting delivery of a notification that has expired or was deleted."""
        now = self._now()
        reason: Reason = "expired" if expired(leased.item.expires_at, now) else "cancelled"
        leased.plan(lambda it: it.plan((), now))
        for delivery in leased.item.deliveries:
            if delivery.state == "waiting":
                with suppress(IllegalTransition):  # a receipt or a command was faster
                    await self._skip(leased, delivery, reason)

    async def _deliver(self, context: DeliveryContext, delivery: Delivery) -> None:
        """Process one delivery until it is no longer due: one attempt, or one with each provider that refuses us."""
        try:
            while is_due(delivery, self._now()):
                delivery = await self._step(context, delivery)
        except IllegalTransition:
            return  # a receipt or a command was faster, and nothing is left to do

    async def _step(self, context: DeliveryContext, delivery: Delivery) -> Delivery:
        """Skip a delivery, postpone it, or attempt it."""
        address = context.address(delivery)
        blocked_by = await self._eligibility.blocked_by(context, delivery, address)
        if blocked_by is None and address is not None:
            route = await self._router.route(address, delivery)
            if isinstance(route, Route):
                return await self._attempts.make(context, delivery, address, route)
            blocked_by = route
        if isinstance(blocked_by, datetime):
            until = blocked_by
            return await context.leased.move(delivery, lambda it: postpone(it, until))
        return await self._skip(context.leased, delivery, blocked_by or "no-address")

    async def _skip(self, leased: LeasedItem, delivery: Delivery, reason: Reason) -> Delivery:
        """Skip a delivery; if it had attempts, its log records that."""
        skipped = await leased.move(delivery, lambda it: skip(it, reason, self._now()))
        await self._attempts.record_end(leased.item, skipped)
        return skipped


def _again_without_notification(item: Item, now: datetime) -> datetime | None:
    """Return when to look again for a notification that is missing; `None` if it will not come any more.

    The item may be stored first; the notification follows at once, or when its worker is running again. The age of the
    event says nothing: the notification of yesterday's event may follow just as well.
    """
    missing = now - (item.missing_since or now)
    if expired(item.expires_at, now) or missing > _LONGEST_MISSING:
        return None
    return now + max(_SHORTEST_WAIT, missing / 8)


async def _all(deliveries: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them to their end; then raise the first error, if any."""
    results = await asyncio.gather(*deliveries, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
