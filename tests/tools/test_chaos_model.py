"""What the chaos harness takes for right: the model of the stores, and how it tells what differs from it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.documents import Document, GroupedNotification, Occurrence, PartialUpdate, Write
from enrich.notifications import notification
from enrich.view_windows import Window
from notifications.grouping import NotificationGroup, merge
from notifications.notice import ACTORS, Gather, Notice, expiry
from runtime.settings import ROOT, Settings
from schemas.topics import load
from sinks.collections import NAMES
from tests.chaos.event_log import Entry
from tests.chaos.model import Described, Describer, Model, bodies, digest_of, expires, kept
from tests.chaos.oracle_counts import counted_check, posts_check, topic_check, windows_check
from tests.chaos.oracle_documents import Reading, origin
from tests.chaos.oracle_findings import Findings, differences
from tests.chaos.oracle_kafka import Record, letters_check

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def entry(offset: int, reason: str | None = None) -> Entry:
    return Entry("page-views", 0, offset, 0, b"key", b"value", (("name", b"content"),), reason)


def model_of(*records: Sequence[Write], since: datetime | None = None) -> Model:
    """Return the model of records with these writes."""
    model = Model(lambda one: Described(list(records[one.offset]), None), since)
    for offset in range(len(records)):
        model.take(entry(offset))
    return model


def view(id_: str = "view", time: datetime = NOON, **fields: object) -> Document:
    body = {"_id": id_, "postId": "post", "timeSpent": 0.0, "scrollDepth": 0.0, "interacted": False, "timestamp": time}
    return Document("pageViews", {**body, **fields})


def leaving(seconds: float, *, interacted: bool = False, time: datetime = NOON) -> PartialUpdate:
    highest = {"timeSpent": seconds, "interacted": interacted, "exitedAt": NOON + seconds * SECOND}
    return PartialUpdate("pageViews", "view", time, highest, {})


def click(position: int, time: datetime = NOON) -> PartialUpdate:
    clicked = {"postId": "post", "position": position, "clickedAt": time}
    return PartialUpdate("searchQueries", "search", time, {}, {"clickedResults": [clicked]})


def occurrence(id_: str, time: datetime, group: str = "group", **fields: object) -> Occurrence:
    counted = {"firstOccurrence": time, "lastOccurrence": time, "timestamp": time, "occurrenceCount": 1}
    body = {"_id": group, "message": id_, "resolved": False, **counted, "lastEventId": id_, **fields}
    return Occurrence({"_id": id_, "level": "error", "timestamp": time}, body)


def like(actor: str, time: datetime = NOON, event: str = "") -> GroupedNotification:
    gather = Gather("group", NOON, f"{ACTORS} liked it", f"at {time}")
    notice = Notice(
        id=event or f"{actor}-{time}",
        user_id="author",
        type="post_liked",
        title="alone",
        message="alone",
        action_url=None,
        action_text=None,
        related_entity=None,
        actor_id=actor,
        actor_name=actor.title(),
        actor_avatar=f"/{actor}.webp",
        channels=("inApp", "push"),
        priority="low",
        created_at=time,
        expires_at=expiry(time),
        gather=gather,
    )
    return GroupedNotification("notifications", notice)


def stored(collection: str, *documents: dict[str, Any], model: Model) -> Reading:
    """Return what is found of a collection that has these documents."""
    reading = Reading(collection, model)
    for document in documents:
        reading._look(document["_id"], bson.encode(document))
    return reading


def problems(collection: str, *documents: dict[str, Any], model: Model) -> list[str]:
    check = stored(collection, *documents, model=model).check({})
    assert (check.found == check.expected) or check.problems
    return check.problems


# Documents ------------------------------------------------------------------------------------------------------


def test_an_event_that_comes_again_is_one_document() -> None:
    audit = Document("auditLogs", {"_id": "one", "action": "x", "timestamp": NOON})
    model = model_of([audit], [audit])
    assert model.ids("auditLogs") == {"one"}
    assert problems("auditLogs", kept(audit.body), model=model) == []


def test_of_copies_that_make_different_documents_each_is_right() -> None:
    copies = [Document("auditLogs", {"_id": "one", "timestamp": NOON + number * SECOND}) for number in range(3)]
    model = model_of(*([copy] for copy in copies))
    for copy in copies:
        assert problems("auditLogs", kept(copy.body), model=model) == []
    other = {"_id": "one", "timestamp": NOON + 3 * SECOND}
    assert problems("auditLogs", other, model=model) == ["one: no event results in it"]


def test_moments_are_compared_as_mongodb_keeps_them() -> None:
    model = model_of([view(time=NOON.replace(microsecond=123_999))])
    body = {**view().body, "timestamp": NOON.replace(microsecond=123_000)}
    assert problems("pageViews", body, model=model) == []


def test_what_is_missing_strange_or_different_is_named() -> None:
    writes = [Document("auditLogs", {"_id": f"{number}", "timestamp": NOON}) for number in range(9)]
    model = model_of(writes)
    changed = {**writes[0].body, "timestamp": NOON + SECOND}
    reading = stored("auditLogs", changed, {"_id": "strange"}, model=model)
    assert reading.missing == {f"{number}" for number in range(1, 9)}
    assert set(reading.suspects) == {"0"}
    origins = {
        write.body["_id"]: [origin("auditLogs", "topic:0:7", kept(write.body), NOON, is_suspect=True)]
        for write in writes
    }
    check = reading.check(origins)
    assert (check.expected, check.found) == (9, 0)
    assert check.problems == [
        "strange should not be there",
        *(f"{number} is missing, and came as topic:0:7" for number in range(1, 6)),
        "and 3 more are missing",
        "0: timestamp should be 2026-01-31T12:00:00+00:00, and is 2026-01-31T12:00:01+00:00",
    ]


def test_a_document_with_its_fields_in_another_order_or_other_kinds_of_numbers_is_right() -> None:
    body = {"_id": "one", "properties": {"lines": 3, "price": 2.0}, "timestamp": NOON}
    model = model_of([Document("analyticsEvents", body)])
    same = {"_id": "one", "timestamp": NOON, "properties": {"price": 2, "lines": 3.0}}
    reading = stored("analyticsEvents", same, model=model)
    check = reading.check({"one": [origin("analyticsEvents", "", kept(body), NOON, is_suspect=True)]})
    assert (check.problems, check.found) == ([], 1)


def test_what_mongodb_may_have_deleted_is_not_missed() -> None:
    old = Document("performanceLogs", {"_id": "old", "timestamp": NOON})
    reading = stored("performanceLogs", model=model_of([old]))
    in_time, late = NOON + timedelta(days=6), NOON + timedelta(days=8)
    assert not expires("performanceLogs", old.body, in_time)
    assert not expires("searchQueries", old.body, late)
    origins = {"old": [origin("performanceLogs", "", old.body, late, is_suspect=False)]}
    assert reading.check(origins).problems == []
    origins = {"old": [origin("performanceLogs", "place", old.body, in_time, is_suspect=False)]}
    assert reading.check(origins).problems == ["old is missing, and came as place"]


# Parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_view_and_its_exits_are_the_same_in_any_order(order: tuple[int, ...]) -> None:
    writes: list[Write] = [view(), leaving(30, interacted=True), leaving(90), leaving(30, interacted=True)]
    model = model_of(*([writes[number]] for number in order))
    exited = {"timeSpent": 90, "interacted": True, "exitedAt": NOON + 90 * SECOND}
    assert problems("pageViews", {**view().body, **exited}, model=model) == []
    lower = {**view().body, **exited, "timeSpent": 30}
    assert problems("pageViews", lower, model=model) == ["view: timeSpent should be 90, and is 30"]
    placeholder = {"_id": "view", "timestamp": NOON, "incomplete": True, **exited}
    assert set(stored("pageViews", placeholder, model=model).suspects) == {"view"}


def test_the_views_own_engagement_counts_as_well() -> None:
    model = model_of([leaving(30)], [view(timeSpent=100.0, exitedAt=NOON)])
    body = view(timeSpent=100.0, exitedAt=NOON + 30 * SECOND).body
    assert problems("pageViews", body, model=model) == []


def test_a_view_that_never_came_leaves_a_placeholder_with_the_time_of_one_of_its_exits() -> None:
    model = model_of([leaving(30, time=NOON)], [leaving(60, time=NOON + SECOND)])
    highest = {"timeSpent": 60, "interacted": False, "exitedAt": NOON + 60 * SECOND}
    for time in (NOON, NOON + SECOND):
        placeholder = {"_id": "view", "timestamp": time, "incomplete": True, **highest}
        assert problems("pageViews", placeholder, model=model) == []
    wrong = {"_id": "view", "timestamp": NOON + 2 * SECOND, "incomplete": True, **highest}
    assert len(problems("pageViews", wrong, model=model)) == 1
    assert model.views({}) == {}, "an exit is no view"


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_clicks_are_a_union_in_the_order_of_their_times(order: tuple[int, ...]) -> None:
    search = Document("searchQueries", {"_id": "search", "query": "ink", "clickedResults": [], "timestamp": NOON})
    writes: list[Write] = [search, click(2), click(1, NOON + SECOND), click(2)]
    model = model_of(*([writes[number]] for number in order))
    clicks = [write.added["clickedResults"][0] for write in (click(2), click(1, NOON + SECOND))]
    assert problems("searchQueries", {**search.body, "clickedResults": clicks}, model=model) == []
    for wrong in (clicks[:1], clicks[::-1], [*clicks, clicks[0]]):
        assert len(problems("searchQueries", {**search.body, "clickedResults": wrong}, model=model)) == 1


# Errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_group_is_the_same_in_any_order(order: tuple[int, ...]) -> None:
    writes = [
        occurrence("a", NOON, endpoint="/a"),
        occurrence("c", NOON + SECOND),
        occurrence("b", NOON + SECOND, endpoint="/b"),
        occurrence("a", NOON, endpoint="/a"),
    ]
    model = model_of(*([writes[number]] for number in order))
    times = {"firstOccurrence": NOON, "lastOccurrence": NOON + SECOND, "timestamp": NOON + SECOND}
    latest = {"_id": "group", "message": "c", "resolved": False, "lastEventId": "c"}
    assert model.errors({}) == {"group": {**latest, **times, "occurrenceCount": 3}}
    assert model.ids("systemLogs") == {"a", "b", "c"}


def test_groups_follow_the_copy_of_a_line_that_is_stored() -> None:
    early, late = occurrence("line", NOON, group="early"), occurrence("line", NOON + SECOND, group="late")
    model = model_of([early], [late])
    reading = stored("systemLogs", late.line, model=model)
    assert set(model.errors(reading.stored)) == {"late"}
    assert set(model.errors({})) == {"early"}, "where none is stored, any would do"
    no_error = Document("systemLogs", {"_id": "line", "level": "info"})
    model = model_of([early], [no_error])
    assert model.errors(stored("systemLogs", no_error.body, model=model).stored) == {}


# Views ----------------------------------------------------------------------------------------------------------


def test_views_by_people_are_counted_once_each_by_windows() -> None:
    minute = timedelta(minutes=1)
    model = model_of(
        [view("a", NOON)],
        [view("b", NOON + 4 * minute)],
        [view("b", NOON + 4 * minute)],
        [view("c", NOON + 5 * minute)],
        [view("d", NOON, bot={"rule": "name"})],
        [view("e", NOON, postId="with\0nul")],
        [view("f", NOON - minute)],
        since=NOON,
    )
    assert model.views({}) == {Window("post", NOON): 2, Window("post", NOON + 5 * minute): 1}


def test_counts_follow_the_copy_of_a_view_that_is_stored() -> None:
    later = NOON + timedelta(hours=1)
    copies = view(time=NOON), view(time=later)
    model = model_of([leaving(3)], *([copy] for copy in copies))
    for copy in copies:
        body = {**copy.body, "timeSpent": 3.0, "exitedAt": NOON + 3 * SECOND}
        reading = stored("pageViews", body, model=model)
        assert reading.check({}).problems == []
        assert model.views(reading.stored) == {Window("post", copy.body["timestamp"]): 1}


# Notifications --------------------------------------------------------------------------------------------------


def gathered_by_the_product(notices: Iterable[Notice]) -> NotificationGroup:
    gathered = None
    for notice in notices:
        gathered = merge(gathered, notice)
    assert gathered is not None
    return gathered


@given(
    st.lists(
        st.tuples(st.sampled_from(["ada", "bob", "cyd", "dan", "eve"]), st.integers(0, 5)), min_size=1, max_size=12
    )
)
def test_what_is_gathered_is_what_the_product_gathers(acts: list[tuple[str, int]]) -> None:
    likes = [like(actor, NOON + second * SECOND) for actor, second in acts]
    model = model_of(*([write] for write in likes))
    [group] = model.groups.values()
    expected = gathered_by_the_product(write.notice for write in likes)
    assert group.gathered == expected
    assert group.made_at == {write.notice.created_at for write in likes}
    for made_at in group.made_at:
        first = next(write.notice for write in likes if write.notice.created_at == made_at)
        newest = expected.newest[0]
        who = {"actor_id": newest.actor_id, "actor_name": newest.actor_name, "actor_avatar": expected.actor_avatar}
        made = notification(replace(first, **who), expected.words, "group-1")  # type: ignore[arg-type]
        assert group.notification(made_at) == kept({**made, "gathered": expected.document()})


def test_a_gathered_notification_may_be_made_by_any_of_its_notices() -> None:
    model = model_of([like("ada", NOON)], [like("bob", NOON + SECOND)])
    [group] = model.groups.values()
    for made_at in (NOON, NOON + SECOND):
        body = group.notification(made_at)
        body["gathered"]["version"] = 7
        assert problems("notifications", body, model=model) == []
        item = {**group.item(made_at), "status": "completed", "deliveries": [], "completedAt": NOON}
        assert problems("notificationQueue", item, model=model) == []
    wrong = problems("notifications", {**group.notification(NOON), "createdAt": NOON + 2 * SECOND}, model=model)
    assert wrong == ["group-1: createdAt is 2026-01-31 12:00:02+00:00, when nothing happened that it tells of"]
    body = group.notification(NOON)
    body["gathered"]["actors"] = body["gathered"]["actors"][:8]
    assert "gathered.actors should be" in problems("notifications", body, model=model)[0]


def test_what_delivery_changes_does_not_count() -> None:
    channels = {"inApp": {"enabled": True, "read": False}, "email": {"enabled": True, "sent": False}}
    told = Document("notifications", {"_id": "one", "title": "Hello", "channels": channels})
    model = model_of([told, Document("notificationQueue", {"_id": "one", "status": "pending", "type": "x"})])
    sent = {**channels, "email": {"enabled": True, "sent": True, "sentAt": NOON, "emailId": "key"}}
    assert problems("notifications", {**told.body, "channels": sent}, model=model) == []
    off = {**channels, "email": {"enabled": False, "sent": False}}
    assert set(stored("notifications", {**told.body, "channels": off}, model=model).suspects) == {"one"}
    done = {"_id": "one", "status": "completed", "type": "x", "attempts": 1, "revision": 3}
    assert problems("notificationQueue", done, model=model) == []
    assert set(stored("notificationQueue", {**done, "type": "y"}, model=model).suspects) == {"one"}


# Records --------------------------------------------------------------------------------------------------------


def test_the_ledger_and_who_reads_must_agree() -> None:
    audit = Document("auditLogs", {"_id": "one", "timestamp": NOON})
    unstorable = Document("auditLogs", {"_id": "two", "changes": {"a\0b": 1}})
    described = [
        Described([audit], None),
        Described([], "schema"),
        Described([audit], None),
        Described([], "schema"),
        Described([unstorable], None),
    ]
    model = Model(lambda one: described[one.offset])
    for offset, reason in enumerate([None, "schema", "not-json", "unknown-type", None]):
        model.take(entry(offset, reason))
    assert [problem[:42] for problem in model.disagreements] == [
        "page-views:0:2 is valid to who reads it, a",
        "page-views:0:3 is schema to who reads it, ",
        "page-views:0:4 can't be stored (InvalidDoc",
    ]
    assert set(model.dead_letters["page-views"]) == {"page-views:0:1", "page-views:0:2", "page-views:0:3"}
    assert model.ids("auditLogs") == {"one"}


def test_of_a_record_that_mongodb_refuses_the_other_documents_may_be_there() -> None:
    refused = Document("auditLogs", {"_id": "one", "changes": {"n": 2**70}})
    other = Document("userActivity", {"_id": "one", "userId": "ada"})
    model = Model(lambda _: Described([refused, other], None))
    model.take(entry(0, "refused-by-store"))
    assert model.disagreements == []
    assert problems("userActivity", other.body, model=model) == []
    assert problems("userActivity", model=model) == []
    assert problems("userActivity", {"_id": "one", "userId": "bob"}, model=model) == ["one should not be there"]
    assert problems("auditLogs", {"_id": "one"}, model=model) == ["one should not be there"]


def test_a_record_is_described_as_a_worker_does() -> None:
    describer = Describer(Settings(_env_file=None), load(ROOT / "topics.yaml", NAMES))
    assert "domain-events" in describer.notified
    value = (
        b'{"type": "post.liked", "eventId": "one", "timestamp": "2026-01-31T12:00:00Z", "postId": "p", "slug": "p",'
        b' "title": "Ink", "userId": "ada", "userName": "Ada", "authorId": "bob"}'
    )
    described = describer(Entry("domain-events", 0, 0, 0, None, value, (), None))
    assert described.reason is None
    assert described.tells
    assert [type(write).__name__ for write in described.writes] == ["Document", "Document", "GroupedNotification"]
    assert [collection for collection, _ in bodies(described)] == ["analyticsEvents", "userActivity"]
    refused = describer(Entry("domain-events", 0, 1, 0, None, b"{}", (), "unknown-type"))
    assert refused == Described([], "unknown-type")
    assert describer(Entry("view-windows", 0, 1, 0, None, b"?", (), "not-json")).reason == "not-json"


@given(st.permutations(range(10)), st.lists(st.integers(0, 9), max_size=6))
def test_the_model_is_the_same_in_any_order_and_repetition(order: list[int], again: list[int]) -> None:
    records: list[list[Write]] = [
        [view()],
        [leaving(30, time=NOON + SECOND)],
        [leaving(90, interacted=True)],
        [view("other", NOON + timedelta(hours=1))],
        [click(2)],
        [click(1, NOON + SECOND)],
        [occurrence("a", NOON)],
        [occurrence("b", NOON + SECOND)],
        [like("ada", NOON)],
        [like("bob", NOON + SECOND), like("ada", NOON + 2 * SECOND)],
    ]
    plain = model_of(*records)
    mixed = model_of(*(records[number] for number in [*order, *again]))
    assert mixed.views({}) == plain.views({})
    assert mixed.errors({}) == plain.errors({})
    assert mixed.groups == plain.groups
    its_digest = digest_of("pageViews", view().body)
    assert mixed.late("pageViews", "view", its_digest) == plain.late("pageViews", "view", its_digest)
    assert (
        mixed.parts["searchQueries"].placeholders("search")[0]["clickedResults"]
        == (plain.parts["searchQueries"].placeholders("search")[0]["clickedResults"])
    )
    assert all(mixed.ids(name) == plain.ids(name) for name in ("pageViews", "systemLogs", "searchQueries"))


# What differs ---------------------------------------------------------------------------------------------------


def test_differences_are_told_by_field() -> None:
    assert differences({"a": 1, "b": [1, {"c": 2.0}]}, {"a": 1.0, "b": [1, {"c": 2}]}) == []
    assert differences({"a": True}, {"a": 1}) == ["a should be True, and is 1"]
    assert differences({"a": float("nan")}, {"a": float("nan")}) == []
    assert differences({"a": {"b": 1}}, {"a": {"c": 1}}) == [
        "a.b should be 1, and is missing",
        "a.c should be missing, and is 1",
    ]
    assert differences({"a": [1, 2]}, {"a": [1, 3]}) == ["a[1] should be 2, and is 3"]
    assert differences({"a": [1]}, {"a": []}) == ["a should be [1], and is []"]


def test_of_each_kind_of_finding_the_first_are_told() -> None:
    findings = Findings("promise", 10)
    for number in range(7):
        findings.add("are missing", f"{number} is missing")
    findings.add("are strange", "x is strange")
    check = findings.check(2)
    assert check.problems == [
        *(f"{number} is missing" for number in range(5)),
        "and 2 more are missing",
        "x is strange",
    ]
    assert (check.promise, check.expected, check.found) == ("promise", 10, 2)


def letter(of: Entry, offset: int = 0, value: bytes | None = None, **changes: str) -> Record:
    said = {
        "dl_topic": of.topic,
        "dl_partition": str(of.partition),
        "dl_offset": str(of.offset),
        "dl_reason": of.reason or "schema",
        "dl_message": "what to change",
        "dl_time": NOON.isoformat(),
        "dl_timestamp": str(of.timestamp),
        "dl_release": "1",
    }
    headers = (*of.headers, *((name, content.encode()) for name, content in {**said, **changes}.items()))
    return Record(0, offset, of.key, value or of.value, headers)


def test_dead_letters_are_those_of_the_invalid_records() -> None:
    expected = {one.place: one for one in (entry(1, "schema"), entry(2, "not-json"))}
    one, two = expected.values()
    check = letters_check("page-views", expected, [letter(one), letter(two), letter(two, 1)])
    assert (check.problems, check.found, check.promise[-14:]) == ([], 2, "; 1 came again")
    strange = entry(3)
    cases: dict[str, list[Record]] = {
        "page-views:0:2 has no dead letter, and is to have one: not-json": [letter(one)],
        "page-views:0:3 is valid, and has the dead letter": [letter(one), letter(two), letter(strange)],
        "page-views.dead-letter:0:0 of page-views:0:2: its value is another": [letter(one), letter(two, value=b"?")],
        "page-views.dead-letter:0:0 of page-views:0:2: dl_reason is schema": [
            letter(one),
            letter(two, dl_reason="schema"),
        ],
        "page-views.dead-letter:0:0 of page-views:0:2: dl_timestamp is 1": [letter(one), letter(two, dl_timestamp="1")],
        "page-views.dead-letter:0:0 of page-views:0:2: dl_message is empty": [letter(one), letter(two, dl_message="")],
        "page-views.dead-letter:0:0 is no dead letter": [letter(one), letter(two), Record(0, 0, None, b"", ())],
    }
    for problem, letters in cases.items():
        check = letters_check("page-views", expected, letters)
        assert len(check.problems) == 1
        assert check.problems[0].startswith(problem)
    twice = letters_check("page-views", expected, [letter(one), letter(two), letter(two, 1, value=b"?")])
    assert (twice.found, len(twice.problems)) == (1, 1), "also a copy must be right"


def test_view_counts_are_those_of_the_ledger() -> None:
    windows = {Window("a", NOON): 3, Window("a", NOON + timedelta(minutes=5)): 1, Window("gone", NOON): 2}
    of_posts = {"a": 4, "gone": 2}
    assert posts_check({"a": 4, "b": 0}, of_posts, {}).problems == []
    assert posts_check({"a": 5, "b": None}, of_posts, {}).problems == [
        "post a has 5 views, and should have 4",
        "post b has None views, and should have 0",
    ]
    assert windows_check({**windows, Window("bots", NOON): 0}, windows).problems == []
    wrong = windows_check({Window("a", NOON): 2, Window("strange", NOON): 1, Window("gone", NOON): 2}, windows)
    assert (wrong.found, len(wrong.problems)) == (1, 3)
    counted = {"a": (4, 4, 0), "gone": (2, 0, None), "bots": (0, 0, None)}
    assert counted_check(counted, of_posts, {"a": 4}, {}).problems == []
    assert len(counted_check({**counted, "a": (4, 3, 0)}, of_posts, {"a": 4}, {}).problems) == 1
    assert len(counted_check({**counted, "gone": (2, 2, 0)}, of_posts, {"a": 4}, {}).problems) == 1
    assert len(counted_check({**counted, "a": (4, 4, 1)}, of_posts, {"a": 4}, {}).problems) == 1


def test_what_the_platform_changes_itself_is_no_view_and_stays() -> None:
    of_posts = {"a": 4, "b": 2}
    changed = {"a": -3, "b": 0}
    assert posts_check({"a": 1, "b": 2}, of_posts, changed).problems == []
    assert posts_check({"a": 4, "b": 2}, of_posts, changed).problems == ["post a has 4 views, and should have 1"]
    assert posts_check({"a": 1}, of_posts, changed).problems == ["post b is missing, which the platform has restored"]
    counted = {"a": (4, 4, -3), "b": (2, 2, 0)}
    assert counted_check(counted, of_posts, {"a": 1, "b": 2}, changed).problems == []
    assert len(counted_check({**counted, "a": (4, 3, 0)}, of_posts, {"a": 1, "b": 2}, changed).problems) == 1


def test_the_highest_count_of_a_window_counts() -> None:
    def count(views: int) -> Record:
        value = b'{"postId": "a", "windowStart": "2026-01-31T12:00:00Z", "views": %d}' % views
        return Record(0, views, None, value, ())

    views = {Window("a", NOON): 3}
    assert topic_check([count(1), count(3), count(2)], views).problems == []
    assert topic_check([count(1), count(2)], views).found == 0
    assert topic_check([count(3), count(4)], views).found == 0
    assert topic_check([], views).problems == ["a/2026-01-31T12:00:00+00:00 is missing, with 3 views"]
    assert len(topic_check([count(3), Record(0, 9, None, b"?", ())], views).problems) == 1
