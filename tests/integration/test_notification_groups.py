"""Gathered notifications on a real MongoDB: everybody counts once, whoever writes, and whatever comes in between."""

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Thread
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import AutoReconnect
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from enrich.documents import GroupedNotification
from notifications.notice import ACTORS, SENT_AFTER, Gather, Notice, digest, expiry
from schemas.notifications import RelatedEntity
from sinks.mongo.client import Mongo
from sinks.mongo.notification_groups import GroupResult, NotificationGroups
from sinks.mongo.outcome import Outcome
from sinks.mongo.writer import MongoWriter

# Within this hour, as MongoDB deletes what is too old; in milliseconds, as it keeps no more.
START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)


def like(number: int, *, post: str = "post-1", at: int | None = None) -> Notice:
    """A reader's like of Alan's post, so many seconds after the start."""
    reader = f"reader-{number}"
    seconds = number if at is None else at
    time = START + timedelta(seconds=seconds)
    return Notice(
        id=digest(reader, post, str(seconds)),
        user_id="alan",
        type="post_liked",
        title=f"Reader {number} liked your post",
        message="“Types”",
        action_url=f"/posts/{post}",
        action_text="See the post",
        related_entity=RelatedEntity(id=post, type="post"),
        actor_id=reader,
        actor_name=f"Reader {number}",
        actor_avatar=f"/avatars/{number}" if number % 2 else None,
        channels=("inApp", "push"),
        priority="low",
        created_at=time,
        expires_at=expiry(time),
        gather=Gather(digest("alan", post), START, f"{ACTORS} liked your post", "“Types”"),
    )


def likes(numbers: Iterable[int], post: str = "post-1") -> list[Notice]:
    return [like(number, post=post) for number in numbers]


async def join(mongo: Mongo, notices: Iterable[Notice]) -> Outcome:
    return await MongoWriter(mongo).write([GroupedNotification("notifications", notice) for notice in notices])


async def stored(mongo: Mongo, collection: str = "notifications") -> list[dict[str, Any]]:
    """Return all documents, as they are numbered."""
    documents = await mongo.database[collection].find().to_list()
    return sorted(documents, key=lambda document: int(document["_id"].rpartition("-")[2]))


async def titles(mongo: Mongo) -> list[str]:
    return [document["title"] for document in await stored(mongo)]


async def read(mongo: Mongo) -> None:
    await mongo.database["notifications"].update_many({}, {"$set": {"channels.inApp.read": True}})


async def test_ten_likes_are_one_notification_and_one_item_of_the_queue(mongo: Mongo) -> None:
    outcome = await join(mongo, likes(range(10)))
    [notification] = await stored(mongo)
    [item] = await stored(mongo, "notificationQueue")
    assert notification["title"] == "Reader 9 and 9 others liked your post"
    assert (notification["actorId"], notification["actorAvatar"]) == ("reader-9", "/avatars/9")
    assert notification["createdAt"] == item["createdAt"] == START
    assert item["_id"] == item["notificationId"] == notification["_id"]
    assert (item["status"], item["nextRetryAt"]) == ("pending", START + SENT_AFTER)
    assert (outcome.written, outcome.duplicates, outcome.refused) == ({"notifications": 10}, {}, [])
    [group] = outcome.gathered
    assert (group.notification, group.joined, group.due) == (notification, 10, START + SENT_AFTER)


async def test_what_comes_again_in_whatever_batches_changes_nothing(mongo: Mongo) -> None:
    await join(mongo, likes(range(10)))
    before = await stored(mongo), await stored(mongo, "notificationQueue")
    for start, end in ((0, 10), (0, 3), (3, 10), (9, 10)):
        outcome = await join(mongo, likes(range(start, end)))
        assert (outcome.written, outcome.duplicates) == ({}, {"notifications": end - start})
        # Applications are told all the same: the worker may have died before it told them.
        assert outcome.gathered == (GroupResult(before[0][0], 0, None),)
    assert (await stored(mongo), await stored(mongo, "notificationQueue")) == before


async def test_who_comes_later_joins_and_is_sent_nothing_more(mongo: Mongo) -> None:
    await join(mongo, likes(range(2)))
    sent = {"channels.push": {"enabled": True, "sent": True}}
    await mongo.database["notifications"].update_one({}, {"$set": sent})
    await mongo.database["notificationQueue"].update_one({}, {"$set": {"status": "completed"}})
    [group] = (await join(mongo, likes(range(2, 5)))).gathered
    [notification] = await stored(mongo)
    [item] = await stored(mongo, "notificationQueue")
    assert notification["title"] == "Reader 4 and 4 others liked your post"
    assert notification["channels"]["push"]["sent"], "what others wrote into it stays"
    assert "actorAvatar" not in notification, "the newest has none"
    assert (item["status"], group.due) == ("completed", None)


async def test_a_like_older_than_the_notification_counts_and_says_nothing_new(mongo: Mongo) -> None:
    await join(mongo, likes([50]))
    await join(mongo, [like(2, at=-1_000), like(1, at=-500)])
    [notification] = await stored(mongo)
    assert notification["title"] == "Reader 50, Reader 1 and Reader 2 liked your post"
    assert notification["createdAt"] == START + timedelta(seconds=50)


async def test_two_thousand_likes_of_a_post_are_one_change(mongo: Mongo) -> None:
    for batch in (1, 2):
        notices = likes(range(2_000 * (batch - 1), 2_000 * batch))
        await join(mongo, random.Random(batch).sample(notices, k=2_000))
        [notification] = await stored(mongo)
        assert notification["gathered"]["version"] == batch
    assert notification["title"].startswith("Reader 3999 and about ")


async def test_each_group_has_its_own_notification(mongo: Mongo) -> None:
    notices = [like(number, post=f"post-{number % 400}") for number in range(1_200)]
    outcome = await join(mongo, notices)
    assert {group.joined for group in outcome.gathered} == {3}
    documents = await mongo.database["notifications"].find().to_list()
    assert {document["relatedEntity"]["id"] for document in documents} == {f"post-{number}" for number in range(400)}
    assert all(document["title"].count("Reader") == 3 for document in documents)
    assert await mongo.database["notificationQueue"].count_documents({}) == 400


async def test_the_next_like_after_a_reading_begins_a_new_notification(mongo: Mongo) -> None:
    await join(mongo, likes(range(10)))
    await read(mongo)
    outcome = await join(mongo, [*likes(range(10)), like(10), like(11)])
    assert (outcome.written, outcome.duplicates) == ({"notifications": 2}, {"notifications": 10})
    assert await titles(mongo) == [
        "Reader 9 and 9 others liked your post",
        "Reader 11 and Reader 10 liked your post",
    ]
    _, item = await stored(mongo, "notificationQueue")
    assert item["nextRetryAt"] == START + timedelta(seconds=10) + SENT_AFTER
    [group] = outcome.gathered
    assert (group.notification["_id"], group.joined, group.due) == (item["_id"], 2, item["nextRetryAt"])


async def test_likes_that_come_again_after_a_reading_count_for_nothing(mongo: Mongo) -> None:
    await join(mongo, likes(range(10)))
    await read(mongo)
    outcome = await join(mongo, [*likes(range(10)), like(3, at=100)])
    assert (outcome.written, outcome.duplicates) == ({}, {"notifications": 11})
    assert len(await stored(mongo)) == len(await stored(mongo, "notificationQueue")) == 1


async def test_the_latest_of_many_notifications_is_the_one_with_the_highest_number(mongo: Mongo) -> None:
    # Another group's, whose ids stand right beside it in the index.
    neighbour = like(0, post="post-2")
    assert neighbour.gather is not None
    await join(mongo, [neighbour])
    for number in range(12):
        await join(mongo, [like(number, at=-number)])
        await mongo.database["notifications"].update_many(
            {"relatedEntity.id": "post-1"}, {"$set": {"channels.inApp.read": True}}
        )
    assert (await join(mongo, likes(range(12)))).written == {}
    group = digest("alan", "post-1")
    found = [document["_id"] for document in await stored(mongo) if document["relatedEntity"]["id"] == "post-1"]
    assert found == [f"{group}-{number}" for number in range(1, 13)]
    [joined] = (await join(mongo, [like(12)])).gathered
    assert joined.notification["_id"] == f"{group}-13"


async def test_an_item_that_a_crash_left_alone_gets_its_notification(mongo: Mongo) -> None:
    await join(mongo, likes(range(3)))
    before = await stored(mongo), await stored(mongo, "notificationQueue")
    await mongo.database["notifications"].delete_many({})  # as if it had not been written yet
    outcome = await join(mongo, likes(range(3)))
    assert outcome.written == {"notifications": 3}
    assert (await stored(mongo), await stored(mongo, "notificationQueue")) == before


@pytest.fixture
def url(mongo: Mongo) -> str:
    host, port = next(iter(mongo.database.client.nodes))
    return f"mongodb://{host}:{port}/{mongo.database.name}?directConnection=true&w=majority"


async def test_writers_of_one_group_at_the_same_time_count_everybody_once(mongo: Mongo, url: str) -> None:
    chance = random.Random(1)
    writers = [Mongo.connect(url) for _ in range(4)]
    batches = [chance.choices(range(150), k=20) for _ in range(60)]

    async def write(writer: Mongo, share: list[list[int]]) -> int:
        outcomes = [await join(writer, likes(numbers)) for numbers in share]
        return sum(outcome.written.get("notifications", 0) for outcome in outcomes)

    # Two at a time in each, as its agent's actors are.
    shares = [(writers[part % 4], batches[part::8]) for part in range(8)]
    written = await asyncio.gather(*(write(writer, share) for writer, share in shares))
    people = {number for batch in batches for number in batch}
    [notification] = await stored(mongo)
    newest = max(people)
    assert notification["title"] == f"Reader {newest} and {len(people) - 1} others liked your post"
    assert notification["gathered"]["version"] <= len(batches)
    assert sum(written) >= len(people)
    [item] = await stored(mongo, "notificationQueue")
    assert item["_id"] == notification["_id"]
    for writer in writers:
        await writer.close()


async def test_readings_in_between_leave_everybody_in_one_notification(mongo: Mongo, url: str) -> None:
    chance = random.Random(2)
    writers = [Mongo.connect(url) for _ in range(4)]
    done = asyncio.Event()

    async def read_now_and_then() -> None:
        while not done.is_set():
            await read(mongo)
            await asyncio.sleep(0.02)

    reading = asyncio.create_task(read_now_and_then())
    batches = [chance.choices(range(300), k=10) for _ in range(200)]
    await asyncio.gather(
        *(join_all(writers[part % 4], [likes(batch) for batch in batches[part::8]]) for part in range(8))
    )
    done.set()
    await reading
    people = {number for batch in batches for number in batch}
    documents = await stored(mongo)
    assert len(documents) > 3
    assert sum(len(document["gathered"]["actors"]) // 8 for document in documents) == len(people)
    items = await stored(mongo, "notificationQueue")
    assert [item["_id"] for item in items] == [document["_id"] for document in documents]
    for writer in writers:
        await writer.close()


async def join_all(mongo: Mongo, batches: Iterable[list[Notice]]) -> None:
    for batch in batches:
        await join(mongo, batch)


class Interruption(CommandListener):
    """Does something right before a command is sent, the first time that there is one."""

    def __init__(self, command: str, does: Callable[[], object]) -> None:
        self._command = command
        self._does: Callable[[], object] | None = does

    def started(self, event: CommandStartedEvent) -> None:
        if event.command.get(self._command) == "notifications" and self._does is not None:
            does, self._does = self._does, None
            does()

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


async def join_while(url: str, does: Callable[[Any], object], notices: list[Notice]) -> GroupResult:
    """Let notices join, and something else happen between the reading of their notification and its change."""
    with MongoClient[dict[str, Any]](url, tz_aware=True) as other:
        collection = other.get_default_database()["notifications"]
        interruption = Interruption("update", lambda: does(collection))
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            url, tz_aware=True, event_listeners=[interruption], retryWrites=False
        )
        [joined] = await NotificationGroups(client.get_default_database()).join(notices)
        await client.close()
    return joined


async def test_one_that_is_read_at_the_last_moment_stays_as_it_was_read(mongo: Mongo, url: str) -> None:
    await join(mongo, likes(range(3)))
    joined = await join_while(
        url, lambda found: found.update_one({}, {"$set": {"channels.inApp.read": True}}), likes([3])
    )
    assert await titles(mongo) == [
        "Reader 2, Reader 1 and Reader 0 liked your post",
        "Reader 3 liked your post",
    ]
    assert (joined.notification["title"], joined.joined) == ("Reader 3 liked your post", 1)
    assert len(await stored(mongo, "notificationQueue")) == 2


async def test_one_that_is_deleted_at_the_last_moment_is_there_again_whole(mongo: Mongo, url: str) -> None:
    await join(mongo, likes(range(3)))
    [before] = await stored(mongo)
    joined = await join_while(url, lambda found: found.delete_many({}), likes([3]))
    [after] = await stored(mongo)
    assert after == joined.notification
    assert after["title"] == "Reader 3 and 3 others liked your post"
    assert after["gathered"]["version"] == 2
    assert after.keys() | {"actorAvatar"} == before.keys() | {"actorAvatar"}
    assert after["channels"] == before["channels"]


async def test_a_writer_that_lost_against_another_counts_both(mongo: Mongo, url: str) -> None:
    await join(mongo, likes(range(3)))

    def other_writer(found: Any) -> None:
        # On a loop of its own, as another process would be.
        asyncio.run(write_once(url, likes([4])))

    async with asyncio.timeout(20):
        joined = await join_while(url, lambda found: in_another_thread(lambda: other_writer(found)), likes([3]))
    [notification] = await stored(mongo)
    assert notification == joined.notification
    assert notification["title"] == "Reader 4 and 4 others liked your post"
    assert notification["gathered"]["version"] == 3


async def write_once(url: str, notices: list[Notice]) -> None:
    writer = Mongo.connect(url)
    await join(writer, notices)
    await writer.close()


def in_another_thread(does: Callable[[], None]) -> None:
    thread = Thread(target=does)
    thread.start()
    thread.join()


async def test_a_notice_that_mongodb_refuses_stops_no_other(mongo: Mongo) -> None:
    bad = replace(like(1, post="post-3"), actor_name="\ud800")
    outcome = await MongoWriter(mongo).write(
        [
            GroupedNotification("notifications", notice)
            for notice in (*likes(range(5)), bad, *likes(range(5), post="post-2"))
        ]
    )
    [(index, refusal)] = outcome.refused
    assert (index, refusal.reason) == (5, "refused-by-store")
    assert {document["relatedEntity"]["id"] for document in await stored(mongo)} == {"post-1", "post-2"}
    assert {document["title"] for document in await stored(mongo)} == {"Reader 4 and 4 others liked your post"}


async def test_a_notification_that_the_validator_refuses_stops_no_other(mongo: Mongo) -> None:
    never = {"title": {"$not": {"$regex": "^Reader 7 "}}}
    await mongo.database.command("collMod", "notifications", validator=never)
    outcome = await join(mongo, [*likes(range(5)), like(7, post="post-2")])
    assert [index for index, _ in outcome.refused] == [5]
    assert await titles(mongo) == ["Reader 4 and 4 others liked your post"]


async def test_no_group_is_forgotten_where_the_driver_finds_no_connection_at_first(
    mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    await join(mongo, likes([1], post="old"))
    checkout = AsyncMongoClient._checkout
    attempts = count()

    def none_at_first(client: Any, *arguments: Any) -> Any:
        if next(attempts) % 2 == 0:
            raise AutoReconnect("no connection")
        return checkout(client, *arguments)

    monkeypatch.setattr(AsyncMongoClient, "_checkout", none_at_first)
    await join(mongo, [*likes([2, 3], post="old"), *likes([2], post="new")])
    assert sorted(await titles(mongo)) == [
        "Reader 2 liked your post",
        "Reader 3, Reader 2 and Reader 1 liked your post",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"gathered": "mine"},
        {"gathered.version": "one"},
        {"gathered.actors": 5},
        {"gathered.newest": "nobody"},
        {"gathered.generation": None},
        {"channels": "all"},
        {"channels.inApp.read": "yes"},
    ],
    ids=str,
)
async def test_a_notification_that_somebody_changed_stops_nobody(mongo: Mongo, changes: dict[str, Any]) -> None:
    await join(mongo, [*likes(range(3)), *likes(range(3), "post-2")])
    group = like(0).gather
    assert group is not None
    first = {"_id": f"{group.group}-1"}
    unset = {"$unset": dict.fromkeys(changes, "")} if None in changes.values() else {"$set": changes}
    notifications = mongo.database["notifications"]
    await mongo.database.command(
        "update", "notifications", updates=[{"q": first, "u": unset}], bypassDocumentValidation=True
    )
    if "gathered.generation" in changes:
        await notifications.update_one(first, {"$unset": {"gathered.group": ""}})
    spoiled = await notifications.find_one(first)
    outcome = await join(mongo, [*likes(range(3, 5)), *likes(range(3, 5), "post-2")])
    assert outcome.refused == []
    assert sum(outcome.written.values()) == 4
    assert await notifications.find_one(first) == spoiled
    second = await notifications.find_one({"_id": f"{group.group}-2"})
    assert second is not None
    assert second["title"] == "Reader 4 and Reader 3 liked your post"
    assert await notifications.count_documents({}) == 3
    again = await join(mongo, likes(range(3, 5)))
    assert again.written == {}
