"""Runs the checks of one server, until it does not answer.

Input: checks and the server's setting. Output: findings; a server that does not answer or refuses the connection is a
finding too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from agents.server_problems import SERVER_ERRORS, first_line, problem_of
from ops.checks.finding import Finding, State
from ops.supported_versions import OLDEST
from runtime.settings import Settings
from sinks.postgres.pool import PostgresUrlError
from sinks.servers import MongoUrlError, RedisUrlError

ANSWER_WITHIN_SECONDS = 20.0

Check = Callable[[], Awaitable[Iterable[Finding]]]


class Server(NamedTuple):
    """A server to check.

    Attributes:
        name: Its name, the subject of findings about the connection.
        setting: The environment variable with its address.
        settings: Where the servers are.
    """

    name: str
    setting: str
    settings: Settings

    async def run(self, *checks: Check) -> list[Finding]:
        """Run one check after the other, until the server does not answer."""
        findings: list[Finding] = []
        try:
            for check in checks:
                async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
                    findings += await check()
        except (MongoUrlError, PostgresUrlError, RedisUrlError) as error:
            findings.append(Finding(self.name, State.PROBLEM, first_line(error), f"correct {self.setting}"))
        except SERVER_ERRORS as error:
            problem = await asyncio.to_thread(problem_of, error, self.settings, self.name)
            findings.append(Finding(self.name, State.PROBLEM, problem.what, problem.advice))
        return findings


def check_version(server: str, is_too_old: bool) -> Iterator[Finding]:
    """Yield a note if the server's version is not supported."""
    if is_too_old:
        what = f"older than {OLDEST[server]}, the oldest supported version"
        yield Finding(server, State.NOTE, what, "upgrade it; README.md lists the tested versions")
