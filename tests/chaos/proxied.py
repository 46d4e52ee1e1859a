"""A platform with two ways to each server: workers connect through the proxy, the judge connects directly.

Input: a directory, the servers' ports and the proxy's. Output: the routes of the proxy, and settings that lead through
it. A server never moves, so what a worker knows stays true through all faults.
"""

import re
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, Self

import pymongo
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from dev.servers.kafka import Kafka, Listener
from dev.servers.mongo import REPLICA_SET, Mongo
from dev.stack import LOCAL, Platform, Ports
from tests.chaos.proxy import Route

_SERVERS = ("kafka", "mongo", "postgres", "redis", "smtp")
_LISTENER = "PROXIED"
_DIRECTLY = "directConnection=true"
_NOT_A_MEMBER = 93  # MongoDB's error code InvalidReplicaSetConfig
_OPENS_WITHIN_SECONDS = 2.0


class _Mongo(Mongo):
    """Finds itself behind its door, however long that is shut.

    A mongod that does not find itself as it starts never looks again, unless its own address in the replica set
    changes. So its address is set to another one at which it also answers, and then to the right one again.
    """

    def settle(self) -> None:
        """Initiate the replica set, or bring its one member back into it."""
        self._wait(self._is_settled)

    def _is_settled(self) -> bool:
        try:
            super().settle()
            with self._client() as client:
                if not _is_lost(client):
                    return True
                self._knock()
                config = client.admin.command("replSetGetConfig")["config"]
                config["members"][0]["host"] = f"127.0.0.1:{self.port}"
                config["version"] += 1
                client.admin.command("replSetReconfig", config, force=True)
        except PyMongoError:
            return False  # it is still looking, or the door is shut
        return False

    def _knock(self) -> None:
        # While the replica set has the other address, it would send workers there.
        client: MongoClient[dict[str, Any]] = MongoClient(self._known_address, directConnection=True)
        with pymongo.timeout(_OPENS_WITHIN_SECONDS), client:
            client.admin.command("ping")


class ProxiedPlatform(Platform):
    """The platform's servers, and a proxy's door to each: `kafka`, `mongo`, `postgres`, `redis`, `smtp`.

    The proxy must be there before `up`, and stay. MongoDB knows itself by its door, and looks whether it is itself who
    answers there whenever it starts. So `mongo.start` returns only once that door is open, and raises `ServerError`
    where it stays shut for longer than `mongo.start_seconds`; a delay of the door makes it late by some times as much.

    Args:
        directory: For the servers' data.
        ports: Where the servers listen.
        doors: Where the proxy listens. The broker has a port of its own for those who come by the proxy, as it tells
            its clients where to find it: that is `doors.kafka_controller`, a door that nothing else needs.

    Attributes:
        routes: What the proxy needs to know.
        via_proxy: The settings of a worker that are other than they would be without a proxy.
    """

    def __init__(self, directory: Path, ports: Ports, doors: Ports) -> None:
        super().__init__(directory, ports)
        by_proxy = Listener(_LISTENER, doors.kafka_controller, doors.kafka)
        self.kafka = Kafka(
            self.directory, ports.kafka, ports.kafka_controller, LOCAL / "jars", lambda _: None, by_proxy
        )
        self.mongo = _Mongo(self.directory, ports.mongo, doors.mongo)
        self.routes = {name: Route(getattr(doors, name), getattr(ports, name)) for name in _SERVERS}
        self.routes["kafka"] = Route(doors.kafka, by_proxy.port)
        self._door_of = {getattr(ports, name): getattr(doors, name) for name in _SERVERS}
        direct = super().environment()
        through = self.through_doors(direct)
        self.via_proxy = {name: value for name, value in through.items() if value != direct[name]}

    @classmethod
    def on_free_ports(cls, directory: Path) -> Self:
        """Return a platform of its own, with doors of its own, on ports that nothing listens on at this moment."""
        ports, doors = Ports.free(), Ports.free()
        while set(astuple(ports)) & set(astuple(doors)):
            doors = Ports.free()
        return cls(directory, ports, doors)

    def environment(self) -> dict[str, str]:
        """The addresses, as the worker's settings, through the proxy."""
        return super().environment() | self.via_proxy

    def through_doors(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return settings with every address of a server replaced by that of its door; databases stay."""
        return {name: self._through_doors(value) for name, value in environment.items()}

    def _through_doors(self, value: str) -> str:
        def replace(address: re.Match[str]) -> str:
            port = int(address[1])
            return f"127.0.0.1:{self._door_of.get(port, port)}"

        # Who is sent to a door by the replica set must ask for the set, and for no single node.
        if value.startswith(f"mongodb://127.0.0.1:{self.ports.mongo}/"):
            value = value.replace(_DIRECTLY, f"replicaSet={REPLICA_SET}")
        return re.sub(r"127\.0\.0\.1:(\d+)", replace, value)


def _is_lost(client: MongoClient[dict[str, Any]]) -> bool:
    try:
        client.admin.command("replSetGetStatus")
    except OperationFailure as failure:
        if failure.code != _NOT_A_MEMBER:
            raise
        return True
    return False
