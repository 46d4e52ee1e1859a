"""Finds dead letters in all topics, and keeps what somebody decided about them.

Input: topics and a selection. Output: dead letters with what became of each, newest first, and notes in the dead-letter
topics. After a crash: each decision is a note of its own, durable or not there; asking again writes what is missing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from delivery.dead_letters.letter import Decision, Status
from delivery.dead_letters.writer import NOTHING, writer
from ops.dead_letters import EventReader, Letter, Selection, reader
from runtime.settings import Settings
from schemas.topics import Topic

_AT_ONCE = 200


class RefusedEvent(NamedTuple):
    """A dead letter, with what became of it.

    Attributes:
        topic: The topic whose agent refused it.
        letter: The dead letter.
        status: What became of it since it was refused last.
        decision: The latest decision about it; `None` where there is none.
    """

    topic: Topic
    letter: Letter
    status: Status
    decision: Decision | None


@dataclass
class Found:
    """What a search came to.

    Attributes:
        events: Those of the wanted statuses, newest first.
        others: How many more the selection takes, by status.
        missing: The ids of the selection that no dead letter has.
    """

    events: list[RefusedEvent] = field(default_factory=list)
    others: Counter[Status] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)


class RefusedEvents:
    """The dead letters of some topics.

    Args:
        settings: Where Kafka is, and the namespace of the topics.
        topics: Whose dead letters are meant.
        reading: Where they come from.
    """

    def __init__(self, settings: Settings, topics: Collection[Topic], reading: EventReader) -> None:
        self._settings = settings
        self._topics = topics
        self._reading = reading

    async def find(self, selection: Selection, statuses: Collection[Status]) -> Found:
        """Return the dead letters that a selection takes; its limit and `again` are a replay's, and have no effect.

        Raises:
            KafkaError: Kafka does not answer, or `inkstream bootstrap` has made none of the topics.
            SelectionError: The selection names a type or a reason that exists nowhere.
        """
        found = Found()
        letters: list[Letter] = []
        there = [topic for topic in self._topics if self.name_of(topic) in self._reading.partitions]
        if not there:
            names = ", ".join(map(self.name_of, self._topics))
            raise UnknownTopicOrPartitionError(f"there is no topic {names}; `inkstream bootstrap` creates it")
        for topic in there:
            contents = await self._reading.contents(self.name_of(topic), declaration=topic)
            distinct = contents.distinct()
            letters += distinct
            for letter in filter(selection.takes, distinct):
                status = contents.status(letter)
                if status in statuses:
                    event = RefusedEvent(topic, letter, status, contents.decisions.get(letter.origin))
                    found.events.append(event)
                else:
                    found.others[status] += 1
        selection.check(self._topics, letters)
        found.events.sort(key=lambda event: (event.letter.time, event.letter.offset), reverse=True)
        known = {name for letter in letters for name in (letter.event_id, letter.place, letter.origin)}
        found.missing = sorted(selection.ids - known)
        return found

    async def record(self, event: RefusedEvent) -> ConsumerRecord[Any, Any]:
        """Return the dead letter's own record, with its value.

        Raises:
            KafkaError: Kafka does not answer, or has deleted it.
        """
        letter = event.letter
        partition = TopicPartition(self.name_of(event.topic), letter.partition)
        async for record in self._reading.records({partition: (letter.offset, letter.offset + 1)}):
            return record
        raise UnknownTopicOrPartitionError(f"{partition.topic} no longer has offset {letter.offset}")

    def name_of(self, topic: Topic) -> str:
        """Return the name of a topic's dead-letter topic in Kafka."""
        return self._settings.namespace + topic.dead_letter

    async def decide(self, decisions: Sequence[tuple[RefusedEvent, Decision]]) -> None:
        """Make decisions durable.

        Raises:
            KafkaError: Kafka does not answer. Some may be durable; the same again does no harm.
        """
        async with writer(self._settings) as producer:
            for first in range(0, len(decisions), _AT_ONCE):
                await asyncio.gather(
                    *(
                        producer.send_and_wait(
                            self.name_of(event.topic),
                            value=NOTHING,
                            headers=decision.headers(),
                            partition=event.letter.partition,
                        )
                        for event, decision in decisions[first : first + _AT_ONCE]
                    )
                )


@asynccontextmanager
async def refused_events(settings: Settings, topics: Iterable[Topic]) -> AsyncIterator[RefusedEvents]:
    """Open the dead letters of some topics.

    Raises:
        KafkaError: Kafka does not answer.
    """
    async with reader(settings) as reading:
        yield RefusedEvents(settings, list(topics), reading)
