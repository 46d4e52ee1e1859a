"""The view counts in PostgreSQL: our windows of views, and the platform's count, moved by their difference.

Input: absolute counts of windows. Output: our rows and the platform's `posts."viewCount"`, in one transaction. While
the platform holds a lock on its posts, only our rows are written; the platform's follow when the lock is released.

After a crash: counts are applied again, which changes nothing, as the highest count of a window stays.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from psycopg import errors

from enrich.view_windows import Window
from sinks.postgres.count_repair import CountWindows, Repaired, repair
from sinks.postgres.platform_posts import PlatformPosts, PlatformTable, Waiting
from sinks.postgres.pool import Connection, Pool, fetch, is_transient
from sinks.postgres.post_counts import PAGE, PostCounts, counts_of_posts
from sinks.postgres.post_locks import LOCK_MILLISECONDS, Blocker, PostsLockedError, blockers
from sinks.postgres.view_windows import Applied, ViewWindows, WindowCount, highest, raise_windows

AT_ONCE = timedelta(0)
"""Updates of a post are not grouped."""

_IDLE_LIMIT = "10s"
_IDLE_LIMIT_OF_REPAIR = "2min"
"""Counting in MongoDB takes up to a minute meanwhile."""


class ViewCounts:
    """The view counts in PostgreSQL.

    Args:
        pool: Connections to the platform's database.
        table: The platform's posts.
        update_every: Update a post of the platform's at most once in this time; its views wait until then.

    Attributes:
        windows: Our counts of windows.
    """

    name = "postgresql"
    is_transient = staticmethod(is_transient)

    def __init__(self, pool: Pool, table: PlatformTable, update_every: timedelta = AT_ONCE) -> None:
        self._pool = pool
        self._posts = PlatformPosts(table, update_every)
        self._locked_since: datetime | None = None
        self.windows = ViewWindows(pool)

    async def apply(self, counts: Iterable[WindowCount]) -> Applied:
        """Apply counts, and move the platform's counts by what has risen; all of it, or nothing.

        The platform's counts follow later if its posts are locked, or if updates of a post are grouped.

        Raises:
            psycopg.Error: PostgreSQL refuses or does not answer; `is_transient` tells whether to try again.
        """
        new = highest(counts)
        if not new:
            return Applied([], 0, [])
        async with self._changing() as using:
            post_ids = await self._lock(using, [count.window.post_id for count in new])
            applied = await raise_windows(using, new)
            # Once a lock is known, `maintain` waits for it, and gives the posts the views that they miss.
            if self._locked_since is None:
                try:
                    await self._posts.move(using, post_ids)
                except errors.LockNotAvailable:
                    self._locked_since = datetime.now(UTC)
        return applied

    async def maintain(self) -> Waiting:
        """Give posts the views that wait for them, if they have appeared, are due or are to be tried again.

        Returns:
            The posts that still wait.

        Raises:
            PostsLockedError: The platform holds a lock on its posts.
            psycopg.Error: PostgreSQL refuses or does not answer.
        """
        try:
            waiting = await self._maintain()
        except errors.LockNotAvailable:
            self._locked_since = self._locked_since or datetime.now(UTC)
            raise await self._locked(self._locked_since) from None
        self._locked_since = None
        return waiting

    async def _maintain(self) -> Waiting:
        while True:
            async with self._changing() as using:
                names = await self._posts.names(using)
                await fetch(using, "limit_lock_wait", milliseconds=LOCK_MILLISECONDS)
                await fetch(using, "wait_for_table_lock", names)
                rows = await fetch(using, "lock_due_posts", names, most=PAGE, every=self._posts.update_every)
                # Each of them is moved or set aside for a while, so the next turn finds others.
                await self._posts.move(using, [row["post_id"] for row in rows])
                if len(rows) < PAGE:
                    return await self._posts.waiting(using)

    async def roll_up(self, before: datetime) -> None:
        """Add the windows that start before a moment to the totals of their posts, and delete them.

        Raises:
            psycopg.Error: PostgreSQL refuses or does not answer.
        """
        while True:
            async with self._changing() as using:
                rows = await fetch(using, "lock_posts_to_roll_up", before=before, most=PAGE)
                await fetch(using, "roll_up_windows", post_ids=[row["post_id"] for row in rows], before=before)
            if len(rows) < PAGE:
                return

    async def posts(self, post_ids: Collection[str] | None = None) -> AsyncIterator[list[PostCounts]]:
        """Yield the counts of the posts that have counted views, page by page, in the order of their ids.

        Args:
            post_ids: Only these posts; `None` for all.

        Raises:
            PostsLockedError: The platform holds a lock on its posts.
            psycopg.Error: PostgreSQL refuses or does not answer.
        """
        after = ""
        while True:
            try:
                async with self._pool.transaction() as using:
                    page = await counts_of_posts(using, self._posts, post_ids, after=after)
            except errors.LockNotAvailable:
                raise await self._locked(datetime.now(UTC)) from None
            if page:
                yield page
                after = page[-1].post_id
            if len(page) < PAGE:
                return

    async def repair(
        self, post_ids: Collection[str], windows: Collection[Window], count: CountWindows, *, overrule: bool = False
    ) -> Repaired:
        """Recount windows and set them, up or down, and with them the counts of the posts; all of it, or nothing.

        Nothing else changes our counts of these posts meanwhile. A view that is stored after its window was counted
        here is counted as always, and raises the count then. What others did to the platform's count stays.

        Args:
            post_ids: Posts whose sum is corrected and whose count on the platform is moved by that, at most 500 with
                those of the windows.
            windows: Windows that are set.
            count: Counts them, in what is stored durably.
            overrule: Set the platform's count of `post_ids` to its baseline plus all views, whatever others did.

        Raises:
            PostsLockedError: The platform holds a lock on its posts.
            psycopg.Error: PostgreSQL refuses or does not answer.
        """
        try:
            async with self._changing(_IDLE_LIMIT_OF_REPAIR) as using:
                locked = await self._lock(using, [*post_ids, *(window.post_id for window in windows)])
                overruled = list(post_ids) if overrule else []
                return await repair(using, self._posts, locked, windows, count, overruled)
        except errors.LockNotAvailable:
            raise await self._locked(datetime.now(UTC)) from None

    async def blockers(self, post_id: str | None = None) -> list[Blocker]:
        """Return the sessions that an update of the platform's posts waits for; empty if it need not wait.

        Args:
            post_id: The post whose row lock to check; `None` to check locks on the table.

        Raises:
            psycopg.Error: PostgreSQL can't answer.
        """
        async with self._pool.transaction() as waiting, self._pool.transaction() as asking:
            return await blockers(waiting, asking, await self._posts.names(asking), post_id)

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
    async def _changing(self, idle_limit: str = _IDLE_LIMIT) -> AsyncIterator[Connection]:
        """Begin a transaction that may lock posts, for a bounded time."""
        async with self._pool.transaction() as using:
            await fetch(using, "limit_idle_time", limit=idle_limit)
            await fetch(using, "check_constraints_immediately")
            yield using

    async def _lock(self, using: Connection, post_ids: Sequence[str]) -> list[str]:
        """Lock our rows of the posts, and create those that are missing; return the posts, each once."""
        distinct = sorted(set(post_ids))
        await fetch(using, "add_counted_posts", post_ids=distinct)
        await fetch(using, "lock_counted_posts", post_ids=distinct)
        return distinct

    async def _locked(self, since: datetime) -> PostsLockedError:
        return PostsLockedError(self._posts.table.table, since, await self.blockers())
