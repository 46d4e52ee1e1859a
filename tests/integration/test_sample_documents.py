"""What readers find in MongoDB once sample traffic has run: documents and queries as the pages have them."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from rich.console import Console

from dev.run import Options, run
from dev.stack import Platform
from sinks.collections import COLLECTIONS
from tests import mongosh
from tests.documents import surprises

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/analysts.md", "docs/collections.md", "docs/notifications.md")
QUERIES = [
    (page, statement)
    for page in PAGES
    for block in re.findall(r"```js\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for statement in mongosh.statements(block)
]
MAY_BE_EMPTY = re.compile("reopenCount")
"""What does not come about in seconds of sample traffic."""


class Stored(Database[dict[str, Any]]):
    """The database of an installation, with collections by their declared names."""

    def __init__(self, client: MongoClient[dict[str, Any]], namespace: str) -> None:
        self._namespace = namespace
        super().__init__(client, client.get_default_database().name)

    def __getitem__(self, name: str) -> Collection[dict[str, Any]]:
        return super().__getitem__(self._namespace + name)


@pytest.fixture(scope="module")
def stored(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database[dict[str, Any]]]:
    """The database after some seconds of sample traffic."""
    with pytest.MonkeyPatch.context() as patch:
        namespace = f"read-{time.time_ns()}."
        patch.setenv("INKSTREAM_NAMESPACE", namespace)
        patch.setenv("INKSTREAM_WEB_PORT", str(platform.ports.worker))
        told, log = StringIO(), tmp_path_factory.mktemp("worker") / "worker.log"
        ended = run(platform, Options(seconds=5.0, rate=200, seed=3), Console(file=told, width=120), log)
        assert ended == 0, told.getvalue()
    with MongoClient[dict[str, Any]](platform.mongo.url, tz_aware=True) as client:
        yield Stored(client, namespace)


@pytest.mark.parametrize("name", COLLECTIONS)
def test_no_document_holds_null_or_nothing_or_another_type_than_the_page_says(
    stored: Database[dict[str, Any]], name: str
) -> None:
    documents = list(stored[name].find())
    assert documents
    assert [line for document in documents for line in surprises(name, document)] == []


def test_no_exit_is_before_its_view_and_no_click_before_its_search(stored: Database[dict[str, Any]]) -> None:
    # A clock that is weeks ahead is corrected to Kafka's time, which is later by the time on the way.
    late = timedelta(seconds=2)
    views = list(stored.pageViews.find({"exitedAt": {"$exists": True}, "reportedTimestamp": {"$exists": False}}))
    searches = list(stored.searchQueries.find({"clickedResults.0": {"$exists": True}}))
    assert len(views) > 15
    assert len(searches) > 3
    assert [view["_id"] for view in views if view["exitedAt"] < view["timestamp"]] == []
    for search in searches:
        assert min(click["clickedAt"] for click in search["clickedResults"]) > search["timestamp"] - late


@pytest.mark.parametrize(
    ("page", "statement"), QUERIES, ids=[f"{page}-{number}" for number, (page, _) in enumerate(QUERIES)]
)
def test_the_queries_of_the_pages_find_something_and_scan_no_collection(
    stored: Database[dict[str, Any]], page: str, statement: str
) -> None:
    found = mongosh.run(stored, statement, places_of(stored, statement))
    assert found.stages
    assert found.stages <= {"IXSCAN", "COUNT_SCAN", "IDHACK"}
    assert found.result or MAY_BE_EMPTY.search(statement), statement


def places_of(stored: Database[dict[str, Any]], statement: str) -> dict[str, str]:
    """Return ids that are there, for those in a statement."""
    view = one(stored, "pageViews", {"bot": {"$exists": False}, "incomplete": {"$exists": False}})
    told = one(stored, "notifications", {"channels.inApp.read": False})
    searched = one(stored, "searchQueries", {"userId": {"$exists": True}})
    mail = one(stored, "emailLogs", {"notificationId": {"$exists": True}})
    tracked = one(stored, "analyticsEvents", {"sessionId": {"$exists": True}})
    line = one(stored, "systemLogs", {"requestId": {"$exists": True}})
    audited = one(stored, "auditLogs", {"resource": "post"})
    today = datetime.now(UTC)
    session = searched if "searchQueries" in statement else view if "pageViews" in statement else tracked
    return {
        "post-uuid-123": audited["resourceId"] if "auditLogs" in statement else view["postId"],
        "introduction-to-typescript": view["postSlug"],
        "author-uuid-789": told["userId"],
        "user-uuid-456": searched["userId"],
        "session-abc": session["sessionId"],
        "request-uuid-901": line["requestId"],
        "notification-uuid-678": mail["notificationId"],
        # The periods of docs/analysts.md: whatever was sent lies in them.
        "2026-01-01T00:00:00+01:00": (today - timedelta(days=1)).isoformat(),
        "2026-01-31T00:00:00+01:00": (today - timedelta(days=1)).isoformat(),
        "2026-02-01T00:00:00+01:00": (today + timedelta(days=1)).isoformat(),
    }


def one(stored: Database[dict[str, Any]], name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    found = stored[name].find_one(wanted)
    assert found is not None, (name, wanted)
    return found
