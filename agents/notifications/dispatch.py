"""Dispatch: claims notifications in the queue as they become due, and starts their delivery.

Input: the queue, urgent items first. Output: each item, once, to a delivery. While nothing is due, the worker sleeps
until Redis or the clock wakes it. On a stop, deliveries in progress are finished, for a bounded time.

After a crash: another worker claims the unfinished items when their leases have expired.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog
from mode import Service

from delivery.retry import Retrier
from runtime.metrics import CLAIMED, DELIVERING
from sinks.mongo.clock import MongoClock
from sinks.mongo.notification_queue import Claim, NotificationQueue
from sinks.redis.wakeups import WakeUps

log = structlog.get_logger(__name__)

WAKE_EVERY = timedelta(seconds=1)
"""How often to look for what has become due, however busy the worker is."""

_LINGER_SECONDS = 0.005
"""A pause after a full worker has finished an item: items that finish within it are replaced by a single claim."""


class Dispatcher(Service):
    """Claims due items and starts their delivery.

    Args:
        queue: The queue of notifications.
        clock: The time that all workers share.
        wake_ups: Ends a wait when something is due.
        deliver: Delivers an item; returns when more of it is due, `None` if nothing waits.
        mongo: Retries while MongoDB is down.
        at_once: How many items are in progress at the same time.
        stop_timeout: How long a stop waits for them.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(
        self,
        queue: NotificationQueue,
        clock: MongoClock,
        wake_ups: WakeUps,
        deliver: Callable[[Claim], Awaitable[datetime | None]],
        mongo: Retrier,
        *,
        at_once: int,
        stop_timeout: timedelta,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._queue = queue
        self._clock = clock
        self._wake_ups = wake_ups
        self._deliver = deliver
        self._mongo = mongo
        self._at_once = at_once
        self._stop_timeout = stop_timeout
        self._in_progress: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._has_ended = asyncio.Event()
        self._has_ended.set()  # for a stop before the start
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
        """Claim as many items as there is room for; if nothing is ready, wait until something is."""
        if self._failure is not None:
            raise self._failure
        await self._wake()
        room = await self._room()
        # The clock is read at each try: a lease whose end has passed when it is written would be free for all.
        claims = await self._mongo.run(lambda: self._queue.claim(room, self._clock.now()))
        CLAIMED.inc(len(claims))
        for claim in claims:
            self._start(claim)
        # No claim may also mean that other workers were faster, and that more is ready.
        if not claims and not await self._mongo.run(self._queue.is_any_ready):
            await self.wait(self._wake_ups.wait())
            self._next_wake = 0.0  # wake what is due now

    async def _wake(self) -> None:
        """Make due items ready, at most once in `WAKE_EVERY`."""
        if time.monotonic() >= self._next_wake:
            self._next_wake = time.monotonic() + WAKE_EVERY.total_seconds()
            await self._mongo.run(self._clock.read)
            await self._mongo.run(lambda: self._queue.wake(self._clock.now()))

    async def _room(self) -> int:
        """Return how many items can be claimed; wait until there is room for one, and then briefly for more."""
        if len(self._in_progress) >= self._at_once:
            await asyncio.wait(self._in_progress, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(_LINGER_SECONDS)
        return self._at_once - len(self._in_progress)

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._run(claim))
        self._in_progress.add(task)
        task.add_done_callback(self._end)
        DELIVERING.set(len(self._in_progress))

    def _end(self, task: asyncio.Task[None]) -> None:
        self._in_progress.discard(task)
        DELIVERING.set(len(self._in_progress))
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error

    async def _run(self, claim: Claim) -> None:
        due = await self._deliver(claim)
        if due is not None:
            await self._wake_ups.announce([due], self._clock.now())

    async def on_stop(self) -> None:
        """Claim nothing more, and finish what is in progress, for a bounded time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_timeout.total_seconds()):
                await self._has_ended.wait()
                while self._in_progress:
                    await asyncio.wait(self._in_progress)
        if self._in_progress:
            log.warning("notifications abandoned, another worker will recover them", items=len(self._in_progress))
            for task in self._in_progress:
                task.cancel()
