"""Compare the result of a run with what was sent, record by record.

Input: the records that Kafka confirmed. Output: what became of each, read from MongoDB by id and from the dead-letter
topics by origin, never from the worker's own counters. A record is looked up once its offset is committed: from then on
the worker promises that its effect is durable, so what is not there is lost.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pymongo import AsyncMongoClient

from delivery.kafka import client_options
from dev.notifications import NotificationLedger
from dev.scenarios import Trace
from dev.traffic import Sample
from ops.dead_letters import Letter, letter_of
from runtime.settings import Settings
from schemas.topics import Topic
from sinks.collections import COLLECTIONS
from sinks.mongo.database import NamespacedDatabase

_IDS_IN_ONE_QUERY = 2_000
_POLL_MILLISECONDS = 200
_PLACES_SHOWN = 3
_ERROR_LEVELS = ("error", "fatal")


class Loss(NamedTuple):
    """A record that did not become what it should.

    Attributes:
        place: `topic:partition:offset`.
        id: The event's id.
        problem: What is wrong.
    """

    place: str
    id: str
    problem: str


@dataclass
class TopicLedger:
    """The outcome of the records of one topic."""

    sent: int = 0
    stored: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    lost: list[Loss] = field(default_factory=list)

    @property
    def open(self) -> int:
        """How many records nothing is known of yet."""
        return self.sent - self.stored - self.duplicate - self.dead_lettered - len(self.lost)

    @property
    def balanced(self) -> bool:
        """Whether each record became what it should."""
        return self.sent == self.stored + self.duplicate + self.dead_lettered


class _Groups(NamedTuple):
    """Error lines, and what the groups in `errorLogs` have counted."""

    lines: int
    occurrences: int


class EventLedger:
    """The account of a run. Use it as an asynchronous context manager: it begins with what there is at that moment.

    Args:
        settings: Where the servers are.
        topics: The topics that are sent to.
        began: When the run begins.
    """

    def __init__(self, settings: Settings, topics: Iterable[Topic], began: datetime) -> None:
        self._settings = settings
        self._began = began
        listed = list(topics)
        self.topics = {topic.name: TopicLedger() for topic in listed}
        self.notifications = NotificationLedger(settings, listed, began)
        self._dead_letter_topics = [settings.namespace + topic.dead_letter for topic in listed]
        self._open: dict[TopicPartition, dict[int, Sample]] = defaultdict(dict)
        self._letters: dict[str, Letter] = {}  # by where the record was
        self._prefixes: list[str] = []
        self.new_documents: Counter[str] = Counter()
        self._own_documents: Counter[str] = Counter()
        self._groups_before = _Groups(0, 0)

    async def __aenter__(self) -> Self:
        """Connect, and note where the dead-letter topics end and what is counted already."""
        options = client_options(self._settings)
        self._admin = AIOKafkaAdminClient(**options)
        self._consumer = AIOKafkaConsumer(**options, group_id=None, enable_auto_commit=False)
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            self._settings.mongo_url.get_secret_value(), tz_aware=True, serverSelectionTimeoutMS=5_000
        )
        self.database = NamespacedDatabase(self._client, self._settings.namespace)
        await self._admin.start()
        await self._consumer.start()
        described = await self._admin.describe_topics(self._dead_letter_topics)
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]
        self._consumer.assign(partitions)
        for partition, end in (await self._consumer.end_offsets(partitions)).items():
            self._consumer.seek(partition, end)
        self._groups_before = await self._groups()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        await asyncio.gather(self._admin.close(), self._consumer.stop(), self._client.close())

    @property
    def sent(self) -> int:
        """How many records Kafka has."""
        return sum(topic.sent for topic in self.topics.values())

    @property
    def open(self) -> int:
        """How many records nothing is known of yet."""
        return sum(topic.open for topic in self.topics.values())

    @property
    def balanced(self) -> bool:
        """Whether each record became what it should."""
        return all(topic.balanced for topic in self.topics.values())

    @property
    def documents(self) -> Mapping[str, int]:
        """How many documents the run has brought, by collection, as far as they are accounted for."""
        return self.new_documents + self.notifications.documents

    def expect(self, prefix: str) -> None:
        """Take note of what the ids of the samples to come begin with."""
        self._prefixes.append(prefix)

    def confirm(self, sample: Sample, partition: int, offset: int, timestamp: int) -> None:
        """Take note of a record that Kafka has.

        Args:
            sample: The record.
            partition: Where it is.
            offset: Likewise.
            timestamp: Its own, in milliseconds since 1970.
        """
        self.topics[sample.topic].sent += 1
        self._open[TopicPartition(self._settings.namespace + sample.topic, partition)][offset] = sample
        self.notifications.expect(sample, partition, offset, timestamp)

    def unknown(self, topic: str) -> list[str]:
        """Return the places of the first records of a topic that nothing is known of yet."""
        places = [
            _place(partition, offset)
            for partition, records in self._open.items()
            if partition.topic == self._settings.namespace + topic
            for offset in records
        ]
        return sorted(places)[:_PLACES_SHOWN]

    async def backlog(self) -> int:
        """Return how many records wait in the topics, from whomever and whenever."""
        committed = await self._committed()
        names = [self._settings.namespace + topic for topic in self.topics]
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in await self._admin.describe_topics(names)
            for partition in topic["partitions"]
        ]
        beginnings = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        return sum(
            end - max(committed.get(partition, 0), beginnings[partition]) for partition, end in ends.items() if end
        )

    async def rebase(self) -> None:
        """Begin to count errors from now on; for when a backlog of earlier runs is through."""
        self._groups_before = await self._groups()

    async def settle(self) -> None:
        """Find out what became of every record whose offset is committed."""
        committed = await self._committed()
        # Dead letters are durable before their offset is committed, so by now all that matter can be read.
        await self._read_dead_letters()
        done: list[tuple[TopicPartition, int, Sample]] = []
        for partition, records in self._open.items():
            through = committed.get(partition, 0)
            done += [(partition, offset, sample) for offset, sample in records.items() if offset < through]
        found = await self._documents(done)
        for partition, offset, sample in done:
            del self._open[partition][offset]
            self._judge(partition, offset, sample, found)

    async def differences(self) -> list[str]:
        """Return what else is not as it should be, once all records are accounted for: too many documents, or errors
        that are counted wrongly.
        """  # noqa: D205 - one sentence
        wrong = []
        for collection, expected in sorted(self._own_documents.items()):
            found = 0
            for prefix in self._prefixes:
                own = {"_id": {"$gte": prefix, "$lt": prefix + "~"}}
                found += await self.database[collection].count_documents(own)
            if found != expected:
                wrong.append(f"{collection}: {found} documents of this run, where {expected} should be")
        now = await self._groups()
        lines = now.lines - self._groups_before.lines
        occurrences = now.occurrences - self._groups_before.occurrences
        if lines != occurrences:
            wrong.append(f"errorLogs: {occurrences} occurrences counted of {lines} error lines in systemLogs")
        return wrong

    def _judge(
        self, partition: TopicPartition, offset: int, sample: Sample, found: Mapping[tuple[str, str], dict[str, Any]]
    ) -> None:
        ledger = self.topics[sample.topic]
        own = sample.id or _place(partition, offset)
        letter = self._letters.pop(_place(partition, offset), None)
        problem = None
        if sample.reason is not None:
            if letter is None:
                problem = f"has no dead letter, where one with reason {sample.reason} should be"
            elif letter.reason != sample.reason:
                problem = f"is dead-lettered as {letter.reason}, not as {sample.reason}: {letter.message}"
        elif letter is not None:
            problem = f"is dead-lettered as {letter.reason}, and is valid: {letter.message}"
        else:
            missing = [
                trace for trace in sample.traces if not _is_left(trace, found.get((trace.collection, trace.id or own)))
            ]
            if missing:
                problem = "is committed, and not in " + ", ".join(sorted({trace.collection for trace in missing}))
        if problem is not None:
            ledger.lost.append(Loss(_place(partition, offset), own, problem))
        elif sample.outcome == "dead-lettered":
            ledger.dead_lettered += 1
        elif sample.outcome == "duplicate":
            ledger.duplicate += 1
        else:
            ledger.stored += 1
            self._count_documents(sample)

    def _count_documents(self, sample: Sample) -> None:
        for trace in sample.traces:
            if trace.field is None:
                self.new_documents[trace.collection] += 1
                if sample.id is not None:
                    self._own_documents[trace.collection] += 1

    async def _committed(self) -> dict[TopicPartition, int]:
        """Return the offsets that the worker's consumer groups have committed."""
        groups = [f"{self._settings.namespace}inkstream.{topic}" for topic in self.topics]
        answers = await asyncio.gather(*(self._admin.list_consumer_group_offsets(group) for group in groups))
        return {partition: place.offset for answer in answers for partition, place in answer.items()}

    async def _read_dead_letters(self) -> None:
        """Read the dead-letter topics up to where they end now."""
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        while True:
            behind = [partition for partition, end in ends.items() if await self._consumer.position(partition) < end]
            if not behind:
                return
            batches = await self._consumer.getmany(*behind, timeout_ms=_POLL_MILLISECONDS)
            for records in batches.values():
                for record in records:
                    # After a crash a letter may be sent again: the same origin, so the same letter. A record that is
                    # none notes that one was replayed.
                    if (letter := letter_of(record)) is not None:
                        self._letters[letter.origin] = letter

    async def _documents(
        self, done: Sequence[tuple[TopicPartition, int, Sample]]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the documents that the samples should have left, as far as they are there."""
        wanted: dict[str, set[str]] = defaultdict(set)
        fields: dict[str, set[str]] = defaultdict(set)
        for partition, offset, sample in done:
            for trace in sample.traces:
                wanted[trace.collection].add(trace.id or sample.id or _place(partition, offset))
                if trace.field is not None:
                    fields[trace.collection].add(trace.field)
        found = {}
        for collection, ids in wanted.items():
            projection = dict.fromkeys(("_id", "incomplete", *fields[collection]), 1)
            listed = sorted(ids)
            for first in range(0, len(listed), _IDS_IN_ONE_QUERY):
                chosen = {"_id": {"$in": listed[first : first + _IDS_IN_ONE_QUERY]}}
                async for document in self.database[collection].find(chosen, projection):
                    found[collection, document["_id"]] = document
        return found

    async def _groups(self) -> _Groups:
        lines = await self.database["systemLogs"].count_documents({"level": {"$in": _ERROR_LEVELS}})
        total = [{"$group": {"_id": None, "total": {"$sum": "$occurrenceCount"}}}]
        sums = await (await self.database["errorLogs"].aggregate(total)).to_list()
        return _Groups(lines, sums[0]["total"] if sums else 0)

    async def totals(self) -> dict[str, int]:
        """Return how many documents each collection has, of all runs."""
        return {name: await self.database[name].estimated_document_count() for name in COLLECTIONS}


def _place(partition: TopicPartition, offset: int) -> str:
    return f"{partition.topic}:{partition.partition}:{offset}"


def _is_left(trace: Trace, document: Mapping[str, Any] | None) -> bool:
    """Whether a document has what an event should have left in it."""
    if document is None:
        return False
    if trace.field is None:
        return not document.get("incomplete", False)
    holds = document.get(trace.field)
    if isinstance(trace.value, datetime):
        return isinstance(holds, datetime) and holds >= trace.value
    return any(trace.value.items() <= item.items() for item in holds or ())
