"""Workers and commands, forked from a process that has imported everything: the imports take more CPU than most tests.

The fork server is the standard library's; what it imports is in `tests.preloaded`.
"""

import importlib
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.preloaded"])


class ForkedWorker:
    """`inkstream worker`, or another command, in a process of its own, with what tests need of `subprocess.Popen`.

    Args:
        environment: All of its environment.
        log: The file for its output.
        directory: Where it starts, and looks for `.env`.
        prelude: Python that runs first.
        arguments: The command and its arguments.
        errors: The file for what goes to stderr; without it, that goes to `log`.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        *,
        directory: Path,
        prelude: str = "",
        arguments: Sequence[str] = ("worker",),
        errors: Path | None = None,
    ) -> None:
        given = (dict(environment), log, errors or log, directory, prelude, arguments)
        self._process = _context.Process(target=_work, args=given, daemon=True)
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


def _work(
    environment: dict[str, str], log: Path, errors: Path, directory: Path, prelude: str, arguments: Sequence[str]
) -> None:
    """Run `inkstream` in this environment, to the end."""
    random.seed()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for stream, path in ((1, log), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    sys.argv = ["inkstream", *arguments]
    exec(prelude, {})
    importlib.import_module("ops.commands").main()
