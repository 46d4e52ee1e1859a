"""Creates or updates Kafka's topics as declared in `topics.yaml`: each topic, and its dead-letter topic.

Topics, partitions, and options set by others are never removed. A change that would delete existing records, reject
records that Kafka accepts now, or move keys to other partitions is applied only if its risk is allowed
(`sinks.changes`). Safe to repeat, to interrupt, and to run concurrently.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, KafkaTimeoutError, TopicAlreadyExistsError, for_code
from aiokafka.protocol.admin import ApiVersionRequest

from delivery.kafka import FEWEST_IN_SYNC, FEWEST_REPLICAS, client_options
from runtime.settings import Settings
from schemas.topics import Topic
from sinks.changes import NO_RISKS, Change, Risk, is_allowed

# A dead letter has more headers than its record, and may compress worse.
DEAD_LETTER_BYTES = 64 * 2**20

# A consumer that lags less than this reads every record of a compacted topic, not only the latest of its key.
COMPACTED_AFTER = timedelta(days=1)

_REQUEST_TIMEOUT_MS = 10_000
_LEADERS_WITHIN_SECONDS = 30.0
_OFFSETS = "__consumer_offsets"
_POLICY, _RETENTION, _LARGEST_RECORD = "cleanup.policy", "retention.ms", "max.message.bytes"
_IN_SYNC = "min.insync.replicas"
_SET_ON_THE_TOPIC = 1  # DescribeConfigs' source of an option that was set on the topic itself


class DeclaredTopic(NamedTuple):
    """A topic as declared.

    Attributes:
        name: With the namespace.
        partitions: The least number of partitions.
        replication: Replicas of each partition.
        options: The declared part of Kafka's topic configuration.
    """

    name: str
    partitions: int
    replication: int
    options: Mapping[str, str]


class FoundTopic(NamedTuple):
    """A topic as it exists in Kafka.

    Attributes:
        partitions: The number of partitions.
        replication: Replicas of the partition with the fewest.
        options: Its whole configuration.
        set_options: The options that were set on the topic itself; the others are the broker's defaults.
    """

    partitions: int
    replication: int
    options: Mapping[str, str]
    set_options: Mapping[str, str]


def declared(topics: Iterable[Topic], namespace: str) -> list[DeclaredTopic]:
    """Return the topics and their dead-letter topics as they should exist in Kafka."""
    wanted = []
    for topic in topics:
        durable = {_IN_SYNC: str(FEWEST_IN_SYNC)} if topic.replication >= FEWEST_REPLICAS else {}
        options = {_POLICY: "delete", _RETENTION: _milliseconds(topic.retention), **durable}
        if topic.compacted:
            options |= {_POLICY: "compact,delete", "min.compaction.lag.ms": _milliseconds(COMPACTED_AFTER)}
        wanted.append(DeclaredTopic(namespace + topic.name, topic.partitions, topic.replication, options))
        options = {
            _POLICY: "delete",
            _RETENTION: _milliseconds(topic.dead_letter_retention),
            _LARGEST_RECORD: str(DEAD_LETTER_BYTES),
            **durable,
        }
        wanted.append(DeclaredTopic(namespace + topic.dead_letter, topic.partitions, topic.replication, options))
    return wanted


async def converge(
    settings: Settings, wanted: Sequence[DeclaredTopic], *, check: bool, allowed: Collection[Risk] = NO_RISKS
) -> list[Change]:
    """Create or update Kafka's topics; return the differences.

    Args:
        settings: Kafka's address, and the namespace of the topics.
        wanted: The declared topics.
        check: Only return the differences, without changing anything.
        allowed: The allowed risks. A change with another risk is returned but not applied.

    Raises:
        KafkaError: Kafka does not answer, or refuses a change. Changes applied before are kept.
    """
    async with administration(settings) as admin:
        found = await _found(admin, {topic.name for topic in wanted})
        missing = [topic for topic in wanted if topic.name not in found]
        changes = await _create(admin, missing, check=check)
        there = [(topic, found[topic.name]) for topic in wanted if topic.name in found]
        different = [(topic, as_found) for topic, as_found in there if _differs(topic, as_found)]
        if different:
            async with _reader(settings) as consumer:
                for topic, as_found in different:
                    for step in await _adaptations(consumer, topic, as_found):
                        changes.append(await _adapt(admin, step, check=check, allowed=allowed))
        if any(change.done for change in changes):
            left = {change.what for change in changes if not change.done}
            await _wait_for_leaders(admin, [topic for topic in wanted if f"topic {topic.name}" not in left])
        if settings.namespace:
            changes += await _unexpected(admin, settings.namespace, wanted)
        return changes


@asynccontextmanager
async def administration(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open a connection for administration.

    Raises:
        KafkaError: No broker answers.
    """
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def requests_taken(admin: AIOKafkaAdminClient) -> set[int]:
    """Return the API keys that a broker supports (https://kafka.apache.org/protocol#protocol_api_keys).

    Raises:
        KafkaError: The broker does not answer.
    """
    response = await admin._send_request(ApiVersionRequest())
    return {number for number, _, _ in response.api_versions}


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer that asks for offsets and reads no records."""
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Return each topic's number of partitions.

    Raises:
        KafkaError: Kafka does not answer.
    """
    return {name: len(partitions) for name, partitions in (await _described(admin)).items()}


async def readers(admin: AIOKafkaAdminClient, prefix: str) -> list[str]:
    """Return the consumer groups with this prefix that have members.

    Raises:
        KafkaError: Kafka does not answer.
    """
    groups = sorted({name for name, _ in await admin.list_consumer_groups() if name.startswith(prefix)})
    described = await admin.describe_consumer_groups(groups) if groups else []
    found = [group for response in described for group in response.to_object()["groups"]]
    for group in found:
        _raise_for(group["error_code"], f"consumer group {group['group']}")
    return [group["group"] for group in found if group["members"]]


async def _described(admin: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """Return the partitions of every topic; asking for one by name could create it."""
    return {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}


async def _found(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, FoundTopic]:
    """Return those of the named topics that exist."""
    there = {name: partitions for name, partitions in (await _described(admin)).items() if name in names}
    if not there:
        return {}
    found = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in there]):
        for resource in response.to_object()["resources"]:
            name, entries = resource["resource_name"], resource["config_entries"]
            _raise_for(resource["error_code"], f"topic {name}: {resource['error_message']}")
            found[name] = FoundTopic(
                len(there[name]),
                min(len(partition["replicas"]) for partition in there[name]),
                {entry["config_names"]: entry["config_value"] for entry in entries},
                {e["config_names"]: e["config_value"] for e in entries if e["config_source"] == _SET_ON_THE_TOPIC},
            )
    return found


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[DeclaredTopic], *, check: bool) -> list[Change]:
    details = {topic.name: f"{topic.partitions} partitions, {_options(topic.options)}" for topic in missing}
    if check or not missing:
        return [Change("create", f"topic {name}", detail) for name, detail in details.items()]
    response = await admin.create_topics(
        [
            NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=dict(topic.options))
            for topic in missing
        ]
    )
    changes = []
    for name, code, message in response.topic_errors:
        if code != TopicAlreadyExistsError.errno:  # a concurrent bootstrap created it
            _raise_for(code, f"topic {name}: {message}")
            changes.append(Change("create", f"topic {name}", details[name], done=True))
    return changes


class _Adaptation(NamedTuple):
    """A change to a topic, and the function that applies it; `None` if it must be made manually."""

    change: Change
    make: Callable[[AIOKafkaAdminClient], Awaitable[None]] | None


async def _adapt(
    admin: AIOKafkaAdminClient, adaptation: _Adaptation, *, check: bool, allowed: Collection[Risk]
) -> Change:
    """Apply a change if that is possible and allowed; return it."""
    change, make = adaptation
    if check or make is None or not is_allowed([change], allowed):
        return change
    await make(admin)
    return change.as_done()


def _differs(wanted: DeclaredTopic, found: FoundTopic) -> bool:
    same_size = (found.partitions, found.replication) == (wanted.partitions, wanted.replication)
    return not same_size or bool(_different_options(wanted, found))


async def _adaptations(consumer: AIOKafkaConsumer, wanted: DeclaredTopic, found: FoundTopic) -> list[_Adaptation]:
    """Return the changes that turn an existing topic into the declared one."""
    steps = []
    what = f"topic {wanted.name}"
    records = await _Records.of(consumer, wanted.name, found.partitions)
    if found.partitions < wanted.partitions:
        detail = f"{wanted.partitions} partitions, was {found.partitions}; keys move to other partitions"
        risks = frozenset({Risk.REPARTITIONING} if records.written else ())
        steps.append(_Adaptation(Change("change", what, detail, risks=risks), partial(_grow, wanted=wanted)))
    if found.partitions > wanted.partitions:
        detail = f"has {found.partitions} partitions, {wanted.partitions} are declared; Kafka can't remove partitions"
        steps.append(_Adaptation(Change("change", what, f"{detail}, so declare {found.partitions}"), None))
    if found.replication != wanted.replication:
        detail = f"has {found.replication} replicas, {wanted.replication} are declared"
        action: Literal["blocked", "change"] = "blocked" if found.replication < wanted.replication else "change"
        steps.append(_Adaptation(Change(action, what, f"{detail}; change them with kafka-reassign-partitions"), None))
    if different := _different_options(wanted, found):
        was = {name: found.options.get(name, "") for name in different}
        loss = await _loss(consumer, records, wanted.options, found.options)
        detail = f"{_options(different)}, was {_options(was)}" + (f"; {loss}" if loss else "")
        risks = frozenset(({Risk.EXPIRY} if loss else set()) | ({Risk.REFUSALS} if _IN_SYNC in different else set()))
        configure = partial(_configure, name=wanted.name, options={**found.set_options, **different})
        steps.append(_Adaptation(Change("change", what, detail, risks=risks), configure))
    return steps


def _different_options(wanted: DeclaredTopic, found: FoundTopic) -> dict[str, str]:
    """Return the declared options that differ; a limit higher than declared is kept.

    If a topic has too few replicas, requiring two in sync would stop it whenever one broker is down.
    """
    kept = {
        name
        for name in (_LARGEST_RECORD, _IN_SYNC)
        if name in wanted.options and int(found.options.get(name) or 0) > int(wanted.options[name])
    }
    if found.replication < FEWEST_REPLICAS:
        kept.add(_IN_SYNC)
    return {
        name: value for name, value in wanted.options.items() if found.options.get(name) != value and name not in kept
    }


class Durability(NamedTuple):
    """The number of copies of a topic's records.

    Attributes:
        name: With the namespace.
        replication: Replicas of the partition with the fewest.
        in_sync: Replicas that must have a record before Kafka acknowledges it.
    """

    name: str
    replication: int
    in_sync: int


async def durabilities(admin: AIOKafkaAdminClient, names: Collection[str]) -> list[Durability]:
    """Return the durability of those of the named topics that exist, and of the topic of committed offsets.

    Raises:
        KafkaError: Kafka does not answer.
    """
    found = await _found(admin, {*names, _OFFSETS})
    return [Durability(name, topic.replication, int(topic.options[_IN_SYNC])) for name, topic in sorted(found.items())]


class _Records(NamedTuple):
    """The first and the end offsets of a topic, by partition."""

    first: Mapping[TopicPartition, int]
    end: Mapping[TopicPartition, int]

    @classmethod
    async def of(cls, consumer: AIOKafkaConsumer, topic: str, partitions: int) -> Self:
        """Fetch them from Kafka."""
        numbers = [TopicPartition(topic, number) for number in range(partitions)]
        return cls(await consumer.beginning_offsets(numbers), await consumer.end_offsets(numbers))

    @property
    def written(self) -> int:
        """The number of records ever written to the topic."""
        return sum(self.end.values())

    @property
    def kept(self) -> int:
        """The most records that the topic can contain; transactions and compaction leave fewer."""
        return sum(self.end.values()) - sum(self.first.values())

    async def older_than(self, consumer: AIOKafkaConsumer, age: timedelta) -> int:
        """Return the number of records that are older."""
        moment = max(0, int((datetime.now(UTC) - age).timestamp() * 1000))
        found = await consumer.offsets_for_times(dict.fromkeys(self.end, moment))
        return sum(
            (position.offset if position is not None else self.end[partition]) - self.first[partition]
            for partition, position in found.items()
        )


async def _loss(
    consumer: AIOKafkaConsumer, records: _Records, wanted: Mapping[str, str], found: Mapping[str, str]
) -> str:
    """Describe the existing records that the wanted options would delete; empty if none."""
    if not records.kept:
        return ""
    if "compact" in wanted[_POLICY] and "compact" not in found[_POLICY]:
        return f"keeps only the latest record of each key, of {records.kept:,} records"
    before, after = _kept_ms(found), _kept_ms(wanted)
    if after < 0 or 0 <= before <= after:
        return ""
    due = await records.older_than(consumer, timedelta(milliseconds=after))
    return f"deletes {due:,} records at once, {records.kept - due:,} later"


def _kept_ms(options: Mapping[str, str]) -> int:
    """Return a topic's retention in milliseconds; negative if unlimited."""
    return int(options[_RETENTION]) if "delete" in options[_POLICY] else -1


async def _grow(admin: AIOKafkaAdminClient, *, wanted: DeclaredTopic) -> None:
    try:
        await admin.create_partitions({wanted.name: NewPartitions(wanted.partitions)})
    except InvalidPartitionsError:
        # A concurrent bootstrap added them, or it is impossible.
        if len((await _described(admin))[wanted.name]) < wanted.partitions:
            raise


async def _configure(admin: AIOKafkaAdminClient, *, name: str, options: Mapping[str, str]) -> None:
    """Set the topic's configuration. It must contain every option that is set: Kafka resets the others."""
    for response in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(options))]):
        for code, message, _, _ in response.resources:
            _raise_for(code, f"topic {name}: {message}")


async def _wait_for_leaders(admin: AIOKafkaAdminClient, wanted: Sequence[DeclaredTopic]) -> None:
    """Wait until every partition has a leader."""
    try:
        async with asyncio.timeout(_LEADERS_WITHIN_SECONDS):
            while True:
                described = await _described(admin)
                if all(
                    len(described.get(topic.name, ())) >= topic.partitions
                    and all(partition["leader"] >= 0 for partition in described[topic.name])
                    for topic in wanted
                ):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"not every partition has a leader after {_LEADERS_WITHIN_SECONDS:.0f} s") from error


async def _unexpected(admin: AIOKafkaAdminClient, namespace: str, wanted: Sequence[DeclaredTopic]) -> list[Change]:
    declared_names = {topic.name for topic in wanted}
    return [
        Change("report", f"topic {name}", "not declared, left as it is")
        for name in sorted(await _described(admin))
        # Faust creates this topic to elect a leader among its workers.
        if name.startswith(namespace) and name not in declared_names and not name.endswith("-__assignor-__leader")
    ]


def _raise_for(code: int, message: str) -> None:
    if code:
        raise for_code(code)(message)


def _milliseconds(duration: timedelta) -> str:
    return str(duration // timedelta(milliseconds=1))


def _options(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items() if name != _POLICY or value != "delete")
