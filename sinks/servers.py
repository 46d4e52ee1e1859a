"""What answers at the addresses of the stores, for commands that look at them from outside.

In come addresses; out comes what each server says of itself. Nothing is changed.
"""

from typing import NamedTuple

import psycopg
import redis.exceptions
from pymongo.errors import ConfigurationError, PyMongoError

from sinks.mongo import Mongo
from sinks.redis import RedisUrlError as RedisUrlError
from sinks.redis import connect

MongoUrlError = ConfigurationError
"""The URL is no connection string of MongoDB; the message does not repeat it."""

STORE_ERRORS: tuple[type[Exception], ...] = (PyMongoError, psycopg.Error, redis.exceptions.RedisError)
"""What the stores' drivers raise when a server does not answer, or refuses us."""

_TIMEOUT_SECONDS = 5


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


async def describe_redis(url: str) -> str:
    """Return the version of the Redis that answers.

    Raises:
        RedisError: None does, or it lets us not in.
        RedisUrlError: The URL is none of Redis.
    """
    async with connect(url, _TIMEOUT_SECONDS) as client:
        information = await client.info("server")
        return str(information["redis_version"])
