"""Connections to the platform's PostgreSQL, and the queries of `queries.sql` by name.

Input: a URL and a query's name. Output: rows. A statement that fails has no effect: the transaction is rolled back, and
the caller may retry.
"""

import hashlib
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

OUR_SCHEMA = "inkstream"
"""The schema of an installation without a namespace; its name begins the names of all others."""

_LONGEST_NAME = 63
"""Bytes of a name in PostgreSQL; a longer one is cut off silently."""

# What the database's owner fixes while we wait: a missing table, a missing permission.
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
    # A server that has gone without a word is noticed within half a minute, and not after the system's two hours.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A statement that is prepared belongs to a server's session, which a pooler such as PgBouncer changes at will.
    "prepare_threshold": None,
}


class Connection(AsyncConnection[DictRow]):
    """A connection that knows which schema of the database is ours.

    Attributes:
        schema: The schema, for `{ours}` in queries.
    """

    schema: str


class OtherInstallationError(psycopg.OperationalError):
    """Our schema holds the data of an installation with another namespace."""

    def __init__(self, schema: str, owner: str) -> None:
        super().__init__(f"{owner_of_schema(schema, owner)}; {OWN_NAMESPACE}")


OWN_NAMESPACE = "set another INKSTREAM_NAMESPACE, or use another database"
"""What to do where a schema is another installation's."""


class Tables(NamedTuple):
    """What a schema has of Inkstream, as far as we may read it.

    Attributes:
        schema: The schema's name.
        exists: Whether there is such a schema.
        has_tables: Whether migrations were applied to it.
        owner: The namespace of the installation that it belongs to; `None` where it does not say.
    """

    schema: str
    exists: bool
    has_tables: bool
    owner: str | None


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


def schema_of(namespace: str) -> str:
    """Return the schema of a namespace: `inkstream`, or `inkstream_staging` for `staging.`.

    It needs no quotes in SQL. Two namespaces may have the same: the schema itself says whose it is.
    """
    words = "_".join(re.findall(r"[a-z0-9]+", namespace.lower()))
    if not namespace:
        return OUR_SCHEMA
    name = f"{OUR_SCHEMA}_{words}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(namespace.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(digest) - 1]}_{digest}"


@cache
def query(name: str) -> str:
    """Return a query of `queries.sql`.

    Raises:
        KeyError: There is no query of this name.
    """
    return _queries()[name]


@cache
def _queries() -> Mapping[str, str]:
    _, *parts = _NAME.split(_QUERIES.read_text(encoding="utf-8"))
    # What follows the last statement is a comment on the queries that come next.
    return {name: text[: text.rindex(";\n") + 1].strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed later: all that is neither our data's fault nor a bug of ours."""
    return isinstance(error, (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError, *_NOT_PREPARED))


def blames_row(error: psycopg.Error) -> bool:
    """Whether the platform's row may be the reason: a value, a constraint, a policy, a trigger.

    A missing table, column or right looks the same: see `PostsTable.is_prepared`.
    """
    return error.sqlstate is not None and error.sqlstate[:2] not in _OF_THE_SERVER


@asynccontextmanager
async def connection(url: str, namespace: str = "") -> AsyncIterator[Connection]:
    """Open a connection, with a transaction that is committed at the end, or rolled back by an error.

    Args:
        url: The database.
        namespace: Whose schema the queries read and write.

    Raises:
        PostgresUrlError: It is not a PostgreSQL URL.
        psycopg.Error: The server does not answer, or lets us not in.
    """
    check_url(url)
    async with await Connection.connect(url, **_options(namespace)) as open_connection:
        open_connection.schema = schema_of(namespace)
        yield open_connection


class Pool:
    """Connections that stay open between transactions, for a program that has many; closed ones are replaced.

    Args:
        url: The database.
        namespace: Whose schema the queries read and write.
    """

    def __init__(self, url: str, namespace: str = "") -> None:
        check_url(url)
        self._url = url
        self._namespace = namespace
        self._is_claimed = False
        self._connections: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=Connection,
            kwargs=_options(namespace),
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
            OtherInstallationError: Our schema is another installation's.
        """
        if self._connections.closed:
            await self._connections.open()
        async with self._connections.connection() as open_connection:
            open_connection.schema = schema_of(self._namespace)
            await self._check_owner(open_connection)
            yield open_connection

    async def _check_owner(self, using: Connection) -> None:
        """See that the schema is not another's: also where the server did not answer when the worker started."""
        if self._is_claimed:
            return
        tables = await find_tables(using)
        if tables.owner not in (None, self._namespace):
            raise OtherInstallationError(tables.schema, tables.owner)
        self._is_claimed = tables.owner is not None

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
            async with connection(self._url):  # which reports why it fails; the pool does not
                pass

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()


def _options(namespace: str) -> dict[str, Any]:
    return {**_OPTIONS, "application_name": f"{namespace}inkstream"}


def check_url(url: str) -> None:
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
    statement = sql.SQL(query(name)).format(**{**_names(using.schema), **(identifiers or {})})
    cursor = await using.execute(statement, parameters or None)
    return await cursor.fetchall() if cursor.description else []


def _names(schema: str) -> dict[str, sql.Composable]:
    return {"ours": sql.Identifier(schema), "ours_name": sql.Literal(schema)}


async def find_tables(using: Connection, schema: str | None = None) -> Tables:
    """Return what our schema has of Inkstream, or another one.

    Raises:
        psycopg.Error: PostgreSQL is not up to it.
    """
    schema = schema or using.schema
    names = _names(schema)
    (found,) = await fetch(using, "find_tables", names)
    # A table without a row says no more than none does.
    owners = await fetch(using, "find_owner", names) if found["has_owner"] else []
    owner = owners[0]["namespace"] if owners else None
    return Tables(schema, found["schema_exists"], found["has_tables"], owner)


def owner_of_schema(schema: str, owner: str) -> str:
    """Say whose a schema is."""
    whose = f"with namespace {owner}" if owner else "without namespace"
    return f"schema {schema} belongs to the installation {whose}"


async def describe(url: str, namespace: str = "") -> PostgresServer:
    """Return what answers at the URL; `namespace` says which schema is ours.

    Raises:
        psycopg.Error: Nothing does, or it lets us not in.
    """
    async with connection(url, namespace) as using:
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
