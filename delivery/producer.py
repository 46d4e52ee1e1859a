"""Sends records to Kafka, durable when `send` returns.

Input: records, each with its partition. Output: batches, acknowledged by all replicas. While Kafka is unwell, all of
them are retried, so after a failure some may be there twice.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from mode import Service

from delivery.retry import Retrier
from runtime.health import Health

# A record that was compressed may be far larger than Kafka's limit, which is on what is sent.
MAX_RECORD_BYTES = 256 * 2**20
# Within Kafka's default of 1 MiB for a batch. A larger record goes alone.
MAX_BATCH_BYTES = 512 * 2**10


class OutgoingRecord(NamedTuple):
    """A record to send."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@lru_cache(maxsize=100_000)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's own clients choose for a key, by its murmur2."""
    partition: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return partition


class RecordProducer(Service):
    """Owns the worker's producer, which it creates with the first record.

    Args:
        client_options: How to reach Kafka.
        health: Where to report.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops
    name = "kafka"

    def __init__(self, client_options: Mapping[str, Any], health: Health, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._client_options = client_options
        self._retrier = Retrier(self, health)
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()  # several agents may send at once

    def is_transient(self, error: BaseException) -> bool:
        """Whether Kafka may accept the same records later."""
        return isinstance(error, KafkaConnectionError | KafkaTimeoutError) or (
            isinstance(error, KafkaError) and bool(error.retriable)
        )

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions the topic has, as soon as Kafka answers."""
        return await self._retrier.run(partial(self._partition_count, topic))

    async def send(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        """Make the records durable, however long that takes.

        Raises:
            KafkaError: Kafka will never accept them as they are. Some of them may be stored.
        """
        if records:
            await self._retrier.run(partial(self._send, topic, records))

    async def _partition_count(self, topic: str) -> int:
        return len(await (await self._connected()).partitions_for(topic))

    async def _send(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        if self.should_stop:
            # The batch was abandoned, as its store came back too late. It is not committed, and is read again.
            await asyncio.Event().wait()
        producer = await self._connected()
        # Ready batches cost a tenth of what `producer.send` does, which makes a future for each record; and only they
        # take a record with neither key nor value.
        sent = [
            await producer.send_batch(batch, topic, partition=partition)
            for partition, batches in _batches(producer, records).items()
            for batch in batches
        ]
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if errors:
            # A bug before a transient fault: it would otherwise hide behind retries.
            raise min(errors, key=self.is_transient)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._client_options,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="zstd",
                    max_request_size=MAX_RECORD_BYTES,
                    max_batch_size=MAX_BATCH_BYTES,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def on_stop(self) -> None:
        """Close the producer; every record was waited for when it was sent."""
        if self._producer is not None:
            await self._producer.stop()


def _batches(producer: AIOKafkaProducer, records: Sequence[OutgoingRecord]) -> Mapping[int, list[BatchBuilder]]:
    """Return the records in batches for each partition, in their order."""
    batches: defaultdict[int, list[BatchBuilder]] = defaultdict(list)
    for partition, key, value, headers in records:
        of_partition = batches[partition]
        if not of_partition or not _appended(of_partition[-1], key, value, headers):
            of_partition.append(producer.create_batch())
            _appended(of_partition[-1], key, value, headers)  # the first in a batch may have any size
    return batches


def _appended(
    batch: BatchBuilder, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
) -> bool:
    return batch.append(timestamp=None, key=key, value=value, headers=list(headers)) is not None
