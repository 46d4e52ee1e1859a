"""`inkstream bootstrap` on servers with data: nothing is deleted, rejected or rebuilt without its flag."""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from bson import ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import WriteError

from dev.stack import Platform
from ops import kafka_topics
from ops.kafka_topics import DeclaredTopic
from sinks.changes import Risk
from sinks.collections import COLLECTIONS, Collection
from sinks.mongo.client import Mongo
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.schema_sync import sync_schema
from tests.command_line import inkstream
from tests.integration.pipeline import Pipeline

NOW = datetime.now(UTC)
WAITING = 3
DAY = 24 * 60 * 60


class Existing:
    """A database that the platform had before Inkstream came."""

    def __init__(self, database: NamespacedDatabase) -> None:
        self.database = database

    async def fill(self, name: str, count: int, age: timedelta) -> AsyncCollection[dict[str, Any]]:
        """Make a collection as a platform without Inkstream has it: no validator, no index, ids by MongoDB."""
        await self.database[name].drop()
        at = NOW - age
        await self.database[name].insert_many(
            {"_id": ObjectId(ObjectId.from_datetime(at).binary[:4] + number.to_bytes(8)), "timestamp": at}
            for number in range(count)
        )
        return self.database[name]

    async def bootstrap(self, *allowed: Risk) -> list[str]:
        """Do what `inkstream bootstrap` does to MongoDB; return its lines."""
        planned = await sync_schema(self.database, check=True, allowed=allowed)
        done = await sync_schema(self.database, check=False, allowed=allowed)
        # What is planned is done, and nothing else.
        assert sorted(change.what for change in planned) == sorted(change.what for change in done)
        return [change.line for change in done]

    async def expiry(self, collection: str, index: str) -> int | None:
        """Return after how many seconds documents expire by an index; `None` where there is no such index."""
        indexes = await self.database[collection].index_information()
        return indexes[index].get("expireAfterSeconds", -1) if index in indexes else None

    async def options(self, collection: str) -> Mapping[str, Any]:
        """Return the options of a collection."""
        info = await (await self.database.list_collections(filter={"name": collection})).next()
        return dict(info["options"])


@pytest.fixture
def existing(mongo: Mongo) -> Existing:
    return Existing(mongo.database)


async def test_retention_deletes_nothing_of_existing_collections_until_it_is_allowed(pipeline: Pipeline) -> None:
    existing = Existing(pipeline.database)
    await existing.fill("systemLogs", 1000, timedelta(days=60))
    await existing.fill("pageViews", 20, timedelta(days=200))
    await existing.fill("auditLogs", 30, timedelta(days=3000))
    ended = await inkstream(pipeline.environment, "bootstrap")
    assert ended.code == WAITING, ended
    waiting = [
        f"MongoDB: missing index {pipeline.namespace}{what} at once; needs --allow-expiry"
        for what in (
            "systemLogs.timestamp_1: deletes 1,000 documents",
            "pageViews.timestamp_1: deletes 20 documents",
            "auditLogs.timestamp_1: deletes 30 documents",
        )
    ]
    advice = "3 not applied: they can harm existing data. To apply: `inkstream bootstrap --allow-expiry`"
    assert {*waiting, advice} <= {*ended.output.splitlines()}
    for name in ("systemLogs", "pageViews", "auditLogs"):
        assert await existing.expiry(name, "timestamp_1") is None
    assert await existing.expiry("pageViews", "sessionId_1") == -1, "what harms nothing is done"

    checked = await inkstream(pipeline.environment, "bootstrap", "--check")
    assert checked.code == WAITING
    assert {*waiting, advice} <= {*checked.output.splitlines()}

    allowed = await inkstream(pipeline.environment, "bootstrap", "--allow-expiry")
    assert allowed.code == 0, allowed
    assert await existing.expiry("systemLogs", "timestamp_1") == 30 * DAY
    assert (await inkstream(pipeline.environment, "bootstrap", "--check")).output == "Everything is up to date.\n"


async def test_an_index_created_by_others_keeps_its_expiry_until_a_change_is_allowed(existing: Existing) -> None:
    logs = existing.database["systemLogs"]
    for before, words in ((-1, "never"), (40 * DAY, "40 days")):
        await logs.drop_index("timestamp_1")
        options: dict[str, Any] = {"expireAfterSeconds": before} if before > 0 else {}
        await logs.create_index("timestamp", **options)
        assert await existing.bootstrap() == [
            f"different index systemLogs.timestamp_1: documents expire after 30 days instead of {words}; "
            "needs --allow-expiry"
        ]
        assert await existing.expiry("systemLogs", "timestamp_1") == before
    await existing.bootstrap(Risk.EXPIRY)
    assert await existing.expiry("systemLogs", "timestamp_1") == 30 * DAY


async def test_an_index_with_other_fields_is_dropped_only_if_allowed(existing: Existing) -> None:
    views = existing.database["pageViews"]
    await views.drop_index("sessionId_1")
    await views.create_index([("session", 1)], name="sessionId_1")
    assert await existing.bootstrap() == [
        "different index pageViews.sessionId_1: has other fields or options, so it is dropped and built again; "
        "needs --allow-rebuilds"
    ]
    assert (await views.index_information())["sessionId_1"]["key"] == [("session", 1)]
    await existing.bootstrap(Risk.REBUILDS)
    assert (await views.index_information())["sessionId_1"]["key"] == [("sessionId", 1)]


async def test_a_twin_under_another_name_serves_although_the_name_is_taken(existing: Existing) -> None:
    views = existing.database["pageViews"]
    await views.drop_index("sessionId_1")
    await views.create_index([("session", 1)], name="sessionId_1")
    await views.create_index([("sessionId", 1)], name="by_session")
    assert await existing.bootstrap() == ["unexpected index pageViews.sessionId_1: not declared, left as it is"]


async def test_a_unique_index_of_others_is_reported_with_what_it_does(existing: Existing) -> None:
    await existing.database["pageViews"].create_index("visit", unique=True)
    assert await existing.bootstrap() == [
        "unexpected index pageViews.visit_1: not declared, left as it is; it is unique, so a document with a value "
        "that exists becomes a dead letter"
    ]


async def test_old_documents_can_be_updated_while_new_ones_are_checked(existing: Existing) -> None:
    logs = await existing.fill("systemLogs", 1, timedelta(days=20))
    assert "changed validator of systemLogs: not the declared fields and types" in await existing.bootstrap(Risk.EXPIRY)
    await logs.update_one({}, {"$set": {"text": "y"}})
    with pytest.raises(WriteError):
        await logs.insert_one({"timestamp": NOW, "text": "z"})
    assert await existing.bootstrap() == []


@pytest.mark.parametrize("identity", ["of this week", "a number"])
async def test_a_service_that_still_writes_other_documents_goes_on_until_refusals_are_allowed(
    existing: Existing, identity: str
) -> None:
    logs = await existing.fill("systemLogs", 1, timedelta(days=20))
    await logs.insert_one({"timestamp": NOW, **({"_id": 7} if identity == "a number" else {})})
    waits = "different validator of systemLogs: refuses new documents like {} of the last week; needs --allow-refusals"
    first = await existing.bootstrap(Risk.EXPIRY)
    assert "changed validator of systemLogs: logs what does not match" in first
    assert waits.format("1 document") in first
    await logs.insert_one({"timestamp": NOW, "text": "z"})
    await logs.update_many({}, {"$set": {"text": "y"}})
    assert await existing.bootstrap() == [waits.format("2 documents")]
    await existing.bootstrap(Risk.REFUSALS)
    with pytest.raises(WriteError):
        await logs.insert_one({"timestamp": NOW, "text": "z"})
    await logs.update_many({}, {"$set": {"text": "y"}})


async def test_the_validator_refuses_by_itself_once_nothing_writes_other_documents(existing: Existing) -> None:
    logs = await existing.fill("systemLogs", 1, timedelta(0))
    await existing.bootstrap(Risk.EXPIRY)
    await logs.delete_many({})
    assert await existing.bootstrap() == ["changed validator of systemLogs: not the declared fields and types"]
    options = await existing.options("systemLogs")
    assert (options["validationLevel"], options["validationAction"]) == ("moderate", "error")


async def test_a_manually_changed_document_does_not_block_a_release(existing: Existing) -> None:
    earlier = {"$jsonSchema": {"bsonType": "object", "properties": {"_id": {"bsonType": "string"}}}}
    groups = existing.database["errorLogs"]
    await groups.insert_one({"_id": "spoiled"}, bypass_document_validation=True)
    assert await existing.bootstrap() == [], "it was refused before, and is refused now"
    await existing.database.command("collMod", "errorLogs", validator={**earlier, "name": {"$exists": True}})
    assert await existing.bootstrap() == ["changed validator of errorLogs: not the declared fields and types"]


async def test_a_validator_created_by_others_is_kept_until_its_replacement_is_allowed(existing: Existing) -> None:
    theirs = {"$jsonSchema": {"required": ["action"]}}
    await existing.database.command("collMod", "auditLogs", validator=theirs)
    assert await existing.bootstrap() == [
        "different validator of auditLogs: replaces a validator that others made; needs --allow-refusals"
    ]
    assert (await existing.options("auditLogs"))["validator"] == theirs


async def test_the_validator_of_an_earlier_release_gives_way_without_a_flag(existing: Existing) -> None:
    earlier = {"$jsonSchema": {"bsonType": "object", "properties": {"_id": {"bsonType": "string"}}}}
    await existing.database.command("collMod", "auditLogs", validator=earlier)
    assert await existing.bootstrap() == ["changed validator of auditLogs: not the declared fields and types"]


KINDS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "view": ({"viewOn": "systemLogs"}, "is a view, and Inkstream has to write to it"),
    "timeseries": (
        {"timeseries": {"timeField": "timestamp"}},
        "is a time-series collection, in which no document can be updated by its _id",
    ),
    "capped": ({"capped": True, "size": 4096}, "is capped, so new documents overwrite old ones"),
    "collation": (
        {"collation": {"locale": "de", "strength": 1}},
        "has the collation 'de', by which different ids may be equal",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_collection_of_another_kind_is_reported_with_a_fix(existing: Existing, kind: str) -> None:
    options, reason = KINDS[kind]
    await existing.database.drop_collection("pageViews")
    await existing.database.drop_collection("searchQueries")
    await existing.database.command({"create": "pageViews", **options})
    blocked, *others = await existing.bootstrap()
    assert blocked == (
        f"blocked collection pageViews: {reason}; rename it or move its documents away, and run `inkstream bootstrap` "
        "again"
    )
    assert "created index searchQueries.query_text" in others, "other collections are made all the same"


async def test_bootstrap_and_doctor_say_the_same_of_a_collection_that_can_t_be_used(pipeline: Pipeline) -> None:
    await pipeline.collection("pageViews").drop()
    await pipeline.database.command({"create": f"{pipeline.namespace}pageViews", "capped": True, "size": 4096})
    ended = await inkstream(pipeline.environment, "bootstrap")
    doctor = await inkstream(pipeline.environment, "doctor", "--json")
    assert ended.code == 1
    assert "1 blocked; see above for what to do." in ended.output
    (line,) = [line for line in ended.output.splitlines() if "blocked collection" in line]
    assert line.removeprefix("MongoDB: ") in [finding["what"] for finding in json.loads(doctor.output)["findings"]]


# Kafka ----------------------------------------------------------------------------------------------------

WEEK = str(7 * DAY * 1000)


class Topic:
    """A topic that was there before, with one partition, on which bootstrap is run by itself."""

    def __init__(self, pipeline: Pipeline, options: Mapping[str, str]) -> None:
        self._settings = pipeline.settings
        self._brokers = pipeline.platform.kafka.brokers
        self.name = f"{pipeline.namespace}theirs-{uuid4().hex[:8]}"
        self._options = dict(options)

    async def create(self, *ages: timedelta) -> Self:
        """Create it, with a record of each age."""
        async with kafka_topics.administration(self._settings) as admin:
            await admin.create_topics([NewTopic(self.name, 1, 1, topic_configs=self._options)])
        async with AIOKafkaProducer(bootstrap_servers=self._brokers, acks="all") as producer:
            for age in ages:
                at = int((NOW - age).timestamp() * 1000)
                await producer.send_and_wait(self.name, b"{}", key=b"k", timestamp_ms=at)
        return self

    async def bootstrap(self, options: Mapping[str, str], *allowed: Risk, partitions: int = 1) -> list[str]:
        """Run bootstrap on this topic; return its lines without the topic's name."""
        wanted = [DeclaredTopic(self.name, partitions, 1, {"cleanup.policy": "delete", **options})]
        planned = await kafka_topics.converge(self._settings, wanted, check=True, allowed=allowed)
        done = await kafka_topics.converge(self._settings, wanted, check=False, allowed=allowed)
        assert [change.what for change in planned] == [change.what for change in done]
        return [change.line.replace(f" topic {self.name}", "") for change in done if self.name in change.what]

    async def found(self) -> tuple[int, Mapping[str, str]]:
        """Return the partitions and options that it has."""
        async with kafka_topics.administration(self._settings) as admin:
            partitions = (await kafka_topics.partition_counts(admin))[self.name]
            (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, self.name)])
        (resource,) = response.to_object()["resources"]
        return partitions, {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}


@pytest.fixture
def new_topic(platform: Platform) -> Callable[..., Awaitable[Topic]]:
    pipeline = Pipeline(platform, only=("page-views",))

    async def create(options: Mapping[str, str], *ages: timedelta) -> Topic:
        return await Topic(pipeline, options).create(*ages)

    return create


NewTopicOf = Callable[..., Awaitable[Topic]]


async def test_a_topic_s_records_stay_until_their_expiry_is_allowed(new_topic: NewTopicOf) -> None:
    ages = [timedelta(days=days) for days in (100, 50, 10, 1)]
    topic = await new_topic({"retention.ms": "-1"}, *ages)
    (line,) = await topic.bootstrap({"retention.ms": WEEK})
    was = f"different: retention.ms={WEEK}, was retention.ms=-1"
    assert line == f"{was}; deletes 3 records at once, 1 later; needs --allow-expiry"
    assert (await topic.found())[1]["retention.ms"] == "-1"
    assert len(await topic.bootstrap({"retention.ms": WEEK}, Risk.EXPIRY)) == 1
    assert (await topic.found())[1]["retention.ms"] == WEEK
    assert await topic.bootstrap({"retention.ms": WEEK}) == []


async def test_keys_move_to_new_partitions_only_if_allowed(new_topic: NewTopicOf) -> None:
    topic = await new_topic({"retention.ms": WEEK}, timedelta(0))
    assert await topic.bootstrap({"retention.ms": WEEK}, partitions=3) == [
        "different: 3 partitions, was 1; keys move to other partitions; needs --allow-repartitioning"
    ]
    assert (await topic.found())[0] == 1
    await topic.bootstrap({"retention.ms": WEEK}, Risk.REPARTITIONING, partitions=3)
    assert (await topic.found())[0] == 3


async def test_compaction_of_a_topic_that_has_records_waits(new_topic: NewTopicOf) -> None:
    topic = await new_topic({"retention.ms": WEEK}, timedelta(0), timedelta(0), timedelta(0))
    (line,) = await topic.bootstrap({"retention.ms": WEEK, "cleanup.policy": "compact,delete"})
    assert line.endswith("; keeps only the latest record of each key, of 3 records; needs --allow-expiry")
    assert (await topic.found())[1]["cleanup.policy"] == "delete"


async def test_expiry_of_a_topic_that_was_only_compacted_waits(new_topic: NewTopicOf) -> None:
    topic = await new_topic({"retention.ms": WEEK, "cleanup.policy": "compact"}, timedelta(days=10), timedelta(0))
    (line,) = await topic.bootstrap({"retention.ms": WEEK})
    assert line.endswith("; deletes 1 records at once, 1 later; needs --allow-expiry")


async def test_an_empty_topic_and_a_longer_retention_need_no_flag(new_topic: NewTopicOf) -> None:
    empty = await new_topic({"retention.ms": "-1"})
    short = await new_topic({"retention.ms": "86400000"}, timedelta(0))
    for topic, partitions in ((empty, 3), (short, 1)):
        lines = await topic.bootstrap({"retention.ms": WEEK}, partitions=partitions)
        assert all(line.startswith("changed: ") for line in lines)
        found = await topic.found()
        assert (found[0], found[1]["retention.ms"]) == (partitions, WEEK)


async def test_a_larger_record_limit_than_declared_is_kept(new_topic: NewTopicOf) -> None:
    topic = await new_topic({"retention.ms": WEEK, "max.message.bytes": str(2**27)})
    assert await topic.bootstrap({"retention.ms": WEEK, "max.message.bytes": str(2**26)}) == []
    assert await topic.bootstrap({"retention.ms": WEEK, "max.message.bytes": str(2**28)}) == [
        f"changed: max.message.bytes={2**28}, was max.message.bytes={2**27}"
    ]


# Any prior state ------------------------------------------------------------------------------------------

DOCUMENTS = st.lists(
    st.fixed_dictionaries(
        {"age": st.integers(0, 4000)},
        optional={
            "_id": st.text(min_size=1, max_size=8),
            "status": st.sampled_from(["completed", "x"]),
            "n": st.none(),
        },
    ),
    max_size=6,
    unique_by=lambda document: str(document.get("_id", document)),
)
INDEXES = st.lists(
    st.tuples(
        st.sampled_from(["timestamp", "createdAt", "sessionId", "userId", "resolvedAt", "processedAt"]),
        st.sampled_from([1, -1]),
        st.sampled_from([{}, {"expireAfterSeconds": 10**8}, {"sparse": True}, {"hidden": True}]),
    ),
    max_size=3,
    unique_by=lambda index: index[0],
)
VALIDATORS = st.sampled_from([{}, {"n": {"$ne": 7}}, {"$jsonSchema": {"bsonType": "object"}}])
COLLECTION_STATES = st.tuples(st.sampled_from(sorted(COLLECTIONS)), DOCUMENTS, INDEXES, VALIDATORS)


def documents_of(collection: Collection, generated: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return documents as generated, each with the date and most with what else the collection's retention looks at."""
    since, only_where = "timestamp", dict[str, Any]()
    if collection.retention is not None:
        since, only_where = collection.retention.since, dict(collection.retention.only_where)
    return [
        {
            **({} if "status" in one else only_where),
            **{name: value for name, value in one.items() if name != "age"},
            since: NOW - timedelta(days=one["age"]),
        }
        for one in generated
    ]


@given(states=st.lists(COLLECTION_STATES, max_size=3, unique_by=lambda state: state[0]))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_from_any_state_bootstrap_deletes_nothing_without_flags_and_converges_with_all_flags(
    mongo: Mongo, states: list[tuple[str, list[dict[str, Any]], list[tuple[str, int, dict[str, Any]]], dict[str, Any]]]
) -> None:
    database = mongo.database
    for name in COLLECTIONS:
        await database.drop_collection(name)
    before: dict[str, tuple[int, Mapping[str, Any], dict[str, Any]]] = {}
    for name, generated, indexes, validator in states:
        await database.create_collection(name, validator=validator)
        if documents := documents_of(COLLECTIONS[name], generated):
            await database[name].insert_many(documents)
        for field, direction, options in indexes:
            # A text or TTL index goes upwards only.
            await database[name].create_index([(field, 1 if options else direction)], **options)
        before[name] = (len(generated), await database[name].index_information(), validator)

    await sync_schema(database, check=False)
    for name, (count, indexes_before, validator) in before.items():
        assert await database[name].count_documents({}) == count
        after = await database[name].index_information()
        assert {index: after.get(index) for index in indexes_before} == indexes_before
        retention = COLLECTIONS[name].retention
        if retention is not None and retention.name not in indexes_before and retention.name in after:
            subject = {"$and": [{retention.since: {"$type": "date"}}, dict(retention.only_where)]}
            assert await database[name].count_documents(subject) == 0, "no document that was there begins to expire"
        # What was written before can still be updated.
        updated = await database[name].update_many({}, {"$set": {"touched": True}})
        assert updated.matched_count == count
        if validator:
            info = await (await database.list_collections(filter={"name": name})).next()
            assert info["options"]["validator"] == validator

    await sync_schema(database, check=False, allowed=frozenset(Risk))
    assert {change.action for change in await sync_schema(database, check=True)} <= {"report"}
