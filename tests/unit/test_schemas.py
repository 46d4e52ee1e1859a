from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.event import Event
from schemas.logs import LogLine
from schemas.notifications import NotificationRequested
from schemas.page_views import PageExited, PageViewed
from schemas.performance import PerformanceSampled
from schemas.posts import PostDeleted, PostLiked, PostShared
from schemas.searches import SearchPerformed
from schemas.topics import event_classes
from schemas.users import UserDeleted, UserFollowed


def example(schema: type[Event], **changes: Any) -> dict[str, Any]:
    extra = schema.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    examples: Any = extra["examples"]
    return {**examples[0], **changes}


@pytest.mark.parametrize(
    ("schema", "field", "value"),
    [
        (PageViewed, "postId", ""),
        (PageViewed, "postId", "x" * 257),
        (PageViewed, "postId", 123),
        (PageViewed, "scrollDepth", 100.1),
        (PageViewed, "timeSpent", -1),
        (PageViewed, "timeSpent", float("inf")),
        (PageViewed, "timestamp", "2026-01-31T12:00:00"),
        (PageViewed, "timestamp", "0001-01-01T00:00:00+14:00"),
        (PageExited, "exitedAt", None),
        (SearchPerformed, "resultsCount", -1),
        (SearchPerformed, "resultsCount", 2**64),
        (SearchPerformed, "filters", {"dateRange": {"from": "yesterday"}}),
        (LogLine, "level", "notice"),
        (PerformanceSampled, "duration", float("nan")),
        (NotificationRequested, "channels", []),
        (NotificationRequested, "channels", ["fax"]),
        (NotificationRequested, "priority", "highest"),
        (PostLiked, "userId", None),
    ],
)
def test_a_value_that_would_spoil_a_document_is_refused(schema: type[Event], field: str, value: object) -> None:
    with pytest.raises(ValidationError) as raised:
        schema.model_validate(example(schema, **{field: value}))
    assert {error["loc"][0] for error in raised.value.errors()} == {field}


def test_a_time_in_any_zone_is_the_same_moment() -> None:
    view = PageViewed.model_validate(example(PageViewed, timestamp="2026-01-31T14:00:00+02:00"))
    assert view.timestamp == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert view.timestamp.tzinfo is not None


def test_a_producer_may_be_a_release_ahead() -> None:
    PageViewed.model_validate(example(PageViewed, colourOfTheSky="blue"))


def test_a_beacon_may_say_nothing_but_which_view_ended_and_when() -> None:
    left = PageExited.model_validate({"postId": "p", "viewId": "v", "exitedAt": 1769860800000})
    assert (left.time_spent, left.scroll_depth, left.interacted) == (0, 0, False)


def test_an_error_line_needs_no_error_object() -> None:
    line = LogLine.model_validate({"level": "fatal", "message": "out of memory", "service": "s", "environment": "e"})
    assert line.error is None


def test_an_error_may_come_without_a_stack() -> None:
    line = LogLine.model_validate(example(LogLine, error={"message": "boom"}))
    assert line.error is not None
    assert (line.error.name, line.error.message, line.error.stack) == ("Error", "boom", "")


def test_an_author_acts_on_their_own_post() -> None:
    payload = example(PostDeleted)
    del payload["userId"]
    assert PostDeleted.model_validate(payload).actor == payload["authorId"]


def test_somebody_else_may_act_on_an_authors_post() -> None:
    assert PostDeleted.model_validate(example(PostDeleted, userId="editor")).actor == "editor"


def test_a_reader_and_not_the_author_likes_a_post() -> None:
    assert PostLiked.model_validate(example(PostLiked)).actor == example(PostLiked)["userId"]


def test_a_visitor_who_is_not_signed_in_is_nobody() -> None:
    assert PostShared.model_validate({"postId": "p", "authorId": "a", "sessionId": "s"}).actor is None


def test_a_follower_acts_on_the_user_who_is_followed() -> None:
    followed = UserFollowed.model_validate(example(UserFollowed))
    assert (followed.entity, followed.actor) == ("user-uuid-456", "user-uuid-457")


def test_users_act_on_their_own_account_unless_somebody_else_is_named() -> None:
    assert UserDeleted.model_validate({"userId": "ada"}).actor == "ada"
    assert UserDeleted.model_validate({"userId": "ada", "actorId": "admin"}).actor == "admin"


@pytest.mark.parametrize("schema", event_classes().values(), ids=event_classes())
def test_every_field_is_known_by_its_camel_case_name(schema: type[Event]) -> None:
    assert all(field.alias and "_" not in field.alias for field in schema.model_fields.values())
