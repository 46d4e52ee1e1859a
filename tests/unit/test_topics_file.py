from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from textwrap import dedent, indent
from typing import ClassVar

import pytest
from pydantic import ConfigDict

from schemas.declarations import DeclarationError
from schemas.domain import DomainEvent
from schemas.event import Event
from schemas.fields import Id
from schemas.posts import PostPublished
from schemas.topics import Topic, event_classes, load

COLLECTIONS = ("analyticsEvents", "userActivity", "auditLogs", "pageViews")

DEFAULTS = dedent("""\
    defaults:
      partitions: 6
      replication: 1
      retention: 7d
      deadLetterRetention: 30d
    topics:
    """)

GOOD = dedent("""\
    domain-events:
      description: What happens.
      key: postId
      events:
        post.published: {class: posts.PostPublished, category: content, public: true, collections: [analyticsEvents, \
userActivity]}
        comment.created: {class: comments.CommentCreated, key: commentId, collections: [auditLogs]}
    audit-entries:
      description: What is kept.
      key: resourceId
      partitions: 2
      retention: 12h
      events:
        audit.recorded: {class: audit.AuditRecorded, collections: [auditLogs]}
    """)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "topics.yaml"


def read(file: Path, topics: str = GOOD, *, partitions: int | None = None) -> Mapping[str, Topic]:
    file.write_text(DEFAULTS + indent(topics, "  "), encoding="utf-8")
    return load(file, COLLECTIONS, partitions=partitions).inbound


def test_an_event_is_read_with_all_that_its_line_says(file: Path) -> None:
    published = read(file)["domain-events"].events["post.published"]
    assert published.schema is PostPublished
    assert published.key == "postId"
    assert published.collections == ("analyticsEvents", "userActivity")
    assert published.category == "content"
    assert published.public
    assert (published.underscored, published.action) == ("post_published", "published")


def test_an_event_may_update_documents_instead_of_making_any(file: Path) -> None:
    audited = "audit.recorded: {class: audit.AuditRecorded, collections: [auditLogs]}"
    topic = read(file, GOOD.replace(audited, audited.replace("collections", "updates")))["audit-entries"]
    assert topic.events["audit.recorded"].updates == ("auditLogs",)
    assert topic.collections == frozenset()


def test_an_event_is_private_unless_it_says_otherwise(file: Path) -> None:
    assert not read(file)["domain-events"].events["comment.created"].public


def test_an_event_may_have_a_key_of_its_own(file: Path) -> None:
    assert read(file)["domain-events"].events["comment.created"].key == "commentId"


def test_a_topic_has_the_defaults_where_it_says_nothing(file: Path) -> None:
    topics = read(file)
    assert (topics["domain-events"].partitions, topics["domain-events"].retention) == (6, timedelta(days=7))
    assert (topics["audit-entries"].partitions, topics["audit-entries"].retention) == (2, timedelta(hours=12))
    assert topics["audit-entries"].dead_letter_retention == timedelta(days=30)


def test_a_setting_replaces_the_default_and_not_what_a_topic_says(file: Path) -> None:
    topics = read(file, partitions=1)
    assert topics["domain-events"].partitions == 1
    assert topics["audit-entries"].partitions == 2


def test_only_a_topic_with_one_event_tells_its_type(file: Path) -> None:
    topics = read(file)
    assert topics["domain-events"].only_event is None
    assert topics["audit-entries"].only_event is topics["audit-entries"].events["audit.recorded"]


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("posts.PostPublished", "posts.PostPublihsed", "11: unknown class posts.PostPublihsed; did you mean"),
        ("posts.PostPublished", "posts.PostPinned", "Otherwise add class PostPinned to schemas/posts.py"),
        ("posts.PostPublished", "schemas.posts.PostPublished", "; did you mean posts.PostPublished?"),
        ("posts.PostPublished", "Rated", "11: unknown class Rated: it should be a module of schemas/ and a"),
        ("posts.PostPublished", "ratings.PostRated", "11: unknown class ratings.PostRated: there is no schemas"),
        ("posts.PostPublished", "posts.Rated", "11: unknown class posts.Rated: schemas/posts.py has no class Rated"),
        ("posts.PostPublished", "fields.Id", "11: unknown class fields.Id: schemas/fields.py has no class Id that"),
        ("[auditLogs]", "[postRatings]", "declare a new one in sinks/collections.py"),
        ("key: postId", "key: sessionId", "make the field required, or name another one"),
        ("posts.PostPublished", "posts.PostEvent", "11: class posts.PostEvent has no example in its model_config"),
        ("analyticsEvents,", "analyticEvents,", "11: unknown collection analyticEvents; did you mean analyticsEvents?"),
        ("analyticsEvents, userActivity", "auditLogs, auditLogs", "11: auditLogs is listed twice"),
        ("[auditLogs]", "[auditLogs], updates: [pageViews]", "12: event type comment.created needs either"),
        (", collections: [auditLogs]", "", "12: event type comment.created needs either collections or updates"),
        ("collections: [auditLogs]", "updates: [auditLog]", "12: unknown collection auditLog; did you mean auditLogs?"),
        ("collections: [auditLogs]", "updates: []", "12: updates should not be empty"),
        ("collections: [auditLogs]", "updates: [auditLogs]", "10: topic domain-events has one agent, so either all"),
        ("[analyticsEvents, userActivity]", "[]", "11: collections should not be empty"),
        ("key: postId", "key: postID", "9: unknown key field postID of class PostPublished; did you mean postId?"),
        ("key: postId", "key: sessionId", "9: key field sessionId is optional in class PostPublished"),
        ("key: postId\n", "\n", "11: event type post.published has no key, and neither has its topic"),
        ("category:", "categories:", "11: unknown key categories; did you mean category?"),
        ("category: content, ", "", "11: event type post.published goes to analyticsEvents and needs a category"),
        ("public: true", "public: yes", "11: public: yes should be true or false"),
        (", userActivity]", "]", "11: public has an effect in userActivity only, where post.published does not go"),
        ("comment.created:", "post.published:", "12: post.published is declared twice"),
        ("audit.recorded:", "post.published:", "19: event type post.published is already declared in"),
        ("audit.recorded:", "audited:", "19: event type 'audited' should be lower-case words joined by dots"),
        ("audit-entries:", "audit_entries:", "topic 'audit_entries' should be lower-case words joined by hyphens"),
        ("audit-entries:", "domain-events:", "13: domain-events is declared twice"),
        ("description: What is kept.", "", "description is missing"),
        ("partitions: 2", "partitions: 0", "16: partitions: 0 should be a whole number from 1 to 1000"),
        ("partitions: 2", "partitions: two", "16: partitions: two should be a whole number from 1 to 1000"),
        ("retention: 12h", "retention: 7 days", "17: retention: 7 days should be a time in minutes, hours"),
        ("retention: 12h", "retenton: 12h", "17: unknown key retenton; did you mean retention?"),
        ("collections: [auditLogs]", "collections: auditLogs", "collections should be a list, like [pageViews]"),
        ("collections: [auditLogs]", "collections: [auditLogs", "is not YAML"),
        ("What happens.", "What happens: events", "not allowed here; is the indentation right?"),
        ("audit.recorded: {", "- audit.recorded: {", "topic audit-entries has no events: write each as a line below"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(file: Path, right: str, wrong: str, complaint: str) -> None:
    assert right in GOOD
    with pytest.raises(DeclarationError) as raised:
        read(file, GOOD.replace(right, wrong, 1))
    assert str(raised.value).startswith("topics.yaml:")
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "topics.yaml:1: is empty"),
        ("- a list", "topics.yaml:1: the file should be a mapping of keys to values"),
        ("topics: {}", "topics.yaml:1: defaults is missing"),
        (DEFAULTS + "  {}", "topics should not be empty"),
        (DEFAULTS.replace("7d", "for ever") + "  {}", "topics.yaml:4: retention: for ever should be a time"),
    ],
)
def test_a_file_that_is_no_table_of_topics_is_refused(file: Path, text: str, complaint: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DeclarationError, match=complaint):
        load(file, COLLECTIONS)


EXAMPLE = {"json_schema_extra": {"examples": [{"postId": "post-1", "userId": "ada"}]}}


class Nowhere(DomainEvent):
    """Says nothing of itself."""

    model_config = ConfigDict(**EXAMPLE)  # type: ignore[typeddict-item]
    post_id: Id
    user_id: Id | None = None


class Nobody(Nowhere):
    """Does not say who did it."""

    entity_type: ClassVar[str] = "post"
    entity_id_field: ClassVar[str] = "post_id"


class Misspelt(Nobody):
    """Names a field that it does not have."""

    actor_fields: ClassVar[tuple[str, ...]] = ("user",)


class Vague(Misspelt):
    """May be about nothing."""

    entity_id_field: ClassVar[str] = "user_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)


class WithoutComma(Nobody):
    """Names who did it in parentheses, which make no tuple."""

    actor_fields: ClassVar[tuple[str, ...]] = "user_id"  # type: ignore[assignment]


class WithAnotherExample(Nobody):
    """Has an example with a name that is misspelt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"postId": "post-1", "usrId": "ada"}]})
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (WithoutComma, 'actor_fields is a string, not a tuple: write ("user_id",), with a comma'),
        (WithAnotherExample, "has usrId, which is not a field of the class; did you mean userId?"),
        (Nowhere, 'is a DomainEvent without entity_type: add `entity_type: ClassVar[str] = "post"`'),
        (Nobody, "is a DomainEvent without actor_fields: add `actor_fields: ClassVar"),
        (Misspelt, "names a field user that it does not have; did you mean user_id?"),
        (Vague, "user_id identifies the entity, so it has to be required"),
    ],
)
def test_a_domain_event_that_does_not_say_what_it_is_is_refused(
    file: Path, schema: type[Event], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.topics.event_classes", lambda: {**event_classes(), "ratings.Rated": schema})
    with pytest.raises(DeclarationError) as raised:
        read(file, GOOD.replace("posts.PostPublished", "ratings.Rated"))
    assert complaint in str(raised.value)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(DeclarationError, match=r"topics\.yaml: can't be read: No such file"):
        load(file, COLLECTIONS)


def test_a_file_in_another_encoding_is_refused(file: Path) -> None:
    file.write_bytes(b"topics: \xff")
    with pytest.raises(DeclarationError, match="is not UTF-8"):
        load(file, COLLECTIONS)


def test_classes_are_known_by_module_and_name() -> None:
    assert event_classes()["posts.PostPublished"] is PostPublished
