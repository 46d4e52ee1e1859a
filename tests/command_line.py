"""The command line as a user has it: a process of its own, forked from one that has imported everything."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from runtime.settings import ROOT
from tests.forked import ForkedWorker

_ENDS_WITHIN_SECONDS = 120


class Ended(NamedTuple):
    """What a command left behind: its exit code, and what it wrote."""

    code: int
    output: str
    errors: str


async def inkstream(environment: Mapping[str, str], *arguments: str, prelude: str = "") -> Ended:
    """Run a command to its end; the prelude is Python that runs before it."""
    return await asyncio.to_thread(run, environment, *arguments, prelude=prelude)


def run(environment: Mapping[str, str], *arguments: str, prelude: str = "") -> Ended:
    """Run a command to its end, like `inkstream`."""
    with TemporaryDirectory() as directory:
        output, errors = Path(directory, "output"), Path(directory, "errors")
        output.touch()
        errors.touch()
        given = {**os.environ, "COLUMNS": "200", **environment}
        process = ForkedWorker(given, output, directory=ROOT, prelude=prelude, arguments=arguments, errors=errors)
        try:
            return Ended(process.wait(_ENDS_WITHIN_SECONDS), output.read_text(), errors.read_text())
        finally:
            process.kill()
