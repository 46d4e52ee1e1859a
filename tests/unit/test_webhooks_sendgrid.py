import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from notifications.receipts.receipt import Receipt
from providers.webhooks.base import Unreadable, Unverified
from providers.webhooks.sendgrid import MAX_AGE, verify
from providers.webhooks.sendgrid import read as read_at
from schemas.receipts import Kind

BODY = (Path(__file__).parents[1] / "data/webhooks/sendgrid.json").read_bytes()
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TIMESTAMP = str(int(NOW.timestamp()))
KEY = ec.generate_private_key(ec.SECP256R1())
ADDRESS = "example@test.com"


def shown(key: Any) -> str:
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(der).decode()


def signature(body: bytes = BODY, timestamp: str = TIMESTAMP, key: ec.EllipticCurvePrivateKey = KEY) -> str:
    return b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))).decode()


def read(body: bytes) -> list[Receipt]:
    return read_at(body, NOW)


def only(**fields: Any) -> Receipt:
    event = {"email": ADDRESS, "timestamp": 1513299569, "sg_event_id": "id", "sg_message_id": "m.1", **fields}
    (receipt,) = read(json.dumps([event]).encode())
    return receipt


def test_what_sendgrid_signed_is_taken() -> None:
    verify(BODY, signature(), TIMESTAMP, shown(KEY), NOW)


@pytest.mark.parametrize("at", [0, 1, len(BODY) // 2, len(BODY) - 1])
def test_a_body_that_was_tampered_with_is_refused(at: int) -> None:
    tampered = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
    with pytest.raises(Unverified, match="not of this body"):
        verify(tampered, signature(), TIMESTAMP, shown(KEY), NOW)


def test_another_timestamp_than_the_signed_one_is_refused() -> None:
    with pytest.raises(Unverified, match="not of this body"):
        verify(BODY, signature(), str(int(TIMESTAMP) + 1), shown(KEY), NOW)


def test_a_digit_moved_from_the_timestamp_into_the_body_is_not_taken() -> None:
    with pytest.raises(Unverified, match="further from now"):
        verify(TIMESTAMP[-1:].encode() + BODY, signature(), TIMESTAMP[:-1], shown(KEY), NOW)


def test_what_somebody_else_signed_is_refused() -> None:
    theirs = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Unverified, match="not of this body"):
        verify(BODY, signature(key=theirs), TIMESTAMP, shown(KEY), NOW)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "no base64!",
        "ключ",
        b64encode(b"no DER").decode(),
        shown(ec.generate_private_key(ec.SECP384R1())),
        shown(ed25519.Ed25519PrivateKey.generate()),
        shown(rsa.generate_private_key(65537, 1024)),
    ],
    ids=["empty", "no base64", "no ASCII", "no DER", "another curve", "Ed25519", "RSA"],
)
def test_an_invalid_key_verifies_nothing(key: str) -> None:
    with pytest.raises(Unverified, match="verification key") as raised:
        verify(BODY, signature(), TIMESTAMP, key, NOW)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    ("sent", "timestamp"), [(None, TIMESTAMP), ("", TIMESTAMP), (signature(), None)], ids=["absent", "empty", "no time"]
)
def test_a_request_without_its_headers_is_refused(sent: str | None, timestamp: str | None) -> None:
    with pytest.raises(Unverified, match="no signature"):
        verify(BODY, sent, timestamp, shown(KEY), NOW)


@pytest.mark.parametrize("ago", [MAX_AGE, -MAX_AGE])
def test_what_was_signed_too_long_ago_or_ahead_is_refused(ago: timedelta) -> None:
    verify(BODY, signature(), TIMESTAMP, shown(KEY), NOW + ago)
    with pytest.raises(Unverified, match="further from now"):
        verify(BODY, signature(), TIMESTAMP, shown(KEY), NOW + ago + (ago / abs(ago)) * timedelta(seconds=1))


@pytest.mark.parametrize("timestamp", ["yesterday", "-1", "1e9", "٣", " 1769860800", "9" * 12, "9" * 5000])
def test_an_invalid_signed_timestamp_is_refused(timestamp: str) -> None:
    with pytest.raises(Unverified, match="not a number of seconds"):
        verify(BODY, signature(timestamp=timestamp), timestamp, shown(KEY), NOW)


@given(body=st.binary(max_size=200), sent=st.text(max_size=100), timestamp=st.text(max_size=20))
def test_garbage_is_never_verified(body: bytes, sent: str, timestamp: str) -> None:
    with pytest.raises(Unverified):
        verify(body, sent, timestamp, shown(KEY), NOW)


def test_the_documented_events_are_read() -> None:
    read_kinds: list[tuple[Kind, bool]] = [(receipt.data.kind, receipt.data.permanent) for receipt in read(BODY)]
    assert read_kinds == [
        ("deferred", False),
        ("delivered", False),
        ("opened", False),
        ("clicked", False),
        ("bounced", True),
        ("bounced", False),
        ("bounced", True),
        ("bounced", False),
        ("complained", False),
        ("unsubscribed", False),
        ("unsubscribed", False),
    ]


def test_a_receipt_has_what_was_given_along_and_what_sendgrid_calls_the_message() -> None:
    for receipt in read(BODY):
        data = receipt.data
        assert (data.channel, data.provider, data.provider_id) == ("email", "sendgrid", "14c5d75ce93dfd64b469Aw")
        assert data.key == "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c"
        assert data.notification_id == "0190b3a4-5c6d-7e8f-9a0b-1c2d3e4f5a6b"
        assert data.recipient == ADDRESS
        assert data.timestamp == datetime(2017, 12, 15, 0, 59, 29, tzinfo=UTC)


def test_the_same_body_gives_the_same_receipts_each_with_an_id_of_its_own() -> None:
    assert read(BODY) == read(BODY)
    assert len({receipt.id for receipt in read(BODY)}) == len(read(BODY))


def test_a_bounce_has_its_reason_without_the_address() -> None:
    bounce = next(receipt.data for receipt in read(BODY) if receipt.data.kind == "bounced")
    assert (bounce.code, bounce.message) == ("5.1.1", "550 5.1.1 <recipient>: user unknown")
    assert ADDRESS not in repr(read(BODY))


def test_a_click_has_its_url() -> None:
    assert [receipt.data.url for receipt in read(BODY) if receipt.data.kind == "clicked"] == [
        "https://www.sendgrid.com/"
    ]


def test_an_open_by_a_machine_says_so() -> None:
    assert only(event="open", sg_machine_open=True).data.code == "machine"


def test_an_event_without_ids_is_a_receipt_all_the_same_and_twice_the_same() -> None:
    receipt = only(event="bounce", sg_event_id=None, sg_message_id=None)
    assert receipt.data.provider_id == "unknown"
    assert receipt == only(event="bounce", sg_event_id=None, sg_message_id=None)
    assert receipt.id != only(event="bounce", sg_event_id=None, sg_message_id=None, timestamp=1513299570).id


def test_what_is_too_long_for_a_document_is_left_out() -> None:
    receipt = only(event="click", sg_event_id="x" * 1000, key="k" * 257, url="https://" + "x" * 9000, reason="r" * 9000)
    assert len(receipt.id) <= 256
    assert (receipt.data.key, receipt.data.url) == (None, None)
    assert len(receipt.data.message or "") == 500


def test_an_invalid_event_does_not_cost_the_others() -> None:
    events = json.loads(BODY)
    body = json.dumps([events[2], "garbage", {"event": ["x@y.z"], "timestamp": 1}, events[5]]).encode()
    with pytest.raises(Unreadable) as raised:
        read(body)
    assert list(raised.value.receipts) == [*read(json.dumps([events[2], events[5]]).encode())]
    assert "event 1" in str(raised.value)
    assert "event 2: event" in str(raised.value)
    assert "x@y.z" not in str(raised.value)


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'[{"a":1]', b"9" * 5000, b'"\\ud800"'])
def test_a_body_that_is_no_array_of_events_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(body)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
EVENT = st.fixed_dictionaries(
    {"event": st.sampled_from(["bounce", "open", "click", "delivered", "dropped"]), "timestamp": st.integers(0) | JSON},
    optional={
        name: JSON | st.text()
        for name in (
            "sg_event_id",
            "sg_message_id",
            "email",
            "status",
            "type",
            "reason",
            "url",
            "key",
            "notificationId",
        )
    },
)


def outcome(body: bytes, reader: Callable[[bytes], list[Receipt]] = read) -> list[Receipt]:
    try:
        return reader(body)
    except Unreadable as error:
        return list(error.receipts)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_unreadable_and_nothing_else(body: bytes) -> None:
    outcome(body)


@given(st.lists(EVENT, max_size=4))
def test_an_event_with_garbage_in_its_fields_is_a_sound_receipt_or_unreadable(events: list[Any]) -> None:
    body = json.dumps(events).encode()
    assert outcome(body) == outcome(body)
    for receipt in outcome(body):
        assert 0 < len(receipt.id) <= 256
        assert type(receipt.data).model_validate(receipt.payload()) == receipt.data
