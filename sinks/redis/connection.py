"""Connections to Redis."""

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


class RedisUrlError(ValueError):
    """The URL is no address of Redis. The message does not repeat it: it may hold a password."""


def connect(url: str, timeout_seconds: float, name: str | None = "inkstream") -> redis.asyncio.Redis:
    """Return a client, which connects when it is used, and once more where the server has closed the connection.

    Args:
        url: Where Redis is.
        timeout_seconds: How long to wait for it.
        name: How the client is called in the server's list; `None` for a client without a name.

    Raises:
        RedisUrlError: Not a Redis URL.
    """
    try:
        return redis.asyncio.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 1),
            client_name=name,
            driver_info=None,  # else each connection begins with CLIENT SETINFO, which needs one more permission
            decode_responses=True,
        )
    except ValueError:
        raise RedisUrlError("should be redis://:password@host:port/0, or rediss://… for TLS") from None
