"""The logs of messages on a real MongoDB: attempts and receipts in any order, twice, and at the same time."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from notifications.outcome import Failed, Outcome, Refused, Sent
from notifications.receipts.receipt import Receipt
from schemas.notifications import Channel
from schemas.receipts import DeliveryReceived, Kind
from sinks.mongo.client import Mongo
from sinks.mongo.delivery_logs import DeliveryLogs

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
KEY = "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c"
COLLECTIONS: dict[Channel, str] = {"email": "emailLogs", "push": "pushNotificationLogs"}

EMAIL = {
    "to": "ada@example.org",
    "from": "The Blog <notifications@blog.example>",
    "subject": "Grace answered your comment",
    "provider": "smtp",
    "notificationId": "n",
    "userId": "ada",
    "createdAt": NOON,
}
PUSH = {
    "userId": "ada",
    "deviceToken": "a device",
    "platform": "android",
    "title": "Grace answered",
    "body": "Thank you",
    "provider": "fcm",
    "notificationId": "n",
    "createdAt": NOON,
}
FAILED = Failed("503", "come again", may_have_arrived=False)
REFUSED = Refused("550", "no such user", recipient_is_gone=True)


@pytest.fixture
def logs(mongo: Mongo) -> DeliveryLogs:
    return DeliveryLogs(mongo.database)


async def stored(mongo: Mongo, channel: Channel = "email", key: str = KEY) -> dict[str, Any]:
    found = await mongo.database[COLLECTIONS[channel]].find_one({"_id": key})
    assert found is not None
    return found


async def settle(
    logs: DeliveryLogs, outcome: Outcome, seconds: float = 1, *, channel: Channel = "email", is_final: bool = False
) -> None:
    await logs.settle(channel, KEY, outcome, is_final=is_final, now=NOON + seconds * SECOND)


def receipt(
    kind: Kind, seconds: float = 10, name: str = "one", *, channel: Channel = "email", **fields: Any
) -> Receipt:
    data = {
        "channel": channel,
        "provider": "smtp" if channel == "email" else "fcm",
        "providerId": "their-id",
        "key": KEY,
        "kind": kind,
        "timestamp": NOON + seconds * SECOND,
        **fields,
    }
    known = {field: value for field, value in data.items() if value is not None}
    return Receipt(f"{kind}-{name}", DeliveryReceived.model_validate(known))


def types(log: dict[str, Any]) -> list[str]:
    return [event["type"] for event in log["events"]]


async def test_a_log_begins_as_queued(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    await logs.open("push", KEY, PUSH)
    queued = [{"type": "queued", "timestamp": NOON}]
    assert await stored(mongo) == {"_id": KEY, **EMAIL, "status": "queued", "events": queued}
    assert await stored(mongo, "push") == {"_id": KEY, **PUSH, "status": "queued"}


async def test_another_attempt_says_who_is_given_it_and_nothing_else(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    await settle(logs, FAILED)
    before = await stored(mongo)
    await logs.open("email", KEY, {**EMAIL, "provider": "sendgrid", "subject": "other", "createdAt": NOON + SECOND})
    assert await stored(mongo) == {**before, "provider": "sendgrid"}


async def test_an_attempt_that_went_well_is_sent_and_has_no_error(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    await settle(logs, FAILED)
    failed = await stored(mongo)
    assert (failed["status"], failed["error"]) == ("queued", {"code": "503", "message": "come again"})
    for _ in range(2):  # the second is a repetition whose answer was lost
        await settle(logs, Sent("their-id"), 2)
    log = await stored(mongo)
    assert (log["status"], log["providerId"], log["sentAt"]) == ("sent", "their-id", NOON + 2 * SECOND)
    assert log["events"][1:] == [{"type": "sent", "timestamp": NOON + 2 * SECOND}]
    assert "error" not in log


@pytest.mark.parametrize("channel", COLLECTIONS)
async def test_the_last_attempt_fails_it_and_another_try_may_send_it(
    mongo: Mongo, logs: DeliveryLogs, channel: Channel
) -> None:
    await logs.open(channel, KEY, EMAIL if channel == "email" else PUSH)
    await settle(logs, REFUSED, channel=channel, is_final=True)
    log = await stored(mongo, channel)
    assert (log["status"], log["error"]["code"]) == ("failed", "550")
    await settle(logs, Sent(None), 2, channel=channel, is_final=True)
    log = await stored(mongo, channel)
    assert log["status"] == "sent"
    assert "error" not in log
    assert "providerId" not in log


@pytest.mark.parametrize("outcome", [Sent("their-id"), FAILED, REFUSED])
@pytest.mark.parametrize("kind", ["delivered", "bounced"])
@pytest.mark.parametrize("channel", COLLECTIONS)
async def test_what_a_receipt_said_holds_whenever_the_attempt_ends(
    mongo: Mongo, logs: DeliveryLogs, channel: Channel, kind: Kind, outcome: Outcome
) -> None:
    ends = []
    for is_receipt_first in (True, False):
        await logs.open(channel, KEY, EMAIL if channel == "email" else PUSH)
        steps = [
            logs.receive(receipt(kind, channel=channel, code="5.1.1")),
            settle(logs, outcome, channel=channel, is_final=True),
        ]
        for step in steps if is_receipt_first else reversed(steps):
            await step
        log = await stored(mongo, channel)
        log.pop("events", None)  # the order of events says what came first
        ends.append(log)
        await mongo.database[COLLECTIONS[channel]].delete_many({})
    expected = "delivered" if kind == "delivered" else "bounced" if channel == "email" else "failed"
    assert ends[0]["status"] == expected
    assert ends[0].get("error", {}).get("code") == (None if kind == "delivered" else "5.1.1")
    assert ends[0].get("providerId") == (outcome.provider_id if isinstance(outcome, Sent) else None)
    if isinstance(outcome, Sent):
        assert ends[0] == ends[1]
    else:
        assert ends[0] == {**ends[1], "sentAt": ends[0]["sentAt"]}


async def test_receipts_in_any_order_end_in_the_same_log(mongo: Mongo, logs: DeliveryLogs) -> None:
    receipts = [receipt("delivered", 10), receipt("opened", 60), receipt("bounced", 90), receipt("deferred", 5)]
    ends = []
    for order in permutations(receipts):
        await logs.open("email", KEY, EMAIL)
        for one in order:
            await logs.receive(one)
        ends.append(await stored(mongo))
        await mongo.database["emailLogs"].delete_many({})
    assert all(end == ends[0] for end in ends)
    assert types(ends[0]) == ["queued", "queued", "delivered", "opened", "bounced"]


async def test_nothing_is_lost_where_all_write_at_once(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    opened = [receipt("opened", number, str(number)) for number in range(30)]
    rest = [receipt("delivered", 1), receipt("clicked", 40), receipt("complained", 50)]
    agents = [DeliveryLogs(mongo.database) for _ in range(2)]
    # Each agent gets all of them: the same receipt twice at once.
    await asyncio.gather(
        *(agent.receive(one) for one in [*opened, *rest] for agent in agents),
        settle(logs, FAILED, 0.5),
        settle(logs, Sent("their-id"), 2, is_final=True),
    )
    log = await stored(mongo)
    reported = [event["metadata"]["eventId"] for event in log["events"] if "metadata" in event]
    assert sorted(reported) == sorted(one.id for one in [*opened, *rest])
    assert (log["status"], log["providerId"]) == ("delivered", "their-id")
    assert (log["sentAt"], log["deliveredAt"]) == (NOON, NOON)
    assert "error" not in log


async def test_a_receipt_gives_the_log_as_it_is_then(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    await settle(logs, FAILED)
    for _ in range(2):
        assert await logs.receive(receipt("delivered")) == await stored(mongo)


async def test_a_mail_is_found_by_what_its_provider_calls_it(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    await settle(logs, Sent("their-id"))
    found = await logs.receive(receipt("delivered", key=None))
    assert found is not None
    assert found["_id"] == KEY
    assert (await stored(mongo))["status"] == "delivered"
    assert await logs.receive(receipt("delivered", key=None, provider="mailgun")) is None
    assert await logs.receive(receipt("delivered", key=None, providerId="unknown")) is None


async def test_a_push_message_is_found_by_its_device_and_what_its_provider_calls_it(
    mongo: Mongo, logs: DeliveryLogs
) -> None:
    await logs.open("push", KEY, PUSH)
    await settle(logs, Sent("their-id"), channel="push")
    assert await logs.receive(receipt("token_gone", channel="push", key=None)) is None
    assert await logs.receive(receipt("token_gone", channel="push", key=None, recipient="another")) is None
    assert await logs.receive(receipt("token_gone", channel="push", key=None, recipient="a device"))
    log = await stored(mongo, "push")
    assert (log["status"], log["error"]["code"]) == ("failed", "bounced")


async def test_a_message_of_somebody_else_changes_nothing(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    before = await stored(mongo)
    assert await logs.receive(receipt("bounced", key="0" * 32)) is None
    assert await logs.receive(receipt("token_gone", channel="push")) is None
    assert await stored(mongo) == before
    assert await mongo.database["pushNotificationLogs"].count_documents({}) == 0


async def test_a_link_that_unsubscribes_finds_whose_it_is_and_changes_no_log(mongo: Mongo, logs: DeliveryLogs) -> None:
    await logs.open("email", KEY, EMAIL)
    found = await logs.receive(receipt("unsubscribed", providerId="unknown"))
    assert found == await stored(mongo)
    assert (found["to"], found["status"]) == ("ada@example.org", "queued")


@pytest.mark.parametrize(
    "changes",
    [
        {"events": "none"},
        {"events": [{"type": 5}]},
        {"status": "splendid"},
        {"sentAt": "yesterday"},
        {"deliveredAt": 5},
        {"error": "none"},
        {"error": {"eventId": 5}},
    ],
    ids=str,
)
@pytest.mark.parametrize("channel", ["email", "push"])
async def test_a_log_that_somebody_changed_takes_attempts_and_receipts(
    mongo: Mongo, logs: DeliveryLogs, changes: dict[str, Any], channel: Channel
) -> None:
    await logs.open(channel, KEY, EMAIL if channel == "email" else PUSH)
    update = {"q": {"_id": KEY}, "u": {"$set": changes}}
    await mongo.database.command("update", COLLECTIONS[channel], updates=[update], bypassDocumentValidation=True)
    await settle(logs, Sent("their-id"), channel=channel)
    for one in (receipt("delivered", channel=channel), receipt("delivered", channel=channel)):
        assert await logs.receive(one) is not None
    found = await stored(mongo, channel)
    assert found["status"] == "delivered"
    assert found["deliveredAt"] == NOON + 10 * SECOND
    if channel == "email":
        assert types(found)[-1] == "delivered"
