import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.receipts.receipt import Receipt
from providers.webhooks.base import Unreadable, Unverified
from providers.webhooks.mailgun import MAX_AGE, read, verify
from schemas.receipts import Kind

EVENTS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/webhooks/mailgun.json").read_bytes())
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TIMESTAMP = str(int(NOW.timestamp()))
TOKEN = "e0b5477167110d68991efc6b9f89f0a11066af27834600e123"
KEY = "signing-key-of-the-tests"


def sign(timestamp: object = TIMESTAMP, token: object = TOKEN, key: str = KEY) -> dict[str, object]:
    signature = hmac.new(key.encode(), f"{timestamp}{token}".encode(), "sha256").hexdigest()
    return {"timestamp": timestamp, "token": token, "signature": signature}


def posted(event: object = EVENTS["delivered"], signature: object = None) -> bytes:
    return json.dumps({"signature": sign() if signature is None else signature, "event-data": event}).encode()


def only(name: str, **changes: Any) -> Receipt:
    (receipt,) = read(posted({**EVENTS[name], **changes}))
    return receipt


def test_what_mailgun_signed_is_taken() -> None:
    verify(posted(), KEY, NOW)


def test_a_timestamp_may_come_as_a_number() -> None:
    verify(posted(signature=sign(int(TIMESTAMP))), KEY, NOW)


def test_the_signature_is_of_the_documented_form() -> None:
    # Worked out with openssl: printf '%s' "${timestamp}${token}" | openssl dgst -sha256 -hmac "$key"
    signature = {
        "timestamp": "1770920772",
        "token": TOKEN,
        "signature": "20c78f872257566c0b652b280836bb0096452a39d46efdd57ce16bc364715d92",
    }
    verify(posted(signature=signature), KEY, datetime.fromtimestamp(1770920772, UTC))


@pytest.mark.parametrize(
    "changes",
    [
        {"token": TOKEN[:-1] + "4"},
        {"timestamp": str(int(TIMESTAMP) - 1)},
        {"signature": "0" * 64},
        {"signature": "ключ"},
    ],
)
def test_a_signature_that_was_tampered_with_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(Unverified, match="not by Mailgun's key"):
        verify(posted(signature={**sign(), **changes}), KEY, NOW)


def test_a_digit_moved_from_the_token_into_the_timestamp_is_refused() -> None:
    signed = sign(token="7" + TOKEN)
    with pytest.raises(Unverified, match="further from now"):
        verify(posted(signature={**signed, "timestamp": TIMESTAMP + "7", "token": TOKEN}), KEY, NOW)


def test_a_token_with_another_signature_is_refused_without_revealing_the_key() -> None:
    with pytest.raises(Unverified) as raised:
        verify(posted(signature=sign(key="another")), KEY, NOW)
    assert KEY not in str(raised.value)


def test_nothing_is_verified_without_a_key() -> None:
    with pytest.raises(Unverified, match="no signing key"):
        verify(posted(signature=sign(key="")), "", NOW)


@pytest.mark.parametrize("missing", ["timestamp", "token", "signature"])
@pytest.mark.parametrize("value", ["", None, [], True])
def test_a_signature_must_be_whole(missing: str, value: object) -> None:
    with pytest.raises(Unverified, match="lacks"):
        verify(posted(signature={**sign(), missing: value}), KEY, NOW)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"[" * 100_000, b'{"signature": "x"}', b"\xff", b"timestamp=1&token=2"]
)
def test_a_body_without_a_signature_is_refused(body: bytes) -> None:
    with pytest.raises(Unverified, match="no signature"):
        verify(body, KEY, NOW)


@pytest.mark.parametrize("ago", [MAX_AGE, -MAX_AGE])
def test_what_was_signed_too_long_ago_or_ahead_is_refused(ago: timedelta) -> None:
    verify(posted(), KEY, NOW + ago)
    with pytest.raises(Unverified, match="further from now"):
        verify(posted(), KEY, NOW + ago + (ago / abs(ago)) * timedelta(seconds=1))


@given(st.binary())
def test_garbage_is_never_verified(body: bytes) -> None:
    with pytest.raises(Unverified):
        verify(body, KEY, NOW)


@pytest.mark.parametrize(
    ("name", "kind", "permanent", "code", "message"),
    [
        ("delivered", "delivered", False, "250", "OK"),
        ("failed permanently", "bounced", True, "605", "Not delivering to previously bounced address"),
        ("failed too often", "bounced", False, "602", "Too old"),
        (
            "failed for the time being",
            "deferred",
            False,
            "452",
            "4.2.2 The email account that you tried to reach is over quota: <recipient>",
        ),
        ("opened", "opened", False, None, None),
        ("clicked", "clicked", False, None, None),
        ("unsubscribed", "unsubscribed", False, None, None),
        ("complained", "complained", False, None, None),
    ],
)
def test_the_documented_events_are_read(
    name: str, kind: Kind, permanent: bool, code: str | None, message: str | None
) -> None:
    data = only(name).data
    assert (data.kind, data.permanent, data.code, data.message) == (kind, permanent, code, message)
    assert data.provider_id == "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c@sample.mailgun.com"
    assert data.key == "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c"
    assert data.notification_id == "0190b3a4-5c6d-7e8f-9a0b-1c2d3e4f5a6b"
    assert data.recipient == "alice@example.com"
    assert "alice" not in repr(only(name))


@pytest.mark.parametrize("name", ["accepted", "stored"])
def test_an_event_that_says_nothing_of_the_messages_fate_is_no_receipt(name: str) -> None:
    assert read(posted({**EVENTS["accepted"], "event": name})) == []


def test_a_moment_is_kept_to_the_microsecond() -> None:
    assert only("delivered").data.timestamp == datetime(2018, 3, 19, 15, 11, 2, 908181, UTC)


def test_an_id_counts_within_its_day_as_mailgun_promises_no_more() -> None:
    event = EVENTS["delivered"]
    assert only("delivered") == only("delivered")
    assert only("delivered").id == "mailgun:2018-03-19:CPgfbmQMTndOoH7NBEGFHw"
    assert only("delivered", timestamp=event["timestamp"] + 86_400).id != only("delivered").id


def test_a_click_has_its_url_without_the_address() -> None:
    clicked = only("clicked", url="https://blog.example/@ada/one?email=alice%40example.com&to=alice@example.com")
    assert clicked.data.url == "https://blog.example/@ada/one?email=<recipient>&to=<recipient>"


def test_an_open_by_a_machine_says_so() -> None:
    assert only("opened", **{"client-info": {"bot": "apple"}}).data.code == "machine"


@pytest.mark.parametrize("reason", ["suppress-unsubscribe", "espblock", "generic", None])
def test_an_address_is_not_suppressed_for_what_is_not_its_fault(reason: str | None) -> None:
    assert not only("failed permanently", reason=reason).data.permanent


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b"[" * 100_000, b'{"event-data": {}}', posted({"event": 1, "timestamp": 1})]
)
def test_a_body_that_is_no_event_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(body)


def test_an_unreadable_body_is_not_repeated() -> None:
    with pytest.raises(Unreadable) as raised:
        read(posted({**EVENTS["opened"], "event": ["alice@example.com"]}))
    assert "event-data.event" in str(raised.value)
    assert "alice" not in str(raised.value)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(
    name=st.sampled_from(sorted(EVENTS)),
    changes=st.dictionaries(st.sampled_from(sorted(EVENTS["failed permanently"])), JSON),
)
def test_an_event_with_garbage_in_its_fields_is_a_sound_receipt_or_unreadable(
    name: str, changes: dict[str, Any]
) -> None:
    try:
        receipts = read(posted({**EVENTS[name], **changes}))
    except Unreadable:
        return
    for receipt in receipts:
        assert 0 < len(receipt.id) <= 256
        assert type(receipt.data).model_validate(receipt.payload()) == receipt.data


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_unreadable_and_nothing_else(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(body)
