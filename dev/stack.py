"""Run the platform's five servers at known addresses, in one command.

`Platform` is a set of native servers in one directory; ``python -m dev.stack`` runs the development platform: with
Docker if it is running, natively otherwise. A failed ``up`` stops what it started and leaves the data.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

from dotenv import dotenv_values
from rich.console import Console
from rich.table import Table

from dev.compose import Compose
from dev.ports import Ports
from dev.servers.inbox import Inbox
from dev.servers.kafka import Kafka
from dev.servers.mongo import Mongo
from dev.servers.postgres import Postgres
from dev.servers.redis import Redis
from dev.servers.server import Server, ServerError

__all__ = ["Platform", "Ports", "ServerError", "Stack", "development_stack"]

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / ".stack"
_LOCK = "lock"
_DOCKER_ANSWERS_WITHIN_SECONDS = 3.0


class Stack(Protocol):
    """A platform, whichever way its servers are run."""

    def up(self, report: Callable[[str], None]) -> None:
        """Start what is not running and return when every server is ready. Raises `ServerError`."""

    def down(self) -> None:
        """Stop every server, and wait for it; the data stays."""

    def forget(self) -> None:
        """Stop every server and delete the data."""

    @property
    def owner_url(self) -> str:
        """PostgreSQL, as the owner of the platform's tables."""

    @property
    def inbox_url(self) -> str:
        """The page of what was sent."""

    def environment(self) -> dict[str, str]:
        """The settings that lead a worker to these servers."""

    def states(self) -> dict[str, str]:
        """Each server's name, and in a few words how it is."""


class Platform:
    """One set of native servers in one directory, on loopback: all addresses that a worker needs.

    Servers outlive the program that started them, and a second `Platform` on the same directory finds them running.
    """

    def __init__(self, directory: Path, ports: Ports) -> None:
        self.directory = directory.resolve()
        self.ports = ports
        self.kafka = Kafka(self.directory, ports.kafka, ports.kafka_controller, LOCAL / "jars", lambda _: None)
        self.mongo = Mongo(self.directory, ports.mongo)
        self.postgres = Postgres(self.directory, ports.postgres)
        self.redis = Redis(self.directory, ports.redis)
        self.inbox = Inbox(self.directory, ports.inbox, ports.smtp)

    @property
    def servers(self) -> tuple[Server, ...]:
        """The four that the platform has as well, and the inbox."""
        return (self.kafka, self.mongo, self.postgres, self.redis, self.inbox)

    def up(self, report: Callable[[str], None]) -> None:
        """Start what is not running, all at once, and return when every server is ready.

        ``report`` gets a line for each step, from several threads. Raises `ServerError` with what went wrong on every
        server that failed; the servers that this call started are stopped then.
        """
        self.kafka.report = report
        with self._alone():
            running = [server for server in self.servers if server.is_running]
            try:
                self._start_all(report)
            except BaseException:
                for server in self.servers:
                    if server not in running:
                        server.stop()
                raise

    def down(self) -> None:
        """Stop every server and wait for it. Safe to repeat."""
        with self._alone():
            self._for_each(lambda server: server.stop())

    def forget(self) -> None:
        """Stop every server and delete its data; the downloaded jars stay."""
        with self._alone():
            self._for_each(lambda server: server.forget())
            (self.directory / _LOCK).unlink()
        with contextlib.suppress(OSError):
            self.directory.rmdir()  # unless something is in it that is not ours

    @property
    def owner_url(self) -> str:
        """PostgreSQL, as the owner of the platform's tables."""
        return self.postgres.owner_url

    @property
    def inbox_url(self) -> str:
        """The page of what was sent."""
        return self.inbox.url

    def environment(self) -> dict[str, str]:
        """The addresses, as the worker's settings."""
        return {
            "INKSTREAM_KAFKA_BROKERS": self.kafka.brokers,
            "INKSTREAM_MONGO_URL": self.mongo.url,
            "INKSTREAM_POSTGRES_URL": self.postgres.url,
            "INKSTREAM_REDIS_URL": self.redis.url,
            **self.inbox.environment,
            **self.ports.environment,
        }

    def states(self) -> dict[str, str]:
        """Each server's name, and in a few words how it is."""
        return {server.name: _state(server) for server in self.servers}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start_all(self, report: Callable[[str], None]) -> None:
        def start(server: Server) -> None:
            began, was_running = time.monotonic(), server.is_running
            server.start()
            if not was_running:
                report(f"{server.name}: ready after {time.monotonic() - began:.1f} s")

        self._for_each(start)

    def _for_each(self, action: Callable[[Server], None]) -> None:
        failures: list[str] = []
        with ThreadPoolExecutor(len(self.servers)) as pool:
            actions = [pool.submit(action, server) for server in self.servers]
            try:
                for done in as_completed(actions):
                    try:
                        done.result()
                    except ServerError as error:
                        failures.append(str(error))
            except BaseException:
                for server in self.servers:
                    server.abandon()
                raise
        if failures:
            raise ServerError("\n".join(failures))


def development_stack(environment: Mapping[str, str | None] | None = None) -> Stack:
    """The development platform, by the setting ``INKSTREAM_STACK``: ``auto`` (the default), ``docker`` or ``native``.

    Without ``environment``, the process's own and the file ``.env`` are read. Raises `ServerError` for a bad setting.
    """
    settings = environment or {**dotenv_values(ROOT / ".env"), **os.environ}
    try:
        ports = Ports.from_environment(settings)
    except ValueError as error:
        raise ServerError(str(error)) from error
    way = settings.get("INKSTREAM_STACK") or "auto"
    if way not in ("auto", "docker", "native"):
        raise ServerError(f"INKSTREAM_STACK is {way!r}; it must be auto, docker or native")
    if way == "docker" or (way == "auto" and _docker_answers()):
        return Compose(ROOT / "docker-compose.yml", ports, Inbox(LOCAL / "development", ports.inbox, ports.smtp))
    return Platform(LOCAL / "development", ports)


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        for question in (["info", "--format", "{{.ServerVersion}}"], ["compose", "version"]):
            subprocess.run(  # noqa: S603 - the user's own docker
                [docker, *question], capture_output=True, check=True, timeout=_DOCKER_ANSWERS_WITHIN_SECONDS
            )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _state(server: Server) -> str:
    if not server.is_running:
        return "not running"
    return f"{'ready' if server.ready() else 'running, not ready'} on port {server.port}, process {server.pid}"


def main() -> int:
    """Run the command line; the exit code is 0 when what was asked for is so."""
    arguments = _parser().parse_args()
    console = Console()
    try:
        return _run(arguments, development_stack(), console)
    except ServerError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False, highlight=False)
        return 1
    except PermissionError as error:
        hint = "If another user ran the platform before, run 'make clean' as that user."
        Console(stderr=True, soft_wrap=True).print(f"{error}. {hint}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.stack",
        description="Run the platform's servers: Kafka, MongoDB, PostgreSQL, Redis, and an inbox for messages.",
        epilog="INKSTREAM_STACK=auto|docker|native selects how servers run (auto: Docker if running, else native). "
        "INKSTREAM_STACK_<SERVER>_PORT moves a port: "
        f"{', '.join(map(Ports.setting, ('kafka', 'mongo', 'postgres', 'redis', 'smtp', 'inbox', 'worker')))}. "
        f"{Ports.setting('kafka_controller')} is for native servers alone, {Ports.setting('prometheus')} for Docker. "
        "Data and logs are in .stack/.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start the servers that are not running; return when all are ready")
    commands.add_parser("down", help="stop every server; the data stays")
    commands.add_parser("status", help="show the state of each server; exit code 1 unless all are ready")
    commands.add_parser("clean", help="stop every server and delete the data")
    environment = commands.add_parser("environment", help="print the settings with which a worker reaches the servers")
    environment.add_argument("--json", action="store_true", help="as one JSON object instead of NAME=value lines")
    return parser


def _run(arguments: argparse.Namespace, stack: Stack, console: Console) -> int:
    if arguments.command == "environment":
        addresses = stack.environment()
        if arguments.json:
            sys.stdout.write(json.dumps(addresses, indent=2) + "\n")
        else:
            sys.stdout.writelines(f"{name}={value}\n" for name, value in addresses.items())
        return 0
    if arguments.command == "status":
        return _show_states(stack, console)
    if arguments.command == "up":
        with console.status("starting the platform"):
            stack.up(lambda line: console.print(line, markup=False, highlight=False))
        return _show_states(stack, console)
    with console.status("stopping the platform"):
        (stack.forget if arguments.command == "clean" else stack.down)()
    console.print(
        "The platform is stopped, and its data deleted." if arguments.command == "clean" else "The platform is stopped."
    )
    return 0


def _show_states(stack: Stack, console: Console) -> int:
    states = stack.states()
    table = Table("server", "state", box=None)
    for name, state in states.items():
        table.add_row(name, state)
    console.print(table)
    return 0 if states and all(state.startswith("ready") for state in states.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
