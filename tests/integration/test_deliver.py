"""From the queue to the person, on real servers: what is sent, what is tried again, and what a crash leaves."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from psycopg import sql
from psycopg.types.json import Json
from pydantic import SecretStr

from agents.notifications.attempt import Attempts
from agents.notifications.deliver import DeliverNotification
from agents.notifications.dispatch import Dispatcher
from agents.notifications.eligibility import Eligibility, Limits
from agents.notifications.routing import Router
from delivery.retry import Retrier
from dev.providers.mailgun import MailgunServer
from dev.providers.sendgrid import SendGridServer
from dev.providers.server import EmailServer, Fault
from dev.stack import Platform
from notifications.message_builder import MessageBuilder
from notifications.preferences import Preferences, QuietHours
from notifications.rendering import Renderer
from notifications.states import Delivery, begin, plan
from notifications.unsubscribing import UnsubscribeLinks
from ops.bootstrap import MIGRATIONS
from providers import http
from providers.base import Provider
from providers.email.mailgun import Mailgun
from providers.email.sendgrid import SendGrid
from providers.push.file import PushFile
from providers.registry import Providers
from runtime.health import Health
from runtime.settings import Settings
from schemas.notifications import Device
from sinks.mongo.client import Mongo
from sinks.mongo.delivery_logs import DeliveryLogs
from sinks.mongo.notification_queue import LEASE, Claim
from sinks.mongo.schema_sync import sync_schema
from sinks.postgres.migrations import migrate, read
from sinks.postgres.pool import Pool, schema_of
from sinks.stores import Stores
from tests.integration.pipeline import until

PHONE, BROWSER = Device(token="phone-token", platform="android"), Device(token="browser-token", platform="web")
NOBODY_MINDS = Preferences()


def deliver_notification(stores: Stores, providers: Providers, links: UnsubscribeLinks) -> DeliverNotification:
    """Return what delivers an item: at most three notifications of a type and five in all a day."""
    mongo, postgres = Retrier(stores.mongo, Health()), Retrier(stores.suppressions, Health())
    message_builder = MessageBuilder(
        Renderer("The Blog", "https://blog.example"), links, "The Blog <news@blog.example>"
    )
    now, chance = stores.clock.now, random.Random(1)
    return DeliverNotification(
        stores.queue,
        stores.notifications,
        stores.recipients,
        Eligibility(stores.suppressions, stores.rate_limits, Limits(of_type=3, of_all=5), now, postgres),
        Router(providers, stores.rate_limits, now, chance),
        Attempts(message_builder, stores.delivery_logs, stores.suppressions, now, chance, mongo, postgres),
        now,
        mongo,
        postgres,
    )


def dispatcher(stores: Stores, deliver: Callable[[Claim], Awaitable[datetime | None]]) -> Dispatcher:
    return Dispatcher(
        stores.queue,
        stores.clock,
        stores.wake_ups,
        deliver,
        Retrier(stores.mongo, Health()),
        at_once=4,
        stop_timeout=timedelta(seconds=5),
    )


@dataclass
class Post:
    """All that delivers, with two providers of e-mail."""

    stores: Stores
    deliver: DeliverNotification
    pool: Pool
    first: EmailServer
    second: EmailServer
    pushed: Path
    view: str

    async def ask(
        self, *channels: str, user: str = "ada", name: str | None = None, gathered: bool = False, **fields: Any
    ) -> str:
        """Put a notification and its item where the agents put them."""
        name = name or uuid.uuid4().hex
        now = datetime.now(UTC)
        if not gathered:
            await self.notify(name, *channels, user=user)
        item = {
            "_id": name,
            "status": "pending",
            "priority": 2,
            "notificationId": name,
            "userId": user,
            "type": "comment_reply",
            "channels": list(channels),
            "attempts": 0,
            "maxAttempts": 3,
            "errors": [],
            "createdAt": now,
            "expiresAt": now + timedelta(days=90),
            "transactional": False,
            **fields,
        }
        await self._items.insert_one(item)
        return name

    async def notify(self, name: str, *channels: str, user: str = "ada") -> None:
        """Put a notification where the agents put it."""
        now = datetime.now(UTC)
        notification = {
            "_id": name,
            "userId": user,
            "type": "comment_reply",
            "title": "Grace answered your comment",
            "message": "“Indeed.”",
            "actionUrl": "/posts/types#c-1",
            "actionText": "Read the answer",
            "channels": {
                "inApp": {"enabled": True, "read": False},
                "email": {"enabled": "email" in channels, "sent": False},
                "push": {"enabled": "push" in channels, "sent": False},
            },
            "priority": "medium",
            "createdAt": now,
            "expiresAt": now + timedelta(days=90),
        }
        await self.stores.mongo.database["notifications"].insert_one(notification)

    async def knows(
        self, user: str, email: str, devices: Sequence[Device] = (), preferences: Any = NOBODY_MINDS
    ) -> None:
        """Let the platform know a user."""
        async with self.pool.transaction() as using:
            await using.execute(
                sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s)").format(sql.Identifier(self.view, self.view)),
                (
                    user,
                    email,
                    Json([device.model_dump() for device in devices]),
                    Json(
                        preferences.model_dump(mode="json", by_alias=True)
                        if isinstance(preferences, Preferences)
                        else preferences
                    ),
                ),
            )

    async def turn(self) -> int:
        """Do all that is ready; return how many items that were."""
        claims = await self.stores.queue.claim(100, datetime.now(UTC))
        await asyncio.gather(*map(self.deliver, claims))
        return len(claims)

    async def make_due(self, name: str) -> None:
        """Let the clock reach the next attempt."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        await self._items.update_one(
            {"_id": name},
            {"$set": {"deliveries.$[it].nextAttemptAt": past}, "$unset": {"nextRetryAt": ""}},
            array_filters=[{"it.state": "waiting"}],
        )

    async def expire(self, name: str) -> None:
        """Let the clock reach the end of its time."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        await self._items.update_one({"_id": name}, {"$set": {"expiresAt": past}})

    async def item(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] | None = await self._items.find_one({"_id": name})
        assert found is not None
        return found

    async def states(self, name: str) -> dict[str, str]:
        return {one.get("device", one["channel"]): one["state"] for one in (await self.item(name))["deliveries"]}

    async def logs(self, collection: str = "emailLogs") -> list[dict[str, Any]]:
        return await self.stores.mongo.database[collection].find().to_list()

    @property
    def _items(self) -> Any:
        return self.stores.mongo.database["notificationQueue"]


@pytest.fixture
async def post(platform: Platform, mongo: Mongo, tmp_path: Path) -> AsyncIterator[Post]:
    namespace = f"test-{uuid.uuid4().hex[:8]}."
    await migrate(platform.postgres.url, read(MIGRATIONS), namespace, check=False)
    view = schema_of(namespace)  # in the schema of this name, as we may create it in no other
    settings = Settings(
        namespace=namespace,
        mongo_url=SecretStr(platform.mongo.url.replace("/blog-platform", f"/{mongo.database.name}")),
        postgres_url=SecretStr(platform.postgres.url),
        redis_url=SecretStr(platform.redis.url),
        recipients_view=f"{view}.{view}",
    )
    stores = Stores(settings)
    await sync_schema(stores.mongo.database, check=False)
    pool = Pool(platform.postgres.url, namespace)
    async with pool.transaction() as using:
        await using.execute(
            sql.SQL("CREATE TABLE {} (user_id text, email text, devices jsonb, preferences jsonb)").format(
                sql.Identifier(view, view)
            )
        )
    pushed = tmp_path / "push.jsonl"
    async with SendGridServer("key") as first, MailgunServer("key", "mg.blog.example") as second:
        email: Sequence[Provider[Any]] = (
            SendGrid(http.client(), SecretStr("key"), first.url),
            Mailgun(http.client(), SecretStr("key"), "mg.blog.example", second.url),
        )
        providers = Providers(email, {"android": PushFile(pushed, "fcm"), "web": PushFile(pushed, "web-push")})
        links = UnsubscribeLinks("https://blog.example/unsubscribe", "secret")
        made = Post(stores, deliver_notification(stores, providers, links), pool, first, second, pushed, view)
        # An address that is suppressed stays so, in the database that all tests share.
        await made.knows("ada", f"ada.{view}@example.org", (PHONE, BROWSER))
        yield made
        await providers.close()
    await stores.close()
    async with pool.transaction() as using:
        await using.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(view)))
    await pool.close()


async def test_a_notification_arrives_on_every_channel_and_says_so(post: Post) -> None:
    name = await post.ask("inApp", "email", "push", deliveries=[IN_APP])
    assert await post.turn() == 1
    item = await post.item(name)
    assert (item["status"], item["attempts"], item["errors"]) == ("completed", 1, [])
    assert {one["state"] for one in item["deliveries"]} == {"sent", "delivered"}
    assert len(item["deliveries"]) == 4
    [mail] = post.first.accepted
    assert mail.subject == "Grace answered your comment"
    assert mail.metadata["notificationId"] == name
    assert mail.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    [log] = await post.logs()
    assert (log["_id"], log["status"], log["provider"], log["providerId"]) == (
        mail.key,
        "sent",
        "sendgrid",
        mail.provider_id,
    )
    assert [event["type"] for event in log["events"]] == ["queued", "sent"]
    assert {log["provider"] for log in await post.logs("pushNotificationLogs")} == {"fcm", "web-push"}
    notification = await post.stores.mongo.database["notifications"].find_one({"_id": name})
    assert notification is not None
    assert notification["channels"]["email"]["emailId"] == mail.key
    assert notification["channels"]["push"]["sent"]
    assert post.pushed.read_text().count("\n") == 2


async def test_what_fails_is_tried_again_and_the_other_channels_are_not(post: Post) -> None:
    post.first.plan = [Fault.FAIL]
    name = await post.ask("email", "push")
    await post.turn()
    item = await post.item(name)
    assert item["status"] == "pending"
    assert item["nextRetryAt"] > item["createdAt"]
    assert item["errors"][0]["message"].startswith("sendgrid: 500")
    assert await post.turn() == 0
    await post.make_due(name)
    await post.turn()
    assert (await post.item(name))["status"] == "completed"
    assert len(post.first.accepted) == 1
    assert post.pushed.read_text().count("\n") == 2
    [log] = await post.logs()
    assert log["status"] == "sent"
    assert "error" not in log


async def test_after_the_last_attempt_it_has_failed_with_every_error(post: Post) -> None:
    post.first.plan = [Fault.FAIL] * 3
    name = await post.ask("email")
    for _ in range(3):
        await post.turn()
        await post.make_due(name)
    item = await post.item(name)
    assert (item["status"], item["attempts"], len(item["errors"])) == ("failed", 3, 3)
    [log] = await post.logs()
    assert (log["status"], log["error"]["code"]) == ("failed", "500")


async def test_an_address_that_one_provider_calls_invalid_fails_and_is_not_suppressed(post: Post) -> None:
    post.first.plan = [Fault.REFUSE_RECIPIENT]
    name = await post.ask("email")
    await post.turn()
    assert await post.states(name) == {"email": "failed"}
    again = await post.ask("email")
    await post.turn()
    assert await post.states(again) == {"email": "sent"}


@pytest.mark.parametrize("email", [" {}", "\u00a0Ada <{}>", "mailto:{}", "{}.\u200b"])
async def test_an_address_is_sent_to_and_suppressed_in_one_form_however_it_is_written(post: Post, email: str) -> None:
    address = f"ada-{uuid.uuid4().hex}@example.org"
    written = await post.ask("email", recipient={"email": email.format(address)})
    await post.turn()
    assert await post.states(written) == {"email": "sent"}
    assert [accepted.to for accepted in post.first.accepted] == [address]
    [log] = await post.logs()
    assert log["to"] == address
    assert await post.stores.suppressions.reason("email", address) is None
    await post.stores.suppressions.add("email", email.format(address), "complained")
    again = await post.ask("email", recipient={"email": address})
    await post.turn()
    assert (await post.item(again))["deliveries"][0]["reason"] == "suppressed"


@pytest.mark.parametrize("email", ["not an address", "ada@example.org,eve@evil.example", "ada@exam ple.org"])
async def test_what_is_no_address_fails_as_that_and_suppresses_nothing(post: Post, email: str) -> None:
    name = await post.ask("email", recipient={"email": email})
    await post.turn()
    [delivery] = (await post.item(name))["deliveries"]
    assert (delivery["state"], delivery["error"]["code"]) == ("failed", "invalid-address")
    assert await post.stores.suppressions.reason("email", email) is None
    assert post.first.accepted == []


async def test_a_provider_that_refuses_us_is_left_alone_and_the_next_one_takes_it(post: Post) -> None:
    post.first.plan = [Fault.REJECT_US]
    name = await post.ask("email")
    await post.turn()
    item = await post.item(name)
    assert (item["status"], item["attempts"], item["deliveries"][0]["provider"]) == ("completed", 1, "mailgun")
    await post.ask("email")
    await post.turn()
    assert (len(post.first.accepted), len(post.second.accepted)) == (0, 2)
    [one, other] = post.second.accepted
    assert one.key != other.key


async def test_while_every_provider_refuses_us_nothing_is_burnt(post: Post) -> None:
    post.first.plan = post.second.plan = [Fault.REJECT_US] * 9
    name = await post.ask("email")
    await post.turn()
    item = await post.item(name)
    assert (item["status"], item["attempts"], item["deliveries"][0]["state"]) == ("pending", 0, "waiting")
    assert item["nextRetryAt"] > datetime.now(UTC) + timedelta(seconds=20)


async def test_a_provider_that_throttles_is_waited_for_as_it_says(post: Post) -> None:
    post.first.plan = [Fault.THROTTLE]
    post.first.retry_after = timedelta(minutes=10)
    name = await post.ask("email")
    await post.turn()
    item = await post.item(name)
    assert item["attempts"] == 0
    assert item["nextRetryAt"] > datetime.now(UTC) + timedelta(minutes=9)


async def test_quiet_hours_are_kept_unless_it_is_urgent(post: Post) -> None:
    now = datetime.now(UTC)
    quiet = QuietHours(
        start=f"{now - timedelta(minutes=5):%H:%M}", end=f"{now + timedelta(hours=2):%H:%M}", time_zone="UTC"
    )
    await post.knows("grace", "grace@example.org", preferences=Preferences(quiet_hours=quiet))
    name, urgent = await post.ask("email", user="grace"), await post.ask("email", user="grace", priority=4)
    await post.turn()
    assert await post.states(name) == {"email": "waiting"}
    assert (await post.item(name))["nextRetryAt"] > now + timedelta(hours=1)
    assert await post.states(urgent) == {"email": "sent"}


@pytest.mark.parametrize(
    "quiet_hours",
    [
        {"start": "00:00", "end": "24:00", "timeZone": "UTC"},
        {"start": "{before}", "end": "{after}", "timeZone": "utc"},
        {"start": "{before}", "end": "{after}", "timeZone": "UTC+0"},
        {"start": "{before}", "end": "{after}", "timeZone": "Mars/Olympus"},
        {"start": "{before}", "end": "{after}"},
    ],
)
async def test_quiet_hours_are_kept_as_they_can_be_meant_or_by_the_safest_reading(
    post: Post, quiet_hours: dict[str, str]
) -> None:
    now = datetime.now(UTC)
    times = {"before": f"{now - timedelta(minutes=5):%H:%M:%S}", "after": f"{now + timedelta(hours=2):%H.%M}"}
    stored = {name: value.format(**times) for name, value in quiet_hours.items()}
    await post.knows("grace", "grace@example.org", preferences={"quietHours": stored})
    name, urgent = await post.ask("email", user="grace"), await post.ask("email", user="grace", priority=4)
    await post.turn()
    assert await post.states(name) == {"email": "waiting"}
    assert now < (await post.item(name))["nextRetryAt"] <= now + timedelta(days=1, minutes=1)
    assert await post.states(urgent) == {"email": "sent"}


@pytest.mark.parametrize(
    "preferences",
    [
        {"channelsOff": ["Email"]},
        {"channels_off": "e-mail"},
        {"typesOff": ["Comment-Reply"]},
        {"channelsOff": 7},
        "off",
    ],
)
async def test_a_channel_that_may_be_turned_off_gets_nothing(post: Post, preferences: Any) -> None:
    await post.knows("grace", "grace@example.org", preferences=preferences)
    name, must_know = await post.ask("email", user="grace"), await post.ask("email", user="grace", transactional=True)
    await post.turn()
    assert (await post.item(name))["deliveries"][0]["reason"] == "preferences"
    assert await post.states(must_know) == {"email": "sent"}


async def test_who_has_had_enough_today_is_spared_but_for_what_they_must_know(post: Post) -> None:
    names = [await post.ask("email") for _ in range(4)]
    for _ in names:
        await post.turn()
    reasons = [(await post.item(name))["deliveries"][0].get("reason") for name in names]
    assert sorted(reasons, key=str) == [None, None, None, "throttled"]
    must_know = await post.ask("email", transactional=True)
    await post.turn()
    assert await post.states(must_know) == {"email": "sent"}


async def test_what_is_past_its_time_is_not_sent(post: Post) -> None:
    name = await post.ask("email", expiresAt=datetime.now(UTC) - timedelta(seconds=1))
    await post.turn()
    item = await post.item(name)
    assert (item["status"], item["deliveries"][0]["reason"]) == ("completed", "expired")


async def test_the_address_of_a_request_is_used_and_then_forgotten(post: Post) -> None:
    name = await post.ask("email", user="somebody-new", recipient={"email": "new@example.org"})
    await post.turn()
    [mail] = post.first.accepted
    assert mail.to == "new@example.org"
    assert "recipient" not in await post.item(name)


async def test_somebody_without_an_address_is_no_failure(post: Post) -> None:
    name = await post.ask("email", "push", user="unknown")
    await post.turn()
    item = await post.item(name)
    assert item["status"] == "completed"
    assert [one["reason"] for one in item["deliveries"]] == ["no-address", "no-address"]


async def test_an_item_whose_notification_is_not_there_yet_waits_for_it(post: Post) -> None:
    name = await post.ask("email", gathered=True)
    await post.turn()
    item = await post.item(name)
    assert item["status"] == "pending"
    assert item["nextRetryAt"] > datetime.now(UTC)
    assert "lease" not in item


async def test_however_old_its_event_is_an_item_waits_for_its_notification_no_longer_than_that_is_missing(
    post: Post,
) -> None:
    name = await post.ask("email", gathered=True, deliveries=[], createdAt=datetime.now(UTC) - timedelta(days=3))
    began = datetime.now(UTC)
    await post.turn()
    first = await post.item(name)
    assert first["nextRetryAt"] < datetime.now(UTC) + timedelta(seconds=2)
    assert began - timedelta(seconds=1) < first["missingSince"]
    await post.make_due(name)
    await post.turn()
    assert (await post.item(name))["missingSince"] == first["missingSince"]


async def test_an_item_whose_notification_comes_late_is_delivered(post: Post) -> None:
    name = await post.ask("email", gathered=True, deliveries=[], createdAt=datetime.now(UTC) - timedelta(days=3))
    await post.turn()
    await post.notify(name)
    await post.make_due(name)
    await post.turn()
    item = await post.item(name)
    assert (item["status"], "missingSince" in item) == ("completed", False)
    assert await post.states(name) == {"email": "sent"}


async def test_an_item_whose_notification_is_missing_for_a_day_is_cancelled(post: Post) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=1, seconds=1)
    name = await post.ask("email", gathered=True, missingSince=long_ago)
    await post.turn()
    assert (await post.item(name))["status"] == "completed"


async def test_a_worker_that_died_amid_an_attempt_is_made_up_for_with_the_same_key(post: Post) -> None:
    sending = begin(plan("email", datetime.now(UTC)), "sendgrid", datetime.now(UTC))
    name = await post.ask("email", deliveries=[sending.to_document()])
    await post.stores.queue.claim(1, datetime.now(UTC) - LEASE - timedelta(seconds=1))
    assert await post.turn() == 0
    await post.stores.queue.wake(datetime.now(UTC))
    assert await post.turn() == 1
    item = await post.item(name)
    assert (item["status"], item["attempts"]) == ("completed", 2)
    assert [mail.key for mail in post.first.accepted] == [sending.key(name)]


async def test_a_crash_during_the_last_attempt_leaves_a_failure_that_is_in_the_log(post: Post) -> None:
    sending = begin(plan("email", datetime.now(UTC)), "sendgrid", datetime.now(UTC))
    name = await post.ask("email", maxAttempts=1, deliveries=[sending.to_document()])
    await DeliveryLogs(post.stores.mongo.database).open("email", sending.key(name), LOG | {"notificationId": name})
    await post.turn()
    assert await post.states(name) == {"email": "failed"}
    [log] = await post.logs()
    assert (log["status"], log["error"]["code"]) == ("failed", "interrupted")
    assert post.first.accepted == []


async def test_a_log_that_a_dead_worker_did_not_write_is_made_up_for(post: Post) -> None:
    now = datetime.now(UTC)
    sent = Delivery(channel="email", state="sent", since=now, attempts=1, provider="sendgrid", provider_id="m-1")
    name = await post.ask("email", deliveries=[sent.to_document()])
    await DeliveryLogs(post.stores.mongo.database).open("email", sent.key(name), LOG | {"notificationId": name})
    await post.turn()
    [log] = await post.logs()
    assert (log["status"], log["providerId"]) == ("sent", "m-1")
    assert post.first.accepted == []
    notification = await post.stores.mongo.database["notifications"].find_one({"_id": name})
    assert notification is not None
    assert notification["channels"]["email"]["sent"]


async def test_a_provider_whose_answer_never_came_may_have_taken_it(post: Post) -> None:
    post.first.plan = [Fault.CLOSE_AFTER]
    name = await post.ask("email")
    await post.turn()
    await post.make_due(name)
    await post.turn()
    assert await post.states(name) == {"email": "sent"}
    assert len({mail.key for mail in post.first.accepted}) == 1
    assert len(post.first.accepted) == 2


async def test_what_expires_before_its_next_attempt_is_skipped_at_once_and_not_looked_at_for_ever(post: Post) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    waiting = plan("email", past, at=past + timedelta(hours=1))
    name = await post.ask("email", deliveries=[waiting.to_document()], expiresAt=past, nextRetryAt=past)
    await post.stores.queue.wake(datetime.now(UTC))
    assert [await post.turn() for _ in range(2)] == [1, 0]
    item = await post.item(name)
    assert (item["status"], item["deliveries"][0]["reason"]) == ("completed", "expired")


async def test_what_was_tried_and_then_skipped_has_a_log_that_says_so(post: Post) -> None:
    post.first.plan = [Fault.FAIL]
    name = await post.ask("email")
    await post.turn()
    await post.make_due(name)
    await post.expire(name)
    await post.turn()
    assert await post.states(name) == {"email": "skipped"}
    [log] = await post.logs()
    assert (log["status"], log["error"]["code"]) == ("failed", "expired")


async def test_a_receipt_before_a_crashed_workers_item_is_recovered_is_kept(post: Post) -> None:
    sending = begin(plan("email", datetime.now(UTC)), "sendgrid", datetime.now(UTC))
    name = await post.ask("email", deliveries=[sending.to_document()])
    [claim] = await post.stores.queue.claim(1, datetime.now(UTC))
    assert await post.stores.queue.confirm(name, sending.key(name), "delivered", datetime.now(UTC))
    await post.deliver(claim)
    item = await post.item(name)
    assert (item["status"], item["deliveries"][0]["state"]) == ("completed", "delivered")
    assert post.first.accepted == []


async def test_an_item_that_cannot_be_read_fails_and_stops_nobody(post: Post) -> None:
    broken = await post.ask("email", deliveries=[{"channel": "email", "state": "lost"}])
    name = await post.ask("email")
    await post.turn()
    assert (await post.item(broken))["status"] == "failed"
    assert await post.states(name) == {"email": "sent"}


async def test_a_message_that_trips_us_up_fails_alone(post: Post) -> None:
    broken = await post.ask("email")
    await post.stores.mongo.database["notifications"].update_one(
        {"_id": broken}, {"$unset": {"title": ""}}, bypass_document_validation=True
    )
    name = await post.ask("email")
    await post.turn()
    assert await post.states(name) == {"email": "sent"}
    assert (await post.item(broken))["status"] in ("pending", "failed")
    assert (await post.item(broken))["errors"]


async def test_the_worker_delivers_what_comes_until_it_is_stopped(post: Post) -> None:
    deliver = dispatcher(post.stores, post.deliver)
    await deliver.start()
    names = [
        await post.ask("email", user=f"user-{number}", recipient={"email": f"{number}@example.org"})
        for number in range(20)
    ]
    await post.stores.wake_ups.announce([datetime.now(UTC)], datetime.now(UTC))

    async def all_have_come() -> bool:
        return len(post.first.accepted) == len(names)

    await until(all_have_come, "20 mails")
    await deliver.stop()
    assert {mail.to for mail in post.first.accepted} == {f"{number}@example.org" for number in range(20)}
    assert [await post.states(name) for name in names] == [{"email": "sent"}] * 20
    assert {(await post.item(name))["status"] for name in names} == {"completed"}


async def test_a_worker_whose_clock_is_an_hour_ahead_takes_nothing_from_another_and_keeps_nothing_for_hours(
    post: Post,
) -> None:
    held = await post.ask("email", recipient={"email": "held@example.org"})
    (claim_of_another,) = await post.stores.queue.claim(1, datetime.now(UTC))
    free = await post.ask("email", recipient={"email": "free@example.org"})
    leases = []

    async def note_lease(claim: Claim) -> datetime | None:
        leases.append(claim.item["lease"]["until"])
        return await post.deliver(claim)

    deliver = dispatcher(post.stores, note_lease)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        await deliver.start()

        async def the_free_one_is_sent() -> bool:
            return bool((await post.item(free))["status"] == "completed")

        await until(the_free_one_is_sent, "what nobody holds is sent")
        await deliver.stop()
    assert (await post.item(held))["lease"]["token"] == claim_of_another.token
    assert [lease - datetime.now(UTC) < 2 * LEASE for lease in leases] == [True]


IN_APP = {"channel": "inApp", "state": "delivered", "since": datetime(2026, 11, 23, tzinfo=UTC), "attempts": 0}
LOG = {
    "to": "ada@example.org",
    "from": "news@blog.example",
    "subject": "Hello",
    "provider": "sendgrid",
    "createdAt": datetime(2026, 11, 23, tzinfo=UTC),
}
