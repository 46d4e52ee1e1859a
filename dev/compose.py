"""Run the platform's servers with Docker Compose.

Input: the Compose file and ports. Output: the same addresses as the native servers have.
The inbox is a process of this machine in any case: a worker that runs here hands it push messages in a file.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from dev.ports import Ports
from dev.servers.inbox import Inbox
from dev.servers.server import ServerError

# The worker and its bootstrap are left to the caller; ``docker compose up`` by itself runs them too.
SERVERS = ("kafka", "mongo-primary", "mongo-secondary-1", "mongo-secondary-2", "postgres", "redis")
_INITIATE = "mongo-initiate"
_UP_SECONDS = 300


class Compose:
    """The servers of the Compose file. Every method raises `ServerError` with what Docker said when it fails."""

    def __init__(self, file: Path, ports: Ports, inbox: Inbox) -> None:
        self._file = file
        self._ports = ports
        self._inbox = inbox

    def up(self, report: Callable[[str], None]) -> None:
        """Start the servers and return when their health checks pass."""
        report("docker: starting the servers; images are pulled the first time")
        self._docker("up", "--detach", "--wait", "--wait-timeout", str(_UP_SECONDS), *SERVERS)
        self._docker("run", "--rm", "--no-deps", _INITIATE)
        self._inbox.start()

    def down(self) -> None:
        """Stop and remove the containers; the volumes stay."""
        self._inbox.stop()
        self._docker("down")

    def forget(self) -> None:
        """Stop and remove the containers and the volumes."""
        self._inbox.forget()
        self._docker("down", "--volumes")

    @property
    def owner_url(self) -> str:
        """PostgreSQL as seen from this machine, as the owner of the platform's tables."""
        return f"postgresql://platform:platform@127.0.0.1:{self._ports.postgres}/blog_platform"

    @property
    def inbox_url(self) -> str:
        """The page of what was sent."""
        return self._inbox.url

    def environment(self) -> dict[str, str]:
        """The addresses as seen from this machine.

        MongoDB's members know each other by names that only containers can resolve, so from here the connection goes
        to the primary directly.
        """
        return {
            "INKSTREAM_KAFKA_BROKERS": f"127.0.0.1:{self._ports.kafka}",
            "INKSTREAM_MONGO_URL": (
                f"mongodb://127.0.0.1:{self._ports.mongo}/blog-platform?replicaSet=rs0&directConnection=true"
            ),
            "INKSTREAM_POSTGRES_URL": (
                f"postgresql://inkstream:inkstream@127.0.0.1:{self._ports.postgres}/blog_platform"
            ),
            "INKSTREAM_REDIS_URL": f"redis://127.0.0.1:{self._ports.redis}/0",
            **self._inbox.environment,
            **self._ports.environment,
        }

    def states(self) -> dict[str, str]:
        """Each container's name and state; ``ready`` is a healthy one."""
        found = {self._inbox.name: "ready" if self._inbox.ready() else "not running"}
        for line in self._docker("ps", "--format", "json", *SERVERS).splitlines():
            container = json.loads(line)
            ready = container["State"] == "running" and container.get("Health", "") in ("", "healthy")
            found[container["Service"]] = "ready" if ready else container["Status"]
        return found

    def _docker(self, *words: str) -> str:
        settings = {Ports.setting(name): str(port) for name, port in vars(self._ports).items()}
        try:
            done = subprocess.run(  # noqa: S603 - the user's own docker
                ["docker", "compose", "--file", str(self._file), *words],  # noqa: S607
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **settings},
            )
        except OSError as error:
            raise ServerError(f"docker can't be run: {error}") from error
        if done.returncode != 0:
            raise ServerError(f"docker compose {words[0]} failed:\n{done.stderr.strip()}")
        return done.stdout
