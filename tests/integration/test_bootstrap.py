"""`inkstream bootstrap` on the real servers."""

import asyncio
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import psycopg
import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from dev.stack import Platform
from ops import kafka_topics
from ops.bootstrap import MIGRATIONS
from sinks.postgres.migrations import Migration, migrate, read
from sinks.postgres.pool import schema_of
from tests.command_line import inkstream
from tests.integration.pipeline import Pipeline


@pytest.fixture
async def database(platform: Platform) -> AsyncIterator[str]:
    """The URL of an empty PostgreSQL database, in which our role may make a schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    async with await psycopg.AsyncConnection.connect(platform.postgres.owner_url, autocommit=True) as owner:
        await owner.execute(f"CREATE DATABASE {name}")
        await owner.execute(f"GRANT CREATE ON DATABASE {name} TO inkstream")
        yield platform.postgres.url.replace("/blog_platform", f"/{name}")
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty(platform: Platform, database: str) -> AsyncIterator[Pipeline]:
    """A pipeline of which nothing is there yet."""
    pipeline = Pipeline(platform)
    pipeline.environment["INKSTREAM_POSTGRES_URL"] = database
    yield pipeline
    await pipeline.forget()


async def test_a_second_bootstrap_finds_nothing_to_do(empty: Pipeline) -> None:
    first = await inkstream(empty.environment, "bootstrap")
    assert first.code == 0, first.errors
    for line in (
        f"Kafka: missing topic {empty.namespace}page-views: 3 partitions, retention.ms=604800000",
        f"Kafka: missing topic {empty.namespace}page-views.dead-letter: 3 partitions, "
        "retention.ms=2592000000, max.message.bytes=67108864",
        f"MongoDB: missing index {empty.namespace}pageViews.sessionId_1",
        "PostgreSQL: missing migration 0001_schema.sql",
        f"Kafka: {2 * len(empty.topics.all)} applied.",
        f"PostgreSQL: missing owner of schema {schema_of(empty.namespace)}: namespace {empty.namespace}",
        f"PostgreSQL: {len(read(MIGRATIONS)) + 1} applied.",
    ):
        assert line in first.output.splitlines()
    assert await inkstream(empty.environment, "bootstrap") == (0, "Nothing to do.\n", "")
    assert await inkstream(empty.environment, "bootstrap", "--check") == (0, "Everything is up to date.\n", "")


async def test_a_check_lists_what_is_missing_and_changes_nothing(empty: Pipeline) -> None:
    first = await inkstream(empty.environment, "bootstrap", "--check")
    assert first.code == 1
    assert f"Kafka: missing topic {empty.namespace}searches" in first.output
    assert f"MongoDB: missing collection {empty.namespace}auditLogs" in first.output
    assert "PostgreSQL: missing migration 0001_schema.sql" in first.output
    assert await inkstream(empty.environment, "bootstrap", "--check") == first


async def test_two_concurrent_bootstraps_apply_each_change_once(empty: Pipeline) -> None:
    both = await asyncio.gather(*(inkstream(empty.environment, "bootstrap") for _ in range(2)))
    assert [ended.code for ended in both] == [0, 0], both
    applied = re.findall(
        r"^(Kafka|PostgreSQL): (\d+) applied\.$", "".join(ended.output for ended in both), re.MULTILINE
    )
    created = Counter[str]()
    for server, count in applied:
        created[server] += int(count)
    assert created == {"Kafka": 2 * len(empty.topics.all), "PostgreSQL": len(read(MIGRATIONS)) + 1}
    assert (await inkstream(empty.environment, "bootstrap")).output == "Nothing to do.\n"


async def test_a_topic_grows_and_never_shrinks(pipeline: Pipeline) -> None:
    grown = await inkstream({**pipeline.environment, "INKSTREAM_PARTITIONS": "4"}, "bootstrap")
    assert grown.code == 0
    assert f"Kafka: different topic {pipeline.namespace}searches: 4 partitions, was 3" in grown.output
    checked = await inkstream(pipeline.environment, "bootstrap", "--check")
    assert checked.code == 1
    complaint = f"Kafka: different topic {pipeline.namespace}searches: has 4 partitions, 3 are declared"
    assert complaint in checked.output
    left = await inkstream(pipeline.environment, "bootstrap")
    assert left.code == 0
    assert complaint in left.output
    assert f"Nothing to do. {2 * len(pipeline.topics.all)} left unchanged; see above." in left.output


async def test_a_different_option_is_corrected_and_others_are_kept(pipeline: Pipeline) -> None:
    topic = pipeline.namespace + "searches"
    async with kafka_topics.administration(pipeline.settings) as admin:
        by_hand = {"retention.ms": "1000", "segment.bytes": "20000000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=by_hand)])
        ended = await inkstream(pipeline.environment, "bootstrap")
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    assert f"Kafka: different topic {topic}: retention.ms=604800000, was retention.ms=1000" in ended.output
    (resource,) = response.to_object()["resources"]
    options = {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}
    assert (options["retention.ms"], options["segment.bytes"]) == ("604800000", "20000000")


async def test_undeclared_things_are_reported_and_kept(pipeline: Pipeline) -> None:
    async with kafka_topics.administration(pipeline.settings) as admin:
        names = [pipeline.namespace + name for name in ("forgotten", "inkstream-__assignor-__leader")]
        await admin.create_topics([NewTopic(name, 1, 1) for name in names])
    await pipeline.collection("forgotten").insert_one({})
    await pipeline.collection("pageViews").create_index("browser")
    ended = await inkstream(pipeline.environment, "bootstrap", "--check")
    assert ended.code == 0
    assert ended.output.splitlines() == [
        f"Kafka: unexpected topic {names[0]}: not declared, left as it is",
        f"MongoDB: unexpected index {pipeline.namespace}pageViews.browser_1: not declared, left as it is",
        f"MongoDB: unexpected collection {pipeline.namespace}forgotten: not declared, left as it is",
        "Everything is up to date.",
    ]


async def test_bootstrap_waits_for_servers_and_then_names_them(pipeline: Pipeline) -> None:
    nowhere = {
        **pipeline.environment,
        "INKSTREAM_KAFKA_BROKERS": "127.0.0.1:1",
        "INKSTREAM_MONGO_URL": "mongodb://127.0.0.1:1/x?replicaSet=rs0",
        "INKSTREAM_POSTGRES_URL": "postgresql://127.0.0.1:1/x",
    }
    ended = await inkstream(nowhere, "bootstrap", "--wait", "1")
    assert ended.code == 1
    assert "waiting for Kafka: " in ended.output
    assert [line.partition(" ")[0] for line in ended.errors.splitlines()] == ["Kafka", "MongoDB", "PostgreSQL"]
    assert "Traceback" not in ended.errors


async def test_a_wrong_setting_is_reported_by_name_without_a_server(platform: Platform) -> None:
    ended = await inkstream({"INKSTREAM_WEB_PORT": "many"}, "bootstrap")
    assert ended.code == 2
    assert ended.errors.startswith("INKSTREAM_WEB_PORT: input should be a valid integer")
    assert ended.errors.count("\n") == 1


SCHEMA, *_ = read(MIGRATIONS)


async def test_a_migration_changed_after_it_was_applied_is_reported(database: str) -> None:
    await migrate(database, [SCHEMA], check=False)
    changed = SCHEMA._replace(checksum="another")
    for check in (True, False):
        (change,) = await migrate(database, [changed], check=check)
        assert (change.action, change.done) == ("change", False)
        assert change.line.startswith("different migration 0001_schema.sql: changed after it was applied")


async def test_a_migration_that_fails_leaves_nothing_behind(database: str) -> None:
    wrong = Migration("0002_wrong.sql", "CREATE TABLE inkstream.half (id int); SELECT 1 / 0;", "checksum")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(database, [SCHEMA, wrong], check=False)
    assert [change.line for change in await migrate(database, [SCHEMA], check=True)] == [
        "missing migration 0001_schema.sql"
    ]


async def test_a_migration_of_another_release_is_reported_and_kept(database: str) -> None:
    newer = Migration("0099_newer.sql", "CREATE TABLE inkstream.newer (id int)", "checksum")
    await migrate(database, [SCHEMA, newer], check=False)
    (change,) = await migrate(database, [SCHEMA], check=False)
    assert (change.action, change.what) == ("report", "migration 0099_newer.sql")


async def test_a_schema_created_by_the_owner_is_used(platform: Platform, database: str) -> None:
    name = database.rpartition("/")[2]
    owner_url = platform.postgres.owner_url.replace("/blog_platform", f"/{name}")
    async with await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as owner:
        await owner.execute("CREATE SCHEMA inkstream AUTHORIZATION inkstream")
        await owner.execute(f"REVOKE CREATE ON DATABASE {name} FROM inkstream")
    assert [change.done for change in await migrate(database, [SCHEMA], check=False)] == [True]


async def test_a_schema_that_the_role_may_not_create_is_blocked_with_the_statements_to_run(
    platform: Platform, database: str
) -> None:
    name = database.rpartition("/")[2]
    owner_url = platform.postgres.owner_url.replace("/blog_platform", f"/{name}")
    async with await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as owner:
        await owner.execute(f"REVOKE CREATE ON DATABASE {name} FROM inkstream")
        for check in (True, False):
            (blocked,) = await migrate(database, [SCHEMA], "staging.", check=check)
            assert blocked.line == (
                "blocked schema inkstream_staging: no right to create it; as the database's owner: "
                "CREATE SCHEMA inkstream_staging; GRANT USAGE, CREATE ON SCHEMA inkstream_staging TO inkstream;"
            )
        create, grant = re.findall("[A-Z][^;:]+;", str(blocked.detail))
        await owner.execute(create)
        (blocked,) = await migrate(database, [SCHEMA], "staging.", check=False)
        assert blocked.detail == f"no right to create tables in it; as its owner: {grant}"
        await owner.execute(grant)
    assert [change.done for change in await migrate(database, [SCHEMA], "staging.", check=False)] == [True]
