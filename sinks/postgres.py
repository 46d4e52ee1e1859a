"""The platform's PostgreSQL: connections, and the queries of `queries.sql` by name.

In come a URL and a query's name; out come rows. A statement that fails leaves nothing behind: the transaction is rolled
back, and the caller may try again.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import AsyncConnection, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

Connection = AsyncConnection[DictRow]

_QUERIES = Path(__file__).with_name("queries.sql")
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_CONNECT_TIMEOUT_SECONDS = 5


class PostgresUrlError(ValueError):
    """The URL is no connection string of PostgreSQL. The message does not repeat it: it may hold a password."""


class PostgresServer(NamedTuple):
    """What answers, and what it lets us do.

    Attributes:
        version: As `16.2`.
        database: The database's name.
        role: As whom we are there.
        is_standby: Whether it can only be read.
        has_schema: Whether our schema is there, or may be made.
        may_read_posts: Whether we may read the platform's posts; `None` where there is no such table.
        may_count_views: Whether we may write `posts."viewCount"`; `None` where there is no such column.
    """

    version: str
    database: str
    role: str
    is_standby: bool
    has_schema: bool
    may_read_posts: bool | None
    may_count_views: bool | None


@cache
def query(name: str) -> str:
    """Return a query of `queries.sql`.

    Raises:
        KeyError: There is none of this name.
    """
    return _queries()[name]


@cache
def _queries() -> Mapping[str, str]:
    _, *parts = _NAME.split(_QUERIES.read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Connection]:
    """Open a connection, with a transaction that is committed at the end, or rolled back by an error.

    Raises:
        PostgresUrlError: The URL is none.
        psycopg.Error: The server does not answer, or lets us not in.
    """
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise PostgresUrlError("should be postgresql://user:password@host:port/database") from None
    connecting = AsyncConnection.connect(
        url, row_factory=dict_row, connect_timeout=_CONNECT_TIMEOUT_SECONDS, application_name="inkstream"
    )
    async with await connecting as open_connection:
        yield open_connection


async def fetch(using: Connection, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
    """Run the named query, and return its rows by column."""
    cursor = await using.execute(query(name), parameters or None)
    return await cursor.fetchall() if cursor.description else []


async def describe(url: str) -> PostgresServer:
    """Return what answers at the URL.

    Raises:
        psycopg.Error: Nothing does, or it lets us not in.
    """
    async with connection(url) as using:
        (row,) = await fetch(using, "describe_server")
        return PostgresServer(**row)
