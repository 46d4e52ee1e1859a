"""`inkstream notifications` and `inkstream suppressions` on real servers, as operators use them."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dev.stack import Platform
from notifications.item import Item
from notifications.notice import Notice
from notifications.states import Delivery
from sinks.mongo.client import Mongo
from sinks.mongo.notification_admin import NotificationAdmin, Selection
from sinks.mongo.notification_queue import LEASE, NotificationQueue
from sinks.redis.connection import connect
from tests.command_line import Ended, inkstream
from tests.integration.pipeline import Pipeline
from tests.notification_documents import ADDRESS, DEVICE, TOKEN, email_log, entry, notice, push_log, shown

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=number) for number in (1, 60, 3_600, 86_400))
NOW = datetime.now(UTC).replace(microsecond=0)
AGO = NOW - HOUR


@pytest.fixture
async def asked(platform: Platform) -> AsyncIterator[Pipeline]:
    """The topic of requests alone, with tables of its own in which `grace` can be reached."""
    its_own = Pipeline(platform, only=("notifications",))
    its_own.own_tables()
    await its_own.prepare()
    its_own.rows("INSERT INTO users (id, email, \"passwordHash\") VALUES ('grace', %s, '')", ADDRESS)
    yield its_own
    await its_own.forget()


async def run(pipeline: Pipeline, *arguments: str) -> Ended:
    ended = await inkstream(pipeline.environment, *arguments)
    assert "Traceback" not in ended.errors
    return ended


async def answer(pipeline: Pipeline, *arguments: str, code: int = 0) -> Any:
    ended = await run(pipeline, *arguments, "--json")
    assert ended.code == code, ended
    return json.loads(ended.output)


async def put(pipeline: Pipeline, of: Notice, *deliveries: Delivery, **fields: Any) -> None:
    """Write a notification and its item as a worker leaves them."""
    await pipeline.collection("notificationQueue").insert_one(entry(of, deliveries, **fields))
    await pipeline.collection("notifications").insert_one(shown(of))


async def item(pipeline: Pipeline, name: str) -> dict[str, Any]:
    found = await pipeline.collection("notificationQueue").find_one({"_id": name})
    assert found is not None
    return found


def failed(channel: Any = "email", *, since: datetime = AGO, **fields: Any) -> Delivery:
    known = {"provider": "smtp", "attempts": 5, "code": "421", "message": "too busy", **fields}
    return Delivery(channel=channel, state="failed", since=since, **known)


def sent(since: datetime = AGO) -> Delivery:
    return Delivery(
        channel="push", device=DEVICE, state="sent", since=since, attempts=1, provider="fcm", provider_id="fcm/1"
    )


async def bounced(pipeline: Pipeline) -> Notice:
    """A mail that bounced, as all that deliver leave it."""
    one = notice("bounced-1", AGO)
    report = {"provider": "sendgrid", "permanent": True, "code": "5.1.1", "message": "550 5.1.1 no such user"}
    await put(pipeline, one, failed(provider="sendgrid", attempts=1, code="bounced", message="it came back"), sent())
    await pipeline.collection("emailLogs").insert_one(
        email_log(
            one,
            "bounced",
            ("sent", AGO + SECOND, {}),
            ("bounced", AGO + 2 * SECOND, report),
            providerId="14c5d75ce93",
            sentAt=AGO + SECOND,
            error={"code": "5.1.1", "message": "550 5.1.1 no such user"},
        )
    )
    await pipeline.collection("pushNotificationLogs").insert_one(
        push_log(one, "sent", providerId="fcm/1", sentAt=AGO + SECOND)
    )
    ended = await run(pipeline, "suppressions", "add", "email", ADDRESS, "--reason", "bounced")
    assert ended.output == "Suppressed.\n"
    return one


async def test_a_bounced_mail_is_explained_and_can_be_retried(asked: Pipeline) -> None:
    await bounced(asked)
    ended = await run(asked, "notifications", "show", "bounced-1")
    assert ended.code == 0, ended
    lines = ended.output.splitlines()
    assert lines[0] == (
        "Failed: the e-mail was accepted by sendgrid and bounced: 5.1.1: 550 5.1.1 no such user, and its address is "
        "suppressed: it bounced permanently; the push message was accepted by fcm, with no receipt yet."
    )
    assert lines[1] == (
        "→ If the address works again: `inkstream suppressions remove email …`, "
        "then `inkstream notifications retry bounced-1`."
    )
    assert "g…@example.org (suppressed: it bounced permanently)" in ended.output
    assert ADDRESS not in ended.output
    assert TOKEN not in ended.output
    full = await run(asked, "notifications", "show", "bounced-1", "--full")
    assert f"`inkstream suppressions remove email {ADDRESS}`" in full.output
    assert TOKEN in full.output

    assert (await run(asked, "suppressions", "remove", "email", ADDRESS.upper())).code == 0
    ended = await run(asked, "notifications", "retry", "bounced-1")
    assert (ended.code, ended.output) == (0, "bounced-1: will be retried.\n")
    after = Item.from_document(await item(asked, "bounced-1"))
    [_, email, push] = after.deliveries
    assert (email.state, email.attempts, push.state) == ("waiting", 0, "sent")
    queue = NotificationQueue(asked.database, "test", random.Random(1))
    [claim] = await queue.claim(10, datetime.now(UTC))
    assert claim.id == "bounced-1"
    assert "completedAt" not in claim.item
    # What is held is left alone, and says by whom.
    ended = await run(asked, "notifications", "cancel", "bounced-1")
    assert ended.code == 1
    assert ended.output.startswith("bounced-1: unchanged: worker test is processing it, until ")
    told = await answer(asked, "notifications", "show", "bounced-1")
    assert told["standing"].startswith("In progress: worker test has it until")


@pytest.mark.parametrize("of", ["email", "push"])
async def test_a_notification_is_found_by_its_log_and_by_the_providers_id(asked: Pipeline, of: Any) -> None:
    one = await bounced(asked)
    log = await asked.collection({"email": "emailLogs", "push": "pushNotificationLogs"}[of]).find_one()
    assert log is not None
    for name in (log["_id"], log["providerId"]):
        assert (await answer(asked, "notifications", "show", name))["id"] == one.id


async def test_after_the_queue_deleted_it_the_remaining_facts_are_shown(asked: Pipeline) -> None:
    await bounced(asked)
    await asked.collection("notificationQueue").delete_many({})
    await asked.collection("notifications").delete_many({})
    log = await asked.collection("emailLogs").find_one()
    assert log is not None
    told = await answer(asked, "notifications", "show", log["_id"])
    assert told["id"] == "bounced-1"
    assert "the e-mail was accepted by sendgrid and bounced" in told["standing"]
    assert "the push message was accepted by fcm" in told["standing"]
    await asked.collection("emailLogs").update_one({}, {"$unset": {"notificationId": "", "userId": ""}})
    assert (await answer(asked, "notifications", "show", log["_id"]))["id"] == log["_id"]


async def test_an_unknown_id_suggests_where_else_to_look(asked: Pipeline) -> None:
    ended = await run(asked, "notifications", "show", "n-unknown")
    assert (ended.code, ended.output) == (1, "")
    assert ended.errors.startswith("No notification found with id n-unknown.\n")
    assert "`inkstream dead-letters list --topic notifications`" in ended.errors


async def test_the_preferences_of_today_are_part_of_the_answer(asked: Pipeline) -> None:
    off = {"channelsOff": ["email"], "quietHours": {"start": "22:00", "end": "07:00", "timeZone": "Europe/Berlin"}}
    asked.rows("INSERT INTO notification_preferences VALUES ('grace', %s)", json.dumps(off))
    left_out = Delivery(channel="email", state="skipped", since=AGO, reason="preferences")
    await put(asked, notice("n-1", AGO, recipient=None), left_out)
    told = await answer(asked, "notifications", "show", "n-1")
    assert told["standing"] == "The e-mail was not sent: the person has turned it off."
    assert told["facts"]["preferences today"] == "no e-mail; quiet from 22:00 to 07:00, Europe/Berlin"
    assert told["facts"]["e-mail address"] == "g…@example.org"


async def test_without_postgresql_and_redis_the_timeline_says_what_is_missing(asked: Pipeline) -> None:
    await put(asked, notice("n-1", AGO), failed())
    nowhere = {"INKSTREAM_POSTGRES_URL": "postgresql://127.0.0.1:1/x", "INKSTREAM_REDIS_URL": "redis://127.0.0.1:1/0"}
    ended = await inkstream({**asked.environment, **nowhere}, "notifications", "show", "n-1")
    assert ended.code == 0, ended
    assert ended.output.startswith("Failed: the e-mail failed after 5 attempts; last error from smtp: 421: too busy.\n")
    assert "not known" in ended.output
    assert (
        "which addresses are suppressed: PostgreSQL does not answer at 127.0.0.1:1: connection refused." in ended.output
    )
    assert ended.errors == ""


@pytest.mark.parametrize(
    ("variable", "value", "server", "arguments"),
    [
        ("INKSTREAM_MONGO_URL", "mongodb://127.0.0.1:1/x?replicaSet=rs0", "MongoDB ", ("notifications", "failed")),
        ("INKSTREAM_POSTGRES_URL", "postgresql://127.0.0.1:1/x", "PostgreSQL ", ("suppressions", "list")),
    ],
)
async def test_a_server_that_does_not_answer_is_named(
    platform: Platform, variable: str, value: str, server: str, arguments: tuple[str, ...]
) -> None:
    ended = await inkstream({**platform.environment(), variable: value}, *arguments)
    assert ended.code == 1
    assert ended.errors.startswith(server)
    assert ended.errors.endswith(f"Is it running? Check {variable}.\n")


async def put_failures(pipeline: Pipeline) -> None:
    """Three that smtp was too busy for, one device that has gone, one of yesterday, and an item nobody could read."""
    for number in range(3):
        await put(pipeline, notice(f"busy-{number}", AGO), failed(since=AGO + number * SECOND))
    gone = failed("push", device=DEVICE, provider="fcm", attempts=1, code="UNREGISTERED", message="gone")
    await put(pipeline, notice("gone", AGO, type="post_liked"), gone)
    await put(pipeline, notice("old", NOW - 3 * DAY), failed(since=NOW - 2 * DAY))
    broken = [{"message": "the item can't be read: KeyError", "timestamp": AGO}]
    await put(pipeline, notice("broken", AGO), status="failed", errors=broken, processedAt=AGO - SECOND)
    await put(pipeline, notice("well", AGO), sent())


async def test_failures_are_counted_by_reason_and_listed_newest_first(asked: Pipeline) -> None:
    await put_failures(asked)
    found = await answer(asked, "notifications", "failed", "--limit", "4")
    assert [(one["reason"], one["channel"], one["provider"], one["failures"]) for one in found["counts"]] == [
        ("421", "email", "smtp", 3),
        ("UNREGISTERED", "push", "fcm", 1),
        ("unreadable", None, None, 1),
    ]
    assert [one["id"] for one in found["failures"]] == ["busy-2", "busy-1", "busy-0", "gone"]
    assert found["failures"][0]["message"] == "too busy"
    ended = await run(asked, "notifications", "failed", "--limit", "4")
    lines = ended.output.splitlines()
    assert lines[0].split() == ["reason", "channel", "provider", "failed", "latest"]
    assert lines[1].split()[:4] == ["421", "email", "smtp", "3"]
    assert "and 1 more; use --limit to list more." in lines
    assert "421: too busy" in ended.output
    by_type = await answer(asked, "notifications", "failed", "--type", "post_liked", "--since", "2h")
    assert [one["id"] for one in by_type["failures"]] == ["gone"]
    by_reason = await answer(asked, "notifications", "failed", "--reason", "unreadable")
    assert [(one["id"], one["message"]) for one in by_reason["failures"]] == [
        ("broken", "the item can't be read: KeyError")
    ]
    all_of_them = await answer(asked, "notifications", "failed", "--since", "30d", "--limit", "0")
    assert sum(one["failures"] for one in all_of_them["counts"]) == 6
    assert all_of_them["failures"] == []
    assert (await run(asked, "notifications", "failed", "--type", "none")).output.startswith("No failures since")


async def test_all_failures_with_a_reason_are_retried_after_a_dry_run(asked: Pipeline) -> None:
    await put_failures(asked)
    trial = await run(asked, "notifications", "retry", "--failed", "--reason", "421", "--dry-run")
    assert trial.code == 0, trial
    assert trial.output.splitlines()[-1] == "3 of 3 would be retried."
    assert (await item(asked, "busy-0"))["status"] == "failed"
    async with woken(asked) as wakes:
        done = await run(asked, "notifications", "retry", "--failed", "--reason", "421")
        assert done.output.splitlines()[-1] == "3 of 3 will be retried."
        assert await wakes()
    after = await asked.documents("notificationQueue")
    assert {name for name, one in after.items() if one["status"] == "pending"} == {"busy-0", "busy-1", "busy-2"}
    ready = await NotificationQueue(asked.database, "test", random.Random(1)).claim(10, datetime.now(UTC))
    assert {claim.id for claim in ready} == {"busy-0", "busy-1", "busy-2"}
    # Of the rest, one device and the item that nobody could read; what is older than a day is not among them.
    rest = await answer(asked, "notifications", "retry", "--failed")
    assert {one["id"]: one["verdict"] for one in rest} == {"gone": "changed", "broken": "changed"}
    assert (await item(asked, "broken"))["status"] == "pending"


@asynccontextmanager
async def woken(pipeline: Pipeline) -> AsyncIterator[Any]:
    """Listen as a deliverer does; what comes out says whether it was woken up."""
    client = connect(pipeline.environment["INKSTREAM_REDIS_URL"], 2.0)
    listening = client.pubsub()
    await listening.subscribe(f"{pipeline.namespace}inkstream:queue:wake")

    async def wakes() -> bool:
        for _ in range(20):
            message = await listening.get_message(ignore_subscribe_messages=True, timeout=0.5)
            if message is not None:
                return True
        return False

    yield wakes
    await listening.aclose()  # type: ignore[no-untyped-call]
    await client.aclose()


async def test_ids_that_can_not_be_retried_are_reported_with_the_reason(asked: Pipeline) -> None:
    await put(asked, notice("well", AGO), sent())
    past = notice("past", AGO, expires_at=NOW - MINUTE)
    await put(asked, past, failed())
    lease = {"worker": "gone", "token": "t", "until": AGO}
    await put(asked, notice("lost", AGO), status="processing", lease=lease)
    await put(asked, notice("unread", AGO), status="failed", deliveries=[{"channel": "email"}])
    begun = Delivery(channel="email", state="sending", since=AGO, attempts=1, provider="smtp")
    await put(asked, notice("begun", AGO), begun, status="pending")
    ended = await run(asked, "notifications", "retry", "well", "past", "lost", "unread", "begun", "nowhere", "well")
    assert ended.code == 1
    assert ended.output.splitlines() == [
        "well: no message of it has failed.",
        f"past: expired at {NOW - MINUTE:%Y-%m-%d %H:%M:%S}Z, and will not be sent.",
        "lost: its worker stopped while processing it; another worker takes over within seconds, try again then.",
        "unread: unreadable for this release; see its document in notificationQueue.",
        "begun: unchanged: a worker stopped during an attempt; another worker takes over within seconds.",
        "nowhere: not in the queue, which keeps finished items for 7 days.",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("notifications", "retry"),
        ("notifications", "retry", "n-1", "--failed"),
        ("notifications", "retry", "n-1", "--since", "1h"),
        ("notifications", "cancel"),
        ("notifications", "failed", "--since", "soon"),
        ("suppressions", "add", "letter", "x"),
        ("suppressions", "add", "email", "no-address"),
        ("suppressions", "add", "push", f"device:{DEVICE}"),
        ("suppressions", "remove", "email", f"device:{DEVICE}"),
    ],
)
async def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    ended = await inkstream({}, *arguments)
    assert ended.code == 2, ended
    assert "Traceback" not in ended.errors


async def test_a_waiting_notification_is_cancelled_before_and_after_its_first_attempt(asked: Pipeline) -> None:
    again = Delivery(
        channel="email",
        state="waiting",
        since=AGO,
        attempts=2,
        next_attempt_at=NOW + DAY,
        provider="smtp",
        code="421",
        message="too busy",
    )
    await put(asked, notice("begun", AGO), again, sent())
    await put(asked, notice("new", AGO))
    trial = await run(asked, "notifications", "cancel", "begun", "new", "--dry-run")
    assert trial.output.splitlines() == ["begun: would be cancelled.", "new: would be cancelled."]
    assert (await item(asked, "new"))["status"] == "pending"
    ended = await run(asked, "notifications", "cancel", "begun", "new")
    assert ended.code == 0, ended
    for name, states in (("begun", ["delivered", "skipped", "sent"]), ("new", ["delivered", "skipped", "skipped"])):
        found = await item(asked, name)
        assert found["status"] == "completed"
        assert [one["state"] for one in found["deliveries"]] == states
        assert found["completedAt"]
        assert not {"nextRetryAt", "recipient", "lease"} & found.keys()
    ended = await run(asked, "notifications", "cancel", "begun")
    assert (ended.code, ended.output) == (1, "begun: no message of it is waiting.\n")
    told = await answer(asked, "notifications", "show", "new")
    assert told["standing"] == (
        "The e-mail was not sent: it was cancelled, or the notification was deleted; "
        "the push message was not sent: it was cancelled, or the notification was deleted."
    )


async def test_of_many_concurrent_retries_one_takes_effect(mongo: Mongo) -> None:
    one = notice("n-1", AGO)
    await mongo.database["notificationQueue"].insert_one(entry(one, [failed()]))
    admin = NotificationAdmin(mongo.database)
    results = await asyncio.gather(*(admin.retry("n-1", NOW) for _ in range(20)))
    assert sorted(result.verdict for result in results).count("changed") == 1
    assert {result.verdict for result in results} <= {"changed", "nothing to do", "contended"}
    [stored] = await mongo.database["notificationQueue"].find().to_list()
    assert stored["revision"] == 3


async def test_commands_receipts_and_workers_never_undo_each_other(mongo: Mongo) -> None:
    """Each item is retried, confirmed by a receipt, claimed and let go at once; whoever wins, it stays consistent."""
    queue, admin = NotificationQueue(mongo.database, "w", random.Random(1)), NotificationAdmin(mongo.database)
    names = [f"n-{number}" for number in range(30)]
    mails = [notice(name, AGO, "inApp", "email") for name in names]
    await mongo.database["notificationQueue"].insert_many([entry(mail, [failed()]) for mail in mails])

    async def deliver() -> None:
        for _ in range(60):
            for claim in await queue.claim(5, NOW):
                held = await queue.leased(claim)
                while held is not None and not await queue.release(claim, held, NOW):
                    held = await queue.leased(claim)
            await asyncio.sleep(0.005)

    key = failed().key
    await asyncio.gather(
        deliver(),
        deliver(),
        *(admin.retry(name, NOW) for name in names),
        *(admin.cancel(name, NOW) for name in names),
        *(queue.confirm(name, key(name), "delivered", NOW) for name in names),
    )
    await queue.wake(NOW + LEASE)
    async for stored in mongo.database["notificationQueue"].find():
        [_, email] = Item.from_document(stored).deliveries
        expected = {"waiting": "pending", "failed": "failed", "delivered": "completed", "skipped": "completed"}
        assert stored["status"] == expected[email.state], stored
        assert ("completedAt" in stored) == (stored["status"] == "completed"), stored
        assert "lease" not in stored


async def test_failures_of_a_million_items_would_be_read_by_an_index(mongo: Mongo) -> None:
    await mongo.database["notificationQueue"].insert_many(
        [entry(notice(f"n-{at}", AGO), [failed()]) for at in range(5)]
    )
    admin = NotificationAdmin(mongo.database)
    assert len(await admin.failed(Selection(since=AGO - SECOND, type="comment_reply", reason="421"))) == 5
    plan = await mongo.database["notificationQueue"].find({"status": "failed", "type": "comment_reply"}).explain()
    assert "IXSCAN" in json.dumps(plan["queryPlanner"]["winningPlan"])


async def test_addresses_are_suppressed_listed_and_removed(asked: Pipeline) -> None:
    assert (await run(asked, "suppressions", "list")).output == "No suppressed addresses.\n"
    assert (await run(asked, "suppressions", "add", "email", ADDRESS)).code == 0
    again = await run(asked, "suppressions", "add", "email", ADDRESS.upper(), "--reason", "other")
    assert (again.code, again.output) == (0, "Already suppressed.\n")
    assert (await run(asked, "suppressions", "add", "push", TOKEN, "--reason", "gone")).code == 0
    listed = await answer(asked, "suppressions", "list")
    assert [(one["channel"], one["address"], one["reason"]) for one in listed] == [
        ("push", f"device:{DEVICE}", "gone"),
        ("email", "g…@example.org", "by hand"),
    ]
    shortened = await run(asked, "suppressions", "list", "--limit", "1")
    assert ADDRESS not in shortened.output
    assert shortened.output.splitlines()[-1] == "and more; use --limit to list more."
    full = await answer(asked, "suppressions", "list", "--full", "--channel", "email")
    assert [one["address"] for one in full] == [ADDRESS]
    # The name that lists and stories show is enough.
    assert (await run(asked, "suppressions", "remove", "push", f"device:{DEVICE}")).code == 0
    ended = await run(asked, "suppressions", "remove", "push", TOKEN)
    assert (ended.code, ended.output) == (1, "")
    assert ended.errors == "Not suppressed. List all: `inkstream suppressions list`.\n"
    assert (
        await run(asked, "suppressions", "remove", "email", ADDRESS)
    ).output == "Removed. Messages are sent to it again.\n"
    assert await answer(asked, "suppressions", "list") == []
