import json
from base64 import b64encode, encodebytes
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from notifications.receipts.receipt import Receipt
from providers.webhooks.base import Unreadable, Unverified
from providers.webhooks.ses import MAX_AGE, Confirmation, certificate_url, read, verify
from schemas.receipts import Kind

DATA = Path(__file__).parents[1] / "data/webhooks"
EVENTS: dict[str, Any] = json.loads((DATA / "ses.json").read_bytes())
MESSAGES: dict[str, Any] = json.loads((DATA / "sns.json").read_bytes())
PUBLISHED = datetime(2026, 1, 31, 12, 0, 0, 655000, tzinfo=UTC)
NOW = PUBLISHED + timedelta(seconds=2)
TOPIC = "arn:aws:sns:us-east-2:123456789012:MyTopic"
HASHES = {"1": SHA1(), "2": SHA256()}
KEY = rsa.generate_private_key(65537, 2048)

SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}


def certificate(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = KEY,
    begins: datetime = NOW - timedelta(days=90),
    ends: datetime = NOW + timedelta(days=90),
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begins).not_valid_after(ends)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


CERTIFICATE = certificate()


def signed(
    kind: str = "Notification", version: str = "2", key: rsa.RSAPrivateKey = KEY, **changes: Any
) -> dict[str, Any]:
    message = {**MESSAGES[kind], "SignatureVersion": version, **changes}
    text = "".join(f"{name}\n{message[name]}\n" for name in SIGNED[kind] if message.get(name) is not None)
    signature = key.sign(text.encode(), PKCS1v15(), HASHES.get(version, SHA256()))
    return {**message, "Signature": b64encode(signature).decode()}


def body(message: object) -> bytes:
    return json.dumps(message).encode()


def check(message: object, pem: bytes = CERTIFICATE, topic: str = TOPIC, now: datetime = NOW) -> None:
    verify(body(message), pem, topic, now)


def received(event: object, **changes: Any) -> list[Receipt]:
    receipts = read(body({**MESSAGES["Notification"], "Message": json.dumps(event), **changes}))
    assert isinstance(receipts, list)
    return receipts


def only(event: object) -> Receipt:
    (receipt,) = received(event)
    return receipt


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("kind", SIGNED)
def test_what_sns_signed_is_taken(kind: str, version: str) -> None:
    check(signed(kind, version))


def test_a_message_without_a_subject_and_with_any_text_is_taken() -> None:
    message = signed(Message='{"line": "one\ntwo", "sign": "“ä” 😀"}', Subject=None)
    check(message)
    check({name: value for name, value in message.items() if name != "Subject"})


@pytest.mark.parametrize("field", SIGNED["Notification"])
def test_a_message_that_was_tampered_with_is_refused(field: str) -> None:
    changed = {"Timestamp": "2026-01-31T12:00:01.655Z", "Type": "UnsubscribeConfirmation"}.get(field, "changed")
    topic = "changed" if field == "TopicArn" else TOPIC
    with pytest.raises(Unverified, match="not of this message"):
        check({**signed(), field: changed}, topic=topic)


@pytest.mark.parametrize("field", ["SubscribeURL", "Token"])
def test_a_confirmation_that_was_tampered_with_is_refused(field: str) -> None:
    with pytest.raises(Unverified, match="not of this message"):
        check({**signed("SubscriptionConfirmation"), field: "https://sns.us-east-1.amazonaws.com/?Token=other"})


@pytest.mark.parametrize("signature", ["", "no base64!", "ключ", b64encode(b"\0" * 256).decode()])
def test_an_invalid_signature_is_refused(signature: str) -> None:
    with pytest.raises(Unverified, match="not of this message"):
        check({**signed(), "Signature": signature})


def test_the_version_says_which_hash_it_is() -> None:
    with pytest.raises(Unverified, match="not of this message"):
        check({**signed(version="1"), "SignatureVersion": "2"})
    with pytest.raises(Unverified, match="unknown version"):
        check(signed(version="3"))


def test_what_somebody_else_signed_is_refused() -> None:
    with pytest.raises(Unverified, match="not of this message"):
        check(signed(key=rsa.generate_private_key(65537, 2048)))


def test_another_topic_is_refused_although_sns_signed_it() -> None:
    theirs = "arn:aws:sns:us-east-2:999999999999:MyTopic"
    with pytest.raises(Unverified, match="another topic"):
        check(signed(TopicArn=theirs))
    with pytest.raises(Unverified, match="another topic"):
        certificate_url(body(signed(TopicArn=theirs)), TOPIC)
    check(signed(TopicArn=theirs), topic=theirs)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "can't be read"),
        (b"<html>not found</html>", "can't be read"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "can't be read"),
        (certificate(ec.generate_private_key(ec.SECP256R1())), "not of an RSA key"),
        (certificate(ends=NOW - timedelta(seconds=10)), "not valid now"),
        (certificate(begins=NOW + timedelta(seconds=10)), "not valid now"),
    ],
)
def test_an_invalid_certificate_verifies_nothing(pem: bytes, why: str) -> None:
    with pytest.raises(Unverified, match=why):
        check(signed(), pem)


@given(at=st.integers(0, 700), byte=st.integers(0, 255))
def test_a_damaged_certificate_verifies_or_not_and_nothing_else(at: int, byte: int) -> None:
    der = x509.load_pem_x509_certificate(CERTIFICATE).public_bytes(Encoding.DER)
    damaged = encodebytes(der[:at] + bytes([byte]) + der[at + 1 :])
    with suppress(Unverified):
        check(signed(), b"-----BEGIN CERTIFICATE-----\n" + damaged + b"-----END CERTIFICATE-----\n")


@pytest.mark.parametrize("ago", [MAX_AGE, -MAX_AGE])
def test_what_was_published_too_long_ago_or_ahead_is_refused(ago: timedelta) -> None:
    check(signed(), now=PUBLISHED + ago)
    with pytest.raises(Unverified, match="further from now"):
        check(signed(), now=PUBLISHED + ago + (ago / abs(ago)) * timedelta(seconds=1))


@pytest.mark.parametrize("timestamp", ["", "yesterday", "2026-01-31T12:00:00"])
def test_an_invalid_signed_timestamp_is_refused(timestamp: str) -> None:
    with pytest.raises(Unverified, match="no moment"):
        check(signed(Timestamp=timestamp))


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-5", "il-central-1"])
def test_a_certificate_of_any_region_of_sns_may_be_fetched(region: str) -> None:
    url = f"https://sns.{region}.amazonaws.com/SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem"
    assert certificate_url(body({**MESSAGES["Notification"], "SigningCertURL": url}), TOPIC) == url


PEM = "SimpleNotificationService-f3ec.pem"
NOT_SNS = [
    "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-f3ec.pem",
    "https://sns.us-east-1.amazonaws.com@evil.example/SimpleNotificationService-f3ec.pem",
    "https://evil.example@sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-f3ec.pem",
    "https://evil.example/sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://evil.example\\@sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://evil.example\t.sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.us-east-1.amazonaws.com\n/SimpleNotificationService-f3ec.pem",
    " https://sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.s3-us-west-2.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.s3.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://s3.us-east-1.amazonaws.com/sns/SimpleNotificationService-f3ec.pem",
    "https://x.sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://snsXus-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.us-east-1.amazonaws.com.cn/SimpleNotificationService-f3ec.pem",
    "https://SNS.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.us-east-1.amazonaws.com./SimpleNotificationService-f3ec.pem",
    "https://[sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "https://sns.us-east-\u0661.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "//sns.us-east-1.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "file:///etc/SimpleNotificationService-f3ec.pem",
    "",
]


@pytest.mark.parametrize("url", NOT_SNS)
def test_a_certificate_that_is_not_with_sns_is_not_fetched(url: str) -> None:
    message = signed(SigningCertURL=url)
    with pytest.raises(Unverified, match="not with Amazon SNS"):
        certificate_url(body(message), TOPIC)
    with pytest.raises(Unverified, match="not with Amazon SNS"):
        check(message)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a.pem", f"/?{PEM}", f"/{PEM}?b=c", f"/{PEM}#b", f"/a/../{PEM}", f"/a/{PEM}", f"/{PEM}/", f"//{PEM}"],
)
def test_nothing_but_a_certificate_is_fetched(path: str) -> None:
    message = {**MESSAGES["Notification"], "SigningCertURL": f"https://sns.us-east-1.amazonaws.com{path}"}
    with pytest.raises(Unverified, match="not with Amazon SNS"):
        certificate_url(body(message), TOPIC)


def test_a_subscription_is_something_to_confirm() -> None:
    message = signed("SubscriptionConfirmation")
    check(message)
    confirmation = read(body(message))
    assert confirmation == Confirmation(message["SubscribeURL"])
    assert message["Token"] not in repr(confirmation)


@pytest.mark.parametrize("url", [*NOT_SNS, None])
def test_a_subscription_is_confirmed_with_sns_alone(url: str | None) -> None:
    with pytest.raises(Unverified, match="not of Amazon SNS"):
        read(body(signed("SubscriptionConfirmation", SubscribeURL=url)))


def test_the_end_of_a_subscription_is_no_receipt_and_nothing_to_confirm() -> None:
    assert read(body(MESSAGES["UnsubscribeConfirmation"])) == []


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff", body({**MESSAGES["Notification"], "Type": "Other"})],
)
def test_a_body_that_is_no_message_of_sns_is_refused(garbage: bytes) -> None:
    with pytest.raises(Unverified, match="no message of Amazon SNS"):
        certificate_url(garbage, TOPIC)
    with pytest.raises(Unverified, match="no message of Amazon SNS"):
        verify(garbage, CERTIFICATE, TOPIC, NOW)
    with pytest.raises(Unreadable):
        read(garbage)


@pytest.mark.parametrize(
    ("name", "kind", "permanent", "code", "message"),
    [
        ("bounced for good", "bounced", True, "5.1.1", "smtp; 550 5.1.1 <recipient>... user unknown"),
        ("bounced this time", "bounced", False, "MailboxFull", None),
        ("bounced, who knows why", "bounced", False, "Undetermined", None),
        ("complained", "complained", False, "abuse", None),
        ("delivered", "delivered", False, None, "250 2.6.0 Message received"),
        ("delivered, by the identity's topic", "delivered", False, None, "250 2.6.0 Message received"),
        ("rejected", "bounced", False, "reject", "Bad content"),
        ("opened", "opened", False, None, None),
        ("clicked", "clicked", False, None, None),
        (
            "not rendered",
            "bounced",
            False,
            "failure",
            "Attribute 'attributeName' is not present in the rendering data.",
        ),
        ("delayed", "deferred", False, "4.4.1", "smtp; 421 4.4.1 Unable to connect to remote host"),
    ],
)
def test_the_documented_events_are_read(
    name: str, kind: Kind, permanent: bool, code: str | None, message: str | None
) -> None:
    receipt = only(EVENTS[name])
    data = receipt.data
    assert (data.kind, data.permanent, data.code, data.message) == (kind, permanent, code, message)
    assert (data.provider, data.provider_id) == ("aws-ses", EVENTS[name]["mail"]["messageId"])
    assert data.recipient == "recipient@example.com"
    assert "recipient@" not in repr(receipt)
    assert receipt.id == "aws-ses:22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"
    if "tags" in EVENTS[name]["mail"]:
        assert data.key == "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c"
        assert data.notification_id == "0190b3a4-5c6d-7e8f-9a0b-1c2d3e4f5a6b"
    assert only(EVENTS[name]) == receipt


def test_a_moment_is_the_events_or_else_the_messages() -> None:
    assert only(EVENTS["clicked"]).data.timestamp == datetime(2017, 8, 9, 23, 51, 25, 570000, UTC)
    assert only(EVENTS["rejected"]).data.timestamp == PUBLISHED


def test_a_click_has_its_url() -> None:
    assert only(EVENTS["clicked"]).data.url == EVENTS["clicked"]["click"]["link"]


@pytest.mark.parametrize(
    "event",
    [
        EVENTS["sent"],
        {"eventType": "Subscription", "mail": {}},
        {"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "You have successfully subscribed"},
        {
            **EVENTS["complained"],
            "complaint": {**EVENTS["complained"]["complaint"], "complaintFeedbackType": "not-spam"},
        },
    ],
)
def test_an_event_that_says_nothing_of_the_messages_fate_is_no_receipt(event: object) -> None:
    assert received(event) == []


def test_the_greeting_of_ses_is_no_receipt() -> None:
    greeting = "Successfully validated SNS topic for Amazon SES event publishing."
    assert read(body({**MESSAGES["Notification"], "Message": greeting})) == []


def test_a_message_that_the_list_of_complaints_held_back_did_not_arrive() -> None:
    complaint = {**EVENTS["complained"]["complaint"], "complaintSubType": "OnAccountSuppressionList"}
    data = only({**EVENTS["complained"], "complaint": complaint}).data
    assert (data.kind, data.permanent) == ("bounced", True)


def test_whom_we_wrote_to_is_who_bounced_even_if_it_was_forwarded() -> None:
    recipients = [{"emailAddress": "else@where.example", "diagnosticCode": "550 <else@where.example> unknown"}]
    event = {
        **EVENTS["bounced for good"],
        "bounce": {**EVENTS["bounced for good"]["bounce"], "bouncedRecipients": recipients},
    }
    data = only(event).data
    assert (data.recipient, data.message) == ("recipient@example.com", "550 <recipient> unknown")


def test_each_of_several_recipients_has_a_receipt() -> None:
    event = EVENTS["bounced for good"]
    recipients = [{"emailAddress": "a@one.example"}, {"emailAddress": "b@two.example"}]
    mail = {**event["mail"], "destination": ["a@one.example", "b@two.example", "c@three.example"]}
    receipts = received({**event, "mail": mail, "bounce": {**event["bounce"], "bouncedRecipients": recipients}})
    assert [receipt.data.recipient for receipt in receipts] == ["a@one.example", "b@two.example"]
    assert len({receipt.id for receipt in receipts}) == 2
    (click,) = received({**EVENTS["clicked"], "mail": mail})
    assert click.data.recipient is None


@pytest.mark.parametrize(
    "text", ["", "Hello world!", "[]", "{}", "[" * 100_000, '{"eventType": 1}', '{"eventType": null}']
)
def test_a_text_that_is_no_event_of_ses_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read(body({**MESSAGES["Notification"], "Message": text}))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["eventType", "mail", "bounce", "complaint", "delivery", "open", "click", "deliveryDelay", "reject", "failure"]
)


@given(
    name=st.sampled_from(sorted(EVENTS)), changes=st.dictionaries(FIELDS, JSON), inner=JSON, field=st.text(max_size=9)
)
def test_an_event_with_garbage_in_its_fields_is_a_sound_receipt_or_unreadable(
    name: str, changes: dict[str, Any], inner: object, field: str
) -> None:
    event = {**EVENTS[name], **changes}
    if isinstance(event.get("mail"), dict):
        event["mail"] = {**event["mail"], "tags": inner, "destination": [field]}
    try:
        receipts = received(event)
    except Unreadable:
        return
    for receipt in receipts:
        assert type(receipt.data).model_validate(receipt.payload()) == receipt.data


@given(st.binary() | JSON.map(body) | st.dictionaries(st.sampled_from([*MESSAGES["Notification"]]), JSON).map(body))
def test_garbage_is_unverified_and_unreadable_and_nothing_else(garbage: bytes) -> None:
    with pytest.raises(Unverified):
        verify(garbage, CERTIFICATE, TOPIC, NOW)
    with pytest.raises(Unverified):
        certificate_url(garbage, TOPIC)
    with pytest.raises((Unreadable, Unverified)):
        read(garbage)
