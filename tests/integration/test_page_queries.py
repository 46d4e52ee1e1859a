"""The queries of the pages on documents that hold no more than they must, beside others that hold everything."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from dev.stack import Platform
from sinks.collections import COLLECTIONS
from tests import mongosh

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
QUERIES = [
    (page, statement)
    for page in PAGES
    for block in re.findall(r"```js\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    if "db." in block
    for statement in mongosh.statements(block)
    if ".update" not in statement  # which asks nothing
]
NOW = datetime.now(UTC)
BERLIN = {"country": "DE", "city": "Berlin", "timezone": "Europe/Berlin"}
VALUES: dict[str, Any] = {"string": "x", "number": 3, "boolean": False, "Date": NOW, "object": {}, "any": None}


def document(fields: Any, *, whole: bool) -> Any:
    """Make a value of a declared kind, with the optional fields or without them."""
    if isinstance(fields, dict):
        wanted = {name: kind for name, kind in fields.items() if whole or not name.endswith("?")}
        return {name.removesuffix("?"): document(kind, whole=whole) for name, kind in wanted.items()}
    if isinstance(fields, list):
        return [document(fields[0], whole=whole)] if whole else []
    if isinstance(fields, tuple):
        return fields[0]
    return VALUES[fields]


@pytest.fixture(scope="module")
def stored(platform: Platform) -> Iterator[Database[dict[str, Any]]]:
    """Of each collection a document with all fields and one with the least, and views of three kinds more."""
    with MongoClient[dict[str, Any]](platform.mongo.url, tz_aware=True) as client:
        database = client[f"test-{uuid4().hex[:8]}"]
        for name, collection in COLLECTIONS.items():
            least, all_there = (document(dict(collection.fields), whole=whole) for whole in (False, True))
            database[name].insert_many([{"_id": "least", **least}, {"_id": "whole", **all_there}])
        view = document(dict(COLLECTIONS["pageViews"].fields), whole=False) | {"postId": "post-uuid-123"}
        kinds: list[dict[str, Any]] = [
            {"_id": "incomplete", "timestamp": NOW, "timeSpent": 7, "exitedAt": NOW, "incomplete": True},
            {"_id": "nowhere", **view, "exitedAt": NOW, "timeSpent": 8},
            {"_id": "country", **view, "geo": {"country": "US", "city": ""}},
            {"_id": "of-an-earlier-release", **view, "geo": {"country": "US", "city": "", "timezone": ""}},
            {"_id": "berlin", **view, "exitedAt": NOW, "timeSpent": 2, "geo": BERLIN},
        ]  # fmt: skip
        database["pageViews"].delete_many({})
        database["pageViews"].insert_many(kinds)
        yield database
        client.drop_database(database.name)


@pytest.mark.parametrize(
    ("page", "statement"), QUERIES, ids=[f"{page}-{number}" for number, (page, _) in enumerate(QUERIES)]
)
def test_a_query_of_a_page_fails_on_no_document(stored: Database[dict[str, Any]], page: str, statement: str) -> None:
    mongosh.run(stored, statement, {})


def query(beginning: str) -> str:
    (found,) = [statement for page, statement in QUERIES if page == "docs/collections.md" and beginning in statement]
    return found


def test_a_view_without_a_time_zone_is_counted_in_utc(stored: Database[dict[str, Any]]) -> None:
    by_hour = {row["_id"]: row["views"] for row in mongosh.run(stored, query("$geo.timezone"), {}).result}
    assert sum(by_hour.values()) == 4  # without the exit whose view has not arrived
    assert by_hour[NOW.hour] == 3


def test_a_session_with_one_view_is_a_bounce_and_an_exit_without_its_view_is_no_session(
    stored: Database[dict[str, Any]],
) -> None:
    (row,) = mongosh.run(stored, query("bounces"), {}).result
    assert (row["sessions"], row["bounces"], row["views"]) == (1, 0, 4)


def test_views_by_country_leave_out_an_exit_without_its_view(stored: Database[dict[str, Any]]) -> None:
    rows = mongosh.run(stored, query('"_id": "$geo.country"'), {}).result
    assert {row["_id"]: row["views"] for row in rows} == {None: 1, "US": 2, "DE": 1}


def test_a_median_is_taken_over_what_was_reported(stored: Database[dict[str, Any]]) -> None:
    (row,) = mongosh.run(stored, query("median"), {}).result
    assert row["median"] == 8  # of 2 and 8; those who reported nothing would make it 0 or 3


def test_the_share_of_a_post_that_was_read_leaves_out_who_reported_nothing(stored: Database[dict[str, Any]]) -> None:
    (row,) = mongosh.run(stored, query('"read"'), {}).result
    assert (row["views"], row["read"]) == (4, 3)
