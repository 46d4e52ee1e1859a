"""The oracle on real servers: it finds nothing where nothing is wrong, and whatever is tampered with, that alone."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from dev.blog import Blog
from dev.posts import WrittenPosts, add_blog
from dev.stack import Platform
from dev.traffic import Sample, Traffic
from tests.chaos.event_log import Entry, EventLog
from tests.chaos.history import Check
from tests.chaos.oracle import World, judge
from tests.integration.pipeline import Message, Pipeline, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAMPLES = 1_500
RATE = 150
BEGAN = datetime.now(UTC) - timedelta(minutes=10)  # long enough ago for all that waits to be due
AHEAD = (BEGAN + timedelta(days=40)).isoformat()
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
Tampering = Callable[[World], AbstractAsyncContextManager[object]]


def event(topic: str, **body: object) -> Sample:
    return Sample(0.0, topic, b"key", orjson.dumps(body), (), None, "stored", None, ())


def odd() -> Iterator[Sample]:
    """Yield what sample traffic has seldom, or never; where two copies make different documents, both."""
    view = {"type": "page.viewed", "postId": "unknown-post", "postSlug": "slug", "sessionId": "session"}
    seen = {**view, "ipAddress": "81.2.69.160", "userAgent": BROWSER}
    exit_ = {"type": "page.exited", "postId": "unknown-post", "interacted": False, "scrollDepth": 12}
    line = {"level": "error", "message": "out of ink", "service": "press", "environment": "test"}
    click = {"type": "search.result_clicked", "sessionId": "session", "postId": "one", "position": 3}
    like = {"type": "post.liked", "postId": "liked-post", "title": "Ink", "slug": "ink", "authorId": "author"}
    for copy in range(2):
        yield event("page-views", **seen, eventId="view-ahead", timestamp=AHEAD)
        yield event("log-lines", **line, eventId="line-ahead", timestamp=AHEAD)
        yield event("searches", **click, eventId="click-ahead", searchId="search-never-made", timestamp=AHEAD)
        yield event("domain-events", **like, eventId="like-ahead", userId="ada", userName="Ada", timestamp=AHEAD)
        left = BEGAN + timedelta(seconds=copy)
        yield event("page-views", **exit_, eventId=f"exit-{copy}", viewId="view-never-made", timeSpent=9 - copy,
                    exitedAt=left.isoformat(), timestamp=(left - timedelta(hours=1)).isoformat())  # fmt: skip
        yield event("domain-events", **like, eventId=f"like-{copy}", userId=f"user-{copy}", timestamp=BEGAN.isoformat())
    yield event("page-views", **seen, eventId="view-without-post", timestamp=BEGAN.isoformat())
    yield event(
        "page-views", **{**seen, "userAgent": "Googlebot/2.1"}, eventId="view-by-bot", timestamp=left.isoformat()
    )


async def send(pipeline: Pipeline, event_log: EventLog, samples: list[Sample]) -> None:
    """Send samples, each with the timestamp of its moment, and record what Kafka acknowledged."""
    async with AIOKafkaProducer(bootstrap_servers=pipeline.platform.kafka.brokers, linger_ms=5) as producer:
        sent = []
        for number, sample in enumerate(samples):
            # Of a batch, aiokafka tells the timestamp of the first record for all.
            timestamp = int((BEGAN + timedelta(seconds=number / RATE)).timestamp() * 1000)
            sending = await producer.send(
                pipeline.namespace + sample.topic,
                value=sample.value,
                key=sample.key,
                headers=list(sample.headers),
                timestamp_ms=timestamp,
            )
            sent.append((sample, timestamp, sending))
        for sample, timestamp, sending in sent:
            place = await sending
            its_own = (timestamp, sample.key, sample.value, sample.headers, sample.reason)
            event_log.record(Entry(place.topic, place.partition, place.offset, *its_own))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A pipeline that has had some traffic, which a worker has dealt with."""
    pipeline = Pipeline(platform)
    pipeline.own_tables()
    await pipeline.prepare()
    add_blog(pipeline.tables_url, Blog())
    # What waits for the end of somebody's night would not be done today.
    pipeline.rows("UPDATE notification_preferences SET preferences = preferences - 'quietHours'")
    event_log = EventLog(tmp_path_factory.mktemp("ledger") / "events.sqlite")
    traffic = Traffic(pipeline.topics.inbound.values(), began=BEGAN, rate=RATE, seed=7)
    samples = [*islice(traffic, SAMPLES), *traffic.owed(), *odd()]
    posts = WrittenPosts(pipeline.tables_url)
    for sample in samples:
        if sample.post is not None:
            posts.add(sample.post)
    await posts.write()
    with pipeline.worker(count_every=0.5) as worker:
        await worker.until_ready()
        await send(pipeline, event_log, samples)

        async def settled() -> bool:
            open_items = {"status": {"$in": ["pending", "processing"]}}
            return await pipeline.collection("notificationQueue").find_one(open_items) is None

        for _ in range(2):  # what is read last may touch windows once more
            await pipeline.settled(*pipeline.topics.all, "notify-domain-events")
        await until(settled, "everybody is told")
        assert worker.terminate() == 0
    yield World(event_log, pipeline, platform)
    event_log.close()
    await pipeline.forget()


def failing(checks: list[Check]) -> dict[str, list[str]]:
    return {check.promise.partition(":")[0]: check.problems for check in checks if check.problems}


async def test_all_holds_where_nothing_is_wrong(world: World) -> None:
    checks = await judge(world)
    assert failing(checks) == {}
    assert [check.promise for check in checks if check.found != check.expected] == []
    empty = {check.promise.partition(".")[0] for check in checks if not check.expected}
    assert empty == {"view-windows", "post-view-counts", "delivery-receipts"}, "the others have something to judge"
    reasons = {entry.reason for entry in world.event_log.entries()}
    assert reasons == {None, "not-json", "schema", "unknown-type", "refused-by-store"}


def deleted(collection: str, **wanted: object) -> Tampering:
    @asynccontextmanager
    async def tamper(world: World) -> AsyncIterator[object]:
        document = await world.pipeline.collection(collection).find_one_and_delete(wanted)
        assert document is not None
        yield document["_id"]
        await world.pipeline.collection(collection).insert_one(document)

    return tamper


def added(collection: str, **wanted: object) -> Tampering:
    @asynccontextmanager
    async def tamper(world: World) -> AsyncIterator[object]:
        document = await world.pipeline.collection(collection).find_one(wanted)
        assert document is not None
        await world.pipeline.collection(collection).insert_one({**document, "_id": "a-fresh-id"})
        yield "a-fresh-id"
        await world.pipeline.collection(collection).delete_one({"_id": "a-fresh-id"})

    return tamper


def changed(collection: str, change: Mapping[str, Any] | list[Mapping[str, Any]], **wanted: object) -> Tampering:
    @asynccontextmanager
    async def tamper(world: World) -> AsyncIterator[object]:
        document = await world.pipeline.collection(collection).find_one(wanted)
        assert document is not None
        own = {"_id": document["_id"]}
        result = await world.pipeline.collection(collection).update_one(own, change)
        assert result.modified_count == 1
        yield document["_id"]
        await world.pipeline.collection(collection).replace_one(own, document)

    return tamper


def made_collection(name: str) -> Tampering:
    @asynccontextmanager
    async def tamper(world: World) -> AsyncIterator[object]:
        await world.pipeline.database.create_collection(world.pipeline.database.name_of(name))
        yield name
        await world.pipeline.collection(name).drop()

    return tamper


def stated(statement: str, undo: str) -> Tampering:
    def run(world: World, text: str) -> None:
        with psycopg.connect(world.pipeline.tables_url) as connection:
            assert connection.execute(world.pipeline.with_schema(text)).rowcount == 1

    @asynccontextmanager
    async def tamper(world: World) -> AsyncIterator[object]:
        run(world, statement)
        yield ""
        run(world, undo)

    return tamper


def all_of(*tamperings: Tampering) -> Tampering:
    @asynccontextmanager
    async def tamper(world: World) -> AsyncIterator[object]:
        async with AsyncExitStack() as stack:
            for tampering in tamperings:
                await stack.enter_async_context(tampering(world))
            yield ""

    return tamper


OWN_DOCUMENTS = (
    "pageViews",
    "analyticsEvents",
    "userActivity",
    "searchQueries",
    "auditLogs",
    "systemLogs",
    "performanceLogs",
)
ALL = {*OWN_DOCUMENTS, "errorLogs"}
EXTRA = {"$set": {"tampered": 1}}
LATER: list[Mapping[str, Any]] = [
    {"$set": {"timestamp": {"$dateAdd": {"startDate": "$timestamp", "unit": "millisecond", "amount": 1}}}}
]
A_CLICK: dict[str, Any] = {"clickedResults.0": {"$exists": True}}
UNSENT: dict[str, Any] = {"deliveries": {"$not": {"$elemMatch": {"provider": {"$exists": True}}}}}
MAILED: dict[str, Any] = {"deliveries": {"$elemMatch": {"channel": "email", "state": "sent"}}}
A_POST = """id = (SELECT min(id) FROM posts WHERE "viewCount" > 0)"""
A_WINDOW = "window_start = (SELECT min(window_start) FROM inkstream.view_windows WHERE post_id = 'unknown-post')"
WINDOWS = f"UPDATE inkstream.view_windows SET views = views %s 1 WHERE post_id = 'unknown-post' AND {A_WINDOW}"

TAMPERINGS: dict[str, tuple[Tampering, set[str]]] = {
    **{f"of {name} one is deleted": (deleted(name), {name}) for name in OWN_DOCUMENTS},
    "of each collection one is there twice": (all_of(*map(added, ALL)), ALL),
    "of each collection one has a field more": (all_of(*(changed(name, EXTRA) for name in ALL)), ALL),
    "of each collection one is a millisecond late": (all_of(*(changed(name, LATER) for name in ALL)), ALL),
    "a collection is there that nobody declared": (
        made_collection("strange"),
        {"the declared collections, and no others"},
    ),
    # Page views
    "a view has its engagement raised": (
        changed("pageViews", {"$inc": {"timeSpent": 1}}, timeSpent={"$gt": 5}),
        {"pageViews"},
    ),
    "a view has lost its exit": (
        changed("pageViews", {"$unset": {"exitedAt": ""}}, exitedAt={"$exists": True}),
        {"pageViews"},
    ),
    "a view is a bot's": (changed("pageViews", {"$set": {"bot": {"rule": "x"}}}, bot=None), {"pageViews"}),
    "a view is a placeholder": (changed("pageViews", {"$set": {"incomplete": True}}, incomplete=None), {"pageViews"}),
    "a placeholder has another time": (changed("pageViews", LATER, _id="view-never-made"), {"pageViews"}),
    "a placeholder is deleted": (deleted("pageViews", _id="view-never-made"), {"pageViews"}),
    "a view that two documents may be is neither": (changed("pageViews", LATER, _id="view-ahead"), {"pageViews"}),
    # Searches
    "a search has lost a click": (
        changed("searchQueries", {"$pop": {"clickedResults": 1}}, **A_CLICK),
        {"searchQueries"},
    ),
    "a search has a click twice": (
        changed(
            "searchQueries",
            [{"$set": {"clickedResults": {"$concatArrays": ["$clickedResults", "$clickedResults"]}}}],
            **A_CLICK,
        ),
        {"searchQueries"},
    ),
    # Errors
    "an error line is deleted": (deleted("systemLogs", level="error"), {"systemLogs"}),
    "an error is counted once more": (changed("errorLogs", {"$inc": {"occurrenceCount": 1}}), {"errorLogs"}),
    "an error is counted once less": (
        changed("errorLogs", {"$inc": {"occurrenceCount": -1}}, occurrenceCount={"$gt": 1}),
        {"errorLogs"},
    ),
    "an error happened later": (changed("errorLogs", {"$currentDate": {"lastOccurrence": True}}), {"errorLogs"}),
    "an error looks like an earlier one": (changed("errorLogs", {"$set": {"message": "?"}}), {"errorLogs"}),
    "an error's group is deleted": (deleted("errorLogs"), {"errorLogs"}),
    # Notifications
    "a notification is deleted": (deleted("notifications"), {"notifications", "deliveries"}),
    "a notification is there twice": (added("notifications"), {"notifications"}),
    "a notification says something else": (changed("notifications", {"$set": {"title": "?"}}), {"notifications"}),
    "a notification is read": (changed("notifications", {"$set": {"channels.inApp.read": True}}), {"notifications"}),
    "a notification does not know that it was sent": (
        changed(
            "notifications",
            {"$set": {"channels.email": {"enabled": True, "sent": False}}},
            **{"channels.email.sent": True},
        ),
        {"notifications"},
    ),
    "a notification was sent by nobody": (
        changed("notifications", {"$set": {"channels.push.sent": True}}, **{"channels.push.sent": False}),
        {"notifications"},
    ),
    "somebody is gathered twice": (
        changed(
            "notifications",
            [{"$set": {"gathered.newest": {"$concatArrays": ["$gathered.newest", "$gathered.newest"]}}}],
            gathered={"$exists": True},
        ),
        {"notifications", "deliveries"},
    ),
    # The queue
    "an item is deleted": (deleted("notificationQueue", **UNSENT), {"notificationQueue", "deliveries"}),
    "an item is there twice": (added("notificationQueue", **UNSENT), {"notificationQueue"}),
    "an item is of another type": (
        changed("notificationQueue", {"$set": {"type": "?"}}, **MAILED),
        {"notificationQueue"},
    ),
    "an item is held": (
        changed("notificationQueue", {"$set": {"lease": {"worker": "w", "token": "t", "until": BEGAN}}}),
        {"notificationQueue"},
    ),
    "an item waits": (
        changed("notificationQueue", {"$set": {"status": "pending"}}, **MAILED),
        {"notificationQueue", "deliveries"},
    ),
    "an item failed, and its deliveries did not": (
        changed("notificationQueue", {"$set": {"status": "failed"}}, **MAILED),
        {"notificationQueue"},
    ),
    # Logs of messages
    "an e-mail's log is deleted": (deleted("emailLogs", status="sent"), {"emailLogs", "deliveries"}),
    "an e-mail's log is there twice": (added("emailLogs"), {"emailLogs"}),
    "an e-mail's log is another's": (changed("emailLogs", {"$set": {"userId": "?"}}), {"emailLogs"}),
    "an e-mail's log says that it waits": (
        changed("emailLogs", {"$set": {"status": "queued"}}),
        {"emailLogs", "deliveries"},
    ),
    "a push message's log is deleted": (
        deleted("pushNotificationLogs", status="sent"),
        {"pushNotificationLogs", "deliveries"},
    ),
    "a push message's log is there twice": (added("pushNotificationLogs"), {"pushNotificationLogs"}),
    # PostgreSQL
    "a post has a view more": (
        stated(
            f'UPDATE posts SET "viewCount" = "viewCount" + 1 WHERE {A_POST}',
            f'UPDATE posts SET "viewCount" = "viewCount" - 1 WHERE {A_POST}',
        ),
        {'posts."viewCount"'},
    ),
    "a window has a view more": (stated(WINDOWS % "+", WINDOWS % "-"), {"inkstream.view_windows"}),
    "a window is there that nobody viewed": (
        stated(
            "INSERT INTO inkstream.view_windows VALUES ('unknown-post', '2020-01-01T00:00Z', 1, now())",
            "DELETE FROM inkstream.view_windows WHERE window_start = '2020-01-01T00:00Z'",
        ),
        {"inkstream.view_windows"},
    ),
    "views are applied to no post": (
        stated(
            "UPDATE inkstream.counted_posts SET applied = views WHERE post_id = 'unknown-post'",
            "UPDATE inkstream.counted_posts SET applied = 0 WHERE post_id = 'unknown-post'",
        ),
        {"inkstream.counted_posts"},
    ),
}


def rounds() -> Iterator[list[str]]:
    """Yield tamperings that are to be found by different checks, so that they may be made together."""
    left = list(TAMPERINGS)
    while left:
        together: list[str] = []
        taken: set[str] = set()
        for name in left:
            if taken.isdisjoint(TAMPERINGS[name][1]):
                together.append(name)
                taken |= TAMPERINGS[name][1]
        left = [name for name in left if name not in together]
        yield together


@pytest.mark.parametrize("names", list(rounds()), ids=lambda names: f"{len(names)}, among them {names[0]}")
async def test_what_is_tampered_with_is_found_and_nothing_else(world: World, names: list[str]) -> None:
    async with AsyncExitStack() as stack:
        ids = {name: await stack.enter_async_context(TAMPERINGS[name][0](world)) for name in names}
        broken = failing(await judge(world))
    expected = {check: name for name in names for check in TAMPERINGS[name][1]}
    assert set(broken) == set(expected)
    for check, name in expected.items():
        if check != "deliveries":  # which names items, whatever was tampered with
            assert len(broken[check]) == 1, (name, broken[check])
            assert str(ids[name]) in broken[check][0], (name, broken[check])


# What follows can't be undone, so each test looks at what is broken that was not before.


async def forged(world: World, topic: str, **changes: bytes | None) -> None:
    """Send a copy of the first dead letter of a topic, with another value, or other headers."""
    letter = (await world.pipeline.read(f"{topic}.dead-letter"))[0]
    value = changes.pop("value", letter.value)
    headers = [(name, changes.get(name, content) or b"") for name, content in letter.headers]
    await world.pipeline.send(f"{topic}.dead-letter", [Message(value, headers, letter.key)])


async def test_a_dead_letter_that_comes_again_is_counted_and_no_mistake(world: World) -> None:
    await forged(world, "log-lines")
    checks = await judge(world)
    assert failing(checks) == {}
    assert [check.promise for check in checks if check.promise.endswith("; 1 came again")] == [
        "log-lines.dead-letter: each invalid record with its reason, byte for byte; 1 came again"
    ]


async def test_forged_dead_letters_are_found(world: World) -> None:
    valid = next(
        entry for entry in world.event_log.entries(f"{world.pipeline.namespace}searches") if entry.reason is None
    )
    place = {"dl_partition": b"%d" % valid.partition, "dl_offset": b"%d" % valid.offset}
    await forged(world, "searches", **place)
    await forged(world, "page-views", value=b"{}")
    await forged(world, "domain-events", dl_reason=b"unknown")
    await world.pipeline.send("view-windows.dead-letter", [Message(b"?")])
    broken = failing(await judge(world))
    assert {name: len(problems) for name, problems in broken.items()} == {
        "searches.dead-letter": 1,
        "page-views.dead-letter": 1,
        "domain-events.dead-letter": 1,
        "view-windows.dead-letter": 1,
    }
    assert broken["searches.dead-letter"][0].startswith(f"{valid.place} is valid, and has the dead letter ")
    assert broken["page-views.dead-letter"][0].endswith(": its value is another")
    assert "dl_reason is unknown, and should be " in broken["domain-events.dead-letter"][0]


async def test_a_count_too_high_and_a_record_that_nobody_acknowledged_are_found(world: World) -> None:
    before = failing(await judge(world))
    [count, *_] = await world.pipeline.read("post-view-counts")
    assert count.value is not None
    higher = orjson.dumps({**orjson.loads(count.value), "views": 10_000})
    await world.pipeline.send("post-view-counts", [Message(higher, count.headers, count.key)])
    await world.pipeline.send("audit-entries", [Message(b"{}")])
    broken = failing(await judge(world))
    assert broken.keys() - before.keys() == {
        "post-view-counts",
        "every agent has committed all of its topic",
        "Kafka has the records of the event log, and no others",
    }
    assert len(broken["every agent has committed all of its topic"]) == 2


async def test_an_event_that_was_acknowledged_and_lost_is_found_wherever_it_counts(
    world: World, tmp_path: Path
) -> None:
    before = failing(await judge(world))
    event_log = EventLog(tmp_path / "events.sqlite")
    for entry in world.event_log.entries():
        event_log.record(entry)
    view = next(entry for entry in event_log.entries() if b"view-without-post" in (entry.value or b""))
    lost = (view.value or b"").replace(b"view-without-post", b"view-that-is-lost")
    event_log.record(view._replace(offset=10**6, value=lost))
    broken = failing(await judge(World(event_log, world.pipeline, world.platform)))
    event_log.close()
    assert broken.keys() - before.keys() == {"pageViews", "inkstream.view_windows", "inkstream.counted_posts"}
    assert broken["pageViews"] == [f"view-that-is-lost is missing, and came as {view.topic}:{view.partition}:1000000"]


async def test_an_event_log_with_another_reason_than_the_reader_finds_is_found(world: World, tmp_path: Path) -> None:
    before = failing(await judge(world))
    event_log = EventLog(tmp_path / "events.sqlite")
    for entry in world.event_log.entries():
        event_log.record(entry._replace(reason="not-json") if b"line-ahead" in (entry.value or b"") else entry)
    broken = failing(await judge(World(event_log, world.pipeline, world.platform)))
    event_log.close()
    assert broken.keys() - before.keys() == {
        "each record is valid, or invalid, as the event log says",
        "log-lines.dead-letter",
        "systemLogs",
        "errorLogs",
    }
