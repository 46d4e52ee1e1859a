"""A batch of records as an agent gets it: read from Kafka, handled, and committed last.

Input: lists of records per partition. Output: one `RecordBatch`. After a crash: a batch that was never committed is
read again by the next owner of its partitions, so a failure at any moment before the commit loses nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from aiokafka import TopicPartition

from delivery.commit import Span


class Record(Protocol):
    """A record of Kafka; `timestamp` is milliseconds since 1970, or -1 if it has none."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class RecordBatch:
    """Records of one topic, in the order of their offsets within each partition.

    Attributes:
        topic: The topic's name in Kafka.
        records: The records, partition after partition.
        spans: The offsets `[first, next)` that were taken from each partition.
    """

    __slots__ = ("_commit", "records", "spans", "topic")

    def __init__(
        self,
        topic: str,
        fetched: Mapping[TopicPartition, Sequence[Record]],
        commit: Callable[["RecordBatch"], Awaitable[None]],
    ) -> None:
        self.topic = topic
        self.records = [record for records in fetched.values() for record in records]
        self.spans: dict[TopicPartition, Span] = {
            partition: (records[0].offset, records[-1].offset + 1) for partition, records in fetched.items()
        }
        self._commit = commit

    def forget_records(self) -> None:
        """Drop the records, to hold the batch for long without them."""
        self.records = []

    async def commit(self) -> None:
        """Declare that every effect of the batch is durable, so that it need not be read again.

        The offsets are committed once all older batches of their partitions are finished too. Where a partition has
        moved to another worker, this does nothing: that worker reads its records again.
        """
        await self._commit(self)
