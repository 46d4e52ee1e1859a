"""Where records go that can never be processed, because of what they are.

In come records with the reason; out go copies in the topic's dead-letter topic, byte for byte, durable when `send`
returns. A batch that is read again sends them again, with the same origin in the headers, by which `replay` knows them.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from delivery.batch import Record
from delivery.producer import OutgoingRecord, RecordProducer
from runtime.metrics import DEAD_LETTERS

log = structlog.get_logger(__name__)

SUFFIX = ".dead-letter"

CAUSES = ("not-json", "schema", "unknown-type", "refused-by-store", "too-large")
"""The classes of reasons."""


class DeadLetter(NamedTuple):
    """A record that is refused, and why.

    Attributes:
        record: The record as it came.
        reason: The class of the reason, one of `CAUSES`.
        message: What the producer's developer has to change; holds no value of a personal field.
    """

    record: Record
    reason: str
    message: str


class DeadLetterLimitExceededError(Exception):
    """Most of what arrives is refused, so the fault is ours or a release's, and the records are better left alone."""


class DeadLetterLimit:
    """Watches the share of refused records among a topic's latest, one record after the other.

    How the records are cut into batches makes no difference.

    Args:
        share: The highest share that is accepted; 1 accepts all.
        sample: How many of the latest records count. Nothing is concluded from fewer.
    """

    def __init__(self, share: float, sample: int) -> None:
        self._share = share
        self._sample = sample
        self._records = 0
        self._refused: deque[int] = deque()  # the numbers of the refused among the latest, counted from 0

    def check(self, records: int, refused: Iterable[int]) -> None:
        """Count a batch before its dead letters are sent.

        Args:
            records: How many records the batch has.
            refused: The places of the refused ones among them, from 0 up, in order.

        Raises:
            DeadLetterLimitExceededError: More than the share of the latest records was refused.
        """
        start, self._records = self._records, self._records + records
        numbers = {start + place for place in refused}
        # A refused record alone makes the share larger; and there is a first record with which there are enough.
        enough = self._sample - 1
        moments = numbers | {enough} if start <= enough < self._records else numbers
        for number in sorted(moments):
            if number in numbers:
                self._refused.append(number)
            while self._refused and self._refused[0] <= number - self._sample:
                self._refused.popleft()
            if number >= enough and len(self._refused) > self._share * self._sample:
                raise DeadLetterLimitExceededError(
                    f"{len(self._refused)} of the latest {self._sample} records were refused, more than the limit of "
                    f"{self._share:.0%}. Nothing of this batch was committed. The dead-letter topic has the reasons; "
                    "where the records really are invalid, raise INKSTREAM_DEAD_LETTER_LIMIT for one run."
                )


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
        return OutgoingRecord(record.partition % partitions, record.key, record.value, all_headers)
