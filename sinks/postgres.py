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
from urllib.parse import parse_qsl

import psycopg
from psycopg import AsyncConnection, ProgrammingError, errors, pq, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

Connection = AsyncConnection[DictRow]

# What the database's owner mends while we wait: a table that is not there yet, a right that is not granted.
_NOT_PREPARED = (
    errors.InsufficientPrivilege,
    errors.InvalidCatalogName,
    errors.InvalidSchemaName,
    errors.UndefinedColumn,
    errors.UndefinedTable,
)

# Classes of SQLSTATE (PostgreSQL's appendix A) that are about the server, the session or other transactions:
# connection, transaction state, prepared statement, authorization, database name, rollback, resources, locks, operator,
# system, internal.
_OF_THE_SERVER = frozenset({"08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "72", "XX"})

# https://www.prisma.io/docs/orm/overview/databases/postgresql#arguments
_OF_PRISMA: Mapping[str, str] = {
    "schema": "Prisma's; remove it, and name the schema in INKSTREAM_POSTS_TABLE, as in public.posts",
    "pgbouncer": "Prisma's; remove it: Inkstream works behind PgBouncer as it is",
    "connection_limit": "Prisma's; remove it: a worker has 4 connections at most",
    "pool_timeout": "Prisma's; remove it",
    "socket_timeout": "Prisma's; remove it",
    "statement_cache_size": "Prisma's; remove it: Inkstream prepares no statements",
    "sslaccept": "Prisma's; use sslmode=verify-full (strict) or sslmode=require (accept_invalid_certs)",
    "sslidentity": "Prisma's; use sslcert and sslkey",
    "single_use_connections": "Prisma's; remove it",
}

_QUERIES = Path(__file__).with_name("queries.sql")
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_CONNECT_TIMEOUT_SECONDS = 5
_PING_SECONDS = 2
_OPTIONS: dict[str, Any] = {
    "row_factory": dict_row,
    "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
    "application_name": "inkstream",
    # A server that has gone without a word is noticed within half a minute, and not after the system's two hours.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A statement that is prepared belongs to a server's session, which a pooler such as PgBouncer changes at will.
    "prepare_threshold": None,
}


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
    """

    version: str
    database: str
    role: str
    is_standby: bool
    has_schema: bool


class PostsTable(NamedTuple):
    """The platform's table of posts, as it is, and what we may do with it. Its names are quoted as SQL needs them.

    Attributes:
        table: `posts`, or `blog."Post"`.
        schema: The schema that it is in; `None` where there is no such table.
        id_column: The column of a post's id.
        view_count_column: The column of its views.
        role: As whom we are there.
        is_owner: Whether the table is ours, so that we may do all with it.
        columns: The names of all columns, not quoted.
        id_type: The type of the id; `None` where there is no such column.
        id_is_text: Whether that is a type of texts.
        has_view_count: Whether there is a column of views.
        view_count_type: The type of the views; `None` where there is no such column.
        row_security: Whether row-level security limits what we see and may write.
        policies: The commands of the policies that apply to us: `SELECT`, `UPDATE`, `ALL`.
        may_use_schema: Whether we may look into the schema.
        may_read: Whether we may read both columns.
        may_count: Whether we may write the views.
        also_writable: What else we may write, quoted.
        may_read_counts: Whether our own table of counted posts is there, and may be read.
    """

    table: str
    schema: str | None
    id_column: str
    view_count_column: str
    role: str
    is_owner: bool
    columns: list[str]
    id_type: str | None
    id_is_text: bool
    has_view_count: bool
    view_count_type: str | None
    row_security: bool
    policies: list[str]
    may_use_schema: bool
    may_read: bool
    may_count: bool
    also_writable: list[str]
    may_read_counts: bool

    @property
    def is_prepared(self) -> bool:
        """Whether counts can be written, as far as the table and our rights go."""
        return self.schema is not None and self.id_type is not None and self.may_read and self.may_count


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


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed later: all that is neither our data's fault nor a bug of ours."""
    return isinstance(error, (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError, *_NOT_PREPARED))


def blames_row(error: psycopg.Error) -> bool:
    """Whether the platform's row may be the reason: a value, a constraint, a policy, a trigger.

    A missing table, column or right looks the same: see `PostsTable.is_prepared`.
    """
    return error.sqlstate is not None and error.sqlstate[:2] not in _OF_THE_SERVER


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Connection]:
    """Open a connection, with a transaction that is committed at the end, or rolled back by an error.

    Raises:
        PostgresUrlError: The URL is none.
        psycopg.Error: The server does not answer, or lets us not in.
    """
    _check(url)
    async with await AsyncConnection.connect(url, **_OPTIONS) as open_connection:
        yield open_connection


class Pool:
    """Connections that stay open between transactions, for a program that has many; closed ones are replaced.

    Args:
        url: The database.
    """

    def __init__(self, url: str) -> None:
        _check(url)
        self._url = url
        self._connections: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            kwargs=_OPTIONS,
            min_size=0,
            max_size=4,
            timeout=_CONNECT_TIMEOUT_SECONDS,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Begin a transaction, which is committed at the end, or rolled back by an error.

        Raises:
            psycopg.Error: The server does not answer, or lets us not in; `is_transient` tells whether it may later.
        """
        if self._connections.closed:
            await self._connections.open()
        async with self._connections.connection() as open_connection:
            yield open_connection

    async def ping(self) -> None:
        """Return when the server answers.

        Raises:
            psycopg.Error: It does not.
        """
        if self._connections.closed:
            await self._connections.open()
        try:
            async with self._connections.connection(timeout=_PING_SECONDS) as using:
                await using.execute("SELECT 1")
        except PoolTimeout:
            async with connection(self._url):  # which says why there is none, as the pool does not
                pass

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()


def _check(url: str) -> None:
    """See that a URL can be read by PostgreSQL's own library.

    Raises:
        PostgresUrlError: It can't; the message names the parameter, and holds no value of the URL.
    """
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise PostgresUrlError(_problem(url)) from None


def _problem(url: str) -> str:
    """Say what is wrong with a URL that PostgreSQL's library does not take."""
    known = {default.keyword.decode() for default in pq.Conninfo.get_defaults()}
    unknown = [name for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True) if name not in known]
    if not unknown:
        return "should be postgresql://user:password@host:port/database"
    problems = [f"parameter {name}: {_OF_PRISMA.get(name, 'not known to PostgreSQL; remove it')}" for name in unknown]
    return "; ".join(problems)


async def fetch(
    using: Connection, name: str, identifiers: Mapping[str, sql.Composable] | None = None, /, **parameters: Any
) -> list[dict[str, Any]]:
    """Run the named query, and return its rows by column; `identifiers` are for the names that it has in braces."""
    statement = sql.SQL(query(name)).format(**identifiers) if identifiers else query(name)
    cursor = await using.execute(statement, parameters or None)
    return await cursor.fetchall() if cursor.description else []


async def describe(url: str) -> PostgresServer:
    """Return what answers at the URL.

    Raises:
        psycopg.Error: Nothing does, or it lets us not in.
    """
    async with connection(url) as using:
        (row,) = await fetch(using, "describe_server")
        return PostgresServer(**row)


async def describe_posts(using: Connection, table: str, id_column: str, view_count_column: str) -> PostsTable:
    """Return what there is of the platform's posts under these names; the table's may begin with its schema.

    Raises:
        psycopg.Error: PostgreSQL is not up to it.
    """
    schema, _, name = table.rpartition(".")
    (row,) = await fetch(
        using,
        "describe_posts",
        schema=schema or None,
        table=name,
        id_column=id_column,
        view_count_column=view_count_column,
    )
    return PostsTable(**row)
