"""What notices become: notifications and their items in the queue."""

from datetime import UTC, datetime, timedelta
from typing import Any

from enrich.documents import Document, GroupedNotification
from enrich.notifications import Notifier, notification, queue_item
from notifications.rules import load
from runtime.settings import ROOT
from schemas.envelope import Envelope
from schemas.topics import load as load_topics
from sinks.collections import NAMES

TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVENTS = {
    name: event
    for topic in load_topics(ROOT / "topics.yaml", NAMES).inbound.values()
    for name, event in topic.events.items()
}
NOTIFIER = Notifier(load(ROOT / "notifications.yaml", EVENTS))
REPLY = {
    "commentId": "comment-1",
    "postId": "post-1",
    "postTitle": "Types",
    "postSlug": "types",
    "postAuthorId": "alan",
    "authorId": "ada",
    "authorName": "Ada",
    "excerpt": "Thank you.",
    "parentId": "comment-0",
    "parentAuthorId": "grace",
}
LIKE = {"postId": "post-1", "slug": "types", "title": "Types", "authorId": "alan", "userId": "ada", "userName": "Ada"}


def written(name: str, payload: dict[str, Any]) -> list[Any]:
    event = Envelope("event-1", EVENTS[name], TIME, None, EVENTS[name].schema.model_validate(payload))
    return [*NOTIFIER.documents(event)]


def test_an_event_becomes_a_notification_and_an_item_of_the_queue_for_everybody_who_is_told() -> None:
    writes = written("comment.created", REPLY)
    assert all(isinstance(write, Document) for write in writes)
    assert [(write.collection, write.body["userId"], write.body["type"]) for write in writes] == [
        ("notifications", "grace", "comment_reply"),
        ("notificationQueue", "grace", "comment_reply"),
        ("notifications", "alan", "post_commented"),
        ("notificationQueue", "alan", "post_commented"),
    ]
    told, item, *_ = (write.body for write in writes)
    assert told["_id"] == item["_id"] == item["notificationId"]
    assert told == {
        "_id": told["_id"],
        "userId": "grace",
        "type": "comment_reply",
        "title": "Ada replied to your comment",
        "message": "“Thank you.”",
        "actionUrl": "/posts/types#comment-1",
        "actionText": "View reply",
        "relatedEntity": {"id": "comment-1", "type": "comment"},
        "actorId": "ada",
        "actorName": "Ada",
        "channels": {
            "inApp": {"enabled": True, "read": False},
            "email": {"enabled": True, "sent": False},
            "push": {"enabled": True, "sent": False},
        },
        "priority": "high",
        "createdAt": TIME,
        "expiresAt": TIME + timedelta(days=90),
    }
    assert (item["status"], item["priority"], item["channels"]) == ("pending", 3, ["inApp", "email", "push"])
    assert "nextRetryAt" not in item
    assert "recipient" not in item, "it is looked up"
    assert [delivery["channel"] for delivery in item["deliveries"]] == ["inApp"]


def test_an_event_that_is_read_again_makes_the_same_writes() -> None:
    assert written("comment.created", REPLY) == written("comment.created", REPLY)


def test_what_is_gathered_is_left_to_the_store() -> None:
    [write] = written("post.liked", LIKE)
    assert isinstance(write, GroupedNotification)
    assert (write.collection, write.notice.user_id, write.notice.actor_id) == ("notifications", "alan", "ada")


def test_an_event_that_no_rule_is_for_makes_nothing() -> None:
    assert "post.created" not in NOTIFIER.events
    assert written("post.created", {**EVENTS["post.created"].examples[0]}) == []
    assert written("post.liked", {**LIKE, "userId": "alan"}) == []


def test_an_item_of_a_group_waits_and_has_the_notifications_id() -> None:
    [write] = written("post.liked", LIKE)
    due = TIME + timedelta(minutes=1)
    item = queue_item(write.notice, "group-1", due)
    assert (item["_id"], item["notificationId"], item["nextRetryAt"]) == ("group-1", "group-1", due)
    assert notification(write.notice, write.notice.words, "group-1")["_id"] == "group-1"


def test_where_a_person_can_be_reached_is_in_the_queue_alone_and_only_where_something_is_sent() -> None:
    request = {
        "userId": "ada",
        "type": "welcome",
        "title": "Welcome",
        "message": "Hello",
        "email": "ada@example.org",
        "devices": [{"token": "a-token", "platform": "ios"}],
    }
    told, item = written("notification.requested", {**request, "channels": ["email"]})
    assert item.body["recipient"] == {
        "email": "ada@example.org",
        "devices": [{"token": "a-token", "platform": "ios"}],
    }
    assert item.body["deliveries"] == []
    assert "ada@example.org" not in repr(told.body)
    _, item = written("notification.requested", {**request, "channels": ["inApp"]})
    assert "recipient" not in item.body
    assert (item.body["status"], item.body["completedAt"]) == ("completed", TIME)
