"""Reads dead-letter topics: their records, and what each of them is.

Input: a dead-letter topic. Output: its letters and notes, from the beginning to where it ends when the reading starts.
Nothing is committed.
"""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from delivery.commit import Span

_STALLED_AFTER_SECONDS = 30.0
_POLL_MS = 200
_RECORDS_AT_ONCE = 500


class DeadLetterReader:
    """Reads dead-letter topics.

    Args:
        consumer: Belongs to no group, and commits nothing.
        partitions: How many partitions each topic has.
    """

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Mapping[str, int]) -> None:
        self._consumer = consumer
        self.partitions = partitions

    async def records(self, spans: Mapping[TopicPartition, Span]) -> AsyncIterator[ConsumerRecord[Any, Any]]:
        """Yield the records of the spans, those of a partition in order.

        Raises:
            KafkaError: Kafka does not answer.
        """
        unread = {partition: last for partition, (first, last) in spans.items() if first < last}
        if not unread:
            return
        self._consumer.assign(list(unread))
        for partition in unread:
            self._consumer.seek(partition, spans[partition][0])
        last_progress = time.monotonic()
        while unread:
            fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_AT_ONCE)
            for partition, records in fetched.items():
                for record in records:
                    if record.offset < spans[partition][1]:
                        yield record
            for partition in list(unread):
                # A position, not an offset: the last of a span may be no record but a transaction's marker.
                if await self._consumer.position(partition) >= unread[partition]:
                    del unread[partition]
                    self._consumer.pause(partition)
            if fetched:
                last_progress = time.monotonic()
            elif time.monotonic() - last_progress > _STALLED_AFTER_SECONDS:
                raise KafkaTimeoutError(f"nothing came of {', '.join(sorted({p.topic for p in unread}))}")

    async def spans(self, topic: str) -> dict[TopicPartition, Span]:
        """Return the offsets that each partition of a topic has now.

        Raises:
            UnknownTopicOrPartitionError: There is no such topic.
            KafkaError: Kafka does not answer.
        """
        if topic not in self.partitions:
            raise UnknownTopicOrPartitionError(f"there is no topic {topic}; `inkstream bootstrap` makes it")
        partitions = [TopicPartition(topic, number) for number in range(self.partitions[topic])]
        first = await self._consumer.beginning_offsets(partitions)
        last = await self._consumer.end_offsets(partitions)
        return {partition: (first[partition], last[partition]) for partition in partitions}
