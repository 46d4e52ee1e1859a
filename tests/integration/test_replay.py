"""`inkstream replay` on the real servers."""

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiokafka import ConsumerRecord

from ops.dead_letters import Selection, reader
from ops.replay import Plan, Result, replay_of
from schemas.identity import ReplaySigner, content
from tests.command_line import inkstream
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


def signer(pipeline: Pipeline) -> ReplaySigner:
    return ReplaySigner(pipeline.settings.ip_hash_key.get_secret_value().encode())


def named(record: ConsumerRecord[Any, Any]) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


async def test_a_dead_letter_is_sent_back_unchanged(pipeline: Pipeline) -> None:
    headers = [("ce_id", b"1"), ("trace", b"\xff\x00"), ("ce_id", b"2")]
    await set_aside(pipeline, letter(pipeline, offset=7, value=b"\x00\xffvalue", headers=headers))
    await replay(pipeline)
    (record,) = await records(pipeline)
    assert (record.key, record.value) == (b"key", b"\x00\xffvalue")
    assert (record.partition, record.timestamp) == (2, TIMESTAMP)
    origin = f"{pipeline.namespace}searches:2:7".encode()
    *before, signature = record.headers
    assert before == [*headers, ("replayed_from", origin), ("replay_attempt", b"1")]
    assert signature == ("replay_signature", signer(pipeline).sign(origin.decode(), content(record.value, headers)))


async def test_a_dead_letter_is_sent_once_and_again_with_the_flag(pipeline: Pipeline) -> None:
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


async def test_only_the_selection_is_sent_and_the_rest_stays_open(pipeline: Pipeline) -> None:
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


def replayed_before(pipeline: Pipeline, first: str, value: bytes = b"value") -> list[tuple[str, bytes]]:
    """Return the headers of a record that was replayed once, and was first at this place."""
    signature = signer(pipeline).sign(first, content(value, ()))
    return [("replayed_from", first.encode()), ("replay_attempt", b"1"), ("replay_signature", signature)]


async def test_a_dead_letter_refused_again_keeps_its_first_position(pipeline: Pipeline) -> None:
    await set_aside(pipeline, letter(pipeline, offset=9, headers=replayed_before(pipeline, "searches:0:1")))
    await replay(pipeline)
    (record,) = await records(pipeline)
    assert named(record)["replayed_from"] == "searches:0:1"
    assert named(record)["replay_attempt"] == "2"


async def test_a_producer_cannot_choose_where_its_record_was_first(pipeline: Pipeline) -> None:
    forged = [("replayed_from", b"searches:0:1"), ("replay_attempt", b"7"), ("replay_signature", b"f" * 64)]
    await set_aside(
        pipeline,
        letter(pipeline, offset=9, headers=forged),
        letter(pipeline, offset=10, headers=forged[:2]),
        letter(pipeline, offset=11, headers=replayed_before(pipeline, "searches:0:1", value=b"copied from another")),
    )
    plan, _ = await replay(pipeline)
    assert plan.found == {"schema": 3}
    assert plan.refused_again == 0
    assert await offsets_replayed(pipeline) == ["10", "11", "9"]
    assert {named(record)["replay_attempt"] for record in await records(pipeline)} == {"1"}


async def test_a_producers_headers_named_like_ours_hide_no_dead_letter_and_are_sent_back(pipeline: Pipeline) -> None:
    theirs = [("dl_replayed", b"searches:2:8"), ("dl_topic", b"mine"), ("dl_offset", b"0"), ("dl_note", b"n")]
    await set_aside(pipeline, letter(pipeline, offset=7, headers=theirs), letter(pipeline, offset=8))
    plan, _ = await replay(pipeline)
    assert plan.found == {"schema": 2}
    assert await offsets_replayed(pipeline) == ["7", "8"]
    (record,) = [record for record in await records(pipeline) if named(record)["replayed_from"].endswith(":7")]
    assert list(record.headers)[:4] == theirs


async def test_an_unsigned_replay_of_an_earlier_release_is_recognised_by_its_dead_letter(pipeline: Pipeline) -> None:
    first = f"{pipeline.namespace}searches:2:1"
    unsigned = [("replayed_from", first.encode()), ("replay_attempt", b"1")]
    await set_aside(
        pipeline,
        letter(pipeline, offset=1),
        letter(pipeline, offset=5, headers=unsigned, time=TIME + timedelta(hours=1)),
        letter(pipeline, offset=6, headers=unsigned, value=b"other", time=TIME + timedelta(hours=1)),
    )
    plan, _ = await replay(pipeline)
    assert plan.found == {"schema": 2}
    assert {named(record)["replayed_from"] for record in await records(pipeline)} == {
        first,
        f"{pipeline.namespace}searches:2:6",
    }


async def test_an_unfixable_event_stays_one_dead_letter_however_often_it_is_replayed(pipeline: Pipeline) -> None:
    await pipeline.send(
        "searches", [Message(b"hello", key=b"key"), Message(b'{"type": "search.performed"}', key=b"key")]
    )
    with pipeline.worker(agents="searches") as worker:
        await worker.until_ready()
        await pipeline.settled("searches")
        for attempt in range(3):
            dry_run = await inkstream(pipeline.environment, "replay", "searches", "--dry-run")
            assert "2 would be sent." in dry_run.output
            assert ("2 of these were replayed before and refused again" in dry_run.output) == (attempt > 0)
            plan, result = await replay(pipeline)
            assert plan.found == {"not-json": 1, "schema": 1}
            assert result.sent == {"not-json": 1, "schema": 1}
            assert [found.attempts for found in plan.selected] == [attempt, attempt]
            await pipeline.settled("searches")
    assert len(await pipeline.read("searches.dead-letter")) == 8 + 6
    plan, _ = await replay(pipeline)
    assert plan.found == {"not-json": 1, "schema": 1}


async def test_a_dead_letter_refused_for_another_reason_shows_the_latest(pipeline: Pipeline) -> None:
    again = replayed_before(pipeline, f"{pipeline.namespace}searches:2:1")
    await set_aside(
        pipeline,
        letter(pipeline, offset=1, reason="not-json"),
        letter(pipeline, offset=5, headers=again, reason="refused-by-store", time=TIME + timedelta(hours=1)),
    )
    ended = await inkstream(pipeline.environment, "replay", "searches", "--dry-run")
    assert "message 5" in ended.output
    assert "message 1" not in ended.output
    plan, _ = await replay(pipeline)
    assert plan.found == {"refused-by-store": 1}


async def test_ids_that_imitate_ours_replace_no_other_event(pipeline: Pipeline) -> None:
    """Records of one partition: the producers that imitate know at which offsets events without an id will be."""
    example = pipeline.topics.all["searches"].events["search.performed"].examples[0]
    event = {**example, "type": "search.performed"}
    plain = orjson.dumps(event)
    place = f"{pipeline.namespace}searches:0"
    imitated = orjson.dumps({**event, "eventId": f"{place}:5"})
    by_header = Message(plain, [("ce_id", f"{place}:6".encode()), ("ce_type", b"search.performed")])
    claims = Message(plain, [("replayed_from", f"{place}:7".encode()), ("replay_attempt", b"1")])
    signed = Message(plain, [("replayed_from", f"{place}:8".encode()), ("replay_signature", b"0" * 64)])
    letters = Message(plain, [("dl_topic", b"x"), ("dl_partition", b"0"), ("dl_offset", b"8")])
    await pipeline.send("searches", [Message(imitated), by_header, claims, signed, letters], partition=0)
    await pipeline.send("searches", [Message(plain)] * 4, partition=0)
    with pipeline.worker(agents="searches") as worker:
        await worker.until_ready()
        await pipeline.settled("searches")
        places = {f"{place}:{offset}" for offset in (2, 4, 5, 6, 7, 8)}
        stored = {f"id:{place}:5", f"id:{place}:6", *places}
        assert set(await pipeline.documents("searchQueries")) == stored
        # What claims a signature that is none is refused, and known by its own place once it is replayed.
        plan, _ = await replay(pipeline)
        assert [(one.origin, one.first) for one in plan.selected] == [(f"{place}:3", "")]
        await pipeline.settled("searches")
    assert set(await pipeline.documents("searchQueries")) == {*stored, f"{place}:3"}
    assert set(await pipeline.documents("analyticsEvents")) == {*stored, f"{place}:3"}


async def test_a_record_without_key_and_value_is_sent_back(pipeline: Pipeline) -> None:
    aside = letter(pipeline, offset=1, key=None, value=b"")
    await pipeline.send("searches.dead-letter", [aside], value_serializer=lambda value: value or None)
    await replay(pipeline)
    (record,) = await records(pipeline)
    assert (record.key, record.value) == (None, None)


async def test_a_record_that_is_not_a_dead_letter_is_skipped(pipeline: Pipeline) -> None:
    await set_aside(pipeline, Message(b"by hand"), letter(pipeline, offset=1))
    plan, result = await replay(pipeline)
    assert plan.foreign == 1
    assert result.sent == {"schema": 1}


async def test_a_record_that_kafka_refuses_is_reported_and_stays_open(pipeline: Pipeline) -> None:
    larger_than_the_topic_takes = random.Random(1).randbytes(2_000_000)
    await set_aside(pipeline, letter(pipeline, offset=1, value=larger_than_the_topic_takes), letter(pipeline, offset=2))
    ended = await inkstream(pipeline.environment, "replay", "searches")
    assert ended.code == 1
    assert f"Kafka refused {pipeline.namespace}searches:2:1" in ended.output
    assert await offsets_replayed(pipeline) == ["2"]
    plan, result = await replay(pipeline)
    assert [waiting.origin for waiting in plan.selected] == [f"{pipeline.namespace}searches:2:1"]
    assert len(result.refused) == 1


async def test_an_unknown_topic_is_reported_with_the_nearest(pipeline: Pipeline) -> None:
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
