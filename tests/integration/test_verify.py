"""`inkstream verify counts` and the drift gauge, on the real servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.view_counts.reconciliation import (
    Column,
    PostDifference,
    Reconciliation,
    WindowDifference,
    reconciliation_of,
)
from agents.view_counts.watch_drift import WatchDrift
from enrich.view_windows import LENGTH, Window, start_of
from runtime.metrics import VIEW_COUNT_DRIFT
from sinks.mongo.page_view_counts import StoredViews
from sinks.postgres.platform_posts import PlatformTable
from sinks.postgres.view_counts import ViewCounts
from sinks.postgres.view_windows import WindowCount
from tests.command_line import Ended, inkstream
from tests.integration.pipeline import Message, Pipeline, plain, until

BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
TOPICS = ("page-views", "view-windows", "post-view-counts")
NOW = datetime.now(UTC)
START = start_of(NOW - timedelta(hours=1))
SHORT_PAUSES = """
from datetime import timedelta
from agents.view_counts.reconciliation import Reconciliation
Reconciliation.LEAST_PAUSE = timedelta(seconds=0.1)
"""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconciliation, "LEAST_PAUSE", timedelta(seconds=0.1))


@pytest.fixture
def verified(counting: Pipeline) -> Pipeline:
    """A pipeline whose counts come at once, as far as a reconciliation in this process knows."""
    counting.environment["INKSTREAM_COUNT_EVERY"] = "0.1"
    return counting


async def store(pipeline: Pipeline, *times: datetime, post_id: str = "post-1", **fields: object) -> None:
    """Store views as an agent does."""
    known = await pipeline.collection("pageViews").estimated_document_count()
    await pipeline.collection("pageViews").insert_many(
        {
            "_id": f"view-{known + number}",
            "postId": post_id,
            "postSlug": post_id,
            "sessionId": "session",
            "ipAddress": "hash",
            "userAgent": BROWSER,
            "device": {"type": "desktop", "os": "Linux", "browser": "Firefox"},
            "timeSpent": 0,
            "scrollDepth": 0,
            "interacted": False,
            "source": "direct",
            "timestamp": time,
            **fields,
        }
        for number, time in enumerate(times)
    )


@asynccontextmanager
async def view_counts(pipeline: Pipeline) -> AsyncIterator[ViewCounts]:
    counts = ViewCounts(pipeline.pool(), PlatformTable("posts", "id", "viewCount"))
    try:
        yield counts
    finally:
        await counts.close()


async def count(pipeline: Pipeline, *windows: Window) -> None:
    """Count windows as the agents do."""
    stored = await StoredViews(pipeline.database, pipeline.settings.count_since).count(windows)
    async with view_counts(pipeline) as counts:
        await counts.apply(WindowCount(window, views, NOW) for window, views in stored.items())


WINDOWS = [Window(post_id, START + number * LENGTH) for post_id in ("post-1", "post-2") for number in range(3)]


async def prepare(pipeline: Pipeline) -> None:
    """Two posts with a hundred views from before; six windows, with one view, two, and so on."""
    pipeline.add_posts(["post-1", "post-2"], view_count=100)
    for number, window in enumerate(WINDOWS):
        await store(pipeline, *[window.start + timedelta(seconds=1)] * (number + 1), post_id=window.post_id)
    await count(pipeline, *WINDOWS)
    assert pipeline.view_counts() == {"post-1": 106, "post-2": 115}


async def verify(pipeline: Pipeline, *arguments: str) -> Ended:
    ended = await inkstream(pipeline.environment, "verify", "counts", *arguments, prelude=SHORT_PAUSES)
    assert "Traceback" not in ended.errors
    return ended


async def found(pipeline: Pipeline, *arguments: str) -> dict[str, Any]:
    ended = await verify(pipeline, "--json", *arguments)
    report: dict[str, Any] = json.loads(ended.output)
    assert report["well"] == (ended.code == 0)
    return report


def views(first: int, of: int, post_ids: list[str], user_agent: str = BROWSER) -> Iterable[Message]:
    for number in range(first, first + of):
        post_id = post_ids[number % len(post_ids)]
        event = plain(
            type="page.viewed",
            eventId=f"view-{number}",
            postId=post_id,
            postSlug=post_id,
            sessionId=f"session-{number % 70}",
            ipAddress="81.2.69.142",
            userAgent=user_agent,
            timestamp=(datetime.now(UTC) - timedelta(minutes=number % 40)).isoformat(),
        )
        yield event._replace(key=post_id.encode())


async def test_after_traffic_there_are_no_differences(counting: Pipeline) -> None:
    posts = [f"post-{number}" for number in range(7)]
    counting.add_posts(posts[:5], view_count=1_000)
    exit_only = plain(type="page.exited", eventId="exit", viewId="view-never-seen", timeSpent=3)
    with counting.worker(count_every=0.2):
        await counting.send("page-views", [*views(0, 700, posts), *views(700, 70, posts, BOT), exit_only])
        await counting.settled(*TOPICS)
        ended = await verify(counting)
    assert ended.code == 0, ended.output
    windows = len(counting.rows("SELECT 1 FROM inkstream.view_windows WHERE views > 0"))
    assert ended.output.splitlines() == [
        "2 posts with views are not in posts; their views are added when the post appears.",
        f"No differences in 7 posts and {windows} windows.",
    ]


async def test_views_in_flight_are_not_drift(verified: Pipeline) -> None:
    posts = [f"post-{number}" for number in range(5)]
    verified.add_posts(posts)
    Reconciliation.LEAST_PAUSE = timedelta(seconds=1)  # the fixture sets it back
    with verified.worker(count_every=0.5) as worker:
        await worker.until_ready()
        stopping = asyncio.Event()

        async def traffic() -> None:
            first = 0
            while not stopping.is_set():
                await verified.send("page-views", views(first, 200, posts))
                first += 200
                await asyncio.sleep(0.1)  # the machine has other things to do

        sending = asyncio.create_task(traffic())
        async with reconciliation_of(verified.settings) as reconciliation:
            await until(lambda: any_counted(verified), "views are counted")
            for _ in range(5):
                report = await reconciliation.compare(since=datetime.now(UTC) - timedelta(hours=1))
                assert report.is_well, report
                assert report.windows > 0
        stopping.set()
        await sending


async def any_counted(pipeline: Pipeline) -> bool:
    return bool(pipeline.rows("SELECT 1 FROM inkstream.view_windows"))


async def test_a_view_counted_during_the_comparison_is_not_drift(verified: Pipeline) -> None:
    await prepare(verified)
    await store(verified, WINDOWS[0].start)
    async with reconciliation_of(verified.settings) as reconciliation:
        waited = 0

        def counted_late(what: str, done: int, of: int) -> None:
            nonlocal waited
            if what == "in flight":
                waited += 1
                if waited == 2:
                    counting.append(asyncio.create_task(count(verified, WINDOWS[0])))

        counting: list[asyncio.Task[None]] = []
        report = await reconciliation.compare(report=counted_late)
        await asyncio.gather(*counting)
    assert waited >= 2
    assert report.is_well


async def test_an_uncounted_view_is_found_and_counted_by_a_repair(verified: Pipeline) -> None:
    await prepare(verified)
    new = Window("post-3", START)
    await store(verified, WINDOWS[0].start)
    await store(verified, START, START, post_id="post-3")
    verified.add_posts(["post-3"], view_count=5)
    async with reconciliation_of(verified.settings) as reconciliation:
        report = await reconciliation.compare()
        assert report.of_windows == [WindowDifference(WINDOWS[0], 2, 1), WindowDifference(new, 2, 0)]
        assert report.of_posts == []
        _, left = await reconciliation.repair(report)
    assert left.is_well
    assert verified.view_counts() == {"post-1": 107, "post-2": 115, "post-3": 7}


async def test_a_manual_change_of_the_platforms_count_is_reported_and_kept_until_it_is_overruled(
    counting: Pipeline,
) -> None:
    await prepare(counting)
    counting.rows("UPDATE posts SET \"viewCount\" = 7 WHERE id = 'post-2'")
    for arguments in ((), ("--repair",)):
        ended = await verify(counting, *arguments)
        assert ended.code == 0, ended.output
        assert ended.output.splitlines() == [
            "Something else changed viewCount of 1 post since counting began, by -108 views; for example post-2, by "
            "-108. Such changes are kept; --repair --overrule-platform undoes them.",
            "No differences in 2 posts and 6 windows.",
        ]
        assert counting.view_counts() == {"post-1": 106, "post-2": 7}
    assert (await verify(counting, "--overrule-platform")).code == 2
    ended = await verify(counting, "--repair", "--overrule-platform")
    assert ended.code == 0, ended.output
    assert ["post-2", "posts.viewCount", "7", "115", "+108"] in [line.split() for line in ended.output.splitlines()]
    assert ended.output.endswith("Fixed 0 windows and 1 post. No differences in 2 posts and 6 windows.\n")
    assert counting.view_counts() == {"post-1": 106, "post-2": 115}
    assert (await verify(counting)).code == 0


@pytest.mark.parametrize("views", [0, 1, 9])
async def test_a_manually_changed_window_is_found_and_repaired(verified: Pipeline, views: int) -> None:
    await prepare(verified)
    window = WINDOWS[1]
    verified.rows(
        "UPDATE inkstream.view_windows SET views = %s WHERE post_id = %s AND window_start = %s", views, *window
    )
    async with reconciliation_of(verified.settings) as reconciliation:
        report = await reconciliation.compare()
        assert report.of_windows == [WindowDifference(window, 2, views)]
        # The sum is wrong as well; what is applied and the platform's count follow from it.
        assert PostDifference("post-1", Column.VIEWS, 6, 4 + views) in report.of_posts
        done, left = await reconciliation.repair(report)
        assert [(change.window, change.views_before, change.views) for change in done.windows] == [(window, views, 2)]
        assert left.is_well
        assert (await reconciliation.compare()).is_well
    assert verified.view_counts() == {"post-1": 106, "post-2": 115}


async def test_manually_deleted_windows_are_found_and_repaired(verified: Pipeline) -> None:
    await prepare(verified)
    verified.rows("DELETE FROM inkstream.view_windows")
    async with reconciliation_of(verified.settings) as reconciliation:
        report = await reconciliation.compare()
        assert report.of_windows == [WindowDifference(window, number + 1, 0) for number, window in enumerate(WINDOWS)]
        _, left = await reconciliation.repair(report)
        assert left.is_well
    assert verified.view_counts() == {"post-1": 106, "post-2": 115}


async def test_a_wrong_total_is_found_and_repaired_with_the_counts_derived_from_it(verified: Pipeline) -> None:
    await prepare(verified)
    verified.rows("UPDATE inkstream.counted_posts SET views = 50 WHERE post_id = 'post-1'")
    async with reconciliation_of(verified.settings) as reconciliation:
        report = await reconciliation.compare()
        assert report.of_posts == [PostDifference("post-1", Column.VIEWS, 50, 6)]
        async with view_counts(verified) as counts:
            await counts.maintain()
        assert verified.view_counts()["post-1"] == 150
        report = await reconciliation.compare()
        assert report.of_posts == [
            PostDifference("post-1", Column.VIEWS, 50, 6),
            PostDifference("post-1", Column.VIEW_COUNT, 150, 106),
        ]
        _, left = await reconciliation.repair(report)
        assert left.is_well
    assert verified.view_counts() == {"post-1": 106, "post-2": 115}


async def test_a_manually_changed_applied_count_is_found_and_repaired(verified: Pipeline) -> None:
    await prepare(verified)
    verified.rows("UPDATE inkstream.counted_posts SET applied = 2 WHERE post_id = 'post-1'")
    async with reconciliation_of(verified.settings) as reconciliation:
        report = await reconciliation.compare()
        assert report.of_posts == [PostDifference("post-1", Column.APPLIED, 2, 6)]
        _, left = await reconciliation.repair(report)
        assert left.is_well
    assert verified.view_counts() == {"post-1": 106, "post-2": 115}


async def test_a_repair_subtracts_manually_deleted_views(verified: Pipeline) -> None:
    await prepare(verified)
    await verified.collection("pageViews").delete_many({"postId": "post-2", "timestamp": {"$gte": WINDOWS[5].start}})
    report = await found(verified, "--repair")
    assert report["repaired_windows"] == [{"post": "post-2", "window": WINDOWS[5].start.isoformat(), "was": 6, "is": 0}]
    assert {(change["column"], change["was"], change["is"]) for change in report["repaired_posts"]} == {
        ("views", 15, 9),
        ("applied", 15, 9),
        ("viewCount", 115, 109),
    }
    assert verified.view_counts() == {"post-1": 106, "post-2": 109}


async def test_a_repair_beside_a_worker_loses_no_view(verified: Pipeline) -> None:
    posts = [f"post-{number}" for number in range(5)]
    verified.add_posts(posts)
    with verified.worker(count_every=0.2) as worker:
        await worker.until_ready()
        await verified.send("page-views", views(0, 500, posts))
        async with reconciliation_of(verified.settings) as reconciliation:
            for first in range(500, 3_000, 500):
                await verified.send("page-views", views(first, 500, posts))
                verified.rows("UPDATE inkstream.view_windows SET views = greatest(0, views + (random() * 9)::int - 4)")
                await reconciliation.repair(await reconciliation.compare())
            await verified.settled(*TOPICS)
            _, left = await reconciliation.repair(await reconciliation.compare())
        assert left.is_well, left
    assert verified.view_counts() == dict.fromkeys(posts, 600)


async def test_more_windows_and_posts_than_one_transaction_takes_are_repaired(verified: Pipeline) -> None:
    posts = [f"post-{number}" for number in range(1_100)]
    verified.add_posts(posts, view_count=3)
    for post_id in posts[:600]:
        await store(verified, START, post_id=post_id)
    await count(verified, *(Window(post_id, START) for post_id in posts[:600]))
    for post_id in posts[600:]:
        await store(verified, START, post_id=post_id)
    verified.rows('UPDATE posts SET "viewCount" = 0')
    async with reconciliation_of(verified.settings) as reconciliation:
        report = await reconciliation.compare()
        assert (len(report.of_windows), report.changes.posts, report.posts) == (500, 600, 600)
        done, left = await reconciliation.repair(report, overrule=True)
        assert (len(done.windows), len(done.posts)) == (500, 1_100)
        assert left.is_well
        assert left.changes.posts == 0
    counts = verified.view_counts()
    assert {counts[post_id] for post_id in posts[:600]} == {4}
    assert {counts[post_id] for post_id in posts[600:]} == {1}


async def test_views_of_missing_posts_wait_and_are_not_drift(verified: Pipeline) -> None:
    await prepare(verified)
    await store(verified, START, post_id="post-3")
    await count(verified, Window("post-3", START))
    report = await found(verified)
    assert report["well"]
    assert (report["posts"], report["posts_missing"]) == (3, 1)
    # It appears, and no worker is there to give it its views.
    verified.add_posts(["post-3"], view_count=10)
    async with reconciliation_of(verified.settings) as reconciliation:
        waiting = await reconciliation.compare()
        assert waiting.of_posts == [PostDifference("post-3", Column.VIEW_COUNT, 10, 11)]
        await reconciliation.repair(waiting)
    assert verified.view_counts()["post-3"] == 11


async def test_only_some_posts_are_verified_and_repaired(verified: Pipeline) -> None:
    await prepare(verified)
    verified.rows('UPDATE posts SET "viewCount" = 0')
    verified.rows("UPDATE inkstream.view_windows SET views = views + 1")
    report = await found(verified, "--post", "post-2", "--post", "unknown")
    assert (report["posts"], report["windows"]) == (1, 3)
    assert {difference["post"] for difference in report["window_differences"]} == {"post-2"}
    assert {difference["post"] for difference in report["post_differences"]} == {"post-2"}
    ended = await verify(verified, "--post", "post-2", "--repair", "--overrule-platform")
    assert ended.code == 0, ended.output
    assert verified.view_counts() == {"post-1": 0, "post-2": 115}
    ended = await verify(verified, "--post", "unknown")
    assert ended.code == 0
    assert ended.output.startswith("1 post given by --post has no counted views.")


async def test_only_windows_from_a_moment_on_are_verified(verified: Pipeline) -> None:
    await prepare(verified)
    verified.rows("UPDATE inkstream.view_windows SET views = views + 1 WHERE window_start = %s", START)
    verified.rows("UPDATE inkstream.counted_posts SET views = views + 1, applied = applied + 1")
    verified.rows('UPDATE posts SET "viewCount" = "viewCount" + 1')
    assert len((await found(verified, "--since", "3h"))["window_differences"]) == 2
    later = await found(verified, "--since", (START + timedelta(seconds=1)).isoformat())
    assert (later["well"], later["windows"], later["posts"]) == (True, 4, 2)


async def test_windows_outside_of_the_horizon_are_not_changed(verified: Pipeline) -> None:
    await prepare(verified)
    old = start_of(NOW - timedelta(days=7, hours=1))
    await store(verified, old)
    ended = await verify(verified, "--since", "30d")
    assert ended.code == 0, ended.output
    assert "are outside INKSTREAM_COUNT_HORIZON" in ended.output
    # A longer horizon does not bring back what was rolled up before.
    async with view_counts(verified) as counts:
        await counts.roll_up(START + LENGTH)
    await store(verified, START)
    assert (await found(verified))["well"]


async def test_views_from_before_counting_began_are_not_differences(verified: Pipeline) -> None:
    verified.environment["INKSTREAM_COUNT_SINCE"] = (START + timedelta(minutes=2)).isoformat()
    verified.add_posts(["post-1"], view_count=100)
    await store(verified, START - timedelta(hours=1), START, START + timedelta(minutes=1), START + timedelta(minutes=2))
    await count(verified, Window("post-1", START))
    report = await found(verified)
    assert (report["well"], report["windows"]) == (True, 1)
    assert verified.view_counts() == {"post-1": 101}


async def test_views_dated_ahead_are_verified(verified: Pipeline) -> None:
    ahead = start_of(datetime.now(UTC) + timedelta(hours=20))
    await store(verified, ahead)
    async with reconciliation_of(verified.settings) as reconciliation:
        report = await reconciliation.compare()
    assert report.of_windows == [WindowDifference(Window("post-1", ahead), 1, 0)]


@pytest.mark.parametrize(
    "arguments", [(), ("posts",), ("counts", "--since", "soon"), ("counts", "--post"), ("counts", "more")]
)
async def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    ended = await inkstream({}, "verify", *arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize(
    ("variable", "value", "server"),
    [
        ("INKSTREAM_MONGO_URL", "mongodb://127.0.0.1:1/x?replicaSet=rs0", "MongoDB does not answer at 127.0.0.1:1: "),
        ("INKSTREAM_POSTGRES_URL", "postgresql://127.0.0.1:1/x", "PostgreSQL does not answer at 127.0.0.1:1: "),
    ],
)
async def test_a_server_that_does_not_answer_is_named(
    pipeline: Pipeline, variable: str, value: str, server: str
) -> None:
    ended = await inkstream({**pipeline.environment, variable: value}, "verify", "counts")
    assert ended.code == 1
    assert ended.errors.startswith(server)
    assert ended.errors.endswith(f"Is it running? Check {variable}.\n")


def drift() -> float:
    [family] = VIEW_COUNT_DRIFT.collect()
    return family.samples[0].value


async def test_the_gauge_shows_drift_and_its_end(verified: Pipeline) -> None:
    verified.add_posts(["post-1", "post-2"])
    for post_id in ("post-1", "post-2"):
        await store(verified, START, START, post_id=post_id)
    await count(verified, Window("post-1", START), Window("post-2", START))
    async with reconciliation_of(verified.settings) as reconciliation:
        watch = WatchDrift(reconciliation, timedelta(minutes=5))
        await watch.measure()
        assert drift() == 0
        verified.rows('UPDATE posts SET "viewCount" = "viewCount" + 5')
        verified.rows("UPDATE inkstream.view_windows SET views = 3 WHERE post_id = 'post-1'")
        await watch.measure()
        # Its window, its sum and the platform's count by one each. What others did to their counts is no drift.
        assert drift() == 1 + 1 + 1
        await reconciliation.repair(await reconciliation.compare())
        await watch.measure()
        assert drift() == 0


async def test_the_gauge_stays_while_a_server_is_away(verified: Pipeline) -> None:
    VIEW_COUNT_DRIFT.set(3)
    async with reconciliation_of(verified.settings) as reconciliation:
        verified.rows("ALTER TABLE inkstream.view_windows RENAME TO gone")
        await WatchDrift(reconciliation, timedelta(minutes=5)).measure()
    assert drift() == 3


async def test_a_worker_measures_drift(counting: Pipeline) -> None:
    await prepare(counting)
    with counting.worker(count_every=0.2, drift_every=1) as worker:
        await worker.until_ready()
        counting.rows("UPDATE inkstream.counted_posts SET views = views + 5")

        async def drifts() -> bool:
            return worker.metrics().get("inkstream_view_count_drift", 0) in (5, 10)  # one post sampled, or both

        async def is_well() -> bool:
            return worker.metrics().get("inkstream_view_count_drift") == 0

        await until(drifts, "the gauge shows the drift")
        assert (await verify(counting, "--repair")).code == 0
        await until(is_well, "the gauge is at 0 again")
        assert worker.terminate() == 0
