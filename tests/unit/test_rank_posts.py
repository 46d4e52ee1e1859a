"""Ranking posts, without servers: what is noted, what is written when, and what a failure leaves."""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from agents.view_counts.rank_posts import RankPosts
from enrich.view_windows import LENGTH, Window, start_of
from sinks.postgres.view_windows import ViewWindows, WindowCount
from sinks.redis.connection import RedisUrlError
from sinks.redis.recent_views import LAST_HOUR, RecentViews, kept, last_hour


class Redis(RecentViews):
    """Recent views that are nowhere but here."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:9", "")
        self.written: dict[Window, int] = {}
        self.problem: Exception | None = None
        self.complete = False
        self.hangs = False
        self.ranked = 0

    async def write(self, views: Mapping[Window, int]) -> None:
        await self._answer()
        for window, count in views.items():
            self.written[window] = max(count, self.written.get(window, 0))

    async def write_all(self, views: Mapping[Window, int]) -> None:
        await self.write(views)
        self.complete = True

    async def is_complete(self) -> bool:
        await self._answer()
        return self.complete

    async def rank(self, now: datetime) -> None:
        await self._answer()
        self.ranked += 1

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.problem is not None:
            raise self.problem


class Postgres(ViewWindows):
    """Windows with given counts."""

    def __init__(self) -> None:
        self.counts: list[WindowCount] = []
        self.problem: Exception | None = None
        self.asked: list[datetime] = []

    async def between(
        self, start: datetime, end: datetime | None, post_ids: Collection[str] | None = None
    ) -> dict[Window, int]:
        assert end is not None
        self.asked.append(start)
        if self.problem is not None:
            raise self.problem
        return {count.window: count.views for count in self.counts if start <= count.window.start < end}


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def postgres() -> Postgres:
    return Postgres()


@pytest.fixture
def rank_posts(redis: Redis, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> RankPosts:
    monkeypatch.setattr(RankPosts, "REBUILD_PAUSE", timedelta())
    return RankPosts(redis, postgres)


def now() -> Window:
    return Window("post", start_of(datetime.now(UTC)))


def count(window: Window, views: int) -> WindowCount:
    return WindowCount(window, views, datetime.now(UTC))


async def test_the_highest_count_of_a_window_is_written(rank_posts: RankPosts, redis: Redis) -> None:
    window = now()
    rank_posts.note([count(window, 3), count(window, 7)])
    rank_posts.note([count(window, 5)])
    await rank_posts.turn()
    assert redis.written == {window: 7}
    assert redis.ranked == 1


async def test_what_is_long_ago_or_far_ahead_is_not_kept(rank_posts: RankPosts, redis: Redis) -> None:
    window = now()
    before, ahead = window.start - LAST_HOUR * LENGTH, window.start + 3 * LENGTH
    rank_posts.note([count(Window("post", start), 1) for start in (before, ahead)])
    await rank_posts.turn()
    assert redis.written == {}


@pytest.mark.parametrize("problem", [RedisConnectionError("away"), TypeError("a bug")])
async def test_what_redis_did_not_take_is_written_at_the_next_turn(
    rank_posts: RankPosts, redis: Redis, problem: Exception
) -> None:
    first, second = now(), now()._replace(post_id="another")
    redis.problem = problem
    rank_posts.note([count(first, 3)])
    with capture_logs() as lines:
        await rank_posts.turn()
        rank_posts.note([count(first, 4), count(second, 1)])
        await rank_posts.turn()
        redis.problem = None
        await rank_posts.turn()
        await rank_posts.turn()
    assert redis.written == {first: 4, second: 1}
    assert [line["event"] for line in lines] == [
        "recent views not written, trying again",
        "recent views are written again",
    ], "an outage is told once"
    assert lines[0]["problem"] == type(problem).__name__


async def test_the_first_turn_writes_all_that_postgresql_has_of_the_last_hour(
    rank_posts: RankPosts, redis: Redis, postgres: Postgres
) -> None:
    running, long_ago = now(), now()._replace(start=now().start - 2 * LAST_HOUR * LENGTH)
    oldest = running._replace(start=running.start - (LAST_HOUR - 2) * LENGTH)
    postgres.counts = [count(running, 5), count(oldest, 6), count(long_ago, 7)]
    redis.complete = True  # says a worker before this one
    rank_posts.note([count(running, 9)])
    await rank_posts.turn()
    await rank_posts.turn()
    assert redis.written == {running: 9, oldest: 6}
    assert len(postgres.asked) == LAST_HOUR + 1


async def test_all_is_written_again_when_redis_has_lost_it(
    rank_posts: RankPosts, redis: Redis, postgres: Postgres
) -> None:
    postgres.counts = [count(now(), 5)]
    await rank_posts.turn()
    redis.written, redis.complete = {}, False
    await rank_posts.turn()
    assert redis.written == {count.window: 5 for count in postgres.counts}
    assert redis.complete


async def test_a_redis_that_loses_all_the_time_does_not_wear_out_postgresql(
    rank_posts: RankPosts, redis: Redis, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RankPosts, "REBUILD_PAUSE", timedelta(minutes=1))
    for _ in range(5):
        await rank_posts.turn()
        redis.complete = False
    assert len(postgres.asked) == LAST_HOUR + 1


async def test_without_postgresql_what_was_noted_is_written_and_ranked(
    rank_posts: RankPosts, redis: Redis, postgres: Postgres
) -> None:
    window = now()
    postgres.problem = psycopg.OperationalError("away")
    rank_posts.note([count(window, 3)])
    await rank_posts.turn()
    assert redis.written == {window: 3}
    assert redis.ranked == 1
    assert not redis.complete
    postgres.problem = None
    await rank_posts.turn()
    assert redis.complete


async def test_a_redis_that_hangs_costs_a_turn_and_loses_nothing(
    rank_posts: RankPosts, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = now()
    monkeypatch.setattr(RankPosts, "TIMEOUT", timedelta(milliseconds=10))
    rank_posts.note([count(window, 3)])
    redis.hangs = True
    await rank_posts.turn()
    redis.hangs = False
    await rank_posts.turn()
    assert redis.written == {window: 3}


async def test_a_stop_writes_what_was_noted_last(rank_posts: RankPosts, redis: Redis) -> None:
    window = now()
    rank_posts.note([count(window, 3)])
    await rank_posts.on_stop()
    assert redis.written == {window: 3}


async def test_a_stop_does_not_wait_for_a_redis_that_hangs(
    rank_posts: RankPosts, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RankPosts, "LAST_TURN_TIMEOUT", timedelta(milliseconds=10))
    redis.hangs = True
    under_way = asyncio.create_task(rank_posts.turn())
    await asyncio.sleep(0)
    started = time.monotonic()
    await rank_posts.on_stop()
    assert time.monotonic() - started < 5
    under_way.cancel()


def test_the_last_hour_is_twelve_windows_and_the_one_that_comes_next_is_kept() -> None:
    moment = datetime(2026, 7, 1, 12, 3, tzinfo=UTC)
    starts = last_hour(moment)
    assert starts[0] == datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    assert starts[-1] == datetime(2026, 7, 1, 11, 5, tzinfo=UTC)
    assert len(starts) == LAST_HOUR
    assert set(kept(moment)) == {*starts, datetime(2026, 7, 1, 12, 5, tzinfo=UTC)}


@pytest.mark.parametrize("url", ["", "http://redis:6379", "redis://:hush-hush@redis:port/0"])
def test_an_invalid_address_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(RedisUrlError) as raised:
        RecentViews(url, "")
    told: Any = raised.value
    assert "hush-hush" not in str(told)
