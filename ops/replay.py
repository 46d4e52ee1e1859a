"""Sends dead letters back to their topic, once each and unchanged.

Input: a topic and a selection of dead letters. Output: the original records, and for each a note in the dead-letter
topic. After a crash between the two, a record is sent again; its documents have the same ids.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError

from delivery.commit import Span
from delivery.dead_letters.letter import Replayed, Status, headers_before
from delivery.dead_letters.writer import NOTHING, writer
from ops.dead_letters import EventReader, Letter, Selection, reader
from runtime.settings import Settings
from schemas.identity import REPLAY_ATTEMPT, REPLAY_SIGNATURE, REPLAYED_FROM, ReplaySigner, content
from schemas.topics import Topic

_AT_ONCE = 200


@dataclass(frozen=True)
class Plan:
    """What a replay is going to do.

    Attributes:
        selected: The letters to send, oldest first.
        found: How many letters there are, by reason.
        replayed_before: How many of these were replayed before, by reason.
        foreign: How many records in the dead-letter topic are no dead letters.
        refused_again: How many of the found were replayed, and refused again.
        discarded: How many were discarded, and are left out for that alone.
    """

    selected: list[Letter]
    found: Counter[str]
    replayed_before: Counter[str]
    foreign: int
    refused_again: int = 0
    discarded: int = 0

    def expired(self, topic: Topic, now: datetime) -> int:
        """Return how many of the selected records are older than their topic keeps records."""
        oldest = (now - topic.retention).timestamp() * 1000
        return sum(0 <= letter.timestamp < oldest for letter in self.selected)


@dataclass
class Result:
    """What a replay did.

    Attributes:
        sent: How many letters were sent, by reason.
        refused: The letters that Kafka did not take, with what it said.
    """

    sent: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[Letter, str]] = field(default_factory=list)


class Replay:
    """The replay of one topic.

    Args:
        topic: The topic's name in Kafka.
        dead_letter_topic: That of its dead letters.
        declaration: The topic's declaration.
        reading: Where letters come from.
        producer: Where records and notes go to.
    """

    def __init__(
        self,
        topic: str,
        dead_letter_topic: str,
        declaration: Topic,
        reading: EventReader,
        producer: AIOKafkaProducer,
    ) -> None:
        self._topic = topic
        self._dead_letter_topic = dead_letter_topic
        self._declaration = declaration
        self._reading = reading
        self._producer = producer

    async def plan(self, selection: Selection) -> Plan:
        """Look through the letters that there are now, and choose.

        Raises:
            KafkaError: Kafka does not answer, or there is no such topic.
            SelectionError: The selection names a type or a reason that exists nowhere.
        """
        contents = await self._reading.contents(self._dead_letter_topic, declaration=self._declaration)
        distinct = contents.distinct()
        selection.check([self._declaration], distinct)
        of_statuses = {Status.OPEN, Status.ACKNOWLEDGED, *([Status.REPLAYED] if selection.again else [])}
        taken = [(contents.status(letter), letter) for letter in distinct if selection.takes(letter)]
        return Plan(
            selected=[letter for status, letter in taken if status in of_statuses][: selection.limit],
            found=Counter(letter.reason for letter in distinct),
            replayed_before=Counter(letter.reason for letter in distinct if letter.origin in contents.replayed),
            foreign=contents.foreign,
            discarded=sum(status is Status.DISCARDED for status, _ in taken),
            refused_again=sum(letter.attempts > 0 and letter.origin not in contents.replayed for letter in distinct),
        )

    async def carry_out(self, plan: Plan, report: Callable[[int], None]) -> Result:
        """Send the letters of the plan; `report` gets how many more were handled, as it goes on.

        Raises:
            KafkaError: Kafka does not answer. What was sent by then is sent; a new replay sends the rest.
        """
        result = Result()
        letters = {(letter.partition, letter.offset): letter for letter in plan.selected}
        chunk: list[tuple[Letter, ConsumerRecord[Any, Any]]] = []
        async for record in self._reading.records(self._spans(plan.selected)):
            letter = letters.get((record.partition, record.offset))
            if letter is not None:
                chunk.append((letter, record))
            if len(chunk) == _AT_ONCE:
                await self._send_all(chunk, result)
                report(len(chunk))
                chunk = []
        await self._send_all(chunk, result)
        report(len(chunk))
        return result

    def _spans(self, selected: Iterable[Letter]) -> dict[TopicPartition, Span]:
        """Return the part of each partition in which all of the letters are."""
        spans: dict[TopicPartition, Span] = {}
        for letter in selected:
            partition = TopicPartition(self._dead_letter_topic, letter.partition)
            first, end = spans.get(partition, (letter.offset, letter.offset + 1))
            spans[partition] = (min(first, letter.offset), max(end, letter.offset + 1))
        return spans

    async def _send_all(self, chunk: Iterable[tuple[Letter, ConsumerRecord[Any, Any]]], result: Result) -> None:
        refusals = await asyncio.gather(*(self._send(letter, record) for letter, record in chunk))
        for (letter, _), refusal in zip(chunk, refusals, strict=True):
            if refusal is None:
                result.sent[letter.reason] += 1
            else:
                result.refused.append((letter, refusal))

    async def _send(self, letter: Letter, record: ConsumerRecord[Any, Any]) -> str | None:
        """Send one record, and note that when it is durable; return what Kafka has against it, if it does."""
        try:
            await self._producer.send_and_wait(
                self._topic,
                key=record.key,
                value=NOTHING if record.value is None else record.value,
                headers=_headers_to_send(record, letter, self._reading.signer),
                partition=self._partition(letter.origin),
                timestamp_ms=letter.timestamp if letter.timestamp >= 0 else None,
            )
        except (MessageSizeTooLargeError, InvalidTimestampError) as error:
            return str(error)
        await self._producer.send_and_wait(
            self._dead_letter_topic,
            value=NOTHING,
            headers=Replayed(letter.origin).headers(),
            partition=letter.partition,
        )
        return None

    def _partition(self, origin: str) -> int | None:
        """Return the partition that the record was in: whichever way its producer chose it, it is that again."""
        partition = int(origin.split(":")[1])
        return partition if partition < self._reading.partitions[self._topic] else None


@asynccontextmanager
async def replay_of(settings: Settings, topic: Topic) -> AsyncIterator[Replay]:
    """Prepare the replay of a topic.

    Raises:
        KafkaError: Kafka does not answer.
    """
    async with reader(settings) as reading, writer(settings) as producer:
        name, dead_letters = settings.namespace + topic.name, settings.namespace + topic.dead_letter
        yield Replay(name, dead_letters, topic, reading, producer)


def _headers_to_send(record: ConsumerRecord[Any, Any], letter: Letter, signer: ReplaySigner) -> list[tuple[str, bytes]]:
    """Return the record's original headers, with where it was first and how often it has been replayed."""
    ours = (REPLAYED_FROM, REPLAY_ATTEMPT, REPLAY_SIGNATURE)
    headers = [(name, value) for name, value in headers_before(record.headers) if name not in ours]
    # The place it first had stays: an event without an id of its own is known by it.
    first = letter.place
    return [
        *headers,
        (REPLAYED_FROM, first.encode()),
        (REPLAY_ATTEMPT, str(letter.attempts + 1).encode()),
        (REPLAY_SIGNATURE, signer.sign(first, content(record.value, headers))),
    ]
