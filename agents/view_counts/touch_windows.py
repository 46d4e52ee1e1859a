"""Touch windows: says which windows of page views have to be counted again, once their views are stored.

In come the writes of a batch that are durable; out goes a record for each window that they touch, durable before the
batch is committed. After a crash the batch is read again and touches its windows again, which does no harm.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic_core import to_json

from delivery.batch import Record
from delivery.producer import OutgoingRecord, RecordProducer, partition_of
from enrich.documents import Write
from enrich.view_windows import Window, touched
from sinks.mongo.outcome import Outcome


class Touch(NamedTuple):
    """A window that is to be counted.

    Attributes:
        window: The window.
        views: How many views were written to it, some of them perhaps again.
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
        self._topic = topic
        self._producer = producer

    async def __call__(self, writes: Iterable[Write], _: Outcome, records: Sequence[Record]) -> None:
        """Make known which windows the writes touch; `records` are those that the writes come from."""
        if windows := touched(writes):
            # A producer may have put any number there: it is kept within the times that there are.
            seconds = min(record.timestamp for record in records) / 1000
            oldest = datetime.fromtimestamp(min(max(0, seconds), time.time()), UTC)
            await self.send([Touch(window, views, oldest) for window, views in windows.items()])

    async def send(self, touches: Sequence[Touch]) -> None:
        """Make known that windows are to be counted."""
        partitions = await self._producer.partition_count(self._topic)
        await self._producer.send(self._topic, [_record(touch, partitions) for touch in touches])


def _record(touch: Touch, partitions: int) -> OutgoingRecord:
    """Return a touch, keyed by post."""
    key = touch.window.post_id.encode()
    payload = {
        "postId": touch.window.post_id,
        "windowStart": touch.window.start,
        "views": touch.views,
        "oldestViewAt": touch.oldest_view_at,
    }
    return OutgoingRecord(partition_of(key, partitions), key, to_json(payload))
