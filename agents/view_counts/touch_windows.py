"""Marks the windows of page views that have to be counted, once their views are stored.

Input: the writes of a batch that are durable. Output: an event for each window that they touch, durable before the
batch is committed. After a crash: the batch is read again and marks its windows again, which changes nothing.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from delivery.batch import Record
from delivery.event_sender import EventSender, OutgoingEvent
from delivery.producer import RecordProducer
from enrich.documents import Write
from enrich.view_windows import Window, touched
from sinks.mongo.outcome import Outcome


class Touch(NamedTuple):
    """A window that is to be counted.

    Attributes:
        window: The window.
        views: How many views were written to it; some may have been written before.
        oldest_view_at: When Kafka got the oldest of them.
    """

    window: Window
    views: int
    oldest_view_at: datetime


class TouchWindows:
    """Sends `view_window.touched`.

    Args:
        topic: The topic's name in Kafka.
        producer: Takes the records.
    """

    def __init__(self, topic: str, producer: RecordProducer) -> None:
        self._sender = EventSender(topic, "view_window.touched", producer)

    async def __call__(self, writes: Iterable[Write], _: Outcome, records: Sequence[Record]) -> None:
        """Mark the windows that the writes touch; `records` are those that the writes come from."""
        if windows := touched(writes):
            # A producer may have put any number there: limit it to valid times.
            seconds = min(record.timestamp for record in records) / 1000
            oldest = datetime.fromtimestamp(min(max(0, seconds), time.time()), UTC)
            await self.send([Touch(window, views, oldest) for window, views in windows.items()])

    async def send(self, touches: Sequence[Touch]) -> None:
        """Mark windows, durably."""
        await self._sender.send(map(_event, touches))


def _event(touch: Touch) -> OutgoingEvent:
    """Return a touch, keyed by post."""
    post_id, start = touch.window
    payload = {
        "postId": post_id,
        "windowStart": start,
        "views": touch.views,
        "oldestViewAt": touch.oldest_view_at,
    }
    return OutgoingEvent(None, post_id, payload)
