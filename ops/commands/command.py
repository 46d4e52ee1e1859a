"""What all commands have in common: an exit code, and errors that fit on one screen.

In come the exceptions that a command may end with; out go a message on standard error and the exit code: 2 for wrong
usage or settings, 1 for a problem that was found.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

import click
from faust.cli.base import Command, cli
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

from runtime.settings import Settings
from schemas.declarations import DeclarationError
from schemas.topics import Topics, load
from sinks.collections import NAMES

PROBLEM = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class InkstreamCommand(Command):
    """A command that runs in an event loop of its own, without a worker: no agents, no consumers, no web server.

    A subclass has `options`, and `run`, which takes their values by name and returns the exit code. Its docstring is
    its help. What is said as `inkstream notifications show` has `notifications` as its `group`.
    """

    abstract: ClassVar[bool] = True
    group: ClassVar[click.Group] = cli

    @classmethod
    def as_click_command(cls) -> Callable[..., Any]:
        """Make it a command of its group; Faust knows but one."""

        @click.pass_context
        def command(context: click.Context, /, **values: Any) -> NoReturn:
            cls(context, **values)()

        for add in reversed(cls.options or ()):
            command = add(command)
        return cls.group.command(cls.__name__.lower(), help=cls.__doc__)(command)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command, and exit."""
        import structlog

        quieten_clients()
        # What a command prints may be read by machines.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        with reported_errors():
            if not self.kwargs.get("markdown"):  # the pages of docs/ are the same whatever is set
                check_configuration()
            raise SystemExit(asyncio.run(self.run(**self.kwargs)))

    async def run(self, *args: Any, **kwargs: Any) -> int:
        """Do what the command is for, and return the exit code."""
        raise NotImplementedError


def check_configuration() -> Settings:
    """Return the settings; settings, files and declarations have been checked.

    Raises:
        ConfigurationError: It lists all that is missing or wrong.
    """
    from agents.configuration import check  # only now, so that `--help` comes at once

    return check()


def declared_topics(settings: Settings) -> Topics:
    """Return the topics, as the settings have them.

    Raises:
        DeclarationError: The file is wrong, or missing.
    """
    return load(settings.topics_file, NAMES, partitions=settings.partitions, replication=settings.replication)


def quieten_clients() -> None:
    """Keep the clients of the servers from telling at length what a command says in one line."""
    for chatty in ("aiokafka", "psycopg.pool", "pymongo", "redis"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn errors that a user can do something about into a message and an exit code; let others pass."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        _report(error)
        if isinstance(error.__cause__, Exception):  # Faust tells in its own words that it can't load the application
            _report(error.__cause__)
        raise


def _report(error: Exception) -> None:
    """Exit with a message, where the error is one that a user can do something about."""
    # Imported only now, so that `--help` comes at once.
    from agents.configuration import ConfigurationError, problems_of
    from agents.server_problems import SERVER_ERRORS, ServerError, first_line, problem_of
    from enrich.geo import GeoDatabaseError
    from ops.dead_letters import SelectionError
    from providers.registry import ProviderSettingsError
    from sinks.postgres.pool import PostgresUrlError
    from sinks.servers import MongoUrlError, RedisUrlError

    match error:
        case click.ClickException():
            error.show()
            raise SystemExit(error.exit_code)
        case ValidationError() if error.title == Settings.__name__:
            fail(problems_of(error), WRONG_USAGE)
        case ConfigurationError():
            fail(error.lines, WRONG_USAGE)
        case SettingsError() | DeclarationError() | SelectionError():
            fail([str(error)], WRONG_USAGE)
        case GeoDatabaseError():
            fail([f"INKSTREAM_GEO_DATABASE: {error}"], WRONG_USAGE)
        case MongoUrlError():
            fail([f"INKSTREAM_MONGO_URL: {first_line(error)}"], WRONG_USAGE)
        case PostgresUrlError():
            fail([f"INKSTREAM_POSTGRES_URL: {error}"], WRONG_USAGE)
        case ProviderSettingsError():
            fail([str(error)], WRONG_USAGE)
        case RedisUrlError():
            fail([f"INKSTREAM_REDIS_URL: {error}"], WRONG_USAGE)
        case ServerError():
            fail([str(error)], PROBLEM)
        case _ if isinstance(error, SERVER_ERRORS):
            fail([str(problem_of(error, Settings()))], PROBLEM)


def fail(lines: Iterable[str], code: int) -> NoReturn:
    """Print the lines on standard error, and exit."""
    console = Console(stderr=True, soft_wrap=True)
    for line in lines:
        console.print(line, style="red", markup=False, highlight=False)
    raise SystemExit(code)
