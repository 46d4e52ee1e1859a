"""Dead letters as events: their types and ids, which are one and the same, and which of them wait.

Input: a dead-letter topic. Output: its letters without their values, with the status of each. A dead-letter topic is
its own history: beside the letters it holds a note for each replay and each decision, so no other store is needed. A
record that was replayed and refused again is one letter still, with the reason of the last time.
"""

import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from delivery.dead_letters.letter import CAUSES, Decision, Refusal, Replayed, Status, entry, headers_before
from delivery.dead_letters.reader import DeadLetterReader
from delivery.kafka import client_options
from ops import kafka_topics
from runtime.settings import Settings
from schemas.cloudevents import names_of
from schemas.identity import REPLAY_ATTEMPT, REPLAYED_FROM, ReplaySigner, content
from schemas.nearest import suggestion
from schemas.topics import Topic


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
        event_type: What its producer calls the event's type; empty where that can't be read.
        event_id: What its producer calls the event; empty where it has no id.
        release: The release of Inkstream that refused it.
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
    event_type: str = ""
    event_id: str = ""
    release: str = ""

    @property
    def place(self) -> str:
        """Where the record was before it was ever replayed, `topic:partition:offset`."""
        return self.first or self.origin


@dataclass
class Contents:
    """What a dead-letter topic holds.

    Attributes:
        letters: All letters, as they were found.
        replayed: The origins of those that were replayed.
        decisions: The latest decision about each, by origin.
        foreign: How many records are neither letter nor note.
        is_complete: Whether all of it was read in the time given.
    """

    letters: list[Letter] = field(default_factory=list)
    replayed: set[str] = field(default_factory=set)
    decisions: dict[str, Decision] = field(default_factory=dict)
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
            record = known.place
            # By how often it was replayed before by time: two workers' clocks may differ.
            if record not in latest or known.attempts >= latest[record].attempts:
                latest[record] = known
        return sorted(latest.values(), key=_order)

    def status(self, letter: Letter) -> Status:
        """Return what became of a letter since it was refused last."""
        if letter.origin in self.replayed:
            return Status.REPLAYED
        decision = self.decisions.get(letter.origin)
        return decision.status if decision else Status.OPEN

    def those(self, *statuses: Status) -> list[Letter]:
        """Return the letters with one of the statuses, oldest first, each record once."""
        return [letter for letter in self.distinct() if self.status(letter) in statuses]

    def waiting(self) -> list[Letter]:
        """Return the letters that a replay sends: neither replayed since they were refused last, nor discarded."""
        return self.those(Status.OPEN, Status.ACKNOWLEDGED)


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


class SelectionError(ValueError):
    """A selection names a type or a reason that exists nowhere; the message suggests another."""


@dataclass(frozen=True)
class Selection:
    """Which dead letters are meant.

    Attributes:
        reasons: Those with one of these reasons; all where empty.
        since: Those dead-lettered at this moment or later.
        until: Those dead-lettered before this moment.
        limit: For a replay: the oldest so many of them; all where `None`.
        again: For a replay: also those that were replayed before.
        ids: Those with one of these ids, the event's or where the record was as `topic:partition:offset`.
        types: Those whose event has one of these types.
    """

    reasons: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None
    again: bool = False
    ids: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    def takes(self, letter: Letter) -> bool:
        """Whether the letter is one of them, apart from the limit and from what was replayed."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.since is None or self.since <= letter.time)
            and (self.until is None or letter.time < self.until)
            and (not self.ids or not self.ids.isdisjoint((letter.event_id, letter.place, letter.origin)))
            and (not self.types or letter.event_type in self.types)
        )

    def check(self, topics: Iterable[Topic], letters: Collection[Letter]) -> None:
        """Refuse names that nothing has.

        Raises:
            SelectionError: A type or a reason is neither declared nor that of a dead letter.
        """
        types = dict.fromkeys(name for topic in topics for name in topic.events)
        for what, wanted, declared, found, listed_by in (
            ("type", self.types, types, {letter.event_type for letter in letters}, "`inkstream topics`"),
            ("cause", self.reasons, CAUSES, {letter.reason for letter in letters}, "docs/refused-events.md"),
        ):
            for name in sorted(wanted - {*declared, *found}):
                raise SelectionError(f"unknown {what} {name}; {suggestion(name, list(declared), listed_by)}")


class EventReader(DeadLetterReader):
    """Reads dead-letter topics, and what their letters say about events.

    Args:
        consumer: Belongs to no group, and commits nothing.
        partitions: How many partitions each topic has.
        signer: Proves where a record was before it was replayed.
    """

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Mapping[str, int], signer: ReplaySigner) -> None:
        super().__init__(consumer, partitions)
        self.signer = signer

    async def contents(
        self, topic: str, *, seconds: float = float("inf"), declaration: Topic | None = None
    ) -> Contents:
        """Return what a dead-letter topic holds, or as much of it as could be read in so many seconds.

        Args:
            topic: The dead-letter topic's name in Kafka.
            seconds: How long to read at most.
            declaration: The topic whose dead letters these are; without it they have no type and no id.

        Raises:
            UnknownTopicOrPartitionError: There is no such topic.
            KafkaError: Kafka does not answer.
        """
        contents = Contents()
        deadline = time.monotonic() + seconds
        partition_of: dict[str, int] = {}
        async for record in self.records(await self.spans(topic)):
            match entry(record.headers):
                case Refusal() as refusal:
                    contents.letters.append(_letter(record, refusal, self.signer, declaration))
                case Replayed(origin):
                    contents.replayed.add(origin)
                case Decision() as decision:
                    before = contents.decisions.get(decision.origin)
                    # Of a partition the later record is the later decision, whatever the clocks of the deciders say.
                    same_partition = partition_of.get(decision.origin) == record.partition
                    if before is None or same_partition or before.time <= decision.time:
                        contents.decisions[decision.origin] = decision
                        partition_of[decision.origin] = record.partition
                case None:
                    contents.foreign += 1
            if time.monotonic() > deadline:
                contents.is_complete = False
                break
        return contents


@asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[EventReader]:
    """Open a reader.

    Raises:
        KafkaError: Kafka does not answer.
    """
    async with kafka_topics.administration(settings) as admin:
        partitions = await kafka_topics.partition_counts(admin)
    consumer = AIOKafkaConsumer(**client_options(settings), auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        await consumer.start()
        yield EventReader(consumer, partitions, ReplaySigner(settings.ip_hash_key.get_secret_value().encode()))
    finally:
        await consumer.stop()


def letter_of(
    record: ConsumerRecord[Any, Any], signer: ReplaySigner | None = None, declaration: Topic | None = None
) -> Letter | None:
    """Return the dead letter in a record; `None` where it is a note, or somebody else put it there.

    Args:
        record: A record of a dead-letter topic.
        signer: Proves where the record was before it was replayed.
        declaration: The topic whose dead letters these are; without it the dead letter has no type and no id.
    """
    refusal = Refusal.read(record.headers)
    return None if refusal is None else _letter(record, refusal, signer, declaration)


def _letter(
    record: ConsumerRecord[Any, Any], refusal: Refusal, signer: ReplaySigner | None, declaration: Topic | None
) -> Letter:
    before = headers_before(record.headers)
    named, said = dict(before), content(record.value, before)
    first = signer.origin(said, named) if signer else None
    event_type, event_id = names_of(record.value, before, declaration) if declaration is not None else ("", "")
    return Letter(
        partition=record.partition,
        offset=record.offset,
        **refusal._asdict(),
        first=first or "",
        claimed="" if first else (named.get(REPLAYED_FROM) or b"").decode(errors="replace"),
        attempts=_number(named.get(REPLAY_ATTEMPT)),
        content=said,
        event_type=event_type,
        event_id=event_id,
    )


def _number(text: bytes | None) -> int:
    # A producer may have written anything there, or nothing.
    return int(text) if text and text.isdigit() and len(text) < 10 else 0
