"""The platform's posts in PostgreSQL: moves their view counts by what is missing, and sets aside posts that refuse it.

A post whose row is locked, or whose update PostgreSQL refuses, is tried again later; the others are updated meanwhile.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import LiteralString, NamedTuple, Self

import psycopg
import structlog
from psycopg import errors, sql

from runtime.metrics import POSTS_CHANGED_BY_OTHERS
from runtime.settings import Settings
from sinks.postgres.pool import Connection, PostsTable, blames_row, describe_posts, fetch
from sinks.postgres.post_locks import LOCK_MILLISECONDS, LOCKED

log = structlog.get_logger(__name__)

NOT_UPDATED = "not-updated"
"""The code of a post that exists, but that an update leaves as it is: by row-level security, a trigger or a rule."""

_LOCK_OF_ONE_MILLISECONDS = 100
_SORTING_SECONDS = 2.0
"""How long a transaction may look for the posts whose locks it can't get, while it holds the rows of others."""


class SetAside(NamedTuple):
    """Posts whose count PostgreSQL refuses to change, for the same reason.

    Attributes:
        code: The SQLSTATE, or `NOT_UPDATED`.
        posts: The number of posts.
        since: When the first of them was refused.
        example: The id of one.
    """

    code: str
    posts: int
    since: datetime
    example: str


class Waiting(NamedTuple):
    """Posts that don't have all their views.

    Attributes:
        missing: How many the platform does not have.
        set_aside: Those whose count can't be changed.
    """

    missing: int
    set_aside: list[SetAside]


class PlatformTable(NamedTuple):
    """The platform's table of posts: its name, the id column that we read, and the count column that we write."""

    table: str
    id_column: str
    view_count_column: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the table that the settings name."""
        return cls(settings.posts_table, settings.posts_id_column, settings.view_count_column)

    def names(self, id_type: str | None) -> dict[str, sql.Composable]:
        """Return the names that queries have in braces, quoted, and `key`, a post's id as the column's type.

        Args:
            id_type: The type of the id column; `None` if there is no such column.
        """
        return {
            "posts": sql.Identifier(*self.table.split(".")),
            "post_id": sql.Identifier(self.id_column),
            "view_count": sql.Identifier(self.view_count_column),
            "key": sql.SQL(_KEYS.get((id_type or "").partition("(")[0], "counted.post_id")),
        }


_WHOLE_NUMBER: LiteralString = "CASE WHEN counted.post_id ~ '^(0|[1-9][0-9]{0,17})$' THEN counted.post_id::bigint END"
_KEYS: Mapping[str, LiteralString] = {
    "uuid": "CASE WHEN counted.post_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN counted.post_id::uuid END",
    "bigint": _WHOLE_NUMBER,
    "integer": _WHOLE_NUMBER,
    "smallint": _WHOLE_NUMBER,
    "character": "counted.post_id::bpchar",
}
"""An event's post id as the type of the platform's column, so that its index is used; null if it can't be converted.

Only the form that PostgreSQL itself writes is accepted, so that no two ids of events are the same post. Texts need no
cast.
"""


def takes_ids_of(table: PostsTable) -> bool:
    """Whether posts can be found by the ids that events have: by a text, a UUID or a whole number."""
    return table.id_is_text or (table.id_type or "").partition("(")[0] in _KEYS


class PlatformPosts:
    """Writes the view counts of the platform's posts, within a transaction of the caller's.

    Args:
        table: The platform's posts.
        update_every: Update a post at most once in this time; its views wait until then.
    """

    def __init__(self, table: PlatformTable, update_every: timedelta) -> None:
        self.table = table
        self.update_every = update_every
        self._names: dict[str, sql.Composable] | None = None

    async def names(self, using: Connection) -> dict[str, sql.Composable]:
        """Return the names that the queries have in braces."""
        if self._names is None:
            await self._describe(using)
        return self._names or self.table.names(None)

    async def move(self, using: Connection, post_ids: Sequence[str], *, at_once: bool = False) -> None:
        """Add to the platform's counts the views that they lack.

        Args:
            using: The transaction, which has locked our rows of these posts.
            post_ids: The posts.
            at_once: Also those that are not due yet, or set aside.

        Raises:
            LockNotAvailable: The platform holds a lock on the table.
            psycopg.Error: PostgreSQL refuses more than single posts.
        """
        await self._write(using, "move_view_counts", post_ids, at_once=at_once, every=self.update_every)

    async def overwrite(self, using: Connection, post_ids: Sequence[str]) -> None:
        """Set the platform's counts to their baselines plus all our views, whatever others did to them.

        Raises:
            LockNotAvailable: The platform holds a lock on the table.
            psycopg.Error: PostgreSQL refuses more than single posts.
        """
        await self._write(using, "set_view_counts", post_ids)

    async def waiting(self, using: Connection) -> Waiting:
        """Return the posts that don't have all their views.

        Raises:
            psycopg.Error: PostgreSQL can't answer.
        """
        names = await self.names(using)
        (row,) = await fetch(using, "count_missing_posts", names)
        return Waiting(row["missing"], await set_aside(using, names))

    async def _write(self, using: Connection, query: str, post_ids: Sequence[str], **parameters: object) -> None:
        """Write the platform's counts of posts by a query; set aside those that PostgreSQL refuses to change.

        Raises:
            LockNotAvailable: The platform holds a lock on the table.
            psycopg.Error: PostgreSQL refuses more than single posts.
        """
        await fetch(using, "limit_lock_wait", milliseconds=LOCK_MILLISECONDS)
        await self._write_some(using, query, post_ids, parameters, _Deadline())

    async def _write_some(
        self,
        using: Connection,
        query: str,
        post_ids: Sequence[str],
        parameters: dict[str, object],
        deadline: "_Deadline",
    ) -> None:
        if not post_ids:
            return
        try:
            async with using.transaction():  # within the transaction, a savepoint
                names = await self.names(using)
                rows = await fetch(using, query, names, post_ids=list(post_ids), **parameters)
        except psycopg.Error as error:
            if not await self._blames_post(using, error):
                raise
            if len(post_ids) == 1 or (isinstance(error, errors.LockNotAvailable) and deadline.has_passed):
                for post_id in post_ids:
                    await self._set_aside(using, post_id, error.sqlstate or "")
                return
            for half in _halves(post_ids):
                await self._write_some(using, query, half, parameters, deadline)
            return
        POSTS_CHANGED_BY_OTHERS.inc(sum(row["outcome"] == "changed" for row in rows))
        for row in rows:
            if row["outcome"] == NOT_UPDATED:
                await self._set_aside(using, row["post_id"], NOT_UPDATED)
        await self._set_aside_not_free(using, [row["post_id"] for row in rows if row["outcome"] == "not-free"])

    async def _set_aside_not_free(self, using: Connection, post_ids: Sequence[str]) -> None:
        """Set aside posts that can be read but not locked: another transaction holds them, or no policy permits it."""
        if not post_ids:
            return
        try:
            async with using.transaction():
                rows = await fetch(using, "lock_posts_to_update", await self.names(using), post_ids=list(post_ids))
        except errors.LockNotAvailable:
            if len(post_ids) == 1:
                await self._set_aside(using, post_ids[0], LOCKED)
            else:
                for half in _halves(post_ids):
                    await self._set_aside_not_free(using, half)
            return
        for post_id in set(post_ids).difference(row["post_id"] for row in rows):
            await self._set_aside(using, post_id, NOT_UPDATED)

    async def _blames_post(self, using: Connection, error: psycopg.Error) -> bool:
        """Whether a single post caused an error, and not the server, or a missing table, permission or table lock.

        Raises:
            LockNotAvailable: The lock on the table is not available.
        """
        if isinstance(error, errors.LockNotAvailable):
            async with using.transaction():
                await fetch(using, "wait_for_table_lock", await self.names(using))
            # So something waits for another lock, as a trigger does that writes elsewhere.
            await fetch(using, "limit_lock_wait", milliseconds=_LOCK_OF_ONE_MILLISECONDS)
            return True
        return blames_row(error) and (await self._describe(using)).is_prepared

    async def _set_aside(self, using: Connection, post_id: str, code: str) -> None:
        (row,) = await fetch(using, "set_post_aside", post_id=post_id, code=code)
        # A row may be held for a moment.
        if row["refusals"] == (2 if code == LOCKED else 1):
            log.warning("view count of a post not updated, trying again", post=post_id, code=code)

    async def _describe(self, using: Connection) -> PostsTable:
        """Look up the platform's table, and the type of its ids."""
        described = await describe_posts(using, *self.table)
        if described.id_type is not None:
            self._names = self.table.names(described.id_type)
        return described


async def set_aside(using: Connection, names: Mapping[str, sql.Composable]) -> list[SetAside]:
    """Return the posts whose count PostgreSQL refuses to change, by reason.

    Args:
        using: A connection.
        names: The platform's table, from `PlatformTable.names`.

    Raises:
        psycopg.Error: PostgreSQL can't answer.
    """
    return [SetAside(**row) for row in await fetch(using, "count_posts_set_aside", names)]


class _Deadline:
    """Ends a fixed time after it began."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + _SORTING_SECONDS

    @property
    def has_passed(self) -> bool:
        return time.monotonic() > self._ends_at


def _halves(post_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield two halves, drawn at random: a post that waits long must not be grouped with the same posts each time."""
    mixed = random.sample(post_ids, len(post_ids))
    yield mixed[: len(mixed) // 2]
    yield mixed[len(mixed) // 2 :]
