"""Compare what Kafka has with the event log: dead letters, committed offsets, and that the event log is complete.

Input: topics and consumer groups as Kafka has them. Output: checks. Nothing here commits, or belongs to a group.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from tests.chaos.event_log import Entry
from tests.chaos.history import Check
from tests.chaos.oracle_findings import Findings
from tests.integration.pipeline import PARTITIONS

_OUR_HEADERS = (
    "dl_topic",
    "dl_partition",
    "dl_offset",
    "dl_reason",
    "dl_message",
    "dl_time",
    "dl_timestamp",
    "dl_release",
)
_POLL_MILLISECONDS = 50


class Record(NamedTuple):
    """A record as a consumer has it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Kafka:
    """Kafka, for reading only. Use it as an asynchronous context manager.

    Args:
        brokers: Where it is.
    """

    def __init__(self, brokers: str) -> None:
        # What is read is there already, so there is nothing to wait for.
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=brokers,
            group_id=None,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MILLISECONDS,
            retry_backoff_ms=10,  # it is paid for each topic that is asked for the first time
        )
        self._admin = AIOKafkaAdminClient(bootstrap_servers=brokers)

    async def __aenter__(self) -> Self:
        """Connect."""
        await asyncio.gather(self._consumer.start(), self._admin.start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await asyncio.gather(self._consumer.stop(), self._admin.close())

    async def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """Return how many records each topic has ever had."""
        ends: Counter[str] = Counter()
        for partition, end in (await self._consumer.end_offsets(_partitions(topics))).items():
            ends[partition.topic] += end
        return dict(ends)

    async def committed(self, group: str) -> int:
        """Return how many records a consumer group has committed."""
        try:
            offsets = await self._admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:  # Kafka makes its own topic of offsets when the first group comes
            return 0
        return sum(position.offset for position in offsets.values())

    async def records(self, topics: Iterable[str]) -> dict[str, list[Record]]:
        """Return all records of topics, those of a partition in their order."""
        partitions = _partitions(topics)
        first = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        unread = {place for place in partitions if first[place] < ends[place]}
        records: defaultdict[str, list[Record]] = defaultdict(list)
        self._consumer.assign(list(unread))
        for place in unread:
            self._consumer.seek(place, first[place])
        while unread:
            for place, fetched in (await self._consumer.getmany(timeout_ms=_POLL_MILLISECONDS)).items():
                records[place.topic] += [
                    Record(one.partition, one.offset, one.key, one.value, tuple(one.headers)) for one in fetched
                ]
            for place in list(unread):
                if await self._consumer.position(place) >= ends[place]:
                    self._consumer.pause(place)
                    unread.remove(place)
        return records


def letters_check(topic: str, expected: Mapping[str, Entry], letters: Iterable[Record]) -> Check:
    """Return whether a topic's dead letters are its invalid records, each at least once and as it came.

    Args:
        topic: The topic's name as it is declared.
        expected: Its records that must be there, by place.
        letters: What its dead-letter topic has.
    """
    right: Counter[str] = Counter()
    wrong: list[tuple[str, str, str]] = []
    for letter in letters:
        name = f"{topic}.dead-letter:{letter.partition}:{letter.offset}"
        own, ours = letter.headers[: -len(_OUR_HEADERS)], letter.headers[-len(_OUR_HEADERS) :]
        said = {header: value.decode(errors="replace") for header, value in ours}
        if tuple(said) != _OUR_HEADERS:
            wrong.append(("", "are no dead letters", f"{name} is no dead letter: its headers are {list(said)}"))
            continue
        place = f"{said['dl_topic']}:{said['dl_partition']}:{said['dl_offset']}"
        entry = expected.get(place)
        if entry is None:
            what = f"{place} is valid, and has the dead letter {name} for {said['dl_reason']}: {said['dl_message']}"
            wrong.append((place, "are of valid records", what))
        elif unlike := _unlike(entry, letter, own, said):
            wrong.append((place, "are not as the records came", f"{name} of {place}: {'; '.join(unlike)}"))
        else:
            right[place] += 1
    again = sum(right.values()) - len(right)
    promise = f"{topic}.dead-letter: each invalid record with its reason, byte for byte"
    findings = Findings(promise + (f"; {again:,} came again" if again else ""), len(expected))
    for _, kind, what in wrong:
        findings.add(kind, what)
    spoilt = {place for place, _, _ in wrong}
    for place in expected.keys() - right.keys() - spoilt:
        findings.add("have no dead letter", f"{place} has no dead letter, and is to have one: {expected[place].reason}")
    return findings.check(len(right.keys() - spoilt))


def _unlike(entry: Entry, letter: Record, own: tuple[tuple[str, bytes], ...], said: Mapping[str, str]) -> Iterable[str]:
    """Return what of a dead letter is not as its record."""
    unlike = [
        f"its {name} is another"
        for name, one, other in (
            ("key", entry.key, letter.key),
            ("value", entry.value, letter.value),
            ("headers", entry.headers, own),
        )
        if one != other
    ]
    for header, wanted in (("dl_reason", entry.reason), ("dl_timestamp", str(entry.timestamp))):
        if said[header] != wanted:
            unlike.append(f"{header} is {said[header]}, and should be {wanted}")
    if not said["dl_message"]:
        unlike.append("dl_message is empty")
    return unlike


async def lag_check(kafka: Kafka, namespace: str, topic_of: Mapping[str, str]) -> Check:
    """Return whether every agent has committed all there is.

    Args:
        kafka: Kafka.
        namespace: What stands before the name of every topic and group.
        topic_of: The topic that each agent reads.
    """
    findings = Findings("every agent has committed all of its topic", len(topic_of))
    right = 0
    ends = await kafka.ends({namespace + topic for topic in topic_of.values()})
    committed = await asyncio.gather(*(kafka.committed(f"{namespace}inkstream.{agent}") for agent in topic_of))
    for (agent, topic), count in zip(topic_of.items(), committed, strict=True):
        lag = ends[namespace + topic] - count
        right += lag == 0
        if lag:
            findings.add("are behind", f"{agent} has {lag:,} records of {topic} still to commit")
    return findings.check(right)


async def event_log_check(kafka: Kafka, counts: Mapping[str, int], topics: Collection[str]) -> Check:
    """Return whether Kafka has the event log's records and no others: else all that follows means little.

    Args:
        kafka: Kafka.
        counts: How many records the event log has, by topic.
        topics: Those that the sender alone writes to.
    """
    findings = Findings(
        "Kafka has the records of the event log, and no others", sum(counts.get(name, 0) for name in topics)
    )
    found = 0
    for topic, end in (await kafka.ends(topics)).items():
        found += min(end, counts.get(topic, 0))
        if end != counts.get(topic, 0):
            findings.add("differ", f"{topic} has {end:,} records, and the event log {counts.get(topic, 0):,}")
    return findings.check(found)


def _partitions(topics: Iterable[str]) -> list[Any]:
    return [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
