"""What holds for every event in `topics.yaml`, so that a new one is tested the moment it is declared."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest

from enrich.documents import Document, Occurrence, PartialUpdate, Write
from enrich.enricher import Enricher
from schemas.domain import DomainEvent
from schemas.envelope import Envelope
from schemas.topics import EventType, Topic, load
from sinks.collections import COLLECTIONS, NAMES
from tests.fuzz.validator import problems

TOPICS = load(Path(__file__).parents[2] / "topics.yaml", NAMES).inbound
EVENT_TYPES = [event_type for topic in TOPICS.values() for event_type in topic.events.values()]
TIME = datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)
REPORTED = datetime(2036, 1, 31, 12, 0, 0, tzinfo=UTC)

every_topic = pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
every_event = pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.name)


def writes(event_type: EventType, *, reported: datetime | None = None) -> list[Write]:
    enricher = Enricher(ip_hash_key=b"key of the tests", geo=None)
    return [
        write
        for number, example in enumerate(event_type.examples)
        for write in enricher.documents(
            Envelope(f"event-{number}", event_type, TIME, reported, event_type.schema.model_validate(example))
        )
    ]


def bodies(written: list[Write]) -> Iterator[tuple[str, dict[str, Any]]]:
    for write in written:
        match write:
            case Document(collection, body):
                yield collection, body
            case Occurrence(line, group):
                yield "systemLogs", line
                yield "errorLogs", group
            case PartialUpdate():
                pass


def destinations(written: list[Write]) -> set[str]:
    parts = {write.collection for write in written if isinstance(write, PartialUpdate)}
    return parts | {collection for collection, _ in bodies(written)}


@every_event
def test_the_examples_of_an_event_go_to_all_its_collections_and_to_no_other(event_type: EventType) -> None:
    assert destinations(writes(event_type)) == set(event_type.collections)


@every_event
def test_every_document_has_an_id_and_fits_into_mongodb(event_type: EventType) -> None:
    for _, body in bodies(writes(event_type)):
        assert isinstance(body["_id"], str)
        assert body["_id"]
        bson.encode(body)
    for write in writes(event_type):
        if isinstance(write, PartialUpdate):
            bson.encode({"_id": write.id, **write.highest, **write.added})


@every_event
def test_an_event_read_again_becomes_the_same_documents(event_type: EventType) -> None:
    assert writes(event_type) == writes(event_type)


@every_event
def test_every_document_satisfies_its_collections_validator(event_type: EventType) -> None:
    found = [line for collection, body in bodies(writes(event_type)) for line in problems(collection, body)]
    assert not found, "correct the class or the declaration in sinks/collections.py: " + "; ".join(found)


@every_event
def test_a_class_has_a_docstring_which_the_page_of_the_topics_shows(event_type: EventType) -> None:
    assert event_type.schema.__doc__, (
        f"give class {event_type.schema.__name__} a docstring: what happened, in a sentence"
    )


OWN_SHAPES = {
    "pageViews", "analyticsEvents", "userActivity", "searchQueries", "notifications", "notificationQueue", "auditLogs",
    "systemLogs", "errorLogs",
}  # fmt: skip
"""Collections whose documents are made by functions of `enrich/`. In all others a document is the event as it came."""


@every_event
def test_a_collection_of_events_as_they_come_declares_the_fields_of_their_classes(event_type: EventType) -> None:
    schema = event_type.schema
    stored = {field.alias or name for name, field in schema.model_fields.items() if not field.exclude}
    of_every_event = {field.alias or name for name, field in DomainEvent.model_fields.items()}
    for name in set(event_type.collections) - OWN_SHAPES:
        declared = {field.removesuffix("?") for field in COLLECTIONS[name].fields} - {"_id", "clamped"}
        sources = [event for event in EVENT_TYPES if name in event.collections]
        known = {field.alias or n for event in sources for n, field in event.schema.model_fields.items()}
        assert declared <= known | {"timestamp"}, f"{name} declares fields that no event has: {declared - known}"
        missing = stored - declared - of_every_event
        assert not missing, f"declare these fields of {schema.__name__} in {name}, sinks/collections.py: {missing}"


@every_event
def test_a_document_of_an_event_with_a_corrected_time_says_so(event_type: EventType) -> None:
    for collection, body in bodies(writes(event_type, reported=REPORTED)):
        if "timestamp" in COLLECTIONS[collection].fields and collection != "errorLogs":
            assert body["timestamp"] == TIME
            assert body["reportedTimestamp"] == REPORTED


@every_event
def test_no_document_holds_an_ip_address_in_the_clear(event_type: EventType) -> None:
    addresses = {example["ipAddress"] for example in event_type.examples if "ipAddress" in example}
    written = repr(writes(event_type))
    assert not [address for address in addresses if address in written]


@every_event
def test_no_document_holds_a_null_where_a_field_is_unknown(event_type: EventType) -> None:
    for _, body in bodies(writes(event_type)):
        assert None not in body.values()


@every_event
def test_the_key_of_an_event_is_in_its_examples(event_type: EventType) -> None:
    assert event_type.examples
    assert all(isinstance(example[event_type.key], str) for example in event_type.examples)


@every_topic
def test_a_topic_has_room_for_its_dead_letters(topic: Topic) -> None:
    assert topic.dead_letter == f"{topic.name}.dead-letter"
    assert topic.dead_letter_retention >= topic.retention


def test_every_topic_that_the_platform_writes_to_is_there() -> None:
    assert TOPICS.keys() >= {
        "page-views",
        "domain-events",
        "analytics-events",
        "searches",
        "log-lines",
        "audit-entries",
        "performance-samples",
        "notifications",
        "delivery-receipts",
    }
