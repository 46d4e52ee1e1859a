"""Recent views in Redis: the views of each post in the last hour, window by window, and the ranking of trending posts.

Input: absolute counts of windows. Output: sorted sets, each with an expiry. A window keeps its highest count, so order
and repetition change nothing. All data is derived: what Redis loses is rebuilt automatically.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice

from redis.exceptions import RedisError

from enrich.view_windows import LENGTH, Window, start_of
from sinks.redis.connection import connect
from sinks.redis.refusals import RedisRefusals

LAST_HOUR = 12
"""How many windows make up the last hour: eleven whole ones, and the one that runs."""

HALF_LIFE = timedelta(minutes=15)
"""A view that is so much older counts half in the ranking of what is trending."""

TRENDING_POSTS = 1_000
"""How many posts the ranking of what is trending has at most."""

_WINDOW_KEPT = timedelta(minutes=10)  # after it has left the last hour
_RANKING_KEPT = timedelta(minutes=5)  # after it was made: longer than a restart, too short to be taken for news
_COMPLETE_FOR = timedelta(minutes=5)
# A little less than the pause between two turns of a worker: however many workers there are, one of them makes the
# rankings at each turn.
_RANKED_FOR = timedelta(milliseconds=1_900)
_POSTS_AT_ONCE = 1_000
_TIMEOUT_SECONDS = 2.0
_FEATURE = "recent views"


def last_hour(now: datetime) -> list[datetime]:
    """Return the starts of the windows of the last hour, the one that runs first."""
    return [start_of(now) - number * LENGTH for number in range(LAST_HOUR)]


def kept(now: datetime) -> list[datetime]:
    """Return the starts of the windows that are kept in Redis: those of the last hour, and the one that comes next.

    The next one is for views sent by a service whose clock is ahead of ours.
    """
    return [start_of(now) + LENGTH, *last_hour(now)]


class RecentViews:
    """The recent views in Redis.

    Args:
        url: Where Redis is.
        prefix: Begins the name of every key.
        refusals: Tells of what Redis refuses.

    Raises:
        RedisUrlError: Not a Redis URL.
    """

    def __init__(self, url: str, prefix: str, refusals: RedisRefusals | None = None) -> None:
        self._redis = connect(url, _TIMEOUT_SECONDS)
        self._refusals = refusals or RedisRefusals()
        self._last_hour = f"{prefix}views:last-hour"
        self._trending = f"{prefix}trending"
        self._complete = f"{prefix}views:complete"
        self._ranked = f"{prefix}views:ranked"
        self._windows = f"{prefix}views:"

    async def write(self, views: Mapping[Window, int]) -> None:
        """Raise windows to as many views as are given; those that have more keep them.

        Raises:
            RedisError: Redis does not answer, or refuses. Some windows may be written.
        """
        by_start: defaultdict[datetime, dict[str, int]] = defaultdict(dict)
        for window, count in views.items():
            by_start[window.start][window.post_id] = count
        for start, of_posts in by_start.items():
            key = self._window(start)
            expires = start + LAST_HOUR * LENGTH + _WINDOW_KEPT
            for part in _parts(of_posts):
                async with self._redis.pipeline(transaction=True) as commands:
                    commands.zadd(key, part, gt=True)
                    commands.expireat(key, expires)
                    await commands.execute()

    async def write_all(self, views: Mapping[Window, int]) -> None:
        """Write the recent views as a whole: from now on they are complete.

        Raises:
            RedisError: Redis does not answer, or refuses. Some windows may be written.
        """
        run = await self._run()
        await self.write(views)
        await self._redis.set(self._complete, run, ex=_COMPLETE_FOR)

    async def is_complete(self) -> bool:
        """Whether all that was ever written is there, as far as Redis can tell.

        It is not after a restart of the server, which may have come back with old data; after a loss of keys; and a
        few minutes after all was written, so that whatever else goes missing is missing for no longer.

        Raises:
            RedisError: Redis does not answer.
        """
        written_in = await self._redis.get(self._complete)
        return written_in is not None and written_in == await self._run()

    async def rank(self, now: datetime) -> None:
        """Rebuild both rankings, unless another worker has just done so.

        Raises:
            RedisError: Redis does not answer, or refuses. The rankings stay as they were.
        """
        if not await self._redis.set(self._ranked, 1, nx=True, px=_RANKED_FOR):
            return
        keys = [self._window(start) for start in last_hour(now)]
        weights = {key: 0.5 ** (number * LENGTH / HALF_LIFE) for number, key in enumerate(keys)}
        async with self._redis.pipeline(transaction=True) as commands:
            commands.zunionstore(self._last_hour, keys)
            commands.expire(self._last_hour, _RANKING_KEPT)
            commands.zunionstore(self._trending, weights)
            commands.zremrangebyrank(self._trending, 0, -TRENDING_POSTS - 1)
            commands.expire(self._trending, _RANKING_KEPT)
            await commands.execute()

    def note(self, error: Exception | None) -> None:
        """Take what a turn of writing ended with; `None` where all of it was done."""
        if error is None:
            self._refusals.succeeded(_FEATURE)
        elif isinstance(error, RedisError):
            self._refusals.note(_FEATURE, error)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    def _window(self, start: datetime) -> str:
        return f"{self._windows}{start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

    async def _run(self) -> str:
        """Return what names this run of the server: after a restart, or on another server, it is another."""
        information = await self._redis.info("server")
        return str(information.get("run_id", ""))


def _parts(of_posts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield the counts in batches that block Redis only for a moment."""
    posts = iter(of_posts.items())
    while part := dict(islice(posts, _POSTS_AT_ONCE)):
        yield part
