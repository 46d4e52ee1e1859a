"""PyMongo's lock, when a waiting task is cancelled twice, and its lookup of a name that DNS does not answer."""

import asyncio
import sys
import tomllib

import pymongo.lock
import pytest
from dns.exception import Timeout
from pymongo import AsyncMongoClient
from pymongo.asynchronous import srv_resolver
from pymongo.errors import ConfigurationError, ServerSelectionTimeoutError

from runtime.patches import pymongo as patch
from runtime.settings import ROOT

URL = "mongodb+srv://db.example.org/x"


async def is_still_waiting_after_two_cancellations() -> bool:
    """Return whether a task that waits for a condition holds back until it has the lock again, as it must."""
    lock = pymongo.lock._async_create_lock()
    condition = pymongo.lock._async_create_condition(lock)

    async def wait() -> None:
        async with condition:
            await pymongo.lock._async_cond_wait(condition, 10)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with lock:  # another task's
        for _ in range(2):
            waiting.cancel()
            await asyncio.sleep(0.01)
        is_waiting = not waiting.done()
    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    return is_waiting and isinstance(outcome, asyncio.CancelledError) and not lock.locked()


async def test_a_task_that_is_cancelled_twice_while_waiting_takes_the_lock_from_no_other() -> None:
    patch.apply()
    assert await is_still_waiting_after_two_cancellations()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.12 waits in the same task")
async def test_python_still_leaves_the_lock_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymongo.lock, "wait_for", asyncio.wait_for)
    assert not await is_still_waiting_after_two_cancellations(), (
        "remove me: asyncio.wait_for keeps the lock on this Python, so patches.pymongo.apply can go"
    )


def test_python_3_11_is_still_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "3.11" in project["requires-python"], "remove me: patches.pymongo.apply is for Python 3.11 alone"


@pytest.mark.parametrize(
    ("client", "error"), [(AsyncMongoClient, ConfigurationError), (patch.Client, ServerSelectionTimeoutError)]
)
async def test_pymongo_still_calls_silent_dns_a_wrong_url(
    monkeypatch: pytest.MonkeyPatch, client: type[AsyncMongoClient[dict[str, object]]], error: type[Exception]
) -> None:
    async def resolve(*_: object, **__: object) -> None:
        raise Timeout

    monkeypatch.setattr(srv_resolver, "_resolve", resolve)
    opened: AsyncMongoClient[dict[str, object]] = client(URL)
    outcomes: list[object] = await asyncio.gather(opened.admin.command("ping"), return_exceptions=True)
    await opened.close()
    assert type(outcomes[0]) is error, "remove me: PyMongo waits for DNS itself, so patches.pymongo.Client can go"
