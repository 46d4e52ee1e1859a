from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any, get_args

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from notifications.receipts.email_log import KEPT_EVENTS, STATUSES, applied
from notifications.receipts.receipt import Receipt, without_addresses
from providers.webhooks import mailgun, sendgrid, ses
from schemas.receipts import DeliveryReceived, Kind
from sinks.collections import COLLECTIONS

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KINDS: tuple[Kind, ...] = get_args(Kind)


def receipt(kind: Kind, seconds: float = 0, name: str = "one", **fields: Any) -> Receipt:
    data = {
        "channel": "email",
        "provider": "sendgrid",
        "providerId": "m",
        "kind": kind,
        "timestamp": NOW + timedelta(seconds=seconds),
        **fields,
    }
    return Receipt(f"sendgrid:{kind}-{name}", DeliveryReceived.model_validate(data))


def log(status: str = "sent", **fields: Any) -> dict[str, Any]:
    events = [{"type": "queued", "timestamp": NOW - timedelta(seconds=2)}]
    return {"status": status, "provider": "sendgrid", "events": events, **fields}


def kept(document: Mapping[str, Any]) -> dict[str, Any]:
    options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
    return bson.decode(bson.encode(document), codec_options=options)


def written(document: Mapping[str, Any], receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Apply receipts as the database would: each change is stored, and read before the next."""
    after = kept(document)
    for one in receipts:
        changed = {**after, **applied(after, one)}
        after = kept({name: value for name, value in changed.items() if value is not None})
    return after


DELIVERED = receipt("delivered", 1)
OPENED = receipt("opened", 60.5)
CLICKED = receipt("clicked", 61, url="https://blog.example/")
BOUNCED = receipt("bounced", 30, permanent=True, code="5.1.1", message="no such user")
COMPLAINED = receipt("complained", 90)
DEFERRED = receipt("deferred", 0.5, code="452", message="over quota")


def test_a_receipt_becomes_an_event_of_the_log() -> None:
    after = written(log(), [CLICKED])
    assert after["events"][-1] == {
        "type": "clicked",
        "timestamp": NOW + timedelta(seconds=61),
        "metadata": {"eventId": CLICKED.id, "provider": "sendgrid", "url": "https://blog.example/"},
    }
    assert after["events"][:-1] == kept(log())["events"]


@pytest.mark.parametrize(
    ("before", "one", "status"),
    [
        ("queued", DEFERRED, "sent"),
        ("queued", DELIVERED, "delivered"),
        ("sent", DEFERRED, "sent"),
        ("sent", DELIVERED, "delivered"),
        ("sent", OPENED, "delivered"),
        ("sent", CLICKED, "delivered"),
        ("sent", COMPLAINED, "delivered"),
        ("sent", BOUNCED, "bounced"),
        ("failed", DEFERRED, "failed"),
        ("failed", DELIVERED, "delivered"),
        ("delivered", DEFERRED, "delivered"),
        ("delivered", BOUNCED, "bounced"),
        ("bounced", DELIVERED, "bounced"),
    ],
)
def test_the_status_is_the_furthest(before: str, one: Receipt, status: str) -> None:
    assert written(log(before), [one])["status"] == status


@pytest.mark.parametrize("kind", ["unsubscribed", "token_gone"])
def test_what_is_not_of_the_messages_fate_changes_nothing(kind: Kind) -> None:
    assert applied(log(), receipt(kind)) == {}


def test_a_receipt_of_a_push_message_changes_nothing() -> None:
    assert applied(log(), receipt("delivered", channel="push")) == {}


def test_a_receipt_that_came_before_changes_nothing() -> None:
    for one in (DELIVERED, OPENED, CLICKED, BOUNCED, COMPLAINED, DEFERRED):
        assert applied(written(log(), [one]), one) == {}


def test_two_reports_of_the_same_kind_and_moment_are_two_events() -> None:
    after = written(
        log(), [receipt("opened", name="one"), receipt("opened", name="two"), receipt("opened", name="one")]
    )
    assert [event["type"] for event in after["events"]] == ["queued", "opened", "opened"]


def test_what_arrived_after_all_has_no_error() -> None:
    failed = log("failed", error={"code": "ReadTimeout", "message": "the provider's answer did not come"})
    assert applied(failed, DELIVERED)["error"] is None
    assert "error" not in written(failed, [DELIVERED])


def test_the_error_is_the_first_bounces() -> None:
    later = receipt("bounced", 40, "two", code="5.7.1")
    for order in permutations([BOUNCED, later, DELIVERED]):
        assert written(log(), order)["error"] == {"code": "5.1.1", "message": "no such user"}
    assert written(log(), [receipt("bounced")])["error"] == {"code": "bounced", "message": ""}


def test_moments_are_the_earliest_at_which_it_must_have_been_so() -> None:
    for order in permutations([DELIVERED, OPENED, DEFERRED]):
        after = written(log(sentAt=NOW + timedelta(seconds=0.7)), order)
        assert after["sentAt"] == NOW + timedelta(seconds=0.5)
        assert after["deliveredAt"] == NOW + timedelta(seconds=1)
    assert "deliveredAt" not in written(log(), [BOUNCED])


def test_a_moment_in_any_zone_is_kept_as_mongodb_keeps_it() -> None:
    at = datetime(2026, 1, 31, 14, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2)))
    changes = applied(log(), receipt("delivered", timestamp=at))
    assert changes["deliveredAt"] == NOW + timedelta(milliseconds=123)
    assert changes["events"][-1]["timestamp"].utcoffset() == timedelta(0)


def test_a_log_without_events_gets_its_first() -> None:
    assert len(applied({}, DELIVERED)["events"]) == 1


def test_of_thousands_of_opens_the_earliest_are_kept() -> None:
    opens = [receipt("opened", seconds, str(seconds)) for seconds in range(KEPT_EVENTS + 20)]
    after = written(log(), [*reversed(opens), DELIVERED])
    times = [event["timestamp"] for event in after["events"] if event["type"] == "opened"]
    assert times == [NOW + timedelta(seconds=seconds) for seconds in range(KEPT_EVENTS)]
    assert after["deliveredAt"] == NOW
    assert applied(after, opens[-1]) == {}


def test_a_log_has_the_statuses_and_types_of_its_collection() -> None:
    fields = COLLECTIONS["emailLogs"].fields
    assert set(STATUSES) == set(fields["status"])
    assert {sendgrid.PROVIDER, ses.PROVIDER, mailgun.PROVIDER, "smtp"} == set(fields["provider"])
    for kind in KINDS:
        for event in applied({"events": []}, receipt(kind)).get("events", []):
            assert event["type"] in fields["events"][0]["type"]  # type: ignore[index,call-overload]


RECEIPTS = st.builds(
    # The same kind and number is the same report, and says the same whenever it comes.
    lambda kind, number: receipt(kind, number * 0.4, str(number // 2), code=f"{number}"),
    st.sampled_from(KINDS),
    st.integers(0, 5),
)
LOGS = st.builds(
    lambda status, sent, error: log(
        status,
        **({} if sent is None else {"sentAt": NOW + timedelta(seconds=sent)}),
        **({"error": {"code": "503", "message": "come again"}} if error else {}),
    ),
    st.sampled_from(STATUSES),
    st.none() | st.integers(-1, 3),
    st.booleans(),
)


@given(before=LOGS, receipts=st.lists(RECEIPTS, max_size=8), data=st.data())
def test_receipts_in_any_order_and_number_end_in_the_same_log(
    before: dict[str, Any], receipts: list[Receipt], data: st.DataObject
) -> None:
    repeated = receipts + (data.draw(st.lists(st.sampled_from(receipts), max_size=8)) if receipts else [])
    end = written(before, receipts)
    assert written(before, data.draw(st.permutations(repeated))) == end
    assert all(applied(end, one) == {} for one in receipts)


@given(before=LOGS, receipts=st.lists(RECEIPTS, max_size=8))
def test_a_status_never_goes_back_and_no_event_is_lost(before: dict[str, Any], receipts: list[Receipt]) -> None:
    after = kept(before)
    for one in receipts:
        changed = written(after, [one])
        assert STATUSES.index(changed["status"]) >= STATUSES.index(after["status"])
        assert all(event in changed["events"] for event in after["events"])
        after = changed


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("550 <ada@blog.example>: no such user", "550 <recipient>: no such user"),
        ("user ADA@blog.example unknown", "user <recipient> unknown"),
        ("mailbox ada is full, radar is not", "mailbox <recipient> is full, radar is not"),
        ("forwarded to else@where.example", "forwarded to <recipient>"),
        ("550 <recipient@blog.example>: recipient unknown", "550 <recipient>: recipient unknown"),
        ("5.1.1 two\r\nlines\tof it", "5.1.1 two lines of it"),
        ("", ""),
        ("x" * 9000, "x" * 500),
    ],
)
def test_what_a_server_said_is_kept_without_addresses(text: str, without: str) -> None:
    assert without_addresses(text, "ada@blog.example") == without


def test_the_recipient_is_in_the_payload_and_in_no_document_nor_repr() -> None:
    one = receipt("bounced", recipient="ada@blog.example")
    assert one.payload()["recipient"] == "ada@blog.example"
    assert DeliveryReceived.model_validate(one.payload()) == one.data
    assert "ada@" not in repr(one)
    assert "ada@" not in repr(one.data.model_dump())
    assert "ada@" not in repr(applied(log(), one))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "lost"),
        ("channel", "inApp"),
        ("providerId", ""),
        ("timestamp", None),
        ("timestamp", "2026-01-31"),
        ("key", ""),
    ],
)
def test_a_value_that_would_spoil_a_log_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        DeliveryReceived.model_validate({**DELIVERED.payload(), field: value})
