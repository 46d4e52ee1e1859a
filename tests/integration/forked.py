"""Worker processes, forked from one that has imported everything: a worker's imports take more CPU than most tests.

The fork server is the standard library's; what it imports is in `tests.integration.preloaded`.
"""

import importlib
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.integration.preloaded"])


class ForkedWorker:
    """`inkstream worker` in a process of its own, with what tests need of `subprocess.Popen`.

    Args:
        environment: All of its environment.
        log: The file for its output.
        directory: Where it starts, and looks for `.env`.
        prelude: Python that runs first.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *, directory: Path, prelude: str = "") -> None:
        arguments = (dict(environment), log, directory, prelude)
        self._process = _context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of the signal that ended it; `None` while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code; `None` while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """Return the exit code when the worker has ended.

        Raises:
            TimeoutError: It has not in time.
        """
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError(f"the worker has not ended within {seconds} s")
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the worker has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _work(environment: dict[str, str], log: Path, directory: Path, prelude: str) -> None:
    """Be `inkstream worker` in this environment, to the end."""
    random.seed()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = ["inkstream", "worker"]
    exec(prelude, {})
    importlib.import_module("ops.commands").main()
