"""Reads dead-letter topics: which letters there are, why, and which were replayed.

In comes a dead-letter topic, out come its letters without their values. A dead-letter topic is its own history: beside
the letters it holds a note for each that was replayed, so no other store is needed to know which are still waiting.
A record that was replayed and refused again is one letter still, with the reason of the last time.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from delivery.commit import Span
from delivery.kafka import client_options
from ops import kafka_topics
from ops.settings import Settings
from schemas.identity import REPLAY_ATTEMPT, REPLAYED_FROM, ReplaySigner, content

REPLAYED = "dl_replayed"
"""Header of a note: the origin of the letter that was replayed."""

_OURS = frozenset(
    f"dl_{name}" for name in ("topic", "partition", "offset", "reason", "message", "time", "timestamp", "release")
)
"""Headers that a record gets when it becomes a dead letter, after all that it had."""
_STALLED_AFTER_SECONDS = 30.0
_POLL_MS = 200
_RECORDS_AT_ONCE = 500


class Letter(NamedTuple):
    """A dead letter without its value.

    Attributes:
        partition: Where in the dead-letter topic it is.
        offset: Where in that partition.
        origin: Where the record was, `topic:partition:offset`; the same when it was dead-lettered twice.
        reason: The class of the reason.
        message: What its producer has to change.
        time: When it was dead-lettered.
        timestamp: The record's own Kafka timestamp, in milliseconds since 1970; negative where it had none.
        first: Where the record was before it was ever replayed; empty where that is the origin.
        claimed: The same by a header without a valid signature, as anybody can write it; empty where there is none.
        attempts: How often it was replayed before it was refused this time.
        content: A digest of what the record says.
    """

    partition: int
    offset: int
    origin: str
    reason: str
    message: str
    time: datetime
    timestamp: int
    first: str = ""
    claimed: str = ""
    attempts: int = 0
    content: bytes = b""


@dataclass
class Contents:
    """What a dead-letter topic holds.

    Attributes:
        letters: All letters, as they were found.
        replayed: The origins of those that were replayed.
        foreign: How many records are neither letter nor note.
        is_complete: Whether all of it was read in the time given.
    """

    letters: list[Letter] = field(default_factory=list)
    replayed: set[str] = field(default_factory=set)
    foreign: int = 0
    is_complete: bool = True

    def distinct(self) -> list[Letter]:
        """Return the letters, oldest first, each record once, as it was refused the last time.

        A batch that was read again writes its letters again, with the same origin; of these the first counts. A record
        that was replayed and refused again has another origin, and is known by where it was first.
        """
        by_origin: dict[str, Letter] = {}
        for letter in sorted(self.letters, key=_order):
            by_origin.setdefault(letter.origin, letter)
        latest: dict[str, Letter] = {}
        for letter in by_origin.values():
            known = _known(letter, by_origin)
            record = known.first or known.origin
            # By how often it was replayed before by time: two workers' clocks may differ.
            if record not in latest or known.attempts >= latest[record].attempts:
                latest[record] = known
        return sorted(latest.values(), key=_order)

    def waiting(self) -> list[Letter]:
        """Return the letters that were not replayed since they were refused last, oldest first, each record once."""
        return [letter for letter in self.distinct() if letter.origin not in self.replayed]


def _order(letter: Letter) -> tuple[datetime, int, int]:
    return letter.time, letter.partition, letter.offset


def _known(letter: Letter, by_origin: Mapping[str, Letter]) -> Letter:
    """Return the letter with what is known of where it was first.

    Earlier releases signed no replay. What such a record claims is believed where the letter of that place is here
    and says the same: then nothing can be had by it.
    """
    if not letter.claimed:
        return letter
    witness = by_origin.get(letter.claimed)
    if witness is not None and witness.content == letter.content:
        return letter._replace(first=letter.claimed)
    return letter._replace(attempts=0)


class DeadLetterReader:
    """Reads dead-letter topics, from the beginning to where they end when the reading starts.

    Args:
        consumer: Belongs to no group, and commits nothing.
        partitions: How many partitions each topic has.
        signer: Tells where a record was before it was replayed.
    """

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Mapping[str, int], signer: ReplaySigner) -> None:
        self._consumer = consumer
        self.partitions = partitions
        self.signer = signer

    async def contents(self, topic: str, *, seconds: float = float("inf")) -> Contents:
        """Return what a topic holds, or as much of it as could be read in so many seconds.

        Raises:
            UnknownTopicOrPartitionError: There is no such topic.
            KafkaError: Kafka does not answer.
        """
        contents = Contents()
        deadline = time.monotonic() + seconds
        async for record in self.records(await self.spans(topic)):
            # The letter first: its record may have a header by the name of a note's.
            if (letter := letter_of(record, self.signer)) is not None:
                contents.letters.append(letter)
            elif (origin := dict(record.headers).get(REPLAYED)) is not None:
                contents.replayed.add(origin.decode(errors="replace"))
            else:
                contents.foreign += 1
            if time.monotonic() > deadline:
                contents.is_complete = False
                break
        return contents

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


@asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[DeadLetterReader]:
    """Open a reader.

    Raises:
        KafkaError: Kafka does not answer.
    """
    async with kafka_topics.administration(settings) as admin:
        partitions = await kafka_topics.partition_counts(admin)
    consumer = AIOKafkaConsumer(**client_options(settings), auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        await consumer.start()
        yield DeadLetterReader(consumer, partitions, ReplaySigner(settings.ip_hash_key.get_secret_value().encode()))
    finally:
        await consumer.stop()


def _our_headers(record: ConsumerRecord[Any, Any]) -> dict[str, str]:
    """Return what the record's headers say of it as a dead letter."""
    # A header's value may be null, and anybody's name may be the same as one of ours, which come last.
    return {name: (value or b"").decode(errors="replace") for name, value in record.headers if name in _OURS}


def headers_before(record: ConsumerRecord[Any, Any]) -> list[tuple[str, bytes]]:
    """Return the headers that the record had before it became a dead letter."""
    ours = {name: place for place, (name, _) in enumerate(record.headers) if name in _OURS}
    return [header for place, header in enumerate(record.headers) if ours.get(header[0]) != place]


def letter_of(record: ConsumerRecord[Any, Any], signer: ReplaySigner | None = None) -> Letter | None:
    """Return the dead letter in a record; `None` where it is a note, or somebody else put it there."""
    headers = _our_headers(record)
    try:
        letter = Letter(
            partition=record.partition,
            offset=record.offset,
            origin=f"{headers['dl_topic']}:{int(headers['dl_partition'])}:{int(headers['dl_offset'])}",
            reason=headers["dl_reason"],
            message=headers["dl_message"],
            time=datetime.fromisoformat(headers["dl_time"]).astimezone(UTC),
            timestamp=int(headers["dl_timestamp"]),
        )
    except (KeyError, ValueError, OverflowError):  # a moment at the end of time may be in no other zone
        return None
    before = headers_before(record)
    named, said = dict(before), content(record.value, before)
    first = signer.origin(said, named) if signer else None
    return letter._replace(
        first=first or "",
        claimed="" if first else (named.get(REPLAYED_FROM) or b"").decode(errors="replace"),
        attempts=_number(named.get(REPLAY_ATTEMPT)),
        content=said,
    )


def _number(text: bytes | None) -> int:
    # A producer may have written anything there, or nothing.
    return int(text) if text and text.isdigit() and len(text) < 10 else 0
