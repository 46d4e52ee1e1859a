"""What passes the edge can be stored: MongoDB's validators take it, or it is refused for one of few known reasons.

And what Inkstream makes of it for its own topics and queues can be read there again.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import assume, given
from hypothesis import strategies as st

from enrich.view_windows import Window, start_of, touched
from notifications.item import Item
from notifications.message_builder import Address, MessageBuilder, new_log
from notifications.messages import Email, Push
from notifications.receipts import email_log, push_log
from notifications.receipts.receipt import Receipt
from notifications.rendering import Renderer
from notifications.rules import LONGEST_WINDOW
from notifications.unsubscribing import UnsubscribeLinks
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.receipts import DeliveryReceived
from schemas.topics import EventType, Topic
from schemas.view_counts import ViewsCounted, WindowTouched
from sinks.collections import EMAIL_LOGS, NOTIFICATION_QUEUE, NOTIFICATIONS, PUSH_NOTIFICATION_LOGS
from sinks.mongo.errors import Refusal, blames_content, refusal_of_error
from tests.fuzz import events
from tests.fuzz.edge import EVENTS, Passed, edge, notifier, stored
from tests.fuzz.profiles import fuzzed
from tests.fuzz.validator import problems
from tests.unit.test_view_windows import count, touch

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LOGS: dict[str, tuple[str, dict[str, Any]]] = {
    "email": (
        EMAIL_LOGS.name,
        {
            "_id": "key",
            "to": "ada@example.org",
            "from": "blog@example.org",
            "subject": "",
            "provider": "smtp",
            "status": "sent",
            "events": [{"type": "queued", "timestamp": NOW}, {"type": "sent", "timestamp": NOW}],
            "createdAt": NOW,
            "sentAt": NOW,
        },
    ),
    "push": (
        PUSH_NOTIFICATION_LOGS.name,
        {
            "_id": "key",
            "userId": "ada",
            "deviceToken": "token",
            "platform": "ios",
            "title": "",
            "body": "",
            "provider": "apns",
            "status": "failed",
            "createdAt": NOW,
            "error": {"code": "503", "message": ""},
        },
    ),
}
"""Logs that receipts change, each after its collection."""

MESSAGE_BUILDER = MessageBuilder(
    Renderer("Blog", "https://blog.example"),
    UnsubscribeLinks("https://blog.example/unsubscribe", "a secret"),
    "Blog <blog@example.org>",
)

every_event = pytest.mark.parametrize(("topic", "event"), EVENTS.values(), ids=EVENTS)
every_notified_event = pytest.mark.parametrize("name", list(notifier().events))


def passed(name: str, record: events.Record) -> Passed:
    """Return what passes the edge; what does not is none of these tests' business."""
    outcome = edge(EVENTS[name][0].name).take(record)
    assume(isinstance(outcome, Passed))
    assert isinstance(outcome, Passed)
    return outcome


def refusal(document: dict[str, Any]) -> Refusal | None:
    """Return why MongoDB's driver can't encode a document, which must be for what it holds; `None` where it can."""
    try:
        bson.encode(document)
    except Exception as error:
        if not blames_content(error):
            raise
        return refusal_of_error(error)
    return None


@every_event
@given(data=st.data())
@fuzzed(20)
def test_what_passes_is_taken_by_the_validators_and_can_be_encoded(
    topic: Topic, event: EventType, data: st.DataObject
) -> None:
    taken = passed(event.name, data.draw(events.events(event)))
    for write in (*taken.writes, *taken.notices):
        for collection, document in stored(write):
            assert problems(collection, document) == []
            assert 0 < len(document["_id"]) <= 256
            refused = refusal(document)
            assert refused is None or refused.reason == "refused-by-store"
            if collection == NOTIFICATION_QUEUE.name:
                assert Item.from_document(document).id == document["_id"]


@every_notified_event
@given(data=st.data(), days=st.integers(1, LONGEST_WINDOW.days))
@fuzzed(20)
def test_notices_are_gathered_in_windows_of_any_length(name: str, data: st.DataObject, days: int) -> None:
    taken = passed(name, data.draw(events.events(EVENTS[name][1])))
    for write in notifier(timedelta(days=days)).documents(taken.event):
        for collection, document in stored(write):
            assert problems(collection, document) == []


@pytest.mark.parametrize("name", ["notification.requested", *notifier().events])
@given(data=st.data())
@fuzzed(20)
def test_what_people_are_told_becomes_messages_and_their_logs(name: str, data: st.DataObject) -> None:
    taken = passed(name, data.draw(events.events(EVENTS[name][1])))
    documents = [each for write in (*taken.writes, *taken.notices) for each in stored(write)]
    notifications = {
        document["_id"]: document for collection, document in documents if collection == NOTIFICATIONS.name
    }
    for collection, document in documents:
        if collection != NOTIFICATION_QUEUE.name:
            continue
        item = Item.from_document(document)
        devices = item.recipient.devices if item.recipient else ()
        for delivery in item.plan(devices, NOW):
            addresses = [Address(device.token, device) for device in devices]
            for address in addresses if delivery.channel == "push" else [Address("ada@example.org", None)]:
                message = MESSAGE_BUILDER.build(item, delivery, address, notifications[item.notification_id])
                collection_of_log, log = _first_log(item, message)
                assert problems(collection_of_log, log) == []
                assert refusal(log) is None


def _first_log(item: Item, message: Email | Push) -> tuple[str, dict[str, Any]]:
    """Return a message's log as it is before the first attempt, after its collection."""
    beginning: dict[str, Any] = {"_id": message.key, "status": "queued"}
    if isinstance(message, Email):
        return EMAIL_LOGS.name, {**beginning, "events": [], **new_log(item, message, "smtp", NOW)}
    return PUSH_NOTIFICATION_LOGS.name, {**beginning, **new_log(item, message, "apns", NOW)}


@given(record=events.events(EVENTS["page.viewed"][1]))
@fuzzed(60)
async def test_the_windows_that_a_view_touches_are_counted_and_applied(record: events.Record) -> None:
    taken = passed("page.viewed", record)
    touches = (await touch(taken.writes, record.timestamp)).decoded("view-windows")
    windows = {_window(event) for event in touches}
    assert windows == touched(taken.writes).keys()
    for window in windows:
        assert window.start <= taken.event.time < window.end
        counts = (await count(window, 1)).decoded("post-view-counts")
        assert [_window(event) for event in counts] == [window]


def _window(event: Envelope[Event]) -> Window:
    assert isinstance(event.data, WindowTouched | ViewsCounted)
    return Window(event.data.post_id, start_of(event.data.window_start))


@given(record=events.events(EVENTS["delivery.reported"][1]))
@fuzzed(60)
def test_a_receipt_leaves_its_log_as_the_validator_wants_it_and_changes_nothing_twice(record: events.Record) -> None:
    event = passed("delivery.reported", record).event
    assert isinstance(event.data, DeliveryReceived)
    receipt = Receipt(event.id, event.data.model_copy(update={"timestamp": event.time}))
    collection, log = LOGS[event.data.channel]
    apply = email_log.applied if event.data.channel == "email" else push_log.applied
    changed = {name: value for name, value in {**log, **apply(log, receipt)}.items() if value is not None}
    assert problems(collection, changed) == []
    kept: dict[str, Any] = bson.decode(bson.encode(changed), CodecOptions(tz_aware=True))
    assert apply(kept, receipt) == {}
