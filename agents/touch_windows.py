"""Touch windows: says which windows of page views have to be counted again, once their views are stored.

In come the writes of a batch that are durable; out goes a record for each window that they touch, durable before the
batch is committed. After a crash the batch is read again and touches its windows again, which does no harm.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pydantic_core import to_json

from delivery.batch import Record
from delivery.producer import OutgoingRecord, RecordProducer, partition_of
from enrich.documents import Write
from enrich.view_windows import touched


class TouchWindows:
    """Sends `view_window.touched`.

    Args:
        topic: The topic's name in Kafka.
        producer: Takes the records.
    """

    def __init__(self, topic: str, producer: RecordProducer) -> None:
        self._topic = topic
        self._producer = producer

    async def __call__(self, writes: Iterable[Write], records: Sequence[Record]) -> None:
        """Make known which windows the writes touch; `records` are those that the writes come from."""
        windows = touched(writes)
        if not windows:
            return
        partitions = await self._producer.partition_count(self._topic)
        oldest = datetime.fromtimestamp(max(0, min(record.timestamp for record in records)) / 1000, UTC)
        await self._producer.send(
            self._topic,
            [
                OutgoingRecord(
                    partition_of(key, partitions),
                    key,
                    to_json(
                        {
                            "postId": window.post_id,
                            "windowStart": window.start,
                            "views": views,
                            "oldestViewAt": oldest,
                        }
                    ),
                )
                for window, views in windows.items()
                for key in [window.post_id.encode()]
            ],
        )
