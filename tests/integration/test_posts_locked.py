"""While the platform holds a lock on its posts: it is reported, nothing else waits, and counts are exact afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, LiteralString

import orjson
import psycopg
import pytest

from enrich.view_windows import Window
from sinks.postgres.post_locks import LOCKED, Blocker, PostsLockedError
from sinks.postgres.view_windows import WindowCount
from tests.command_line import inkstream
from tests.integration.pipeline import Pipeline, until
from tests.integration.test_view_counts import TOPICS, view
from tests.integration.their_posts import NOON, POSTS, Theirs

SECONDS = 60
"""Bounds what must not wait for a lock that is held until the test ends; the machine has other things to do."""

TABLE_LOCKS: dict[str, LiteralString] = {
    "a migration": "ALTER TABLE theirs ADD COLUMN subtitle text",
    "ACCESS EXCLUSIVE": "LOCK TABLE theirs",
    "EXCLUSIVE": "LOCK TABLE theirs IN EXCLUSIVE MODE",
    "SHARE ROW EXCLUSIVE": "LOCK TABLE theirs IN SHARE ROW EXCLUSIVE MODE",
    "an index that is built": "CREATE INDEX ON theirs (views)",
}


@asynccontextmanager
async def held(url: str, statement: LiteralString) -> AsyncIterator[Blocker]:
    """Run a statement in a transaction of the platform's that stays open."""
    async with await psycopg.AsyncConnection.connect(url, application_name="flyway") as platform:
        await platform.execute(statement)
        yield Blocker(platform.info.backend_pid, "flyway")
        await platform.rollback()


async def locks_of_ours(theirs: Theirs) -> list[tuple[Any, ...]]:
    """Return the locks on the platform's table that we hold or wait for."""
    return await theirs.rows(
        "SELECT mode, granted FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE relation = 'theirs'::regclass AND application_name = 'inkstream'"
    )


@pytest.mark.parametrize("kind", TABLE_LOCKS)
async def test_counts_are_kept_while_the_table_is_locked_and_exact_afterwards(theirs: Theirs, kind: str) -> None:
    await theirs.create()
    await theirs.view(1, *POSTS)
    other = theirs.worker()
    async with held(theirs.pipeline.tables_url, TABLE_LOCKS[kind]) as holder, asyncio.timeout(SECONDS):
        for views in (2, 3):
            await theirs.view(views, *POSTS)
        await asyncio.gather(
            theirs.view(4, *POSTS), other.apply([WindowCount(Window("first", NOON), 5, NOON)]), theirs.counts.ping()
        )
        assert await theirs.rows("SELECT post_id, views, applied FROM inkstream.counted_posts ORDER BY 1") == [
            ("first", 5, 1),
            ("last", 4, 1),
            ("middle", 4, 1),
        ]
        with pytest.raises(PostsLockedError) as raised:
            await theirs.counts.maintain()
        assert str(raised.value) == f"the update of view counts waits for a lock on theirs, held by {holder}"
        assert raised.value.since < datetime.now(UTC)
        with pytest.raises(PostsLockedError) as again:
            await theirs.counts.maintain()
        assert again.value.since == raised.value.since
        assert await locks_of_ours(theirs) == []
    assert (await theirs.counts.maintain()).set_aside == []
    assert await theirs.views() == {"first": 5, "last": 4, "middle": 4}
    await theirs.view(6, *POSTS)
    assert await theirs.views() == dict.fromkeys(POSTS, 6)


ROW_LOCKS: dict[str, LiteralString] = {
    "edits it": "UPDATE theirs SET views = views WHERE id = 'last'",
    "holds it": "SELECT FROM theirs WHERE id = 'last' FOR UPDATE",
    "shares it": "SELECT FROM theirs WHERE id = 'last' FOR SHARE",
    "deletes it": "DELETE FROM theirs WHERE id = 'last'",
}


@pytest.mark.parametrize("kind", ROW_LOCKS)
async def test_a_long_transaction_on_one_post_holds_up_no_other(theirs: Theirs, kind: str) -> None:
    await theirs.create()
    async with held(theirs.pipeline.tables_url, ROW_LOCKS[kind]) as holder, asyncio.timeout(SECONDS):
        await theirs.view(3, *POSTS)
        assert await theirs.views() == {"first": 3, "last": 0, "middle": 3}
        assert await theirs.refused() == {}, "for a moment, any row may be held"
        await theirs.let_wait_end()
        assert await theirs.refused() == {LOCKED: 1}
        assert await theirs.counts.blockers("last") == [holder]
        assert await theirs.counts.blockers("first") == []
        assert await locks_of_ours(theirs) == []
    await theirs.let_wait_end()
    assert await theirs.refused() == {}
    assert await theirs.views() == dict.fromkeys(POSTS, 3)


@pytest.mark.parametrize("slow", [("last",), POSTS])
async def test_a_trigger_that_waits_for_a_lock_elsewhere_holds_up_its_posts_alone(
    theirs: Theirs, slow: Collection[str]
) -> None:
    many = [*POSTS, *(f"post-{number}" for number in range(30))]
    await theirs.create(ids=many)
    await theirs.execute(
        "CREATE TABLE totals (n int)",
        "INSERT INTO totals VALUES (0)",
        "CREATE FUNCTION total() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
        "UPDATE totals SET n = n + 1; RETURN NEW; END $$",
        "CREATE TRIGGER total AFTER UPDATE ON theirs FOR EACH ROW WHEN (NEW.id = 'last') EXECUTE FUNCTION total()",
    )
    if slow == POSTS:
        await theirs.execute("DROP TRIGGER total ON theirs")
        await theirs.execute(
            "CREATE TRIGGER total AFTER UPDATE ON theirs FOR EACH ROW WHEN (NEW.id IN ('first', 'last', 'middle')) "
            "EXECUTE FUNCTION total()"
        )
    async with held(theirs.pipeline.tables_url, "UPDATE totals SET n = n"), asyncio.timeout(SECONDS):
        await theirs.view(2, *many)
        for _ in range(3):
            await theirs.let_wait_end()
            await theirs.counts.maintain()
        assert {post for post, views in (await theirs.views()).items() if not views} == set(slow)
    await theirs.let_wait_end()
    assert (await theirs.counts.maintain()).set_aside == []
    assert await theirs.views() == dict.fromkeys(many, 2)


async def test_a_migration_that_waits_for_a_reader_is_not_held_up_by_us(theirs: Theirs) -> None:
    await theirs.create()
    url = theirs.pipeline.tables_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as migration:
        async with held(url, "SELECT * FROM theirs"):
            altering = asyncio.create_task(migration.execute("ALTER TABLE theirs ADD COLUMN subtitle text"))

            async def queued() -> bool:
                return bool(
                    await theirs.rows("SELECT FROM pg_locks WHERE relation = 'theirs'::regclass AND NOT granted")
                )

            await until(queued, "the migration waits for the reader")
            async with asyncio.timeout(SECONDS):
                await theirs.view(2, *POSTS)
                assert await locks_of_ours(theirs) == []
            assert not altering.done()
        async with asyncio.timeout(SECONDS):
            await altering
    await theirs.counts.maintain()
    assert await theirs.views() == dict.fromkeys(POSTS, 2)


async def test_a_repair_holds_no_lock_on_posts_while_it_counts(theirs: Theirs) -> None:
    await theirs.create()
    await theirs.view(3, *POSTS)
    window = Window("first", NOON)

    async def count(_: object) -> dict[Window, int]:
        async with held(theirs.pipeline.tables_url, "LOCK TABLE theirs IN ACCESS EXCLUSIVE MODE NOWAIT"):
            return {window: 2}

    await theirs.counts.repair([], [window], count)
    assert await theirs.views() == {"first": 2, "last": 3, "middle": 3}


async def test_a_repair_and_a_verification_say_who_holds_the_lock(theirs: Theirs) -> None:
    await theirs.create()
    await theirs.view(3, *POSTS)

    async def count(_: object) -> dict[Window, int]:
        return {}

    async with held(theirs.pipeline.tables_url, "LOCK TABLE theirs") as holder:
        with pytest.raises(PostsLockedError, match="flyway"):
            await theirs.counts.repair(POSTS, [], count)
        ended, doctor = await asyncio.gather(
            inkstream(theirs.environment, "verify", "counts"), inkstream(theirs.environment, "doctor", "--json")
        )
        assert (ended.code, f"held by {holder}" in ended.errors) == (1, True), ended
        assert "Run it again when the lock is released" in ended.errors
    (finding,) = [found for found in json.loads(doctor.output)["findings"] if found["subject"] == "view counts"]
    assert finding["state"] == "problem"
    assert finding["what"] == f"the update of views waits for a lock on theirs, held by {holder}"


async def test_doctor_says_who_holds_the_row_of_a_post(theirs: Theirs) -> None:
    await theirs.create()
    async with held(theirs.pipeline.tables_url, ROW_LOCKS["edits it"]) as holder:
        await theirs.view(3, *POSTS)
        await theirs.let_wait_end()
        await theirs.counts.maintain()
        doctor = await inkstream(theirs.environment, "doctor", "--json")
    (finding,) = [found for found in json.loads(doctor.output)["findings"] if found["subject"] == "view counts"]
    assert "1 post with 55P03, since 20" in finding["what"]
    assert finding["what"].endswith(f"for example last, held by {holder}")


async def test_a_worker_reports_the_lock_stays_ready_and_stores_page_views_meanwhile(counting: Pipeline) -> None:
    counting.add_posts(["one", "two"])
    with counting.worker(count_every=0.1) as worker:
        await worker.until_ready()
        await counting.send("page-views", [view(0, "one", datetime.now(UTC))])
        await counting.settled(*TOPICS)
        async with held(counting.tables_url, "LOCK TABLE posts") as holder:
            await counting.send("page-views", [view(number, "two", datetime.now(UTC)) for number in range(1, 9)])
            await counting.settled(*TOPICS)
            assert len(await counting.documents("pageViews")) == 9

            async def told() -> bool:
                status, body = await asyncio.to_thread(worker.page, "/readyz")
                degraded = orjson.loads(body).get("degraded", {}).get("view counts", {})
                assert status == 200, body
                return f"waits for a lock on posts, held by {holder}" in degraded.get("problem", "")

            await until(told, "readiness names the lock and who holds it")
            metrics = await asyncio.to_thread(worker.metrics)
            assert metrics["inkstream_posts_locked_seconds"] > 0
            assert metrics['inkstream_dependency_up{dependency="postgresql"}'] == 1
            assert metrics["inkstream_posts_missing"] == 0
            assert "LOCK TABLE" not in worker.log.read_text(), "what others run is nobody's business"

        async def exact() -> bool:
            return counting.view_counts() == {"one": 1, "two": 8}

        await until(exact, "counts have caught up")
        await counting.settled(*TOPICS)

        async def unlocked() -> bool:
            metrics = await asyncio.to_thread(worker.metrics)
            return metrics["inkstream_posts_locked_seconds"] == 0

        await until(unlocked, "the metric is 0 again")
        assert b"degraded" not in worker.page("/readyz")[1]
        assert worker.terminate() == 0
