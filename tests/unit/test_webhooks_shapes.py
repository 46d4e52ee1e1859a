"""What providers post, with null and other shapes in each field: auxiliary fields decide nothing.

Every captured body, through the real verification with a right signature, and through the real reading.
"""

import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from notifications.receipts.receipt import Receipt
from providers.webhooks import mailgun, sendgrid, ses
from providers.webhooks.base import Unreadable

DATA = Path(__file__).parents[1] / "data/webhooks"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECONDS = str(int(NOW.timestamp()))
REMOVED = object()
SHAPES = [None, "text", "", 7, 1.5, True, [], [None], ["text", {}], {}, {"a": None}, REMOVED]
Path_ = tuple[str | int, ...]


def post_to_mailgun(event: object) -> list[Receipt]:
    token = "e0b5477167110d68991efc6b9f89f0a11066af27834600e123"
    signature = hmac.new(b"key", f"{SECONDS}{token}".encode(), "sha256").hexdigest()
    signed = {"timestamp": SECONDS, "token": token, "signature": signature}
    body = json.dumps({"signature": signed, "event-data": event}).encode()
    mailgun.verify(body, "key", NOW)
    return mailgun.read(body)


SENDGRID_KEY = ec.generate_private_key(ec.SECP256R1())
SHOWN_KEY = b64encode(SENDGRID_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def post_to_sendgrid(event: object) -> list[Receipt]:
    body = json.dumps([event]).encode()
    signature = b64encode(SENDGRID_KEY.sign(SECONDS.encode() + body, ec.ECDSA(SHA256()))).decode()
    sendgrid.verify(body, signature, SECONDS, SHOWN_KEY, NOW)
    return sendgrid.read(body, NOW)


SNS = json.loads((DATA / "sns.json").read_bytes())["Notification"]
SNS_KEY = rsa.generate_private_key(65537, 1024)  # a short one: thousands of messages are signed with it
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(SNS_KEY.public_key())
    .serial_number(1)
    .not_valid_before(NOW - timedelta(days=1))
    .not_valid_after(NOW + timedelta(days=1))
    .sign(SNS_KEY, SHA256())
    .public_bytes(Encoding.PEM)
)


def post_sns(**fields: Any) -> list[Receipt]:
    message = {**SNS, "SignatureVersion": "2", "Timestamp": "2026-01-31T12:00:00.000Z", **fields}
    names = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
    text = "".join(f"{name}\n{message[name]}\n" for name in names if isinstance(message.get(name), str))
    message["Signature"] = b64encode(SNS_KEY.sign(text.encode(), PKCS1v15(), SHA256())).decode()
    body = json.dumps(message).encode()
    ses.certificate_url(body, SNS["TopicArn"])
    ses.verify(body, CERTIFICATE, SNS["TopicArn"], NOW)
    receipts = ses.read(body)
    assert isinstance(receipts, list)
    return receipts


def post_to_ses(event: object) -> list[Receipt]:
    return post_sns(Message=json.dumps(event))


class Case(NamedTuple):
    """A captured event, and what of it must be there.

    Attributes:
        essential: Paths to what the event is, its `event` or `eventType`.
        identifies: Paths to what says which report, which message and when it is: without one of them the event is
            taken all the same, by what the others say.
    """

    name: str
    event: dict[str, Any]
    post: Callable[[object], list[Receipt]]
    essential: frozenset[Path_]
    identifies: frozenset[Path_]


def cases() -> Iterator[Case]:
    for name, event in json.loads((DATA / "mailgun.json").read_bytes()).items():
        own: set[Path_] = {("id",), ("timestamp",), ("message",), ("message", "headers"), ("user-variables",)}
        own |= {("message", "headers", "message-id"), ("user-variables", "key"), ("user-variables", "notificationId")}
        # It says whether the message is given up.
        own.add(("severity",))
        yield Case(f"mailgun, {name}", event, post_to_mailgun, frozenset({("event",)}), frozenset(own))
    for event in json.loads((DATA / "sendgrid.json").read_bytes()):
        own = {("sg_event_id",), ("timestamp",), ("sg_message_id",), ("key",), ("notificationId",)}
        name = f"sendgrid, {event['event']} {event.get('type', '')}"
        yield Case(name, event, post_to_sendgrid, frozenset({("event",)}), frozenset(own))
    for name, event in json.loads((DATA / "ses.json").read_bytes()).items():
        own = {("mail",), ("mail", "messageId"), ("mail", "tags"), ("mail", "tags", "key")}
        own |= {("mail", "tags", "notificationId"), *(("mail", "tags", tag, 0) for tag in ("key", "notificationId"))}
        essential: set[Path_] = {("eventType",) if "eventType" in event else ("notificationType",)}
        yield Case(f"ses, {name}", event, post_to_ses, frozenset(essential), frozenset(own))


CASES = list(cases())


def paths(value: object, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path to each part of a value, however deep."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from paths(part, (*path, key))


def changed(event: dict[str, Any], path: Path_, shape: object) -> dict[str, Any]:
    """Return the event with another value at a path, or without it."""
    result: Any = json.loads(json.dumps(event))
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    if shape is REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = shape
    return result  # type: ignore[no-any-return]


def told(receipts: list[Receipt]) -> list[tuple[str, ...]]:
    """Return which reports these are, of what kind and of which message."""
    return [
        (one.id, one.data.kind, one.data.provider_id, str(one.data.key), str(one.data.notification_id))
        for one in receipts
    ]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_no_shape_of_an_auxiliary_field_decides_whether_an_event_is_taken(case: Case) -> None:
    expected = told(case.post(case.event))
    # A complaint that was held back, or taken back, is another kind of event, which these fields say.
    kind = {("complaint",), ("complaint", "complaintSubType"), ("complaint", "complaintFeedbackType")}
    for path in paths(case.event):
        if path in case.essential or path in case.identifies:
            continue
        for shape in SHAPES:
            receipts = case.post(changed(case.event, path, shape))
            assert told(receipts) == expected or path in kind, (path, shape)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_event_that_lacks_one_of_the_fields_that_identify_it_is_taken_all_the_same(case: Case) -> None:
    expected = [receipt.data for receipt in case.post(case.event)]
    for path in case.identifies & set(paths(case.event)):
        for shape in SHAPES:
            receipts = case.post(changed(case.event, path, shape))
            assert len(receipts) == len(expected), (path, shape)
            for receipt, data in zip(receipts, expected, strict=True):
                assert receipt.id
                assert receipt.data.kind == data.kind or path == ("severity",), (path, shape)
                assert (receipt.data.key, receipt.data.provider_id) != (None, "unknown") or path in {
                    ("mail",),
                    ("mail", "messageId"),
                }


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_an_event_is_must_be_there(case: Case) -> None:
    for path in case.essential:
        for shape in (None, 7, [], {}, True, REMOVED):
            with pytest.raises(Unreadable):
                case.post(changed(case.event, path, shape))
        assert case.post(changed(case.event, path, "of a later release")) == []


@pytest.mark.parametrize("shape", [None, "text", 7, [], {}, REMOVED])
def test_a_bounce_without_a_reported_reason_has_no_reason(shape: object) -> None:
    event = json.loads((DATA / "mailgun.json").read_bytes())["failed permanently"]
    [bounce] = post_to_mailgun(changed(event, ("delivery-status",), shape))
    assert (bounce.data.kind, bounce.data.message, bounce.data.code) == ("bounced", None, event["reason"])


def test_a_delivery_whose_client_and_message_are_null_is_taken_by_its_variables() -> None:
    event = json.loads((DATA / "mailgun.json").read_bytes())["delivered"]
    [delivery] = post_to_mailgun({**event, "client-info": None, "message": None})
    assert (delivery.data.kind, delivery.data.key) == ("delivered", event["user-variables"]["key"])
    [unknown] = post_to_mailgun({**event, "client-info": None, "message": None, "user-variables": None})
    assert (unknown.data.key, unknown.data.provider_id) == (None, "unknown")


def test_an_event_of_ses_is_named_by_either_field_though_the_other_is_null() -> None:
    event = json.loads((DATA / "ses.json").read_bytes())["bounced for good"]
    name = event.pop("eventType", None) or event.pop("notificationType")
    [one] = post_to_ses({**event, "eventType": None, "notificationType": name})
    [other] = post_to_ses({**event, "eventType": name, "notificationType": None})
    assert told([one]) == told([other])


@pytest.mark.parametrize("shape", [None, 7, [], {}])
@pytest.mark.parametrize("field", ["Subject", "Token", "SubscribeURL", "UnsubscribeURL"])
def test_what_a_message_of_sns_can_do_without_may_have_any_shape(field: str, shape: object) -> None:
    event = json.loads((DATA / "ses.json").read_bytes())["delivered"]
    assert post_sns(Message=json.dumps(event), **{field: shape}) == post_to_ses(event)


def test_an_event_without_a_time_of_its_own_has_the_one_of_its_request() -> None:
    mailgun_event = json.loads((DATA / "mailgun.json").read_bytes())["delivered"]
    [bounce] = post_to_mailgun({**mailgun_event, "timestamp": None})
    assert bounce.data.timestamp == NOW
    [delivered] = post_to_sendgrid({"event": "delivered", "timestamp": "soon", "sg_event_id": "1", "key": "k"})
    assert delivered.data.timestamp == NOW


def test_half_a_character_in_a_text_that_was_cut_short_loses_no_report() -> None:
    half = "mailbox is \ud83d"
    event = json.loads((DATA / "mailgun.json").read_bytes())["failed permanently"]
    [bounce] = post_to_mailgun({**event, "delivery-status": {"code": 550, "message": half}})
    assert bounce.data.message == "mailbox is ?"
    [delivered] = post_to_sendgrid({"event": "delivered", "timestamp": 1513299569, "response": half})
    assert delivered.data.kind == "delivered"
    body = json.dumps([{"event": "open", "useragent": half}, {"event": "bounce", "reason": half}]).encode()
    assert [receipt.data.kind for receipt in sendgrid.read(body, NOW)] == ["opened", "bounced"]
    [opened] = post_sns(Message=json.dumps({"eventType": "Open", "mail": {}, "open": {"userAgent": half}}))
    assert opened.data.kind == "opened"
    with pytest.raises(Unreadable):
        sendgrid.read(b'[{"event": "open"}, "\\ud83d', NOW)
    with pytest.raises(Unreadable):
        sendgrid.read(b"[" * 100_000, NOW)
