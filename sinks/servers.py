"""Describes the servers at the addresses of the stores, for commands that check them.

Input: addresses. Output: each server's description of itself. Nothing is changed.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import psycopg
import redis.asyncio
import redis.exceptions
from psycopg.conninfo import conninfo_to_dict
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from runtime.patches.pymongo import MongoUrlError as MongoUrlError
from sinks.mongo.client import Mongo
from sinks.redis.connection import RedisUrlError as RedisUrlError
from sinks.redis.connection import connect
from sinks.redis.refusals import kind_of

STORE_ERRORS: tuple[type[Exception], ...] = (PyMongoError, psycopg.Error, redis.exceptions.RedisError)
"""What the stores' drivers raise when a server does not answer, or refuses us."""

ANSWER_TIMEOUT = timedelta(seconds=5)
"""How long a command waits for a store to answer."""

_TIMEOUT_SECONDS = ANSWER_TIMEOUT.total_seconds()
_MONGO_CREDENTIALS = frozenset({13, 18, 8000})  # Unauthorized, AuthenticationFailed, Atlas' own
_POSTGRES_CREDENTIALS = re.compile(r'authentication failed|no password supplied|role ".*" does not exist')
_UNTRUSTED = re.compile(
    r"certificate verify failed|certificate.*does not exist|does not match host name", re.IGNORECASE
)


def server_of(error: BaseException) -> str | None:
    """Return the name of the store whose driver raised an error; `None` where it is no store's."""
    drivers: Mapping[str, type[Exception]] = {
        "MongoDB": PyMongoError,
        "PostgreSQL": psycopg.Error,
        "Redis": redis.exceptions.RedisError,
    }
    return next((name for name, kind in drivers.items() if isinstance(error, kind)), None)


def addresses(server: str, url: str) -> tuple[list[tuple[str, int]], bool]:
    """Return host and port of each server that a URL names, and whether it asks for TLS from the first byte.

    Unix sockets, and names that only DNS resolves to servers, are left out.
    """
    if server == "MongoDB":
        if url.startswith("mongodb+srv:"):
            return [], True
        read = parse_uri(url, warn=False)
        options = read["options"]
        return [(host, port) for host, port in read["nodelist"] if port], bool(options.get("tls"))
    if server == "PostgreSQL":
        read = conninfo_to_dict(url)
        hosts = str(read.get("hostaddr") or read.get("host") or "localhost").split(",")
        ports = str(read.get("port") or 5432).split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        found = [(host, int(port)) for host, port in zip(hosts, ports, strict=False) if not host.startswith("/")]
        return found, False
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return [], False
    return [(parts.hostname or "localhost", parts.port or 6379)], parts.scheme == "rediss"


def kind_of_refusal(error: BaseException) -> Literal["credentials", "untrusted"] | None:
    """Return why a store refuses a connection, where its driver says so."""
    text = str(error)
    if _UNTRUSTED.search(text):
        return "untrusted"
    is_refused = (
        (isinstance(error, OperationFailure) and error.code in _MONGO_CREDENTIALS)
        or (isinstance(error, psycopg.OperationalError) and _POSTGRES_CREDENTIALS.search(text) is not None)
        or isinstance(error, redis.exceptions.AuthenticationError)
    )
    return "credentials" if is_refused else None


def is_about_connection(error: BaseException) -> bool:
    """Whether a store's driver could not reach the server, or not understand it."""
    about = (
        ConnectionFailure,
        redis.exceptions.ConnectionError,
        redis.exceptions.TimeoutError,
        redis.exceptions.InvalidResponse,
    )
    return (
        isinstance(error, about)
        # A server that answered has a code for what it has against us.
        or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None)
        or (isinstance(error, PyMongoError) and error.timeout)
    )


class MongoServer(NamedTuple):
    """What answers for MongoDB.

    Attributes:
        version: As `7.0.14`.
        replica_set: Its name; `None` where it is a single server, which can't do transactions.
        primary: The address of the member that takes writes.
        members: How many members the replica set has.
    """

    version: str
    replica_set: str | None
    primary: str | None
    members: int


async def describe_mongo(mongo: Mongo) -> MongoServer:
    """Return what answers for MongoDB.

    Raises:
        PyMongoError: No member takes writes, or it lets us not in.
    """
    admin = mongo.database.client.admin
    hello = await admin.command("hello")
    build = await admin.command("buildInfo")
    return MongoServer(build["version"], hello.get("setName"), hello.get("primary"), len(hello.get("hosts", [])))


_KEPT_MILLISECONDS = 5_000
"""How long what the check of commands writes stays."""

REDIS_COMMANDS: Mapping[str, tuple[object, ...]] = {
    "SET": ("{prefix}doctor", "x", "PX", _KEPT_MILLISECONDS),
    "GET": ("{prefix}doctor",),
    "MGET": ("{prefix}doctor",),
    "ZADD": ("{prefix}doctor", "XX", 1, "x"),
    "ZRANGE": ("{prefix}doctor", 0, 0),
    "ZSCORE": ("{prefix}doctor", "x"),
    "ZCARD": ("{prefix}doctor",),
    "ZREMRANGEBYSCORE": ("{prefix}doctor", 1, 1),
    "ZREMRANGEBYRANK": ("{prefix}doctor", 0, 0),
    "ZUNIONSTORE": ("{prefix}doctor", 1, "{prefix}doctor"),
    "HSET": ("{prefix}doctor", "x", "x"),
    "HMGET": ("{prefix}doctor", "x"),
    "EXPIREAT": ("{prefix}doctor:nothing", 4_102_444_800),
    "EXPIRE": ("{prefix}doctor", _KEPT_MILLISECONDS // 1_000),
    "PEXPIRE": ("{prefix}doctor", _KEPT_MILLISECONDS),
    "TIME": (),
    "INFO": ("server",),
    "MULTI": (),
    "EXEC": (),
    "EVALSHA": ("0" * 40, 0),
    "SCRIPT LOAD": ("return 1",),
    "PUBLISH": ("{prefix}doctor", ""),
    "SUBSCRIBE": ("{prefix}doctor",),
    "UNSUBSCRIBE": ("{prefix}doctor",),
    "CLIENT SETNAME": ("inkstream",),
}
"""Every command that a worker uses, with arguments that do no harm: one key is written, which expires. As that is a
text, Redis answers to commands for sets and hashes with WRONGTYPE, which says that they may be run."""


class RedisCheck(NamedTuple):
    """What a Redis says of the commands that a worker uses.

    Attributes:
        denied: Those that the role may not run.
        problems: What else it refuses, by kind, such as `OOM`, with the commands.
        acl: The permissions that the role needs, as `ACL SETUSER` takes them.
    """

    denied: list[str]
    problems: dict[str, list[str]]
    acl: str


def redis_acl(prefix: str) -> str:
    """Return the permissions that a worker needs, as `ACL SETUSER` takes them."""
    commands = " ".join(f"+{command.lower().replace(' ', '|')}" for command in REDIS_COMMANDS)
    return f"~{prefix}* &{prefix}* {commands}"


async def check_redis(url: str, prefix: str) -> RedisCheck:
    """Try each command that a worker uses.

    Args:
        url: Where Redis is.
        prefix: Begins the name of every key and channel.

    Raises:
        RedisError: It does not answer.
        RedisUrlError: Not a Redis URL.
    """
    denied, problems = list[str](), dict[str, list[str]]()
    async with connect(url, _TIMEOUT_SECONDS, name=None) as client:  # giving a name is one of the commands
        for command, arguments in REDIS_COMMANDS.items():
            filled = [text.format(prefix=prefix) if isinstance(text, str) else text for text in arguments]
            try:
                await _try(client, command, filled)
            except redis.exceptions.RedisError as error:
                kind = kind_of(error)
                if kind is None:
                    raise
                if kind == "NOPERM":
                    denied.append(command)
                elif kind not in ("WRONGTYPE", "other"):
                    problems.setdefault(kind, []).append(command)
    return RedisCheck(denied, problems, redis_acl(prefix))


async def _try(client: redis.asyncio.Redis, command: str, arguments: list[object]) -> None:
    """Run a command, or have Redis refuse it for what it is: what it answers else is not looked at."""
    if command in ("SUBSCRIBE", "UNSUBSCRIBE"):
        async with client.pubsub() as listening:
            await listening.execute_command(command, *arguments)
            await listening.parse_response(block=True, timeout=_TIMEOUT_SECONDS)
    else:
        # `MULTI` by itself would change what the connection's next command means.
        connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_command(*command.split(), *arguments)
            await connection.read_response()
        finally:
            await connection.disconnect()
            await client.connection_pool.release(connection)


async def describe_redis(url: str) -> str:
    """Return the version of the Redis that answers.

    Raises:
        RedisError: None does, or it lets us not in.
        RedisUrlError: Not a Redis URL.
    """
    async with connect(url, _TIMEOUT_SECONDS) as client:
        information = await client.info("server")
        return str(information["redis_version"])
