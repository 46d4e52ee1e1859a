"""`inkstream replay` on the real servers."""

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiokafka import ConsumerRecord

from ops.dead_letters import reader
from ops.replay import Plan, Result, Selection, replay_of
from tests.integration.command_line import inkstream
from tests.integration.pipeline import Message, Pipeline

TIME = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
TIMESTAMP = int(time.time() * 1000) - 60_123


def letter(
    pipeline: Pipeline,
    *,
    offset: int,
    reason: str = "schema",
    time: datetime = TIME,
    value: bytes | None = b"value",
    key: bytes | None = b"key",
    headers: Sequence[tuple[str, bytes]] = (),
    topic: str = "searches",
    partition: int = 2,
) -> Message:
    """Return a dead letter of the topic, whose record was at the offset."""
    ours = {
        "dl_topic": pipeline.namespace + topic,
        "dl_partition": partition,
        "dl_offset": offset,
        "dl_reason": reason,
        "dl_message": f"message {offset}",
        "dl_time": time.isoformat(),
        "dl_timestamp": TIMESTAMP,
        "dl_release": "0.0.1",
    }
    return Message(value, [*headers, *((name, str(text).encode()) for name, text in ours.items())], key)


async def set_aside(pipeline: Pipeline, *letters: Message) -> None:
    await pipeline.send("searches.dead-letter", letters)


ALL = Selection()


async def replay(pipeline: Pipeline, selection: Selection = ALL) -> tuple[Plan, Result]:
    async with replay_of(pipeline.settings, pipeline.topics.all["searches"]) as prepared:
        plan = await prepared.plan(selection)
        return plan, await prepared.carry_out(plan, lambda more: None)


async def records(pipeline: Pipeline) -> list[ConsumerRecord[Any, Any]]:
    """Return all records in the topic."""
    topic = pipeline.namespace + "searches"
    async with reader(pipeline.settings) as reading:
        return [record async for record in reading.records(await reading.spans(topic))]


async def offsets_replayed(pipeline: Pipeline) -> list[str]:
    """Return the offsets that the records in the topic had at first, in order."""
    return sorted(named(record)["replayed_from"].split(":")[2] for record in await records(pipeline))


def named(record: ConsumerRecord[Any, Any]) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


async def test_a_letter_goes_back_as_it_was(pipeline: Pipeline) -> None:
    headers = [("ce_id", b"1"), ("trace", b"\xff\x00"), ("ce_id", b"2")]
    await set_aside(pipeline, letter(pipeline, offset=7, value=b"\x00\xffvalue", headers=headers))
    await replay(pipeline)
    (record,) = await records(pipeline)
    assert (record.key, record.value) == (b"key", b"\x00\xffvalue")
    assert (record.partition, record.timestamp) == (2, TIMESTAMP)
    origin = f"{pipeline.namespace}searches:2:7".encode()
    assert list(record.headers) == [*headers, ("replayed_from", origin), ("replay_attempt", b"1")]


async def test_a_letter_is_sent_once_and_on_request_again(pipeline: Pipeline) -> None:
    await set_aside(pipeline, letter(pipeline, offset=1), letter(pipeline, offset=2))
    _, first = await replay(pipeline)
    assert first.sent.total() == 2
    plan, second = await replay(pipeline)
    assert second.sent.total() == 0
    assert plan.replayed_before.total() == 2
    await set_aside(pipeline, letter(pipeline, offset=3))
    await replay(pipeline)
    assert await offsets_replayed(pipeline) == ["1", "2", "3"]
    await replay(pipeline, Selection(again=True))
    assert await offsets_replayed(pipeline) == ["1", "1", "2", "2", "3", "3"]


async def test_a_record_that_was_set_aside_twice_is_sent_once(pipeline: Pipeline) -> None:
    await set_aside(pipeline, letter(pipeline, offset=1), letter(pipeline, offset=1, key=b"elsewhere"))
    plan, _ = await replay(pipeline)
    assert plan.found == {"schema": 1}
    assert await offsets_replayed(pipeline) == ["1"]


async def test_only_what_is_chosen_is_sent_and_the_rest_keeps_waiting(pipeline: Pipeline) -> None:
    await set_aside(
        pipeline,
        letter(pipeline, offset=1, reason="not-json"),
        letter(pipeline, offset=2, time=TIME + timedelta(hours=1)),
        letter(pipeline, offset=3, time=TIME + timedelta(hours=2)),
        letter(pipeline, offset=4, time=TIME + timedelta(hours=3)),
    )
    await replay(pipeline, Selection(reasons=frozenset({"not-json"})))
    assert await offsets_replayed(pipeline) == ["1"]
    await replay(pipeline, Selection(since=TIME + timedelta(hours=2), until=TIME + timedelta(hours=3)))
    assert await offsets_replayed(pipeline) == ["1", "3"]
    await replay(pipeline, Selection(limit=1))
    assert await offsets_replayed(pipeline) == ["1", "2", "3"]
    await replay(pipeline)
    assert await offsets_replayed(pipeline) == ["1", "2", "3", "4"]


async def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(pipeline: Pipeline) -> None:
    await set_aside(pipeline, letter(pipeline, offset=5, value=b"personal"))
    ended = await inkstream(pipeline.environment, "replay", "searches", "--dry-run")
    assert ended.code == 0, ended.errors
    for part in (f"{pipeline.namespace}searches:2:5", "schema", "message 5", "1 would be sent."):
        assert part in ended.output
    assert "personal" not in ended.output
    assert await records(pipeline) == []


async def test_a_letter_that_was_refused_again_keeps_its_first_position(pipeline: Pipeline) -> None:
    headers = [("replayed_from", b"searches:0:1"), ("replay_attempt", b"1")]
    await set_aside(pipeline, letter(pipeline, offset=9, headers=headers))
    await replay(pipeline)
    (record,) = await records(pipeline)
    assert list(record.headers) == [("replayed_from", b"searches:0:1"), ("replay_attempt", b"2")]


async def test_a_record_without_key_and_value_goes_back_too(pipeline: Pipeline) -> None:
    aside = letter(pipeline, offset=1, key=None, value=b"")
    await pipeline.send("searches.dead-letter", [aside], value_serializer=lambda value: value or None)
    await replay(pipeline)
    (record,) = await records(pipeline)
    assert (record.key, record.value) == (None, None)


async def test_a_record_that_is_no_letter_is_left_alone(pipeline: Pipeline) -> None:
    await set_aside(pipeline, Message(b"by hand"), letter(pipeline, offset=1))
    plan, result = await replay(pipeline)
    assert plan.foreign == 1
    assert result.sent == {"schema": 1}


async def test_a_record_that_kafka_does_not_take_is_told_of_and_keeps_waiting(pipeline: Pipeline) -> None:
    larger_than_the_topic_takes = random.Random(1).randbytes(2_000_000)
    await set_aside(pipeline, letter(pipeline, offset=1, value=larger_than_the_topic_takes), letter(pipeline, offset=2))
    ended = await inkstream(pipeline.environment, "replay", "searches")
    assert ended.code == 1
    assert f"not taken by Kafka: {pipeline.namespace}searches:2:1" in ended.output
    assert await offsets_replayed(pipeline) == ["2"]
    plan, result = await replay(pipeline)
    assert [waiting.origin for waiting in plan.selected] == [f"{pipeline.namespace}searches:2:1"]
    assert len(result.refused) == 1


async def test_an_unknown_topic_is_told_with_the_nearest(pipeline: Pipeline) -> None:
    ended = await inkstream(pipeline.environment, "replay", "search")
    assert ended.code == 2
    assert "unknown topic search; did you mean searches?" in ended.errors


async def test_an_event_without_an_id_is_stored_once_however_often_it_is_replayed(pipeline: Pipeline) -> None:
    example = pipeline.topics.all["searches"].events["search.performed"].examples[0]
    event = orjson.dumps({**example, "type": "search.performed"})
    await set_aside(pipeline, letter(pipeline, offset=41, value=event))
    for arguments in ((), ("--again",)):
        ended = await inkstream(pipeline.environment, "replay", "searches", *arguments)
        assert ended.code == 0, ended.errors
    with pipeline.worker() as worker:
        await worker.until_ready()
        await pipeline.settled("searches")
    assert len(await records(pipeline)) == 2
    assert list(await pipeline.documents("searchQueries")) == [f"{pipeline.namespace}searches:2:41"]
