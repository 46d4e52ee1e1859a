"""The queries of the analysts' guide on documents whose answers are known: days in Berlin, bots, machines, medians."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from dev.stack import Platform
from runtime.settings import ROOT
from tests import mongosh

PAGE = (ROOT / "docs/analysts.md").read_text()
QUERIES = {
    int(part[0]): [
        statement
        for block in re.findall(r"```js\n(.*?)```", part[1], re.DOTALL)
        for statement in mongosh.statements(block)
    ]
    for part in re.findall(r"^\*\*(\d+)\. (.*?)(?=^\*\*\d+\. |^## )", PAGE, re.DOTALL | re.MULTILINE)
}


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """Return a moment of January 2026, in UTC."""
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def view(number: int, when: datetime, post: str, session: str, **fields: Any) -> dict[str, Any]:
    return {
        "_id": f"view-{number}",
        "timestamp": when,
        "postId": post,
        "postSlug": f"slug-of-{post}",
        "sessionId": session,
        "source": "google",
        "device": {"type": "mobile"},
        "timeSpent": 0,
        "scrollDepth": 0,
        **fields,
    }


def exited(when: datetime, seconds: int, depth: int = 0) -> dict[str, Any]:
    return {"exitedAt": when, "timeSpent": seconds, "scrollDepth": depth}


VIEWS = [
    # 23:30 UTC is 0:30 of the next day in Berlin; the last one is in February there.
    view(1, at(30, 22, 30), "a", "s1", userId="ada", **exited(at(30, 22, 31), 10, 95)),
    view(2, at(30, 23, 30), "a", "s1", userId="ada", **exited(at(30, 23, 31), 30, 40)),
    view(3, at(31, 12), "a", "s2", source="direct", **exited(at(31, 12, 1), 20, 90)),
    view(4, at(31, 13), "b", "s3", userId="grace", device={"type": "desktop"}),
    view(5, at(31, 13), "b", "s4", userId="robot", bot={"rule": "tool"}, **exited(at(31, 13, 1), 999)),
    view(6, at(31, 23, 30), "b", "s5", userId="late"),
    {"_id": "view-7", "timestamp": at(31, 12), "exitedAt": at(31, 12), "timeSpent": 500, "incomplete": True},
]
ACTIVITIES = [
    {"_id": "activity-1", "timestamp": at(31, 9), "userId": "ada"},
    {"_id": "activity-2", "timestamp": at(31, 9), "userId": "linus"},
]
SEARCHES = [
    {"_id": "search-1", "timestamp": at(31, 9), "userId": "barbara", "normalizedQuery": "kafka", "resultsCount": 3,
     "clickedResults": [{"postId": "a", "position": 1, "clickedAt": at(31, 9)}]},
    {"_id": "search-2", "timestamp": at(31, 9), "normalizedQuery": "kafka", "resultsCount": 0, "clickedResults": []},
    {"_id": "search-3", "timestamp": at(31, 9), "clickedResults": [{}], "incomplete": True},
]  # fmt: skip
OPENED = {"type": "opened", "timestamp": at(31, 9)}
MAILS = [
    {"_id": "mail-1", "createdAt": at(31, 9), "templateId": "welcome", "status": "delivered",
     "events": [OPENED | {"metadata": {"code": "machine"}}]},
    {"_id": "mail-2", "createdAt": at(31, 9), "templateId": "welcome", "status": "delivered", "events": [OPENED]},
    {"_id": "mail-3", "createdAt": at(31, 9), "templateId": "welcome", "status": "failed", "events": []},
]  # fmt: skip
EVENTS = [
    {"_id": "event-1", "timestamp": at(31, 9), "eventType": "post_liked", "properties": {"authorId": "ann"}},
    {"_id": "event-2", "timestamp": at(31, 9), "eventType": "comment_created", "properties": {"postAuthorId": "ann"}},
    {"_id": "event-3", "timestamp": at(31, 9), "eventType": "post_published", "properties": {"authorId": "ann"}},
]


@pytest.fixture(scope="module")
def stored(platform: Platform) -> Iterator[Database[dict[str, Any]]]:
    """The documents, in collections that delete nothing."""
    with MongoClient[dict[str, Any]](platform.mongo.url, tz_aware=True) as client:
        database = client[f"test-{uuid4().hex[:8]}"]
        database.pageViews.insert_many(VIEWS)
        database.userActivity.insert_many(ACTIVITIES)
        database.searchQueries.insert_many(SEARCHES)
        database.emailLogs.insert_many(MAILS)
        database.analyticsEvents.insert_many(EVENTS)
        yield database
        client.drop_database(database.name)


def answers(stored: Database[dict[str, Any]], number: int) -> list[list[dict[str, Any]]]:
    return [mongosh.run(stored, statement, {}).result for statement in QUERIES[number]]


def test_there_are_ten_queries() -> None:
    assert sorted(QUERIES) == list(range(1, 11))
    assert all(QUERIES.values())


def test_a_day_is_a_day_of_the_time_zone(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 1)
    assert rows == [
        {"_id": "2026-01-30", "views": 1, "sessions": 1},
        {"_id": "2026-01-31", "views": 3, "sessions": 3},
    ]


def test_the_top_posts_of_another_day_than_today(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 2)
    assert rows == [{"_id": "a", "slug": "slug-of-a", "views": 2}, {"_id": "b", "slug": "slug-of-b", "views": 1}]


def test_a_median_is_of_reported_times_of_people(stored: Database[dict[str, Any]]) -> None:
    by_post, over_all = answers(stored, 3)
    assert by_post == [{"_id": "a", "views": 3, "median": 20}]
    assert over_all == [{"_id": None, "views": 3, "median": 20}]


def test_active_users_read_act_or_search(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 4)
    assert rows == [{"_id": "2026-01-30", "activeUsers": 1}, {"_id": "2026-01-31", "activeUsers": 4}]


def test_a_session_belongs_to_the_source_of_its_first_view(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 5)
    assert rows == [
        {"_id": "google", "sessions": 2, "bounces": 1, "bounceRate": 0.5},
        {"_id": "direct", "sessions": 1, "bounces": 1, "bounceRate": 1},
    ]


def test_views_that_reached_the_end(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 6)
    assert rows == [{"_id": "mobile", "views": 3, "toTheEnd": 2, "share": pytest.approx(2 / 3)}]


def test_readers_by_number_of_days(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 7)
    assert rows == [{"_id": 1, "readers": 1}, {"_id": 2, "readers": 1}]


def test_searches_and_clicks(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 8)
    assert rows == [{"_id": "kafka", "searches": 2, "withoutResult": 1, "clicked": 1}]


def test_a_mail_that_a_machine_opened_is_not_opened(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 9)
    assert rows == [{"_id": "welcome", "sent": 2, "delivered": 2, "opened": 1}]


def test_engagement_belongs_to_the_author_of_the_post(stored: Database[dict[str, Any]]) -> None:
    (rows,) = answers(stored, 10)
    assert rows == [{"_id": "ann", "likes": 1, "bookmarks": 0, "comments": 1}]
