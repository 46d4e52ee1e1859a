"""Real servers for the tests: one platform on free ports, started once and always stopped."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import count

import psutil
import psycopg
import pytest

from dev.stack import LOCAL, Platform, Ports
from sinks.mongo.client import Mongo
from sinks.mongo.schema_sync import sync_schema
from tests.integration.pipeline import Pipeline
from tests.integration.their_posts import Theirs

_PREFIX = "test-"
# `tests/tools` has these fixtures as well: a run of everything starts two platforms in one process.
_NUMBERS = count(1)


def _forget_left_over() -> None:
    """Stop and delete the platforms of test runs that were killed before they could do so."""
    for directory in LOCAL.glob(f"{_PREFIX}*"):
        process, _, _ = directory.name.removeprefix(_PREFIX).partition("-")
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            with suppress(FileNotFoundError):  # another process of this test run was faster
                Platform(directory, Ports()).forget()


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The four servers, ready. A test that stops or kills one starts it again."""
    _forget_left_over()
    # Kafka lives for minutes here: its start and its first requests take more CPU than better code would save.
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    servers = Platform(LOCAL / f"{_PREFIX}{os.getpid()}-{next(_NUMBERS)}", Ports.free())
    try:
        servers.up(print)
        yield servers
    finally:
        servers.forget()


@pytest.fixture
async def mongo(platform: Platform) -> AsyncIterator[Mongo]:
    """A database of the test's own, with the declared collections."""
    sink = Mongo.connect(platform.mongo.url.replace("/blog-platform", f"/test-{uuid.uuid4().hex[:8]}"))
    await sync_schema(sink.database, check=False)
    yield sink
    await sink.database.client.drop_database(sink.database.name)
    await sink.close()


@pytest.fixture
async def counting(platform: Platform) -> AsyncIterator[Pipeline]:
    """The topics of page views and their counts alone, with a PostgreSQL database of its own."""
    its_own = Pipeline(platform, only=("page-views", "view-windows", "post-view-counts"))
    its_own.own_tables()
    await its_own.prepare()
    yield its_own
    await its_own.forget()


@pytest.fixture
async def pipeline(platform: Platform) -> AsyncIterator[Pipeline]:
    """Topics and collections of the test's own, ready, on the shared servers."""
    its_own = Pipeline(platform)
    await its_own.prepare()
    yield its_own
    await its_own.forget()


@pytest.fixture
async def theirs(platform: Platform) -> AsyncIterator[Theirs]:
    pipeline = Pipeline(platform, only=("page-views",))
    pipeline.own_tables()
    await pipeline.migrate()
    async with await psycopg.AsyncConnection.connect(pipeline.tables_url, autocommit=True) as owner:
        its_own = Theirs(pipeline, owner)
        yield its_own
        await its_own.close()
    await pipeline.forget()
