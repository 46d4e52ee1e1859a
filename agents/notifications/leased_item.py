"""Hold: an item of the queue in a worker's hands, whose deliveries move one step at a time.

In come steps; out go writes to MongoDB, each upon what was read. Where a receipt, a command or another worker was
faster, the step is made again upon what is there by then, or refused; so nobody's word is overwritten.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from delivery.retry import until_done
from notifications.item import Item
from notifications.states import Delivery
from runtime.health import Health
from runtime.metrics import DELIVERIES, SENT_AFTER_SECONDS
from sinks.mongo.notification_queue import Claim
from sinks.stores import Stores

T = TypeVar("T")
Plan = Callable[[Item], Sequence[Delivery]]


class LeaseLost(Exception):  # noqa: N818  # what happened, not a fault
    """The item is no longer ours: whoever has it goes on."""


class Hold:
    """One item that is ours for a while.

    Attributes:
        claim: By which it is ours.
        item: As it was read or written last.

    Args:
        claim: See above.
        item: See above.
        stores: Among them the queue, where it is written, and the clock.
        health: Where to report that MongoDB is down.
    """

    def __init__(self, claim: Claim, item: Item, stores: Stores, health: Health) -> None:
        self.claim = claim
        self.item = item
        self._queue = stores.queue
        self._mongo = stores.mongo
        self._now = stores.clock.now
        self._health = health
        self._plan: Plan = lambda item: ()
        self._writing = asyncio.Lock()  # deliveries of one item move one after another

    def plan(self, plan: Plan) -> None:
        """Add the deliveries that are missing; they are written with the first one that moves.

        Args:
            plan: Makes them of the item; the same ones whenever it is read again.
        """
        self._plan = plan
        self.item = self._planned(self.item)

    async def move(
        self, delivery: Delivery, step: Callable[[Delivery], Delivery], *, error: str | None = None
    ) -> Delivery:
        """Move a delivery by a step, durably, upon what it is by then; return what it became.

        Args:
            delivery: Says which one.
            step: A function of `notifications.states`.
            error: What the item's list of errors is to say of it.

        Raises:
            IllegalTransition: What became of the delivery meanwhile allows no such step.
            LeaseLost: The item is no longer ours.
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
                    return after  # it had been written, and only the answer was lost

    async def give_back(self) -> None:
        """Give the item back with the status of its deliveries, if it is still ours."""
        # Where it is not, it may be given back already, and only the answer was lost.
        with suppress(LeaseLost):
            while not await self._done(partial(self._queue.release, self.claim, self.item, self._now())):
                await self._read()

    async def _write(self, deliveries: Sequence[Delivery], errors: Sequence[str] = ()) -> bool:
        """Write all deliveries upon what was read; where that has changed, read again and return `False`."""
        write = partial(self._queue.change, self.claim, self.item, deliveries, errors, now=self._now())
        written = await self._done(write)
        if written is None:
            await self._read()
            return False
        self.item = written
        return True

    async def _read(self) -> None:
        held = await self._done(partial(self._queue.held, self.claim))
        if held is None:
            raise LeaseLost
        self.item = self._planned(held)

    def _planned(self, item: Item) -> Item:
        return replace(item, deliveries=(*item.deliveries, *self._plan(item)))

    async def _done(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_done(operation, self._mongo, self._health)

    def _position(self, delivery: Delivery) -> int:
        names = [(each.channel, each.device) for each in self.item.deliveries]
        return names.index((delivery.channel, delivery.device))

    def _count(self, delivery: Delivery) -> None:
        if delivery.state in ("sent", "failed", "skipped"):
            DELIVERIES.labels(delivery.channel, delivery.state, delivery.reason or "").inc()
        if delivery.state == "sent":
            seconds = (delivery.since - self.item.created_at).total_seconds()
            SENT_AFTER_SECONDS.labels(delivery.channel, str(self.item.priority)).observe(max(0.0, seconds))
