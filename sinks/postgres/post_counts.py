"""The counts of a post in PostgreSQL: our count of its views, and the platform's."""

from collections.abc import Collection
from typing import NamedTuple

from sinks.postgres.platform_posts import PlatformPosts
from sinks.postgres.pool import Connection, fetch
from sinks.postgres.post_locks import LOCK_MILLISECONDS

PAGE = 500
"""How many posts one transaction reads or locks at most, when it processes all posts."""


class PostCounts(NamedTuple):
    """The counts of a post in PostgreSQL, all at one moment.

    Attributes:
        post_id: The post.
        views: The stored total of all its windows.
        views_of_windows: The same total, calculated from the windows, those that are rolled up included.
        applied: How many of the views the platform's count includes.
        baseline: The platform's count before the first update; `None` until something is applied.
        view_count: The platform's count; `None` if the platform has no such post.
        refused_code: Why PostgreSQL refuses to change the platform's count; `None` if it does not.
        changed_by_others: What others have added to or subtracted from the platform's count, as of the last update.
        is_grouped: Whether views wait because the post was just updated, and updates are grouped.
    """

    post_id: str
    views: int
    views_of_windows: int
    applied: int
    baseline: int | None
    view_count: int | None
    refused_code: str | None = None
    changed_by_others: int = 0
    is_grouped: bool = False

    @property
    def others(self) -> int:
        """What others have added to or subtracted from the platform's count by now; 0 if unknown."""
        if self.view_count is None or self.baseline is None:
            return 0
        return self.view_count - self.baseline - self.applied

    @property
    def has_wrong_applied(self) -> bool:
        """Whether the platform's count includes all views, although our table says that it does not."""
        return (
            self.view_count is not None
            and self.baseline is not None
            and self.applied != self.views_of_windows
            and self.view_count == self.baseline + self.changed_by_others + self.views_of_windows
        )


async def counts_of_posts(
    using: Connection, posts: PlatformPosts, post_ids: Collection[str] | None, *, after: str = ""
) -> list[PostCounts]:
    """Return the counts of the posts that have counted views, at most `PAGE`, in the order of their ids.

    Args:
        using: A transaction.
        posts: The platform's posts.
        post_ids: Only these posts; `None` for all.
        after: Only posts whose id is greater.

    Raises:
        LockNotAvailable: The platform holds a lock on its posts.
        psycopg.Error: PostgreSQL can't answer.
    """
    names = await posts.names(using)
    await fetch(using, "limit_lock_wait", milliseconds=LOCK_MILLISECONDS)
    rows = await fetch(
        using,
        "counts_of_posts",
        names,
        post_ids=None if post_ids is None else list(post_ids),
        after=after,
        most=PAGE,
        every=posts.update_every,
    )
    return [PostCounts(**row) for row in rows]
