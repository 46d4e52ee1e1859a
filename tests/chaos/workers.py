"""Start, kill and restart the workers of a run.

Input: slots, each with the settings of a worker. Output: processes, and how each of them ended. A killed worker is
replaced at once; one that ends by itself is a failure of the run. When this program ends, so do all workers.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.settings import ROOT

_READY_WITHIN_SECONDS = 60.0
_STOP_WITHIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker was killed.

    Attributes:
        at: When, in seconds since 1970.
        how: In a few words.
    """

    at: float
    how: str


@dataclass(slots=True)
class Slot:
    """A place for one worker at a time.

    Attributes:
        name: The slot's name, and its log's.
        environment: The worker's settings.
        log: The output of all its workers.
        calls: What each worker calls before it begins: `module:function` and arguments that JSON can carry.
        pid: The worker's process id; `None` while there is no worker.
        began: When it was started, by the monotonic clock.
        is_wanted: Whether a worker that ends is replaced.
    """

    name: str
    environment: Mapping[str, str]
    log: Path
    calls: Sequence[Sequence[Any]] = ()
    pid: int | None = None
    began: float = 0.0
    is_wanted: bool = True


class Workers:
    """All workers.

    Args:
        slots: The places of workers.
        preludes: What to call before anything of the product is imported: `module:function`.

    Attributes:
        deaths: The workers that were killed, by process id.
        stopped: The workers that were told to stop, by process id, with the reason.
        ended: The workers that ended by themselves: slot and exit code.
        started: How many workers there have been.
    """

    def __init__(self, slots: Iterable[Slot], *preludes: str) -> None:
        self.slots = list(slots)
        self._preludes = preludes
        self.deaths: dict[int, Death] = {}
        self.stopped: dict[int, str] = {}
        self.ended: list[tuple[str, int]] = []
        self.started = 0
        self._processes: asyncio.subprocess.Process | None = None
        self._starting: list[Slot] = []
        self._reading: asyncio.Task[None] | None = None
        self._is_wanted = True
        self._all_ended = asyncio.Event()

    async def start(self) -> None:
        """Start the parent process and a worker in each slot; return before the workers are ready."""
        self._processes = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.processes",
            *self._preludes,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        async with asyncio.timeout(_READY_WITHIN_SECONDS):
            assert self._processes.stdout is not None
            if not await self._processes.stdout.readline():
                raise RuntimeError("no worker can be started: its modules can't be imported")
        self._reading = asyncio.create_task(self._read())
        for slot in self.slots:
            self._start_in(slot)

    async def stop(self) -> None:
        """Stop all workers gracefully, and kill those that take too long."""
        self._is_wanted = False
        for slot in self.slots:
            if slot.pid is not None:
                send_signal(slot.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_WITHIN_SECONDS):
                while any(slot.pid is not None for slot in self.slots):
                    self._all_ended.clear()
                    await self._all_ended.wait()
        await self.close()

    async def close(self) -> None:
        """End the parent process, which kills all workers that are left."""
        self._is_wanted = False
        if self._processes is not None and self._processes.stdin is not None:
            self._processes.stdin.close()
            await self._processes.wait()
        if self._reading is not None:
            await self._reading

    def kill(self, pid: int, how: str) -> bool:
        """SIGKILL; return whether there was such a worker."""
        if not self.has(pid):
            return False
        self.deaths[pid] = Death(time.time(), how)
        return send_signal(pid, signal.SIGKILL)

    def has(self, pid: int) -> bool:
        """Return whether a worker is alive."""
        return pid not in self.deaths and any(slot.pid == pid for slot in self.slots)

    def expect_death(self, pid: int, how: str) -> None:
        """Record that a worker is about to kill itself, because it was told to."""
        self.deaths[pid] = Death(time.time(), how)

    def terminate(self, pid: int, why: str) -> bool:
        """SIGTERM; return whether there was such a worker. It must end with exit code 0."""
        if not self.has(pid):
            return False
        self.stopped[pid] = why
        return send_signal(pid, signal.SIGTERM)

    def add(self, slot: Slot) -> None:
        """Start a worker in one more slot."""
        self.slots.append(slot)
        self._start_in(slot)

    def remove(self, slot: Slot, why: str) -> None:
        """Dismiss the worker of a slot, and have no other there."""
        slot.is_wanted = False
        if slot.pid is not None:
            self.terminate(slot.pid, why)

    def _start_in(self, slot: Slot) -> None:
        assert self._processes is not None
        assert self._processes.stdin is not None
        self._starting.append(slot)
        order = {"environment": {**os.environ, **slot.environment}, "log": str(slot.log), "calls": slot.calls}
        self._processes.stdin.write(json.dumps(order).encode() + b"\n")

    async def _read(self) -> None:
        assert self._processes is not None
        assert self._processes.stdout is not None
        async for line in self._processes.stdout:
            self._note(json.loads(line))

    def _note(self, news: Mapping[str, Any]) -> None:
        if "started" in news:
            slot = self._starting.pop(0)
            slot.pid, slot.began = news["started"], time.monotonic()
            self.started += 1
            if not slot.is_wanted:
                self.terminate(news["started"], "no longer wanted")
            return
        slot = next(slot for slot in self.slots if slot.pid == news["ended"])
        slot.pid = None
        self._all_ended.set()
        was_killed = news["ended"] in self.deaths and news["code"] == -signal.SIGKILL
        may_stop = news["ended"] in self.stopped or not self._is_wanted
        if not was_killed and (news["code"] != 0 or not may_stop):
            self.ended.append((slot.name, news["code"]))
        if self._is_wanted and slot.is_wanted:
            self._start_in(slot)


def send_signal(pid: int, number: signal.Signals) -> bool:
    """Return whether there was such a process: it may have ended a moment ago."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
