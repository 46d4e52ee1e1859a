"""The views of the last hour in Redis: what they are, that they heal, and that nothing needs them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from enrich.view_windows import LENGTH, Window, start_of
from sinks.redis.connection import connect
from sinks.redis.recent_views import LAST_HOUR, TRENDING_POSTS, RecentViews, last_hour
from tests.integration.pipeline import Message, Pipeline, until
from tests.integration.test_view_counts import BOT, TOPICS, view

UP = "inkstream_recent_views_up"
HEALING_SECONDS = 20.0


class View:
    """What a service reads."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix

    async def scores(self, name: str) -> dict[str, float]:
        found: Any = await self.redis.zrange(self.prefix + name, 0, -1, withscores=True)
        return dict(found)

    async def ranking(self, name: str) -> list[str]:
        found: Any = await self.redis.zrange(self.prefix + name, 0, -1, desc=True)
        return list(found)

    def shows(self, expected: Counter[str]) -> Callable[[], Awaitable[bool]]:
        async def shown() -> bool:
            return await self.scores("views:last-hour") == expected

        return shown

    def window(self, start: datetime) -> str:
        return f"{self.prefix}views:{start:%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
async def shown(counting: Pipeline) -> AsyncIterator[View]:
    async with connect(counting.platform.redis.url, 5) as redis:
        yield View(redis, f"{counting.namespace}inkstream:")


async def test_the_last_hour_is_what_was_sent_and_trending_prefers_what_is_recent(
    counting: Pipeline, shown: View
) -> None:
    now = datetime.now(UTC)
    sent = {"yesterday": (20, 86_400), "before": (20, 70 * 60), "earlier": (30, 50 * 60), "lately": (10, 60)}
    messages: list[Message] = []
    expected: Counter[str] = Counter()
    for post_id, (views, age) in sent.items():
        messages += [
            view(len(messages) + number, post_id, now - timedelta(seconds=age - number)) for number in range(views)
        ]
        expected[post_id] = views
    messages += [*messages[::3], view(10_000, "lately", now, BOT)]
    del expected["yesterday"], expected["before"]
    await counting.send("page-views", messages)
    with counting.worker(count_every=0.2):
        await until(shown.shows(expected), "Redis has the views of the last hour")
        await until(has_key(shown, "views:complete"), "they are complete")
    assert await shown.ranking("views:last-hour") == ["earlier", "lately"]
    assert await shown.ranking("trending") == ["lately", "earlier"]
    windows = [shown.window(start) for start in last_hour(datetime.now(UTC))]
    assert await shown.redis.zunion(windows) == await shown.redis.zrange(f"{shown.prefix}views:last-hour", 0, -1)

    lives = {
        key.removeprefix(shown.prefix): await shown.redis.ttl(key)
        async for key in shown.redis.scan_iter(f"{shown.prefix}*")
    }
    assert {"views:last-hour", "trending", "views:complete"} < lives.keys()
    assert -1 not in lives.values(), "every key expires"
    assert max(lives.values()) <= 75 * 60
    assert max(lives["views:last-hour"], lives["trending"], lives["views:complete"]) <= 5 * 60


async def test_a_flushed_redis_heals_within_seconds(counting: Pipeline, shown: View) -> None:
    expected = await send_some(counting, 0)
    with counting.worker(count_every=0.2):
        await until(shown.shows(expected), "Redis has the views")
        await shown.redis.flushall()
        await until(shown.shows(expected), "Redis has them again", HEALING_SECONDS)


async def test_redis_away_stops_nothing_and_misses_nothing_when_it_is_back(counting: Pipeline, shown: View) -> None:
    redis = counting.platform.redis
    counting.add_posts(["post-0", "post-1", "post-2"])
    expected = await send_some(counting, 0)
    with counting.worker(count_every=0.2) as worker:

        async def is_up(value: int) -> bool:
            return (await asyncio.to_thread(worker.metrics)).get(UP) == value

        await worker.until_ready()
        await until(shown.shows(expected), "Redis has the views")
        await until(lambda: is_up(1), "the metric says so")
        await asyncio.to_thread(redis.kill)
        try:
            await until(lambda: is_up(0), "the metric says that Redis is away")
            expected += await send_some(counting, 1_000)
            await counting.settled(*TOPICS)
            assert counting.view_counts() == expected
            assert worker.page("/readyz")[0] == 200
            assert b"redis" not in worker.page("/readyz")[1]
        finally:
            await asyncio.to_thread(redis.start)
        await until(shown.shows(expected), "Redis has what came meanwhile", HEALING_SECONDS)
        await until(lambda: is_up(1), "the metric says so again")
        assert worker.log.read_text().count("recent views not written") == 1, "an outage is told once"

        await asyncio.to_thread(redis.pause)
        try:
            await until(lambda: is_up(0), "a Redis that hangs is noticed")
            started = time.monotonic()
            assert await asyncio.to_thread(worker.terminate) == 0
            assert time.monotonic() - started < 15, "a stop waits for Redis only for a moment"
        finally:
            await asyncio.to_thread(redis.resume)


async def test_a_worker_that_starts_without_redis_counts_all_the_same(counting: Pipeline, shown: View) -> None:
    redis = counting.platform.redis
    counting.add_posts(["post-0", "post-1", "post-2"])
    expected = await send_some(counting, 0)
    await asyncio.to_thread(redis.stop)
    try:
        with counting.worker(count_every=0.2) as worker:
            await worker.until_ready()
            await counting.settled(*TOPICS)
            assert counting.view_counts() == expected
            await asyncio.to_thread(redis.start)
            await until(shown.shows(expected), "Redis has the views", HEALING_SECONDS)
    finally:
        await asyncio.to_thread(redis.start)


async def test_what_a_killed_worker_had_noted_is_written_by_the_next(counting: Pipeline, shown: View) -> None:
    expected = await send_some(counting, 0)
    with counting.worker(count_every=0.2) as worker:
        await until(shown.shows(expected), "Redis has the views")
        await until(has_key(shown, "views:complete"), "they are complete")
        worker.kill()
    for start in last_hour(datetime.now(UTC)):
        await shown.redis.zrem(shown.window(start), "post-1")  # as if it had been noted and not written
    await shown.redis.delete(shown.prefix + "views:last-hour")  # that ranking was made before
    with counting.worker(count_every=0.2):
        await until(shown.shows(expected), "what was missing is there again", HEALING_SECONDS)


async def test_views_written_again_lower_no_count_and_need_no_view_to_come(counting: Pipeline, shown: View) -> None:
    expected = await send_some(counting, 0)
    with counting.worker(count_every=0.2):
        await until(shown.shows(expected), "Redis has the views")
        # Another worker wrote newer counts than those that PostgreSQL told this one.
        key = shown.window(start_of(datetime.now(UTC)))
        await shown.redis.zadd(key, {"post-1": 1_000})
        await shown.redis.delete(shown.prefix + "views:complete")
        await until(has_key(shown, "views:complete"), "all is written again", HEALING_SECONDS)
        assert await shown.redis.zscore(key, "post-1") == 1_000


async def test_rankings_are_made_while_postgresql_is_away(counting: Pipeline, shown: View) -> None:
    postgres = counting.platform.postgres
    expected = await send_some(counting, 0)
    with counting.worker(count_every=0.2):
        await until(shown.shows(expected), "Redis has the views")
        await asyncio.to_thread(postgres.kill)
        try:
            await shown.redis.delete(*(shown.prefix + name for name in ("views:complete", "views:last-hour")))
            await until(shown.shows(expected), "the ranking is made again", HEALING_SECONDS)
        finally:
            await asyncio.to_thread(postgres.start)
        await until(has_key(shown, "views:complete"), "all is written again", HEALING_SECONDS)


async def test_a_window_keeps_the_highest_count_and_the_rankings_leave_out_the_others(
    counting: Pipeline, shown: View
) -> None:
    now = datetime.now(UTC)
    running = start_of(now)
    recent = RecentViews(counting.platform.redis.url, shown.prefix)
    oldest, gone, coming = running - (LAST_HOUR - 1) * LENGTH, running - LAST_HOUR * LENGTH, running + LENGTH
    for views in (3, 7, 5):
        await recent.write({Window("post", running): views, Window("post", oldest): 10 * views})
    await recent.write({Window("post", gone): 1_000, Window("post", coming): 1_000})
    await recent.rank(now)
    assert await shown.scores("views:last-hour") == {"post": 77}
    assert await shown.scores("trending") == {"post": pytest.approx(7 + 70 * 0.5 ** (55 / 15))}
    await shown.redis.delete(shown.prefix + "views:ranked")
    await recent.rank(coming)
    assert await shown.scores("views:last-hour") == {"post": 1_007}, "the window that came next has begun"
    await recent.close()


async def test_trending_has_an_end(counting: Pipeline, shown: View) -> None:
    now = datetime.now(UTC)
    recent = RecentViews(counting.platform.redis.url, shown.prefix)
    posts = TRENDING_POSTS + 500
    await recent.write({Window(f"post-{number}", start_of(now)): number + 1 for number in range(posts)})
    await recent.rank(now)
    ranking = await shown.ranking("trending")
    assert ranking == [f"post-{number}" for number in reversed(range(500, posts))]
    assert len(await shown.ranking("views:last-hour")) == posts
    await recent.close()


async def test_a_redis_that_came_back_with_old_data_is_known_as_incomplete(counting: Pipeline, shown: View) -> None:
    recent = RecentViews(counting.platform.redis.url, shown.prefix)
    assert not await recent.is_complete()
    await recent.write_all({})
    assert await recent.is_complete()
    await asyncio.to_thread(counting.platform.redis.stop)
    await asyncio.to_thread(counting.platform.redis.start)
    assert await shown.redis.exists(shown.prefix + "views:complete") == 1
    assert not await recent.is_complete()
    await recent.close()


def has_key(shown: View, name: str) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return await shown.redis.exists(shown.prefix + name) == 1

    return there


async def send_some(counting: Pipeline, first: int) -> Counter[str]:
    now = datetime.now(UTC)
    numbers = range(first, first + 300)
    sent = [view(number, f"post-{number % 3}", now - timedelta(seconds=number * 7 % 2_400)) for number in numbers]
    await counting.send("page-views", sent)
    return Counter(f"post-{number % 3}" for number in numbers)
