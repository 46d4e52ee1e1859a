"""Applies the counts of windows to PostgreSQL, and with them the platform's count of each post's views.

Input: absolute counts. Output: one transaction per batch. After a crash: the batch is read again, and the same counts
change nothing.
"""

import time
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from functools import partial

from agents.decode import decode
from delivery.batch import RecordBatch
from delivery.dead_letters.writer import DeadLetters
from delivery.retry import Retrier
from enrich.view_windows import Window, start_of
from runtime.health import Health
from runtime.metrics import COUNTED_AFTER_SECONDS, COUNTS_TOO_LATE, VIEWS_APPLIED, WRITE_SECONDS
from schemas.cloudevents import Decoder
from schemas.view_counts import ViewsCounted
from sinks.postgres.view_counts import ViewCounts
from sinks.postgres.view_windows import Applied, WindowCount


class ApplyCounts:
    """The agent of counts: decode, apply, commit.

    Args:
        decoder: Decodes the counts.
        counts: Where they are stored.
        dead_letters: Takes invalid records.
        health: Where to report that PostgreSQL is down.
        risen: Called with the windows that have more views than before, once they are in PostgreSQL; must not raise.
    """

    def __init__(
        self,
        decoder: Decoder,
        counts: ViewCounts,
        dead_letters: DeadLetters,
        health: Health,
        risen: Callable[[Iterable[WindowCount]], None],
    ) -> None:
        self._decoder = decoder
        self._counts = counts
        self._dead_letters = dead_letters
        self._retrier = Retrier(counts, health)
        self._risen = risen

    async def __call__(self, batches: AsyncIterable[RecordBatch]) -> None:
        """Handle batches until the channel ends; the commit is the last step of each."""
        async for batch in batches:
            events, invalid = decode(self._decoder, batch.records)
            counted = [event.data for event in events if isinstance(event.data, ViewsCounted)]
            counts = [WindowCount(_window(count), count.views, count.as_of) for count in counted]
            with WRITE_SECONDS.labels(batch.topic).time():
                applied = await self._retrier.run(partial(self._counts.apply, counts))
            await self._dead_letters.send(batch.topic, batch.records, invalid)
            await batch.commit()
            self._risen(applied.risen)
            self._measure(batch.topic, counted, applied)

    def _measure(self, topic: str, counted: Sequence[ViewsCounted], applied: Applied) -> None:
        now = time.time()
        risen = {count.window for count in applied.risen}
        COUNTED_AFTER_SECONDS.observe(
            topic,
            [round((now - count.oldest_view_at.timestamp()) * 1000) for count in counted if _window(count) in risen],
        )
        VIEWS_APPLIED.inc(applied.views)
        COUNTS_TOO_LATE.inc(len(applied.too_late))


def _window(count: ViewsCounted) -> Window:
    return Window(count.post_id, start_of(count.window_start))
