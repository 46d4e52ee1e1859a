"""What holds for the documents of every event: nothing null, nothing empty, and no field of an event lost."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_origin

import orjson
import pytest
from pydantic import BaseModel

from enrich.documents import Document, GroupedNotification, Occurrence, Write
from enrich.enricher import Enricher
from enrich.logs import ERROR_LEVELS
from enrich.notifications import Notifier, notification, queue_item
from notifications import rules
from notifications.grouping import merge
from notifications.receipts import email_log
from notifications.receipts.receipt import Receipt
from schemas.cloudevents import Decoder
from schemas.domain import DomainEvent
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event
from schemas.fields import Value
from schemas.topics import EventType, Topic, load
from sinks.collections import COLLECTIONS, NAMES
from tests.documents import surprises

ROOT = Path(__file__).parents[2]
TOPICS = load(ROOT / "topics.yaml", NAMES).inbound
EVENTS = [(topic, event_type) for topic in TOPICS.values() for event_type in topic.events.values()]
ENRICHER = Enricher(ip_hash_key=b"key of the tests", geo=None)
NOTIFIER = Notifier(rules.load(ROOT / "notifications.yaml", {event.name: event for _, event in EVENTS}))

every_event = pytest.mark.parametrize(
    ("topic", "event_type"), EVENTS, ids=[event_type.name for _, event_type in EVENTS]
)

Place = tuple[str | int, ...]
"""The way to a value within a payload."""


def decoded(topic: Topic, event_type: EventType, payload: Mapping[str, Any]) -> Envelope[Event]:
    headers = {"specversion": "1.0", "id": "event-1", "type": event_type.name, "source": "/tests"}
    record: Any = SimpleNamespace(
        topic=topic.name,
        partition=0,
        offset=7,
        timestamp=1_769_860_800_000,
        key=None,
        value=orjson.dumps(payload),
        headers=[(f"ce_{name}", value.encode()) for name, value in headers.items()],
    )
    return Decoder(topic, timedelta(hours=24)).decode(record)


def writes(topic: Topic, event_type: EventType, payload: Mapping[str, Any]) -> list[Write]:
    event = decoded(topic, event_type, payload)
    told = [*NOTIFIER.documents(event)] if event_type.name in NOTIFIER.events else []
    return [*ENRICHER.documents(event), *told]


def documents(written: Sequence[Write]) -> Iterator[tuple[str, dict[str, Any]]]:
    for write in written:
        match write:
            case Document(collection, body):
                yield collection, body
            case Occurrence(line, group):
                yield "systemLogs", line
                yield "errorLogs", group
            case GroupedNotification(collection, notice):
                state = merge(None, notice)
                yield collection, notification(notice, state.words) | {"gathered": state.document()}
                yield "notificationQueue", queue_item(notice)


def parts(annotation: object) -> Iterator[object]:
    """Yield an annotation and all that it is made of, outside of lists."""
    yield annotation
    if get_origin(annotation) not in (list, tuple, dict):
        for inner in get_args(annotation):
            yield from parts(inner)


def values_within(schema: type[BaseModel], before: Place = ()) -> Iterator[Place]:
    """Yield the way to every field of a class, however deep, that holds an object with fields of its own."""
    for name, field in schema.model_fields.items():
        for inner in parts(field.annotation):
            if isinstance(inner, type) and issubclass(inner, Value):
                way = (*before, field.alias or name)
                yield way
                yield from values_within(inner, way)


def free_objects(schema: type[BaseModel]) -> Iterator[str]:
    """Yield the fields of a class in which a producer may write whatever object it likes."""
    for name, field in schema.model_fields.items():
        if dict in {get_origin(part) for part in parts(field.annotation)}:
            yield field.alias or name


def with_value(payload: Mapping[str, Any], place: Place, value: object) -> dict[str, Any]:
    """Return a copy with another value in a place, which is made where it is not there."""
    result = copy.deepcopy(dict(payload))
    inner: Any = result
    for step in place[:-1]:
        inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
    inner[place[-1]] = value
    return result


def test_the_classes_have_objects_of_their_own_and_free_ones_to_be_tested_with() -> None:
    objects = {way for _, event_type in EVENTS for way in values_within(event_type.schema)}
    free = {name for _, event_type in EVENTS for name in free_objects(event_type.schema)}
    assert objects >= {("timings",), ("filters",), ("filters", "dateRange"), ("context",), ("error",)}
    assert free == {"properties", "metadata", "context", "changes"}


@every_event
def test_an_object_of_which_all_keys_are_unknown_leaves_no_empty_one(topic: Topic, event_type: EventType) -> None:
    for example in event_type.examples:
        for place in values_within(event_type.schema):
            for nothing in ({"aKeyOfALaterRelease": 1}, {}):
                try:
                    written = writes(topic, event_type, with_value(example, place, nothing))
                except InvalidEvent:
                    continue  # it has to hold something
                assert [line for name, body in documents(written) for line in surprises(name, body)] == []


@every_event
def test_a_free_object_that_is_empty_is_left_out_unless_every_document_has_it(
    topic: Topic, event_type: EventType
) -> None:
    for example in event_type.examples:
        for name in free_objects(event_type.schema):
            written = writes(topic, event_type, with_value(example, (name,), {}))
            for collection, body in documents(written):
                assert surprises(collection, body) == []
                assert body.get(name, {}) != {} or (name in body) == (name in COLLECTIONS[collection].fields)


@every_event
def test_what_is_within_a_free_object_stays_as_the_producer_wrote_it(topic: Topic, event_type: EventType) -> None:
    free: dict[str, Any] = {"before": {}, "after": {"a": {}, "b": None, "c": ""}}
    for example in event_type.examples:
        for name in free_objects(event_type.schema):
            written = list(documents(writes(topic, event_type, with_value(example, (name,), free))))
            kept = [body[name] for collection, body in written if f"{name}?" in COLLECTIONS[collection].fields]
            assert all(value == free for value in kept)


@every_event
def test_no_document_of_an_example_is_a_surprise_to_its_reader(topic: Topic, event_type: EventType) -> None:
    for example in event_type.examples:
        required = {name: value for name, value in example.items() if _is_required(event_type.schema, name)}
        for payload in (example, required):
            written = list(documents(writes(topic, event_type, payload)))
            assert [line for name, body in written for line in surprises(name, body)] == []


# Every field counts ---------------------------------------------------------------------------------------

NOT_STORED = {
    ("page.exited", "postId"): "the record's key; its view has it",
}
"""Fields of examples that change no document, and why a producer sends them all the same."""

OF_THE_AUDIT = {"ipAddress", "userEmail", "userRole", "method", "endpoint", "changes"}
"""Fields of domain events that are stored in `auditLogs` alone, as docs/collections.md says."""

OF_ERRORS = {"endpoint", "method", "fingerprint", "context"}
"""Fields of log lines that are stored in `errorLogs` alone."""

OF_RECEIPTS = {
    "key": "finds the log",
    "providerId": "finds the log",
    "notificationId": "finds the item of the queue",
    "recipient": "is suppressed",
}
"""Fields of receipts that change no log."""


def places(value: object, before: Place = ()) -> Iterator[Place]:
    """Yield the way to everything within a value that holds nothing else."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = list(inner)
    if not found:
        yield before
    for step, item in found:
        yield from places(item, (*before, step))


def closed_lists(schema: object) -> Iterator[str]:
    """Yield the values of all closed lists in a JSON Schema."""
    if isinstance(schema, dict):
        yield from schema.get("enum", ())
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from closed_lists(inner)


def variants(event_type: EventType, payload: Mapping[str, Any], place: Place) -> Iterator[dict[str, Any]]:
    """Yield payloads that differ in one place alone: without it, and with another value there."""
    removed = copy.deepcopy(dict(payload))
    inner: Any = removed
    for step in place[:-1]:
        inner = inner[step]
    value = inner[place[-1]]
    del inner[place[-1]]
    yield removed
    others: dict[type, list[object]] = {
        str: ["other", "2026-01-30T12:00:00Z", "8.8.8.8", *closed_lists(event_type.schema.model_json_schema())],
        bool: [not value],
        int: [1 if value != 1 else 2],
        float: [1.25],
        type(None): ["other"],
    }
    for other in others.get(type(value), []):
        yield with_value(payload, place, other)


def changes_something(topic: Topic, event_type: EventType, example: Mapping[str, Any], place: Place) -> bool:
    expected = writes(topic, event_type, example)
    for payload in variants(event_type, example, place):
        try:
            if writes(topic, event_type, payload) != expected:
                return True
        except InvalidEvent:
            continue
    return False


@pytest.mark.parametrize(
    ("topic", "event_type"),
    [(topic, event_type) for topic, event_type in EVENTS if event_type.collections],
    ids=[event_type.name for _, event_type in EVENTS if event_type.collections],
)
def test_every_field_of_an_example_is_in_a_document_or_decides_what_is(topic: Topic, event_type: EventType) -> None:
    for example in event_type.examples:
        unused = {
            ".".join(map(str, place))
            for place in places(example)
            if not changes_something(topic, event_type, example, place)
        }
        assert unused == {field for name, field in NOT_STORED if name == event_type.name}


SAMPLES: Sequence[object] = (
    "other", "2026-01-30T12:00:00Z", "8.8.8.8", 2, True, {"a": 1}, {"page": "/x"}, ["email"], ["x"],
    [{"token": "x", "platform": "ios"}], {"id": "x", "type": "y"}, False,
)  # fmt: skip
"""Some value for a field of every kind."""


@pytest.mark.parametrize(
    ("topic", "event_type"),
    [(topic, event_type) for topic, event_type in EVENTS if event_type.collections],
    ids=[event_type.name for _, event_type in EVENTS if event_type.collections],
)
def test_every_field_that_a_producer_may_add_to_an_example_is_stored_or_said_not_to_be(
    topic: Topic, event_type: EventType
) -> None:
    for example in event_type.examples:
        expected = writes(topic, event_type, example)
        unused = set()
        for name, field in event_type.schema.model_fields.items():
            alias = field.alias or name
            others = []
            for sample in (*SAMPLES, *closed_lists(event_type.schema.model_json_schema())):
                try:
                    others.append(writes(topic, event_type, {**example, alias: sample}))
                except InvalidEvent:
                    continue
            assert others, f"no sample for {alias}"
            if all(other == expected for other in others):
                unused.add(alias)
        known = {field for name, field in NOT_STORED if name == event_type.name}
        if issubclass(event_type.schema, DomainEvent) and "auditLogs" not in event_type.collections:
            known |= OF_THE_AUDIT
        if event_type.name == "log.written" and example["level"] not in ERROR_LEVELS:
            known |= OF_ERRORS
        assert unused == known


def test_every_field_of_a_receipt_is_in_its_log_or_decides_what_becomes_of_it() -> None:
    [event_type] = TOPICS["delivery-receipts"].events.values()
    example, _ = event_type.examples
    log = {"_id": example["key"], "status": "sent", "events": []}

    def stored(payload: Mapping[str, Any]) -> Mapping[str, Any]:
        data: Any = event_type.schema.model_validate(payload)
        return email_log.applied(log, Receipt("receipt-1", data))

    unused = set()
    for (name,) in places(example):
        others = []
        for payload in variants(event_type, example, (name,)):
            try:
                others.append(stored(payload))
            except ValueError:
                continue
        if all(other == stored(example) for other in others):
            unused.add(str(name))
    assert unused == set(OF_RECEIPTS)


def _is_required(schema: type[BaseModel], alias: str) -> bool:
    return any(
        field.is_required() or name == "timestamp"
        for name, field in schema.model_fields.items()
        if alias == (field.alias or name)
    )
