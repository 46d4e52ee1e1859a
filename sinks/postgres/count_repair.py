"""Repairs view counts in PostgreSQL: recounts windows, sets them up or down, and corrects the counts of their posts."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from enrich.view_windows import Window
from sinks.postgres.platform_posts import PlatformPosts
from sinks.postgres.pool import Connection, fetch
from sinks.postgres.post_counts import PostCounts, counts_of_posts
from sinks.postgres.view_windows import WindowCount, columns, window_of

CountWindows = Callable[[Collection[Window]], Awaitable[Mapping[Window, int]]]
"""Counts the views of windows in what is stored durably."""


class WindowChange(NamedTuple):
    """What a repair changed in a window."""

    window: Window
    views_before: int
    views: int


class Repaired(NamedTuple):
    """What a repair changed.

    Attributes:
        windows: The windows whose views changed.
        posts: The posts that changed in any way, before and after.
    """

    windows: list[WindowChange]
    posts: list[tuple[PostCounts, PostCounts]]


async def repair(
    using: Connection,
    posts: PlatformPosts,
    locked: Sequence[str],
    windows: Collection[Window],
    count: CountWindows,
    overruled: Sequence[str],
) -> Repaired:
    """Repair posts and windows, within a transaction that has locked our rows of the posts.

    Args:
        using: The transaction.
        posts: The platform's posts.
        locked: The posts, those of the windows among them.
        windows: Windows that are recounted.
        count: Counts them.
        overruled: Posts whose count on the platform is overwritten, whatever others did to it.

    Raises:
        LockNotAvailable: The platform holds a lock on its posts.
        psycopg.Error: PostgreSQL refuses.
    """
    as_of = datetime.now(UTC)
    # The platform's posts are not touched before that: it may take a while.
    fresh = await count(windows) if windows else {}
    before = await counts_of_posts(using, posts, locked)
    given = columns(WindowCount(window, views, as_of) for window, views in fresh.items())
    rows = await fetch(using, "set_windows", **given)
    await fetch(using, "sum_windows", post_ids=locked)
    wrong = [post for post in before if post.has_wrong_applied]
    await fetch(
        using,
        "correct_applied",
        post_ids=[post.post_id for post in wrong],
        applied=[post.views_of_windows for post in wrong],
    )
    if overruled:
        await posts.overwrite(using, overruled)
    await posts.move(using, locked, at_once=True)
    after = await counts_of_posts(using, posts, locked)
    return Repaired(
        [WindowChange(window_of(row), row["views_before"], row["views"]) for row in rows],
        [(was, now) for was, now in zip(before, after, strict=True) if was != now],
    )
