"""The sender of the chaos run: what its storms are made of, and that the event log has what Kafka has, and no more."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from aiokafka.errors import KafkaTimeoutError, OutOfOrderSequenceNumber

from delivery.batch import Record
from delivery.dead_letters.limit import DeadLetterLimit
from delivery.producer import partition_of
from dev.blog import Blog
from dev.invalid_events import INVALID_EVENTS
from dev.traffic import COMPRESSIONS, INVALID_EVERY, Sample, Traffic, told
from runtime.settings import ROOT, Settings
from schemas.cloudevents import Decoder
from schemas.topics import load
from sinks import collections
from tests.chaos import sender as module
from tests.chaos.event_log import Entry, EventLog
from tests.chaos.sender import DUPLICATES_SHARE, LATE_SHARE, Batch, Duplicates, Late, Poison, Sender, StormKind

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TOPICS = load(ROOT / "topics.yaml", collections.NAMES).inbound
NAMESPACE = "chaos."
PARTITIONS = 3
SETTINGS = Settings(_env_file=None)


def traffic(rate: float = 600) -> Traffic:
    return Traffic(TOPICS.values(), began=NOW, rate=rate)


def decoded(topic: str, entry: Entry) -> Any:
    return Decoder(TOPICS[topic], SETTINGS.ahead_limit).decode(cast("Record", entry))


def decoded_id(entry: Entry) -> str:
    event_id: str = decoded(entry.topic.removeprefix(NAMESPACE), entry).id
    return event_id


def event_time(sample: Sample) -> datetime:
    batch = Batch(sample.topic, 0, [(sample, int(NOW.timestamp() * 1000))])
    moment: datetime = decoded(sample.topic, batch.entry(0, 0)).time
    return moment


def in_portions(storm: Any, samples: Iterable[Sample], portion: int = 120) -> list[Sample]:
    """Return what a storm sends beside samples that come in portions."""
    iterator, sent = iter(samples), []
    while fresh := list(islice(iterator, portion)):
        sent += storm.beside(fresh)
    return sent


# What storms are made of ----------------------------------------------------------------------------------------


def test_in_a_storm_of_poison_a_third_of_each_topic_cant_be_read() -> None:
    usual = traffic()
    storm = Poison(usual)
    samples = list(islice(usual, 12_000))
    assert in_portions(storm, samples) == []
    records = Counter(sample.topic for sample in samples)
    unreadable = Counter(sample.topic for sample in samples if sample.outcome == "dead-lettered")
    assert set(records) == set(TOPICS)
    in_scenarios = {name for name, topic in TOPICS.items() if topic.events.keys() & told(Blog())}
    for topic, count in ((topic, records[topic]) for topic in in_scenarios):  # of others there are few examples
        assert 0.25 < unreadable[topic] / count < 0.36
    assert storm.detail == f"{unreadable.total():,} of 12,000 records can't be read"


def test_a_storm_of_poison_has_every_kind_of_it() -> None:
    usual = traffic()
    Poison(usual)
    before = list(usual._invalid_events)
    used = set()
    for _ in islice(usual, 5_000):
        used |= {spoil for spoil, was in zip(usual._invalid_events, before, strict=True) if spoil is not was}
    assert used == set(INVALID_EVENTS)


def test_after_a_storm_of_poison_traffic_is_as_usual() -> None:
    usual = traffic()
    storm = Poison(usual)
    list(islice(usual, 1_000))
    assert list(storm.rest()) == []
    outcomes = Counter(sample.outcome for sample in islice(usual, 5_000))
    assert outcomes["dead-lettered"] < 100


@pytest.mark.parametrize("seed", range(2))
def test_poison_never_comes_near_the_limit_on_dead_letters(seed: int) -> None:
    """Whoever reads one partition or all of them, in batches of any size, one in five of them twice."""
    usual = traffic()
    Poison(usual)
    chance = Random(seed)
    kept_back: dict[tuple[str, int | None], list[bool]] = defaultdict(list)
    nearest = SETTINGS.dead_letter_limit * 0.85
    limits: defaultdict[Any, DeadLetterLimit] = defaultdict(
        lambda: DeadLetterLimit(nearest, SETTINGS.dead_letter_sample)
    )
    for sample in islice(usual, 20_000):
        for place in ((sample.topic, partition_of(sample.key, PARTITIONS)), (sample.topic, None)):
            batch = kept_back[place]
            batch.append(sample.outcome == "dead-lettered")
            if chance.random() < 1 / 60:
                for _ in range(chance.choice((1, 1, 1, 1, 2))):
                    refused = [at for at, is_refused in enumerate(batch) if is_refused]
                    limits[place].check(len(batch), refused)  # raises where it is reached
                batch.clear()


def test_duplicates_are_what_was_acknowledged_byte_for_byte() -> None:
    samples = list(islice(traffic(), 2_000))
    acknowledged = [sample for sample in samples if sample.id is not None]
    storm = Duplicates(acknowledged, Random(1))
    sent = in_portions(storm, samples, portion=7)
    assert len(sent) == len(samples) * DUPLICATES_SHARE
    known = {(sample.topic, sample.key, sample.value, sample.headers, sample.id) for sample in acknowledged}
    assert {(sample.topic, sample.key, sample.value, sample.headers, sample.id) for sample in sent} <= known
    assert {(sample.outcome, sample.reason) for sample in sent} == {("duplicate", None)}
    assert list(storm.rest()) == []


def test_before_anything_is_acknowledged_nothing_is_sent_twice() -> None:
    assert in_portions(Duplicates([], Random(1)), islice(traffic(), 100)) == []


def test_late_events_are_hours_and_days_old_and_still_counted() -> None:
    storm = Late(TOPICS.values(), now=NOW, most=3_000, seed=3)
    sent = [*in_portions(storm, islice(traffic(), 6_000)), *storm.rest()]
    # Some clocks are weeks ahead, and then the Kafka timestamp counts.
    moments = [moment for sample in sent if sample.reason is None and (moment := event_time(sample)) != NOW]
    assert len(moments) > 0.98 * len(sent) - sum(sample.reason is not None for sample in sent)
    assert min(moments) > NOW - SETTINGS.count_horizon + timedelta(days=1)
    assert max(moments) < NOW
    hours = {int((NOW - moment) / timedelta(hours=1)) for moment in moments}
    assert min(hours) < 6
    assert max(hours) > 4 * 24
    assert len(hours) > 100


def test_late_events_come_backwards_and_leave_nothing_half_told() -> None:
    storm = Late(TOPICS.values(), now=NOW, most=3_000, seed=3)
    sent = [*in_portions(storm, islice(traffic(), 2_000)), *storm.rest()]
    assert len(sent) >= 2_000 * LATE_SHARE
    viewed: set[str | None] = set()
    exits, early = 0, 0
    for sample in sent:
        for trace in sample.traces:
            if trace.collection == "pageViews" and trace.field is None:
                viewed.add(sample.id)
            elif trace.collection == "pageViews":
                exits += 1
                early += trace.id not in viewed
    assert early > exits * 0.8
    exited = {trace.id for sample in sent for trace in sample.traces if trace.field == "exitedAt"}
    assert len(exited - viewed) < 10, "of views that were sent before the block"


def test_late_events_end_before_they_would_happen_now() -> None:
    storm = Late(TOPICS.values(), now=NOW, most=1_000, seed=3)
    assert len(in_portions(storm, islice(traffic(), 10_000))) == 1_000


def test_two_storms_of_late_events_share_no_id() -> None:
    ids = []
    for seed, now in ((1, NOW), (2, NOW + timedelta(seconds=1))):
        storm = Late(TOPICS.values(), now=now, most=500, seed=seed)
        ids.append({sample.id for sample in in_portions(storm, islice(traffic(), 1_000)) if sample.id})
    assert not ids[0] & ids[1]


# What the event log has --------------------------------------------------------------------------------------------


@dataclass
class FakeKafka:
    """Takes batches, and answers as it is told."""

    log: dict[tuple[str, int], list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))
    fates: list[Any] = field(default_factory=list)
    is_full: bool = False
    is_away: bool = False
    waiting: list[tuple["asyncio.Future[Any]", Any]] = field(default_factory=list)
    producers: int = 0

    def come_back(self) -> None:
        """Answer all who wait."""
        self.is_away = False
        for sending, place in self.waiting:
            sending.set_result(place)

    def take(self, batch: "FakeBatch", topic: str, partition: int) -> "asyncio.Future[Any]":
        """Take a batch; answer with its place, or with its fate where it has one."""
        sending = asyncio.get_running_loop().create_future()
        log = self.log[topic, partition]
        place = SimpleNamespace(offset=len(log))
        log += batch
        fate = self.fates.pop(0) if self.fates else place
        if self.is_away:
            self.waiting.append((sending, place))
        elif isinstance(fate, Exception):
            sending.set_exception(fate)
        else:
            sending.set_result(fate)
        return sending

    @property
    def places(self) -> dict[tuple[str, int, int], tuple[Any, ...]]:
        return {
            (topic, partition, offset): record
            for (topic, partition), records in self.log.items()
            for offset, record in enumerate(records)
        }


class FakeBatch(list[tuple[Any, ...]]):
    def append(self, *, timestamp: int, key: bytes, value: bytes | None, headers: list[Any]) -> object:  # type: ignore[override]
        super().append((timestamp, key, value, tuple(headers)))
        return object()


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()

    class FakeProducer:
        def __init__(self, **options: Any) -> None:
            assert options["enable_idempotence"]
            fake.producers += 1

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        async def partitions_for(self, _: str) -> set[int]:
            return set(range(PARTITIONS))

        def create_batch(self) -> FakeBatch:
            return FakeBatch()

        async def send_batch(self, batch: FakeBatch, topic: str, *, partition: int) -> "asyncio.Future[Any]":
            await asyncio.sleep(0)
            if fake.is_full:
                fake.is_full = False
                raise KafkaTimeoutError
            return fake.take(batch, topic, partition)

    monkeypatch.setattr(module, "AIOKafkaProducer", FakeProducer)
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.01)
    return fake


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.sqlite")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows that PostgreSQL has taken; at first it takes none."""
    rows: list[Any] = []
    calls = 0

    async def write(posts: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            rows.extend(posts._rows)
            posts._rows.clear()

    monkeypatch.setattr("dev.posts.WrittenPosts.write", write)
    monkeypatch.setattr(module, "_WRITE_POSTS_SECONDS", 0.01)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.01)
    return rows


def sender_of(event_log: EventLog, rate: float = 5_000) -> Sender:
    return Sender(
        "", NAMESPACE, TOPICS.values(), event_log, rate=rate, seed=1, began=NOW, owner_url="postgresql://nobody"
    )


def said(event_log: EventLog) -> dict[tuple[str, int, int], tuple[Any, ...]]:
    """Return what the event log has, as Kafka has it."""
    return {entry[:3]: entry[3:7] for entry in event_log.entries()}


class Enough(asyncio.Event):
    """Ends a sender's run; counts its ticks, at each of which the sender waits for this."""

    ticks = 0

    async def wait(self) -> Literal[True]:
        self.ticks += 1
        return await super().wait()

    async def after(self, ticks: int) -> None:
        """Return so many ticks later."""
        last = self.ticks + ticks
        await until(lambda: self.ticks >= last)


@asynccontextmanager
async def running(sender: Sender) -> AsyncIterator[Enough]:
    """Let a sender run; at the end all is acknowledged."""
    enough = Enough()
    async with asyncio.timeout(60), sender, asyncio.TaskGroup() as tasks:
        tasks.create_task(sender.run(enough))
        yield enough
        enough.set()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def run_until(sender: Sender, condition: Callable[[], bool]) -> None:
    async with running(sender):
        await until(condition)


async def test_the_event_log_has_what_kafka_has(kafka: FakeKafka, event_log: EventLog, written: list[Any]) -> None:
    sender = sender_of(event_log)
    await run_until(sender, lambda: sender.sent > 1_500)
    entries = list(event_log.entries())
    assert said(event_log) == kafka.places
    assert len(entries) == sender.sent
    assert sender.untold == 0
    in_scenarios = {name for name, topic in TOPICS.items() if topic.events.keys() & told(Blog())}
    assert {entry.topic for entry in entries} >= {NAMESPACE + topic for topic in in_scenarios - {"delivery-receipts"}}
    assert {entry.reason for entry in entries} >= {None, "not-json", "schema", "unknown-type"}
    assert written


async def test_each_record_is_in_the_partition_of_its_key(
    kafka: FakeKafka, event_log: EventLog, written: list[Any]
) -> None:
    sender = sender_of(event_log)
    await run_until(sender, lambda: sender.sent > 1_000)
    assert all(partition_of(entry.key or b"", PARTITIONS) == entry.partition for entry in event_log.entries())


def views_in(event_log: EventLog) -> Iterable[Entry]:
    return event_log.entries(NAMESPACE + "page-views")


async def test_what_is_owed_is_sent_in_the_end(kafka: FakeKafka, event_log: EventLog, written: list[Any]) -> None:
    sender = sender_of(event_log)
    # Nobody leaves before having stayed.
    await run_until(
        sender, lambda: sender.sent > 2_000 and any(b"viewId" in (entry.value or b"") for entry in views_in(event_log))
    )
    views, exited = set(), set()
    for entry in views_in(event_log):
        if entry.reason is None:
            event = decoded("page-views", entry)
            if event.type.name == "page.viewed":
                views.add(event.id)
            else:
                exited.add(event.data.view_id)
    assert exited
    assert exited <= views


async def test_what_is_not_acknowledged_is_not_in_the_ledger_and_is_bounded(
    kafka: FakeKafka, event_log: EventLog, written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_UNACKNOWLEDGED", 1_000)
    kafka.is_away = True
    sender = sender_of(event_log)
    async with running(sender) as enough:
        await until(lambda: sender.untold >= 1_000)
        await enough.after(ticks=10)
        assert sender.untold < 2_000
        assert sender.sent == event_log.count == 0
        kafka.come_back()


async def test_it_returns_when_all_is_acknowledged_and_not_before(
    kafka: FakeKafka, event_log: EventLog, written: list[Any]
) -> None:
    sender = sender_of(event_log)
    enough = asyncio.Event()
    kafka.is_away = True
    async with sender:
        sending = asyncio.create_task(sender.run(enough))
        await until(lambda: sender.untold > 0)
        enough.set()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sending.done()
        kafka.come_back()
        async with asyncio.timeout(20):
            await sending
    assert sender.untold == 0


async def test_where_there_was_no_room_it_is_tried_again(
    kafka: FakeKafka, event_log: EventLog, written: list[Any]
) -> None:
    sender = sender_of(event_log)
    kafka.is_full = True
    await run_until(sender, lambda: sender.sent > 1_000)
    assert said(event_log) == kafka.places
    assert kafka.producers == len(COMPRESSIONS)


async def test_a_batch_of_unknown_fate_is_sent_again_by_another_producer_and_looked_for(
    kafka: FakeKafka, event_log: EventLog, written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def records(_: object, place: Any) -> Any:
        for offset, (timestamp, key, value, headers) in enumerate(kafka.log[place.topic, place.partition]):
            yield SimpleNamespace(offset=offset, timestamp=timestamp, key=key, value=value, headers=headers)

    class FakeConsumer:
        def __init__(self, **_: Any) -> None: ...

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None: ...

    kafka.fates = [OutOfOrderSequenceNumber(), SimpleNamespace(offset=-1)]
    monkeypatch.setattr(module, "_records", records)
    monkeypatch.setattr(module, "AIOKafkaConsumer", FakeConsumer)
    sender = sender_of(event_log)
    await run_until(sender, lambda: sender.sent > 1_000)
    assert said(event_log) == kafka.places, "both copies, each at its place"
    twice = [record for record, count in Counter(kafka.places.values()).items() if count > 1]
    assert twice
    assert sender.untold == 0
    assert sender.sent == len(kafka.places)
    assert kafka.producers > len(COMPRESSIONS)


async def test_what_others_wrote_is_not_taken_for_an_uncertain_record(event_log: EventLog) -> None:
    sender = sender_of(event_log)
    wanted = [Entry("t", 0, -1, 5, b"key", b"value", (), None)]
    for timestamp, value in ((6, b"value"), (5, b"other")):
        record = SimpleNamespace(offset=1, timestamp=timestamp, key=b"key", value=value, headers=())
        sender._record_found(record, wanted)
    assert (sender.sent, len(wanted)) == (0, 1)


async def test_storms_beside_a_run(kafka: FakeKafka, event_log: EventLog, written: list[Any]) -> None:
    sender = sender_of(event_log, rate=2_000)
    async with running(sender):
        await until(lambda: sender.sent > 500)
        kinds: tuple[StormKind, ...] = ("poison", "duplicates", "late")
        details = await asyncio.gather(*(sender.storm(kind, 1.0) for kind in kinds))
        assert sender._traffic.invalid_every == INVALID_EVERY
    poison, duplicates, late = (int(detail.split()[0].replace(",", "")) for detail in details)
    assert min(poison, duplicates, late) > 0
    assert said(event_log) == kafka.places
    readable = [entry for entry in event_log.entries() if entry.reason is None]
    assert event_log.count - len(readable) >= poison
    assert len(readable) - len({decoded_id(entry) for entry in readable}) >= duplicates


async def test_a_storm_that_outlasts_the_run_leaves_nothing_half_told(
    kafka: FakeKafka, event_log: EventLog, written: list[Any]
) -> None:
    sender = sender_of(event_log, rate=2_000)
    async with sender:
        async with running(sender):
            storm = asyncio.create_task(sender.storm("late", 60))
            await until(lambda: sender.sent > 500)
        sent = sender.sent
        storm.cancel()
        with suppress(asyncio.CancelledError):
            await storm
    assert sender.sent == sent == event_log.count
    assert sender._left == []


async def test_after_an_outage_it_catches_up_by_and_by(
    kafka: FakeKafka, event_log: EventLog, written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 2_000
    portions: list[int] = []
    monkeypatch.setattr(module, "MOST_UNACKNOWLEDGED", 100)
    sender = sender_of(event_log, rate)
    portion = sender._portion

    def noted(count: int) -> list[Sample]:
        portions.append(count)
        return portion(count)

    monkeypatch.setattr(sender, "_portion", noted)
    kafka.is_away = True
    async with running(sender) as enough:
        await until(lambda: sum(portions) >= 100)
        await enough.after(ticks=30)
        assert sum(portions) < 200
        before, began = sum(portions), time.monotonic()
        kafka.come_back()
        await until(lambda: sum(portions) > before + 500)
        a_tick = max(0.05, portions[-1] / rate)
        assert sum(portions) - before <= 1.5 * rate * (time.monotonic() - began + a_tick)
    assert said(event_log) == kafka.places


async def test_the_rate_may_be_changed_meanwhile(kafka: FakeKafka, event_log: EventLog, written: list[Any]) -> None:
    sender = sender_of(event_log)
    async with running(sender) as enough:
        await until(lambda: sender.sent > 0)
        sender.rate = 0
        await enough.after(ticks=10)
        sent = sender.sent
        await enough.after(ticks=10)
        assert sender.sent == sent
