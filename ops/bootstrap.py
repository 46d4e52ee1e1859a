"""Makes Kafka, MongoDB and PostgreSQL what the program declares: topics, collections, tables.

Safe to repeat, to break off, and to run twice at once. What could harm existing data waits until its risk is allowed
(`sinks.changes`). Redis needs nothing: every key there is made when it is first written.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from aiokafka.errors import KafkaError

from delivery import kafka
from ops import kafka_topics
from ops.settings import ROOT, Settings
from schemas.topics import Topic
from sinks import convergence, migrations, postgres
from sinks.changes import NO_RISKS, Change, Risk
from sinks.collections import NAMES
from sinks.mongo import Mongo
from sinks.servers import STORE_ERRORS

SERVER_ERRORS: tuple[type[Exception], ...] = (KafkaError, TimeoutError, *STORE_ERRORS)
"""What the clients of all servers raise when a server does not answer, or refuses us."""

MIGRATIONS = ROOT / "migrations"

ANSWER_TIMEOUT = timedelta(seconds=5)

_ASK_AGAIN_AFTER_SECONDS = 0.5
_NAMED = 5
"""How many missing things are named."""
_DETAILS = re.compile(r"\n| \(configured timeouts|, Timeout: ")  # where the drivers' own state begins


class ServerError(Exception):
    """A server does not answer, or refuses us; the message says which, and what it says."""


def first_line(error: BaseException) -> str:
    """Return what an error says, without what only the driver's developers want to know."""
    text = _DETAILS.split(str(error).strip() or type(error).__name__, maxsplit=1)[0]
    return text.removeprefix(f"{type(error).__name__}: ")


async def wait_for_servers(settings: Settings, *, seconds: float, report: Callable[[str], None]) -> None:
    """Return when Kafka, MongoDB and PostgreSQL answer.

    Args:
        settings: Where they are.
        seconds: How long to wait for them; 0 asks each once.
        report: Gets a line for each server that does not answer at once.

    Raises:
        MongoUrlError: MongoDB's URL is wrong, or what DNS says of it.
        ServerError: One did not answer in time.
    """
    mongo = Mongo.connect(settings.mongo_url.get_secret_value(), timeout=ANSWER_TIMEOUT)
    pings: Mapping[str, Callable[[], Awaitable[object]]] = {
        "Kafka": partial(kafka.ping, settings),
        "MongoDB": mongo.ping,
        "PostgreSQL": partial(postgres.describe, settings.postgres_url.get_secret_value()),
    }
    deadline = time.monotonic() + seconds
    try:
        problems = await asyncio.gather(*(_wait(server, ping, deadline, report) for server, ping in pings.items()))
    finally:
        await mongo.close()
    if silent := [problem for problem in problems if problem is not None]:
        raise ServerError("\n".join(silent))


async def wait_for_kafka(settings: Settings, *, seconds: float, report: Callable[[str], None]) -> None:
    """Return when Kafka answers; `seconds` and `report` are as for all servers.

    Raises:
        ServerError: It did not answer in time.
    """
    problem = await _wait("Kafka", partial(kafka.ping, settings), time.monotonic() + seconds, report)
    if problem is not None:
        raise ServerError(problem)


async def missing(settings: Settings, topics: Mapping[str, Topic]) -> list[str]:
    """Return what a worker needs and `inkstream bootstrap` has not created yet: a line for each server that lacks some.

    A server that does not answer is passed over: the worker waits for it.

    Args:
        settings: Where the servers are, and which agents the worker runs.
        topics: The declared topics by name.

    Raises:
        MongoUrlError: MongoDB's URL is wrong, or what DNS says of it.
    """
    names = {agent.removeprefix("notify-") for agent in settings.agents} or topics.keys()
    wanted = kafka_topics.declared([topic for topic in topics.values() if topic.name in names], settings.namespace)
    questions: Mapping[str, Callable[[], Awaitable[Iterable[str]]]] = {
        "Kafka lacks topic": partial(_missing_topics, settings, [topic.name for topic in wanted]),
        "MongoDB lacks collection": partial(_missing_collections, settings.mongo_url.get_secret_value()),
        "PostgreSQL lacks": partial(_missing_migrations, settings.postgres_url.get_secret_value()),
    }
    found = await asyncio.gather(*(_answer(question) for question in questions.values()))
    return [f"{what} {_listed(lacking)}" for what, lacking in zip(questions, found, strict=True) if lacking]


async def _answer(question: Callable[[], Awaitable[Iterable[str]]]) -> list[str]:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
            return sorted(await question())
    except SERVER_ERRORS:
        return []


async def _missing_topics(settings: Settings, names: Iterable[str]) -> Iterable[str]:
    async with kafka_topics.administration(settings) as admin:
        return set(names) - (await kafka_topics.partition_counts(admin)).keys()


async def _missing_collections(url: str) -> Iterable[str]:
    mongo = Mongo.connect(url, timeout=ANSWER_TIMEOUT)
    try:
        return NAMES - set(await mongo.database.list_collection_names())
    finally:
        await mongo.close()


async def _missing_migrations(url: str) -> Iterable[str]:
    changes = await migrations.migrate(url, migrations.read(MIGRATIONS), check=True)
    return [change.what for change in changes if change.action == "create"]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


async def _wait(
    server: str, ping: Callable[[], Awaitable[object]], deadline: float, report: Callable[[str], None]
) -> str | None:
    """Return when the server answers, or what is wrong when it did not in time."""
    reported = False
    while True:
        try:
            await ping()
        except SERVER_ERRORS as error:
            problem = f"{server}: {first_line(error)}"
            if time.monotonic() >= deadline:
                return problem
            if not reported:
                report(f"waiting for {problem}")
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
    """Make all servers what is declared, and return what was not so.

    Args:
        settings: Where the servers are, and the namespace of the topics.
        topics: The declared topics.
        mongo: MongoDB's client.
        check: Change nothing.
        allowed: The risks that may be taken. A change with another one is only returned.
        report: Gets each server's name and changes, as soon as it is done.

    Raises:
        ServerError: A server does not answer, or refuses a change. What was done by then stays done.
    """
    wanted = kafka_topics.declared(topics, settings.namespace)
    tables = migrations.read(MIGRATIONS)
    steps: Mapping[str, Callable[[], Awaitable[list[Change]]]] = {
        "Kafka": partial(kafka_topics.converge, settings, wanted, check=check, allowed=allowed),
        "MongoDB": partial(convergence.converge, mongo.database, check=check, allowed=allowed),
        "PostgreSQL": partial(migrations.migrate, settings.postgres_url.get_secret_value(), tables, check=check),
    }
    changes = []
    for server, step in steps.items():
        try:
            of_server = await step()
        except SERVER_ERRORS as error:
            raise ServerError(f"{server}: {first_line(error)}") from error
        report(server, of_server)
        changes += of_server
    return changes
