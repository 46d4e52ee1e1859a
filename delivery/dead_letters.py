"""Where records go that can never be processed, because of what they are.

In come records with the reason; out go copies in the topic's dead-letter topic, byte for byte, durable when `send`
returns. A batch that is read again sends them again, with the same origin in the headers, by which `replay` knows them.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from mode import Service

from delivery.batch import Record
from delivery.retry import until_done
from ops.health import Health
from ops.metrics import DEAD_LETTERS

log = structlog.get_logger(__name__)

SUFFIX = ".dead-letter"
# A record that came compressed may be far larger than Kafka's limit, which is on what is sent.
MAX_RECORD_BYTES = 256 * 2**20


class DeadLetter(NamedTuple):
    """A record that is refused, and why.

    Attributes:
        record: The record as it came.
        reason: The class of the reason: `not-json`, `schema`, `unknown-type`, `refused-by-store`, `too-large`, ...
        message: What the producer's developer has to change; holds no value of a personal field.
    """

    record: Record
    reason: str
    message: str


class DeadLetterLimitExceededError(Exception):
    """Most of what arrives is refused, so the fault is ours or a release's, and the records are better left alone."""


class DeadLetterLimit:
    """Watches the share of refused records among a topic's latest.

    Args:
        share: The highest share that is accepted; 1 accepts all.
        sample: How many of the latest records count. Nothing is concluded from fewer.
    """

    def __init__(self, share: float, sample: int) -> None:
        self._share = share
        self._sample = sample
        self._batches: deque[tuple[int, int]] = deque()  # (records, refused), oldest first
        self._records = 0
        self._refused = 0

    def check(self, records: int, refused: int) -> None:
        """Count a batch before its dead letters are sent.

        Raises:
            DeadLetterLimitExceededError: More than the share of the latest records was refused.
        """
        self._batches.append((records, refused))
        self._records += records
        self._refused += refused
        while self._records - self._batches[0][0] >= self._sample:
            oldest_records, oldest_refused = self._batches.popleft()
            self._records -= oldest_records
            self._refused -= oldest_refused
        if self._records >= self._sample and self._refused > self._share * self._records:
            raise DeadLetterLimitExceededError(
                f"{self._refused} of the latest {self._records} records were refused, more than the limit of "
                f"{self._share:.0%}. Nothing of this batch was committed. The dead-letter topic has the reasons; "
                "where the records really are invalid, raise INKSTREAM_DEAD_LETTER_LIMIT for one run."
            )


class DeadLetters(Service):
    """Sends dead letters; owns the producer.

    Args:
        client_options: How to reach Kafka.
        release: The version of this program, for the header `dl_release`.
        share: Limit on the share of refused records, per topic.
        sample: How many of a topic's latest records the limit looks at.
        health: Where to report.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops
    name = "kafka"

    def __init__(
        self,
        *,
        client_options: Mapping[str, Any],
        release: str,
        share: float,
        sample: int,
        health: Health,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._client_options = client_options
        self._release = release
        self._share = share
        self._sample = sample
        self._health = health
        self._limits: dict[str, DeadLetterLimit] = {}
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()  # many letters may come at once, from several agents

    def is_transient(self, error: BaseException) -> bool:
        """Whether Kafka may take the same dead letter later."""
        return isinstance(error, KafkaConnectionError | KafkaTimeoutError) or (
            isinstance(error, KafkaError) and bool(error.retriable)
        )

    async def send(self, topic: str, records: int, letters: Sequence[DeadLetter]) -> None:
        """Make the dead letters of one batch of so many records durable.

        Raises:
            DeadLetterLimitExceededError: Most of the topic's latest records were refused; nothing was sent.
        """
        limit = self._limits.get(topic)
        if limit is None:
            limit = self._limits[topic] = DeadLetterLimit(self._share, self._sample)
        limit.check(records, len(letters))
        await asyncio.gather(*(until_done(partial(self._send_one, letter), self, self._health) for letter in letters))
        for letter in letters:
            DEAD_LETTERS.labels(topic, letter.reason).inc()
            log.warning(
                "dead letter",
                topic=topic,
                partition=letter.record.partition,
                offset=letter.record.offset,
                reason=letter.reason,
                message=letter.message,
            )

    async def _send_one(self, letter: DeadLetter) -> None:
        record = letter.record
        headers = {
            "dl_topic": record.topic,
            "dl_partition": record.partition,
            "dl_offset": record.offset,
            "dl_reason": letter.reason,
            "dl_message": letter.message,
            "dl_time": datetime.now(UTC).isoformat(),
            "dl_timestamp": record.timestamp,
            "dl_release": self._release,
        }
        all_headers = [*record.headers, *((name, str(value).encode()) for name, value in headers.items())]
        producer = await self._connected_producer()
        topic = record.topic + SUFFIX
        # Kafka takes a record with neither key nor value, and so must we; aiokafka sends one only in a ready batch.
        batch = producer.create_batch()
        batch.append(timestamp=None, key=record.key, value=record.value, headers=all_headers)
        partition = record.partition % len(await producer.partitions_for(topic))
        await (await producer.send_batch(batch, topic, partition=partition))

    async def _connected_producer(self) -> AIOKafkaProducer:
        # Made when the first dead letter comes: on most days none does.
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._client_options,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="zstd",
                    max_request_size=MAX_RECORD_BYTES,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def on_stop(self) -> None:
        """Close the producer; every letter was waited for when it was sent."""
        if self._producer is not None:
            await self._producer.stop()
