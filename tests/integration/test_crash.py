"""The process dies, in the middle of everything, again and again: nothing is lost, nothing is there twice."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import orjson

from tests.integration.pipeline import Message, Pipeline, headers_of, plain, until

START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=6)


def view(number: int) -> Message:
    return plain(
        type="page.viewed",
        eventId=f"view-{number}",
        postId=f"post-{number % 50}",
        postSlug=f"post-{number % 50}",
        sessionId=f"session-{number % 700}",
        ipAddress=f"81.2.69.{number % 250 + 1}",
        userAgent="Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
        timestamp=(START + timedelta(seconds=number)).isoformat(),
    )


def leaving(number: int, seconds: int) -> Message:
    return plain(
        type="page.exited",
        eventId=f"exit-{number}-{seconds}",
        postId=f"post-{number % 50}",
        viewId=f"view-{number}",
        timeSpent=seconds,
        scrollDepth=number % 101,
        interacted=number % 2 == 0,
        exitedAt=(START + timedelta(seconds=number + seconds)).isoformat(),
    )


async def run_with_kills(pipeline: Pipeline, agent: str, collection: str, kills: int, seed: int) -> None:
    """Run workers of an agent, each killed once it has stored a few more documents; let the last one finish."""
    chance = random.Random(seed)
    for _ in range(kills):
        before = await pipeline.collection(collection).estimated_document_count()
        wanted = before + chance.randint(1, 400)

        async def progressed(wanted: int = wanted) -> bool:
            stored = await pipeline.collection(collection).estimated_document_count()
            return stored >= wanted or await pipeline.lag(agent) == 0

        with pipeline.worker(agents=agent, batch_records=100) as worker:
            await until(progressed, f"{wanted} documents in {collection}")
            worker.kill()
    with pipeline.worker(agents=agent):
        await pipeline.settled(agent)


async def test_views_and_exits_survive_kills_each_once_and_complete(pipeline: Pipeline) -> None:
    views = 6_000
    chance = random.Random(1)
    messages = [view(number) for number in range(views)]
    messages += [leaving(number, 30) for number in range(0, views, 2)]
    messages += [leaving(number, 90) for number in range(0, views, 4)]
    messages += chance.sample(messages, 300)  # sent twice by their producers
    messages += [Message(b'{"broken": %d' % number) for number in range(50)]
    chance.shuffle(messages)
    sent = await pipeline.send("page-views", messages)
    await run_with_kills(pipeline, "page-views", "pageViews", kills=6, seed=2)

    documents = await pipeline.documents("pageViews")
    assert set(documents) == {f"view-{number}" for number in range(views)}
    for number in range(views):
        seconds = 90 if number % 4 == 0 else 30 if number % 2 == 0 else 0
        document = documents[f"view-{number}"]
        assert "incomplete" not in document
        assert document["postId"] == f"post-{number % 50}"
        assert document["timestamp"] == START + timedelta(seconds=number)
        assert document["timeSpent"] == seconds
        assert document.get("exitedAt") == (START + timedelta(seconds=number + seconds) if seconds else None)
        assert document["interacted"] == (number % 2 == 0)
    letters = await pipeline.read("page-views.dead-letter")
    broken = {
        place for place, message in zip(sent, messages, strict=True) if (message.value or b"").startswith(b'{"br')
    }
    origins = {(int(headers["dl_partition"]), int(headers["dl_offset"])) for headers in map(headers_of, letters)}
    assert origins == broken


async def test_error_groups_count_every_line_once_through_kills(pipeline: Pipeline) -> None:
    chance = random.Random(3)
    messages = [
        plain(
            eventId=f"line-{number}",
            level="error" if number % 3 else "info",
            message=f"could not save comment {number}",
            service=f"blogs-{number % 5}",
            environment="production",
            timestamp=(START + timedelta(seconds=number)).isoformat(),
        )
        for number in range(4_000)
    ]
    messages += chance.sample(messages, 400)
    chance.shuffle(messages)
    await pipeline.send("log-lines", messages)
    await run_with_kills(pipeline, "log-lines", "systemLogs", kills=6, seed=4)

    assert set(await pipeline.documents("systemLogs")) == {f"line-{number}" for number in range(4_000)}
    groups = {group["service"]: group for group in (await pipeline.documents("errorLogs")).values()}
    for service in range(5):
        numbers = [number for number in range(4_000) if number % 3 and number % 5 == service]
        group = groups[f"blogs-{service}"]
        assert group["occurrenceCount"] == len(numbers)
        assert group["firstOccurrence"] == START + timedelta(seconds=numbers[0])
        assert group["lastOccurrence"] == START + timedelta(seconds=numbers[-1])
        assert group["message"] == orjson.loads(b'"could not save comment %d"' % numbers[-1])


async def test_sigterm_finishes_what_is_in_flight_and_exits_0(pipeline: Pipeline) -> None:
    await pipeline.send("page-views", [view(number) for number in range(3_000)])

    async def begun() -> bool:
        return await pipeline.collection("pageViews").estimated_document_count() > 0

    with pipeline.worker(agents="page-views", batch_records=100) as worker:
        await until(begun, "the first view is stored")
        assert worker.terminate() == 0
    stored = await pipeline.collection("pageViews").count_documents({})
    assert await pipeline.lag("page-views") == 3_000 - stored, "all that was stored was committed"


async def test_two_workers_share_the_partitions_and_a_dead_ones_go_to_the_other(pipeline: Pipeline) -> None:
    with (
        pipeline.worker(agents="page-views", batch_records=50) as one,
        pipeline.worker(agents="page-views", batch_records=50) as other,
    ):
        await one.until_ready()
        await other.until_ready()
        for round_number in range(3):
            first = round_number * 1_000
            await pipeline.send("page-views", [view(number) for number in range(first, first + 1_000)])
            if round_number == 1:
                one.kill()
        await pipeline.settled("page-views")
    assert set(await pipeline.documents("pageViews")) == {f"view-{number}" for number in range(3_000)}


async def test_a_worker_that_is_stopped_amid_a_rebalance_exits_0(pipeline: Pipeline) -> None:
    with pipeline.worker(agents="page-views") as one, pipeline.worker(agents="page-views") as other:
        await one.until_ready()
        await other.until_ready()
        other.freeze()
        await pipeline.send("page-views", [view(number) for number in range(100)])
        await pipeline.settled("page-views")  # Kafka has taken the other for dead
        other.thaw()

        async def without_partitions() -> bool:
            return not any(name.startswith("inkstream_lag_records") for name in await asyncio.to_thread(other.metrics))

        await until(without_partitions, "the other knows that it has lost its partitions")
        assert other.terminate() == 0


async def test_a_worker_that_is_stopped_before_it_has_joined_leaves_nothing_open_and_exits_0(
    pipeline: Pipeline,
) -> None:
    with pipeline.worker(agents="page-views") as one:
        await one.until_ready()
        one.freeze()  # the group waits for it to join again, and so does whoever comes
        with pipeline.worker(agents="page-views") as other:

            async def joins() -> bool:
                return b"joining" in (await asyncio.to_thread(other.page, "/readyz"))[1]

            await until(joins, "the other is joining the group")
            assert other.terminate() == 0
            assert "Unclosed" not in other.log.read_text()
