"""Creates or updates topics in Kafka, collections in MongoDB and tables in PostgreSQL as declared.

Safe to repeat, to interrupt, and to run concurrently. A change that could harm existing data is applied only if its
risk is allowed (`sinks.changes`). Redis needs no preparation: keys are created when they are first written.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from agents.server_problems import SERVER_ERRORS, ServerError, problem_of
from delivery import kafka
from ops import kafka_topics
from runtime.settings import ROOT, Settings
from schemas.topics import Topic
from sinks.changes import NO_RISKS, Change, Risk, is_allowed
from sinks.collections import NAMES
from sinks.mongo import schema_sync
from sinks.mongo.client import Mongo
from sinks.postgres import installation, migrations, pool
from sinks.servers import ANSWER_TIMEOUT

UNMOVED = "PostgreSQL and MongoDB contain data of an earlier release, whose names lack the namespace {}"
MOVE_IT = f"stop all workers, then run `inkstream bootstrap {Risk.MOVE.flag}` (docs/operations.md, Moving)"

MIGRATIONS = ROOT / "migrations"

_ASK_AGAIN_AFTER_SECONDS = 0.5
_NAMED = 5
"""Most names listed in a message."""


async def wait_for_servers(settings: Settings, *, seconds: float, report: Callable[[str], None]) -> None:
    """Wait until Kafka, MongoDB and PostgreSQL answer.

    Args:
        settings: The addresses of the servers.
        seconds: How long to wait; 0 means one attempt.
        report: Called with a line for each server that does not answer at once.

    Raises:
        MongoUrlError: MongoDB's URL, or its DNS record, is wrong.
        ServerError: A server did not answer in time.
    """
    mongo = _mongo(settings)
    pings: Mapping[str, Callable[[], Awaitable[object]]] = {
        "Kafka": partial(kafka.ping, settings),
        "MongoDB": mongo.ping,
        "PostgreSQL": partial(pool.describe, settings.postgres_url.get_secret_value(), settings.namespace),
    }
    deadline = time.monotonic() + seconds
    try:
        problems = await asyncio.gather(
            *(_wait(settings, server, ping, deadline, report) for server, ping in pings.items())
        )
    finally:
        await mongo.close()
    if silent := [problem for problem in problems if problem is not None]:
        raise ServerError("\n".join(silent))


async def wait_for_kafka(settings: Settings, *, seconds: float, report: Callable[[str], None]) -> None:
    """Wait until Kafka answers; `seconds` and `report` are as in `wait_for_servers`.

    Raises:
        ServerError: Kafka did not answer in time.
    """
    problem = await _wait(settings, "Kafka", partial(kafka.ping, settings), time.monotonic() + seconds, report)
    if problem is not None:
        raise ServerError(problem)


async def missing(settings: Settings, topics: Mapping[str, Topic]) -> list[str]:
    """Return what a worker needs and `inkstream bootstrap` has not created yet, one line for each server.

    A server that does not answer is skipped: the worker waits for it.

    Args:
        settings: The addresses of the servers, and the agents that the worker runs.
        topics: The declared topics by name.

    Raises:
        MongoUrlError: MongoDB's URL, or its DNS record, is wrong.
    """
    names = {agent.removeprefix("notify-") for agent in settings.agents} or topics.keys()
    wanted = kafka_topics.declared([topic for topic in topics.values() if topic.name in names], settings.namespace)
    questions: Mapping[str, Callable[[], Awaitable[Iterable[str]]]] = {
        "Kafka lacks topic": partial(_missing_topics, settings, [topic.name for topic in wanted]),
        "MongoDB lacks collection": partial(_missing_collections, settings),
        "PostgreSQL lacks": partial(_missing_migrations, settings),
    }
    found = await asyncio.gather(*(_answer(question) for question in questions.values()))
    return [f"{what} {_listed(lacking)}" for what, lacking in zip(questions, found, strict=True) if lacking]


async def refusal(settings: Settings) -> str | None:
    """Return why a worker must not use the data in the stores, and what to do; `None` if it may.

    The data belongs to another installation or to an earlier release. A server that does not answer is skipped.
    """
    mongo = _mongo(settings)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
            if await installation.move(mongo.database, settings.postgres_url.get_secret_value(), check=True):
                return unmoved(settings)
            blocked = [change for change in await _tables(settings, check=True) if change.action == "blocked"]
            return f"PostgreSQL: {blocked[0].what}: {blocked[0].detail}." if blocked else None
    except SERVER_ERRORS:
        return None
    finally:
        await mongo.close()


def unmoved(settings: Settings) -> str:
    """Return the message that an earlier release's data has to be moved, and how."""
    return f"{UNMOVED.format(settings.namespace)}: {MOVE_IT}."


async def _answer(question: Callable[[], Awaitable[Iterable[str]]]) -> list[str]:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
            return sorted(await question())
    except SERVER_ERRORS:
        return []


async def _missing_topics(settings: Settings, names: Iterable[str]) -> Iterable[str]:
    async with kafka_topics.administration(settings) as admin:
        return set(names) - (await kafka_topics.partition_counts(admin)).keys()


async def _missing_collections(settings: Settings) -> Iterable[str]:
    mongo = _mongo(settings)
    try:
        wanted = {mongo.database.name_of(name) for name in NAMES}
        return wanted - set(await mongo.database.list_collection_names())
    finally:
        await mongo.close()


async def _missing_migrations(settings: Settings) -> Iterable[str]:
    changes = await _tables(settings, check=True)
    return [change.what for change in changes if change.action == "create"]


def _mongo(settings: Settings) -> Mongo:
    return Mongo.connect(settings.mongo_url.get_secret_value(), settings.namespace, timeout=ANSWER_TIMEOUT)


async def _tables(settings: Settings, *, check: bool) -> list[Change]:
    url = settings.postgres_url.get_secret_value()
    return await migrations.migrate(url, migrations.read(MIGRATIONS), settings.namespace, check=check)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


async def _wait(
    settings: Settings,
    server: str,
    ping: Callable[[], Awaitable[object]],
    deadline: float,
    report: Callable[[str], None],
) -> str | None:
    """Wait until the server answers; return the problem if it does not in time, else `None`."""
    reported = False
    while True:
        try:
            await ping()
        except SERVER_ERRORS as error:
            is_late = time.monotonic() >= deadline
            if is_late or not reported:
                problem = await asyncio.to_thread(problem_of, error, settings, server)
                if is_late:
                    return str(problem)
                report(f"waiting for {server}: {problem.what}")
                reported = True
            await asyncio.sleep(_ASK_AGAIN_AFTER_SECONDS)
        else:
            return None


def _say_nothing(server: str, changes: list[Change]) -> None:
    pass


async def converge(
    settings: Settings,
    topics: Iterable[Topic],
    mongo: Mongo,
    *,
    check: bool,
    allowed: Collection[Risk] = NO_RISKS,
    report: Callable[[str, list[Change]], None] = _say_nothing,
) -> list[Change]:
    """Apply the declarations to all servers; return the differences.

    Args:
        settings: The addresses of the servers, and the namespace of the topics.
        topics: The declared topics.
        mongo: MongoDB's client.
        check: Only return the differences, without changing anything.
        allowed: The allowed risks. A change with another risk is returned but not applied.
        report: Called with each server's name and changes, when the server is done.

    Raises:
        ServerError: A server does not answer, or refuses a change. Changes applied before are kept.
    """
    wanted = kafka_topics.declared(topics, settings.namespace)
    steps: dict[str, Callable[[], Awaitable[list[Change]]]] = {
        "Kafka": partial(kafka_topics.converge, settings, wanted, check=check, allowed=allowed)
    }
    # Otherwise empty collections and tables would be created beside those to be moved.
    if not await move(settings, mongo, check=True):
        steps["MongoDB"] = partial(schema_sync.sync_schema, mongo.database, check=check, allowed=allowed)
        steps["PostgreSQL"] = partial(_tables, settings, check=check)
    changes = []
    for server, step in steps.items():
        async with _naming(settings, server):
            of_server = await step()
        report(server, of_server)
        changes += of_server
    return changes


async def move(settings: Settings, mongo: Mongo, *, check: bool, allowed: Collection[Risk] = NO_RISKS) -> list[Change]:
    """Rename an earlier release's data to names with the namespace; return what has to be renamed.

    Renames nothing if anything prevents it, including a running worker.

    Args:
        settings: The addresses of the servers, and the namespace.
        mongo: MongoDB's client.
        check: Only return the differences, without changing anything.
        allowed: The allowed risks; without `Risk.MOVE`, nothing is renamed.

    Raises:
        ServerError: A server does not answer, or refuses a change. Changes applied before are kept.
    """
    moving = partial(installation.move, mongo.database, settings.postgres_url.get_secret_value())
    async with _naming(settings):
        changes = await moving(check=True)
    if not changes:
        return []
    async with _naming(settings, "Kafka"):
        changes += await _running_workers(settings)
    if check or not is_allowed(changes, allowed) or any(change.action == "blocked" for change in changes):
        return changes
    async with _naming(settings):
        return await moving(check=False)


async def _running_workers(settings: Settings) -> list[Change]:
    async with kafka_topics.administration(settings) as admin:
        readers = await kafka_topics.readers(admin, f"{settings.namespace}inkstream.")
    stop = "stop all workers of this installation first: data that they write during the move would keep the old names"
    return [Change("blocked", f"move while {len(readers)} agents run", stop)] if readers else []


@asynccontextmanager
async def _naming(settings: Settings, server: str | None = None) -> AsyncIterator[None]:
    """Turn a client's error into a `ServerError` that names the server and what to try."""
    try:
        yield
    except SERVER_ERRORS as error:
        raise ServerError(str(await asyncio.to_thread(problem_of, error, settings, server))) from error
