from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from dev.blog import Blog
from dev.invalid_events import INVALID_EVENTS
from dev.traffic import COMPRESSIONS, Sample, Traffic, told
from enrich.documents import Document, Occurrence, PartialUpdate, Write
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from runtime.settings import ROOT, Settings
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event
from schemas.topics import load
from sinks import collections

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
RATE = 300
TOPICS = load(ROOT / "topics.yaml", collections.NAMES).inbound
DECODERS = {name: Decoder(topic, timedelta(hours=24)) for name, topic in TOPICS.items()}


def traffic(began: datetime = BEGAN, seed: int = 1) -> Traffic:
    return Traffic(TOPICS.values(), began=began, rate=RATE, seed=seed)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    source = traffic()
    sent = list(islice(source, 12_000))
    return [*sent, *source.owed()]


def position(sample: Sample, offset: int) -> str:
    return f"{sample.topic}:0:{offset}"


def decoded(sample: Sample, offset: int) -> Envelope[Event]:
    record: Any = SimpleNamespace(
        topic=sample.topic,
        partition=0,
        offset=offset,
        timestamp=int((BEGAN + timedelta(seconds=sample.due)).timestamp() * 1000),
        key=sample.key,
        value=sample.value,
        headers=sample.headers,
    )
    return DECODERS[sample.topic].decode(record)


def written(write: Write) -> tuple[str, str]:
    if isinstance(write, Document):
        return write.collection, write.body["_id"]
    if isinstance(write, Occurrence):
        return "systemLogs", write.line["_id"]
    assert isinstance(write, PartialUpdate)
    return write.collection, write.id


def test_the_same_seed_and_moment_give_the_same_samples() -> None:
    assert list(islice(traffic(), 3_000)) == list(islice(traffic(), 3_000))


def test_another_seed_gives_other_samples() -> None:
    assert list(islice(traffic(), 100)) != list(islice(traffic(seed=2), 100))


def test_two_runs_share_no_event_id(samples: list[Sample]) -> None:
    later = traffic(BEGAN + timedelta(milliseconds=1))
    theirs = {sample.id for sample in islice(later, 5_000) if sample.id}
    assert not theirs & {sample.id for sample in samples}


def test_all_ids_of_a_run_begin_alike(samples: list[Sample]) -> None:
    beginning = traffic().ids
    assert all(sample.id.startswith(beginning) for sample in samples if sample.id)


def test_samples_come_at_a_steady_rate(samples: list[Sample]) -> None:
    moments = [sample.due for sample in samples[:12_000]]
    assert all(later - earlier == pytest.approx(1 / RATE, abs=1e-5) for earlier, later in pairwise(moments))


def test_every_event_type_is_shown(samples: list[Sample]) -> None:
    shown = {
        decoded(sample, offset).type.name for offset, sample in enumerate(samples) if sample.outcome != "dead-lettered"
    }
    assert shown == {event for topic in TOPICS.values() for event in topic.events}


def test_every_topic_has_good_samples_duplicates_and_mishaps(samples: list[Sample]) -> None:
    outcomes = Counter((sample.topic, sample.outcome) for sample in samples)
    # A topic of which no scenario tells is shown by its examples, which are few.
    in_scenarios = {name for name, topic in TOPICS.items() if topic.events.keys() & told(Blog())}
    assert set(outcomes) >= {
        (topic, outcome) for topic in in_scenarios for outcome in ("stored", "duplicate", "dead-lettered")
    }
    assert {topic for topic, outcome in outcomes if outcome == "stored"} == set(TOPICS)


def test_every_compression_is_used(samples: list[Sample]) -> None:
    assert {sample.compression for sample in samples} == set(COMPRESSIONS)


def test_three_in_a_hundred_are_duplicates_and_one_is_is_invalid(samples: list[Sample]) -> None:
    outcomes = Counter(sample.outcome for sample in samples)
    assert outcomes["duplicate"] / len(samples) == pytest.approx(0.03, abs=0.006)
    assert outcomes["dead-lettered"] / len(samples) == pytest.approx(0.01, abs=0.003)


def test_a_duplicate_repeats_an_earlier_sample(samples: list[Sample]) -> None:
    seen = set()
    for sample in samples:
        if sample.outcome == "stored":
            seen.add((sample.id, sample.topic, sample.key, sample.value, sample.headers))
        elif sample.outcome == "duplicate":
            assert (sample.id, sample.topic, sample.key, sample.value, sample.headers) in seen


def test_good_samples_become_exactly_the_documents_that_they_promise(samples: list[Sample]) -> None:
    enricher = Enricher(ip_hash_key=b"key", geo=None)
    for offset, sample in enumerate(samples):
        if sample.outcome != "dead-lettered":
            made = {written(write) for write in enricher.documents(decoded(sample, offset))}
            own = sample.id or position(sample, offset)
            assert made == {(trace.collection, trace.id or own) for trace in sample.traces}


def test_invalid_events_are_refused_for_the_reason_that_they_promise(samples: list[Sample]) -> None:
    enricher = Enricher(ip_hash_key=b"key", geo=None)
    for offset, sample in enumerate(samples):
        # What only the store can refuse is shown on real servers, in tests/tools/test_run.py.
        if sample.reason not in (None, "refused-by-store"):
            with pytest.raises(InvalidEvent) as refused:
                enricher.documents(decoded(sample, offset))
            assert refused.value.reason == sample.reason


def test_every_kind_of_invalid_event_suits_some_event(samples: list[Sample]) -> None:
    source = traffic()
    facts = [fact for second in range(200) for fact in source._scenarios.next(BEGAN + timedelta(seconds=second))]
    for spoil in INVALID_EVENTS:
        assert any(spoil(fact, source._topic_of[fact.type]) for fact in facts), spoil.__name__


def test_a_view_or_search_that_others_refer_to_is_sent_in_the_end(samples: list[Sample]) -> None:
    own = {(sample.id, trace.collection) for sample in samples for trace in sample.traces if trace.field is None}
    referred = {
        (trace.id, trace.collection) for sample in samples for trace in sample.traces if trace.field is not None
    }
    assert referred <= own


def test_some_exits_come_before_their_view(samples: list[Sample]) -> None:
    viewed: set[str | None] = set()
    early = 0
    for sample in samples:
        for trace in sample.traces:
            if trace.collection == "pageViews":
                if trace.field is None:
                    viewed.add(sample.id)
                elif trace.id not in viewed:
                    early += 1
    assert early > 10


def times(samples: list[Sample]) -> tuple[dict[str, datetime], list[tuple[str, datetime]]]:
    """The time of each view and search by its id, and of what came of them: the id, and when it happened."""
    enricher = Enricher(ip_hash_key=b"key", geo=None)
    made: dict[str, datetime] = {}
    followed: list[tuple[str, datetime]] = []
    for offset, sample in enumerate(samples):
        if sample.outcome != "dead-lettered":
            for write in enricher.documents(decoded(sample, offset)):
                match write:
                    case Document("pageViews" | "searchQueries", body):
                        made.setdefault(body["_id"], body["timestamp"])
                    case PartialUpdate(highest={"exitedAt": exited_at}):
                        followed.append((write.id, exited_at))
                    case PartialUpdate(added={"clickedResults": [clicked]}):
                        followed.append((write.id, clicked["clickedAt"]))
    return made, followed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_exit_happens_before_its_view_and_no_click_before_its_search(seed: int) -> None:
    source = traffic(seed=seed)
    sent = list(islice(source, 6_000))
    made, followed = times([*sent, *source.owed()])
    assert len(followed) > 500
    assert not [document_id for document_id, time in followed if time < made[document_id]]


def test_nearly_every_reader_has_a_place_in_the_development_geo_database() -> None:
    path = Settings(_env_file=None).geo_database_path()
    assert path is not None
    places = GeoDatabase.open(path)
    blog, chance = Blog(), Random(1)
    known = [places.locate(blog.ip_address(chance)) is not None for _ in range(2_000)]
    assert sum(known) > 1_980
