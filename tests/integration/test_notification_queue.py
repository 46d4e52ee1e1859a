"""The queue on a real MongoDB: who gets what, that nobody gets it twice, and that a late word is refused."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifications.item import Item, UnreadableItemError
from notifications.states import Delivery, begin, plan, postpone, skip
from sinks.mongo.client import Mongo
from sinks.mongo.notification_queue import LEASE, Backlog, Claim, NotificationQueue

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DELIVERY = plan("email", NOON)


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


async def add(mongo: Mongo, items: list[dict[str, Any]]) -> None:
    await mongo.database["notificationQueue"].insert_many(items)


def read(claim: Claim) -> Item:
    return Item.from_document(claim.item)


def names(claims: list[Claim]) -> list[str]:
    return [claim.id for claim in claims]


async def stored(mongo: Mongo, name: str) -> dict[str, Any]:
    found = await mongo.database["notificationQueue"].find_one({"_id": name})
    assert found is not None
    return found


async def test_the_most_urgent_goes_first_and_of_these_the_oldest(mongo: Mongo, queue: NotificationQueue) -> None:
    await add(
        mongo,
        [
            item("low", priority=1),
            item("late", priority=3, created=NOON + 2 * SECOND),
            item("early", priority=3, created=NOON + SECOND),
            item("urgent", priority=4, created=NOON + 3 * SECOND),
        ],
    )
    assert names(await queue.claim(7, NOON))[:3] == ["urgent", "early", "late"]


async def test_the_oldest_gets_its_turn_though_what_is_urgent_never_ends(
    mongo: Mongo, queue: NotificationQueue
) -> None:
    await add(mongo, [item("low", priority=1)])
    for turn in range(20):
        created = NOON + (turn + 1) * SECOND
        await add(mongo, [item(f"urgent-{turn}-{number}", priority=4, created=created) for number in range(8)])
        if "low" in names(await queue.claim(8, NOON)):
            return
    raise AssertionError("the oldest item was never claimed")


async def test_what_waits_is_not_claimed_until_it_is_due(mongo: Mongo, queue: NotificationQueue) -> None:
    await add(mongo, [item("a", due=NOON + 5 * SECOND)])
    assert await queue.wake(NOON + 4 * SECOND) == 0
    assert await queue.claim(1, NOON + 4 * SECOND) == []
    assert await queue.wake(NOON + 5 * SECOND) == 1
    assert names(await queue.claim(1, NOON + 5 * SECOND)) == ["a"]


async def test_many_workers_never_claim_the_same(mongo: Mongo) -> None:
    items = [item(f"item-{number}", created=NOON + number * SECOND) for number in range(400)]
    workers = [queue_of(mongo, seed) for seed in range(8)]
    await add(mongo, items)

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


async def test_a_worker_that_never_came_back_loses_its_item_and_its_late_write_is_refused(
    mongo: Mongo, queue: NotificationQueue
) -> None:
    await add(mongo, [item("a")])
    [late] = await queue.claim(1, NOON)
    assert await queue.wake(NOON + LEASE - SECOND) == 0
    assert await queue.wake(NOON + LEASE) == 1
    [ours] = await queue_of(mongo, 2).claim(1, NOON + LEASE)
    assert await queue.change(late, read(late), [DELIVERY], now=NOON) is None
    assert await queue.leased(late) is None
    planned = await queue.change(ours, read(ours), [skip(DELIVERY, "no-address", NOON)], now=NOON)
    assert planned is not None
    assert not await queue.release(late, planned, NOON)
    assert await queue.release(ours, planned, NOON)
    assert not await queue.release(ours, planned, NOON)
    found = await stored(mongo, "a")
    assert (found["status"], found["completedAt"]) == ("completed", NOON)
    assert "lease" not in found


async def test_a_write_after_the_lease_is_refused_before_another_worker_claims_the_item(
    mongo: Mongo, queue: NotificationQueue
) -> None:
    await add(mongo, [item("a")])
    [late] = await queue.claim(1, NOON)
    await queue.wake(NOON + LEASE)
    assert await queue.change(late, read(late), [DELIVERY], now=NOON) is None


async def test_a_change_upon_what_is_no_longer_so_is_refused(mongo: Mongo, queue: NotificationQueue) -> None:
    await add(mongo, [item("a")])
    [claim] = await queue.claim(1, NOON)
    before = read(claim)
    sending = begin(DELIVERY, "smtp", NOON)
    assert await queue.change(claim, before, [sending], now=NOON) is not None
    assert await queue.change(claim, before, [DELIVERY], now=NOON) is None
    held = await queue.leased(claim)
    assert held is not None
    assert held.deliveries == (sending,)


async def test_an_item_is_given_back_with_the_status_of_its_deliveries(mongo: Mongo, queue: NotificationQueue) -> None:
    ways = {
        "waits": postpone(DELIVERY, NOON + SECOND),
        "is-due": DELIVERY,
        "arrived": Delivery(channel="email", state="sent", since=NOON, provider="smtp", attempts=1),
        "failed": Delivery(channel="email", state="failed", since=NOON, code="550", message="no such user"),
    }
    await add(mongo, [{**item(name), "recipient": {"email": "ada@example.org"}} for name in ways])
    for claim in await queue.claim(4, NOON):
        planned = await queue.change(claim, read(claim), [ways[claim.id]], ["it went so"], now=NOON)
        assert planned is not None
        assert await queue.release(claim, planned, NOON)
    found = {name: await stored(mongo, name) for name in ways}
    assert {name: (one["status"], one.get("nextRetryAt")) for name, one in found.items()} == {
        "waits": ("pending", NOON + SECOND),
        "is-due": ("pending", None),
        "arrived": ("completed", None),
        "failed": ("failed", None),
    }
    assert {name for name, one in found.items() if "recipient" in one} == {"waits", "is-due", "failed"}
    assert {name for name, one in found.items() if "completedAt" in one} == {"arrived"}
    assert found["failed"]["errors"] == [{"message": "it went so", "timestamp": NOON}]


async def test_what_waits_is_looked_at_again_when_it_expires(mongo: Mongo, queue: NotificationQueue) -> None:
    await add(mongo, [{**item("a"), "expiresAt": NOON + SECOND}])
    [claim] = await queue.claim(1, NOON)
    planned = await queue.change(claim, read(claim), [postpone(DELIVERY, NOON + 60 * SECOND)], now=NOON)
    assert planned is not None
    await queue.release(claim, planned, NOON)
    assert (await stored(mongo, "a"))["nextRetryAt"] == NOON + SECOND


async def test_the_last_errors_are_kept(mongo: Mongo, queue: NotificationQueue) -> None:
    await add(mongo, [item("a")])
    [claim] = await queue.claim(1, NOON)
    changed: Item | None = read(claim)
    for number in range(60):
        assert changed is not None
        changed = await queue.change(claim, changed, [DELIVERY], [f"failure {number}"], now=NOON)
    errors = (await stored(mongo, "a"))["errors"]
    assert [error["message"] for error in errors] == [f"failure {number}" for number in range(10, 60)]


async def test_a_receipt_moves_a_delivery_and_the_status_of_its_item(mongo: Mongo, queue: NotificationQueue) -> None:
    sent = Delivery(channel="email", state="sent", since=NOON, provider="smtp", attempts=1)
    await add(mongo, [{**item("a"), "status": "completed", "completedAt": NOON, "deliveries": [sent.to_document()]}])
    assert not await queue.confirm("a", "another-key", "bounced", NOON)
    assert not await queue.confirm("b", sent.key("a"), "bounced", NOON)
    assert await queue.confirm("a", sent.key("a"), "bounced", NOON + SECOND)
    assert not await queue.confirm("a", sent.key("a"), "bounced", NOON + SECOND)
    found = await stored(mongo, "a")
    assert (found["status"], found["deliveries"][0]["state"], found["revision"]) == ("failed", "failed", 1)
    assert "completedAt" not in found


async def test_a_receipt_for_a_leased_item_leaves_its_status_to_its_worker(
    mongo: Mongo, queue: NotificationQueue
) -> None:
    await add(mongo, [item("a")])
    [claim] = await queue.claim(1, NOON)
    sending = await queue.change(claim, read(claim), [begin(DELIVERY, "smtp", NOON)], now=NOON)
    assert sending is not None
    assert await queue.confirm("a", DELIVERY.key("a"), "delivered", NOON + SECOND)
    assert (await stored(mongo, "a"))["status"] == "processing"
    assert not await queue.release(claim, sending, NOON + SECOND)
    held = await queue.leased(claim)
    assert held is not None
    assert held.deliveries[0].state == "delivered"
    assert await queue.release(claim, held, NOON + SECOND)
    assert (await stored(mongo, "a"))["status"] == "completed"


async def test_an_item_that_cannot_be_read_fails_alone(mongo: Mongo, queue: NotificationQueue) -> None:
    await add(mongo, [item("a")])
    [claim] = await queue.claim(1, NOON)
    await queue.give_up(claim, "the item can't be read", NOON)
    found = await stored(mongo, "a")
    assert (found["status"], found["errors"][0]["message"]) == ("failed", "the item can't be read")
    assert "lease" not in found


async def test_the_backlog_is_what_could_be_claimed(mongo: Mongo, queue: NotificationQueue) -> None:
    assert await queue.measure() == Backlog(0, None)
    await add(mongo, [item("a", created=NOON + SECOND), item("b", priority=1), item("c", due=NOON + SECOND)])
    assert await queue.measure() == Backlog(2, NOON)
    assert await queue.is_any_ready()
    await queue.claim(2, NOON)
    assert not await queue.is_any_ready()


async def test_claiming_reads_no_more_than_what_is_ready(mongo: Mongo, queue: NotificationQueue) -> None:
    waiting = [item(f"waiting-{number}", priority=4, due=NOON + SECOND) for number in range(500)]
    await add(mongo, [*waiting, item("ready", priority=1)])
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


@pytest.mark.parametrize("level", ["moderate", "strict"])
@pytest.mark.parametrize(
    "changes",
    [
        {"priority": "high"},
        {"createdAt": "today"},
        {"errors": "none"},
        {"revision": "first"},
        {"channels": "email"},
        {"deliveries": "none"},
        {"maxAttempts": None},
        {"expiresAt": "never"},
        {"lease": "mine"},
    ],
    ids=str,
)
async def test_an_item_that_somebody_changed_holds_up_no_other(
    mongo: Mongo, queue: NotificationQueue, changes: dict[str, Any], level: str
) -> None:
    if level == "strict" and not {"revision", "deliveries", "expiresAt", "lease"} & changes.keys():
        pytest.skip("a strict validator, as before an upgrade's bootstrap, lets nobody change it")
    await mongo.database.command("collMod", "notificationQueue", validationLevel=level)
    await add(mongo, [item("spoiled"), item("well"), item("waits", due=NOON + SECOND)])
    update = {"q": {"_id": "spoiled"}, "u": {"$set": changes}}
    await mongo.database.command("update", "notificationQueue", updates=[update], bypassDocumentValidation=True)
    assert await queue.wake(NOON + 2 * SECOND) == 1
    claims = {claim.id: claim for _ in range(4) for claim in await queue.claim(7, NOON + 2 * SECOND)}
    assert {"well", "waits"} <= claims.keys()
    assert (await queue.measure()).items == 3 - len(claims)
    if "spoiled" in claims and "lease" not in changes:
        with pytest.raises(UnreadableItemError):
            read(claims["spoiled"])
        await queue.give_up(claims["spoiled"], "the item can't be read", NOON)
        given_up = await stored(mongo, "spoiled")
        assert given_up["status"] == "failed"
        assert given_up["errors"][-1]["message"] == "the item can't be read"
    assert await queue.leased(claims["well"]) is not None
