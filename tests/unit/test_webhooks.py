"""What the pages for providers answer, without a server; `tests/integration/test_receipts.py` has the whole way."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from hmac import new
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from notifications.receipts.receipt import Receipt
from providers.webhooks.sendgrid import SIGNATURE_HEADER, TIMESTAMP_HEADER
from web.receipt_publisher import NotPublished
from web.webhooks import Mailgun, SendGrid, Ses, Source, Unreachable, Webhook, fetch

DATA = Path(__file__).parents[1] / "data/webhooks"
SENDGRID_BODY = (DATA / "sendgrid.json").read_bytes()
SENDGRID_KEY = ec.generate_private_key(ec.SECP256R1())
SHOWN_KEY = b64encode(SENDGRID_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
SIGNING_KEY = "key-of-mailgun"
TOPIC = "arn:aws:sns:us-east-2:123456789012:MyTopic"
SNS_KEY = rsa.generate_private_key(65537, 2048)
SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}


class Reported:
    """What would be in Kafka."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.receipts: list[Receipt] = []
        self._problem = problem

    async def __call__(self, receipts: Iterable[Receipt]) -> None:
        if self._problem:
            raise self._problem
        self.receipts += receipts


class Sns:
    """What would be at Amazon SNS."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.is_there = True

    async def __call__(self, url: str) -> bytes:
        self.fetched.append(url)
        if not self.is_there:
            raise Unreachable("Amazon SNS does not answer")
        return certificate() if url.endswith(".pem") else b"<ConfirmSubscriptionResponse/>"


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(SNS_KEY.public_key())
    now = datetime.now(UTC)
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(SNS_KEY, SHA256()).public_bytes(Encoding.PEM)


def of_sendgrid(body: bytes = SENDGRID_BODY) -> tuple[bytes, dict[str, str]]:
    timestamp = str(int(datetime.now(UTC).timestamp()))
    signature = b64encode(SENDGRID_KEY.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))).decode()
    return body, {SIGNATURE_HEADER: signature, TIMESTAMP_HEADER: timestamp}


def of_mailgun(event: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    timestamp, token = str(int(datetime.now(UTC).timestamp())), "a" * 50
    signature = new(SIGNING_KEY.encode(), (timestamp + token).encode(), "sha256").hexdigest()
    signed = {"timestamp": timestamp, "token": token, "signature": signature}
    return json.dumps({"signature": signed, "event-data": event}).encode(), {}


def of_sns(kind: str, **changes: Any) -> tuple[bytes, dict[str, str]]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    message = {
        **json.loads((DATA / "sns.json").read_bytes())[kind],
        "SignatureVersion": "2",
        "Timestamp": now,
        **changes,
    }
    text = "".join(f"{name}\n{message[name]}\n" for name in SIGNED[kind] if message.get(name) is not None)
    signature = b64encode(SNS_KEY.sign(text.encode(), PKCS1v15(), SHA256())).decode()
    return json.dumps({**message, "Signature": signature}).encode(), {}


def of_ses(name: str, tags: Mapping[str, Any] | None = None) -> tuple[bytes, dict[str, str]]:
    event = json.loads((DATA / "ses.json").read_bytes())[name]
    return of_sns("Notification", Message=json.dumps({**event, "mail": {**event["mail"], "tags": tags or {}}}))


MAILGUN_EVENTS = json.loads((DATA / "mailgun.json").read_bytes())
REQUESTS: dict[str, tuple[Source, tuple[bytes, dict[str, str]], int]] = {
    "sendgrid": (SendGrid(SHOWN_KEY), of_sendgrid(), 403),
    "mailgun": (Mailgun(SIGNING_KEY), of_mailgun(MAILGUN_EVENTS["delivered"]), 406),
    "aws-ses": (Ses(TOPIC, Sns()), of_ses("bounced for good"), 403),
}
every_provider = pytest.mark.parametrize(("source", "request_", "refusal"), REQUESTS.values(), ids=REQUESTS)


@every_provider
async def test_the_receipts_of_a_signed_request_are_kept(
    source: Source, request_: tuple[bytes, dict[str, str]], refusal: int
) -> None:
    reported = Reported()
    assert (await Webhook(source, reported).answer(*request_)).status == 200
    assert {receipt.data.provider for receipt in reported.receipts} == {source.provider}


@every_provider
async def test_a_request_that_is_not_the_providers_keeps_nothing(
    source: Source, request_: tuple[bytes, dict[str, str]], refusal: int
) -> None:
    reported, (body, headers) = Reported(), request_
    for forged in (body.replace(b'"token": "aa', b'"token": "ab').replace(b"example", b"exemple"), b"", b"{}", b"\xff"):
        assert (await Webhook(source, reported).answer(forged, headers)).status == refusal
    assert reported.receipts == []


@every_provider
async def test_while_kafka_is_away_a_provider_is_asked_to_try_again(
    source: Source, request_: tuple[bytes, dict[str, str]], refusal: int
) -> None:
    answer = await Webhook(source, Reported(NotPublished("TimeoutError"))).answer(*request_)
    assert answer == (503, "try again: TimeoutError")


async def test_the_good_receipts_of_a_request_that_is_partly_unreadable_are_kept() -> None:
    events = json.loads(SENDGRID_BODY)
    reported = Reported()
    answer = await Webhook(SendGrid(SHOWN_KEY), reported).answer(*of_sendgrid(json.dumps([1, *events]).encode()))
    assert answer.status == 400
    assert "event 0" in answer.text
    whole = Reported()
    await Webhook(SendGrid(SHOWN_KEY), whole).answer(*of_sendgrid())
    assert [receipt.id for receipt in reported.receipts] == [receipt.id for receipt in whole.receipts]


async def test_a_signed_request_that_is_no_event_is_refused() -> None:
    assert (await Webhook(Mailgun(SIGNING_KEY), Reported()).answer(*of_mailgun({}))).status == 400


async def test_what_says_nothing_of_a_messages_fate_is_taken_and_forgotten() -> None:
    reported = Reported()
    answer = await Webhook(Mailgun(SIGNING_KEY), reported).answer(*of_mailgun(MAILGUN_EVENTS["accepted"]))
    assert answer.status == 200
    assert reported.receipts == []


@pytest.mark.parametrize("shape", [None, "text", 7, [], {}])
async def test_a_bounce_whose_status_has_any_shape_is_answered_with_200_and_kept(shape: object) -> None:
    reported = Reported()
    event = {**MAILGUN_EVENTS["failed permanently"], "delivery-status": shape}
    assert (await Webhook(Mailgun(SIGNING_KEY), reported).answer(*of_mailgun(event))).status == 200
    assert [receipt.data.kind for receipt in reported.receipts] == ["bounced"]


async def test_a_delivery_of_a_message_that_nothing_names_is_answered_with_200() -> None:
    nothing = {"client-info": None, "message": None, "user-variables": None, "delivery-status": None}
    event = {**MAILGUN_EVENTS["delivered"], **nothing}
    assert (await Webhook(Mailgun(SIGNING_KEY), Reported()).answer(*of_mailgun(event))).status == 200


async def test_a_certificate_is_fetched_once() -> None:
    sns = Sns()
    webhook = Webhook(Ses(TOPIC, sns), Reported())
    for _ in range(3):
        assert (await webhook.answer(*of_ses("bounced for good"))).status == 200
    assert len(sns.fetched) == 1


async def test_certificates_are_not_kept_without_an_end() -> None:
    sns = Sns()
    source = Ses(TOPIC, sns)
    for number in range(30):
        url = f"https://sns.us-east-2.amazonaws.com/SimpleNotificationService-{number}.pem"
        await source.receipts(*of_sns("Notification", SigningCertURL=url, Message='{"eventType": "Send"}'))
    assert len(source._certificates) <= 10


async def test_a_certificate_that_cant_be_fetched_is_asked_for_again() -> None:
    sns, reported = Sns(), Reported()
    sns.is_there = False
    webhook = Webhook(Ses(TOPIC, sns), reported)
    assert (await webhook.answer(*of_ses("bounced for good"))).status == 503
    sns.is_there = True
    assert (await webhook.answer(*of_ses("bounced for good"))).status == 200
    assert len(reported.receipts) == 1


async def test_a_subscription_to_our_topic_is_confirmed() -> None:
    sns = Sns()
    body, headers = of_sns("SubscriptionConfirmation")
    assert (await Webhook(Ses(TOPIC, sns), Reported()).answer(body, headers)).status == 200
    assert sns.fetched[1:] == [json.loads(body)["SubscribeURL"]]


async def test_nothing_is_fetched_for_another_topic_or_from_elsewhere() -> None:
    sns = Sns()
    webhook = Webhook(Ses(TOPIC, sns), Reported())
    elsewhere = "https://sns.us-east-2.amazonaws.com.evil.example/SimpleNotificationService-1.pem"
    for request_ in (
        of_sns("SubscriptionConfirmation", TopicArn="arn:aws:sns:us-east-2:999999999999:MyTopic"),
        of_sns("SubscriptionConfirmation", SigningCertURL=elsewhere),
    ):
        assert (await webhook.answer(*request_)).status == 403
    assert sns.fetched == []
    await webhook.answer(*of_sns("SubscriptionConfirmation", SubscribeURL="https://evil.example/"))
    assert [url for url in sns.fetched if not url.endswith(".pem")] == []


async def test_what_cant_be_reached_is_said_to_be_so() -> None:
    with pytest.raises(Unreachable):
        await fetch("http://127.0.0.1:1/")


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    await reader.readuntil(b"\r\n\r\n")
    with suppress(ConnectionError):
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 2**10):
            writer.write(bytes(2**10))
            await writer.drain()
    writer.close()


@pytest.mark.parametrize(("size", "is_taken"), [(2 * 2**10, True), (2**16, True), (2**17, False), (2**30, False)])
async def test_no_more_is_fetched_than_a_certificate_has(size: int, is_taken: bool) -> None:
    async with await asyncio.start_server(partial(answering, size=size), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if is_taken:
            assert len(await fetch(url)) == size
        else:
            with pytest.raises(Unreachable, match="more than a certificate"):
                await fetch(url)


async def test_made_up_certificates_are_not_fetched_without_limit() -> None:
    fetched, go_on = [], asyncio.Event()

    async def slow(url: str) -> bytes:
        fetched.append(url)
        await go_on.wait()
        raise Unreachable("Amazon SNS does not answer")

    webhook = Webhook(Ses(TOPIC, slow), Reported())
    made_up = [
        of_sns(
            "SubscriptionConfirmation",
            SigningCertURL=f"https://sns.us-east-2.amazonaws.com/SimpleNotificationService-{number:032x}.pem",
        )
        for number in range(100)
    ]
    answers = [asyncio.create_task(webhook.answer(*request_)) for request_ in made_up]
    done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    go_on.set()
    assert {(await answer).status for answer in answers} == {503}
    assert done
    assert len(fetched) < 10
