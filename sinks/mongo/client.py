"""The connection to MongoDB. What the server acknowledges through it is durable (`w: majority, j: true`)."""

import os
from datetime import timedelta
from typing import Any, Self
from urllib.parse import parse_qsl

import pymongo
from pymongo import AsyncMongoClient
from pymongo.errors import ConfigurationError

from runtime.patches import pymongo as patch
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.errors import is_transient

_PING_SECONDS = 4
"""Shorter than the callers' timeouts, so that the driver reports what is wrong."""

_ABANDONED_AFTER = timedelta(seconds=2)


class Mongo:
    """A connection to the platform's MongoDB database.

    Attributes:
        client: The driver's client.
        timeout: How long a single operation may take.
    """

    name = "mongodb"
    is_transient = staticmethod(is_transient)

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], namespace: str, timeout: timedelta) -> None:
        self.client = client
        self.timeout = timeout
        self._database = NamespacedDatabase(client, namespace)

    @classmethod
    def connect(cls, url: str, namespace: str = "", *, timeout: timedelta = timedelta(seconds=15)) -> Self:
        """Create a client for the replica set at `url`; it connects at the first use.

        Args:
            url: `mongodb://...`, with credentials and TLS options where needed. The database is `blog-platform`
                if the URL names none. Its write concern and read preference have no effect.
            namespace: Begins the name of each collection.
            timeout: How long a single operation may take, with the driver's own retries, before it raises a
                transient error.

        Raises:
            MongoUrlError: The URL is wrong, as far as can be checked without DNS, or a file for TLS can't be read.
        """
        patch.apply()
        _check_files(url)
        try:
            client = patch.Client(
                url,
                appname=application(namespace),
                w="majority",
                journal=True,
                # Whatever the URL says: a secondary may lack views that are stored, and they would not be counted.
                readPreference="primary",
                retryWrites=True,
                timeoutMS=round(timeout.total_seconds() * 1000),
                serverSelectionTimeoutMS=5_000,
                connectTimeoutMS=5_000,
                tz_aware=True,
            )
        except (ConfigurationError, OSError, ValueError) as error:  # an option, a file of certificates, a port
            raise patch.MongoUrlError(str(error)) from error
        return cls(client, namespace, timeout)

    @property
    def database(self) -> NamespacedDatabase:
        """The database."""
        return self._database

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()

    async def ping(self) -> None:
        """Return when a primary answers.

        Raises:
            PyMongoError: None does in time; `is_transient` tells whether to try again.
        """
        with pymongo.timeout(_PING_SECONDS):
            await self.client.admin.command("ping")

    async def end_abandoned_transactions(self) -> None:
        """Abort transactions of workers that were killed, which will never end them.

        MongoDB leaves them open for a minute, with locks on the documents that they changed. A running worker never
        pauses this long between two statements; one that was frozen finds its transaction aborted, and retries it.
        Only our own user's sessions are visible, which every user may end. Other installations' are left alone.
        """
        idle = await self.client.admin.aggregate(
            [
                {"$currentOp": {"idleSessions": True}},
                {
                    "$match": {
                        "type": "idleSession",
                        "appName": application(self.database.namespace),
                        "transaction.timeInactiveMicros": {"$gt": _ABANDONED_AFTER.total_seconds() * 1e6},
                    }
                },
            ]
        )
        sessions = [{"id": operation["lsid"]["id"]} async for operation in idle]
        if sessions:
            await self.client.admin.command("killSessions", sessions)


def _check_files(url: str) -> None:
    """Refuse files for TLS that can't be read: the driver's error would not name them."""
    for name, file in parse_qsl(url.partition("?")[2]):
        if name.lower() in ("tlscafile", "tlscertificatekeyfile") and not os.access(file, os.R_OK):
            raise patch.MongoUrlError(f"{name}: {file} can't be read")


def application(namespace: str) -> str:
    """Return the application name of an installation's sessions; MongoDB takes at most 128 bytes."""
    return f"{namespace}inkstream"[-128:]
