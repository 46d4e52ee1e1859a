"""Checks the consumer groups of the agents, and the dead letters of each topic.

Input: settings and topology. Output: findings.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from agents.topology import Topology
from delivery.dead_letters.letter import Status
from delivery.kafka import client_options
from delivery.pipeline import group_of
from ops import kafka_topics
from ops.checks.finding import Finding, State, count
from ops.dead_letters import Contents, EventReader
from runtime.settings import Settings
from schemas.identity import ReplaySigner
from schemas.topics import Topic

DEAD_LETTERS_READ_WITHIN_SECONDS = 10.0
RECENT = timedelta(days=1)
"""Dead letters younger than this are a problem; older ones are a note."""
MUCH_LAG = 10_000
"""Records that an agent may lag behind: some seconds of work."""

_GROUP_ANSWERS_WITHIN_SECONDS = 10


async def check_consumers(settings: Settings, topology: Topology) -> list[Finding]:
    """Return the lag of each topic's agents, and its open dead letters."""
    findings = []
    deadline = asyncio.get_running_loop().time() + DEAD_LETTERS_READ_WITHIN_SECONDS
    async with _clients(settings) as (admin, consumer):
        partitions = await kafka_topics.partition_counts(admin)
        signer = ReplaySigner(settings.ip_hash_key.get_secret_value().encode())
        reading = EventReader(consumer, partitions, signer)
        for topic in topology.topics.all.values():
            name = settings.namespace + topic.name
            if name in partitions:
                findings += [
                    await _progress(admin, consumer, name, partitions[name], group_of(settings.namespace, agent))
                    for agent, read in topology.reads.items()
                    if read is topic
                ]
            if settings.namespace + topic.dead_letter in partitions:
                seconds = max(0.0, deadline - asyncio.get_running_loop().time())
                contents = await reading.contents(settings.namespace + topic.dead_letter, seconds=seconds)
                findings += _dead_letters(topic, contents, datetime.now(UTC))
    return findings


@asynccontextmanager
async def _clients(settings: Settings) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    async with kafka_topics.administration(settings) as admin:
        try:
            await consumer.start()
            yield admin, consumer
        finally:
            await consumer.stop()


async def _progress(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, topic: str, partitions: int, group: str
) -> Finding:
    """Return the lag of the topic's consumer group, and whether it has members."""
    numbers = [TopicPartition(topic, number) for number in range(partitions)]
    first, end = await consumer.beginning_offsets(numbers), await consumer.end_offsets(numbers)
    members, committed = await _group(admin, group)
    lag = sum(end[number] - max(committed.get(number, -1), first[number]) for number in numbers)
    behind = f"{count(lag, 'record')} behind, {count(members, 'reader')} in group {group}"
    if not members:
        return Finding(topic, State.PROBLEM, behind, "no worker reads it: start `inkstream worker`")
    if lag > MUCH_LAG:
        advice = "check /readyz of the workers for a store that is down; otherwise start more workers"
        return Finding(topic, State.PROBLEM, behind, advice)
    return Finding(topic, State.WELL, behind)


async def _group(admin: AIOKafkaAdminClient, group: str) -> tuple[int, dict[TopicPartition, int]]:
    """Return the number of members of a consumer group, and its committed offsets."""
    # Kafka finds a group's coordinator on the first request, and is not ready at once.
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, KafkaError) and bool(error.retriable)),
        stop=stop_after_delay(_GROUP_ANSWERS_WITHIN_SECONDS),
        wait=wait_fixed(0.2),
        reraise=True,
    ):
        with attempt:
            (response,) = await admin.describe_consumer_groups([group])
            offsets = await admin.list_consumer_group_offsets(group)
    (described,) = response.to_object()["groups"]
    return len(described["members"]), {partition: position.offset for partition, position in offsets.items()}


def _dead_letters(topic: Topic, contents: Contents, now: datetime) -> Iterator[Finding]:
    """Yield a finding about open dead letters, or a note if all of them are acknowledged."""
    waiting = contents.those(Status.OPEN)
    acknowledged = len(contents.those(Status.ACKNOWLEDGED))
    at_least = "" if contents.is_complete else "at least "
    if not waiting:
        if acknowledged:
            what = f"no open dead letters; {at_least}{acknowledged:,} acknowledged"
            yield Finding(topic.dead_letter, State.NOTE, what, f"to send them again: `inkstream replay {topic.name}`")
        return
    reasons = ", ".join(
        f"{reason} {count:,}" for reason, count in Counter(letter.reason for letter in waiting).most_common()
    )
    others = f"; {acknowledged:,} more acknowledged" if acknowledged else ""
    what = f"{at_least}{count(len(waiting), 'dead letter')}: {reasons}{others}; latest: {waiting[-1].message}"
    is_recent = waiting[-1].time > now - RECENT
    advice = (
        f"list them: `inkstream dead-letters list --topic {topic.name}`. After fixing the cause, run `inkstream replay "
        f"{topic.name}`; or use `inkstream dead-letters acknowledge` or `discard` with a reason"
    )
    yield Finding(topic.dead_letter, State.PROBLEM if is_recent else State.NOTE, what, advice)
