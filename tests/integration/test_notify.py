"""What happens on the platform, through the whole pipeline, to what people are told of it."""

import json
import random
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from sinks.redis.connection import connect
from tests.integration.pipeline import Message, Pipeline, headers_of, plain, until
from tests.integration.test_crash import run_with_kills

NOTIFY = "notify-domain-events"
# An hour that has begun, whole, as that is what likes are gathered by; of today, as old notifications are deleted.
HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)


def like(reader: int, post: int = 0, *, second: int | None = None, event: str | None = None) -> Message:
    """A reader's like of a post; ten posts after another belong to the same author."""
    moment = HOUR + timedelta(seconds=reader if second is None else second)
    return plain(
        type="post.liked",
        eventId=event or f"like-{reader}-{post}",
        postId=f"post-{post}",
        slug=f"post-{post}",
        title=f"Title {post}",
        authorId=f"author-{post // 10}",
        userId=f"reader-{reader}",
        userName=f"Reader {reader}",
        timestamp=moment.isoformat(),
    )


def comment(number: int, **fields: object) -> Message:
    body = {
        "commentId": f"comment-{number}",
        "postId": "post-0",
        "postTitle": "Title 0",
        "postSlug": "post-0",
        "postAuthorId": "alan",
        "authorId": "ada",
        "authorName": "Ada",
        "excerpt": "Thank you.",
        "timestamp": HOUR.isoformat(),
    }
    return plain(type="comment.created", eventId=f"comment-{number}", **{**body, **fields})


async def notified(pipeline: Pipeline, messages: Iterable[Message]) -> None:
    """Send domain events, and return when people are notified of them."""
    with pipeline.worker(agents=NOTIFY):
        await pipeline.send("domain-events", messages)
        await pipeline.settled(NOTIFY)


async def told(pipeline: Pipeline) -> set[tuple[str, str, str]]:
    """Return who was told what: user, type, title."""
    documents = (await pipeline.documents("notifications")).values()
    return {(document["userId"], document["type"], document["title"]) for document in documents}


@pytest.fixture
async def redis(pipeline: Pipeline) -> AsyncIterator[Redis]:
    client = connect(pipeline.platform.redis.url, 5)
    yield client
    await client.aclose()


async def heard(subscribed: PubSub) -> dict[str, Any]:
    message = await subscribed.get_message(ignore_subscribe_messages=True, timeout=10)
    assert message is not None
    heard: dict[str, Any] = json.loads(message["data"]) if message["data"] else {}
    return heard


async def test_ten_likes_are_one_notification_that_is_announced_to_application_and_dispatchers(
    pipeline: Pipeline, redis: Redis
) -> None:
    prefix = f"{pipeline.namespace}inkstream:"
    async with redis.pubsub() as application:
        await application.subscribe(f"{prefix}notifications:author-0")
        await application.get_message(timeout=5)
        await notified(pipeline, [like(reader) for reader in range(10)])
        message = await heard(application)
    assert await told(pipeline) == {("author-0", "post_liked", "Reader 9 and 9 others liked your post")}
    [notification] = (await pipeline.documents("notifications")).values()
    [item] = (await pipeline.documents("notificationQueue")).values()
    assert item["_id"] == notification["_id"] == message["id"]
    assert (item["status"], item["channels"]) == ("pending", ["inApp", "push"])
    assert message["unreadCount"] == 1
    assert await redis.get(f"{prefix}unread:author-0") == "1"


async def test_a_request_and_a_rule_wake_the_deliverers(pipeline: Pipeline, redis: Redis) -> None:
    request = {"userId": "ada", "type": "welcome", "title": "Welcome", "message": "Hello", "channels": ["email"]}
    async with redis.pubsub() as deliverer:
        await deliverer.subscribe(f"{pipeline.namespace}inkstream:queue:wake")
        await deliverer.get_message(timeout=5)
        with pipeline.worker(agents=f"notifications,{NOTIFY}"):
            await pipeline.send("notifications", [plain(eventId="request-1", **request)])
            await heard(deliverer)
            await pipeline.send("domain-events", [comment(1)])
            await heard(deliverer)
    assert {user for user, _, _ in await told(pipeline)} == {"ada", "alan"}


async def test_rules_define_who_is_notified_and_nobody_is_notified_of_their_own_actions(pipeline: Pipeline) -> None:
    await notified(
        pipeline,
        [
            comment(1, parentId="comment-0", parentAuthorId="grace"),
            comment(2, authorId="alan", authorName="Alan"),
            comment(3, authorId="alan", authorName="Alan", parentId="comment-1", parentAuthorId="ada"),
            comment(4, authorId="grace", authorName="Grace", parentId="comment-2", parentAuthorId="alan"),
            plain(type="post.liked", eventId="own", postId="post-1", slug="s", title="t", authorId="ada", userId="ada"),
            plain(type="user.followed", eventId="follow", userId="ada", followerId="alan", followerName="Alan"),
            plain(type="user.logged_in", eventId="login", userId="ada"),
        ],
    )
    assert await told(pipeline) == {
        ("grace", "comment_reply", "Ada replied to your comment"),
        ("alan", "post_commented", "Ada commented on “Title 0”"),
        ("ada", "comment_reply", "Alan replied to your comment"),
        ("alan", "comment_reply", "Grace replied to your comment"),
        ("ada", "new_follower", "Alan started following you"),
    }


async def test_the_same_records_twice_change_nothing(pipeline: Pipeline) -> None:
    messages = [*(like(reader, reader % 2) for reader in range(20)), *(comment(number) for number in range(5))]
    await notified(pipeline, messages)
    before = await pipeline.documents("notifications"), await pipeline.documents("notificationQueue")
    assert len(before[0]) == len(before[1]) == 7
    await notified(pipeline, [*messages, *reversed(messages)])
    assert (await pipeline.documents("notifications"), await pipeline.documents("notificationQueue")) == before


async def test_one_agent_stores_and_another_notifies_and_only_the_first_judges(pipeline: Pipeline) -> None:
    never = {"$nor": [{"title": {"$regex": "^Reader 1 "}}]}
    await pipeline.database.command("collMod", pipeline.namespace + "notifications", validator=never)
    broken = Message(b'{"broken": 1}')
    await pipeline.send("domain-events", [like(0), like(1, post=10), broken])
    with pipeline.worker(agents=NOTIFY) as worker:
        await pipeline.settled(NOTIFY)
        metrics = worker.metrics()
    assert await pipeline.documents("userActivity") == {}
    assert len(await pipeline.documents("notifications")) == 1
    assert metrics[f'inkstream_records_read_total{{agent="{pipeline.namespace}{NOTIFY}"}}'] == 3
    [refused] = await pipeline.read("domain-events.dead-letter")
    assert refused.value == like(1, post=10).value
    assert headers_of(refused)["dl_reason"] == "refused-by-store"
    with pipeline.worker(agents="domain-events"):
        await pipeline.settled("domain-events")
    assert set(await pipeline.documents("userActivity")) == {"like-0-0", "like-1-10"}
    assert len(await pipeline.documents("notifications")) == 1
    letters = await pipeline.read("domain-events.dead-letter")
    assert [letter.value for letter in letters if letter.value != refused.value] == [broken.value]


async def test_without_redis_people_are_notified_all_the_same(pipeline: Pipeline) -> None:
    pipeline.environment["INKSTREAM_REDIS_URL"] = "redis://127.0.0.1:1/0"
    await notified(pipeline, [like(0), comment(1)])
    assert {user for user, _, _ in await told(pipeline)} == {"author-0", "alan"}


async def test_grouping_is_exact_through_kills(pipeline: Pipeline) -> None:
    chance = random.Random(5)
    liked = [(reader, post) for reader in range(60) for post in range(50) if (reader + post) % 3]
    messages = [like(reader, post) for reader, post in liked]
    # Liked again, and sent twice by their producers.
    messages += [like(reader, post, second=3_000, event=f"again-{reader}-{post}") for reader, post in liked[::7]]
    messages += chance.sample(messages, 400)
    messages += [comment(number) for number in range(1_500)]
    chance.shuffle(messages)
    await pipeline.send("domain-events", messages)
    await run_with_kills(pipeline, NOTIFY, "notifications", kills=6, seed=6)

    documents = (await pipeline.documents("notifications")).values()
    of_post = {document["relatedEntity"]["id"]: document for document in documents if document["type"] == "post_liked"}
    assert len(of_post) == 50
    for post in range(50):
        people = {reader for reader, liked_post in liked if liked_post == post}
        document = of_post[f"post-{post}"]
        assert document["userId"] == f"author-{post // 10}"
        assert document["title"].endswith(f" and {len(people) - 1} others liked your post")
    comments = {document["relatedEntity"]["id"] for document in documents if document["type"] == "post_commented"}
    assert comments == {f"comment-{number}" for number in range(1_500)}
    assert len(documents) == 1_550
    assert set(await pipeline.documents("notificationQueue")) == {document["_id"] for document in documents}


async def test_two_workers_whose_partitions_move_group_exactly(pipeline: Pipeline) -> None:
    with pipeline.worker(agents=NOTIFY, batch_records=50) as one:
        await one.until_ready()
        await pipeline.send("domain-events", [like(reader, reader % 3) for reader in range(900)])
        with pipeline.worker(agents=NOTIFY, batch_records=50) as other:
            await other.until_ready()
            one.kill()
            await pipeline.send("domain-events", [like(reader, reader % 3) for reader in range(900, 1_200)])
            await pipeline.settled(NOTIFY)
    assert {title for _, _, title in await told(pipeline)} == {
        f"Reader {newest} and 399 others liked your post" for newest in (1_197, 1_198, 1_199)
    }


async def test_the_worker_says_so_where_there_is_no_such_agent(pipeline: Pipeline) -> None:
    with pipeline.worker(agents="notify-searches") as worker:

        async def ended() -> bool:
            return worker.process.poll() is not None

        await until(ended, "the worker has ended")
        assert worker.process.returncode == 2
        assert "INKSTREAM_AGENTS: no agent notify-searches; expected some of page-views, " in worker.log.read_text()


def published(followers: Iterable[int], event: str = "published", **fields: object) -> Message:
    return plain(
        type="post.published",
        eventId=event,
        postId="post-1",
        slug="post-1",
        title="Types",
        authorId="alan",
        authorName="Alan",
        followerIds=[f"reader-{number}" for number in followers],
        timestamp=HOUR.isoformat(),
        **fields,
    )


async def test_many_followers_in_two_overlapping_parts_are_notified_once_each_though_workers_are_killed(
    pipeline: Pipeline,
) -> None:
    # Each part is more than what is written at once, so a worker is killed between two writes of one event.
    await pipeline.send(
        "domain-events",
        [published(range(7_000)), published(range(6_500, 12_500), "published-2", continues="published")],
        partition=0,
    )
    await run_with_kills(pipeline, NOTIFY, "notifications", kills=3, seed=4)
    notifications = await pipeline.documents("notifications")
    assert len(notifications) == 12_500
    assert {document["userId"] for document in notifications.values()} == {f"reader-{n}" for n in range(12_500)}
    assert set(await pipeline.documents("notificationQueue")) == set(notifications)
    with pipeline.worker(agents="domain-events"):
        await pipeline.settled("domain-events")
    assert list(await pipeline.documents("userActivity")) == ["published"]
    assert await pipeline.read("domain-events.dead-letter") == []
