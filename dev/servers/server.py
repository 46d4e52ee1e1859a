"""Run one server as a detached local process.

Input: a directory and a port. Output: a server that answers.
A server outlives the program that started it. Its process is found again through a file that holds the process id and
the whole command line, so another process that got the same id later is never signalled. After a failed start the
server's data is unchanged, and the message names the log file.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import psutil

from dev.ports import Ports, is_free

POLL_SECONDS = 0.05
LOG_LINES_SHOWN = 12


_PORT_RELEASE_SECONDS = 3.0


class ServerError(Exception):
    """A server could not be started or stopped; the message is meant for the person at the terminal."""


def end_of_log(log: Path) -> str:
    """Return the sentence that names a log, with its last lines."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    except OSError:
        lines = []
    return "\n  ".join([f"Its log is {log}; the last lines:", *(lines or ["(empty)"])])


def identity(user: str | None) -> dict[str, Any]:
    """What `subprocess` needs to run a program as that user and no other group; nothing for the caller itself."""
    if user is None:
        return {}
    account = pwd.getpwnam(user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Server(ABC):
    """A server's life: ``start``, ``stop``, ``kill``, ``pause``, ``resume``, and whether it is ready.

    ``directory`` is the platform's; the server keeps everything in the folder of its name below it. All methods block
    and none needs an event loop, so from a coroutine call them through ``asyncio.to_thread``.
    """

    name: ClassVar[str]
    working_directory: ClassVar[Path] = Path("/")
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_seconds: ClassVar[float] = 90.0
    stop_seconds: ClassVar[float] = 30.0

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory / self.name
        self.port = port
        self.log = directory / f"{self.name}.log"
        self._process_file = directory / f"{self.name}.process.json"
        self._abandoned = threading.Event()

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that runs the server in the foreground; it has the data directory in it."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what must exist before the process starts: data directory, configuration. Safe to repeat."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server answers its own protocol at all."""

    def settle(self) -> None:  # noqa: B027 - not every server has something to settle
        """Converge what the server holds for the platform, once it answers. Safe to repeat."""

    def ready(self) -> bool:
        """Whether the server can serve the platform now: it answers, and what ``settle`` makes is in force."""
        return self.answers()

    @property
    def ports(self) -> Mapping[str, int]:
        """Every port that it must have, by the name that its setting has."""
        return {self.name: self.port}

    @property
    def pid(self) -> int | None:
        """The process id of the running server, or ``None``."""
        process = self._process()
        return None if process is None else process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists. A paused server is running, and not ready."""
        return self._process() is not None

    def start(self) -> None:
        """Start the server unless it runs, and return when it is ready.

        Raises `ServerError` when its port is taken, its process ends, or it is not ready within the time limit.
        """
        self._abandoned.clear()
        if not self.is_running:
            self._require_free_ports()
            self.directory.mkdir(parents=True, exist_ok=True)
            self.prepare()
            self._launch()
        self._wait(self.answers)
        self.settle()
        self._wait(self.ready)

    def abandon(self) -> None:
        """Make a ``start`` that is waiting in another thread give up soon."""
        self._abandoned.set()

    def stop(self) -> None:
        """End the server in its own orderly way and wait for it; by force when it takes too long."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End the server and its children at once (SIGKILL), as a crash would, and wait until they are gone."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal_all(signal.SIGCONT)

    def forget(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self._previous_log.unlink(missing_ok=True)

    @property
    def user(self) -> str | None:
        """The user to run the server as, or ``None`` for the caller."""
        return None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of the server: messages in English, times in UTC."""
        return {**os.environ, "LC_ALL": "C", "TZ": "UTC"}

    @property
    def _previous_log(self) -> Path:
        return self.log.with_suffix(".previous.log")

    def _process(self) -> psutil.Process | None:
        try:
            recorded = json.loads(self._process_file.read_text())
            process = psutil.Process(recorded["pid"])
            ours = _command_line(process) == recorded["command"]
        except (FileNotFoundError, psutil.NoSuchProcess, psutil.AccessDenied, ValueError, KeyError):
            return None
        return process if ours else None

    def _require_free_ports(self) -> None:
        # The kernel takes a moment to close what a killed server had open.
        deadline = time.monotonic() + _PORT_RELEASE_SECONDS
        for name, port in self.ports.items():
            while not is_free(port):
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{self.name} can't have port {port}: another program uses it. "
                        f"End that program, or set {Ports.setting(name)} to a free port."
                    )
                time.sleep(0.05)

    def _launch(self) -> None:
        if self.log.exists():
            self.log.replace(self._previous_log)
        command = self.command()
        try:
            with self.log.open("wb") as log:
                child = subprocess.Popen(  # noqa: S603 - the command is made of our own paths and numbers
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.working_directory,
                    env=self.environment,
                    start_new_session=True,
                    **identity(self.user),
                )
        except OSError as error:
            raise ServerError(f"{self.name} can't be started: {error}") from error
        # Written to one side first: a reader never sees half a file.
        partial = self._process_file.with_suffix(".partial")
        partial.write_text(json.dumps({"pid": child.pid, "command": command}))
        partial.replace(self._process_file)
        # Collects the exit status of a server that ends before us, so that it never lingers as a zombie.
        threading.Thread(target=child.wait, name=f"await-{self.name}", daemon=True).start()

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not condition():
            if self._abandoned.is_set():
                raise ServerError(f"{self.name} was not waited for any longer")
            if not self.is_running:
                raise ServerError(f"{self.name} ended while starting. {end_of_log(self.log)}")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} was not ready within {self.start_seconds:.0f} s. {end_of_log(self.log)}"
                )
            time.sleep(POLL_SECONDS)

    def _family(self) -> list[psutil.Process]:
        process = self._process()
        if process is None:
            return []
        try:
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._family():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def _end(self, number: signal.Signals) -> None:
        family = self._family()
        if family:
            if number is signal.SIGKILL:
                self._signal_all(signal.SIGKILL)
            else:
                self._signal_all(signal.SIGCONT)  # a paused process would never see the signal to stop
                with contextlib.suppress(psutil.NoSuchProcess):
                    family[0].send_signal(number)
            self._await_end(family)
        self._process_file.unlink(missing_ok=True)

    def _await_end(self, family: list[psutil.Process]) -> None:
        if _gone(family, self.stop_seconds):
            return
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if not _gone(family, 5.0):
            raise ServerError(f"{self.name} does not end: process {family[0].pid} or a child of it is still there")


def _gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Wait until every process has ended, at most so long; whether its parent has collected it does not matter."""
    deadline = time.monotonic() + seconds
    while any(_lives(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS / 5)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command_line(process: psutil.Process) -> list[str]:
    """Return a process's command line; empty for one that has ended and is still to be collected."""
    for _ in range(20):
        words = process.cmdline()
        if words or process.status() == psutil.STATUS_ZOMBIE:
            return words
        time.sleep(0.005)  # just started: the kernel has the process before it has its arguments
    return []
