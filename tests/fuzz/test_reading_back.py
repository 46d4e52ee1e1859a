"""What is read back from Kafka's dead letters and MongoDB's queue, whoever wrote it there: it is ours, or it is not."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notifications.item import Item, UnreadableItemError
from ops.dead_letters import Letter, letter_of
from tests.fuzz import events
from tests.fuzz.events import Record
from tests.fuzz.profiles import fuzzed

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LETTER = {
    "dl_topic": b"page-views",
    "dl_partition": b"0",
    "dl_offset": b"7",
    "dl_reason": b"schema",
    "dl_message": b"postId: missing",
    "dl_time": b"2026-01-31T12:00:00+00:00",
    "dl_timestamp": b"1769860800000",
    "dl_release": b"0.1.0",
}
ITEM: dict[str, Any] = {
    "_id": "notification",
    "status": "processing",
    "priority": 2,
    "notificationId": "notification",
    "userId": "user",
    "type": "welcome",
    "channels": ["inApp", "email", "push"],
    "attempts": 1,
    "maxAttempts": 5,
    "nextRetryAt": NOW,
    "errors": [],
    "createdAt": NOW,
    "expiresAt": NOW,
    "transactional": False,
    "deliveries": [
        {"channel": "email", "state": "waiting", "since": NOW, "attempts": 0, "nextAttemptAt": NOW},
        {"channel": "push", "device": "d", "state": "skipped", "since": NOW, "attempts": 0, "reason": "suppressed"},
    ],
    "recipient": {"email": "ada@example.org", "devices": [{"token": "t", "platform": "ios"}]},
    "revision": 3,
}
# All that a document of MongoDB may hold, as its driver gives it.
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), "email", "sent", "waiting"]),
)
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner)),
    max_leaves=5,
)


def _spoilt_headers() -> st.SearchStrategy[dict[str, bytes | None]]:
    odd = st.one_of(
        st.none(),
        st.binary(max_size=20),
        events.texts_of_moments().map(str.encode),
        st.sampled_from([b"9" * 5_000, "\uff11\uff12".encode(), b"-1", b"1e3", b"1_000", b" 1"]),
    )
    changes = st.dictionaries(st.sampled_from(list(LETTER)), odd, max_size=3)
    return changes.map(lambda some: {**LETTER, **some})


@given(headers=st.one_of(_spoilt_headers(), events.headers(("page.viewed",)).map(dict)))
@fuzzed(100)
def test_a_record_in_a_dead_letter_topic_is_a_letter_or_none(headers: dict[str, bytes | None]) -> None:
    letter = letter_of(Record(b"{}", tuple(headers.items())))  # type: ignore[arg-type]  # all that is read of it
    assert letter is None or isinstance(letter, Letter)


@given(document=st.one_of(_values.map(lambda value: {"_id": value}), events.tampered([ITEM], _values)))
@fuzzed(100)
def test_a_document_of_the_queue_is_an_item_or_unreadable(document: dict[str, Any]) -> None:
    try:
        item = Item.from_document(document)
    except UnreadableItemError:
        return
    assert isinstance(item, Item)
