"""Run the worker as a child process, and restart it when it dies.

Input: the settings' environment. Output: a worker that is ready, or an error with the end of its log. However the run
ends, `stop` leaves no process behind.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from dev.servers.server import end_of_log
from runtime.web_address import obstacle, url

READY_WITHIN_SECONDS = 30.0
STOP_WITHIN_SECONDS = 20.0
MOST_RESTARTS = 5
_ASK_EVERY_SECONDS = 0.1


class WorkerError(Exception):
    """The worker can't be started, or does not stay alive; the message is meant for the person at the terminal."""


class Worker:
    """One worker process, with its output in a log file.

    Args:
        environment: The settings it gets.
        host: Where it serves its pages.
        port: The port of its pages.
        log: The file for its output; the one of the time before is kept beside it.
        report: Is told when it died and is started again.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        host: str,
        port: int,
        log: Path,
        report: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._host = host
        self._port = port
        self._report = report
        self.log = log
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.restarts = 0

    @property
    def url(self) -> str:
        """Where its pages are."""
        return url(self._host, self._port)

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it, and return when it is ready.

        Raises:
            WorkerError: Its port is taken, it ended, or it is not ready in time.
        """
        if problem := obstacle(self._host, self._port, setting="INKSTREAM_STACK_WORKER_PORT"):
            raise WorkerError(f"The worker can't serve its pages: {problem}.")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        await self._launch()
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not await asyncio.to_thread(self._is_ready):
            if self.pid is None:
                raise WorkerError(f"The worker ended while starting. {end_of_log(self.log)}")
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"The worker was not ready within {READY_WITHIN_SECONDS:.0f} s. {end_of_log(self.log)}"
                )
            await asyncio.sleep(_ASK_EVERY_SECONDS)

    async def watch(self) -> None:
        """Start it again whenever it ends; return only when it is stopped.

        Raises:
            WorkerError: It died too often.
        """
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if self._stopping:
                return
            if self.restarts >= MOST_RESTARTS:
                raise WorkerError(f"The worker died {self.restarts + 1} times. {end_of_log(self.log)}")
            self.restarts += 1
            self._report(f"The worker ended ({_ending(code)}) and is started again; see {self.log}")
            await asyncio.sleep(min(0.5 * 2**self.restarts, 5))
            await self._launch()

    async def stop(self) -> None:
        """End it: by SIGTERM, and after a time limit by SIGKILL."""
        self._stopping = True
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_WITHIN_SECONDS)
        except TimeoutError:
            self._report(f"The worker did not stop within {STOP_WITHIN_SECONDS:.0f} s and is killed; see {self.log}")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def metrics(self) -> str:
        """Return what its page `/metrics` says; nothing where it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=2) as answer:  # noqa: S310 - our own worker
                text: str = answer.read().decode()
                return text
        except OSError:
            return ""

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                command(),
                "worker",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                cwd=Path(__file__).parents[1],
                # Ctrl-C is for us: the worker is stopped when all is accounted for.
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310 - our own worker
                return bool(answer.status == 200)
        except OSError:
            return False


def command() -> str:
    """Return the path of the command line of this environment, `inkstream`."""
    return str(Path(sys.executable).with_name("inkstream"))


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
