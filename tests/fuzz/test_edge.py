"""Whatever stands in a topic: it is an event, or it is refused in words that help its producer. Nothing else comes out.

Twice the same record comes to the same, and all forms of an event to the same documents. No id that a producer chooses
is one that Inkstream makes up.
"""

import re
from dataclasses import replace
from math import isfinite
from typing import Any, TypeGuard

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from enrich.documents import Document, Write
from schemas.envelope import InvalidEvent
from schemas.fields import MOST_CHARACTERS, MOST_LEVELS
from schemas.topics import EventType, Topic
from tests.fuzz import events
from tests.fuzz.edge import EVENTS, REASONS, TOPICS, Passed, edge, stored
from tests.fuzz.events import FORMS, Record
from tests.fuzz.profiles import fuzzed

LONGEST_MESSAGE = 2_500
MEGABYTE = "<@'" * 350_000
NOON = "2026-01-31T12:00:00Z"

every_topic = pytest.mark.parametrize("topic", TOPICS.all.values(), ids=TOPICS.all)
every_event = pytest.mark.parametrize(("topic", "event"), EVENTS.values(), ids=EVENTS)


def taken(topic: Topic, record: Record) -> Passed | InvalidEvent:
    """Take a record twice; return what becomes of it."""
    first, second = edge(topic.name).take(record), edge(topic.name).take(record)
    assert repr(first) == repr(second)  # a NaN is not equal to itself, but written the same
    if isinstance(first, InvalidEvent):
        assert first.reason in REASONS
        assert 0 < len(first.message.encode()) < LONGEST_MESSAGE
    else:
        assert 0 < len(first.event.id) <= 256
        assert first.event.time.utcoffset() is not None
    return first


@every_topic
@given(data=st.data())
@fuzzed(40)
def test_noise_is_no_event(topic: Topic, data: st.DataObject) -> None:
    assert isinstance(taken(topic, data.draw(events.noise(tuple(topic.events)))), InvalidEvent)


@every_topic
@given(data=st.data())
@fuzzed(40)
def test_json_is_an_event_or_none(topic: Topic, data: st.DataObject) -> None:
    taken(topic, data.draw(events.json_records(tuple(topic.events))))


@every_event
@given(data=st.data())
@fuzzed(20)
def test_an_odd_event_is_taken_or_refused(topic: Topic, event: EventType, data: st.DataObject) -> None:
    taken(topic, data.draw(events.events(event)))


@every_event
@given(data=st.data())
@fuzzed(20)
def test_an_event_that_went_wrong_is_taken_or_refused(topic: Topic, event: EventType, data: st.DataObject) -> None:
    taken(topic, data.draw(events.spoilt_events(event)))


@every_event
@given(data=st.data())
@fuzzed(8)
def test_a_value_of_another_type_is_refused(topic: Topic, event: EventType, data: st.DataObject) -> None:
    record = events.sent("binary", event, data.draw(events.coerced(event)), "event", NOON)
    assert isinstance(taken(topic, record), InvalidEvent)


@every_event
@given(data=st.data())
@fuzzed(8)
def test_an_optional_field_that_is_null_is_absent(topic: Topic, event: EventType, data: st.DataObject) -> None:
    payload = data.draw(events.payloads(event))
    optional = [str(field.alias) for field in event.schema.model_fields.values() if not field.is_required()]
    nulls = data.draw(st.sets(st.sampled_from(optional)) if optional else st.just(set[str]()))
    without = {name: value for name, value in payload.items() if name not in nulls}
    outcomes = [
        taken(topic, events.sent("binary", event, body, "event", NOON))
        for body in (without, without | dict.fromkeys(nulls))
    ]
    assert len({_told(outcome) for outcome in outcomes}) == 1


@every_event
@given(data=st.data())
@fuzzed(8)
def test_what_is_written_holds_no_number_and_no_size_beyond_the_limits(
    topic: Topic, event: EventType, data: st.DataObject
) -> None:
    outcome = taken(topic, data.draw(st.one_of(events.events(event), events.spoilt_events(event))))
    if isinstance(outcome, Passed):
        for write in (*outcome.writes, *outcome.notices):
            for _, document in stored(write):
                _check(document)


def _check(document: dict[str, Any]) -> None:
    values: list[tuple[Any, int]] = [(document, 1)]
    for value, level in values:  # which grows meanwhile
        assert level <= MOST_LEVELS + 4
        match value:
            case dict():
                values += [(inner, level + 1) for inner in value.values()]
            case list():
                values += [(inner, level + 1) for inner in value]
            case str():
                assert len(value) <= MOST_CHARACTERS
            case float():
                assert isfinite(value)
            case int():
                assert -(2**63) <= value < 2**63


@every_event
def test_a_field_with_a_megabyte_is_taken_or_refused(topic: Topic, event: EventType) -> None:
    [example, *_] = event.examples
    for name in event.schema.model_json_schema(by_alias=True)["properties"]:
        taken(topic, events.sent("binary", event, {**example, name: MEGABYTE}, "event", NOON))


@every_event
@given(data=st.data())
@fuzzed(10)
def test_an_id_that_imitates_one_of_ours_is_another(topic: Topic, event: EventType, data: st.DataObject) -> None:
    [example, *_] = event.examples
    ours = taken(topic, events.sent("plain", event, example, None, NOON))
    assert isinstance(ours, Passed)
    identity = data.draw(st.one_of(events.imitations(), st.just(ours.event.id)))
    record = events.sent(data.draw(st.sampled_from(FORMS)), event, example, identity, NOON)
    headers = data.draw(events.headers((event.name,)))
    claimed = tuple(header for header in headers if header[0].startswith(("replay", "dl_")))
    theirs = taken(topic, replace(record, headers=(*record.headers, *claimed)))
    assert isinstance(theirs, Passed)
    assert theirs.event.id in (identity, f"id:{identity}")
    assert theirs.event.id != ours.event.id
    # What a rule tells people of is known by a digest, and no request for a notification by the like of one.
    assert not any(_DIGEST.match(write.body["_id"]) for write in theirs.writes if _is_notification(write))


_DIGEST = re.compile(r"[0-9a-f]{32}(-|$)")


def _is_notification(write: Write) -> TypeGuard[Document]:
    return isinstance(write, Document) and write.collection in ("notifications", "notificationQueue")


@every_event
@given(data=st.data())
@fuzzed(10)
def test_an_event_is_the_same_in_every_form(topic: Topic, event: EventType, data: st.DataObject) -> None:
    payload = data.draw(events.payloads(event))
    identity = data.draw(events.ids())
    time = data.draw(st.one_of(st.just(events.ABSENT), events.texts_of_moments()))
    timestamp = data.draw(events.timestamps())
    records = [replace(events.sent(form, event, payload, identity, time), timestamp=timestamp) for form in FORMS]
    outcomes = [taken(topic, record) for record in records]
    # JSON may have 200 levels, of which the envelope of structured mode takes one; MongoDB would take 180.
    assume(not any("recursion limit" in str(outcome) for outcome in outcomes if isinstance(outcome, InvalidEvent)))
    assert len({_told(outcome) for outcome in outcomes}) == 1, outcomes


def _told(outcome: Passed | InvalidEvent) -> str:
    """Return what of an outcome may not depend on the event's form."""
    if isinstance(outcome, InvalidEvent):
        return outcome.reason
    return repr((outcome.event[:4], outcome.writes, outcome.notices))
