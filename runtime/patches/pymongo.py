"""Changes to PyMongo 4.20: one for Python 3.11, one for `mongodb+srv://`.

1. PyMongo waits for a server or a connection by `asyncio.wait_for`, which before Python 3.12 waits in a task of its
   own. If the waiting task is cancelled twice, as by two timeouts, that inner task is left behind, and with it the
   lock; while MongoDB is away, operations raise `RuntimeError`, or hang for ever. `apply` has it wait in the same task.
   Upstream: https://github.com/python/cpython/issues/86766
2. PyMongo looks up the name of a `mongodb+srv://` URL when the client is first used. If DNS does not answer, it raises
   the same error as for a URL that is wrong, and each of several first operations looks the name up, and leaves servers
   monitored that nothing uses. `Client` looks it up once at a time, and raises what PyMongo raises for a server that is
   away.
   Upstream: https://github.com/mongodb/mongo-python-driver/pull/2191 made the lookup lazy; no issue found for the rest.

Remove each change when its test in tests/unit/test_patch_pymongo.py says so.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any, TypeVar

import pymongo.lock
from dns.exception import Timeout
from dns.resolver import NXDOMAIN, NoAnswer, NoNameservers, NoResolverConfiguration
from pymongo import AsyncMongoClient
from pymongo.asynchronous.topology import Topology
from pymongo.errors import ConfigurationError, ServerSelectionTimeoutError

T = TypeVar("T")

_LOOKED_UP_WITHIN_SECONDS = 4


class MongoUrlError(ValueError):
    """The URL is not a connection string of MongoDB, or its records in DNS are not what MongoDB allows.

    The message does not repeat the URL: it may hold a password.
    """


def apply() -> None:
    """Have PyMongo wait as it does on Python 3.12."""
    if sys.version_info < (3, 12):
        pymongo.lock.wait_for = _wait_for  # type: ignore[assignment, attr-defined]


async def _wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - as PyMongo calls it
    async with asyncio.timeout(timeout):
        return await awaitable


class Client(AsyncMongoClient[dict[str, Any]]):
    """A client that waits for DNS as it does for a server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._looking_up: asyncio.Task[Topology] | None = None

    async def close(self) -> None:
        """Close all connections, and stop looking up the name."""
        if self._looking_up is not None:
            self._looking_up.cancel()
        await super().close()

    async def _get_topology(self) -> Topology:
        if self._opened or not self._resolve_srv_info["is_srv"]:
            return await super()._get_topology()
        if self._looking_up is None or self._looking_up.done():
            self._looking_up = asyncio.create_task(super()._get_topology())
            self._looking_up.add_done_callback(_retrieve)
        return await asyncio.shield(self._looking_up)

    async def _resolve_srv(self) -> None:
        """Look up servers and options.

        Raises:
            ServerSelectionTimeoutError: DNS does not know them, or does not answer.
            MongoUrlError: The URL is wrong, or what DNS knows.
        """
        try:
            async with asyncio.timeout(_LOOKED_UP_WITHIN_SECONDS):
                await super()._resolve_srv()
        except (ConfigurationError, TimeoutError) as error:
            why = self._why(error.__cause__ if isinstance(error, ConfigurationError) else error)
            if why is None:
                raise MongoUrlError(str(error)) from error
            raise ServerSelectionTimeoutError(why) from error

    def _why(self, error: BaseException | None) -> str | None:
        """Return why a name can't be looked up, and what to check; `None` where the name or the answer is wrong."""
        host = self._resolve_srv_info["fqdn"]
        name = f"_{self._resolve_srv_info['srv_service_name']}._tcp.{host}"
        match error:
            case NXDOMAIN():
                return f"DNS knows no name {name}: is {host} spelled right, and is its SRV record there?"
            case NoAnswer():
                return (
                    f"DNS has no SRV record {name}: is {host} a single server, for a URL that begins with mongodb://?"
                )
            case NoNameservers() | NoResolverConfiguration():
                return f"no DNS server could say where {name} is: is the one in /etc/resolv.conf right?"
            case Timeout() | TimeoutError() | OSError():
                return f"no DNS server answers when asked for {name}: is the network up, and the DNS server running?"
            case _:
                return None


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception: every caller that waited for it may have been cancelled."""
    if not task.cancelled():
        task.exception()
