"""The counts of windows in PostgreSQL: how many views each post had in each hour.

The highest count of a window stays, so applying a count twice, or an older one after a newer one, changes nothing. Old
windows are rolled up into the total of their post.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from enrich.view_windows import Window
from sinks.postgres.pool import Connection, Pool, fetch


class WindowCount(NamedTuple):
    """All views of a window, as of a moment."""

    window: Window
    views: int
    as_of: datetime


class Applied(NamedTuple):
    """The result of applying counts.

    Attributes:
        risen: The windows that have more views than before, with their views now.
        views: The sum of the increases.
        too_late: Windows that are already rolled up, so that their counts could not be applied.
    """

    risen: list[WindowCount]
    views: int
    too_late: list[Window]


class ViewWindows:
    """Reads windows.

    Args:
        pool: Connections to the platform's database.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def between(
        self, start: datetime, end: datetime | None, post_ids: Collection[str] | None = None
    ) -> dict[Window, int]:
        """Return the views of the windows that start in `[start, end)`.

        Args:
            start: The first start of a window.
            end: The end of the range, exclusive; `None` for no end.
            post_ids: Only windows of these posts; `None` for all.

        Raises:
            psycopg.Error: PostgreSQL can't answer.
        """
        post_list = None if post_ids is None else list(post_ids)
        async with self._pool.transaction() as using:
            return _views(await fetch(using, "windows_between", start=start, end=end, post_ids=post_list))

    async def views_of(self, windows: Collection[Window]) -> dict[Window, int]:
        """Return the views of those windows that are not rolled up; 0 if nothing was ever counted.

        Raises:
            psycopg.Error: PostgreSQL can't answer.
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
        """Return some windows of a random moment after `since`, with their views.

        Raises:
            psycopg.Error: PostgreSQL can't answer.
        """
        async with self._pool.transaction() as using:
            return _views(await fetch(using, "sample_windows", since=since, most=most))


async def raise_windows(using: Connection, counts: Collection[WindowCount]) -> Applied:
    """Apply counts of different windows, in a transaction that has locked their posts.

    Raises:
        psycopg.Error: PostgreSQL refuses.
    """
    given = columns(counts)
    risen = await fetch(using, "raise_windows", **given)
    too_late = await fetch(using, "rolled_up_windows", post_ids=given["post_ids"], starts=given["starts"])
    return Applied(
        [WindowCount(window_of(row), row["views"], row["as_of"]) for row in risen],
        sum(row["difference"] for row in risen),
        [window_of(row) for row in too_late],
    )


def highest(counts: Iterable[WindowCount]) -> list[WindowCount]:
    """Return the highest count of each window: a statement can't write a row twice."""
    by_window: dict[Window, WindowCount] = {}
    for count in counts:
        known = by_window.get(count.window)
        if known is None or count.views > known.views:
            by_window[count.window] = count
    return list(by_window.values())


def columns(counts: Iterable[WindowCount]) -> dict[str, list[Any]]:
    """Return counts as arrays, one for each column."""
    rows: Sequence[WindowCount] = list(counts)
    return {
        "post_ids": [count.window.post_id for count in rows],
        "starts": [count.window.start for count in rows],
        "views": [count.views for count in rows],
        "as_of": [count.as_of for count in rows],
    }


def window_of(row: dict[str, Any]) -> Window:
    """Return the window of a row."""
    return Window(row["post_id"], row["window_start"].astimezone(UTC))


def _views(rows: Iterable[dict[str, Any]]) -> dict[Window, int]:
    return {window_of(row): row["views"] for row in rows}
