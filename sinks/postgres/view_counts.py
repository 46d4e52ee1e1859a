"""View counts in PostgreSQL: our windows of views, and the platform's count, moved by their difference.

In come counts of windows, absolute; out go rows of ours and the platform's `posts."viewCount"`, in one transaction. The
highest count of a window stays, so a count that comes twice, or an older one after a newer one, changes nothing. While
the platform holds a lock on its posts, only ours are written; the platform's follow when the lock is gone.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, NamedTuple, Self

import psycopg
import structlog
from psycopg import errors, sql

from enrich.view_windows import Window
from runtime.metrics import POSTS_CHANGED_BY_OTHERS
from runtime.settings import Settings
from sinks.postgres.pool import Connection, Pool, PostsTable, blames_row, describe_posts, fetch, is_transient

log = structlog.get_logger(__name__)

NOT_UPDATED = "not-updated"
"""The code of a post that is there, and that an update leaves as it is: by row-level security, a trigger or a rule."""

LOCKED = "55P03"
"""The code of a post whose row another transaction holds."""

AT_ONCE = timedelta(0)
"""Updates of a post are not grouped."""

_LOCK_MILLISECONDS = 1_000
_LOCK_OF_ONE_MILLISECONDS = 100
_SORTING_SECONDS = 2.0
"""How long a transaction may look for the posts whose locks it can't get, while it holds the rows of others."""
_LOOK_SECONDS = 0.05
_SILENCE = "10s"
_SILENCE_OF_REPAIR = "2min"
"""Counting in MongoDB takes up to a minute meanwhile."""

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
        changed_by_others: What others have added to the platform's count, or taken, as of the last move.
        is_grouped: Whether views wait as the post was updated a moment ago, and updates are grouped.
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
        """What others have added to the platform's count, or taken, by now; 0 where that can't be known."""
        if self.view_count is None or self.baseline is None:
            return 0
        return self.view_count - self.baseline - self.applied

    @property
    def has_wrong_applied(self) -> bool:
        """Whether the platform's count has all views, and our table says that it has not."""
        return (
            self.view_count is not None
            and self.baseline is not None
            and self.applied != self.views_of_windows
            and self.view_count == self.baseline + self.changed_by_others + self.views_of_windows
        )


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


class Blocker(NamedTuple):
    """A session that others wait for.

    Attributes:
        pid: Its number in PostgreSQL; 0 for a prepared transaction.
        application: What it calls itself.
    """

    pid: int
    application: str

    def __str__(self) -> str:
        """Return both, in words."""
        return f"pid {self.pid} ({self.application})"


class PostsLockedError(psycopg.OperationalError):
    """The platform holds a lock on its table of posts, so that counts can't be written.

    Attributes:
        since: When this was noticed.
    """

    def __init__(self, table: str, since: datetime, blockers: Sequence[Blocker]) -> None:
        self.since = since
        super().__init__(f"the update of view counts waits for a lock on {table}, held by {named(blockers)}")


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
        update_every: Update a post of the platform's at most once in this time; its views wait until then.
    """

    name = "postgresql"
    is_transient = staticmethod(is_transient)

    def __init__(self, pool: Pool, table: PlatformTable, update_every: timedelta = AT_ONCE) -> None:
        self._pool = pool
        self._table = table
        self._every = update_every
        self._names: dict[str, sql.Composable] | None = None
        self._locked_since: datetime | None = None

    async def apply(self, counts: Iterable[WindowCount]) -> Applied:
        """Bring in counts, and move the platform's counts by what has risen; all of it, or nothing.

        The platform's counts follow later where its posts are locked, or where updates of a post are grouped.

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
            # Once a lock is known, `settle` waits for it, and gives the posts what they miss.
            if self._locked_since is None:
                try:
                    await self._move(using, post_ids)
                except errors.LockNotAvailable:
                    self._locked_since = datetime.now(UTC)
        return Applied(
            [WindowCount(_window(row), row["views"], row["as_of"]) for row in risen],
            sum(row["difference"] for row in risen),
            [_window(row) for row in too_late],
        )

    async def settle(self) -> Waiting:
        """Give posts the views that wait for them, where they have appeared, are due or are to be tried again.

        Returns:
            What waits still.

        Raises:
            PostsLockedError: The platform holds a lock on its posts.
            psycopg.Error: PostgreSQL is not up to it.
        """
        try:
            waiting = await self._settle()
        except errors.LockNotAvailable:
            self._locked_since = self._locked_since or datetime.now(UTC)
            raise await self._locked(self._locked_since) from None
        self._locked_since = None
        return waiting

    async def _settle(self) -> Waiting:
        while True:
            async with self._changing() as using:
                names = await self._identifiers(using)
                await fetch(using, "limit_waiting", milliseconds=_LOCK_MILLISECONDS)
                await fetch(using, "wait_for_posts", names)
                rows = await fetch(using, "lock_posts_that_appeared", names, most=_POSTS_AT_ONCE, every=self._every)
                # Each of them is moved or set aside for a while, so the next turn finds others.
                await self._move(using, [row["post_id"] for row in rows])
                if len(rows) < _POSTS_AT_ONCE:
                    return await self._waiting(using)

    async def blockers(self, post_id: str | None = None) -> list[Blocker]:
        """Return whom an update of the platform's posts waits for; nobody where it need not wait.

        Args:
            post_id: Of the lock on this post; `None` for locks on the table.

        Raises:
            psycopg.Error: PostgreSQL is not up to it.
        """
        async with self._pool.transaction() as waiting, self._pool.transaction() as asking:
            return await blockers(waiting, asking, await self._identifiers(asking), post_id)

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
            PostsLockedError: The platform holds a lock on its posts.
            psycopg.Error: PostgreSQL is not up to it.
        """
        after = ""
        while True:
            try:
                async with self._pool.transaction() as using:
                    page = await self._counts(using, post_ids, after=after)
            except errors.LockNotAvailable:
                raise await self._locked(datetime.now(UTC)) from None
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
        *,
        overrule: bool = False,
    ) -> Repaired:
        """Count windows anew and set them, up or down, and with them the counts of the posts; all of it, or nothing.

        Nothing else changes our counts of these posts meanwhile. A view that is stored after its window was counted
        here is counted as always, and raises the count then. What others did to the platform's count stays.

        Args:
            post_ids: Posts of which the sum is corrected and the platform's count moved by that, at most 500 with those
                of the windows.
            windows: Windows that are set.
            count: Counts them, from what is durable.
            overrule: Set the platform's count of `post_ids` to what it was before, and all views, whatever others did.

        Raises:
            PostsLockedError: The platform holds a lock on its posts.
            psycopg.Error: PostgreSQL is not up to it.
        """
        try:
            return await self._repair(post_ids, windows, count, overrule)
        except errors.LockNotAvailable:
            raise await self._locked(datetime.now(UTC)) from None

    async def _repair(
        self,
        post_ids: Collection[str],
        windows: Collection[Window],
        count: Callable[[Collection[Window]], Awaitable[Mapping[Window, int]]],
        overrule: bool,
    ) -> Repaired:
        async with self._changing(_SILENCE_OF_REPAIR) as using:
            locked = await self._lock(using, [*post_ids, *(window.post_id for window in windows)])
            as_of = datetime.now(UTC)
            # The platform's posts are not touched before that: it may take a while.
            fresh = await count(windows) if windows else {}
            columns = _columns([WindowCount(window, views, as_of) for window, views in fresh.items()])
            before = await self._counts(using, locked)
            rows = await fetch(using, "set_windows", **columns)
            await fetch(using, "sum_windows", post_ids=locked)
            wrong = [post for post in before if post.has_wrong_applied]
            await fetch(
                using,
                "correct_applied",
                post_ids=[post.post_id for post in wrong],
                applied=[post.views_of_windows for post in wrong],
            )
            if overrule:
                await self._write(using, "set_view_counts", list(post_ids))
            await self._move(using, locked, at_once=True)
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
    async def _changing(self, silence: str = _SILENCE) -> AsyncIterator[Connection]:
        """Begin a transaction that may lock posts, though not for ever."""
        async with self._pool.transaction() as using:
            await fetch(using, "limit_silence", silence=silence)
            await fetch(using, "check_at_once")
            yield using

    async def _lock(self, using: Connection, post_ids: Sequence[str]) -> list[str]:
        """Lock our rows of the posts, made where they are missing; return the posts, each once."""
        distinct = sorted(set(post_ids))
        await fetch(using, "add_counted_posts", post_ids=distinct)
        await fetch(using, "lock_counted_posts", post_ids=distinct)
        return distinct

    async def _locked(self, since: datetime) -> PostsLockedError:
        return PostsLockedError(self._table.table, since, await self.blockers())

    async def _move(self, using: Connection, post_ids: Sequence[str], *, at_once: bool = False) -> None:
        """Give posts the views that they miss: those that are due, or all.

        Raises:
            LockNotAvailable: The platform holds a lock on the table.
            psycopg.Error: PostgreSQL is not up to it.
        """
        await self._write(using, "move_view_counts", post_ids, at_once=at_once, every=self._every)

    async def _write(self, using: Connection, query: str, post_ids: Sequence[str], **parameters: object) -> None:
        """Write the platform's counts of posts by a query; set aside those that PostgreSQL refuses to change.

        Raises:
            LockNotAvailable: The platform holds a lock on the table.
            psycopg.Error: It is not a post that is refused.
        """
        await fetch(using, "limit_waiting", milliseconds=_LOCK_MILLISECONDS)
        await self._write_some(using, query, post_ids, parameters, _Patience())

    async def _write_some(
        self,
        using: Connection,
        query: str,
        post_ids: Sequence[str],
        parameters: dict[str, object],
        patience: "_Patience",
    ) -> None:
        if not post_ids:
            return
        try:
            async with using.transaction():  # within the transaction, a savepoint
                names = await self._identifiers(using)
                rows = await fetch(using, query, names, post_ids=list(post_ids), **parameters)
        except psycopg.Error as error:
            if not await self._blames_post(using, error):
                raise
            if len(post_ids) == 1 or (isinstance(error, errors.LockNotAvailable) and patience.is_at_its_end):
                for post_id in post_ids:
                    await self._set_aside(using, post_id, error.sqlstate or "")
                return
            for half in _halves(post_ids):
                await self._write_some(using, query, half, parameters, patience)
            return
        POSTS_CHANGED_BY_OTHERS.inc(sum(row["outcome"] == "changed" for row in rows))
        for row in rows:
            if row["outcome"] == NOT_UPDATED:
                await self._set_aside(using, row["post_id"], NOT_UPDATED)
        await self._set_aside_not_free(using, [row["post_id"] for row in rows if row["outcome"] == "not-free"])

    async def _set_aside_not_free(self, using: Connection, post_ids: Sequence[str]) -> None:
        """Set aside posts that can be read and not be locked: another transaction holds them, or no policy lets us."""
        if not post_ids:
            return
        try:
            async with using.transaction():
                rows = await fetch(using, "free_posts", await self._identifiers(using), post_ids=list(post_ids))
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
        """Whether an error is of a post, and not of the server, or for want of a table, a right or a lock on the table.

        Raises:
            LockNotAvailable: It is for want of a lock on the table.
        """
        if isinstance(error, errors.LockNotAvailable):
            async with using.transaction():
                await fetch(using, "wait_for_posts", await self._identifiers(using))
            # So something waits for another lock, as a trigger does that writes elsewhere.
            await fetch(using, "limit_waiting", milliseconds=_LOCK_OF_ONE_MILLISECONDS)
            return True
        return blames_row(error) and (await self._described(using)).is_prepared

    async def _set_aside(self, using: Connection, post_id: str, code: str) -> None:
        (row,) = await fetch(using, "set_post_aside", post_id=post_id, code=code)
        # A row may be held for a moment.
        if row["refusals"] == (2 if code == LOCKED else 1):
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
        await fetch(using, "limit_waiting", milliseconds=_LOCK_MILLISECONDS)
        rows = await fetch(
            using,
            "counts_of_posts",
            names,
            post_ids=_list(post_ids),
            after=after,
            most=_POSTS_AT_ONCE,
            every=self._every,
        )
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


async def blockers(
    waiting: Connection, asking: Connection, names: Mapping[str, sql.Composable], post_id: str | None = None
) -> list[Blocker]:
    """Return whom an update of the platform's posts waits for; nobody where it need not wait.

    Args:
        waiting: A connection, which takes the lock that an update takes, for a second at most, and lets it go.
        asking: Another connection, which sees what that one waits for.
        names: The platform's table, from `PlatformTable.names`.
        post_id: Of the lock on this post; `None` for locks on the table.

    Raises:
        psycopg.Error: PostgreSQL is not up to it.
    """
    (row,) = await fetch(waiting, "session")

    async def take() -> None:
        async with waiting.transaction(force_rollback=True):
            await fetch(waiting, "limit_waiting", milliseconds=_LOCK_MILLISECONDS)
            if post_id is None:
                await fetch(waiting, "wait_for_posts", names)
            else:
                await fetch(waiting, "wait_for_post", names, post_id=post_id)

    taking = asyncio.create_task(take())
    found: list[Blocker] = []
    try:
        while not found and not taking.done():
            await asyncio.wait({taking}, timeout=_LOOK_SECONDS)
            found = [Blocker(**blocker) for blocker in await fetch(asking, "blockers", pid=row["pid"])]
    finally:
        with suppress(errors.LockNotAvailable):
            await taking
    return found


def named(blockers: Sequence[Blocker]) -> str:
    """Return who blocks, in words."""
    return ", ".join(map(str, blockers)) or "a transaction that has ended"


class _Patience:
    """Ends some time after it began."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + _SORTING_SECONDS

    @property
    def is_at_its_end(self) -> bool:
        return time.monotonic() > self._ends_at


def _halves(post_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield two halves, drawn at random: a post that waits long must not be in the same company each time."""
    mixed = random.sample(post_ids, len(post_ids))
    yield mixed[: len(mixed) // 2]
    yield mixed[len(mixed) // 2 :]


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
