"""Makes Kafka, MongoDB and PostgreSQL what the program declares: topics, collections, tables.

In come settings and declarations; out goes, for each server, what was changed or would be. Safe to repeat, to break off,
and to run twice at once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from aiokafka.errors import KafkaError

from delivery import kafka
from ops import kafka_topics
from ops.settings import ROOT, Settings
from schemas.topics import Topic
from sinks import convergence, migrations, postgres
from sinks.convergence import Change
from sinks.mongo import Mongo
from sinks.servers import STORE_ERRORS

SERVER_ERRORS: tuple[type[Exception], ...] = (KafkaError, TimeoutError, *STORE_ERRORS)
"""What the clients of all servers raise when a server does not answer, or refuses us."""

MIGRATIONS = ROOT / "migrations"

_ASK_AGAIN_AFTER_SECONDS = 0.5


class ServerError(Exception):
    """A server does not answer, or refuses us; the message says which, and what it says."""

    def __init__(self, server: str, error: BaseException) -> None:
        super().__init__(f"{server}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Return what an error says, without what follows its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


async def wait_for_servers(
    settings: Settings, mongo: Mongo, *, seconds: float, report: Callable[[str], None]
) -> None:
    """Return when Kafka, MongoDB and PostgreSQL answer.

    Args:
        settings: Where they are.
        mongo: MongoDB's client.
        seconds: How long to wait for them; 0 asks each once.
        report: Gets a line for each server that does not answer at once.

    Raises:
        ServerError: One did not answer in time.
    """
    pings: Mapping[str, Callable[[], Awaitable[object]]] = {
        "Kafka": partial(kafka.ping, settings),
        "MongoDB": mongo.ping,
        "PostgreSQL": partial(postgres.describe, settings.postgres_url.get_secret_value()),
    }
    deadline = time.monotonic() + seconds
    async with asyncio.TaskGroup() as waiting:
        for server, ping in pings.items():
            waiting.create_task(_wait(server, ping, deadline, report))


async def _wait(
    server: str, ping: Callable[[], Awaitable[object]], deadline: float, report: Callable[[str], None]
) -> None:
    reported = False
    while True:
        try:
            await ping()
        except SERVER_ERRORS as error:
            if time.monotonic() >= deadline:
                raise ServerError(server, error) from error
            if not reported:
                report(f"waiting for {server}: {first_line(error)}")
                reported = True
            await asyncio.sleep(_ASK_AGAIN_AFTER_SECONDS)
        else:
            return


async def converge(
    settings: Settings, topics: Iterable[Topic], mongo: Mongo, *, check: bool
) -> dict[str, list[Change]]:
    """Make all servers what is declared, and return for each what was not so; with `check`, change nothing.

    Raises:
        ServerError: A server does not answer, or refuses a change. What was done by then stays done.
    """
    wanted = kafka_topics.declared(topics, settings.namespace)
    tables = migrations.read(MIGRATIONS)
    steps: Mapping[str, Callable[[], Awaitable[list[Change]]]] = {
        "Kafka": partial(kafka_topics.converge, settings, wanted, check=check),
        "MongoDB": partial(convergence.converge, mongo.database, check=check),
        "PostgreSQL": partial(migrations.migrate, settings.postgres_url.get_secret_value(), tables, check=check),
    }
    changes = {}
    for server, step in steps.items():
        try:
            changes[server] = await step()
        except SERVER_ERRORS as error:
            raise ServerError(server, error) from error
    return changes
