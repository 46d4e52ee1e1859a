"""PyMongo, kept from a fault that it meets on Python 3.11.

Nothing comes in, nothing goes out. PyMongo waits for a server or a connection by `asyncio.wait_for`, which until
Python 3.12 waits in a task of its own. Where whoever waits is cancelled twice, as by two time-outs, that task is left
behind, and with it the lock: while MongoDB is away, operations fail by `RuntimeError`, or hang for ever. Here the wait
is a part of its task on every version.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

import pymongo.lock

T = TypeVar("T")


def mend() -> None:
    """Have PyMongo wait as it does on Python 3.12."""
    if sys.version_info < (3, 12):
        pymongo.lock.wait_for = _wait_for  # type: ignore[assignment, attr-defined]


async def _wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - as PyMongo calls it
    async with asyncio.timeout(timeout):
        return await awaitable
