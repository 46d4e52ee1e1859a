"""Compares the view counts with the stored views, while views come in, and repairs what differs.

Input: the views in MongoDB and the counts in PostgreSQL. Output: differences. Only `repair` changes anything; it can be
interrupted and started again, as each of its transactions leaves whole posts.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeVar

from agents.server_problems import SERVER_ERRORS, ServerError, problem_of
from enrich.view_windows import LENGTH, Window, start_of
from runtime.settings import Settings
from sinks.mongo.client import Mongo
from sinks.mongo.page_view_counts import StoredViews
from sinks.postgres import pool
from sinks.postgres.count_repair import Repaired
from sinks.postgres.platform_posts import PlatformTable
from sinks.postgres.post_counts import PostCounts
from sinks.postgres.post_locks import LOCKED
from sinks.postgres.view_counts import ViewCounts
from sinks.servers import ANSWER_TIMEOUT

_SLICE = 3 * LENGTH
"""How much of event time is compared at once: as much as memory holds, with a million views and more."""
_SLICE_OF_POSTS = timedelta(days=1)
_AT_ONCE = 500
"""How many windows are counted, or repaired, at once."""
_MONGO_TIMEOUT = timedelta(minutes=1)
"""For a slice with many views; whether MongoDB is there is known sooner."""
_SAMPLE_AGE = timedelta(days=1)

Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""Takes the name of the step, how much of it is done, and how much there is."""


class Seen(NamedTuple):
    """The views of a window: `counted` in PostgreSQL, and, looked at after that, `stored` in MongoDB."""

    stored: int
    counted: int


class WindowStatus(StrEnum):
    """The status of a window after it was read twice."""

    WELL = "well"
    WRONG = "wrong"
    BEHIND = "behind"
    MOVING = "moving"


def status_of(first: Seen, now: Seen) -> WindowStatus:
    """Return whether a window is well, certainly wrong, or has views that are not counted yet.

    A count is of views that were stored before, so when it is more than what is stored now, it is wrong, however
    soon the looks follow each other. When it is less, it is well as soon as it has what was stored at the first look,
    and still moves when it was less at the first look.
    """
    if now.counted > now.stored:
        return WindowStatus.WRONG
    if now.counted >= min(first.stored, now.stored):
        return WindowStatus.WELL
    return WindowStatus.BEHIND if now.counted == first.counted else WindowStatus.MOVING


class WindowDifference(NamedTuple):
    """A window whose views in PostgreSQL and MongoDB differ."""

    window: Window
    stored: int
    counted: int


class Column(StrEnum):
    """The column of a post that may differ."""

    VIEWS = "views"
    APPLIED = "applied"
    VIEW_COUNT = "viewCount"


class PostDifference(NamedTuple):
    """A post's column that is not what it should be."""

    post_id: str
    column: Column
    found: int
    expected: int


def differences(post: PostCounts) -> list[PostDifference]:
    """Return what is wrong with a post: with our sum, with the platform's count, or with what we know of it.

    What the platform's count should be is what it is now, with the views that it misses. So it is the same before and
    after the sum is corrected, and what others did to it is not wrong. A post that the platform does not have has no
    count to be wrong, and one that waits as its updates are grouped is not late.
    """
    found = []
    if post.views != post.views_of_windows:
        found.append(PostDifference(post.post_id, Column.VIEWS, post.views, post.views_of_windows))
    if post.view_count is None or post.applied == post.views_of_windows or is_grouped(post):
        return found
    if post.has_wrong_applied:
        found.append(PostDifference(post.post_id, Column.APPLIED, post.applied, post.views_of_windows))
    else:
        expected = post.view_count - post.applied + post.views_of_windows
        found.append(PostDifference(post.post_id, Column.VIEW_COUNT, post.view_count, expected))
    return found


def is_grouped(post: PostCounts) -> bool:
    """Whether nothing is wrong but that the post was updated a moment ago, and its next update is not due yet."""
    return post.is_grouped and post.views == post.views_of_windows and post.view_count is not None


def may_catch_up(post: PostCounts) -> bool:
    """Whether nothing is wrong but that the platform's count has not all views yet, as when the post has appeared."""
    return (
        post.refused_code in (None, LOCKED)
        and post.views == post.views_of_windows
        and post.views != post.applied
        and post.view_count is not None
    )


class Changes(NamedTuple):
    """What others changed in the platform's counts since we started to count.

    Attributes:
        posts: How many posts they are.
        more: How many views the raised ones have more.
        fewer: How many the lowered ones have fewer.
        post_ids: The posts.
        example: The one that was changed most, and by how much.
    """

    posts: int = 0
    more: int = 0
    fewer: int = 0
    post_ids: frozenset[str] = frozenset()
    example: tuple[str, int] | None = None

    def and_of(self, page: Iterable[PostCounts]) -> "Changes":
        """Return these, and those of more posts."""
        found = {post.post_id: post.others for post in page if post.others and not post.has_wrong_applied}
        candidates = [*([self.example] if self.example else []), *found.items()]
        return Changes(
            self.posts + len(found),
            self.more + sum(max(0, others) for others in found.values()),
            self.fewer + sum(max(0, -others) for others in found.values()),
            self.post_ids | found.keys(),
            max(candidates, key=lambda one: abs(one[1]), default=None),
        )


@dataclass
class Comparison:
    """What a comparison found.

    Attributes:
        windows: How many windows were compared.
        posts: How many posts were.
        missing: How many of these have views that wait, as the platform does not have the post.
        refused: Why PostgreSQL refuses to change the platform's count of posts that differ, and of how many.
        grouped: How many posts have views that wait, as updates of a post are grouped.
        changes: What others did to the platform's counts.
        moving: How many windows had views in flight to the end.
        of_windows: The windows that differ.
        of_posts: What differs in posts.
    """

    windows: int = 0
    posts: int = 0
    missing: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    grouped: int = 0
    changes: Changes = field(default_factory=Changes)
    moving: int = 0
    of_windows: list[WindowDifference] = field(default_factory=list)
    of_posts: list[PostDifference] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether all that was compared is as it should be."""
        return not self.of_windows and not self.of_posts

    @property
    def drift(self) -> int:
        """By how many views all is off together, up or down."""
        return sum(abs(found.stored - found.counted) for found in self.of_windows) + sum(
            abs(found.expected - found.found) for found in self.of_posts
        )


class Slice(NamedTuple):
    """The windows that start in `[start, end)`; `None` is no end, for views that are dated ahead."""

    start: datetime
    end: datetime | None


def slices(first: datetime, now: datetime, length: timedelta) -> Iterator[Slice]:
    """Yield slices of the length from a moment on, and a last one that has no end; together they have all windows."""
    start = first
    while start + length <= now:
        yield Slice(start, start + length)
        start += length
    yield Slice(start, None)


def first_start(moment: datetime) -> datetime:
    """Return the start of the first window that begins then or later."""
    start = start_of(moment)
    return start if start == moment else start + LENGTH


def _say_nothing(what: str, done: int, of: int) -> None:
    pass


class Reconciliation:
    """Compares stored views, windows, their sums, and the platform's counts.

    What is in flight is no difference: what differs is looked at again, some times, until it is as it should be or is
    certain to be wrong.

    Args:
        stored: The views in MongoDB.
        counts: The view counts in PostgreSQL.
        settings: Which views count, and how fast.
    """

    LOOKS = 3
    """How often what may be in flight is looked at again; more often only for windows too large to be counted soon."""
    LEAST_PAUSE = timedelta(seconds=5)
    """Between looks: three are longer than counts need that wait for their post."""

    def __init__(self, stored: StoredViews, counts: ViewCounts, settings: Settings) -> None:
        self._stored = stored
        self._counts = counts
        self._since = settings.count_since
        self._horizon = settings.count_horizon
        self._rate = settings.recount_rate
        self._pause = max(2 * settings.count_every, self.LEAST_PAUSE).total_seconds()

    @property
    def oldest_start(self) -> datetime:
        """The start of the oldest window that is still counted, and so can be compared."""
        counted = first_start(datetime.now(UTC) - self._horizon)
        return counted if self._since is None else max(counted, start_of(self._since))

    async def compare(
        self,
        post_ids: Collection[str] | None = None,
        since: datetime | None = None,
        report: Progress = _say_nothing,
    ) -> Comparison:
        """Compare all windows that are still counted, and all posts.

        Args:
            post_ids: These posts alone; `None` for all.
            since: Only windows that start then or later. Posts are compared as a whole.
            report: Gets the progress.

        Raises:
            PyMongoError, psycopg.Error: A server fails.
        """
        found = Comparison()
        first = self.oldest_start if since is None else max(self.oldest_start, first_start(since))
        length = _SLICE if post_ids is None else _SLICE_OF_POSTS
        of_time = list(slices(first, datetime.now(UTC), length))
        windows: dict[Window, Seen] = {}
        for number, (start, end) in enumerate(of_time):
            report("windows", number, len(of_time))
            # The counts first: what is stored after that has all that they count.
            counted = await self._counts.windows.between(start, end, post_ids)
            stored = await self._stored.between(start, end, post_ids)
            found.windows += len(counted.keys() | stored.keys())
            windows |= await self._look(_unequal(stored, counted))
        posts: list[str] = []
        async for page in self._counts.posts(post_ids):
            report("posts", found.posts, found.posts + len(page))
            found.posts += len(page)
            found.missing += sum(post.view_count is None and post.views != post.applied for post in page)
            found.grouped += sum(is_grouped(post) and post.views != post.applied for post in page)
            found.changes = found.changes.and_of(page)
            posts += [post.post_id for post in page if differences(post)]
        await self._conclude(found, windows, posts, report)
        return found

    async def sample(self, most: int) -> Comparison:
        """Compare some windows of a random moment of the last day, and their posts.

        Raises:
            PyMongoError, psycopg.Error: A server fails.
        """
        since = max(self.oldest_start, datetime.now(UTC) - _SAMPLE_AGE)
        counted = await self._counts.windows.sample(since, most)
        windows = _unequal(await self._stored.count(counted), counted)
        found = Comparison(windows=len(counted))
        posts: list[str] = []
        async for page in self._counts.posts({window.post_id for window in counted}):
            found.posts += len(page)
            posts += [post.post_id for post in page if differences(post)]
        await self._conclude(found, windows, posts, _say_nothing)
        return found

    async def repair(
        self, found: Comparison, report: Progress = _say_nothing, *, overrule: bool = False
    ) -> tuple[Repaired, Comparison]:
        """Repair what differs and compare it again; return what was changed, and what still differs.

        Args:
            found: What a comparison found.
            report: Gets the progress.
            overrule: Also undo what others did to the platform's counts.

        Raises:
            PyMongoError, psycopg.Error: A server fails. What was repaired by then stays repaired.
        """
        windows = sorted(difference.window for difference in found.of_windows)
        differing = {difference.post_id for difference in found.of_posts} - {window.post_id for window in windows}
        posts = sorted(differing | found.changes.post_ids if overrule else differing)
        done = Repaired([], [])
        chunks: list[tuple[Sequence[str], Sequence[Window]]] = [([], chunk) for chunk in _chunks(windows)]
        chunks += [(chunk, []) for chunk in _chunks(posts)]
        for number, (of_posts, of_windows) in enumerate(chunks):
            report("repair", number, len(chunks))
            changed = await self._counts.repair(of_posts, of_windows, self._stored.count, overrule=overrule)
            done.windows.extend(changed.windows)
            done.posts.extend(changed.posts)
        left = Comparison(found.windows, found.posts, found.missing)
        left.changes = await self._changes_of(found.changes.post_ids) if overrule else found.changes
        repaired = {window.post_id for window in windows}.union(posts)
        counted = await self._views_of(windows)
        await self._conclude(left, _unequal(await self._stored_of(windows), counted), repaired, report)
        return Repaired(done.windows, _joined(done.posts)), left

    async def _conclude(
        self, found: Comparison, first: Mapping[Window, Seen], posts: Iterable[str], report: Progress
    ) -> None:
        """Read what differs again until each is decided or its time is up; add what is wrong to `found`."""
        now = await self._look(first)
        counts = await self._differing(sorted(posts))
        # A large window rests between two counts, for as long as its views take at the rate.
        most_views = max((seen.stored for seen in first.values()), default=0)
        looks = self.LOOKS + int(most_views / self._rate / self._pause)
        for look in range(looks):
            if not any(_in_flight(first[window], seen) for window, seen in now.items()) and not any(
                may_catch_up(post) for post in counts
            ):
                break
            report("in flight", look, looks)
            await asyncio.sleep(self._pause)
            now = await self._look(
                {
                    window: first[window]
                    for window, seen in now.items()
                    if status_of(first[window], seen) != WindowStatus.WELL
                }
            )
            counts = await self._differing([post.post_id for post in counts])
        for window, seen in sorted(now.items()):
            match status_of(first[window], seen):
                case WindowStatus.MOVING:
                    found.moving += 1
                case WindowStatus.WRONG | WindowStatus.BEHIND:
                    found.of_windows.append(WindowDifference(window, *seen))
        found.refused.update(post.refused_code for post in counts if post.refused_code is not None)
        found.of_posts += [difference for post in counts for difference in differences(post)]

    async def _look(self, first: Mapping[Window, Seen]) -> dict[Window, Seen]:
        """Look again at windows, without those that are not counted any more.

        MongoDB is asked only about those that have got more than was stored at the first look: the others have been
        counted by now, or have not.
        """
        counted = await self._views_of(list(first))
        stored = await self._stored_of([window for window, views in counted.items() if views > first[window].stored])
        oldest = self.oldest_start
        return {
            window: Seen(stored.get(window, first[window].stored), views)
            for window, views in counted.items()
            if window.start >= oldest
        }

    async def _views_of(self, windows: Sequence[Window]) -> dict[Window, int]:
        counted: dict[Window, int] = {}
        for chunk in _chunks(windows):
            counted |= await self._counts.windows.views_of(chunk)
        return counted

    async def _stored_of(self, windows: Iterable[Window]) -> dict[Window, int]:
        stored: dict[Window, int] = {}
        # By time, as one query counts all posts of a start.
        for chunk in _chunks(sorted(windows, key=lambda window: window.start)):
            stored |= await self._stored.count(chunk)
        return stored

    async def _changes_of(self, post_ids: Collection[str]) -> Changes:
        found = Changes()
        if post_ids:
            async for page in self._counts.posts(post_ids):
                found = found.and_of(page)
        return found

    async def _differing(self, post_ids: Collection[str]) -> list[PostCounts]:
        if not post_ids:
            return []
        return [post async for page in self._counts.posts(post_ids) for post in page if differences(post)]


@asynccontextmanager
async def reconciliation_of(settings: Settings) -> AsyncIterator[Reconciliation]:
    """Open the stores for a reconciliation, and close them afterwards.

    Raises:
        ServerError: One of them does not answer.
    """
    mongo_url, postgres_url = settings.mongo_url.get_secret_value(), settings.postgres_url.get_secret_value()
    pings: Mapping[str, Callable[[], Awaitable[object]]] = {
        "MongoDB": partial(_ping_mongo, settings),
        "PostgreSQL": partial(pool.describe, postgres_url, settings.namespace),
    }
    for server, ping in pings.items():
        try:
            await ping()
        except SERVER_ERRORS as error:
            raise ServerError(str(await asyncio.to_thread(problem_of, error, settings, server))) from error
    mongo = Mongo.connect(mongo_url, settings.namespace, timeout=_MONGO_TIMEOUT)
    table = PlatformTable.of(settings)
    counts = ViewCounts(pool.Pool(postgres_url, settings.namespace), table, settings.posts_update_every)
    try:
        yield Reconciliation(StoredViews(mongo.database, settings.count_since), counts, settings)
    finally:
        await counts.close()
        await mongo.close()


async def _ping_mongo(settings: Settings) -> None:
    mongo = Mongo.connect(settings.mongo_url.get_secret_value(), settings.namespace, timeout=ANSWER_TIMEOUT)
    try:
        await mongo.ping()
    finally:
        await mongo.close()


def _joined(changes: Iterable[tuple[PostCounts, PostCounts]]) -> list[tuple[PostCounts, PostCounts]]:
    """Return each post once, as it was at first and as it is at last: its windows may have been repaired in parts."""
    of_post: dict[str, tuple[PostCounts, PostCounts]] = {}
    for was, now in changes:
        of_post[was.post_id] = (of_post.get(was.post_id, (was, now))[0], now)
    return [of_post[post_id] for post_id in sorted(of_post)]


def _in_flight(first: Seen, now: Seen) -> bool:
    return status_of(first, now) in (WindowStatus.BEHIND, WindowStatus.MOVING)


def _unequal(stored: Mapping[Window, int], counted: Mapping[Window, int]) -> dict[Window, Seen]:
    """Return the windows whose views differ."""
    seen = {window: Seen(stored.get(window, 0), counted.get(window, 0)) for window in stored.keys() | counted.keys()}
    return {window: views for window, views in seen.items() if views.stored != views.counted}


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[first : first + _AT_ONCE] for first in range(0, len(items), _AT_ONCE))
