"""Counts windows of page views from the views that MongoDB has; a count is recomputed, never incremented.

Input: marks of windows. Output: absolute counts, for PostgreSQL and for other services. A batch is committed when each
of its windows was counted after the batch was read and the counts are durable in Kafka, or was marked again to be
counted later. After a crash: the windows are counted again, which gives the same counts or newer ones.
"""

import asyncio
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import NAMESPACE_URL, uuid5

from agents.decode import decode
from agents.view_counts.pending_windows import PendingCount, PendingWindows
from agents.view_counts.touch_windows import Touch, TouchWindows
from delivery.batch import RecordBatch
from delivery.dead_letters.writer import DeadLetters
from delivery.event_sender import EventSender, OutgoingEvent, iso
from delivery.producer import RecordProducer
from delivery.retry import Dependency, Retrier
from enrich.view_windows import Window, start_of
from runtime.health import Health
from runtime.metrics import COUNT_SECONDS, VIEWS_NOT_COUNTED, WINDOWS_COUNTED
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.view_counts import WindowTouched
from sinks.mongo.page_view_counts import StoredViews


class CountViews:
    """The agent of marked windows: decode, collect, count, send, commit.

    Args:
        topic: Where the counts go: the topic's name in Kafka.
        touch_windows: Marks deferred windows again.
        decoder: Decodes the marks.
        stored: Counts the views of windows.
        mongo: The server that `stored` reads.
        producer: Sends the counts.
        dead_letters: Takes invalid records.
        health: Where to report that MongoDB is down.
        every: How long windows are collected before they are counted.
        horizon: A window is counted for so long after its end.
        rate: Views a second that counting one window may read on average.
    """

    def __init__(
        self,
        topic: str,
        touch_windows: TouchWindows,
        decoder: Decoder,
        stored: StoredViews,
        mongo: Dependency,
        producer: RecordProducer,
        dead_letters: DeadLetters,
        health: Health,
        *,
        every: timedelta,
        horizon: timedelta,
        rate: int,
    ) -> None:
        self._touch_windows = touch_windows
        self._decoder = decoder
        self._stored = stored
        self._counts = EventSender(topic, "post.views_counted", producer)
        self._dead_letters = dead_letters
        self._retrier = Retrier(mongo, health)
        self._every = every
        self._horizon = horizon
        self._windows = PendingWindows(rate)

    async def __call__(self, batches: AsyncIterable[RecordBatch]) -> None:
        """Handle batches until the channel ends; many of them wait for the same count of a window."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count_due(tasks))
            async for batch in batches:
                tasks.create_task(self._finish(batch))

    async def _finish(self, batch: RecordBatch) -> None:
        """Wait until each window of the batch has been counted, then commit the batch."""
        events, invalid = decode(self._decoder, batch.records)
        await self._dead_letters.send(batch.topic, batch.records, invalid)
        batch.forget_records()
        await asyncio.gather(*self._requested(events))
        await batch.commit()

    def _requested(self, events: Iterable[Envelope[Event]]) -> set["asyncio.Future[None]"]:
        """Request a count of each window that is recent enough; return futures that end with the counts."""
        oldest_end = datetime.now(UTC) - self._horizon
        requested = set()
        for event in events:
            touch = event.data
            assert isinstance(touch, WindowTouched)
            window = Window(touch.post_id, start_of(touch.window_start))
            if window.end < oldest_end:
                # Its views may be deleted soon, and PostgreSQL is about to forget what it had.
                VIEWS_NOT_COUNTED.inc(touch.views)
            else:
                requested.add(self._windows.request(window, touch.oldest_view_at))
        return requested

    async def _count_due(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(self._every.total_seconds())
            due_windows = self._windows.next_due(time.monotonic())
            for window, pending in due_windows.large.items():
                tasks.create_task(self._count({window: pending}))
            if due_windows.deferred:
                await self._defer(due_windows.deferred)
            if due_windows.small:
                await self._count(due_windows.small)

    async def _defer(self, deferred: Mapping[Window, PendingCount]) -> None:
        """Mark the windows again, durably, so that no batch waits until they may be counted."""
        await self._touch_windows.send(
            [Touch(window, views=0, oldest_view_at=pending.oldest_view_at) for window, pending in deferred.items()]
        )
        for pending in deferred.values():
            pending.done.set_result(None)

    async def _count(self, due: Mapping[Window, PendingCount]) -> None:
        """Count the windows, make the counts durable, and end the futures of the batches that wait for them."""
        as_of = datetime.now(UTC)
        with COUNT_SECONDS.time():
            views = await self._retrier.run(partial(self._stored.count, due))
        await self._counts.send(self._event(window, views[window], as_of, pending) for window, pending in due.items())
        WINDOWS_COUNTED.inc(len(due))
        now = time.monotonic()
        for window, pending in due.items():
            self._windows.counted(window, views[window], now)
            pending.done.set_result(None)

    def _event(self, window: Window, views: int, as_of: datetime, pending: PendingCount) -> OutgoingEvent:
        """Return a count, keyed by window, for the partition of its post."""
        window_id = f"{window.post_id}/{iso(window.start)}"
        payload = {
            "windowId": window_id,
            "postId": window.post_id,
            "windowStart": window.start,
            "windowEnd": window.end,
            "views": views,
            "asOf": as_of,
            "oldestViewAt": pending.oldest_view_at,
        }
        # The same count has the same id; as text it could be longer than an id may be.
        event_id = str(uuid5(NAMESPACE_URL, f"{window_id}/{views}"))
        return OutgoingEvent(event_id, window_id, payload, time=as_of, partitioned_by=window.post_id)
