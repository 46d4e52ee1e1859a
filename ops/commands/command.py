"""What all commands have in common: an exit code, and errors that fit on one screen.

In come the exceptions that a command may end with; out go a message on standard error and the exit code: 2 for wrong
usage or settings, 1 for a problem that was found.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

from faust.cli.base import Command
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

PROBLEM = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class InkstreamCommand(Command):
    """A command that runs in an event loop of its own, without a worker: no agents, no consumers, no web server.

    A subclass has `options`, and `run`, which takes their values by name and returns the exit code. Its docstring is
    its help.
    """

    abstract: ClassVar[bool] = True

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command, and exit."""
        # The clients tell at length what the command says in one line.
        for chatty in ("aiokafka", "pymongo", "redis"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        with reported_errors():
            raise SystemExit(asyncio.run(self.run(**self.kwargs)))

    async def run(self, *args: Any, **kwargs: Any) -> int:
        """Do what the command is for, and return the exit code."""
        raise NotImplementedError


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn errors that a user can do something about into a message and an exit code; let others pass."""
    # Imported when the first command runs, for `--help` to come at once.
    from enrich.geo import GeoDatabaseError
    from ops.bootstrap import SERVER_ERRORS, ServerError
    from schemas.topics import TopicsError
    from sinks.postgres import PostgresUrlError

    try:
        yield
    except ValidationError as error:
        if error.title != "Settings":
            raise
        fail(_settings_problems(error), WRONG_USAGE)
    except (SettingsError, TopicsError, GeoDatabaseError) as error:
        fail([str(error)], WRONG_USAGE)
    except (ServerError, *SERVER_ERRORS) as error:
        fail([str(error)], PROBLEM)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def fail(lines: list[str], code: int) -> NoReturn:
    """Print the lines on standard error, and exit."""
    console = Console(stderr=True, soft_wrap=True)
    for line in lines:
        console.print(line, style="red", markup=False, highlight=False)
    raise SystemExit(code)
