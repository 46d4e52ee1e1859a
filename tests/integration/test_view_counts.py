"""View counts from end to end: what was sent is what PostgreSQL says, to the last view."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import orjson

from enrich.view_windows import LENGTH, start_of
from sinks.postgres.platform_posts import PlatformTable
from sinks.postgres.view_counts import ViewCounts
from tests.integration.pipeline import Message, Pipeline, Worker, headers_of, plain, until

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
TOPICS = ("page-views", "view-windows", "post-view-counts")


def view(number: int, post_id: str, time: datetime, user_agent: str = BROWSER) -> Message:
    event = plain(
        type="page.viewed",
        eventId=f"view-{number}",
        postId=post_id,
        postSlug=post_id,
        sessionId=f"session-{number % 700}",
        ipAddress=f"81.2.69.{number % 250 + 1}",
        userAgent=user_agent,
        timestamp=time.isoformat(),
    )
    return event._replace(key=post_id.encode())


def count(post_id: str, start: datetime, views: int) -> Message:
    """Return a count as `count_views` sends it."""
    event = plain(
        windowId=f"{post_id}/{start.isoformat()}",
        postId=post_id,
        windowStart=start.isoformat(),
        windowEnd=(start + LENGTH).isoformat(),
        views=views,
        asOf=datetime.now(UTC).isoformat(),
        oldestViewAt=start.isoformat(),
    )
    return event._replace(key=post_id.encode())


async def until_metric(worker: Worker, name: str, value: float) -> None:
    async def is_so() -> bool:
        return (await asyncio.to_thread(worker.metrics)).get(name) == value

    await until(is_so, f"{name} is {value}")


async def test_views_are_counted_each_once_whatever_their_order(counting: Pipeline) -> None:
    now = datetime.now(UTC)
    posts = [f"post-{number}" for number in range(20)]
    counting.add_posts(posts, view_count=100)
    chance = random.Random(3)
    expected = Counter(dict.fromkeys(posts, 100))
    messages = []
    for number in range(2_000):
        post_id, is_bot = chance.choice(posts), chance.random() < 0.1
        time = now - timedelta(seconds=chance.randint(0, 3_600))
        messages.append(view(number, post_id, time, BOT if is_bot else BROWSER))
        expected[post_id] += not is_bot
    messages += chance.sample(messages, 100)
    chance.shuffle(messages)
    await counting.send("page-views", messages)
    with counting.worker(count_every=0.2):
        await counting.settled(*TOPICS)
    assert counting.view_counts() == expected


async def test_a_post_that_appears_later_gets_the_views_that_wait_for_it(counting: Pipeline) -> None:
    now = datetime.now(UTC)
    counting.add_posts(["early"])
    with counting.worker(count_every=0.2) as worker:
        posts = ["early", "late", "late", "never"]
        await counting.send("page-views", [view(number, post_id, now) for number, post_id in enumerate(posts)])
        await counting.settled(*TOPICS)
        assert counting.view_counts() == {"early": 1}
        await until_metric(worker, "inkstream_posts_missing", 2)

        counting.add_posts(["late"], view_count=10)
        await until_metric(worker, "inkstream_posts_missing", 1)
        assert counting.view_counts() == {"early": 1, "late": 12}
        await counting.send("page-views", [view(4, "late", now)])
        await counting.settled(*TOPICS)
    assert counting.view_counts() == {"early": 1, "late": 13}


async def test_views_before_counting_began_are_not_counted(counting: Pipeline) -> None:
    began = datetime.now(UTC) - timedelta(hours=1)
    window = start_of(began)
    since = window + timedelta(minutes=2)
    times = [
        window - timedelta(minutes=9),
        window,
        since - timedelta(milliseconds=1),
        since,
        since + timedelta(hours=1),
    ]
    counting.add_posts(["post-1"], view_count=1_000)
    await counting.send("page-views", [view(number, "post-1", time) for number, time in enumerate(times)])
    with counting.worker(count_every=0.2, count_since=since.isoformat()):
        await counting.settled(*TOPICS)
    assert counting.view_counts() == {"post-1": 1_002}
    assert len(await counting.documents("pageViews")) == 5


async def test_a_view_that_comes_later_than_the_horizon_is_stored_and_reported_as_not_counted(
    counting: Pipeline,
) -> None:
    now = datetime.now(UTC)
    ages = {"in time": timedelta(minutes=50), "late": timedelta(minutes=70), "very late": timedelta(days=300)}
    counting.add_posts(ages)
    messages = [view(number, post_id, now - ages[post_id]) for number, post_id in enumerate([*ages, "very late"])]
    with counting.worker(count_every=0.2, count_horizon="PT1H") as worker:
        await counting.send("page-views", messages)
        await counting.settled(*TOPICS)
        assert worker.metrics()["inkstream_views_not_counted_total"] == 3
    assert counting.view_counts() == {"in time": 1, "late": 0, "very late": 0}
    assert len(await counting.documents("pageViews")) == 4


async def test_the_views_of_a_rolled_up_window_stay_and_later_counts_of_it_change_nothing(counting: Pipeline) -> None:
    counting.add_posts(["post-1", "post-2"], view_count=10)
    start = start_of(datetime.now(UTC)) - timedelta(days=8)
    old, edge, new = start, start + LENGTH, start + 2 * LENGTH
    pool = counting.pool()
    # No worker rolls these up: they are younger than the horizon and a day.
    with counting.worker(agents="post-view-counts", count_horizon="P30D") as worker:
        await counting.send("post-view-counts", [count("post-1", time, 3) for time in (old, edge, new)])
        await counting.settled("post-view-counts")
        await ViewCounts(pool, PlatformTable("posts", "id", "viewCount")).roll_up(before=new)
        assert counting.rows("SELECT window_start, views FROM inkstream.view_windows") == [(new, 3)]
        assert counting.view_counts() == {"post-1": 19, "post-2": 10}

        later = [count("post-1", old, 4), count("post-1", edge, 2), count("post-1", new, 5), count("post-2", old, 1)]
        await counting.send("post-view-counts", later)
        await counting.settled("post-view-counts")
        assert counting.view_counts() == {"post-1": 21, "post-2": 11}
        await until_metric(worker, "inkstream_counts_too_late_total", 2)
    assert counting.rows("SELECT views, folded, applied, baseline FROM inkstream.counted_posts ORDER BY post_id") == [
        (11, 6, 11, 10),
        (1, 0, 1, 10),
    ]
    await pool.close()


async def test_a_worker_rolls_up_windows_older_than_the_horizon_and_a_day(counting: Pipeline) -> None:
    counting.add_posts(["post-1"])
    now = start_of(datetime.now(UTC))
    kept, gone = now - timedelta(hours=24), now - timedelta(hours=26)
    with counting.worker(agents="post-view-counts", count_horizon="PT1H"):
        await counting.send("post-view-counts", [count("post-1", kept, 3), count("post-1", gone, 4)])
        await counting.settled("post-view-counts")

        async def rolled_up() -> bool:
            return counting.rows("SELECT window_start, views FROM inkstream.view_windows") == [(kept, 3)]

        await until(rolled_up, "the older window is rolled up")
    assert counting.rows("SELECT views, folded FROM inkstream.counted_posts") == [(7, 4)]
    assert counting.view_counts() == {"post-1": 7}


async def test_an_older_count_after_a_newer_one_and_an_invalid_count_change_nothing(counting: Pipeline) -> None:
    counting.add_posts(["post-1", "post-2"])
    start = start_of(datetime.now(UTC))
    newest, older, again = count("post-1", start, 5), count("post-1", start, 3), count("post-1", start, 5)
    broken = [
        Message(b"no count", key=b"post-1"),
        plain(postId="post-1", views=7)._replace(key=b"post-1"),
        count("post-1", start, -1),
        Message(None, key=b"post-1"),  # a tombstone
    ]
    with counting.worker(agents="post-view-counts"):
        sent = await counting.send("post-view-counts", [newest, *broken, older])
        await counting.settled("post-view-counts")
        assert counting.view_counts() == {"post-1": 5, "post-2": 0}
        await counting.send("post-view-counts", [older, again, count("post-2", start, 2)])
        await counting.settled("post-view-counts")
    assert counting.view_counts() == {"post-1": 5, "post-2": 2}
    letters = [headers_of(letter) for letter in await counting.read("post-view-counts.dead-letter")]
    assert {(int(letter["dl_partition"]), int(letter["dl_offset"])) for letter in letters} == set(sent[1:5])
    assert {letter["dl_reason"] for letter in letters} == {"not-json", "schema"}


async def test_while_postgresql_is_away_views_are_stored_and_afterwards_all_are_counted(counting: Pipeline) -> None:
    now = datetime.now(UTC)
    postgres = counting.platform.postgres
    posts = [f"post-{number}" for number in range(10)]
    counting.add_posts(posts)
    messages = [view(number, posts[number % 10], now) for number in range(1_000)]
    with counting.worker(count_every=0.2, batch_records=50) as worker:
        await worker.until_ready()
        await counting.send("page-views", messages[:300])
        await asyncio.to_thread(postgres.kill)
        try:
            await counting.send("page-views", messages[300:])
            await counting.settled("page-views", "view-windows")
            assert len(await counting.documents("pageViews")) == 1_000

            async def red() -> bool:
                status, body = await asyncio.to_thread(worker.page, "/readyz")
                return status == 503 and not orjson.loads(body)["dependencies"]["postgresql"]["ready"]

            await until(red, "readiness names PostgreSQL")
            assert worker.page("/healthz")[0] == 200
            assert await counting.lag("post-view-counts") > 0
        finally:
            await asyncio.to_thread(postgres.start)
        await counting.settled("post-view-counts")
        await worker.until_ready()
        assert worker.terminate() == 0
    assert counting.view_counts() == dict.fromkeys(posts, 100)
    assert await counting.read("post-view-counts.dead-letter") == []
