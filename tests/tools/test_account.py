from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from aiokafka import TopicPartition

from dev.ledger import EventLedger
from dev.scenarios import Trace
from dev.traffic import Sample, Traffic
from ops.dead_letters import Letter
from runtime.settings import ROOT, Settings
from schemas.topics import load
from sinks import collections

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
TOPICS = load(ROOT / "topics.yaml", collections.NAMES).inbound
AT = TopicPartition("page-views", 0)
NOON = int(BEGAN.timestamp() * 1000)


@pytest.fixture
def ledger() -> EventLedger:
    return EventLedger(Settings(_env_file=None), TOPICS.values(), BEGAN)


def sample(outcome: str) -> Sample:
    traffic = Traffic(TOPICS.values(), began=BEGAN, rate=100)
    return next(
        found
        for found in islice(traffic, 20_000)
        if found.topic == "page-views"
        and found.outcome == outcome
        and all(trace.field is None for trace in found.traces)
    )


def judged(ledger: EventLedger, sent: Sample, found: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    ledger.confirm(sent, AT.partition, 7, NOON)
    ledger._judge(AT, 7, sent, found)
    return [loss.problem for loss in ledger.topics["page-views"].lost]


def stored(sent: Sample, **fields: object) -> dict[tuple[str, str], dict[str, Any]]:
    assert sent.id is not None
    return {("pageViews", sent.id): {"_id": sent.id, **fields}}


def test_an_event_that_is_stored_is_accounted_for(ledger: EventLedger) -> None:
    sent = sample("stored")
    assert judged(ledger, sent, stored(sent)) == []
    assert ledger.balanced
    assert ledger.open == 0
    assert ledger.new_documents == {"pageViews": 1}


def test_a_committed_event_that_is_not_stored_is_missing(ledger: EventLedger) -> None:
    assert judged(ledger, sample("stored"), {}) == ["is committed, and not in pageViews"]
    assert not ledger.balanced


def test_a_placeholder_is_not_the_view(ledger: EventLedger) -> None:
    sent = sample("stored")
    assert judged(ledger, sent, stored(sent, incomplete=True)) == ["is committed, and not in pageViews"]


def test_a_duplicate_makes_no_new_document(ledger: EventLedger) -> None:
    sent = sample("duplicate")
    assert judged(ledger, sent, stored(sent)) == []
    assert ledger.topics["page-views"].duplicate == 1
    assert not ledger.new_documents


def letter(reason: str, message: str) -> Letter:
    return Letter(0, 0, "page-views:0:7", reason, message, BEGAN, -1)


def test_a_valid_event_that_is_dead_lettered_is_missing(ledger: EventLedger) -> None:
    sent = sample("stored")
    ledger._letters["page-views:0:7"] = letter("schema", "postId: missing")
    assert judged(ledger, sent, {}) == ["is dead-lettered as schema, and is valid: postId: missing"]


def test_an_invalid_record_needs_its_dead_letter(ledger: EventLedger) -> None:
    sent = sample("dead-lettered")
    assert judged(ledger, sent, {}) == [f"has no dead letter, where one with reason {sent.reason} should be"]


def test_an_invalid_record_needs_the_right_reason(ledger: EventLedger) -> None:
    sent = sample("dead-lettered")
    ledger._letters["page-views:0:7"] = letter("too-large", "is too large")
    assert judged(ledger, sent, {}) == [f"is dead-lettered as too-large, not as {sent.reason}: is too large"]


def test_an_invalid_record_with_its_dead_letter_is_accounted_for(ledger: EventLedger) -> None:
    sent = sample("dead-lettered")
    assert sent.reason is not None
    ledger._letters["page-views:0:7"] = letter(sent.reason, "")
    assert judged(ledger, sent, {}) == []
    assert ledger.balanced


def test_an_exit_must_have_reached_its_view(ledger: EventLedger) -> None:
    exit_of = sample("stored")
    sent = Sample(
        due=0,
        topic="page-views",
        key=b"post",
        value=b"",
        headers=(),
        compression=None,
        outcome="stored",
        id="exit",
        traces=(Trace("pageViews", exit_of.id, "exitedAt", BEGAN),),
    )
    assert judged(ledger, sent, stored(exit_of, exitedAt=BEGAN + timedelta(seconds=1))) == []
    assert judged(ledger, sent, stored(exit_of)) == ["is committed, and not in pageViews"]


def test_a_click_must_be_in_its_search(ledger: EventLedger) -> None:
    click = Trace("searchQueries", "search", "clickedResults", {"postId": "post", "position": 3})
    sent = Sample(
        due=0,
        topic="page-views",
        key=b"session",
        value=b"",
        headers=(),
        compression=None,
        outcome="stored",
        id="click",
        traces=(click,),
    )
    other = {"postId": "post", "position": 4, "clickedAt": BEGAN}
    this = {"postId": "post", "position": 3, "clickedAt": BEGAN}
    assert judged(ledger, sent, {("searchQueries", "search"): {"clickedResults": [other, this]}}) == []
    assert judged(ledger, sent, {("searchQueries", "search"): {"clickedResults": [other]}}) != []
