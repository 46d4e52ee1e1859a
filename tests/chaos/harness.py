"""Run workers on a platform while faults happen, and keep the history: what runs of all kinds share.

Input: a pipeline on servers behind a proxy, and the slots of its workers.
Output: a `History` with phases, measurements, killed workers, and the checks that hold for workers in any run.
After a crash of this program, workers and proxy are gone as well; the servers are the caller's.
"""

import asyncio
import contextlib
import statistics
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psutil
from pymongo.errors import PyMongoError
from rich.console import Console

from dev.ports import Ports, is_free
from tests.chaos import logs
from tests.chaos.history import Check, History, Moment
from tests.chaos.logs import Ordinary
from tests.chaos.progress import Progress
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy
from tests.chaos.workers import Slot, Workers
from tests.integration.pipeline import Pipeline

_MEASURE_SECONDS = 1.0
_MOST_ENDED = 10
_LAST_MOMENTS = 3
_MEMORY_GROWTH = 0.2


class Harness(ABC):
    """One run.

    Args:
        command: What to type to repeat it.
        seed: Decides everything that is left to chance.
        settings: The options of the run, by name.
        pipeline: Where workers read and write.
        platform: The servers, which are up.
        proxy: The proxy between servers and workers.
        directory: For logs and other files.
        console: Where to print progress.
    """

    def __init__(
        self,
        command: str,
        seed: int,
        settings: dict[str, str],
        pipeline: Pipeline,
        platform: ProxiedPlatform,
        proxy: Proxy,
        directory: Path,
        console: Console,
    ) -> None:
        self._pipeline = pipeline
        self._platform = platform
        self._proxy = proxy
        self._directory = directory
        self._console = console
        self._chance = Random(seed)
        self._ports: set[int] = set()
        self._began = time.monotonic()
        self._workers = Workers(())
        self._history = History(
            command=command,
            seed=seed,
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
            settings=settings,
        )

    @abstractmethod
    async def __call__(self) -> History:
        """Go through the run."""

    # What there is --------------------------------------------------------------------------------------------

    def _slot(self, name: str, own: Mapping[str, str], calls: Sequence[Sequence[Any]] = ()) -> Slot:
        """Return a slot whose worker reaches all servers through the proxy, with settings of its own."""
        environment = {
            **self._platform.through_doors(self._pipeline.environment),
            "INKSTREAM_LOG_FORMAT": "json",
            "INKSTREAM_WEB_PORT": str(self._free_port()),
            **own,
        }
        return Slot(name, environment, self._directory / f"{name}.log", calls)

    def _free_port(self) -> int:
        """Return a port that nothing uses, and that no slot of this run has."""
        while True:
            port = Ports.free().worker
            if port not in self._ports and is_free(port):
                self._ports.add(port)
                return port

    def _group(self, agent: str) -> str:
        return f"{self._pipeline.namespace}inkstream.{agent}"

    def _clock(self) -> float:
        return time.monotonic() - self._began

    @asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        self._console.print(f"{self._clock():7.1f} s  {name}", style="bold")
        began = self._clock()
        yield
        self._history.seconds[name] = self._clock() - began

    @asynccontextmanager
    async def _beside(self, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
        task = asyncio.create_task(work)
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _measure(self, sent: Callable[[], int], progress: Progress, agents: Sequence[str]) -> None:
        """Note every second how far everything is.

        Args:
            sent: Returns how many events Kafka has acknowledged.
            progress: Asks Kafka for committed offsets.
            agents: Whose groups count.
        """
        groups = [self._group(agent) for agent in agents]
        while True:
            began = self._clock()
            committed = await progress.committed(groups)
            memory = {slot.name: _memory(slot.pid) for slot in self._workers.slots if slot.pid is not None}
            self._history.moments.append(Moment(began, sent(), committed, memory))
            await asyncio.sleep(max(0.0, began + _MEASURE_SECONDS - self._clock()))

    def _check_workers(self) -> None:
        """Check that workers do not end by themselves again and again.

        Raises:
            RuntimeError: They do.
        """
        if len(self._workers.ended) >= _MOST_ENDED:
            raise RuntimeError(f"workers end by themselves: {self._workers.ended}; their logs are in {self._directory}")

    # How it ends ----------------------------------------------------------------------------------------------

    async def _settled(self, is_settled: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        """Wait until nothing is left to do; return whether that was in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await is_settled():
                return True
            if len(self._workers.ended) >= _MOST_ENDED:
                return False
            await asyncio.sleep(0.5)
        return False

    async def _queue_is_done(self, agents: Sequence[str]) -> bool:
        """Return whether agents have read everything and no item of the queue is open."""
        if any([await self._pipeline.lag(agent) for agent in agents]):
            return False
        open_items = {"status": {"$in": ["pending", "processing"]}}
        try:
            return await self._pipeline.collection("notificationQueue").find_one(open_items) is None
        except PyMongoError:
            return False

    def _common_checks(self, *, settled: bool, expected: Collection[Ordinary] = ()) -> list[Check]:
        """Return the checks that hold in any run.

        Args:
            settled: Whether all work was finished in time.
            expected: What the faults of this run alone make a worker log at level error.
        """
        return [
            Check("all work is finished in time", 1, int(settled), [] if settled else ["work is left to do"]),
            Check(
                "no worker ends by itself",
                0,
                len(self._workers.ended),
                [f"{name} ended with exit code {code}" for name, code in self._workers.ended],
            ),
            logs.check(sorted(self._directory.glob("*.log")), expected),
        ]

    def _memory_check(self, since: float) -> Check:
        """Compare each worker's memory at the end with the middle of a time without faults.

        Args:
            since: When that time began, by the run's clock.
        """
        moments = [moment.memory for moment in self._history.moments if moment.at >= since]
        middle, end = moments[len(moments) // 3 : -len(moments) // 3], moments[-_LAST_MOMENTS:]
        problems = []
        for name in moments[-1]:
            plateau = statistics.median(memory[name] for memory in middle if name in memory)
            last = statistics.median(memory[name] for memory in end if name in memory)
            if last > plateau * (1 + _MEMORY_GROWTH):
                problems.append(f"{name} has {last / 2**20:.0f} MiB, and had {plateau / 2**20:.0f} MiB")
        promise = f"each worker's memory at the end within {_MEMORY_GROWTH:.0%} of its plateau"
        return Check(promise, len(moments[-1]), len(moments[-1]) - len(problems), problems)

    def _kills(self) -> dict[str, int]:
        return dict(Counter(death.how for death in self._workers.deaths.values()))


def _memory(pid: int) -> int:
    try:
        memory: int = psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return memory
