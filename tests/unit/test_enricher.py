from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.documents import Document, Occurrence, PartialUpdate, Write
from enrich.enricher import Enricher
from enrich.ip_address import hash_ip
from enrich.searches import normalized
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.topics import EventType, event_classes

TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = b"key of the tests"


def documents(
    class_name: str,
    payload: dict[str, Any],
    *collections: str,
    name: str = "post.published",
    category: str | None = None,
    public: bool = False,
    activity: str | None = None,
    time: datetime = TIME,
) -> list[Write]:
    schema = event_classes()[class_name]
    event_type = EventType(name, schema, "postId", collections, category, public, activity)
    data: Event = schema.model_validate(payload)
    return Enricher(ip_hash_key=KEY, geo=None).documents(Envelope("event-1", event_type, time, None, data))


def body(written: list[Write]) -> dict[str, Any]:
    (document,) = written
    assert isinstance(document, Document)
    return document.body


def test_a_published_post_is_the_document_of_the_platforms_specification() -> None:
    published = {
        "postId": "post-uuid-123",
        "slug": "introduction-to-typescript",
        "authorId": "author-uuid-789",
        "title": "Introduction to TypeScript",
    }
    assert documents("posts.PostPublished", published, "analyticsEvents", category="content") == [
        Document(
            "analyticsEvents",
            {
                "_id": "event-1",
                "eventType": "post_published",
                "category": "content",
                "entityId": "post-uuid-123",
                "entityType": "post",
                "userId": "author-uuid-789",
                "properties": {"postTitle": "Introduction to TypeScript", "postSlug": "introduction-to-typescript"},
                "timestamp": TIME,
            },
        )
    ]


LIKED = {
    "postId": "post-uuid-123",
    "userId": "user-uuid-456",
    "authorId": "author-uuid-789",
    "title": "Introduction to TypeScript",
}


def test_a_liked_post_is_the_document_of_the_platforms_specification() -> None:
    written = documents("posts.PostLiked", LIKED, "analyticsEvents", name="post.liked", category="engagement")
    assert body(written) == {
        "_id": "event-1",
        "eventType": "post_liked",
        "category": "engagement",
        "entityId": "post-uuid-123",
        "entityType": "post",
        "userId": "user-uuid-456",
        "properties": {"postTitle": "Introduction to TypeScript", "authorId": "author-uuid-789"},
        "timestamp": TIME,
    }


def test_a_liked_post_is_part_of_the_readers_history() -> None:
    assert body(documents("posts.PostLiked", LIKED, "userActivity", name="post.liked", public=True)) == {
        "_id": "event-1",
        "userId": "user-uuid-456",
        "activityType": "post_liked",
        "action": "liked",
        "targetId": "post-uuid-123",
        "targetType": "post",
        "targetTitle": "Introduction to TypeScript",
        "metadata": {"authorId": "author-uuid-789"},
        "isPublic": True,
        "timestamp": TIME,
    }


def test_an_activity_may_have_a_name_of_its_own() -> None:
    comment = {"commentId": "c", "postId": "p", "authorId": "ada"}
    written = documents(
        "comments.CommentCreated", comment, "userActivity", name="comment.created", activity="comment_posted"
    )
    assert (body(written)["activityType"], body(written)["action"]) == ("comment_posted", "created")


def test_what_nobody_did_is_in_nobodys_history() -> None:
    shared = {"postId": "p", "sessionId": "session-abc"}
    written = documents("posts.PostShared", shared, "analyticsEvents", "userActivity", category="engagement")
    assert [write.collection for write in written if isinstance(write, Document)] == ["analyticsEvents"]
    assert "userId" not in body(written)
    assert body(written)["sessionId"] == "session-abc"


def test_the_page_of_an_event_is_its_context() -> None:
    shared = {"postId": "p", "page": "/posts/p", "referrer": "https://www.google.com/"}
    written = documents("posts.PostShared", shared, "analyticsEvents", category="engagement")
    assert body(written)["context"] == {
        "page": "/posts/p",
        "referrer": "https://www.google.com/",
        "userAgent": "unknown",
    }


def test_the_request_of_an_event_is_for_the_auditors_only() -> None:
    deleted = {
        "postId": "p",
        "authorId": "ada",
        "userId": "grace",
        "userEmail": "grace@example.org",
        "ipAddress": "81.2.69.160",
        "userAgent": "curl/8",
        "method": "DELETE",
        "endpoint": "/api/posts/p",
        "changes": {"before": {"status": "PUBLISHED"}, "after": None},
    }
    analytics, audit = documents(
        "posts.PostDeleted", deleted, "analyticsEvents", "auditLogs", name="post.deleted", category="content"
    )
    assert isinstance(analytics, Document)
    assert analytics.body["properties"] == {"authorId": "ada"}
    assert audit == Document(
        "auditLogs",
        {
            "_id": "event-1",
            "userId": "grace",
            "userEmail": "grace@example.org",
            "action": "post.deleted",
            "resource": "post",
            "resourceId": "p",
            "changes": {"before": {"status": "PUBLISHED"}, "after": None},
            "ipAddress": hash_ip("81.2.69.160", KEY),
            "userAgent": "curl/8",
            "method": "DELETE",
            "endpoint": "/api/posts/p",
            "status": "success",
            "timestamp": TIME,
        },
    )


def test_a_change_of_role_says_which_in_the_audit_log() -> None:
    changed = {"userId": "ada", "actorId": "grace", "role": "editor", "previousRole": "author"}
    written = body(documents("users.UserRoleChanged", changed, "auditLogs", name="user.role_changed"))
    assert written["changes"] == {"before": {"role": "author"}, "after": {"role": "editor"}}


def test_an_audit_entry_without_an_origin_says_that_it_is_unknown() -> None:
    entry = {"action": "user.deleted", "resource": "user", "resourceId": "ada", "status": "failure"}
    written = body(documents("audit.AuditRecorded", entry, "auditLogs"))
    assert (written["ipAddress"], written["userAgent"]) == ("unknown", "unknown")


@pytest.mark.parametrize("address", ["localhost", "", "unknown", "300.1.2.3"])
def test_an_audit_entry_is_kept_where_its_ip_address_can_not_be_read(address: str) -> None:
    entry = {"action": "a", "resource": "r", "resourceId": "i", "status": "success", "ipAddress": address}
    assert body(documents("audit.AuditRecorded", entry, "auditLogs"))["ipAddress"] == "unknown"


SEARCH = {"query": "  React Hooks\ttutorial ", "sessionId": "session-abc", "resultsCount": 15, "executionTime": 42.5}


def test_a_search_is_kept_as_it_was_typed_and_in_its_normal_form() -> None:
    search, _ = documents("searches.SearchPerformed", SEARCH, "searchQueries", category="content")
    assert search == Document(
        "searchQueries",
        {
            "_id": "event-1",
            "query": "  React Hooks\ttutorial ",
            "normalizedQuery": "react hooks tutorial",
            "sessionId": "session-abc",
            "resultsCount": 15,
            "clickedResults": [],
            "executionTime": 42.5,
            "timestamp": TIME,
        },
    )


def test_the_dates_of_a_filter_are_dates() -> None:
    filters = {"tags": ["react"], "dateRange": {"from": "2025-01-01T00:00:00Z", "to": "2026-01-31T12:00:00Z"}}
    search, _ = documents("searches.SearchPerformed", {**SEARCH, "filters": filters}, "searchQueries")
    assert isinstance(search, Document)
    assert search.body["filters"] == {
        "tags": ["react"],
        "dateRange": {"from": datetime(2025, 1, 1, tzinfo=UTC), "to": TIME},
    }


def test_a_search_counts_as_an_event() -> None:
    _, counted = documents(
        "searches.SearchPerformed", SEARCH, "searchQueries", name="search.performed", category="content"
    )
    assert counted == Document(
        "analyticsEvents",
        {
            "_id": "event-1",
            "eventType": "search_performed",
            "category": "content",
            "entityId": "event-1",
            "entityType": "search",
            "sessionId": "session-abc",
            "properties": {"query": "  React Hooks\ttutorial ", "resultsCount": 15},
            "timestamp": TIME,
        },
    )


def test_a_click_adds_itself_to_its_search() -> None:
    click = {"searchId": "search-1", "sessionId": "session-abc", "postId": "post-uuid-123", "position": 3}
    part, counted = documents(
        "searches.SearchResultClicked", click, "searchQueries", name="search.result_clicked", category="content"
    )
    clicked = {"postId": "post-uuid-123", "position": 3, "clickedAt": TIME}
    assert part == PartialUpdate("searchQueries", "search-1", TIME, {}, {"clickedResults": [clicked]})
    assert isinstance(counted, Document)
    assert counted.body["entityId"] == "search-1"
    assert counted.body["properties"] == {"postId": "post-uuid-123", "clickedResultPosition": 3}


@pytest.mark.parametrize(
    ("query", "normal"),
    [
        ("React", "react"),
        ("\uff32eact\u3000hooks", "react hooks"),
        ("\ufb01rst\u00a0 post", "first post"),
        ("CAFE\u0301", "café"),
        ("", ""),
        (" \t\n", ""),
    ],
)
def test_equal_searches_have_one_normal_form(query: str, normal: str) -> None:
    assert normalized(query) == normal


@given(st.text())
def test_the_normal_form_of_a_normal_form_is_itself(query: str) -> None:
    assert normalized(normalized(query)) == normalized(query)


def test_what_a_team_tracks_is_kept_as_it_comes() -> None:
    tracked = {
        "eventType": "quiz_answered",
        "category": "engagement",
        "entityId": "quiz-1",
        "entityType": "quiz",
        "sessionId": "session-abc",
        "properties": {"answer": None, "tries": [1, 2], "nested": {"deep": True}},
        "context": {"page": "/quiz", "experiment": "B"},
    }
    assert body(documents("analytics.AnalyticsTracked", tracked, "analyticsEvents")) == {
        **tracked,
        "_id": "event-1",
        "context": {"page": "/quiz", "userAgent": "unknown", "experiment": "B"},
        "timestamp": TIME,
    }


LINE = {"level": "info", "message": "ready", "service": "blogs-api", "environment": "production"}


def test_a_line_is_kept_with_the_fields_of_a_system_log() -> None:
    line = {**LINE, "requestId": "r", "metadata": {"port": 3000}, "endpoint": "/", "context": {"a": 1}}
    assert body(documents("logs.LogLine", line, "systemLogs", "errorLogs")) == {
        **LINE,
        "_id": "event-1",
        "requestId": "r",
        "metadata": {"port": 3000},
        "timestamp": TIME,
    }


@pytest.mark.parametrize("level", ["error", "fatal"])
def test_a_line_that_tells_of_an_error_counts_in_its_group(level: str) -> None:
    (written,) = documents("logs.LogLine", {**LINE, "level": level}, "systemLogs", "errorLogs")
    assert isinstance(written, Occurrence)
    assert written.line == {**LINE, "level": level, "_id": "event-1", "timestamp": TIME}


def test_a_performance_sample_is_kept_as_it_comes() -> None:
    sample = {
        "method": "GET",
        "endpoint": "/api/posts/:id",
        "statusCode": 200,
        "duration": 38.2,
        "timings": {"database": 21.5},
        "service": "blogs-api",
    }
    assert body(documents("performance.PerformanceSampled", sample, "performanceLogs")) == {
        **sample,
        "_id": "event-1",
        "timestamp": TIME,
    }


SAMPLE: dict[str, Any] = {"method": "GET", "endpoint": "/", "statusCode": 200, "duration": 1.5, "service": "blogs-api"}
AUDITED: dict[str, Any] = {"action": "a", "resource": "user", "resourceId": "ada", "status": "success"}


@pytest.mark.parametrize(
    ("class_name", "payload", "field"),
    [
        ("performance.PerformanceSampled", {**SAMPLE, "timings": {"renderingOfALaterRelease": 3.5}}, "timings"),
        ("performance.PerformanceSampled", {**SAMPLE, "timings": {"database": None}}, "timings"),
        ("searches.SearchPerformed", {**SEARCH, "filters": {"language": "de"}}, "filters"),
        ("searches.SearchPerformed", {**SEARCH, "filters": {}}, "filters"),
        ("logs.LogLine", {**LINE, "metadata": {}}, "metadata"),
        ("logs.LogLine", {**LINE, "level": "error", "metadata": {}}, "metadata"),
        ("audit.AuditRecorded", {**AUDITED, "changes": {}}, "changes"),
    ],
)
def test_an_optional_object_that_holds_nothing_is_left_out(
    class_name: str, payload: dict[str, Any], field: str
) -> None:
    written = documents(class_name, payload, "systemLogs")[0]
    stored = written.line if isinstance(written, Occurrence) else body([written])
    assert field not in stored


def test_an_error_without_context_keeps_none_of_an_earlier_one() -> None:
    (written,) = documents("logs.LogLine", {**LINE, "level": "error", "context": {}}, "systemLogs", "errorLogs")
    assert isinstance(written, Occurrence)
    assert "context" not in written.group


def test_a_list_of_filters_that_is_empty_stays_as_it_says_that_nothing_was_chosen() -> None:
    written = documents("searches.SearchPerformed", {**SEARCH, "filters": {"tags": [], "dateRange": None}})
    assert isinstance(written[0], Document)
    assert written[0].body["filters"] == {"tags": []}


def test_properties_are_in_every_analytics_event_and_keep_what_is_empty_within() -> None:
    tracked = {"eventType": "a", "category": "b", "entityId": "c", "entityType": "d"}
    several: list[dict[str, Any]] = [{}, {"a": {}, "b": None, "c": {"d": {}}}]
    for properties in several:
        written = body(
            documents("analytics.AnalyticsTracked", {**tracked, "properties": properties}, "analyticsEvents")
        )
        assert written["properties"] == properties


@pytest.mark.parametrize("changes", [{"before": {}, "after": {"bio": "x"}}, {"after": None}, {"before": {"a": {}}}])
def test_changes_stay_as_the_producer_wrote_them(changes: dict[str, Any]) -> None:
    updated = {"postId": "p", "authorId": "a", "changes": changes}
    assert body(documents("posts.PostUpdated", updated, "auditLogs"))["changes"] == changes
    assert body(documents("audit.AuditRecorded", {**AUDITED, "changes": changes}, "auditLogs"))["changes"] == changes


def test_a_change_of_role_without_the_former_role_says_only_which_it_is_now() -> None:
    changed = {"userId": "ada", "actorId": "grace", "role": "editor"}
    written = body(documents("users.UserRoleChanged", changed, "auditLogs", name="user.role_changed"))
    assert written["changes"] == {"after": {"role": "editor"}}


REQUEST = {"userId": "ada", "type": "new_follower", "title": "A follower", "message": "Grace follows you"}


def test_a_request_becomes_a_notification_that_nobody_has_seen_yet() -> None:
    request = {**REQUEST, "channels": ["email", "inApp", "email"], "priority": "urgent", "maxAttempts": 3}
    notification, entry = documents("notifications.NotificationRequested", request, "notifications")
    assert notification == Document(
        "notifications",
        {
            **REQUEST,
            "_id": "event-1",
            "channels": {
                "inApp": {"enabled": True, "read": False},
                "email": {"enabled": True, "sent": False},
                "push": {"enabled": False, "sent": False},
            },
            "priority": "urgent",
            "createdAt": TIME,
            "expiresAt": TIME + timedelta(days=90),
        },
    )
    assert entry == Document(
        "notificationQueue",
        {
            "_id": "event-1",
            "status": "pending",
            "priority": 4,
            "notificationId": "event-1",
            "userId": "ada",
            "type": "new_follower",
            "channels": ["email", "inApp"],
            "attempts": 0,
            "maxAttempts": 3,
            "errors": [],
            "createdAt": TIME,
            "expiresAt": TIME + timedelta(days=90),
            "transactional": False,
            "deliveries": [{"channel": "inApp", "state": "delivered", "since": TIME, "attempts": 0}],
        },
    )


def test_a_notification_stays_in_the_application_unless_the_request_says_where() -> None:
    _, entry = documents("notifications.NotificationRequested", REQUEST, "notifications")
    assert isinstance(entry, Document)
    assert (entry.body["channels"], entry.body["maxAttempts"], entry.body["priority"]) == (["inApp"], 5, 2)
    assert (entry.body["status"], entry.body["completedAt"]) == ("completed", TIME)


def test_a_notification_expires_when_its_request_says() -> None:
    request = {**REQUEST, "expiresAt": "2026-02-01T00:00:00Z"}
    notification, _ = documents("notifications.NotificationRequested", request, "notifications")
    assert isinstance(notification, Document)
    assert notification.body["expiresAt"] == datetime(2026, 2, 1, tzinfo=UTC)


def test_a_notification_from_the_end_of_time_expires_by_then() -> None:
    latest = datetime.max.replace(tzinfo=UTC)
    notification, _ = documents("notifications.NotificationRequested", REQUEST, "notifications", time=latest)
    assert isinstance(notification, Document)
    assert notification.body["expiresAt"] == latest


class SomethingNew(Event):
    post_id: str
    note: str | None = None


def test_an_event_of_a_new_class_is_kept_as_it_comes_in_each_of_its_collections() -> None:
    event_type = EventType("something.new", SomethingNew, "postId", ("pageViews", "auditLogs"), None, False)
    event = Envelope("event-1", event_type, TIME, None, SomethingNew.model_validate({"postId": "p"}))
    expected = {"_id": "event-1", "timestamp": TIME, "postId": "p"}
    assert Enricher(ip_hash_key=KEY, geo=None).documents(event) == [
        Document("pageViews", expected),
        Document("auditLogs", expected),
    ]
