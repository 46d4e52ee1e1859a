"""Installations with different namespaces on the same servers, and one that moves to names with its namespace."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer

from dev.stack import Platform
from enrich.view_windows import LENGTH, Window, start_of
from ops import bootstrap, kafka_topics
from ops.bootstrap import MIGRATIONS
from sinks.changes import Change, Risk
from sinks.collections import COLLECTIONS
from sinks.mongo.client import Mongo
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.schema_sync import sync_schema
from sinks.postgres.migrations import migrate, read
from sinks.postgres.platform_posts import PlatformTable
from sinks.postgres.pool import OtherInstallationError, Pool, is_transient, schema_of
from sinks.postgres.suppressions import Suppressions
from sinks.postgres.view_counts import ViewCounts
from sinks.postgres.view_windows import WindowCount
from sinks.stores import Stores
from tests.command_line import Ended, inkstream
from tests.integration.pipeline import Pipeline, until
from tests.integration.test_view_counts import view

COUNTING = ("page-views", "view-windows", "post-view-counts")
OF_AN_EARLIER_RELEASE = [migration for migration in read(MIGRATIONS) if migration.name < "0005"]
TABLE = PlatformTable("posts", "id", "viewCount")
NOW = datetime.now(UTC)
WINDOW = Window("post-1", start_of(NOW - timedelta(hours=1)))
MOVE = ["bootstrap", "--allow-move"]


async def counts(pool: Pool, *windows: WindowCount) -> None:
    """Count windows as a worker does."""
    await ViewCounts(pool, TABLE).apply(windows)
    await pool.close()


async def move(pipeline: Pipeline, *allowed: Risk, check: bool = False) -> list[Change]:
    """Move an installation as `inkstream bootstrap` does."""
    mongo = Mongo.connect(pipeline.environment["INKSTREAM_MONGO_URL"], pipeline.namespace)
    try:
        return await bootstrap.move(pipeline.settings, mongo, check=check, allowed=allowed)
    finally:
        await mongo.close()


async def collections(pipeline: Pipeline) -> set[str]:
    return set(await pipeline.database.list_collection_names())


def schemas(pipeline: Pipeline) -> set[str]:
    rows = pipeline.rows("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'inkstream')")
    return {name for (name,) in rows}


def with_namespace(pipeline: Pipeline) -> set[str]:
    return {pipeline.namespace + name for name in COLLECTIONS}


@pytest.fixture
async def old(platform: Platform) -> AsyncIterator[Pipeline]:
    """What an earlier release left: a schema `inkstream` that nobody claims, and collections with plain names."""
    pipeline = Pipeline(platform, only=COUNTING)
    pipeline.own_tables()
    pipeline.add_posts(["post-1"], view_count=100)
    url = pipeline.environment["INKSTREAM_POSTGRES_URL"]
    await migrate(url, OF_AN_EARLIER_RELEASE, check=False)
    plain = NamespacedDatabase(pipeline.database.client, "")
    await sync_schema(plain, check=False)
    await plain["notifications"].insert_one({"_id": "kept"}, bypass_document_validation=True)
    with psycopg.connect(pipeline.tables_url) as owner:
        owner.execute(
            "INSERT INTO inkstream.counted_posts (post_id, views, applied, baseline) VALUES ('post-1', 7, 7, 100)"
        )
        owner.execute("INSERT INTO inkstream.view_windows VALUES (%s, %s, 7, %s)", [*WINDOW, NOW])
        owner.execute('UPDATE posts SET "viewCount" = 107')
    pool = Pool(url)
    await Suppressions(pool).add("email", "ada@example.org", "bounced")
    await pool.close()
    yield pipeline
    await pipeline.forget()


# Two installations on the same servers ---------------------------------------------------------------------


async def test_two_installations_on_the_same_servers_keep_all_of_their_data_apart(counting: Pipeline) -> None:
    other = Pipeline(counting.platform, only=COUNTING, beside=counting)
    counting.rows("CREATE TABLE staging_posts (LIKE posts INCLUDING ALL)")
    counting.rows("GRANT SELECT, UPDATE ON staging_posts TO inkstream")
    other.environment["INKSTREAM_POSTS_TABLE"] = "staging_posts"
    await other.prepare()
    both = (counting, other)
    counting.add_posts(["post-1"], view_count=100)
    counting.rows("INSERT INTO staging_posts SELECT * FROM posts")
    with counting.worker() as first, other.worker() as second:
        await asyncio.gather(first.until_ready(), second.until_ready())
        # The same events, so that what is not apart collides.
        await counting.send("page-views", [view(number, "post-1", NOW) for number in range(3)])
        await other.send("page-views", [view(number, "post-1", NOW) for number in range(5)])

        async def counted() -> bool:
            found = counting.rows('SELECT "viewCount" FROM staging_posts')
            return counting.view_counts() == {"post-1": 103} and found == [(105,)]

        await until(counted, "both have counted their own views")
        doctor = await inkstream(other.environment, "doctor", "--json")
        found = {finding["subject"]: finding["what"] for finding in json.loads(doctor.output)["findings"]}
        assert found["collections"] == found["tables"] == "as declared"
    for pipeline, views in zip(both, (3, 5), strict=True):
        assert len(await pipeline.documents("pageViews")) == views
        assert pipeline.rows("SELECT views FROM inkstream.counted_posts") == [(views,)]
        assert pipeline.rows("SELECT namespace FROM inkstream.installation") == [(pipeline.namespace,)]
    assert await collections(counting) == with_namespace(counting) | with_namespace(other)
    ours, theirs = Stores(counting.settings), Stores(other.settings)
    try:
        assert await ours.suppressions.add("email", "ada@example.org", "bounced")
        assert await theirs.suppressions.reason("email", "ada@example.org") is None
        day = timedelta(days=1)
        assert await ours.rate_limits.admit("person", 1, day, "a")
        assert not await ours.rate_limits.admit("person", 1, day, "b")
        assert await theirs.rate_limits.admit("person", 1, day, "b")
    finally:
        await ours.close()
        await theirs.close()
    client = redis.asyncio.from_url(counting.environment["INKSTREAM_REDIS_URL"], decode_responses=True)
    keys = [key async for key in client.scan_iter()]
    await client.aclose()
    for pipeline in both:
        assert any(key.startswith(f"{pipeline.namespace}inkstream:") for key in keys)
    assert not [key for key in keys if key.startswith("inkstream:")]
    await other.forget()


async def test_each_installation_is_seen_by_its_name_at_the_servers(counting: Pipeline) -> None:
    pool = counting.pool()
    async with pool.transaction() as using:
        (row,) = await (await using.execute("SELECT current_setting('application_name') AS name")).fetchall()
    await pool.close()
    assert row["name"] == f"{counting.namespace}inkstream"


async def test_an_open_transaction_of_another_installation_is_left_alone(counting: Pipeline) -> None:
    url = counting.environment["INKSTREAM_MONGO_URL"]
    ours, theirs = Mongo.connect(url, counting.namespace), Mongo.connect(url, "other.")
    await theirs.database["errorLogs"].insert_one({"_id": "group"})
    async with theirs.database.client.start_session() as session:
        await session.start_transaction()
        await theirs.database["errorLogs"].update_one({"_id": "group"}, {"$set": {"count": 1}}, session=session)

        async def is_idle() -> bool:
            idle: list[dict[str, Any]] = [
                {"$currentOp": {"idleSessions": True}},
                {"$match": {"appName": "other.inkstream", "transaction.timeInactiveMicros": {"$gt": 2_500_000}}},
            ]
            return bool(await (await theirs.database.client.admin.aggregate(idle)).to_list())

        await until(is_idle, "the transaction has rested for as long as that of a killed worker")
        await ours.end_abandoned_transactions()
        await session.commit_transaction()
    assert await theirs.database["errorLogs"].find_one() == {"_id": "group", "count": 1}
    await ours.close()
    await theirs.close()


@pytest.mark.parametrize(
    "change", [str.upper, lambda name: name.replace(".", "_"), lambda name: name.replace("-", ".")]
)
async def test_a_namespace_that_would_have_the_same_schema_is_refused_by_whatever_uses_it(
    counting: Pipeline, change: Any
) -> None:
    await counts(counting.pool(), WindowCount(WINDOW, 3, NOW))
    namespace = change(counting.namespace)
    assert schema_of(namespace) == schema_of(counting.namespace)
    url = counting.environment["INKSTREAM_POSTGRES_URL"]
    for check in (True, False):
        (refused,) = await migrate(url, read(MIGRATIONS), namespace, check=check)
        assert refused.line == (
            f"blocked schema {schema_of(namespace)} belongs to the installation with namespace {counting.namespace}: "
            "set another INKSTREAM_NAMESPACE, or use another database"
        )
    # As in a worker that was started while PostgreSQL did not answer.
    with pytest.raises(OtherInstallationError, match="belongs to the installation with namespace") as raised:
        await counts(Pool(url, namespace), WindowCount(WINDOW, 9, NOW))
    assert is_transient(raised.value)
    assert counting.rows("SELECT views FROM inkstream.counted_posts") == [(3,)]


async def test_commands_and_workers_say_why_a_schema_is_refused(counting: Pipeline) -> None:
    other = Pipeline(counting.platform, only=COUNTING, beside=counting, namespace=counting.namespace.upper())
    reason = f"belongs to the installation with namespace {counting.namespace}"
    ended = await inkstream(other.environment, "bootstrap")
    assert (ended.code, reason in ended.output, "1 blocked" in ended.output) == (1, True, True)
    doctor = await inkstream(other.environment, "doctor")
    assert reason in " ".join(doctor.output.split())
    with other.worker() as worker:

        async def has_ended() -> bool:
            return worker.process.poll() is not None

        await until(has_ended, "the worker has ended")
        assert worker.process.returncode == 1
        said = worker.log.read_text()
    assert said.count("\n") == 1
    assert f"{reason}: set another INKSTREAM_NAMESPACE" in said
    await other.forget()


async def test_an_installation_beside_one_without_namespace_begins_with_tables_of_its_own(old: Pipeline) -> None:
    url = old.environment["INKSTREAM_POSTGRES_URL"]
    claimed = await migrate(url, read(MIGRATIONS), check=False)
    assert "created owner of schema inkstream: no namespace" in [change.line for change in claimed]
    assert await migrate(url, read(MIGRATIONS), check=True) == []
    assert await move(old, Risk.MOVE) == []
    await old.prepare()
    assert schemas(old) == {"inkstream", schema_of(old.namespace)}
    assert old.rows("SELECT * FROM inkstream.counted_posts") == []
    assert await collections(old) == COLLECTIONS.keys() | with_namespace(old)


# An installation of an earlier release --------------------------------------------------------------------


async def bootstrapped(pipeline: Pipeline, *arguments: str, prelude: str = "") -> Ended:
    ended = await inkstream(pipeline.environment, *(arguments or MOVE), prelude=prelude)
    assert "Traceback" not in ended.errors
    return ended


async def test_without_its_flag_a_move_waits_and_nothing_begins_anew(old: Pipeline) -> None:
    ended = await bootstrapped(old, "bootstrap")
    assert ended.code == 3
    for line in (
        f"Namespace: different collection pageViews: renamed to {old.namespace}pageViews; needs --allow-move",
        f"Namespace: different schema inkstream: renamed to {schema_of(old.namespace)}; needs --allow-move",
    ):
        assert line in ended.output.splitlines()
    assert ended.output.splitlines()[-1] == (
        "13 not applied: they can harm existing data. To apply: `inkstream bootstrap --allow-move`"
    )
    assert await collections(old) == COLLECTIONS.keys()
    assert schemas(old) == {"inkstream"}
    doctor = await inkstream(old.environment, "doctor", "--json")
    findings = {finding["subject"]: finding for finding in json.loads(doctor.output)["findings"]}
    assert "data of an earlier release" in findings["namespace"]["what"]
    assert "inkstream bootstrap --allow-move" in findings["namespace"]["advice"]
    with old.worker() as worker:

        async def has_ended() -> bool:
            return worker.process.poll() is not None

        await until(has_ended, "the worker has ended")
        assert worker.process.returncode == 1
        said = worker.log.read_text()
    assert said.count("\n") == 1
    assert "run `inkstream bootstrap --allow-move`" in said
    assert await collections(old) == COLLECTIONS.keys()


async def test_a_moved_installation_goes_on_where_it_was(old: Pipeline) -> None:
    moved = await bootstrapped(old)
    assert moved.code == 0, moved.output
    assert "Namespace: 13 applied." in moved.output.splitlines()
    assert (await bootstrapped(old)).output == "Nothing to do.\n"
    assert await collections(old) == with_namespace(old)
    assert schemas(old) == {schema_of(old.namespace)}
    assert old.rows("SELECT namespace FROM inkstream.installation") == [(old.namespace,)]
    assert await old.documents("notifications") == {"kept": {"_id": "kept"}}
    pool = old.pool()
    assert await Suppressions(pool).reason("email", "ada@example.org") == "bounced"
    await pool.close()
    with old.worker() as worker:
        await worker.until_ready()
        later = WINDOW.start + 2 * LENGTH
        await old.send("page-views", [view(number, "post-1", later) for number in range(4)])

        async def counted() -> bool:
            return old.view_counts() == {"post-1": 111}

        await until(counted, "the new views are counted on top of the old ones")
    assert old.rows("SELECT views, baseline FROM inkstream.counted_posts") == [(11, 100)]


DIES_AFTER_A_COLLECTION = """
import os
from sinks.postgres import installation
rename, left = installation._rename, [{renamed}]
async def dies(database, name):
    if not left[0]:
        os._exit(9)
    left[0] -= 1
    await rename(database, name)
installation._rename = dies
"""
DIES_BEFORE_THE_SCHEMA = """
import os
from sinks.postgres import installation
fetch = installation.fetch
async def dies(using, name, *arguments, **parameters):
    if name == "rename_schema":
        os._exit(9)
    return await fetch(using, name, *arguments, **parameters)
installation.fetch = dies
"""
DIES_AFTER_THE_SCHEMA = """
import os
from ops import bootstrap, kafka_topics
move = bootstrap.move
async def dies(*arguments, **parameters):
    changes = await move(*arguments, **parameters)
    if not parameters["check"]:
        os._exit(9)
    return changes
bootstrap.move = dies
"""


@pytest.mark.parametrize(
    ("prelude", "waits"),
    [
        (DIES_AFTER_A_COLLECTION.format(renamed=0), True),
        (DIES_AFTER_A_COLLECTION.format(renamed=5), True),
        (DIES_BEFORE_THE_SCHEMA, True),
        (DIES_AFTER_THE_SCHEMA, False),
    ],
    ids=["before the first collection", "amid the collections", "before the schema", "before the claim"],
)
async def test_a_move_that_crashed_is_finished_by_the_next_one(old: Pipeline, prelude: str, waits: bool) -> None:
    assert (await bootstrapped(old, *MOVE, prelude=prelude)).code == 9
    assert bool(await move(old, check=True)) == waits
    await move(old, Risk.MOVE)
    await old.prepare()
    assert await collections(old) == with_namespace(old)
    assert schemas(old) == {schema_of(old.namespace)}
    assert await old.documents("notifications") == {"kept": {"_id": "kept"}}
    assert old.rows("SELECT views, applied, baseline FROM inkstream.counted_posts") == [(7, 7, 100)]
    assert old.rows("SELECT namespace FROM inkstream.installation") == [(old.namespace,)]


async def test_two_moves_at_once_move_it_once(old: Pipeline) -> None:
    await asyncio.gather(*(move(old, Risk.MOVE) for _ in range(3)))
    assert await collections(old) == with_namespace(old)
    assert schemas(old) == {schema_of(old.namespace)}


async def test_nothing_moves_while_a_worker_runs(old: Pipeline) -> None:
    await kafka_topics.converge(
        old.settings, kafka_topics.declared(old.topics.all.values(), old.namespace), check=False
    )
    reading = AIOKafkaConsumer(
        bootstrap_servers=old.platform.kafka.brokers, group_id=f"{old.namespace}inkstream.page-views"
    )
    reading.subscribe([f"{old.namespace}page-views"])
    await reading.start()

    async def is_seen() -> bool:
        return any(change.action == "blocked" for change in await move(old, Risk.MOVE))

    try:
        await until(is_seen, "the reader is in its group")
    finally:
        await reading.stop()
    assert await collections(old) == COLLECTIONS.keys()
    assert schemas(old) == {"inkstream"}
    moved = await move(old, Risk.MOVE)
    assert {change.done for change in moved} == {True}


async def test_a_collection_that_exists_under_both_names_is_left_to_a_person(old: Pipeline) -> None:
    await old.collection("pageViews").insert_one({"_id": "new"})
    (blocked,) = [change for change in await move(old, Risk.MOVE) if change.action == "blocked"]
    assert blocked.line == (
        f"blocked collection pageViews: can't be renamed to {old.namespace}pageViews, which exists too; "
        "keep one of them, and drop or rename the other"
    )
    assert await collections(old) == COLLECTIONS.keys() | {f"{old.namespace}pageViews"}
    assert schemas(old) == {"inkstream"}


async def test_a_schema_that_we_may_not_rename_is_renamed_by_its_owner(old: Pipeline) -> None:
    old.rows("ALTER SCHEMA inkstream OWNER TO CURRENT_USER")
    old.rows("GRANT USAGE ON SCHEMA inkstream TO inkstream")
    (blocked,) = [change for change in await move(old, Risk.MOVE) if change.action == "blocked"]
    statement = f"ALTER SCHEMA inkstream RENAME TO {schema_of(old.namespace)}"
    assert blocked.line == f"blocked schema inkstream: no right to rename it; as its owner: {statement}"
    with psycopg.connect(old.tables_url) as owner:
        owner.execute(statement.encode())
        owner.execute(f"GRANT CREATE ON SCHEMA {schema_of(old.namespace)} TO inkstream".encode())
    assert {change.line.partition(" ")[2].partition(" ")[0] for change in await move(old, check=True)} == {"collection"}
    await move(old, Risk.MOVE)
    await old.prepare()
    assert await collections(old) == with_namespace(old)
    assert old.rows("SELECT views FROM inkstream.counted_posts") == [(7,)]
    assert old.rows("SELECT namespace FROM inkstream.installation") == [(old.namespace,)]
