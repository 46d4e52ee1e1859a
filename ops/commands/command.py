"""The base of all commands: it runs a command and turns expected errors into a short message and an exit code.

Exit codes: 0 success, 1 a problem was found, 2 wrong usage or settings, 130 interrupted. Messages go to standard error.
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
    its help text. The command `inkstream notifications show` has `notifications` as its `group`.
    """

    abstract: ClassVar[bool] = True
    group: ClassVar[click.Group] = cli

    @classmethod
    def as_click_command(cls) -> Callable[..., Any]:
        """Add the command to its group; Faust supports only one group."""

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
        # Standard output is for the result, which a program may parse.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        with reported_errors():
            if not self.kwargs.get("markdown"):  # the pages of docs/ do not depend on settings
                self.check_configuration()
            raise SystemExit(asyncio.run(self.run(**self.kwargs)))

    def check_configuration(self) -> None:
        """Check the configuration before the command runs."""
        check_configuration()

    async def run(self, *args: Any, **kwargs: Any) -> int:
        """Run the command and return the exit code."""
        raise NotImplementedError


def check_configuration(*, with_providers: bool = True) -> Settings:
    """Check settings, files and declarations; return the settings.

    Args:
        with_providers: Whether the providers of e-mail and push are checked as well.

    Raises:
        ConfigurationError: Something is missing or wrong; the error lists every problem.
    """
    from agents.configuration import check  # imported here, so that `--help` is fast

    return check(with_providers=with_providers)


def declared_topics(settings: Settings) -> Topics:
    """Return the declared topics, with the partitions and replication of the settings.

    Raises:
        DeclarationError: The file is wrong, or missing.
    """
    return load(settings.topics_file, NAMES, partitions=settings.partitions, replication=settings.replication)


def quieten_clients() -> None:
    """Silence the log of the server clients: a command reports their errors in one line."""
    for chatty in ("aiokafka", "psycopg.pool", "pymongo", "redis"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn errors that a user can fix into a message and an exit code; let other errors pass."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        _report(error)
        if isinstance(error.__cause__, Exception):  # Faust wraps errors of loading the application
            _report(error.__cause__)
        raise


def _report(error: Exception) -> None:
    """Exit with a message if a user can fix the error; otherwise return."""
    # Imported here, so that `--help` is fast.
    from agents.configuration import ConfigurationError, problems_of
    from agents.server_problems import SERVER_ERRORS, ServerError, first_line, problem_of
    from enrich.geo import GeoDatabaseError
    from ops.dead_letters import SelectionError
    from providers.base import ProviderSettingsError
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
    """Print the lines on standard error and exit."""
    console = Console(stderr=True, soft_wrap=True)
    for line in lines:
        console.print(line, style="red", markup=False, highlight=False)
    raise SystemExit(code)
