"""Compare the view counts of posts in PostgreSQL with the views in MongoDB, post by post.

Input: both databases, with the views of this run and of earlier ones. Output: what each has for every post.
Nothing here writes. Only how long counting took comes from the worker, and what is trending from Redis.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import redis.asyncio
from prometheus_client.parser import text_string_to_metric_families
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row
from pymongo.asynchronous.database import AsyncDatabase

from enrich.view_windows import LENGTH, Window, start_of
from runtime.settings import Settings
from sinks.collections import PAGE_VIEWS
from sinks.mongo.page_view_counts import BY_PEOPLE
from sinks.postgres.pool import schema_of

_CONNECT_TIMEOUT_SECONDS = 2

_POSTS = sql.SQL("""
SELECT
    post.id,
    post.slug,
    post."viewCount" AS view_count,
    coalesce(counted.baseline, post."viewCount") AS before,
    coalesce(counted.views, 0) - coalesce(sum(young.views), 0)::bigint AS old_views
FROM posts AS post
LEFT JOIN {ours}.counted_posts AS counted ON counted.post_id = post.id
LEFT JOIN {ours}.view_windows AS young ON young.post_id = post.id AND young.window_start >= %(oldest)s
GROUP BY post.id, counted.post_id
""")
_WINDOWS = sql.SQL("SELECT post_id, window_start FROM {ours}.view_windows WHERE window_start >= %(oldest)s")
_BEGAN = sql.SQL("SELECT min(applied_at) AS began FROM {ours}.migrations WHERE name = '0002_view_counts.sql'")


class PostRecord(NamedTuple):
    """What PostgreSQL has of a post.

    Attributes:
        id: The post.
        slug: The post, as readers know it.
        view_count: The platform's count.
        before: What of it was there before counting began.
        old_views: The views of windows that are too old to be counted anew.
    """

    id: str
    slug: str
    view_count: int
    before: int
    old_views: int


class StoredWindow(NamedTuple):
    """The views by people that MongoDB has of a window, and when the last of them happened."""

    window: Window
    views: int
    latest: datetime


class PostCount(NamedTuple):
    """What both say of a post.

    Attributes:
        id: The post.
        slug: The post, as readers know it.
        view_count: The platform's count.
        before: What of it was there before counting began.
        stored: The views by people that are stored since.
    """

    id: str
    slug: str
    view_count: int
    before: int
    stored: int

    @property
    def agrees(self) -> bool:
        """Whether each view that is stored is counted, and once."""
        return self.view_count == self.before + self.stored


async def view_counts(settings: Settings, database: AsyncDatabase[dict[str, Any]]) -> list[PostCount]:
    """Ask both databases for the views of every post; the most read post comes first.

    Raises:
        psycopg.Error: PostgreSQL does not answer.
        PyMongoError: MongoDB does not.
    """
    # A window that ends at the horizon may be counted by one and not by the other.
    oldest = start_of(datetime.now(UTC) - settings.count_horizon) + 2 * LENGTH
    ours = {"ours": sql.Identifier(schema_of(settings.namespace))}
    async with await AsyncConnection.connect(
        settings.postgres_url.get_secret_value(), row_factory=dict_row, connect_timeout=_CONNECT_TIMEOUT_SECONDS
    ) as connection:
        posts = await (await connection.execute(_POSTS.format(**ours), {"oldest": oldest})).fetchall()
        windows = await (await connection.execute(_WINDOWS.format(**ours), {"oldest": oldest})).fetchall()
        (row,) = await (await connection.execute(_BEGAN.format(**ours))).fetchall()
    began: datetime = max(row["began"], settings.count_since or row["began"])
    return compare(
        [PostRecord(**post) for post in posts],
        {Window(window["post_id"], window["window_start"]) for window in windows},
        await _stored(database, max(oldest, settings.count_since or oldest)),
        began,
    )


def compare(
    posts: Iterable[PostRecord], counted: set[Window], stored: Iterable[StoredWindow], began: datetime
) -> list[PostCount]:
    """Return what both say of each post; the most read post comes first.

    Args:
        posts: The platform's posts.
        counted: The windows that are counted, but for old ones.
        stored: The windows that have views, but for old ones.
        began: When counting began. A window that had its last view before was never asked for.
    """
    views: defaultdict[str, int] = defaultdict(int)
    for window, count, latest in stored:
        if window in counted or latest >= began:
            views[window.post_id] += count
    counts = [
        PostCount(post.id, post.slug, post.view_count, post.before, post.old_views + views[post.id]) for post in posts
    ]
    return sorted(counts, key=lambda count: (-count.view_count, count.slug))


async def _stored(database: AsyncDatabase[dict[str, Any]], since: datetime) -> list[StoredWindow]:
    start = {"$dateTrunc": {"date": "$timestamp", "unit": "minute", "binSize": LENGTH.seconds // 60}}
    cursor = await database[PAGE_VIEWS.name].aggregate(
        [
            {"$match": {**BY_PEOPLE, "postId": {"$exists": True}, "timestamp": {"$gte": since}}},
            {
                "$group": {
                    "_id": {"post": "$postId", "start": start},
                    "views": {"$sum": 1},
                    "latest": {"$max": "$timestamp"},
                }
            },
        ]
    )
    return [
        StoredWindow(Window(row["_id"]["post"], row["_id"]["start"]), row["views"], row["latest"])
        async for row in cursor
    ]


async def trending(settings: Settings, posts: int) -> list[str]:
    """Return the ids of the posts that trend, first the one that does most; none where Redis has no such ranking."""
    ranking = f"{settings.namespace}inkstream:trending"
    client = redis.asyncio.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
    try:
        return [str(post_id) for post_id in await client.zrevrange(ranking, 0, posts - 1)]
    except redis.RedisError:
        return []
    finally:
        await client.aclose()


def counted_within(metrics: str, *shares: float) -> list[float]:
    """Return the seconds within which such shares of counts got from Kafka to PostgreSQL; nothing before the first.

    The histogram's steps are the worker's; between two of them the result is interpolated.

    Args:
        metrics: The worker's page `/metrics`.
        shares: Each from 0 to 1.
    """
    buckets = {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(metrics)
        if family.name == "inkstream_counted_after_seconds"
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    if not buckets or not max(buckets.values()):
        return []
    return [_quantile(buckets, share) for share in shares]


def _quantile(buckets: Mapping[float, float], share: float) -> float:
    """Return a quantile as Prometheus does: https://prometheus.io/docs/prometheus/latest/querying/functions/."""
    wanted = share * max(buckets.values())
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower
