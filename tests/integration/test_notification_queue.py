"""The queue on a real MongoDB: who gets what, that nobody gets it twice, and that a late word is refused."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sinks.mongo import Mongo
from sinks.notification_queue import LEASE, Claim, NotificationQueue

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def queue(mongo: Mongo) -> NotificationQueue:
    return queue_of(mongo, 1)


def queue_of(mongo: Mongo, seed: int) -> NotificationQueue:
    return NotificationQueue(mongo.database, f"worker-{seed}", random.Random(seed))


def item(name: str, priority: int = 2, created: datetime = NOON, due: datetime | None = None) -> dict[str, Any]:
    return {
        "_id": name,
        "status": "pending",
        "priority": priority,
        "notificationId": name,
        "userId": "ada",
        "type": "comment_reply",
        "channels": ["email"],
        "attempts": 0,
        "maxAttempts": 5,
        "errors": [],
        "createdAt": created,
        **({"nextRetryAt": due} if due else {}),
    }


def names(claims: list[Claim]) -> list[str]:
    return [claim.id for claim in claims]


async def stored(mongo: Mongo, name: str) -> dict[str, Any]:
    found = await mongo.database["notificationQueue"].find_one({"_id": name})
    assert found is not None
    return found


async def test_an_item_that_is_added_twice_is_there_once_and_stays_as_it_was(
    mongo: Mongo, queue: NotificationQueue
) -> None:
    await queue.add([item("a"), item("b")])
    [claim, _] = await queue.claim(2, NOON)
    await queue.release(claim, {"status": "completed", "completedAt": NOON}, [])
    await queue.add([item("a"), item("b"), item("c")])
    assert (await stored(mongo, claim.id))["status"] == "completed"
    assert await mongo.database["notificationQueue"].count_documents({}) == 3


async def test_the_most_urgent_goes_first_and_of_these_the_oldest(queue: NotificationQueue) -> None:
    await queue.add(
        [
            item("low", priority=1),
            item("late", priority=3, created=NOON + 2 * SECOND),
            item("early", priority=3, created=NOON + SECOND),
            item("urgent", priority=4, created=NOON + 3 * SECOND),
        ]
    )
    assert names(await queue.claim(7, NOON))[:3] == ["urgent", "early", "late"]


async def test_the_oldest_gets_its_turn_though_what_is_urgent_never_ends(queue: NotificationQueue) -> None:
    await queue.add([item("low", priority=1)])
    for turn in range(20):
        created = NOON + (turn + 1) * SECOND
        await queue.add([item(f"urgent-{turn}-{number}", priority=4, created=created) for number in range(8)])
        if "low" in names(await queue.claim(8, NOON)):
            return
    raise AssertionError("the oldest item was never claimed")


async def test_what_waits_is_not_claimed_until_it_is_due(mongo: Mongo, queue: NotificationQueue) -> None:
    await queue.add([item("a", due=NOON + 5 * SECOND)])
    assert await queue.next_due() == NOON + 5 * SECOND
    assert await queue.wake(NOON + 4 * SECOND) == 0
    assert await queue.claim(1, NOON + 4 * SECOND) == []
    assert await queue.wake(NOON + 5 * SECOND) == 1
    assert names(await queue.claim(1, NOON + 5 * SECOND)) == ["a"]
    assert await queue.next_due() is None


async def test_many_workers_never_claim_the_same(mongo: Mongo) -> None:
    items = [item(f"item-{number}", created=NOON + number * SECOND) for number in range(400)]
    workers = [queue_of(mongo, seed) for seed in range(8)]
    await workers[0].add(items)

    async def claim_all(worker: NotificationQueue) -> list[str]:
        claimed: list[str] = []
        empty = 0
        while empty < 3:
            found = names(await worker.claim(10, NOON))
            claimed += found
            empty = 0 if found else empty + 1
        return claimed

    claimed = [name for some in await asyncio.gather(*map(claim_all, workers)) for name in some]
    assert sorted(claimed) == sorted(each["_id"] for each in items)


async def test_a_worker_that_never_came_back_loses_its_item_and_its_late_word_is_refused(
    mongo: Mongo, queue: NotificationQueue
) -> None:
    await queue.add([item("a")])
    [late] = await queue.claim(1, NOON)
    assert await queue.wake(NOON + LEASE - SECOND) == 0
    assert await queue.wake(NOON + LEASE) == 1
    [ours] = await queue_of(mongo, 2).claim(1, NOON + LEASE)
    assert not await queue.write(late, {"attempts": 9})
    assert not await queue.release(late, {"status": "failed"}, [])
    assert await queue.write(ours, {"attempts": 1})
    assert await queue.release(ours, {"status": "completed", "completedAt": NOON + LEASE}, [])
    assert not await queue.release(ours, {"status": "failed"}, [])
    found = await stored(mongo, "a")
    assert (found["status"], found["attempts"]) == ("completed", 1)
    assert "lease" not in found


async def test_a_word_after_the_lease_is_refused_though_nobody_has_taken_the_item_yet(
    queue: NotificationQueue,
) -> None:
    await queue.add([item("a")])
    [late] = await queue.claim(1, NOON)
    await queue.wake(NOON + LEASE)
    assert not await queue.release(late, {"status": "completed"}, [])


async def test_what_is_given_back_waits_or_is_ready_and_the_last_errors_are_kept(
    mongo: Mongo, queue: NotificationQueue
) -> None:
    await queue.add([item("a")])
    for number in range(60):
        [claim] = await queue.claim(1, NOON)
        error = {"message": f"failure {number}", "timestamp": NOON}
        assert await queue.release(claim, {"status": "pending", "nextRetryAt": None}, [error])
    errors = (await stored(mongo, "a"))["errors"]
    assert [error["message"] for error in errors] == [f"failure {number}" for number in range(10, 60)]
    [claim] = await queue.claim(1, NOON)
    await queue.release(claim, {"status": "pending", "nextRetryAt": NOON + SECOND}, [])
    assert await queue.claim(1, NOON) == []


async def test_claiming_reads_no_more_than_what_is_ready(mongo: Mongo, queue: NotificationQueue) -> None:
    waiting = [item(f"waiting-{number}", priority=4, due=NOON + SECOND) for number in range(500)]
    await queue.add([*waiting, item("ready", priority=1)])
    plan = await mongo.database.command(
        "explain",
        {
            "find": "notificationQueue",
            "filter": {"status": "pending", "nextRetryAt": None},
            "sort": {"priority": -1, "createdAt": 1},
            "limit": 32,
        },
        verbosity="executionStats",
    )
    assert plan["executionStats"]["totalKeysExamined"] < 10
