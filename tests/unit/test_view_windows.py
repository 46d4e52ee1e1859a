"""Which windows page views touch, and what is said of them in Kafka: it satisfies the schemas that others read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import to_json

from agents.view_counts.count_views import CountViews
from agents.view_counts.pending_windows import PendingCount
from agents.view_counts.touch_windows import TouchWindows
from delivery.dead_letters.writer import DeadLetters
from delivery.producer import OutgoingRecord, RecordProducer, partition_of
from enrich.documents import Document, PartialUpdate, Write
from enrich.view_windows import LENGTH, Window, start_of, touched
from runtime.health import Health
from runtime.settings import ROOT
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import LATEST, Event
from schemas.topics import load
from schemas.view_counts import ViewsCounted, WindowTouched
from sinks.collections import NAMES
from sinks.mongo.outcome import Outcome
from sinks.mongo.page_view_counts import StoredViews

DERIVED = load(ROOT / "topics.yaml", NAMES).derived
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PARTITIONS = 6
KAFKA_TIMESTAMP = int(NOON.timestamp() * 1000) + 250

post_ids = st.text(min_size=1, max_size=256).filter(lambda text: "\0" not in text and text.isprintable())
moments = st.timedeltas(timedelta(days=-36_500), timedelta(days=36_500)).map(lambda age: NOON + age)


def view(post_id: str = "post-1", time: datetime = NOON, **fields: object) -> Document:
    return Document("pageViews", {"postId": post_id, "timestamp": time, **fields})


# The window of a moment


@given(moments)
@example(datetime(1970, 1, 1, tzinfo=UTC))
@example(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
@example(datetime(2026, 1, 31, 12, 4, 59, 999_999, tzinfo=UTC))
@example(datetime(1600, 1, 1, 0, 4, 59, 999_999, tzinfo=UTC))
def test_a_moment_is_in_its_window_and_windows_do_not_overlap(moment: datetime) -> None:
    start = start_of(moment)
    assert start <= moment < Window("post-1", start).end
    assert (start - datetime(1970, 1, 1, tzinfo=UTC)) % LENGTH == timedelta(0)


def test_a_moment_far_from_now_is_in_its_window_to_the_microsecond() -> None:
    assert start_of(datetime(9999, 12, 28, 12, 4, 59, 999_999, tzinfo=UTC)).minute == 0


def test_a_window_has_its_first_moment_and_not_its_last() -> None:
    assert start_of(NOON) == NOON
    assert start_of(NOON - timedelta(microseconds=1)) == NOON - LENGTH
    assert start_of(NOON + LENGTH - timedelta(microseconds=1)) == NOON


def test_a_window_is_the_same_in_every_time_zone() -> None:
    from_delhi = datetime.fromisoformat("2026-01-31T17:32:00+05:30")
    assert start_of(from_delhi) == NOON
    assert start_of(from_delhi).tzinfo is UTC


# The windows that writes touch


def test_views_are_grouped_by_post_and_window() -> None:
    minute = timedelta(minutes=1)
    writes = [view(), view(time=NOON + 4 * minute), view(time=NOON + 5 * minute), view("post-2", NOON + minute)]
    assert touched(writes) == {
        Window("post-1", NOON): 2,
        Window("post-1", NOON + LENGTH): 1,
        Window("post-2", NOON): 1,
    }


def test_a_view_by_a_bot_and_one_that_comes_again_touch_their_window_too() -> None:
    assert touched([view(bot={"rule": "crawler"})]) == {Window("post-1", NOON): 1}
    assert touched([view(), view()]) == {Window("post-1", NOON): 2}


def test_an_exit_and_other_collections_touch_nothing() -> None:
    exit_part = PartialUpdate("pageViews", "view-1", NOON, highest={"timeSpent": 3}, added={})
    event = Document("analyticsEvents", {"postId": "post-1", "timestamp": NOON})
    assert touched([exit_part, event]) == {}


def test_a_post_id_that_postgresql_cannot_hold_touches_nothing() -> None:
    assert touched([view("post\0-1"), view("post-2")]) == {Window("post-2", NOON): 1}


# What is said of them


@dataclass
class KafkaRecord:
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Sent:
    """Stands in for the producer: remembers what was sent."""

    def __init__(self) -> None:
        self.records: list[OutgoingRecord] = []

    async def partition_count(self, topic: str) -> int:
        return PARTITIONS

    async def send(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        self.records += records

    def decoded(self, topic: str) -> list[Envelope[Event]]:
        """Return what was sent as readers of the topic understand it."""
        decoder = Decoder(DERIVED[topic], timedelta(days=1))
        now = int(datetime.now(UTC).timestamp() * 1000)
        return [
            decoder.decode(KafkaRecord(topic, sent.partition, 0, now, sent.key, sent.value, [*sent.headers]))
            for sent in self.records
        ]


def record(timestamp: int) -> KafkaRecord:
    return KafkaRecord("page-views", 0, 0, timestamp, None, b"{}", [])


async def touch(writes: Sequence[Write], *timestamps: int) -> Sent:
    sent = Sent()
    await TouchWindows("view-windows", cast(RecordProducer, sent))(
        writes, Outcome({}, {}, []), [record(each) for each in timestamps]
    )
    return sent


@given(post_ids, moments)
async def test_a_touched_window_is_an_event_in_the_partition_of_its_post(post_id: str, moment: datetime) -> None:
    sent = await touch([view(post_id, moment)] * 3, KAFKA_TIMESTAMP + 5, KAFKA_TIMESTAMP, KAFKA_TIMESTAMP + 9)
    [touching] = sent.records
    assert touching.key == post_id.encode()
    assert touching.partition == partition_of(post_id.encode(), PARTITIONS)
    [event] = sent.decoded("view-windows")
    assert event.data == WindowTouched(
        postId=post_id,
        windowStart=start_of(moment),
        views=3,
        oldestViewAt=datetime.fromtimestamp(KAFKA_TIMESTAMP / 1000, UTC),
    )


@pytest.mark.parametrize("timestamp", [-1, 0, 10**14, 2**62])
async def test_a_kafka_timestamp_that_is_no_time_harms_nothing(timestamp: int) -> None:
    [event] = (await touch([view()], timestamp)).decoded("view-windows")
    assert isinstance(event.data, WindowTouched)
    assert datetime(1970, 1, 1, tzinfo=UTC) <= event.data.oldest_view_at <= datetime.now(UTC)


async def test_nothing_is_sent_where_nothing_is_touched() -> None:
    assert (await touch([PartialUpdate("pageViews", "view-1", NOON, {}, {})], KAFKA_TIMESTAMP)).records == []


class StoredCounts:
    """Stands in for MongoDB: every window has as many views."""

    name = "mongodb"

    def is_transient(self, error: BaseException) -> bool:
        return False

    def __init__(self, views: int) -> None:
        self._views = views

    async def count(self, windows: Sequence[Window]) -> dict[Window, int]:
        return dict.fromkeys(windows, self._views)


async def count(window: Window, views: int, oldest_view_at: datetime = NOON) -> Sent:
    """Let the agent count a window that has so many views."""
    sent, stored = Sent(), StoredCounts(views)
    agent = CountViews(
        "post-view-counts",
        TouchWindows("view-windows", cast(RecordProducer, sent)),
        Decoder(DERIVED["view-windows"], timedelta(days=1)),
        cast(StoredViews, stored),
        stored,
        cast(RecordProducer, sent),
        cast(DeadLetters, None),
        Health(),
        every=timedelta(seconds=1),
        horizon=timedelta(days=7),
        rate=100_000,
    )
    await agent._count({window: PendingCount(oldest_view_at)})
    return sent


@given(post_ids, moments, st.integers(0, 2**53))
@example("p" * 256, NOON, 2**53)
async def test_a_count_is_an_event_for_everyone(post_id: str, moment: datetime, views: int) -> None:
    window = Window(post_id, start_of(moment))
    sent = await count(window, views)
    [counted] = sent.records
    [event] = sent.decoded("post-view-counts")
    assert isinstance(event.data, ViewsCounted)
    assert counted.key == event.data.window_id.encode()
    assert counted.partition == partition_of(post_id.encode(), PARTITIONS)
    assert (event.data.post_id, event.data.window_start, event.data.window_end) == (post_id, window.start, window.end)
    assert event.data.views == views
    assert event.data.oldest_view_at == NOON
    assert event.time == event.data.as_of


async def test_a_count_of_the_last_window_of_all_is_an_event_too() -> None:
    window = Window("post-1", start_of(LATEST))
    [event] = (await count(window, 3)).decoded("post-view-counts")
    assert isinstance(event.data, ViewsCounted)
    assert event.data.window_end == window.end > LATEST


async def test_a_count_follows_cloudevents_and_has_the_same_id_only_when_it_says_the_same() -> None:
    async def headers(window: Window, views: int) -> dict[str, Any]:
        [counted] = (await count(window, views)).records
        return {name: value.decode() for name, value in counted.headers}

    window = Window("post-1", NOON)
    once, again, higher, other = [
        await headers(window, 3),
        await headers(window, 3),
        await headers(window, 4),
        await headers(Window("post-2", NOON), 3),
    ]
    assert once["ce_specversion"] == "1.0"
    assert once["ce_type"] == "post.views_counted"
    assert once["ce_source"] == "/inkstream"
    assert datetime.fromisoformat(once["ce_time"]).tzinfo is not None
    assert once["ce_id"] == again["ce_id"]
    assert len({once["ce_id"], higher["ce_id"], other["ce_id"]}) == 3


async def test_the_key_of_a_count_is_its_window_so_that_kafka_keeps_the_latest_of_each() -> None:
    windows = [Window("post-1", NOON), Window("post-1", NOON + LENGTH), Window("post-2", NOON)]
    keys = [(await count(window, 3)).records[0].key for window in windows]
    assert keys == [b"post-1/2026-01-31T12:00:00Z", b"post-1/2026-01-31T12:05:00Z", b"post-2/2026-01-31T12:00:00Z"]


@pytest.mark.parametrize("topic", DERIVED)
def test_a_post_id_that_postgresql_cannot_hold_is_refused(topic: str) -> None:
    [event_type] = DERIVED[topic].events.values()
    value = to_json(event_type.examples[0] | {"postId": "post\0-1"})
    with pytest.raises(InvalidEvent):
        Decoder(DERIVED[topic], timedelta(days=1)).decode(KafkaRecord(topic, 0, 0, KAFKA_TIMESTAMP, None, value, []))
