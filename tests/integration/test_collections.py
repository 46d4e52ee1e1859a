"""What is declared is what MongoDB has: indexes against the specification, validators against its examples."""

import asyncio
import copy
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo.errors import WriteError

from dev.stack import Platform
from enrich.documents import Document
from sinks.changes import Risk
from sinks.collections import COLLECTIONS, Collection, FieldType
from sinks.mongo.client import Mongo
from sinks.mongo.schema_sync import sync_schema
from sinks.mongo.writer import MongoWriter

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

IndexFacts = tuple[tuple[tuple[str, int | str], ...], int | None, str]
"""An index's fields in order, its expiry in seconds, and its partial filter as JSON."""


@pytest.fixture
async def mongo(platform: Platform) -> AsyncIterator[Mongo]:
    sink = Mongo.connect(platform.mongo.url.replace("/blog-platform", f"/test-{uuid4().hex}"))
    yield sink
    await sink.database.client.drop_database(sink.database.name)
    await sink.close()


def where_known(name: str) -> str:
    return json.dumps({name: {"$exists": True}})


OURS: dict[str, set[IndexFacts]] = {
    "pageViews": {((("campaign", 1), ("timestamp", -1)), None, where_known("campaign"))},
    "analyticsEvents": {((("sessionId", 1),), None, where_known("sessionId"))},
    "searchQueries": {
        ((("sessionId", 1),), None, "{}"),
        ((("userId", 1), ("timestamp", -1)), None, where_known("userId")),
    },
    # What is ready, in the order in which it is claimed.
    "notificationQueue": {((("status", 1), ("nextRetryAt", 1), ("priority", -1), ("createdAt", 1)), None, "{}")},
    "emailLogs": {((("notificationId", 1),), None, "{}")},
    "pushNotificationLogs": {((("notificationId", 1),), None, "{}")},
    "systemLogs": {((("userId", 1), ("timestamp", -1)), None, where_known("userId"))},
}
"""Indexes that the specification does not have; docs/decisions/0017-indexes-for-analysts.md says why."""

SPECIFIED = 57
LATER = COLLECTIONS.keys() - set(
    re.findall(r"db\.(\w+)\.", (Path(__file__).parent / "specification/indexes.js").read_text())
)
"""Collections that the specification does not have."""

ALL = (
    len(COLLECTIONS)
    + SPECIFIED
    + sum(map(len, OURS.values()))
    + sum(len(COLLECTIONS[name].indexes) + (COLLECTIONS[name].retention is not None) for name in LATER)
)
"""How many collections and indexes there are."""


def specified_indexes() -> dict[str, set[IndexFacts]]:
    """Read the specification's `createIndex` calls, kept word for word beside this file."""
    text = (Path(__file__).parent / "specification" / "indexes.js").read_text()
    found: dict[str, set[IndexFacts]] = {}
    for name, arguments in re.findall(r"db\.(\w+)\.createIndex\((.*?)\);", text, re.DOTALL):
        quoted = re.sub(r"([{,]\s*)(\w+):", r'\1"\2":', arguments)
        keys, options = [*json.loads("[" + re.sub(r",(\s*[}\]])", r"\1", quoted.rstrip().rstrip(",")) + "]"), {}][:2]
        partial = json.dumps(options.get("partialFilterExpression", {}))
        found.setdefault(name, set()).add((tuple(keys.items()), options.get("expireAfterSeconds"), partial))
    return found


async def indexes_in(mongo: Mongo, name: str) -> set[IndexFacts]:
    found = set()
    async for index in await mongo.database[name].list_indexes():
        keys = dict.fromkeys(index["weights"], "text") if "weights" in index else dict(index["key"])
        assert not {"unique", "sparse"} & set(index)
        partial = json.dumps(index.get("partialFilterExpression", {}))
        found.add((tuple(keys.items()), index.get("expireAfterSeconds"), partial))
    found.remove(((("_id", 1),), None, "{}"))
    return found


async def test_mongodb_has_the_indexes_and_the_retention_of_the_specification_and_our_own(mongo: Mongo) -> None:
    await sync_schema(mongo.database, check=False)
    specified = specified_indexes()
    assert sum(map(len, specified.values())) == SPECIFIED
    expected = {name: specified[name] | OURS.get(name, set()) for name in COLLECTIONS.keys() - LATER}
    assert {name: await indexes_in(mongo, name) for name in expected} == expected


async def test_the_view_s_time_is_indexed_downwards_for_queries_and_upwards_for_retention(mongo: Mongo) -> None:
    await sync_schema(mongo.database, check=False)
    indexes = await mongo.database.pageViews.index_information()
    assert "expireAfterSeconds" not in indexes["timestamp_-1"]
    assert indexes["timestamp_1"]["expireAfterSeconds"] == 90 * 24 * 60 * 60


async def test_converging_again_changes_nothing(mongo: Mongo) -> None:
    created = await sync_schema(mongo.database, check=False)
    assert len(created) == ALL
    assert created[0].line.startswith("created collection pageViews")
    assert created[1].line == "created index pageViews.postId_1_timestamp_-1"
    assert await sync_schema(mongo.database, check=False) == []
    assert await sync_schema(mongo.database, check=True) == []


async def test_a_check_reports_what_is_missing_and_changes_nothing(mongo: Mongo) -> None:
    missing = await sync_schema(mongo.database, check=True)
    assert len(missing) == ALL
    assert missing[1].line == "missing index pageViews.postId_1_timestamp_-1"
    assert await mongo.database.list_collection_names() == []


async def test_several_workers_may_sync_the_schema_at_once(mongo: Mongo) -> None:
    changes = await asyncio.gather(*(sync_schema(mongo.database, check=False) for _ in range(4)))
    assert sum(map(len, changes)) >= ALL
    assert await sync_schema(mongo.database, check=True) == []


async def test_differences_are_put_right_and_what_nobody_declared_is_left_alone(mongo: Mongo) -> None:
    database = mongo.database
    await sync_schema(database, check=False)
    await database.pageViews.insert_one({"_id": "a", "timestamp": NOW, "incomplete": True})
    await database.pageViews.drop_index("timestamp_1")
    await database.pageViews.create_index("timestamp")
    await database.pageViews.create_index("theirs")
    await database.pageViews.drop_index("sessionId_1")
    await database.pageViews.create_index("sessionId", unique=True)
    await database.systemLogs.drop_index("timestamp_1")
    await database.systemLogs.create_index("timestamp", expireAfterSeconds=5, name="soon")
    await database.searchQueries.drop_index("query_text")
    await database.errorLogs.drop_index("resolvedAt_1")
    await database.errorLogs.create_index("resolvedAt", expireAfterSeconds=7776000)
    await database.command("collMod", "auditLogs", validator={})
    await database.create_collection("theirs")

    found = [change.line for change in await sync_schema(database, check=True)]
    done = [change.line for change in await sync_schema(database, check=False, allowed=frozenset(Risk))]
    assert done == [
        "changed index pageViews.sessionId_1: has other fields or options, so it is dropped and built again",
        "changed index pageViews.timestamp_1: documents expire after 90 days instead of never; deletes 1 document at "
        "once",
        "unexpected index pageViews.theirs_1: not declared, left as it is",
        "created index searchQueries.query_text",
        "changed validator of auditLogs: not the declared fields and types",
        "changed index systemLogs.timestamp_1: documents expire after 30 days instead of 5 s",
        "changed index errorLogs.resolvedAt_1: has other fields or options, so it is dropped and built again",
        "unexpected collection theirs: not declared, left as it is",
    ]
    assert len(found) == len(done)
    assert found[0] == (
        "different index pageViews.sessionId_1: has other fields or options, so it is dropped and built again; "
        "needs --allow-rebuilds"
    )
    assert {change.action for change in await sync_schema(database, check=True)} == {"report"}
    assert await database.pageViews.count_documents({}) == 1
    assert "theirs_1" in await database.pageViews.index_information()


def sample(field_type: FieldType, *, with_optional: bool) -> Any:
    match field_type:
        case dict():
            return {
                name.removesuffix("?"): sample(inner, with_optional=with_optional)
                for name, inner in field_type.items()
                if with_optional or not name.endswith("?")
            }
        case list():
            return [sample(field_type[0], with_optional=with_optional)] * 2
        case tuple():
            return field_type[-1]
        case _:
            samples = {
                "string": "$text",
                "number": 1.5,
                "boolean": True,
                "Date": NOW,
                "any": [None],
                "object": {"a": 1},
            }
            return samples[field_type]


def paths(field_type: FieldType, *, before: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """List the way to every field, however deep, that must not be missing from a full sample."""
    if isinstance(field_type, list):
        return paths(field_type[0], before=(*before, 1))
    if not isinstance(field_type, dict):
        return []
    found: list[tuple[str | int, ...]] = []
    for name, inner in field_type.items():
        way = (*before, name.removesuffix("?"))
        if not name.endswith("?") and inner != "any":
            found.append(way)
        found += paths(inner, before=way)
    return found


def changed(document: dict[str, Any], path: tuple[str | int, ...], *, to: Any = None) -> dict[str, Any]:
    """Return a copy with something else at the end of the path, or nothing there."""
    result = copy.deepcopy(document)
    inner: Any = result
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    if to is not None:
        inner[path[-1]] = to
    return {**result, "_id": uuid4().hex}


@pytest.mark.parametrize("collection", COLLECTIONS.values(), ids=lambda collection: collection.name)
async def test_a_validator_takes_what_is_specified_and_nothing_else(mongo: Mongo, collection: Collection) -> None:
    await sync_schema(mongo.database, check=False)
    full = {"_id": "full", **sample(collection.fields, with_optional=True)}
    lean = {"_id": "lean", **sample(collection.fields, with_optional=False)}
    more = {**full, "_id": "more", "reportedTimestamp": NOW, "of a service": {"its": "own"}}
    required = paths(collection.fields)
    wrong = [
        *(changed(full, path) for path in required),
        *(changed(full, path, to=re.compile("no field has this type")) for path in required),
    ]
    outcome = await MongoWriter(mongo).write([Document(collection.name, body) for body in (full, lean, more, *wrong)])
    assert outcome.written == {collection.name: 3}
    assert [index for index, _ in outcome.refused] == list(range(3, 3 + len(wrong)))
    for path, (_, refusal) in zip(required * 2, outcome.refused, strict=True):
        assert refusal.reason == "refused-by-store"
        assert str(path[-1]) in refusal.message
        assert "no field has this type" not in refusal.message


async def test_the_specification_s_own_documents_are_taken(mongo: Mongo) -> None:
    await sync_schema(mongo.database, check=False)
    events: list[dict[str, Any]] = [
        {
            "eventType": "post_liked",
            "category": "engagement",
            "entityId": "post-uuid-123",
            "entityType": "post",
            "userId": "user-uuid-456",
            "properties": {"postTitle": "Introduction to TypeScript", "authorId": "author-uuid-789"},
            "timestamp": NOW,
        },
        {
            "eventType": "search_performed",
            "category": "content",
            "entityId": "search-session-123",
            "entityType": "search",
            "sessionId": "session-abc",
            "properties": {"query": "react hooks tutorial", "resultsCount": 15, "clickedResultPosition": 3},
            "timestamp": NOW,
        },
        {
            "eventType": "post_published",
            "category": "content",
            "entityId": "post-uuid-123",
            "entityType": "post",
            "userId": "author-uuid-789",
            "properties": {"postTitle": "Introduction to TypeScript", "postSlug": "introduction-to-typescript"},
            "timestamp": NOW,
        },
    ]
    outcome = await MongoWriter(mongo).write(
        [Document("analyticsEvents", {"_id": str(number), **event}) for number, event in enumerate(events)]
    )
    assert outcome.written == {"analyticsEvents": 3}


async def test_only_a_placeholder_may_lack_fields_and_no_document_may_pass_for_one(mongo: Mongo) -> None:
    await sync_schema(mongo.database, check=False)
    views = mongo.database.pageViews
    await views.insert_one({"_id": "a", "timestamp": NOW, "incomplete": True, "timeSpent": 3})
    with pytest.raises(WriteError):
        await views.insert_one({"_id": "b", "timestamp": NOW, "timeSpent": 3})
    with pytest.raises(WriteError):
        await views.insert_one({"_id": "b", "timestamp": NOW, "timeSpent": "3", "incomplete": True})
    with pytest.raises(WriteError):
        await mongo.database.systemLogs.insert_one({"_id": "c", "timestamp": NOW, "incomplete": True})
