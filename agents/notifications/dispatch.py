"""Deliver: takes notifications from the queue as they become due, and has each of them sent.

In come claims on items of the queue; out goes each item, once, to whoever sends. What is urgent is claimed first. While
nothing is due the worker sleeps until Redis wakes it, or the clock. On a stop what is under way is finished, for a
bounded time; what is not is taken up by another worker once the lease has run out.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog
from mode import Service

from delivery.retry import until_done
from runtime.health import Health
from runtime.metrics import CLAIMED, DELIVERING
from sinks.mongo.notification_queue import Claim
from sinks.stores import Stores

log = structlog.get_logger(__name__)

T = TypeVar("T")

WAKE_EVERY = timedelta(seconds=1)
"""How often to look for what has become due, however busy the worker is."""

_LINGER_SECONDS = 0.005
"""After the first of a full load has ended: what ends with it is replaced by a single claim."""


class Deliver(Service):
    """Works on the queue.

    Args:
        stores: Among them the queue, and what ends a wait.
        send: Sends what is due of an item; returns when more of it is, `None` where nothing waits.
        health: Where to report that MongoDB is down.
        at_once: How many items are under way at the same time.
        stop_timeout: How long a stop waits for them.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(
        self,
        stores: Stores,
        send: Callable[[Claim], Awaitable[datetime | None]],
        health: Health,
        *,
        at_once: int,
        stop_timeout: timedelta,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._queue = stores.queue
        self._clock = stores.clock
        self._wake_ups = stores.wake_ups
        self._mongo = stores.mongo
        self._send = send
        self._health = health
        self._at_once = at_once
        self._stop_timeout = stop_timeout
        self._under_way: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._has_ended = asyncio.Event()
        self._has_ended.set()  # for a stop that comes before it has begun
        self._next_wake = 0.0  # by the monotonic clock

    @Service.task
    async def _work(self) -> None:
        self._has_ended.clear()
        try:
            while not self.should_stop:
                await self._turn()
        finally:
            self._has_ended.set()

    async def _turn(self) -> None:
        """Claim what there is room for; where nothing is ready, wait until something is."""
        if self._failure is not None:
            raise self._failure
        await self._wake()
        room = await self._room()
        # The time is asked for at each try: a lease that ends before it is written would be anybody's.
        claims = await self._in_mongo(lambda: self._queue.claim(room, self._clock.now()))
        CLAIMED.inc(len(claims))
        for claim in claims:
            self._start(claim)
        # Nothing claimed may also mean that others were faster, and that there is more.
        if not claims and not await self._in_mongo(self._queue.is_any_ready):
            await self.wait(self._wake_ups.wait())
            self._next_wake = 0.0  # that is what it woke up for

    async def _wake(self) -> None:
        """Make ready what has become due, now and then."""
        if time.monotonic() >= self._next_wake:
            self._next_wake = time.monotonic() + WAKE_EVERY.total_seconds()
            await self._in_mongo(self._clock.read)
            await self._in_mongo(lambda: self._queue.wake(self._clock.now()))

    async def _room(self) -> int:
        """Return how many items can be taken; wait until there is room for one, and then a little for others."""
        if len(self._under_way) >= self._at_once:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(_LINGER_SECONDS)
        return self._at_once - len(self._under_way)

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._see_to(claim))
        self._under_way.add(task)
        task.add_done_callback(self._end)
        DELIVERING.set(len(self._under_way))

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        DELIVERING.set(len(self._under_way))
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error

    async def _see_to(self, claim: Claim) -> None:
        due = await self._send(claim)
        if due is not None:
            await self._wake_ups.announce([due], self._clock.now())

    async def _in_mongo(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_done(operation, self._mongo, self._health)

    async def on_stop(self) -> None:
        """Claim nothing more, and finish what is under way, for a bounded time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_timeout.total_seconds()):
                await self._has_ended.wait()
                while self._under_way:
                    await asyncio.wait(self._under_way)
        if self._under_way:
            log.warning("notifications abandoned, to be taken up by another worker", items=len(self._under_way))
            for task in self._under_way:
                task.cancel()
