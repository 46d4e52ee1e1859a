from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from aiokafka import TopicPartition

from dev.account import Account
from dev.stories import Trace
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
def account() -> Account:
    return Account(Settings(_env_file=None), TOPICS.values(), BEGAN)


def sample(outcome: str) -> Sample:
    traffic = Traffic(TOPICS.values(), began=BEGAN, rate=100)
    return next(
        found
        for found in islice(traffic, 20_000)
        if found.topic == "page-views"
        and found.outcome == outcome
        and all(trace.field is None for trace in found.traces)
    )


def judged(account: Account, sent: Sample, found: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    account.confirm(sent, AT.partition, 7, NOON)
    account._judge(AT, 7, sent, found)
    return [loss.problem for loss in account.topics["page-views"].lost]


def stored(sent: Sample, **fields: object) -> dict[tuple[str, str], dict[str, Any]]:
    assert sent.id is not None
    return {("pageViews", sent.id): {"_id": sent.id, **fields}}


def test_an_event_that_is_stored_is_accounted_for(account: Account) -> None:
    sent = sample("stored")
    assert judged(account, sent, stored(sent)) == []
    assert account.balanced
    assert account.open == 0
    assert account.new_documents == {"pageViews": 1}


def test_a_committed_event_that_is_not_stored_is_missing(account: Account) -> None:
    assert judged(account, sample("stored"), {}) == ["is committed, and not in pageViews"]
    assert not account.balanced


def test_a_placeholder_is_not_the_view(account: Account) -> None:
    sent = sample("stored")
    assert judged(account, sent, stored(sent, incomplete=True)) == ["is committed, and not in pageViews"]


def test_a_duplicate_makes_no_new_document(account: Account) -> None:
    sent = sample("duplicate")
    assert judged(account, sent, stored(sent)) == []
    assert account.topics["page-views"].duplicate == 1
    assert not account.new_documents


def letter(reason: str, message: str) -> Letter:
    return Letter(0, 0, "page-views:0:7", reason, message, BEGAN, -1)


def test_a_valid_event_that_is_dead_lettered_is_missing(account: Account) -> None:
    sent = sample("stored")
    account._letters["page-views:0:7"] = letter("schema", "postId: missing")
    assert judged(account, sent, {}) == ["is dead-lettered as schema, and is valid: postId: missing"]


def test_an_invalid_record_needs_its_dead_letter(account: Account) -> None:
    sent = sample("dead-lettered")
    assert judged(account, sent, {}) == [f"has no dead letter, where one with reason {sent.reason} should be"]


def test_an_invalid_record_needs_the_right_reason(account: Account) -> None:
    sent = sample("dead-lettered")
    account._letters["page-views:0:7"] = letter("too-large", "is too large")
    assert judged(account, sent, {}) == [f"is dead-lettered as too-large, not as {sent.reason}: is too large"]


def test_an_invalid_record_with_its_dead_letter_is_accounted_for(account: Account) -> None:
    sent = sample("dead-lettered")
    assert sent.reason is not None
    account._letters["page-views:0:7"] = letter(sent.reason, "")
    assert judged(account, sent, {}) == []
    assert account.balanced


def test_an_exit_must_have_reached_its_view(account: Account) -> None:
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
    assert judged(account, sent, stored(exit_of, exitedAt=BEGAN + timedelta(seconds=1))) == []
    assert judged(account, sent, stored(exit_of)) == ["is committed, and not in pageViews"]


def test_a_click_must_be_in_its_search(account: Account) -> None:
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
    assert judged(account, sent, {("searchQueries", "search"): {"clickedResults": [other, this]}}) == []
    assert judged(account, sent, {("searchQueries", "search"): {"clickedResults": [other]}}) != []
