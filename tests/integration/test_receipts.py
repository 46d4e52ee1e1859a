"""Receipts, from a provider's request to all that they change, on real servers and real workers."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hmac import new
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dev.stack import Platform
from notifications.outcome import Sent
from notifications.retry_policy import POLICIES
from notifications.states import Delivery, begin, device_name, plan, settle
from notifications.unsubscribing import UnsubscribeLinks
from providers.webhooks.sendgrid import SIGNATURE_HEADER, TIMESTAMP_HEADER
from runtime.settings import DEVELOPMENT_UNSUBSCRIBE_KEY
from sinks.mongo.client import Mongo
from sinks.mongo.delivery_logs import DeliveryLogs
from tests.integration.pipeline import Message, Pipeline, Worker, headers_of, plain, until
from tests.unit.test_webhooks import certificate, of_ses

DATA = Path(__file__).parents[1] / "data/webhooks"
SENDGRID_EVENTS = {  # the first of each kind
    event["event"]: event for event in reversed(json.loads((DATA / "sendgrid.json").read_bytes()))
}
MAILGUN_EVENTS = json.loads((DATA / "mailgun.json").read_bytes())
TOPIC = "delivery-receipts"
KEY = ec.generate_private_key(ec.SECP256R1())
SHOWN_KEY = b64encode(KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
SIGNING_KEY = "key-of-mailgun"
SNS_TOPIC = "arn:aws:sns:us-east-2:123456789012:MyTopic"
UNSUBSCRIBE_URL = "https://blog.example/unsubscribe"
ADDRESS = "Ada@Example.org"
SETTINGS: dict[str, str] = {
    "sendgrid_verification_key": SHOWN_KEY,
    "mailgun_signing_key": SIGNING_KEY,
    "ses_topic": SNS_TOPIC,
    "unsubscribe_url": UNSUBSCRIBE_URL,
}


@pytest.fixture
async def receiving(platform: Platform) -> AsyncIterator[Pipeline]:
    """The topic of receipts alone, with a PostgreSQL database of its own."""
    its_own = Pipeline(platform, only=(TOPIC,))
    its_own.own_tables()
    await its_own.prepare()
    yield its_own
    await its_own.forget()


class SentMessage:
    """A notification whose message a provider has taken, as delivery leaves it."""

    def __init__(self, pipeline: Pipeline, name: str, delivery: Delivery, token: str | None = None) -> None:
        self.pipeline = pipeline
        self.name = name
        self.delivery = delivery
        self.token = token
        self.key = delivery.key(name)

    async def log(self) -> dict[str, Any]:
        return await self._document("emailLogs" if self.token is None else "pushNotificationLogs", self.key)

    async def item(self) -> dict[str, Any]:
        return await self._document("notificationQueue", self.name)

    async def notification(self) -> dict[str, Any]:
        return await self._document("notifications", self.name)

    async def _document(self, collection: str, name: str) -> dict[str, Any]:
        found = await self.pipeline.collection(collection).find_one({"_id": name})
        assert found is not None
        return found


async def sent(pipeline: Pipeline, name: str, token: str | None = None) -> SentMessage:
    """Leave in MongoDB what is there once a message is sent, and the notification is not marked yet."""
    now = datetime.now(UTC).replace(microsecond=0)
    channel, provider = ("email", "sendgrid") if token is None else ("push", "fcm")
    waiting = plan(channel, now, device=token and device_name(token))  # type: ignore[arg-type]
    policy = POLICIES[channel]  # type: ignore[index]
    delivery = settle(begin(waiting, provider, now), Sent(f"{name}-of-provider"), policy, now, Random(1))
    mongo = Mongo.connect(pipeline.environment["INKSTREAM_MONGO_URL"], pipeline.namespace)
    log = {"provider": provider, "notificationId": name, "userId": "ada", "createdAt": now}
    email = {"to": ADDRESS, "from": "The Blog <notifications@blog.example>", "subject": "Grace answered"}
    push = {"deviceToken": token, "platform": "android", "title": "Grace answered", "body": "Thank you"}
    logs = DeliveryLogs(mongo.database)
    await logs.open(delivery.channel, delivery.key(name), {**(email if token is None else push), **log})
    outcome = Sent(delivery.provider_id)
    await logs.settle(delivery.channel, delivery.key(name), outcome, is_final=True, now=now)
    await mongo.close()
    await pipeline.collection("notificationQueue").insert_one(
        {
            "_id": name,
            "status": "completed",
            "priority": 2,
            "notificationId": name,
            "userId": "ada",
            "type": "comment_reply",
            "channels": [channel],
            "attempts": 1,
            "maxAttempts": 5,
            "errors": [],
            "createdAt": now,
            "completedAt": now,
            "deliveries": [delivery.to_document()],
        }
    )
    await pipeline.collection("notifications").insert_one(
        {
            "_id": name,
            "userId": "ada",
            "type": "comment_reply",
            "title": "Grace answered",
            "message": "Thank you",
            "channels": {
                "inApp": {"enabled": True, "read": False},
                "email": {"enabled": channel == "email", "sent": False},
                "push": {"enabled": channel == "push", "sent": False},
            },
            "priority": "medium",
            "createdAt": now,
        }
    )
    return SentMessage(pipeline, name, delivery, token)


def of_sendgrid(*kinds: str, key: str, **changes: object) -> tuple[bytes, dict[str, str]]:
    events = [{**SENDGRID_EVENTS[kind], "key": key, "sg_event_id": f"{kind}-{key}", **changes} for kind in kinds]
    body, timestamp = json.dumps(events).encode(), str(int(datetime.now(UTC).timestamp()))
    signature = b64encode(KEY.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))).decode()
    return body, {SIGNATURE_HEADER: signature, TIMESTAMP_HEADER: timestamp}


def of_mailgun(name: str, key: str) -> bytes:
    event = {**MAILGUN_EVENTS[name], "user-variables": {"key": key}}
    timestamp, token = str(int(datetime.now(UTC).timestamp())), "a" * 50
    signature = new(SIGNING_KEY.encode(), (timestamp + token).encode(), "sha256").hexdigest()
    signed = {"timestamp": timestamp, "token": token, "signature": signature}
    return json.dumps({"signature": signed, "event-data": event}).encode()


async def post(worker: Worker, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
    return (await ask(worker, "POST", path, body, headers)).status_code


async def ask(
    worker: Worker, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        url = f"http://127.0.0.1:{worker.port}{path}"
        return await client.request(method, url, content=body, headers=dict(headers or {}))


def suppressions(pipeline: Pipeline) -> list[tuple[str, str, str]]:
    rows = pipeline.rows("SELECT channel, address, reason FROM inkstream.suppressions ORDER BY address")
    return [(channel, address, reason) for channel, address, reason in rows]


async def test_what_arrived_is_in_the_log_the_queue_and_the_notification(receiving: Pipeline) -> None:
    message = await sent(receiving, "n-1")
    with receiving.worker(**SETTINGS) as worker:
        await worker.until_ready()
        request = of_sendgrid("processed", "delivered", "open", "click", key=message.key)
        assert await post(worker, "/webhooks/sendgrid", *request) == 200
        await receiving.settled(TOPIC)
        once = [await message.log(), await message.item(), await message.notification()]
        assert await post(worker, "/webhooks/sendgrid", *request) == 200
        await receiving.settled(TOPIC)
        assert [await message.log(), await message.item(), await message.notification()] == once
        assert worker.metrics()['inkstream_receipts_total{kind="delivered",provider="sendgrid"}'] == 2
        assert worker.terminate() == 0
        assert "Traceback" not in worker.log.read_text()
    log, item, notification = once
    assert {event["type"] for event in log["events"] if "metadata" in event} == {"delivered", "opened", "clicked"}
    assert (log["status"], item["deliveries"][0]["state"], item["status"]) == ("delivered", "delivered", "completed")
    marks = notification["channels"]["email"]
    assert (marks["sent"], marks["emailId"], marks["sentAt"]) == (True, message.key, log["sentAt"])
    assert suppressions(receiving) == []
    assert await receiving.read(f"{TOPIC}.dead-letter") == []


@pytest.mark.parametrize("provider", ["sendgrid", "mailgun", "ses"])
async def test_a_bounce_fails_the_message_and_suppresses_its_address(
    receiving: Pipeline, provider: str, tmp_path: Path
) -> None:
    message = await sent(receiving, "n-2")
    pem = tmp_path / "sns.pem"
    pem.write_bytes(certificate())
    # Amazon SNS itself can't be reached from a test.
    at_amazon = (
        f"import web.webhooks, pathlib\nasync def fetch(_): return pathlib.Path({str(pem)!r}).read_bytes()\n"
        "web.webhooks.fetch = fetch"
    )
    with receiving.worker(at_amazon, **SETTINGS) as worker:
        await worker.until_ready()
        match provider:
            case "sendgrid":
                status = await post(worker, "/webhooks/sendgrid", *of_sendgrid("bounce", key=message.key))
            case "mailgun":
                status = await post(worker, "/webhooks/mailgun", of_mailgun("failed permanently", message.key))
            case _:
                body = of_ses("bounced for good", {"key": [message.key]})[0]
                status = await post(worker, "/webhooks/ses", body, {"Content-Type": "text/plain; charset=UTF-8"})
        assert status == 200
        await receiving.settled(TOPIC)
    log, item = await message.log(), await message.item()
    assert log["status"] == "bounced"
    assert (item["status"], item["deliveries"][0]["state"]) == ("failed", "failed")
    assert not (await message.notification())["channels"]["email"]["sent"]
    assert suppressions(receiving) == [("email", ADDRESS.lower(), "bounced")]
    assert "@" not in repr(log["events"]) + repr(log["error"])


async def test_a_person_who_complains_gets_no_more_messages(receiving: Pipeline) -> None:
    message = await sent(receiving, "n-3")
    with receiving.worker(**SETTINGS) as worker:
        await worker.until_ready()
        assert await post(worker, "/webhooks/mailgun", of_mailgun("complained", message.key)) == 200
        await receiving.settled(TOPIC)
    assert (await message.log())["status"] == "delivered"
    assert suppressions(receiving) == [("email", ADDRESS.lower(), "complained")]


async def test_a_link_unsubscribes_when_its_button_is_pressed_and_not_before(receiving: Pipeline) -> None:
    message = await sent(receiving, "n-4")
    path = UnsubscribeLinks(UNSUBSCRIBE_URL, DEVELOPMENT_UNSUBSCRIBE_KEY).url(message.key)
    path = path.removeprefix("https://blog.example")
    with receiving.worker(**SETTINGS) as worker:
        await worker.until_ready()
        for method in ("GET", "HEAD"):
            shown = await ask(worker, method, path)
            assert shown.status_code == 200
            assert shown.headers["content-type"] == "text/html; charset=utf-8"
            assert shown.headers["referrer-policy"] == "no-referrer"
        assert await post(worker, "/unsubscribe?token=forged", b"") == 404
        assert await post(worker, "/unsubscribe", b"") == 404
        assert await receiving.read(TOPIC) == []
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for _ in range(2):
            assert await post(worker, path, b"List-Unsubscribe=One-Click", form) == 200
        await receiving.settled(TOPIC)
    assert suppressions(receiving) == [("email", ADDRESS.lower(), "unsubscribed")]
    assert (await message.log())["status"] == "sent"


async def test_a_receipt_of_somebody_elses_mail_changes_nothing_and_is_counted(receiving: Pipeline) -> None:
    message = await sent(receiving, "n-5")
    before = [await message.log(), await message.item(), await message.notification()]
    with receiving.worker(**SETTINGS) as worker:
        await worker.until_ready()
        request = of_sendgrid("bounce", "spamreport", key="0" * 32, sg_message_id="another.one")
        assert await post(worker, "/webhooks/sendgrid", *request) == 200
        await receiving.settled(TOPIC)
        assert worker.metrics()['inkstream_receipts_not_ours_total{provider="sendgrid"}'] == 2
    assert [await message.log(), await message.item(), await message.notification()] == before
    assert suppressions(receiving) == []


async def test_a_service_reports_a_push_message_by_writing_to_the_topic(receiving: Pipeline) -> None:
    message = await sent(receiving, "n-6", token="a device")
    report = {
        "channel": "push",
        "provider": "fcm",
        "providerId": "n-6-of-provider",
        "kind": "token_gone",
        "recipient": "a device",
        "code": "UNREGISTERED",
        "timestamp": "2026-01-31T12:00:01Z",
    }
    await receiving.send(TOPIC, [plain(eventId="r-1", **report), plain(eventId="r-2", **{**report, "kind": "lost"})])
    with receiving.worker():
        await receiving.settled(TOPIC)
    assert (await message.log())["status"] == "failed"
    assert (await message.item())["status"] == "failed"
    assert suppressions(receiving) == [("push", "a device", "gone")]
    [letter] = await receiving.read(f"{TOPIC}.dead-letter")
    assert headers_of(letter)["dl_reason"] == "schema"


async def test_a_receipt_too_large_for_its_log_is_a_dead_letter_and_the_rest_goes_on(receiving: Pipeline) -> None:
    message = await sent(receiving, "n-7")
    report = {"channel": "email", "provider": "smtp", "providerId": "x", "key": message.key, "kind": "deferred"}
    # Others may add fields to a log, and this one has hardly any room left.
    room = {"theirs": "x" * (16 * 2**20 - 100_000)}
    await receiving.collection("emailLogs").update_one({"_id": message.key}, {"$set": room})
    large = [
        plain(
            eventId=f"large-{second}", **report, message="\N{SNOWMAN}" * 65_536, timestamp=f"2026-01-31T12:00:{second}Z"
        )
        for second in range(10, 13)
    ]
    last = plain(eventId="last", **{**report, "kind": "delivered"}, timestamp="2026-01-31T12:01:00Z")
    await receiving.send(TOPIC, [Message(value, headers, b"x") for value, headers, _ in [*large, last]])
    with receiving.worker(dead_letter_limit=1):
        await receiving.settled(TOPIC)
    assert (await message.log())["status"] == "delivered"
    letters = await receiving.read(f"{TOPIC}.dead-letter")
    assert {headers_of(letter)["dl_reason"] for letter in letters} == {"too-large"}


async def test_a_page_answers_by_what_is_wrong_and_is_not_there_without_its_key(receiving: Pipeline) -> None:
    body, headers = of_sendgrid("delivered", key="0" * 32)
    with receiving.worker(**{**SETTINGS, "mailgun_signing_key": "", "unsubscribe_url": ""}) as worker:
        await worker.until_ready()
        assert await post(worker, "/webhooks/sendgrid", body[:-1] + b" ]", headers) == 403
        assert await post(worker, "/webhooks/sendgrid", body) == 403
        assert await post(worker, "/webhooks/ses", b"{}") == 403
        assert await post(worker, "/webhooks/sendgrid", b" " * (2**20 + 1), headers) == 413
        assert (await ask(worker, "GET", "/webhooks/sendgrid")).status_code == 405
        assert await post(worker, "/webhooks/mailgun", b"{}") == 404
        assert await post(worker, "/unsubscribe", b"") == 404
        assert await receiving.read(TOPIC) == []
        assert worker.metrics()['inkstream_webhooks_total{provider="sendgrid",status="403"}'] == 2
        assert not re.search("Traceback|@", worker.log.read_text())


async def test_while_kafka_is_away_a_provider_is_asked_to_try_again_and_then_nothing_is_missing(
    receiving: Pipeline,
) -> None:
    message, kafka = await sent(receiving, "n-8"), receiving.platform.kafka
    path = UnsubscribeLinks(UNSUBSCRIBE_URL, DEVELOPMENT_UNSUBSCRIBE_KEY).url(message.key)
    path = path.removeprefix("https://blog.example")
    with receiving.worker(**SETTINGS) as worker:
        await worker.until_ready()
        await asyncio.to_thread(kafka.kill)
        try:
            request = of_sendgrid("delivered", key=message.key)
            assert await post(worker, "/webhooks/sendgrid", *request) == 503
            assert await post(worker, path, b"") == 503
            assert worker.page("/healthz")[0] == 200
        finally:
            await asyncio.to_thread(kafka.start)

        async def taken() -> bool:
            return await post(worker, "/webhooks/sendgrid", *request) == 200

        await until(taken, "Kafka takes receipts again")
        await receiving.settled(TOPIC)
        assert worker.terminate() == 0
    assert (await message.log())["status"] == "delivered"


async def test_workers_killed_among_receipts_lose_none_of_them(receiving: Pipeline) -> None:
    messages = [await sent(receiving, f"n-{number}") for number in range(100, 140)]
    kinds: Sequence[str] = ("delivered", "opened", "clicked")
    reports = [
        Message(
            json.dumps(
                {
                    "eventId": f"{kind}-{number}-{message.key}",
                    "channel": "email",
                    "provider": "sendgrid",
                    "providerId": message.name,
                    "key": message.key,
                    "kind": kind,
                    "timestamp": (datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(seconds=number)).isoformat(),
                }
            ).encode(),
            key=message.name.encode(),
        )
        for number in range(5)
        for kind in kinds
        for message in messages
    ]
    await receiving.send(TOPIC, reports)

    async def events() -> int:
        counted = await receiving.collection("emailLogs").aggregate(
            [{"$project": {"reported": {"$size": "$events"}}}, {"$group": {"_id": None, "all": {"$sum": "$reported"}}}]
        )
        [row] = await counted.to_list()
        return int(row["all"])

    before = await events()
    for share in (0.2, 0.6):
        with receiving.worker(batch_records=50) as first, receiving.worker(batch_records=50) as second:

            async def under_way(share: float = share) -> bool:
                return await events() - before > share * len(reports)

            await until(under_way, "receipts are taken in")
            first.kill()
            second.kill()
    with receiving.worker():
        await receiving.settled(TOPIC)
    assert await events() - before == len(reports)
    for message in messages:
        assert (await message.log())["status"] == "delivered"
        assert (await message.item())["deliveries"][0]["state"] == "delivered"
        assert (await message.notification())["channels"]["email"]["sent"]
