"""View counts in PostgreSQL: our windows of views, and the platform's count, moved by their difference.

In come counts of windows, absolute; out go rows of ours and the platform's `posts."viewCount"`, in one transaction. The
highest count of a window stays, so a count that comes twice, or an older one after a newer one, changes nothing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, LiteralString, NamedTuple, Self

import psycopg
import structlog
from psycopg import sql

from enrich.view_windows import Window
from ops.settings import Settings
from sinks.postgres import Connection, Pool, PostsTable, blames_row, describe_posts, fetch, is_transient

log = structlog.get_logger(__name__)

NOT_UPDATED = "not-updated"
"""The code of a post that is there, and that an update leaves as it is: by row-level security, a trigger or a rule."""

_POSTS_AT_ONCE = 500
"""How many posts one transaction looks at or locks at most, when it goes over all there are."""


class WindowCount(NamedTuple):
    """The views of a window, all of them, as of a moment."""

    window: Window
    views: int
    as_of: datetime


class Applied(NamedTuple):
    """What became of counts.

    Attributes:
        risen: The windows that have more views than before, with their views now.
        views: By how many views the windows have risen together.
        too_late: Windows that are folded, so that nothing can be said of them any more.
    """

    risen: list[WindowCount]
    views: int
    too_late: list[Window]


class PostCounts(NamedTuple):
    """What PostgreSQL has of a post, all at one moment.

    Attributes:
        post_id: The post.
        views: Of all its windows, as we keep it.
        views_of_windows: The same, summed up anew: the folded ones, and those that are not.
        applied: What of the views the platform's count has.
        baseline: What the platform's count was before; `None` until something is applied.
        view_count: The platform's count; `None` where the platform has no such post.
        refused_code: Why PostgreSQL refuses to change the platform's count; `None` where it does not.
    """

    post_id: str
    views: int
    views_of_windows: int
    applied: int
    baseline: int | None
    view_count: int | None
    refused_code: str | None = None


class SetAside(NamedTuple):
    """Posts whose count PostgreSQL refuses to change, for the same reason.

    Attributes:
        code: The SQLSTATE, or `NOT_UPDATED`.
        posts: How many they are.
        since: Since when the first of them.
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


class WindowChange(NamedTuple):
    """What a repair made of a window."""

    window: Window
    views_before: int
    views: int


class Repaired(NamedTuple):
    """What a repair changed.

    Attributes:
        windows: The windows that have other views than before.
        posts: The posts of which anything is other than before, as they were and as they are.
    """

    windows: list[WindowChange]
    posts: list[tuple[PostCounts, PostCounts]]


class PlatformTable(NamedTuple):
    """The platform's table of posts, of which we read one column and write another."""

    table: str
    id_column: str
    view_count_column: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the table that the settings name."""
        return cls(settings.posts_table, settings.posts_id_column, settings.view_count_column)

    def names(self, id_type: str | None) -> dict[str, sql.Composable]:
        """Return what queries have in braces: the names, quoted, and `key`, a post's id as the column's type.

        Args:
            id_type: The type of the id column; `None` where there is no such column.
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
"""An event's post id as the type of the platform's column, so that its index serves; null where it can't be one.

Only the form that PostgreSQL itself writes is read, so that no two ids of events are the same post. Texts need no cast.
"""


def takes_ids_of(table: PostsTable) -> bool:
    """Whether posts can be found by the ids that events have: by a text, a UUID or a whole number."""
    return table.id_is_text or (table.id_type or "").partition("(")[0] in _KEYS


class ViewCounts:
    """The view counts in PostgreSQL.

    Args:
        pool: Connections to the platform's database.
        table: The platform's posts.
    """

    name = "postgresql"
    is_transient = staticmethod(is_transient)

    def __init__(self, pool: Pool, table: PlatformTable) -> None:
        self._pool = pool
        self._table = table
        self._names: dict[str, sql.Composable] | None = None

    async def apply(self, counts: Iterable[WindowCount]) -> Applied:
        """Bring in counts, and move the platform's counts by what has risen; all of it, or nothing.

        Raises:
            psycopg.Error: PostgreSQL is not up to it; `is_transient` tells whether it may be later.
        """
        highest = _highest(counts)
        if not highest:
            return Applied([], 0, [])
        columns = _columns(highest)
        async with self._changing() as using:
            post_ids = await self._lock(using, columns["post_ids"])
            risen = await fetch(using, "raise_windows", **columns)
            too_late = await fetch(using, "folded_windows", post_ids=columns["post_ids"], starts=columns["starts"])
            await self._move(using, post_ids)
        return Applied(
            [WindowCount(_window(row), row["views"], row["as_of"]) for row in risen],
            sum(row["difference"] for row in risen),
            [_window(row) for row in too_late],
        )

    async def settle(self) -> Waiting:
        """Give posts the views that wait for them, where they have appeared or are to be tried again.

        Returns:
            What waits still.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        while True:
            async with self._changing() as using:
                names = await self._identifiers(using)
                rows = await fetch(using, "lock_posts_that_appeared", names, most=_POSTS_AT_ONCE)
                # Each of them is moved or set aside for a while, so the next turn finds others.
                await self._move(using, [row["post_id"] for row in rows])
                if len(rows) < _POSTS_AT_ONCE:
                    return await self._waiting(using)

    async def fold(self, before: datetime) -> None:
        """Fold the windows that start before a moment into the totals of their posts, which stay what they are.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        while True:
            async with self._changing() as using:
                rows = await fetch(using, "lock_posts_to_fold", before=before, most=_POSTS_AT_ONCE)
                await fetch(using, "fold_windows", post_ids=[row["post_id"] for row in rows], before=before)
            if len(rows) < _POSTS_AT_ONCE:
                return

    async def between(
        self, start: datetime, end: datetime | None, post_ids: Collection[str] | None = None
    ) -> dict[Window, int]:
        """Return the views of the windows that start in `[start, end)`, without an end where that is `None`.

        Args:
            start: Windows that start here or later.
            end: Windows that start before.
            post_ids: Windows of these posts; `None` for all.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        async with self._pool.transaction() as using:
            rows = await fetch(using, "windows_between", start=start, end=end, post_ids=_list(post_ids))
        return _views(rows)

    async def views_of(self, windows: Collection[Window]) -> dict[Window, int]:
        """Return the views of those windows that are not folded; 0 where nothing was ever counted.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        async with self._pool.transaction() as using:
            rows = await fetch(
                using,
                "views_of_windows",
                post_ids=[window.post_id for window in windows],
                starts=[window.start for window in windows],
            )
        return _views(rows)

    async def sample(self, since: datetime, most: int) -> dict[Window, int]:
        """Return some windows of a random moment since then, with their views.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        async with self._pool.transaction() as using:
            return _views(await fetch(using, "sample_windows", since=since, most=most))

    async def posts(self, post_ids: Collection[str] | None = None) -> AsyncIterator[list[PostCounts]]:
        """Yield what there is of the posts that have counted views, some at a time, in the order of their ids.

        Args:
            post_ids: These posts; `None` for all.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        after = ""
        while True:
            async with self._pool.transaction() as using:
                page = await self._counts(using, post_ids, after=after)
            if page:
                yield page
                after = page[-1].post_id
            if len(page) < _POSTS_AT_ONCE:
                return

    async def repair(
        self,
        post_ids: Collection[str],
        windows: Collection[Window],
        count: Callable[[Collection[Window]], Awaitable[Mapping[Window, int]]],
    ) -> Repaired:
        """Count windows anew and set them, up or down, and with them the counts of the posts; all of it, or nothing.

        Nothing else changes these posts meanwhile. A view that is stored after its window was counted here is counted
        as always, and raises the count then.

        Args:
            post_ids: Posts of which sum and platform's count are set, at most 500 with those of the windows.
            windows: Windows that are set.
            count: Counts them, from what is durable.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        async with self._pool.transaction() as using:
            await fetch(using, "check_at_once")
            locked = await self._lock(using, [*post_ids, *(window.post_id for window in windows)])
            before = await self._counts(using, locked)
            as_of = datetime.now(UTC)
            fresh = await count(windows) if windows else {}
            columns = _columns([WindowCount(window, views, as_of) for window, views in fresh.items()])
            rows = await fetch(using, "set_windows", **columns)
            await fetch(using, "sum_windows", post_ids=locked)
            await self._write(using, "set_view_counts", locked)
            after = await self._counts(using, locked)
        return Repaired(
            [WindowChange(_window(row), row["views_before"], row["views"]) for row in rows],
            [(was, now) for was, now in zip(before, after, strict=True) if was != now],
        )

    async def ping(self) -> None:
        """Return when the server answers.

        Raises:
            psycopg.Error: It does not.
        """
        await self._pool.ping()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Connection]:
        """Begin a transaction that may lock posts, though not for ever."""
        async with self._pool.transaction() as using:
            await fetch(using, "limit_silence")
            await fetch(using, "check_at_once")
            yield using

    async def _lock(self, using: Connection, post_ids: Sequence[str]) -> list[str]:
        """Lock our rows of the posts, made where they are missing; return the posts, each once."""
        distinct = sorted(set(post_ids))
        await fetch(using, "add_counted_posts", post_ids=distinct)
        await fetch(using, "lock_counted_posts", post_ids=distinct)
        return distinct

    async def _move(self, using: Connection, post_ids: Sequence[str]) -> None:
        await self._write(using, "move_view_counts", post_ids)

    async def _write(self, using: Connection, query: str, post_ids: Sequence[str]) -> None:
        """Write the platform's counts of posts by a query; set aside those that PostgreSQL refuses to change.

        Raises:
            psycopg.Error: It is not a post that is refused.
        """
        if not post_ids:
            return
        try:
            await self._write_all(using, query, post_ids)
        except psycopg.Error as error:
            if not await self._blames_post(using, error):
                raise
            if len(post_ids) == 1:
                await self._set_aside(using, post_ids[0], error.sqlstate or "")
                return
            for post_id in post_ids:
                await self._write(using, query, [post_id])

    async def _write_all(self, using: Connection, query: str, post_ids: Sequence[str]) -> None:
        async with using.transaction():  # within the transaction, a savepoint
            rows = await fetch(using, query, await self._identifiers(using), post_ids=list(post_ids))
        for row in rows:
            await self._set_aside(using, row["post_id"], NOT_UPDATED)

    async def _blames_post(self, using: Connection, error: psycopg.Error) -> bool:
        """Whether an error is of a post, and not of the server, or for want of a table or a right."""
        return blames_row(error) and (await self._described(using)).is_prepared

    async def _set_aside(self, using: Connection, post_id: str, code: str) -> None:
        (row,) = await fetch(using, "set_post_aside", post_id=post_id, code=code)
        if row["refusals"] == 1:
            log.warning("view count of a post not updated, trying again", post=post_id, code=code)

    async def _waiting(self, using: Connection) -> Waiting:
        names = await self._identifiers(using)
        (row,) = await fetch(using, "count_missing_posts", names)
        return Waiting(row["missing"], await set_aside(using, names))

    async def _described(self, using: Connection) -> PostsTable:
        """Look at the platform's table anew, also at the type of its ids."""
        described = await describe_posts(using, *self._table)
        if described.id_type is not None:
            self._names = self._table.names(described.id_type)
        return described

    async def _identifiers(self, using: Connection) -> dict[str, sql.Composable]:
        """Return what the queries have in braces."""
        if self._names is None:
            await self._described(using)
        return self._names or self._table.names(None)

    async def _counts(
        self, using: Connection, post_ids: Collection[str] | None, *, after: str = ""
    ) -> list[PostCounts]:
        names = await self._identifiers(using)
        rows = await fetch(using, "counts_of_posts", names, post_ids=_list(post_ids), after=after, most=_POSTS_AT_ONCE)
        return [PostCounts(**row) for row in rows]


async def set_aside(using: Connection, names: Mapping[str, sql.Composable]) -> list[SetAside]:
    """Return the posts whose count PostgreSQL refuses to change, by why.

    Args:
        using: A connection.
        names: The platform's table, from `PlatformTable.names`.

    Raises:
        psycopg.Error: PostgreSQL is not up to it.
    """
    return [SetAside(**row) for row in await fetch(using, "count_posts_set_aside", names)]


def _highest(counts: Iterable[WindowCount]) -> list[WindowCount]:
    """Return the highest count of each window: a statement can't write a row twice."""
    highest: dict[Window, WindowCount] = {}
    for count in counts:
        known = highest.get(count.window)
        if known is None or count.views > known.views:
            highest[count.window] = count
    return list(highest.values())


def _columns(counts: Sequence[WindowCount]) -> dict[str, list[Any]]:
    """Return counts as arrays, one for each column."""
    return {
        "post_ids": [count.window.post_id for count in counts],
        "starts": [count.window.start for count in counts],
        "views": [count.views for count in counts],
        "as_of": [count.as_of for count in counts],
    }


def _window(row: dict[str, Any]) -> Window:
    return Window(row["post_id"], row["window_start"].astimezone(UTC))


def _views(rows: Iterable[dict[str, Any]]) -> dict[Window, int]:
    return {_window(row): row["views"] for row in rows}


def _list(post_ids: Collection[str] | None) -> list[str] | None:
    return None if post_ids is None else list(post_ids)
