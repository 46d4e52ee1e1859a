"""View counts in PostgreSQL: our windows of views, and the platform's count, moved by their difference.

In come counts of windows, absolute; out go rows of ours and the platform's `posts."viewCount"`, in one transaction. The
highest count of a window stays, so a count that comes twice, or an older one after a newer one, changes nothing.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg import sql

from enrich.view_windows import Window
from sinks.postgres import Connection, Pool, fetch, is_transient

_POSTS_AT_ONCE = 500
"""How many posts one transaction locks at most, when it goes over all there are."""


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


class PlatformTable(NamedTuple):
    """The platform's table of posts, of which we read one column and write another."""

    table: str
    id_column: str
    view_count_column: str

    @property
    def identifiers(self) -> dict[str, sql.Identifier]:
        """The names as queries need them: quoted, the table with its schema."""
        return {
            "posts": sql.Identifier(*self.table.split(".")),
            "post_id": sql.Identifier(self.id_column),
            "view_count": sql.Identifier(self.view_count_column),
        }


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
        self._identifiers = table.identifiers

    async def apply(self, counts: Iterable[WindowCount]) -> Applied:
        """Bring in counts, and move the platform's counts by what has risen; all of it, or nothing.

        Raises:
            psycopg.Error: PostgreSQL is not up to it; `is_transient` tells whether it may be later.
        """
        highest = _highest(counts)
        if not highest:
            return Applied([], 0, [])
        columns = _columns(highest)
        async with self._pool.transaction() as using:
            post_ids = await self._lock(using, columns["post_ids"])
            risen = await fetch(using, "raise_windows", **columns)
            too_late = await fetch(using, "folded_windows", post_ids=columns["post_ids"], starts=columns["starts"])
            await self._move(using, post_ids)
        return Applied(
            [WindowCount(_window(row), row["views"], row["as_of"]) for row in risen],
            sum(row["difference"] for row in risen),
            [_window(row) for row in too_late],
        )

    async def settle(self) -> int:
        """Give posts that have appeared the views that waited for them; return how many posts are still missing.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        while True:
            async with self._pool.transaction() as using:
                rows = await fetch(using, "lock_posts_that_appeared", self._identifiers, most=_POSTS_AT_ONCE)
                await self._move(using, [row["post_id"] for row in rows])
                if len(rows) < _POSTS_AT_ONCE:
                    (row,) = await fetch(using, "count_missing_posts", self._identifiers)
                    missing: int = row["missing"]
                    return missing

    async def fold(self, before: datetime) -> None:
        """Fold the windows that start before a moment into the totals of their posts, which stay what they are.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        while True:
            async with self._pool.transaction() as using:
                rows = await fetch(using, "lock_posts_to_fold", before=before, most=_POSTS_AT_ONCE)
                await fetch(using, "fold_windows", post_ids=[row["post_id"] for row in rows], before=before)
            if len(rows) < _POSTS_AT_ONCE:
                return

    async def since(self, start: datetime) -> list[WindowCount]:
        """Return the windows that start at a moment or later.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        async with self._pool.transaction() as using:
            rows = await fetch(using, "windows_since", start=start)
        return [WindowCount(_window(row), row["views"], row["as_of"]) for row in rows]

    async def ping(self) -> None:
        """Return when the server answers.

        Raises:
            psycopg.Error: It does not.
        """
        await self._pool.ping()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def _lock(self, using: Connection, post_ids: Sequence[str]) -> list[str]:
        """Lock our rows of the posts, made where they are missing; return the posts, each once."""
        distinct = sorted(set(post_ids))
        await fetch(using, "add_counted_posts", post_ids=distinct)
        await fetch(using, "lock_counted_posts", post_ids=distinct)
        return distinct

    async def _move(self, using: Connection, post_ids: Collection[str]) -> None:
        await fetch(using, "move_view_counts", self._identifiers, post_ids=list(post_ids))


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
