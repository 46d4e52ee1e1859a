"""Measure one run of one alternative over a whole topic.

Input: a platform. Output: figures.
Every run gets a database of its own with all of the declared indexes, and begins when MongoDB is idle. Progress is what
the server itself counts, read from outside, so no alternative has to be believed.
"""

import asyncio
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from bench import traffic
from bench.programs import Program, ProgramError, RunningProgram, Task, running
from bench.usage import Usage
from dev.stack import Platform, Ports
from ops.commands.command import quieten_clients
from sinks.collections import COLLECTIONS
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.schema_sync import sync_schema

POLL_SECONDS = 0.02
LOOK_SECONDS = 0.2
FIRST_WITHIN_SECONDS = 120.0
STILL_SECONDS = 30.0
RESTS_WITHIN_SECONDS = 15.0
_RESTS_BELOW = 0.08

Database = AsyncDatabase[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to.

    Attributes:
        rate: Events per second, from the first document seen to the last.
        first_seconds: From the start of the process to the first document.
        cpu_seconds: CPU of the alternative and of all that it started, from its start to the last document.
        mongod_cpu_seconds: CPU of the MongoDB server over the same time.
        cpu_us_per_event: CPU of the alternative for an event, from the first document on: without starting up.
        mongod_us_per_event: CPU of the MongoDB server for an event, from the first document on.
        peak_mebibytes: The most memory that the alternative and what it started had at once.
        events: How many were stored in that time: fewer than there are, where the time was up.
    """

    rate: float
    first_seconds: float
    cpu_seconds: float
    mongod_cpu_seconds: float
    cpu_us_per_event: float
    mongod_us_per_event: float
    peak_mebibytes: float
    events: int


@contextmanager
def arena(report: Callable[[str], None]) -> Iterator["Arena"]:
    """Bring up a platform of its own; stop and forget it after the block, however that ends."""
    quieten_clients()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="inkstream-bench-") as directory:
        platform = Platform(Path(directory), Ports.free())
        try:
            platform.up(report)
            yield Arena(platform, Path(directory))
        finally:
            platform.forget()


class _Start(NamedTuple):
    """What was so at the first document: the moment, documents, seconds since the start, and CPU seconds."""

    at: float
    stored: int
    seconds: float
    cpu_seconds: float
    mongod_cpu_seconds: float


class Arena:
    """The platform that all alternatives run on, one after the other.

    Args:
        platform: Its Kafka and its MongoDB are used.
        directory: For the alternatives' files and output.
    """

    def __init__(self, platform: Platform, directory: Path) -> None:
        self.platform = platform
        self.brokers = platform.kafka.brokers
        self._directory = directory

    @asynccontextmanager
    async def database(self, namespace: str = "", *, validated: bool) -> AsyncIterator[tuple[NamespacedDatabase, str]]:
        """Make a database with the declared collections and indexes; drop it after the block.

        Args:
            namespace: Of the topics that are read; it begins the names of the collections.
            validated: Whether the collections check documents, as they do for Inkstream.
        """
        url = self.platform.mongo.url.replace("/blog-platform", f"/bench-{uuid.uuid4().hex[:8]}")
        async with AsyncMongoClient[dict[str, Any]](url) as client:
            database = NamespacedDatabase(client, namespace)
            await sync_schema(database, check=False)
            if not validated:
                for name in COLLECTIONS:
                    await database.command({"collMod": database.name_of(name), "validator": {}})
            await client.admin.command("fsync")
            await self._until_mongod_rests()
            yield database, url
            await client.drop_database(database.name)

    async def mongodb_version(self) -> str:
        """Return which MongoDB this is."""
        async with AsyncMongoClient[dict[str, Any]](self.platform.mongo.url) as client:
            return str((await client.server_info())["version"])

    async def task(self, topic: str, mongo_url: str) -> Task:
        """Return the task to copy a topic from its beginning, with a group and a directory of its own."""
        await traffic.rewind(self.brokers, topic)
        name = f"bench-{uuid.uuid4().hex[:8]}"
        return Task(self.brokers, topic, name, mongo_url, self._directory / name)

    async def race(
        self,
        program: Program,
        topic: str,
        events: int,
        documents: Mapping[str, int],
        *,
        validated: bool,
        processes: int = 1,
        within: float = 120.0,
    ) -> Figures:
        """Run a program over a whole topic, into a fresh database.

        Args:
            program: What is run.
            topic: What it reads.
            events: How many the topic holds.
            documents: How many documents they become, by collection; the run ends when all are there.
            validated: Whether MongoDB checks the documents.
            processes: How many of the program share the work.
            within: Seconds after the first document at which the run ends in any case.

        Raises:
            ProgramError: It ended, stands still, or stored nothing in time.
        """
        async with (
            self.database(traffic.namespace_of(topic), validated=validated) as (database, url),
            AsyncExitStack() as stack,
        ):
            task = await self.task(topic, url)
            tasks = [task._replace(directory=task.directory / str(number)) for number in range(processes)]
            mongod = Usage(self._mongod_pid)
            running_programs = [await stack.enter_async_context(running(program, each)) for each in tasks]
            figures = await _watch(database, running_programs, mongod, events, documents, within)
        shutil.rmtree(task.directory, ignore_errors=True)
        return figures

    @property
    def _mongod_pid(self) -> int:
        pid = self.platform.mongo.pid
        assert pid is not None
        return pid

    async def _until_mongod_rests(self) -> None:
        """Wait, for a bounded time, until what was dropped before is cleared away."""
        mongod = psutil.Process(self._mongod_pid)
        deadline = time.monotonic() + RESTS_WITHIN_SECONDS
        mongod.cpu_percent()
        while time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            if mongod.cpu_percent() < 100 * _RESTS_BELOW:
                return


async def until_stored(database: Database, count: int, running_program: RunningProgram) -> None:
    """Return once so many page views are stored.

    Raises:
        ProgramError: It ended, or stands still before.
    """
    stored, moved = 0, time.perf_counter()
    while stored < count:
        before, stored = stored, await database["pageViews"].estimated_document_count()
        if stored > before:
            moved = time.perf_counter()
        _check([running_program], stored, count, time.perf_counter() - moved)
        await asyncio.sleep(POLL_SECONDS)


async def _watch(
    database: Database,
    running_programs: Sequence[RunningProgram],
    mongod: Usage,
    events: int,
    documents: Mapping[str, int],
    within: float,
) -> Figures:
    """Look on until all documents are there, or the time is up."""
    family = Usage(*(running_program.pid for running_program in running_programs))
    wanted = sum(documents.values())
    first: _Start | None = None
    looked = 0.0
    stored, moved = 0, time.perf_counter()
    while True:
        # Each by itself: what is there twice in one collection does not stand for what is missing in another.
        counts = [await database[name].estimated_document_count() for name in documents]
        before, stored = stored, sum(map(min, counts, documents.values()))
        now = time.perf_counter()
        if stored > before:
            moved = now
        is_over = stored >= wanted or (first is not None and now - first.at > within)
        if now - looked >= LOOK_SECONDS or is_over or (stored and first is None):
            looked = now
            family.look()
            mongod.look()
        if stored and first is None:
            seconds = max(running_program.seconds for running_program in running_programs)
            first = _Start(now, stored, seconds, family.cpu_seconds, mongod.cpu_seconds)
        if is_over and first is not None:
            break
        _check(running_programs, stored, wanted, now - moved)
        await asyncio.sleep(POLL_SECONDS)
    since_first = events * (stored - first.stored) / wanted
    return Figures(
        rate=since_first / max(now - first.at, POLL_SECONDS),
        first_seconds=first.seconds,
        cpu_seconds=family.cpu_seconds,
        mongod_cpu_seconds=mongod.cpu_seconds,
        cpu_us_per_event=(family.cpu_seconds - first.cpu_seconds) / max(since_first, 1) * 1e6,
        mongod_us_per_event=(mongod.cpu_seconds - first.mongod_cpu_seconds) / max(since_first, 1) * 1e6,
        peak_mebibytes=family.peak_bytes / 2**20,
        events=round(events * stored / wanted),
    )


def _check(running_programs: Sequence[RunningProgram], stored: int, wanted: int, still_seconds: float) -> None:
    patience = STILL_SECONDS if stored else FIRST_WITHIN_SECONDS
    for running_program in running_programs:
        if running_program.has_ended or still_seconds > patience:
            end = "ended" if running_program.has_ended else "stands still"
            raise ProgramError(f"It {end} at {stored:,} of {wanted:,} documents. {running_program.last_words}")
