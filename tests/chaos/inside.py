"""Give orders to a running worker: to die at a marked point, or to have a wrong clock.

Input: a signal, with the order in a file named after the worker's process id. The worker deletes the file once it has
obeyed. A worker that does not listen yet is sent no signal, as that would end it.
"""

import asyncio
import importlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tests.chaos import points
from tests.chaos.workers import Workers

SIGNAL = signal.SIGWINCH
"""Faust, its event loop and our libraries leave it alone, every system has it, and who does not listen ignores it."""

_OBEYED_WITHIN_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_MISUNDERSTOOD = 70
"""The exit code of a worker that can't do what it is told; `EX_SOFTWARE` in sysexits."""


def listen(directory: str) -> None:
    """Take orders from now on: wrap the marked points, and install the handler.

    Raises:
        SystemExit: The product no longer has one of the places.
    """
    path = Path(directory)
    points.apply()
    points.wrap("delivery.batch", "RecordBatch.commit", partial(_saying_so, path))
    signal.signal(SIGNAL, lambda *_: _obey(path))
    _listening(path, os.getpid()).touch()


async def order(workers: Workers, pid: int, directory: Path, **what: Any) -> bool:
    """Give a worker an order; return whether it has obeyed, or is dead by now.

    Args:
        workers: Is notified when a worker is ordered to die.
        pid: The worker.
        directory: Where it looks for orders.
        what: `die_at=point, passing=n`, or `clock=seconds` that its wall clock jumps by.
    """
    if not listens(workers, pid, directory):
        return False
    partial, file = directory / f"{pid}.partial", _orders(directory, pid)
    partial.write_bytes(orjson.dumps(what))
    partial.replace(file)
    if "die_at" in what:
        workers.expect_death(pid, f"at the point {what['die_at']}")
    os.kill(pid, SIGNAL)
    deadline = time.monotonic() + _OBEYED_WITHIN_SECONDS
    while file.exists() and lives(workers, pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


def listens(workers: Workers, pid: int, directory: Path) -> bool:
    """Return whether there is a worker that takes orders."""
    return workers.has(pid) and _listening(directory, pid).exists()


def is_at_work(pid: int, directory: Path) -> bool:
    """Return whether a worker that listens has finished a batch by now."""
    return _at_work(directory, pid).exists()


def lives(workers: Workers, pid: int) -> bool:
    """Return whether a worker has not ended yet, whether it is ordered to die or not."""
    return any(slot.pid == pid for slot in workers.slots)


def _orders(directory: Path, pid: int) -> Path:
    return directory / f"{pid}.json"


def _listening(directory: Path, pid: int) -> Path:
    return directory / f"{pid}.listening"


def _at_work(directory: Path, pid: int) -> Path:
    return directory / f"{pid}.at-work"


def _saying_so(directory: Path, commit: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Return `RecordBatch.commit` as it is, but for the first time: then it says that the worker is at work."""
    is_said = False

    async def first_commit(batch: Any) -> None:
        nonlocal is_said
        await commit(batch)
        if not is_said:
            is_said = True
            _at_work(directory, os.getpid()).touch()

    return first_commit


def _obey(directory: Path) -> None:
    """Do what is ordered. Nothing may be raised here: it would be raised wherever the worker happens to be."""
    file = _orders(directory, os.getpid())
    try:
        match orjson.loads(file.read_bytes()):
            case {"die_at": str(point), "passing": int(passing)}:
                points.die_at(point, passing)
            case {"clock": int() | float() as seconds}:
                _jump(seconds)
            case other:
                raise ValueError(f"no such order: {other}")
        file.unlink()
    except Exception as error:
        sys.stderr.write(f"an order that can't be obeyed: {error!r}\n")
        sys.stderr.flush()
        os._exit(_MISUNDERSTOOD)


def _jump(seconds: float) -> None:
    """Have the wall clock go on from another moment; what measures durations stays as it is."""
    importlib.import_module("time_machine").travel(time.time() + seconds, tick=True).start()
