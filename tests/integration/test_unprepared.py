"""Workers that can't start or continue: they exit at once, with the reason and what to do."""

import time

import pytest

from sinks.postgres.pool import schema_of
from tests.integration.pipeline import Message, Pipeline, Worker, plain, until

ENDS_WITHIN_SECONDS = 60.0
LONG = 600
"""Seconds that a stop would wait for batches in flight."""


async def ended(worker: Worker, seconds: float = ENDS_WITHIN_SECONDS) -> tuple[int, str]:
    """Return the exit code of a worker that ends by itself, and its log."""

    async def has_ended() -> bool:
        return worker.process.poll() is not None

    await until(has_ended, "the worker has ended", seconds)
    return worker.process.wait(), worker.log.read_text()


async def test_a_worker_without_topics_exits_and_says_how_to_create_them(pipeline: Pipeline) -> None:
    with pipeline.worker(namespace="nobody-made.") as worker:
        code, said = await ended(worker)
    assert code == 1
    assert "Kafka lacks topic nobody-made." in said
    assert "Run `inkstream bootstrap`" in said
    assert "Traceback" not in said
    assert "MongoDB lacks collection nobody-made." in said


async def test_only_topics_of_the_agents_that_run_are_needed(counting: Pipeline) -> None:
    with counting.worker(agents="page-views,post-comments") as worker:
        code, said = await ended(worker)
    assert (code, "no agent post-comments" in said) == (2, True)
    with counting.worker(agents="page-views") as worker:
        await worker.until_ready()
    with counting.worker(agents="page-views,notify-domain-events") as worker:
        code, said = await ended(worker)
    assert code == 1
    assert "domain-events, " in said
    assert "log-lines" not in said


@pytest.mark.parametrize("collection", ["pageViews", "notificationQueue"])
async def test_a_worker_without_a_collection_does_not_let_mongodb_create_it(
    counting: Pipeline, collection: str
) -> None:
    await counting.collection(collection).drop()
    with counting.worker() as worker:
        code, said = await ended(worker)
    assert code == 1
    assert f"MongoDB lacks collection {counting.namespace}{collection}\n" in said
    assert "Run `inkstream bootstrap`" in said
    assert counting.namespace + collection not in await counting.database.list_collection_names()


async def test_a_worker_without_tables_names_the_migrations(counting: Pipeline) -> None:
    counting.rows(f"DROP SCHEMA {schema_of(counting.namespace)} CASCADE")
    with counting.worker() as worker:
        code, said = await ended(worker)
    assert code == 1
    assert "PostgreSQL lacks migration 0001_schema.sql, " in said
    assert "Run `inkstream bootstrap`" in said
    await counting.prepare()
    with counting.worker() as worker:
        await worker.until_ready()


def tracked(number: int) -> Message:
    return plain(
        eventId=f"event-{number}", eventType="thing_done", category="engagement", entityId="e", entityType="thing"
    )


async def test_an_unknown_refusal_stops_the_worker_at_once_without_changes(pipeline: Pipeline) -> None:
    await pipeline.collection("analyticsEvents").drop()
    await pipeline.database.command("create", pipeline.namespace + "analyticsEvents", viewOn="elsewhere", pipeline=[])
    await pipeline.send("analytics-events", [tracked(number) for number in range(10)])
    with pipeline.worker(stop_timeout=LONG) as worker:
        began = time.monotonic()
        code, said = await ended(worker)
        print(f"the worker ended after {time.monotonic() - began:.1f} s, of which its start takes most")
    assert code == 1
    assert "MongoDB refused to write to analyticsEvents with error 166" in said
    assert "batches abandoned" in said
    assert await pipeline.committed("analytics-events") == 0
    assert await pipeline.read("analytics-events.dead-letter") == []
    await pipeline.collection("analyticsEvents").drop()
    await pipeline.prepare()
    with pipeline.worker() as worker:
        await pipeline.settled("analytics-events")
    assert len(await pipeline.documents("analyticsEvents")) == 10


async def test_running_agents_finish_their_batches_after_another_agent_failed(pipeline: Pipeline) -> None:
    await pipeline.collection("analyticsEvents").drop()
    await pipeline.database.command("create", pipeline.namespace + "analyticsEvents", viewOn="elsewhere", pipeline=[])
    with pipeline.worker(stop_timeout=30) as worker:
        await worker.until_ready()
        lines = [plain(level="info", message=f"line {number}", service="a", environment="b") for number in range(500)]
        await pipeline.send("log-lines", lines)
        await pipeline.send("analytics-events", [tracked(1)])
        code, _ = await ended(worker)
    assert code == 1
    stored = await pipeline.documents("systemLogs")
    assert len(stored) == await pipeline.committed("log-lines")
