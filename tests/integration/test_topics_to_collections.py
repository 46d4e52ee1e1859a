"""Every event of every topic, on real servers, in each of its three forms, to the documents that it should become."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from enrich.documents import Document, Occurrence, PartialUpdate
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from schemas.cloudevents import Decoder
from tests.integration.pipeline import Message, Pipeline

FORMS = ("binary", "structured", "plain")


def in_form(form: str, event_type: str, identity: str, data: dict[str, Any]) -> Message:
    time = "2026-01-31T12:00:00.123Z"
    if form == "binary":
        headers = {"specversion": "1.0", "id": identity, "type": event_type, "source": "/test", "time": time}
        return Message(orjson.dumps(data), [(f"ce_{name}", value.encode()) for name, value in headers.items()])
    if form == "structured":
        event = {"specversion": "1.0", "id": identity, "type": event_type, "source": "/test", "time": time}
        return Message(orjson.dumps({**event, "data": data}), [("content-type", b"application/cloudevents+json")])
    return Message(orjson.dumps({"timestamp": time, "type": event_type, **data, "eventId": identity}))


async def test_every_event_in_every_form_reaches_its_collections(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    geo_path = settings.geo_database_path()
    assert geo_path is not None
    enricher = Enricher(ip_hash_key=settings.ip_hash_key.get_secret_value().encode(), geo=GeoDatabase.open(geo_path))
    # What people are told of it is another matter.
    with pipeline.worker(agents=",".join(pipeline.topics.all)) as worker:
        await worker.until_ready()
        for topic in pipeline.topics.inbound.values():
            await pipeline.send(
                topic.name,
                [
                    in_form(form, event.name, f"{event.name}-{number}-{form}", example)
                    for event in topic.events.values()
                    for number, example in enumerate(event.examples)
                    for form in FORMS
                ],
            )
        await pipeline.settled(*pipeline.topics.inbound)
        assert worker.terminate() == 0

    expected: dict[str, dict[str, dict[str, Any]]] = {}
    groups: dict[str, int] = {}
    for topic in pipeline.topics.inbound.values():
        decoder = Decoder(topic, settings.ahead_limit)
        for record in await pipeline.read(topic.name):
            event = decoder.decode(record)
            for write in enricher.documents(event):
                match write:
                    case Document(collection, body):
                        expected.setdefault(collection, {})[body["_id"]] = body
                    case PartialUpdate(collection, identity, timestamp, highest, added):
                        expected.setdefault(collection, {})[identity] = {
                            "_id": identity, "timestamp": timestamp, "incomplete": True, **highest, **added,
                        }  # fmt: skip
                    case Occurrence(line, group):
                        expected.setdefault("systemLogs", {})[line["_id"]] = line
                        groups[group["_id"]] = groups.get(group["_id"], 0) + 1
        assert await pipeline.read(topic.dead_letter) == []

    stored_in = set(expected) | {"errorLogs"} | {"emailLogs", "pushNotificationLogs"}
    there = await pipeline.database.list_collection_names()
    assert {pipeline.database.name_of(name) for name in stored_in} == set(there)
    for collection, documents in expected.items():
        assert await pipeline.documents(collection) == {key: stored(body) for key, body in documents.items()}
    found = await pipeline.documents("errorLogs")
    assert {key: group["occurrenceCount"] for key, group in found.items()} == groups


def stored(value: Any) -> Any:
    """Return a document as MongoDB gives it back: in UTC, in milliseconds."""
    match value:
        case dict():
            return {name: stored(inner) for name, inner in value.items()}
        case list() | tuple():
            return [stored(inner) for inner in value]
        case datetime():
            moment = value.astimezone(UTC)
            return moment - timedelta(microseconds=moment.microsecond % 1000)
        case _:
            return value


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_codec_is_read(pipeline: Pipeline, codec: str) -> None:
    [sampled] = pipeline.topics.all["performance-samples"].events.values()
    with pipeline.worker(agents="performance-samples"):
        await pipeline.send(
            "performance-samples",
            [in_form("plain", sampled.name, f"{codec}-{number}", sampled.examples[0]) for number in range(500)],
            compression_type=codec,
        )
        await pipeline.settled("performance-samples")
    assert set(await pipeline.documents("performanceLogs")) == {f"{codec}-{number}" for number in range(500)}
