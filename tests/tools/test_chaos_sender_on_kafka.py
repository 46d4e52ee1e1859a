"""The sender of the chaos run on a real Kafka: the event log has exactly what Kafka has, whatever was heard of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import OutOfOrderSequenceNumber

from dev.blog import Blog
from dev.posts import add_blog
from dev.stack import Platform
from tests.chaos.event_log import EventLog
from tests.chaos.sender import Sender
from tests.integration.pipeline import Pipeline, until

_RATE = 600


@pytest.fixture
async def blog(platform: Platform) -> AsyncIterator[Pipeline]:
    """All topics, and a PostgreSQL database of its own with the blog's people and posts."""
    its_own = Pipeline(platform)
    its_own.own_tables()
    await its_own.prepare()
    add_blog(its_own.tables_url, Blog())
    yield its_own
    await its_own.forget()


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.sqlite")


def sender_of(pipeline: Pipeline, event_log: EventLog) -> Sender:
    return Sender(
        pipeline.platform.kafka.brokers,
        pipeline.namespace,
        pipeline.topics.inbound.values(),
        event_log,
        rate=_RATE,
        seed=1,
        began=datetime.now(UTC),
        owner_url=pipeline.tables_url,
    )


async def differences(pipeline: Pipeline, event_log: EventLog) -> list[str]:
    """Return the topics of which Kafka has something else than the event log says."""
    found = []
    for name in pipeline.topics.inbound:
        there = {
            (record.partition, record.offset): (record.timestamp, record.key, record.value, tuple(record.headers))
            for record in await pipeline.read(name)
        }
        said = {(entry.partition, entry.offset): entry[3:7] for entry in event_log.entries(pipeline.namespace + name)}
        if there != said:
            found.append(f"{name}: Kafka has {len(there)} records, the event log {len(said)}")
    return found


async def test_the_event_log_has_what_kafka_has_through_storms_and_a_pause(blog: Pipeline, event_log: EventLog) -> None:
    kafka = blog.platform.kafka
    enough = asyncio.Event()
    async with sender_of(blog, event_log) as sender:
        sending = asyncio.create_task(sender.run(enough))
        poison = asyncio.create_task(sender.storm("poison", 4))
        await asyncio.sleep(1)
        await asyncio.to_thread(kafka.pause)
        try:
            await asyncio.sleep(1.5)
        finally:
            await asyncio.to_thread(kafka.resume)
        details = await asyncio.gather(sender.storm("duplicates", 1), sender.storm("late", 1), poison)
        assert not [detail for detail in details if detail.startswith("0 ")], details
        enough.set()
        await sending
    assert sender.untold == 0
    assert sender.sent == event_log.count > _RATE
    assert await differences(blog, event_log) == []
    posts = {row_id for (row_id,) in blog.rows("SELECT id FROM posts")}
    assert len(posts) > len(Blog().posts), "the posts that were told of are there as well"


async def test_records_of_unknown_fate_are_looked_for(
    blog: Pipeline, event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, send_batch = count(), AIOKafkaProducer.send_batch

    async def unheard(self: Any, batch: Any, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        """Now and then say that Kafka has refused what it has taken, and what it never got."""
        number = next(numbers)
        if number % 20 not in (7, 13):
            return await send_batch(self, batch, topic, partition=partition)  # type: ignore[no-any-return]
        if number % 20 == 7:
            await (await send_batch(self, batch, topic, partition=partition))
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refused.set_exception(OutOfOrderSequenceNumber())
        return refused

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", unheard)
    enough = asyncio.Event()
    async with sender_of(blog, event_log) as sender:
        sending = asyncio.create_task(sender.run(enough))

        async def unheard_of() -> bool:
            return len(sender._uncertain) > 8

        await until(unheard_of, "some are of unknown fate", 20)
        enough.set()
        await sending
    assert sender.untold == 0
    assert sender.sent == event_log.count
    assert await differences(blog, event_log) == []
    records = [entry[4:] for entry in event_log.entries()]
    assert len(set(records)) < len(records), "both copies are known"
