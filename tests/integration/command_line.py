"""The command line as a user has it: a process of its own."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from runtime.settings import ROOT


class Ended(NamedTuple):
    """What a command left behind: its exit code, and what it wrote."""

    code: int
    output: str
    errors: str


async def inkstream(environment: Mapping[str, str], *arguments: str, prelude: str = "") -> Ended:
    """Run a command to its end; the prelude is Python that runs before it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"{prelude}\nfrom ops.commands import main; main()",
        *arguments,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(), errors.decode())
