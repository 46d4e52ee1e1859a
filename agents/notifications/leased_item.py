"""A leased item of the queue, whose deliveries change one step at a time.

Input: steps of `notifications.states`. Output: writes to MongoDB, each conditional on the revision that was read. If a
receipt, a command or another worker changed the item first, the step is repeated on the new state or refused, so no
change is overwritten.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial

from delivery.retry import Retrier
from notifications.item import Item
from notifications.states import Delivery
from runtime.metrics import DELIVERIES, SENT_AFTER_SECONDS
from sinks.mongo.notification_queue import Claim, NotificationQueue

Planner = Callable[[Item], Sequence[Delivery]]


class LeaseLost(Exception):  # noqa: N818  # what happened, not a fault
    """The lease has expired or is about to; another worker continues with the item."""


class LeasedItem:
    """One item that this worker has leased.

    Attributes:
        claim: The claim that the lease began with.
        item: The item as it was last read or written.

    Args:
        claim: See above.
        item: See above.
        queue: Where the item is stored.
        now: Returns the current time.
        mongo: Retries while MongoDB is down.
    """

    def __init__(
        self, claim: Claim, item: Item, queue: NotificationQueue, now: Callable[[], datetime], mongo: Retrier
    ) -> None:
        self.claim = claim
        self.item = item
        self._queue = queue
        self._now = now
        self._mongo = mongo
        self._planner: Planner = lambda item: ()
        self._writing = asyncio.Lock()  # deliveries of one item move one after another

    def plan(self, planner: Planner) -> None:
        """Add the deliveries that are missing; they are written with the first delivery that moves.

        Args:
            planner: Returns the missing deliveries of the item; the same ones whenever it is read again.
        """
        self._planner = planner
        self.item = self._planned(self.item)

    async def move(
        self, delivery: Delivery, step: Callable[[Delivery], Delivery], *, error: str | None = None
    ) -> Delivery:
        """Apply a step to the current state of a delivery, durably; return the new state.

        Args:
            delivery: Identifies the delivery by channel and device.
            step: A function of `notifications.states`.
            error: A message to add to the item's list of errors.

        Raises:
            IllegalTransition: The current state does not allow the step.
            LeaseLost: Another worker has the item.
        """
        async with self._writing:
            while True:
                at = self._position(delivery)
                before = self.item.deliveries[at]
                after = step(before)
                if after == before:
                    return after
                moved = (*self.item.deliveries[:at], after, *self.item.deliveries[at + 1 :])
                if await self._write(moved, [error] if error else []):
                    self._count(after)
                    return after
                if self.item.deliveries[at] == after:
                    return after  # it had been written, and only the response was lost

    async def release(self) -> None:
        """Release the item with the status of its deliveries, if the lease still holds."""
        # If it does not, the item may be released already, and only the response was lost.
        with suppress(LeaseLost):
            while not await self._mongo.run(partial(self._queue.release, self.claim, self.item, self._now())):
                await self._read()

    async def _write(self, deliveries: Sequence[Delivery], errors: Sequence[str] = ()) -> bool:
        """Write all deliveries if the item is as it was read; otherwise read it again and return `False`."""
        write = partial(self._queue.change, self.claim, self.item, deliveries, errors, now=self._now())
        written = await self._mongo.run(write)
        if written is None:
            await self._read()
            return False
        self.item = written
        return True

    async def _read(self) -> None:
        leased = await self._mongo.run(partial(self._queue.leased, self.claim))
        if leased is None:
            raise LeaseLost
        self.item = self._planned(leased)

    def _planned(self, item: Item) -> Item:
        return replace(item, deliveries=(*item.deliveries, *self._planner(item)))

    def _position(self, delivery: Delivery) -> int:
        names = [(each.channel, each.device) for each in self.item.deliveries]
        return names.index((delivery.channel, delivery.device))

    def _count(self, delivery: Delivery) -> None:
        if delivery.state in ("sent", "failed", "skipped"):
            DELIVERIES.labels(delivery.channel, delivery.state, delivery.reason or "").inc()
        if delivery.state == "sent":
            seconds = (delivery.since - self.item.created_at).total_seconds()
            SENT_AFTER_SECONDS.labels(delivery.channel, str(self.item.priority)).observe(max(0.0, seconds))
