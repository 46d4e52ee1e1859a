"""Makes Kafka's topics what `topics.yaml` declares: each topic, and its dead-letter topic.

In come declarations; out goes what was changed, or would be. Nothing is ever taken away: no topic, no partition, and no
option that somebody else has set. Safe to repeat, to break off, and to run twice at once.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, KafkaTimeoutError, TopicAlreadyExistsError, for_code

from delivery.kafka import client_options
from ops.settings import Settings
from schemas.topics import Topic
from sinks.convergence import Change

# A dead letter is the record with more headers, and may compress worse than it came.
DEAD_LETTER_BYTES = 64 * 2**20

# A reader who is less behind than this sees every record of a compacted topic, not only the latest of its key.
COMPACTED_AFTER = timedelta(days=1)

_REQUEST_TIMEOUT_MS = 10_000
_LEADERS_WITHIN_SECONDS = 30.0
_SET_ON_THE_TOPIC = 1  # DescribeConfigs' source of an option that was set on the topic itself


class DeclaredTopic(NamedTuple):
    """A topic as Kafka should have it.

    Attributes:
        name: With the namespace.
        partitions: At least so many.
        replication: Replicas of each partition.
        options: Kafka's topic configuration, as far as it is declared.
    """

    name: str
    partitions: int
    replication: int
    options: Mapping[str, str]


class FoundTopic(NamedTuple):
    """A topic as Kafka has it.

    Attributes:
        partitions: How many.
        replication: How many replicas the partition with the fewest has.
        options: The whole of its configuration.
        set_options: The part of that which was set on the topic itself; the rest are the broker's defaults.
    """

    partitions: int
    replication: int
    options: Mapping[str, str]
    set_options: Mapping[str, str]


def declared(topics: Iterable[Topic], namespace: str) -> list[DeclaredTopic]:
    """Return what the topics and their dead-letter topics should be in Kafka."""
    wanted = []
    for topic in topics:
        options = {"cleanup.policy": "delete", "retention.ms": _milliseconds(topic.retention)}
        if topic.compacted:
            options |= {"cleanup.policy": "compact,delete", "min.compaction.lag.ms": _milliseconds(COMPACTED_AFTER)}
        wanted.append(DeclaredTopic(namespace + topic.name, topic.partitions, topic.replication, options))
        options = {
            "cleanup.policy": "delete",
            "retention.ms": _milliseconds(topic.dead_letter_retention),
            "max.message.bytes": str(DEAD_LETTER_BYTES),
        }
        wanted.append(DeclaredTopic(namespace + topic.dead_letter, topic.partitions, topic.replication, options))
    return wanted


async def converge(settings: Settings, wanted: Sequence[DeclaredTopic], *, check: bool) -> list[Change]:
    """Make Kafka's topics what is wanted, and return what was not so; with `check`, change nothing.

    Raises:
        KafkaError: Kafka does not answer, or refuses a change. What was done by then stays done.
    """
    async with administration(settings) as admin:
        found = await _found(admin, {topic.name for topic in wanted})
        missing = [topic for topic in wanted if topic.name not in found]
        changes = await _create(admin, missing, check=check)
        for topic in wanted:
            if topic.name in found:
                changes += await _adapt(admin, topic, found[topic.name], check=check)
        if changes and not check:
            await _wait_for_leaders(admin, wanted)
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


async def partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Return how many partitions each topic has.

    Raises:
        KafkaError: Kafka does not answer.
    """
    return {name: len(partitions) for name, partitions in (await _described(admin)).items()}


async def _described(admin: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """Return the partitions of every topic there is; to ask for a topic by name may create it."""
    return {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}


async def _found(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, FoundTopic]:
    """Return those of the named topics that are there."""
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
        if code != TopicAlreadyExistsError.errno:  # another bootstrap was faster
            _raise_for(code, f"topic {name}: {message}")
            changes.append(Change("create", f"topic {name}", details[name], done=True))
    return changes


async def _adapt(admin: AIOKafkaAdminClient, wanted: DeclaredTopic, found: FoundTopic, *, check: bool) -> list[Change]:
    changes = []
    what = f"topic {wanted.name}"
    if found.partitions < wanted.partitions:
        if not check:
            await _grow(admin, wanted)
        detail = f"{wanted.partitions} partitions, was {found.partitions}; keys move to other partitions"
        changes.append(Change("change", what, detail, done=not check))
    if found.partitions > wanted.partitions:
        detail = f"has {found.partitions} partitions, {wanted.partitions} are declared; Kafka can't take any away"
        changes.append(Change("change", what, f"{detail}, so declare {found.partitions}"))
    if found.replication != wanted.replication:
        detail = f"has {found.replication} replicas, {wanted.replication} are declared"
        changes.append(Change("change", what, f"{detail}; kafka-reassign-partitions moves them"))
    different = {name: value for name, value in wanted.options.items() if found.options.get(name) != value}
    if different:
        if not check:
            await _configure(admin, wanted.name, {**found.set_options, **different})
        was = {name: found.options.get(name, "") for name in different}
        changes.append(Change("change", what, f"{_options(different)}, was {_options(was)}", done=not check))
    return changes


async def _grow(admin: AIOKafkaAdminClient, wanted: DeclaredTopic) -> None:
    try:
        await admin.create_partitions({wanted.name: NewPartitions(wanted.partitions)})
    except InvalidPartitionsError:
        # Another bootstrap was faster, or it can't be done.
        if len((await _described(admin))[wanted.name]) < wanted.partitions:
            raise


async def _configure(admin: AIOKafkaAdminClient, name: str, options: Mapping[str, str]) -> None:
    """Set the topic's configuration. All of what was set has to be in it: Kafka forgets the rest."""
    for response in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(options))]):
        for code, message, _, _ in response.resources:
            _raise_for(code, f"topic {name}: {message}")


async def _wait_for_leaders(admin: AIOKafkaAdminClient, wanted: Sequence[DeclaredTopic]) -> None:
    """Return when every partition can be written to."""
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
        # Faust makes a topic of its own, by which its workers agree on a leader.
        if name.startswith(namespace) and name not in declared_names and not name.endswith("-__assignor-__leader")
    ]


def _raise_for(code: int, message: str) -> None:
    if code:
        raise for_code(code)(message)


def _milliseconds(duration: timedelta) -> str:
    return str(duration // timedelta(milliseconds=1))


def _options(options: Mapping[str, str]) -> str:
    return ", ".join(
        f"{name}={value}" for name, value in options.items() if name != "cleanup.policy" or value != "delete"
    )
