from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from enrich.documents import Document
from enrich.enricher import Enricher
from notifications.notice import ACTORS, KEPT, Notice, Recipient
from notifications.rendering import Renderer
from notifications.rules import LONGEST_WINDOW, Rules, load
from runtime.settings import ROOT
from schemas.declarations import DeclarationError
from schemas.envelope import Envelope
from schemas.event import Event, Moment
from schemas.identity import of_producer
from schemas.notifications import Device, NotificationRequested, RelatedEntity
from schemas.topics import EventType
from schemas.topics import load as load_topics
from sinks.collections import NAMES

TIME = datetime(2026, 1, 31, 12, 34, 56, 789012, tzinfo=UTC)
EVENTS: Mapping[str, EventType] = {
    name: event
    for topic in load_topics(ROOT / "topics.yaml", NAMES).inbound.values()
    for name, event in topic.events.items()
}
RULES = load(ROOT / "notifications.yaml", EVENTS)

COMMENT = {
    "commentId": "comment-1",
    "postId": "post-1",
    "postTitle": "Types",
    "postSlug": "types",
    "postAuthorId": "alan",
    "authorId": "ada",
    "authorName": "Ada",
    "authorAvatar": "https://blog.example/ada.webp",
    "excerpt": "Thank you.",
}
REPLY = {**COMMENT, "parentId": "comment-0", "parentAuthorId": "grace"}
LIKE = {"postId": "post-1", "slug": "types", "title": "Types", "authorId": "alan", "userId": "ada", "userName": "Ada"}
PUBLISHED = {
    "postId": "post-1",
    "slug": "types",
    "title": "Types",
    "authorId": "alan",
    "authorName": "Alan",
    "followerIds": ["ada", "grace"],
}
REQUEST = {"userId": "ada", "type": "welcome", "title": "Welcome", "message": "Hello\nAda"}


def event(name: str, payload: Mapping[str, Any], *, id: str = "event-1", time: datetime = TIME) -> Envelope[Event]:  # noqa: A002
    return Envelope(id, EVENTS[name], time, None, EVENTS[name].schema.model_validate(payload))


def notices(name: str, payload: Mapping[str, Any], *, id: str = "event-1", time: datetime = TIME) -> list[Notice]:  # noqa: A002
    return [*RULES.notices(event(name, payload, id=id, time=time))]


def told(name: str, payload: Mapping[str, Any]) -> dict[str, str]:
    made = notices(name, payload)
    assert len({notice.user_id for notice in made}) == len(made)
    return {notice.user_id: notice.type for notice in made}


def test_a_reply_is_told_to_the_parents_author_and_to_the_posts_author_as_a_comment() -> None:
    assert told("comment.created", REPLY) == {"grace": "comment_reply", "alan": "post_commented"}


def test_a_post_author_whose_comment_is_answered_is_told_of_the_answer_alone() -> None:
    assert told("comment.created", {**REPLY, "parentAuthorId": "alan"}) == {"alan": "comment_reply"}


def test_nobody_is_told_of_what_they_did_themselves() -> None:
    assert told("comment.created", {**REPLY, "postAuthorId": "ada", "parentAuthorId": "ada"}) == {}
    assert told("post.liked", {**LIKE, "authorId": "ada"}) == {}
    assert told("user.followed", {"userId": "ada", "followerId": "ada"}) == {}
    assert told("post.published", {**PUBLISHED, "followerIds": ["alan", "ada"]}) == {"ada": "post_published"}


def test_an_editor_who_publishes_for_an_author_is_not_told_and_followers_hear_of_the_author() -> None:
    made = notices("post.published", {**PUBLISHED, "userId": "grace"})
    assert [(notice.user_id, notice.actor_id, notice.title) for notice in made] == [
        ("ada", "alan", "Alan published “Types”")
    ]


def test_a_like_is_told_to_the_author_of_what_is_liked() -> None:
    assert told("post.liked", LIKE) == {"alan": "post_liked"}
    liked = {"commentId": "comment-1", "postId": "post-1", "authorId": "alan", "userId": "ada"}
    assert told("comment.liked", liked) == {"alan": "comment_liked"}


def test_a_follower_is_told_to_the_user_who_is_followed() -> None:
    assert told("user.followed", {"userId": "alan", "followerId": "ada"}) == {"alan": "new_follower"}


def test_every_follower_that_the_event_names_is_told_once() -> None:
    followers = ["ada", "grace", "ada", "grace"]
    assert told("post.published", {**PUBLISHED, "followerIds": followers}) == dict.fromkeys(
        ("ada", "grace"), "post_published"
    )
    many = [f"reader-{number}" for number in range(10_000)]
    assert len(told("post.published", {**PUBLISHED, "followerIds": many})) == 10_000


def test_a_follower_who_is_named_in_two_parts_of_an_event_has_one_notification() -> None:
    first = notices("post.published", {**PUBLISHED, "followerIds": ["ada", "grace"]}, id="published-1")
    part = {**PUBLISHED, "continues": "published-1"}
    second = notices("post.published", {**part, "followerIds": ["grace", "charles"]}, id="published-1-part-2")
    third = notices("post.published", {**part, "followerIds": ["charles"]}, id="published-1-part-3")
    ids = {(notice.user_id, notice.id) for notice in [*first, *second, *third]}
    assert sorted(user_id for user_id, _ in ids) == ["ada", "charles", "grace"]


@pytest.mark.parametrize("first", ["published-1", "page-views:3:7", "id:page-views:3:7", "0190b3a4-5c6d", "a:b"])
def test_a_part_names_the_first_event_as_its_producer_does(first: str) -> None:
    (whole,) = notices("post.published", {**PUBLISHED, "followerIds": ["ada"]}, id=of_producer(first))
    (part,) = notices("post.published", {**PUBLISHED, "followerIds": ["ada"], "continues": first}, id="part-2")
    assert whole.id == part.id


def test_a_post_that_is_published_again_notifies_again() -> None:
    (before,) = notices("post.published", {**PUBLISHED, "followerIds": ["ada"]}, id="published-1")
    (after,) = notices("post.published", {**PUBLISHED, "followerIds": ["ada"]}, id="published-2")
    assert before.id != after.id


def test_an_event_that_names_nobody_tells_nobody() -> None:
    assert told("comment.created", {"commentId": "c", "postId": "p", "authorId": "ada"}) == {}
    assert told("post.liked", {"postId": "p", "userId": "ada"}) == {}
    assert told("post.published", {"postId": "p", "slug": "s", "title": "t", "authorId": "alan"}) == {}


@pytest.mark.parametrize("name", sorted(EVENTS.keys() - RULES.events - {"notification.requested"}))
def test_an_event_without_a_rule_tells_nobody(name: str) -> None:
    assert notices(name, EVENTS[name].examples[0]) == []


def test_a_notice_has_all_that_its_rule_and_its_event_say() -> None:
    [notice] = notices("comment.created", {**REPLY, "postAuthorId": "ada"})
    assert notice == Notice(
        id=notice.id,
        user_id="grace",
        type="comment_reply",
        title="Ada replied to your comment",
        message="“Thank you.”",
        action_url="/posts/types#comment-1",
        action_text="View reply",
        related_entity=RelatedEntity(id="comment-1", type="comment"),
        actor_id="ada",
        actor_name="Ada",
        actor_avatar="https://blog.example/ada.webp",
        channels=("inApp", "email", "push"),
        priority="high",
        created_at=TIME,
        expires_at=TIME + KEPT,
        gather=None,
        transactional=False,
        recipient=None,
        max_attempts=5,
    )


def test_an_event_read_again_makes_the_same_notices() -> None:
    assert notices("comment.created", REPLY) == notices("comment.created", REPLY)


def test_every_event_user_and_type_has_an_id_of_its_own() -> None:
    made = [
        *notices("comment.created", REPLY),
        *notices("comment.created", REPLY, id="event-2"),
        *notices("comment.created", {**REPLY, "parentAuthorId": "alan"}),
        *notices("post.published", PUBLISHED),
        *notices("post.published", PUBLISHED, id="event-2"),
    ]
    assert len({notice.id for notice in made}) == len(made)
    assert {len(notice.id) for notice in made} == {32}


def test_what_is_unknown_is_worded_all_the_same() -> None:
    spoken = {"commentId": "c", "postId": "p", "authorId": "ada", "parentAuthorId": "grace"}
    [notice] = notices("comment.created", spoken)
    assert (notice.title, notice.message) == ("Someone replied to your comment", "Read the reply on the post.")
    assert (notice.actor_name, notice.action_url, notice.action_text) == (None, None, None)
    [notice] = notices("post.liked", {"postId": "p", "userId": "ada", "authorId": "alan"})
    assert (notice.title, notice.message) == ("Someone liked your post", "Your post is getting attention.")


def test_what_people_wrote_is_cut_and_cleaned() -> None:
    comment = {**REPLY, "authorName": "Ada\n\u202eLovelace" + "x" * 1_000, "excerpt": "a\0b\n" + "word " * 10_000}
    reply = notices("comment.created", comment)[0]
    assert reply.actor_name is not None
    assert reply.actor_name.startswith("Ada Lovelacexxx")
    assert (len(reply.actor_name), reply.title) == (50, f"{reply.actor_name} replied to your comment")
    assert reply.message.startswith("“a b word word")
    assert len(reply.message) <= 202


def test_a_name_can_not_pass_for_the_mark_of_actors() -> None:
    [notice] = notices("post.liked", {**LIKE, "userName": f"{ACTORS}Ada", "title": ACTORS})
    assert notice.title == "Ada liked your post"
    assert notice.gather is not None
    assert (notice.gather.title, notice.gather.message) == (
        f"{ACTORS} liked your post",
        "Your post is getting attention.",
    )


@pytest.mark.parametrize("slug", ["../../admin", "a?b=c#d", "a b\n", "//other.example", "ä"])
def test_a_slug_is_one_part_of_the_address(slug: str) -> None:
    [notice] = notices("post.liked", {**LIKE, "slug": slug})
    assert notice.action_url is not None
    path = notice.action_url.removeprefix("/posts/")
    assert not set("/?# \n") & set(path)


def test_likes_of_one_post_within_an_hour_are_of_one_group() -> None:
    def group(payload: Mapping[str, Any], time: datetime) -> tuple[str, datetime]:
        [notice] = notices("post.liked", payload, time=time)
        assert notice.gather is not None
        return notice.gather.group, notice.gather.window_start

    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    first = group(LIKE, noon)
    assert first[1] == noon
    assert group({**LIKE, "userId": "grace"}, noon + timedelta(minutes=59, seconds=59)) == first
    others = (
        group(LIKE, noon + timedelta(hours=1)),
        group(LIKE, noon - timedelta(microseconds=1)),
        group({**LIKE, "postId": "post-2"}, noon),
        group({**LIKE, "authorId": "hedy"}, noon),
    )
    assert len({first[0], *(other[0] for other in others)}) == 5


def test_an_event_before_1970_has_a_window_too() -> None:
    [notice] = notices("post.liked", LIKE, time=datetime(1969, 12, 31, 23, 30, tzinfo=UTC))
    assert notice.gather is not None
    assert notice.gather.window_start == datetime(1969, 12, 31, 23, tzinfo=UTC)


@pytest.mark.parametrize("days", range(1, LONGEST_WINDOW.days + 1))
@pytest.mark.parametrize("time", ["0001-01-11T00:00:00Z", "9999-12-21T00:00:00Z"])
def test_the_first_and_the_last_moment_that_an_event_may_have_are_in_a_window(days: int, time: str) -> None:
    rules = load(ROOT / "notifications.yaml", EVENTS, window=timedelta(days=days))
    moment = TypeAdapter(Moment).validate_python(time)
    [notice] = rules.notices(event("post.liked", LIKE, time=moment))
    assert notice.gather is not None
    assert notice.gather.window_start <= moment < moment + notice.gather.wait


def test_a_setting_replaces_the_windows_length_where_a_rule_gathers() -> None:
    rules = load(ROOT / "notifications.yaml", EVENTS, window=timedelta(days=1))
    assert {name: rule.gather for name, rule in rules.by_type.items()} == {
        name: timedelta(days=1) if rule.gather else None for name, rule in RULES.by_type.items()
    }


def test_a_notice_from_the_end_of_time_expires_by_then() -> None:
    latest = datetime.max.replace(tzinfo=UTC)
    assert notices("post.published", PUBLISHED, time=latest)[0].expires_at == latest


def test_a_request_is_a_notice_as_it_is() -> None:
    request = {
        **REQUEST,
        "actionUrl": "/welcome",
        "actionText": "Begin",
        "relatedEntity": {"id": "ada", "type": "user"},
        "actorId": "ada",
        "actorName": "Ada",
        "channels": ["email", "inApp", "email"],
        "priority": "urgent",
        "maxAttempts": 3,
        "expiresAt": "2026-02-01T02:00:00+02:00",
        "email": "ada@example.org",
        "devices": [{"token": "t", "platform": "ios"}],
        "transactional": True,
    }
    assert notices("notification.requested", request, id="request-1") == [
        Notice(
            id="request-1",
            user_id="ada",
            type="welcome",
            title="Welcome",
            message="Hello\nAda",
            action_url="/welcome",
            action_text="Begin",
            related_entity=RelatedEntity(id="ada", type="user"),
            actor_id="ada",
            actor_name="Ada",
            actor_avatar=None,
            channels=("email", "inApp"),
            priority="urgent",
            created_at=TIME,
            expires_at=datetime(2026, 2, 1, tzinfo=UTC),
            gather=None,
            transactional=True,
            recipient=Recipient("ada@example.org", (Device(token="t", platform="ios"),)),
            max_attempts=3,
        )
    ]


def test_a_request_without_an_address_leaves_the_recipient_to_be_looked_up() -> None:
    [notice] = notices("notification.requested", REQUEST)
    assert (notice.recipient, notice.channels, notice.expires_at) == (None, ("inApp",), TIME + KEPT)


def test_nothing_personal_is_in_the_repr_of_a_notice_or_of_its_event() -> None:
    request = {**REQUEST, "email": "ada@example.org", "devices": [{"token": "secret-token", "platform": "ios"}]}
    requested = event("notification.requested", request)
    reply = event("comment.created", REPLY)
    for shown in (repr([*RULES.notices(requested)]), repr([*RULES.notices(reply)])):
        for personal in ("ada@example.org", "secret-token", "Hello", "Thank you", "Ada"):
            assert personal not in shown
    assert "ada@example.org" not in repr(requested.data)
    assert "secret-token" not in repr(requested.data)


PRIVATE = {
    (name, field.alias): schema
    for name, schema in ((name, event_type.schema) for name, event_type in EVENTS.items())
    for field in schema.model_fields.values()
    if field.exclude and field.alias != "continues"  # with which an event becomes no document at all
}


def test_fields_for_notifications_alone_are_known() -> None:
    assert {field for _, field in PRIVATE} >= {
        *("authorName", "authorAvatar", "userName", "userAvatar", "followerName", "followerAvatar"),
        *("excerpt", "followerIds", "email", "devices", "recipient"),
    }


def marked(event_type: EventType, field: str) -> dict[str, Any]:
    """Return the event's example with a mark in this field, whatever it holds."""
    for value in ("mark", ["mark"], [{"token": "mark", "platform": "web"}]):
        payload = {**event_type.examples[0], field: value}
        try:
            event_type.schema.model_validate(payload)
        except ValidationError:
            continue
        return payload
    raise AssertionError(f"no mark for {event_type.name}'s {field}")


@pytest.mark.parametrize(("name", "field"), PRIVATE)
def test_a_field_for_notifications_alone_is_part_of_no_document_but_the_queues(name: str, field: str) -> None:
    event_type = EVENTS[name]
    payload = marked(event_type, field)
    enricher = Enricher(ip_hash_key=b"key of the tests", geo=None)
    written = enricher.documents(Envelope("event-1", event_type, TIME, None, event_type.schema.model_validate(payload)))
    assert written or event_type.updates
    for write in written:
        assert isinstance(write, Document)
        assert ("mark" in repr(write.body)) == (
            write.collection == "notificationQueue" and field in ("email", "devices")
        )


def test_who_wrote_the_post_and_the_parent_are_properties_that_count() -> None:
    enricher = Enricher(ip_hash_key=b"key of the tests", geo=None)
    analytics = enricher.documents(event("comment.created", REPLY))[0]
    assert isinstance(analytics, Document)
    assert analytics.body["properties"] == {
        "postId": "post-1",
        "postTitle": "Types",
        "postSlug": "types",
        "parentId": "comment-0",
        "postAuthorId": "alan",
        "parentAuthorId": "grace",
    }


@pytest.mark.parametrize("name", RULES.by_type)
def test_every_type_has_an_example_that_can_be_looked_at(name: str) -> None:
    notice = RULES.example(name)
    preview = Renderer("Inkwell", "https://blog.example").preview(notice)
    assert notice.type == name
    for text in (preview.email.text, preview.email.html):
        assert preview.email.subject in text
    assert (preview.push.url is not None) == (notice.action_url is not None)
    assert bool(preview.together) == (notice.gather is not None)
    assert not [text for text in (preview.words.title, *sum(preview.together, ())) if ACTORS in text]


def test_an_example_of_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="unknown type post_like; did you mean post_liked"):
        RULES.example("post_like")


GOOD = dedent("""\
    rules:
      comment_reply:
        event:    comment.created
        tell:     [parentAuthorId, postAuthorId]
        actor:    authorId
        channels: [inApp, email]
        priority: high
        title:    "{{ actors }} answered"
        message:  "{{ excerpt or 'Hello' }}"
        action:   {text: Read it, url: "/posts/{{ postSlug }}"}
        about:    {type: comment, id: commentId}
        gather:   1h
      new_follower:
        event:    user.followed
        tell:     userId
        actor:    followerId
        channels: [inApp]
        priority: low
        title:    A follower
        message:  You have a follower
        transactional: true
    """)


def read(path: Path, text: str = GOOD) -> Rules:
    file = path / "notifications.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, EVENTS)


def test_a_rule_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    rules = read(tmp_path)
    reply, follower = rules.by_type["comment_reply"], rules.by_type["new_follower"]
    assert (reply.event.name, reply.channels, reply.priority) == ("comment.created", ("inApp", "email"), "high")
    assert (reply.gather, reply.transactional) == (timedelta(hours=1), False)
    assert (follower.gather, follower.transactional) == (None, True)
    assert [notice.user_id for notice in rules.notices(event("comment.created", REPLY))] == ["grace", "alan"]


def test_a_rule_without_action_and_entity_has_none(tmp_path: Path) -> None:
    [notice] = read(tmp_path).notices(event("user.followed", {"userId": "ada", "followerId": "grace"}))
    assert (notice.action_url, notice.action_text, notice.related_entity) == (None, None, None)


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("event:    comment.created", "event:    comment.creatd", "3: unknown event comment.creatd; did you mean"),
        ("event:    comment.created", "event:    search.performed", "3: event search.performed is not a domain event"),
        ("event:    comment.created", "event:    search.performed", "make the class SearchPerformed a DomainEvent"),
        ("event:    comment.created", "event:    xyz", "more; topics.yaml declares events"),
        ("event:    comment.created\n", "\n", "2: event is missing"),
        ("event:    comment.created", "evnt:     comment.created", "3: unknown key evnt; did you mean event?"),
        ("[parentAuthorId, postAuthorId]", "parentAutorId", "4: unknown field parentAutorId of class"),
        ("[parentAuthorId, postAuthorId]", "[]", "4: tell should not be empty"),
        ("tell:     userId", "tell:     actorId", "15: the example of class UserFollowed names nobody to notify"),
        ("actor:    authorId", "actor:    userId", "5: field userId is optional in class CommentCreated"),
        ("actor:    authorId", "actor:    userId", "make it required in the class, or name another field"),
        ("actor:    authorId", "actor:    commentId", "5: actor commentId needs commentName and commentAvatar in"),
        ("actor:    authorId", "actor:    commentId", "add `comment_name: Label | None = Field(None, exclude=True, "),
        ("actor:    authorId", "actor:    title", "5: unknown field title of class CommentCreated"),
        ("[inApp, email]", "[inApp, fax]", "6: channels: fax should be inApp, email or push"),
        ("[inApp, email]", "[inApp, inApp]", "6: inApp is listed twice"),
        ("[inApp, email]", "inApp", "6: channels should be a list, like [inApp, email]"),
        ("priority: high", "priority: highest", "7: priority: highest should be low, medium, high or urgent"),
        ("{{ actors }} answered", "{{ actors answered", "8: title is not a valid Jinja template: "),
        ("{{ excerpt or 'Hello' }}", "{{ excerpt | quotd }}", "9: message is not a valid Jinja template"),
        ('{text: Read it, url: "/posts/{{ postSlug }}"}', "Read it", "10: action should be a mapping of keys to val"),
        ("{type: comment, id: commentId}", "commentId", "values, like {type: post, id: postId}"),
        ("tell:     userId", "tell:     followerId", "15: followerId is the actor, and nobody is notified of their"),
        ("  new_follower:", "new_follower:", "new_follower looks like a rule: indent it, so that it"),
        ("title:    A follower", 'title:    "A" follower', "is the indentation right? A text that contains"),
        ("{{ actors }} answered", "{{ actor }} answered", "did you mean actors?"),
        ("{{ actors }} answered", "{{ actors.shout() }}", "2: its texts can't be written: "),
        ("{{ excerpt or 'Hello' }}", "{{ excerpt[0] }}", "2: its texts can't be written: "),
        ("{{ excerpt or 'Hello' }}", "{{ exerpt }}", "9: unknown variable exerpt for class CommentCreated; did you"),
        ('message:  "{{ excerpt or \'Hello\' }}"', "message:  ''", "9: message should not be empty"),
        ("/posts/{{ postSlug }}", "/posts/{{ actors }}", "10: actors can't be part of a URL"),
        ("{text: Read it, ", "{", "10: text is missing"),
        ("{text: Read it, ", "{texts: Read it, ", "10: unknown key texts; did you mean text?"),
        ("id: commentId", "id: parentId", "11: field parentId is optional in class CommentCreated"),
        ("id: commentId", "ident: commentId", "11: unknown key ident; there are type, id"),
        ("gather:   1h", "gather:   1 hour", "12: gather: 1 hour should be a time in minutes, hours or days"),
        ("gather:   1h", "gather:   8d", "12: gather: 8d should be at most 7d"),
        ("gather:   1h", "gather:   60", "12: gather: 60 should be a time in minutes, hours or days"),
        ("transactional: true", "transactional: 'true'", "21: transactional: true should be true or false, without"),
        ("new_follower:", "comment_reply:", "13: comment_reply is declared twice"),
        ("new_follower:", "New-Follower:", "13: type 'New-Follower' should be lower-case words joined by underscores"),
        ("priority: low", "priority: low\n    priority: high", "19: priority is declared twice"),
        ("rules:", "rule:", "1: unknown key rule; did you mean rules?"),
        ("[inApp, email]", "[inApp, email", "is not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, right: str, wrong: str, complaint: str) -> None:
    assert right in GOOD
    with pytest.raises(DeclarationError) as raised:
        read(tmp_path, GOOD.replace(right, wrong, 1))
    assert str(raised.value).startswith("notifications.yaml:")
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "notifications.yaml:1: is empty"),
        ("- a list", "notifications.yaml:1: the file should be a mapping"),
        ("rules: {}", "notifications.yaml:1: rules should not be empty"),
        ("rules: {post_liked: 1}", "notifications.yaml:1: post_liked should be a mapping of keys to values"),
        ("rules: {1: {}}", "notifications.yaml:1: "),
        ("{a: &a [*a]}", "notifications.yaml:1: unknown key a; there are rules"),
        ("rules: {? [a] : b}", "notifications.yaml:1: a key should be a text"),
    ],
)
def test_a_file_that_is_no_table_of_rules_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        read(tmp_path, text)
    assert complaint in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"notifications\.yaml: can't be read: No such file"):
        load(tmp_path / "notifications.yaml", EVENTS)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notifications.yaml").write_bytes(b"rules: \xff")
    with pytest.raises(DeclarationError, match="is not UTF-8"):
        load(tmp_path / "notifications.yaml", EVENTS)


def test_a_request_names_at_most_20_devices() -> None:
    devices = [{"token": "t", "platform": "web"}] * 20
    NotificationRequested.model_validate({**REQUEST, "devices": devices})
    with pytest.raises(ValueError, match="devices"):
        NotificationRequested.model_validate({**REQUEST, "devices": [*devices, devices[0]]})


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/", "//evil.example/", "/\\\\evil.example/", "javascript:alert(1)", "https://blog.example/"],
)
def test_a_rule_leads_to_a_page_of_the_site_whichever_host_that_has(tmp_path: Path, url: str) -> None:
    with pytest.raises(DeclarationError, match=r"notifications.yaml:10: url should be a path of the site") as raised:
        read(tmp_path, GOOD.replace("/posts/{{ postSlug }}", url))
    assert "evil" not in str(raised.value)
