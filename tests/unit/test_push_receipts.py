from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from notifications.receipts.push_log import applied, is_given_up
from notifications.receipts.receipt import Receipt
from schemas.receipts import DeliveryReceived, Kind
from sinks.collections import COLLECTIONS

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KINDS: tuple[Kind, ...] = get_args(Kind)
SECOND = timedelta(seconds=1)


def receipt(kind: Kind, seconds: float = 0, name: str = "one", **fields: Any) -> Receipt:
    data = {
        "channel": "push",
        "provider": "fcm",
        "providerId": "m",
        "kind": kind,
        "recipient": "token",
        "timestamp": NOW + seconds * SECOND,
        **fields,
    }
    return Receipt(f"fcm:{kind}-{name}", DeliveryReceived.model_validate(data))


def written(document: Mapping[str, Any], receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Apply receipts as the database would: each change is stored, and read before the next."""
    options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
    after = bson.decode(bson.encode(document), codec_options=options)
    for one in receipts:
        changed = {**after, **applied(after, one)}
        known = {name: value for name, value in changed.items() if value is not None}
        after = bson.decode(bson.encode(known), codec_options=options)
    return after


FAILED = {"status": "failed", "error": {"code": "503", "message": "come again"}}
GONE = receipt("token_gone", 2, code="UNREGISTERED", message="the app is gone")
DELIVERED = receipt("delivered", 1)


def test_what_arrived_is_delivered_although_its_attempt_looked_like_a_failure() -> None:
    assert written(FAILED, [DELIVERED]) == {
        "status": "delivered",
        "deliveredAt": NOW + SECOND,
        "sentAt": NOW + SECOND,
    }


@pytest.mark.parametrize("kind", ["opened", "clicked"])
def test_what_was_opened_has_arrived(kind: Kind) -> None:
    assert written({"status": "sent"}, [receipt(kind)])["status"] == "delivered"


def test_a_token_that_is_gone_fails_the_message_with_its_error() -> None:
    after = written({"status": "sent"}, [GONE])
    assert after["status"] == "failed"
    assert after["error"] == {
        "code": "UNREGISTERED",
        "message": "the app is gone",
        "eventId": "fcm:token_gone-one",
        "timestamp": NOW + 2 * SECOND,
    }
    assert is_given_up(after)
    assert not is_given_up(FAILED)


def test_a_bounce_without_a_reason_has_a_code_all_the_same() -> None:
    assert written({"status": "queued"}, [receipt("bounced")])["error"]["code"] == "bounced"


@pytest.mark.parametrize("kind", ["deferred", "unsubscribed"])
def test_what_is_not_of_the_messages_fate_changes_nothing(kind: Kind) -> None:
    assert applied({"status": "sent"}, receipt(kind)) == {}


def test_a_log_has_the_statuses_of_its_collection() -> None:
    statuses = COLLECTIONS["pushNotificationLogs"].fields["status"]
    assert {applied({}, receipt(kind)).get("status", "sent") for kind in KINDS} <= set(statuses)


RECEIPTS = st.builds(
    # The same kind and number is the same report, and says the same whenever it comes.
    lambda kind, number: receipt(kind, number // 2, str(number), code=f"{number}"),
    st.sampled_from(KINDS),
    st.integers(0, 5),
)
LOGS = st.sampled_from([{"status": "queued"}, {"status": "sent", "sentAt": NOW + SECOND}, FAILED])


@given(before=LOGS, receipts=st.lists(RECEIPTS, max_size=8), data=st.data())
def test_receipts_in_any_order_and_number_end_in_the_same_log(
    before: dict[str, Any], receipts: list[Receipt], data: st.DataObject
) -> None:
    repeated = receipts + (data.draw(st.lists(st.sampled_from(receipts), max_size=8)) if receipts else [])
    end = written(before, receipts)
    assert written(before, data.draw(st.permutations(repeated))) == end
    assert all(applied(end, one) == {} for one in receipts)
