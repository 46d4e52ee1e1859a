"""Writes to dead-letter topics: the letters of a batch, and the notes about letters.

Input: records that can never be processed, with the reason. Output: copies in the topic's dead-letter topic, byte for
byte, durable when `send` returns. After a crash: a batch that is read again sends them again, with the same origin in
the headers, by which readers know them.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from aiokafka import AIOKafkaProducer

from delivery.batch import Record
from delivery.dead_letters.letter import SUFFIX, DeadLetter, headers_of
from delivery.dead_letters.limit import DeadLetterLimit
from delivery.kafka import client_options
from delivery.producer import MAX_RECORD_BYTES, OutgoingRecord, RecordProducer
from runtime.metrics import DEAD_LETTERS
from runtime.settings import Settings

log = structlog.get_logger(__name__)

NOTHING = object()
"""Stands for no value, as aiokafka refuses a record that has neither key nor value."""


class DeadLetters:
    """Sends dead letters.

    Args:
        producer: Takes the copies.
        release: The version of this program, for the header `dl_release`.
        share: Limit on the share of refused records, per topic.
        sample: How many of a topic's latest records the limit looks at.
    """

    def __init__(self, producer: RecordProducer, *, release: str, share: float, sample: int) -> None:
        self._producer = producer
        self._release = release
        self._share = share
        self._sample = sample
        self._limits: dict[str, DeadLetterLimit] = {}

    async def send(self, topic: str, records: Sequence[Record], letters: Sequence[DeadLetter]) -> None:
        """Make the dead letters of one batch of records durable.

        Raises:
            DeadLetterLimitExceededError: Most of the topic's latest records were refused; nothing was sent.
        """
        limit = self._limits.get(topic)
        if limit is None:
            limit = self._limits[topic] = DeadLetterLimit(self._share, self._sample)
        refused = {(letter.record.partition, letter.record.offset) for letter in letters}
        limit.check(
            len(records),
            [at for at, record in enumerate(records) if (record.partition, record.offset) in refused]
            if refused
            else (),
        )
        if not letters:
            return
        partitions = await self._producer.partition_count(topic + SUFFIX)
        await self._producer.send(topic + SUFFIX, [self._copy(letter, partitions) for letter in letters])
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

    def _copy(self, letter: DeadLetter, partitions: int) -> OutgoingRecord:
        record = letter.record
        headers = headers_of(letter, self._release)
        return OutgoingRecord(record.partition % partitions, record.key, record.value, headers)


@asynccontextmanager
async def writer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Open a producer of records and of notes, which have `NOTHING` as their value.

    Raises:
        KafkaError: Kafka does not answer.
    """
    producer = AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        max_request_size=MAX_RECORD_BYTES,
        value_serializer=lambda value: None if value is NOTHING else value,
    )
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()
