"""Start and stop one of the measured programs.

Input: a program, and where it reads and writes. Output: a process.
However the benchmark ends, neither the process nor what it started is left.
"""

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

from bench.traffic import namespace_of
from dev.ports import Ports
from dev.servers.server import end_of_log
from runtime.settings import ROOT

STOP_WITHIN_SECONDS = 30.0
_GONE_WITHIN_SECONDS = 2.0


class Program(Protocol):
    """What is run.

    Attributes:
        command: The command line.
        environment: Variables of its own.
    """

    @property
    def command(self) -> Sequence[str]:
        """The command line."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of its own."""


class Command(NamedTuple):
    """A program that is nothing but a command."""

    command: Sequence[str]
    environment: Mapping[str, str]


class Task(NamedTuple):
    """What a program has to do.

    Attributes:
        brokers: Where Kafka is.
        topic: What to read, from the beginning where the group has no offsets.
        group: The consumer group; with the same one again it goes on where it was.
        mongo_url: Where to write, with the database.
        directory: For files of its own.
    """

    brokers: str
    topic: str
    group: str
    mongo_url: str
    directory: Path


class ProgramError(Exception):
    """An alternative ended, or did nothing; the message has the end of its output."""


class RunningProgram:
    """One process of an alternative, with its output in a log file."""

    def __init__(self, program: Program, task: Task) -> None:
        self._program = program
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        task.directory.mkdir(parents=True, exist_ok=True)
        self._log = task.directory.with_suffix(".log")

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def seconds(self) -> float:
        """For how long it has run."""
        return time.perf_counter() - self._started

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def output(self) -> str:
        """All that it has written to its terminal."""
        return self._log.read_text(errors="replace")

    @property
    def last_words(self) -> str:
        """The end of its output, for the message of a failure."""
        return end_of_log(self._log)

    def start(self) -> None:
        """Start it, or start it again as it was."""
        task = self._task
        places = {
            "BENCH_KAFKA_BROKERS": task.brokers,
            "BENCH_TOPIC": task.topic,
            "BENCH_GROUP": task.group,
            "BENCH_MONGO_URL": task.mongo_url,
            "BENCH_COLLECTION": f"{namespace_of(task.topic)}pageViews",
            "BENCH_DIRECTORY": str(task.directory),
            "BENCH_PORTS": ",".join(map(str, dataclasses.astuple(Ports.free()))),
        }
        with self._log.open("ab") as log:
            self._started = time.perf_counter()
            self._process = subprocess.Popen(
                self._program.command,
                env={**os.environ, **self._program.environment, **places},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the benchmark: it ends its programs itself.
                start_new_session=True,
            )

    async def stop(self) -> None:
        """End it by SIGTERM, and by SIGKILL what is still there after a time limit."""
        if self._process is None:
            return
        descendants = self._descendants()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, STOP_WITHIN_SECONDS)
        self._end(self._process, descendants)

    def kill(self) -> None:
        """End it and all that it has started at once, by SIGKILL."""
        if self._process is not None:
            self._end(self._process, self._descendants())

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    @staticmethod
    def _end(process: "subprocess.Popen[bytes]", descendants: Sequence[psutil.Process]) -> None:
        for descendant in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(descendants, timeout=_GONE_WITHIN_SECONDS)


@contextlib.asynccontextmanager
async def running(program: Program, task: Task) -> AsyncIterator[RunningProgram]:
    """Run a program for as long as the block lasts."""
    running_program = RunningProgram(program, task)
    try:
        running_program.start()
        yield running_program
    except BaseException:
        running_program.kill()
        raise
    await running_program.stop()
