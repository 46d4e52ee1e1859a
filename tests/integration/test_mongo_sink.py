"""The sink on a real MongoDB: the same documents in any order, nothing twice, nothing lost, and the bad ones alone."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dev.servers.mongo import Mongo as MongoServer
from dev.stack import Platform, Ports
from enrich.documents import Document, Occurrence, PartialUpdate, Write
from sinks.collections import COLLECTIONS
from sinks.mongo.client import Mongo
from sinks.mongo.errors import Refusal, UnknownRefusalError, blames_content, is_transient
from sinks.mongo.outcome import Outcome
from sinks.mongo.schema_sync import sync_schema
from sinks.mongo.writer import MongoWriter

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def url(platform: Platform) -> Iterator[str]:
    """A database of these tests' own, with all that is declared in it."""
    address = platform.mongo.url.replace("/blog-platform", f"/test-{uuid4().hex}")

    async def prepare() -> None:
        sink = Mongo.connect(address)
        await sync_schema(sink.database, check=False)
        await sink.close()

    async def drop() -> None:
        sink = Mongo.connect(address)
        # A transaction whose client gave up holds its locks for a minute.
        await sink.database.client.admin.command("killAllSessions", [])
        await sink.database.client.drop_database(sink.database.name)
        await sink.close()

    asyncio.run(prepare())
    yield address
    asyncio.run(drop())


@pytest.fixture
async def mongo(url: str) -> AsyncIterator[Mongo]:
    sink = Mongo.connect(url)
    # These tests have fixed dates, and their documents would expire at any moment.
    await sink.database.client.admin.command("setParameter", 1, ttlMonitorEnabled=False)
    for name in COLLECTIONS:
        await sink.database[name].delete_many({})
    yield sink
    await sink.close()


async def stored(mongo: Mongo, collection: str) -> list[dict[str, Any]]:
    return await mongo.database[collection].find().sort("_id").to_list()


def view(view_id: str, **fields: Any) -> Document:
    return Document(
        "pageViews",
        {
            "_id": view_id,
            "postId": "post",
            "postSlug": "a-post",
            "sessionId": "session",
            "ipAddress": "hash",
            "userAgent": "agent",
            "device": {"type": "mobile", "os": "Android", "browser": "Firefox"},
            "timeSpent": 0,
            "scrollDepth": 0,
            "interacted": False,
            "source": "direct",
            "timestamp": NOW,
            **fields,
        },
    )


def exit_of(view_id: str, seconds: int, *, interacted: bool = False) -> PartialUpdate:
    highest = {"timeSpent": seconds, "scrollDepth": seconds * 2, "interacted": interacted, "exitedAt": at(seconds)}
    return PartialUpdate("pageViews", view_id, at(seconds), highest, {})


def search(search_id: str, **fields: Any) -> Document:
    return Document(
        "searchQueries",
        {
            "_id": search_id,
            "query": "$react",
            "normalizedQuery": "$react",
            "sessionId": "session",
            "resultsCount": 3,
            "clickedResults": [],
            "executionTime": 12,
            "timestamp": NOW,
            **fields,
        },
    )


def click(post: str, position: int, seconds: int) -> dict[str, Any]:
    return {"postId": post, "position": position, "clickedAt": at(seconds)}


def click_on(search_id: str, *clicks: dict[str, Any]) -> PartialUpdate:
    return PartialUpdate("searchQueries", search_id, clicks[0]["clickedAt"], {}, {"clickedResults": list(clicks)})


def custom_event(event_id: str, **fields: Any) -> Document:
    return Document(
        "analyticsEvents",
        {
            "_id": event_id,
            "eventType": "thing_done",
            "category": "engagement",
            "entityId": "entity",
            "entityType": "thing",
            "properties": {},
            "timestamp": NOW,
            **fields,
        },
    )


def error(line_id: str, time: datetime, *, group: str = "group", **fields: Any) -> Occurrence:
    shared = {"message": f"failed in {line_id}", "service": "api", "environment": "production", "timestamp": time}
    return Occurrence(
        {"_id": line_id, "level": "error", **shared},
        {
            "_id": group,
            "name": "TypeError",
            "stack": "",
            "severity": "high",
            **shared,
            "resolved": False,
            "firstOccurrence": time,
            "lastOccurrence": time,
            "occurrenceCount": 1,
            **fields,
        },
    )


async def write_retrying(mongo: Mongo, writes: Sequence[Write]) -> Outcome:
    """Write as the worker does: again and again while the fault is one that passes."""
    while True:
        try:
            return await MongoWriter(mongo).write(writes)
        except Exception as fault:
            if not is_transient(fault):
                raise


# Documents


async def test_nothing_to_write_is_fine(mongo: Mongo) -> None:
    assert await MongoWriter(mongo).write([]) == Outcome({}, {}, [])


async def test_documents_of_several_collections_are_written_and_the_second_time_are_duplicates(mongo: Mongo) -> None:
    writes = [view("a"), custom_event("a"), view("b"), view("a")]
    assert await MongoWriter(mongo).write(writes) == Outcome(
        {"pageViews": 2, "analyticsEvents": 1}, {"pageViews": 1}, []
    )
    assert await MongoWriter(mongo).write(writes) == Outcome({}, {"pageViews": 3, "analyticsEvents": 1}, [])
    assert [document["_id"] for document in await stored(mongo, "pageViews")] == ["a", "b"]


async def test_the_first_document_with_an_id_stays(mongo: Mongo) -> None:
    await MongoWriter(mongo).write([view("a", postId="first")])
    await MongoWriter(mongo).write([view("a", postId="second", timeSpent=100)])
    assert await stored(mongo, "pageViews") == [view("a", postId="first").body]


# A document and its parts, in any order


def expected(writes: Iterable[Write], document: Document) -> dict[str, Any]:
    body = copy.deepcopy(document.body)
    for write in writes:
        if isinstance(write, PartialUpdate):
            for field, value in write.highest.items():
                body[field] = max(body.get(field, value), value)
            for field, items in write.added.items():
                for item in items:
                    if item not in body[field]:
                        body[field].append(item)
    if "clickedResults" in body:
        body["clickedResults"].sort(key=lambda item: (item["clickedAt"], item["position"], item["postId"]))
    return body


async def test_a_view_and_its_exits_end_in_the_same_document_in_every_order_and_split(mongo: Mongo) -> None:
    for permutation, cut in itertools.product(itertools.permutations(range(4)), range(5)):
        view_id = uuid4().hex
        writes: list[Write] = [
            view(view_id, timeSpent=7),
            exit_of(view_id, 5, interacted=True),
            exit_of(view_id, 30),
            view(view_id),
        ]
        ordered = [writes[position] for position in permutation]
        if permutation.index(3) < permutation.index(0):
            # The first view is the one that stays.
            ordered[permutation.index(3)], ordered[permutation.index(0)] = writes[0], writes[3]
        await MongoWriter(mongo).write(ordered[:cut])
        await MongoWriter(mongo).write(ordered[cut:])
        found = await mongo.database.pageViews.find_one({"_id": view_id})
        assert found == expected(writes, view(view_id, timeSpent=7))
        assert found["timeSpent"] == 30
        assert found["interacted"] is True


async def test_a_search_and_its_clicks_end_in_the_same_document_in_every_order_and_split(mongo: Mongo) -> None:
    for permutation, cut in itertools.product(itertools.permutations(range(3)), range(4)):
        search_id = uuid4().hex
        early, late = click("$post", 1, 10), click("other", 2, 20)
        writes: list[Write] = [search(search_id), click_on(search_id, late, early), click_on(search_id, late)]
        ordered = [writes[position] for position in permutation]
        await MongoWriter(mongo).write(ordered[:cut])
        await MongoWriter(mongo).write(ordered[cut:])
        found = await mongo.database.searchQueries.find_one({"_id": search_id})
        assert found == search(search_id, clickedResults=[early, late]).body


_EXITS = st.builds(exit_of, st.sampled_from("ab"), st.integers(0, 50), interacted=st.booleans())
_CLICKS = st.builds(
    lambda search_id, *clicks: click_on(search_id, *clicks),
    st.sampled_from("ab"),
    *[st.builds(click, st.sampled_from(["x", "$y"]), st.integers(1, 2), st.integers(0, 2))] * 2,
)
_BEGINNINGS: list[Write] = [view("a"), view("b"), search("a"), search("b")]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(st.one_of(_EXITS, _CLICKS, st.sampled_from(_BEGINNINGS)), max_size=20).flatmap(
        lambda some: st.permutations(some + _BEGINNINGS)
    ),
    batches=st.integers(1, 6),
)
async def test_any_batches_written_at_once_end_in_the_same_documents(
    mongo: Mongo, writes: list[Write], batches: int
) -> None:
    await mongo.database.pageViews.delete_many({})
    await mongo.database.searchQueries.delete_many({})
    outcomes = await asyncio.gather(*(write_retrying(mongo, writes[start::batches]) for start in range(batches)))
    counted = sum(sum([*outcome.written.values(), *outcome.duplicates.values()]) for outcome in outcomes)
    assert counted == len(writes)
    for collection, begin in (("pageViews", view), ("searchQueries", search)):
        for document_id in "ab":
            own = [
                w for w in writes if isinstance(w, PartialUpdate) and (w.collection, w.id) == (collection, document_id)
            ]
            fresh = begin(document_id)
            found = await mongo.database[collection].find_one({"_id": document_id})
            assert found == expected(own, fresh)


async def test_a_part_before_its_document_leaves_a_placeholder_that_no_query_by_post_sees(mongo: Mongo) -> None:
    assert (await MongoWriter(mongo).write([exit_of("a", 5)])).written == {"pageViews": 1}
    placeholder = {"_id": "a", "timestamp": at(5), "incomplete": True}
    assert await stored(mongo, "pageViews") == [placeholder | exit_of("a", 5).highest]
    assert (await MongoWriter(mongo).write([click_on("a", click("$post", 1, 10))])).written == {"searchQueries": 1}
    placeholder = {"_id": "a", "timestamp": at(10), "incomplete": True}
    assert await stored(mongo, "searchQueries") == [placeholder | {"clickedResults": [click("$post", 1, 10)]}]


async def test_a_part_that_changes_nothing_is_a_duplicate(mongo: Mongo) -> None:
    await MongoWriter(mongo).write([view("a"), search("a")])
    exits: list[Write] = [exit_of("a", 5), exit_of("a", 9), exit_of("a", 9), exit_of("a", 7)]
    assert await MongoWriter(mongo).write(exits) == Outcome({"pageViews": 2}, {"pageViews": 2}, [])
    assert await MongoWriter(mongo).write(exits[1:]) == Outcome({}, {"pageViews": 3}, [])
    clicks: list[Write] = [click_on("a", click("x", 1, 1)), click_on("a", click("x", 1, 1))]
    assert await MongoWriter(mongo).write(clicks) == Outcome({"searchQueries": 1}, {"searchQueries": 1}, [])
    assert await MongoWriter(mongo).write(clicks) == Outcome({}, {"searchQueries": 2}, [])


# Content that MongoDB refuses


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"a": document}
    return document


REFUSED = {
    "a null byte in a field's name": ({"a\0b": 1}, "null byte"),
    "an integer beyond 64 bits": ({"a": 2**63}, "64 bits"),
    "half a surrogate pair": ({"a": "secret \ud800"}, "surrogate"),
    "a type that BSON does not know": ({"a": {"secret"}}, "type"),
    "181 levels": (nested(181), "nested too deeply"),
    "250 levels": (nested(250), "nested too deeply"),
    "100,000 levels": (nested(100_000), "nested too deeply"),
    "17 MB": ({"a": "secret" * 3_000_000}, "16 MB"),
    "a byte over 16 MB": ({"a": "x" * (16 * 1024 * 1024 - 100)}, "16 MB"),
}


@pytest.mark.parametrize(("properties", "message"), REFUSED.values(), ids=REFUSED)
async def test_what_mongodb_can_t_hold_is_refused_alone(mongo: Mongo, properties: dict[str, Any], message: str) -> None:
    writes: list[Write] = [custom_event(str(number)) for number in range(20)]
    writes.insert(7, custom_event("bad", properties=properties))
    outcome = await MongoWriter(mongo).write(writes)
    [(index, refusal)] = outcome.refused
    assert index == 7
    assert message in refusal.message
    assert refusal.reason == ("too-large" if "MB" in message else "refused-by-store")
    assert "secret" not in refusal.message
    assert (outcome.written["analyticsEvents"], outcome.duplicates) == (20, {})
    assert len(await stored(mongo, "analyticsEvents")) == 20


async def test_everything_bad_at_once_is_refused_and_everything_good_is_stored(mongo: Mongo) -> None:
    bad: list[Write] = [custom_event(name, properties=properties) for name, (properties, _) in REFUSED.items()]
    bad += [custom_event("no category", category=None), view("fridge", device={"type": "fridge"})]
    bad += [search("klingon", language="klingon"), search("number", language=5)]
    good: list[Write] = [custom_event(str(number)) for number in range(30)]
    good += [view("a"), search("a"), exit_of("b", 1)]
    writes: list[Write] = list(itertools.chain(*zip(bad, good, strict=False))) + good[len(bad) :]
    outcome = await MongoWriter(mongo).write(writes)
    assert [writes[index] for index, _ in outcome.refused] == bad
    assert {event["_id"] for event in await stored(mongo, "analyticsEvents")} == {str(number) for number in range(30)}
    again = await MongoWriter(mongo).write(writes)
    assert again.written == {}
    assert [index for index, _ in again.refused] == [index for index, _ in outcome.refused]


async def test_a_refusal_names_the_fields_and_what_was_expected(mongo: Mongo) -> None:
    body = view("a", device={"type": "fridge", "os": 5}, timeSpent="long").body
    del body["postSlug"]
    [(_, refusal)] = (await MongoWriter(mongo).write([Document("pageViews", body)])).refused
    assert sorted(refusal.message.split("; ")) == [
        "device.browser is missing",
        "device.os should be of type string and is int",
        "device.type should be one of mobile, tablet, desktop",
        "postSlug is missing",
        "timeSpent should be of type number and is string",
    ]


async def test_odd_names_within_properties_are_stored_as_they_are(mongo: Mongo) -> None:
    properties = {"$set": 1, "a.b": {"$gt": 2}, "": 3, "$a.b": [4], "$ref": 5, "list": [{"$x": 6}], "null": None}
    assert (await MongoWriter(mongo).write([custom_event("a", properties=properties)])).refused == []
    [found] = await stored(mongo, "analyticsEvents")
    assert found["properties"] == properties


async def test_a_document_that_completes_a_placeholder_keeps_odd_names_and_dollar_signs(mongo: Mongo) -> None:
    filters = {"tags": ["$a", "b.c"], "$odd": {"a.b": "$c"}}
    await MongoWriter(mongo).write([click_on("a", click("x", 1, 1))])
    await MongoWriter(mongo).write([search("a", filters=filters)])
    assert await stored(mongo, "searchQueries") == [
        search("a", filters=filters, clickedResults=[click("x", 1, 1)]).body
    ]


async def test_a_part_that_mongodb_refuses_stops_no_other_part_of_its_document(mongo: Mongo) -> None:
    await MongoWriter(mongo).write([view("a")])
    bad = PartialUpdate("pageViews", "a", NOW, {"postSlug": True}, {})  # BSON ranks a boolean above a string
    outcome = await MongoWriter(mongo).write([exit_of("a", 5), bad, exit_of("b", 5)])
    assert outcome.written == {"pageViews": 2}
    assert outcome.refused == [(1, Refusal("refused-by-store", "postSlug should be of type string and is bool"))]
    assert [document["timeSpent"] for document in await stored(mongo, "pageViews")] == [5, 5]


async def test_another_s_unique_index_refuses_instead_of_passing_for_a_duplicate(mongo: Mongo) -> None:
    index = await mongo.database.analyticsEvents.create_index("entityId", unique=True)
    try:
        outcome = await MongoWriter(mongo).write([custom_event("a"), custom_event("b"), custom_event("a")])
    finally:
        await mongo.database.analyticsEvents.drop_index(index)
    assert outcome.written == {"analyticsEvents": 1}
    assert outcome.duplicates == {"analyticsEvents": 1}
    [(position, refusal)] = outcome.refused
    assert position == 1
    assert "entityId" in refusal.message


# Errors and their groups


async def test_lines_of_an_error_are_counted_once_however_often_and_however_split_they_come(mongo: Mongo) -> None:
    lines = [error(f"{number:03}", at(number), group=f"group {number % 3}") for number in range(90)]
    assert await MongoWriter(mongo).write(lines) == Outcome({"systemLogs": 90, "errorLogs": 90}, {}, [])
    for start, end in ((0, 90), (10, 50), (89, 90), (0, 1)):
        again = await MongoWriter(mongo).write(lines[start:end])
        assert again == Outcome({}, {"systemLogs": end - start, "errorLogs": end - start}, [])
    more = [*lines[80:], error("new", at(-5), group="group 0"), error("new", at(-5), group="group 0")]
    assert (await MongoWriter(mongo).write(more)).written == {"systemLogs": 1, "errorLogs": 1}
    groups = {group["_id"]: group for group in await stored(mongo, "errorLogs")}
    assert {name: group["occurrenceCount"] for name, group in groups.items()} == {
        "group 0": 31,
        "group 1": 30,
        "group 2": 30,
    }
    assert groups["group 0"]["firstOccurrence"] == at(-5)
    assert groups["group 0"]["lastOccurrence"] == groups["group 0"]["timestamp"] == at(87)
    assert groups["group 0"]["message"] == "failed in 087"


async def test_the_first_occurrence_makes_the_group_as_given(mongo: Mongo) -> None:
    occurrence = error("a", NOW, requestId="$request", context={"a.b": "$c"})
    await MongoWriter(mongo).write([occurrence])
    assert await stored(mongo, "errorLogs") == [occurrence.group | {"lastEventId": "a"}]
    assert await stored(mongo, "systemLogs") == [occurrence.line]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moments=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 1500), st.sampled_from(["x", "y"]), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    seed=st.randoms(use_true_random=False),
    batches=st.integers(1, 4),
)
async def test_a_group_is_the_same_in_any_order_and_split(
    mongo: Mongo, moments: list[tuple[int, int, str, bool]], seed: Any, batches: int
) -> None:
    # Times less than a millisecond apart are the same to BSON: then the event's id decides.
    lines = [
        error(
            f"{number:02}", at(second) + timedelta(microseconds=micro), group=group, **({"userId": "u"} if user else {})
        )
        for number, (second, micro, group, user) in enumerate(moments)
    ]

    async def groups(writes: list[Occurrence], count: int) -> list[dict[str, Any]]:
        await mongo.database.systemLogs.delete_many({})
        await mongo.database.errorLogs.delete_many({})
        for start in range(count):
            await MongoWriter(mongo).write(writes[start::count])
        return await stored(mongo, "errorLogs")

    in_order = await groups(lines, 1)
    shuffled = [*lines, *seed.sample(lines, len(lines) // 2)]
    seed.shuffle(shuffled)
    assert await groups(shuffled, batches) == in_order
    assert sum(group["occurrenceCount"] for group in in_order) == len(lines)


async def test_an_occurrence_after_the_resolution_reopens_the_group_once(mongo: Mongo) -> None:
    await MongoWriter(mongo).write([error("a", at(1)), error("b", at(2))])
    resolution = {"resolved": True, "resolvedAt": at(10), "resolvedBy": "dev", "resolution": "fixed"}

    async def resolve() -> None:
        await mongo.database.errorLogs.update_one({}, {"$set": resolution})

    await resolve()
    # One seen before, one from before, and one of the very moment.
    await MongoWriter(mongo).write([error("b", at(2)), error("c", at(9)), error("d", at(10))])
    [group] = await stored(mongo, "errorLogs")
    assert resolution.items() <= group.items()
    assert group["occurrenceCount"] == 4

    await MongoWriter(mongo).write([error("f", at(12)), error("e", at(11)), error("g", at(3))])
    [group] = await stored(mongo, "errorLogs")
    assert group["resolved"] is False
    assert not {"resolvedAt", "resolvedBy", "resolution"} & set(group)
    assert (group["reopenedAt"], group["reopenCount"], group["occurrenceCount"]) == (at(11), 1, 7)

    await MongoWriter(mongo).write([error("h", at(13))])
    await MongoWriter(mongo).write([error("e", at(11))])
    [group] = await stored(mongo, "errorLogs")
    assert (group["reopenedAt"], group["reopenCount"], group["occurrenceCount"]) == (at(11), 1, 8)

    await resolve()
    await MongoWriter(mongo).write([error("i", at(14))])
    [group] = await stored(mongo, "errorLogs")
    assert (group["resolved"], group["reopenedAt"], group["reopenCount"]) == (False, at(14), 2)


async def test_what_a_person_added_to_a_group_stays(mongo: Mongo) -> None:
    await MongoWriter(mongo).write([error("a", at(1))])
    await mongo.database.errorLogs.update_one({}, {"$set": {"assignee": "dev"}})
    await MongoWriter(mongo).write([error("b", at(2))])
    [group] = await stored(mongo, "errorLogs")
    assert (group["assignee"], group["lastEventId"]) == ("dev", "b")


async def test_groups_of_an_older_version_of_the_rule_stay_readable_and_end_when_they_are_resolved(
    mongo: Mongo,
) -> None:
    old = error("a", at(1), group="group by version 1").group | {"fingerprintVersion": 1, "assignee": "dev"}
    kept = error("b", at(1), group="group of both versions").group | {"fingerprintVersion": 1, "assignee": "dev"}
    await mongo.database.errorLogs.insert_many([old, kept])
    newer = [error("c", at(2), group="group by version 2"), error("d", at(2), group="group of both versions")]
    await MongoWriter(mongo).write([Occurrence(each.line, each.group | {"fingerprintVersion": 2}) for each in newer])
    groups = {group["_id"]: group for group in await stored(mongo, "errorLogs")}
    assert groups["group by version 1"] == old
    both = groups["group of both versions"]
    assert (both["fingerprintVersion"], both["assignee"], both["occurrenceCount"]) == (2, "dev", 2)
    # As docs/decisions/0004-error-groups.md says. Of resolved groups the TTL index takes care.
    await mongo.database.errorLogs.update_many(
        {"fingerprintVersion": {"$lt": 2}, "resolved": False, "lastOccurrence": {"$lt": at(2)}},
        {"$set": {"resolved": True, "resolvedAt": NOW, "resolution": "not seen since fingerprintVersion 2"}},
    )
    resolved = await mongo.database.errorLogs.distinct("_id", {"resolved": True, "resolvedAt": {"$exists": True}})
    assert resolved == ["group by version 1"]


async def test_a_bad_occurrence_is_refused_alone_and_leaves_no_trace_in_its_group(mongo: Mongo) -> None:
    good = [error(f"{number:02}", at(number)) for number in range(40)]
    bad = [
        error("bad line", at(50))._replace(line={"_id": "bad line", "level": "terrible"}),
        error("bad group", at(51), severity="terrible"),
        error("null byte", at(52), context={"a\0": 1}),
        error("deep", at(53), context=nested(250)),
        error("huge", at(54), context={"a": "x" * (17 << 20)}),
    ]
    writes: list[Write] = [*good[:20], *bad, *good[20:]]
    outcome = await MongoWriter(mongo).write(writes)
    assert [index for index, _ in outcome.refused] == list(range(20, 25))
    assert [refusal.reason for _, refusal in outcome.refused] == ["refused-by-store"] * 4 + ["too-large"]
    assert "level should be one of debug" in outcome.refused[0][1].message
    assert "severity should be one of low" in outcome.refused[1][1].message
    assert outcome.written == {"systemLogs": 40, "errorLogs": 40}
    assert len(await stored(mongo, "systemLogs")) == 40
    [group] = await stored(mongo, "errorLogs")
    assert (group["occurrenceCount"], group["lastOccurrence"]) == (40, at(39))


async def test_writers_that_move_the_same_groups_at_once_count_exactly(mongo: Mongo, url: str) -> None:
    other = Mongo.connect(url)
    lines = [error(f"{number:04}", at(number), group=f"group {number % 4}") for number in range(1200)]
    await asyncio.gather(
        *(write_retrying(sink, lines[start : start + 300]) for start in range(0, 1200, 200) for sink in (mongo, other))
    )
    await other.close()
    assert [group["occurrenceCount"] for group in await stored(mongo, "errorLogs")] == [300] * 4
    assert len(await stored(mongo, "systemLogs")) == 1200


# Faults that pass, and faults that do not


async def test_a_transaction_that_a_killed_worker_left_open_holds_up_nobody_for_long(mongo: Mongo, url: str) -> None:
    await MongoWriter(mongo).write([error("line-1", at(0))])
    killed = Mongo.connect(url)
    session = killed.database.client.start_session()
    await session.start_transaction()
    await killed.database["errorLogs"].update_one({"_id": "group"}, {"$inc": {"occurrenceCount": 1}}, session=session)
    async with asyncio.timeout(30):  # MongoDB itself would end the transaction after a minute
        await write_retrying(mongo, [error("line-2", at(1))])
    [group] = await stored(mongo, "errorLogs")
    assert group["occurrenceCount"] == 2
    await killed.close()


async def test_a_mongodb_that_is_killed_raises_a_transient_error_and_loses_nothing(
    mongo: Mongo, platform: Platform, url: str
) -> None:
    impatient = Mongo.connect(url, timeout=timedelta(seconds=3))
    written: list[Write] = []
    faults: list[Exception] = []
    under_way, failing, enough = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def write_on_and_on() -> None:
        for number in itertools.count():
            batch: list[Write] = [view(f"{number}-{i}") for i in range(50)]
            batch += [error(f"{number}-{i}", at(number)) for i in range(50)]
            while True:
                try:
                    await MongoWriter(impatient).write(batch)
                    break
                except Exception as fault:
                    faults.append(fault)
                    failing.set()
            written.extend(batch)
            if number > 3:
                under_way.set()
            if enough.is_set():
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write_on_and_on())
        await under_way.wait()
        await asyncio.to_thread(platform.mongo.kill)
        await failing.wait()
        await asyncio.to_thread(platform.mongo.start)
        enough.set()
    await impatient.close()
    assert faults
    assert [fault for fault in faults if not is_transient(fault)] == []
    views = sum(isinstance(write, Document) for write in written)
    assert len(await stored(mongo, "pageViews")) == views
    assert len(await stored(mongo, "systemLogs")) == len(written) - views
    [group] = await stored(mongo, "errorLogs")
    assert group["occurrenceCount"] == len(written) - views


@pytest.mark.parametrize(
    "write", [view("late"), exit_of("late", 3), error("late", NOW)], ids=lambda write: type(write).__name__
)
async def test_a_mongodb_that_hangs_raises_a_transient_error_in_time(
    mongo: Mongo, platform: Platform, url: str, write: Write
) -> None:
    impatient = Mongo.connect(url, timeout=timedelta(seconds=2))
    await impatient.ping()
    await asyncio.to_thread(platform.mongo.pause)
    began = asyncio.get_running_loop().time()
    try:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked below
            await MongoWriter(impatient).write([write])
    finally:
        await asyncio.to_thread(platform.mongo.resume)
    assert is_transient(caught.value)
    assert asyncio.get_running_loop().time() - began < 7
    await write_retrying(impatient, [write])
    await impatient.close()


async def test_a_mongodb_that_is_not_there_is_transient() -> None:
    nobody = Mongo.connect("mongodb://127.0.0.1:9/?replicaSet=rs0", timeout=timedelta(seconds=1))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked below
        await MongoWriter(nobody).write([view("a")])
    assert is_transient(caught.value)
    await nobody.close()


async def test_a_bug_is_not_transient(mongo: Mongo) -> None:
    await mongo.database.command("create", "view of views", viewOn="pageViews", pipeline=[])
    with pytest.raises(UnknownRefusalError, match="view of views with error 166") as caught:
        await MongoWriter(mongo).write([Document("view of views", {"_id": "a"})])
    assert not is_transient(caught.value)


# Documents that somebody else has changed

SPOILED: dict[str, Any] = {
    "occurrenceCount": "many",
    "reopenCount": ["twice"],
    "firstOccurrence": "yesterday",
    "lastOccurrence": {"day": 1},
    "lastEventId": 5,
    "resolved": "maybe",
    "name": 5,
    "context": "none",
    "judged": "by me",
    "padding": "x" * (16 * 2**20 - 4_000),
}


async def spoil(mongo: Mongo, collection: str, document_id: str, **fields: Any) -> None:
    updates = [{"q": {"_id": document_id}, "u": {"$set": fields}}]
    result = await mongo.database.command("update", collection, updates=updates, bypassDocumentValidation=True)
    assert result["nModified"] == 1


@pytest.mark.parametrize("level", ["moderate", "strict"])
@pytest.mark.parametrize("field", SPOILED)
async def test_a_spoiled_group_costs_no_line_and_holds_up_no_other_group(mongo: Mongo, field: str, level: str) -> None:
    await mongo.database.command("collMod", "errorLogs", validationLevel=level)
    try:
        await MongoWriter(mongo).write([error("1", at(1), group="spoiled"), error("2", at(2), group="well")])
        # Resolved, so that the next line reopens it and adds to `reopenCount` as well.
        await spoil(mongo, "errorLogs", "spoiled", resolvedAt=at(1), **{"resolved": True, field: SPOILED[field]})
        lines = [error("3", at(3), group="spoiled", message="x" * 9_000), error("4", at(4), group="well")]
        outcome = await MongoWriter(mongo).write(lines)
    finally:
        await mongo.database.command("collMod", "errorLogs", validationLevel="moderate")
    assert outcome.refused == []
    assert outcome.written["systemLogs"] == 2
    assert [line["_id"] for line in await stored(mongo, "systemLogs")] == ["1", "2", "3", "4"]
    spoiled, well = await stored(mongo, "errorLogs")
    assert well["occurrenceCount"] == 2
    assert await MongoWriter(mongo).write(lines) == Outcome({}, {"systemLogs": 2, "errorLogs": 2}, [])
    if field == "occurrenceCount":
        assert spoiled["occurrenceCount"] == 1
    elif field == "reopenCount":
        assert (spoiled["reopenCount"], spoiled["occurrenceCount"]) == (1, 2)
    elif field != "padding" and level == "moderate":
        assert spoiled["occurrenceCount"] == 2


@pytest.mark.parametrize("value", ["none", 5, {"postId": "x"}, True])
async def test_a_list_of_clicks_that_is_none_is_begun_anew(mongo: Mongo, value: object) -> None:
    await MongoWriter(mongo).write([search("a"), search("b"), click_on("early", click("p", 1, 1))])
    for search_id in ("a", "early"):
        await spoil(mongo, "searchQueries", search_id, clickedResults=value)
    clicks = [click("p", 1, 10), click("q", 2, 20)]
    late: list[Write] = [click_on("a", clicks[0]), click_on("b", clicks[0]), click_on("a", clicks[1]), search("early")]
    outcome = await MongoWriter(mongo).write(late)
    assert (outcome.refused, outcome.written) == ([], {"searchQueries": 4})
    found = {document["_id"]: document["clickedResults"] for document in await stored(mongo, "searchQueries")}
    assert found == {"a": clicks, "b": clicks[:1], "early": []}


@pytest.mark.parametrize("field", ["postId", "timeSpent", "device", "exitedAt"])
async def test_an_exit_of_a_view_that_somebody_changed_is_taken(mongo: Mongo, field: str) -> None:
    await MongoWriter(mongo).write([view("a"), view("b")])
    await spoil(mongo, "pageViews", "a", **{field: "x" if field != "postId" else 5})
    assert (await MongoWriter(mongo).write([exit_of("a", 5), exit_of("b", 5)])).refused == []
    views = await stored(mongo, "pageViews")
    assert [found["interacted"] for found in views] == [False, False]
    assert [found["scrollDepth"] for found in views] == [10, 10]


class TestableMongo(MongoServer):
    """A MongoDB whose answers can be chosen."""

    __test__ = False

    def command(self) -> list[str]:
        return [*super().command(), "--setParameter=enableTestCommands=1"]


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of such a server."""
    server = TestableMongo(tmp_path_factory.mktemp("mongo"), Ports.free().mongo)
    server.start()
    yield server.url
    server.forget()


@pytest.mark.parametrize("code", [9, 16, 66, 96, 146, 218, 334, 99_999])
async def test_a_code_that_nobody_knows_stops_the_write_and_blames_no_record(choosing: str, code: int) -> None:
    mongo = Mongo.connect(choosing)
    await sync_schema(mongo.database, check=False)
    admin = mongo.database.client.admin
    refusing = {"failCommands": ["insert", "update"], "errorCode": code}
    chosen: list[list[Write]] = [[view("a"), view("b")], [exit_of("c", 1)], [error("d", at(1))]]
    for writes in chosen:
        await admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=refusing)
        with pytest.raises(UnknownRefusalError, match=f"error {code}") as caught:
            await MongoWriter(mongo).write(writes)
        assert not is_transient(caught.value)
        assert not blames_content(caught.value)
        assert (await MongoWriter(mongo).write(writes)).refused == []
    await mongo.database.client.drop_database(mongo.database.name)
    await mongo.close()
