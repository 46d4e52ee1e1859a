"""Decoding: both CloudEvents modes and plain bodies; bad input gets an error that a developer can act on."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event
from schemas.identity import ReplaySigner
from schemas.logs import LoggedError, LogLine
from schemas.posts import PostPublished
from schemas.topics import load
from sinks import collections
from tests.fuzz.events import Raw, encoded

TOPICS = load(Path(__file__).parents[2] / "topics.yaml", collections.NAMES).inbound
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
POSITION = "performance-samples:0:7"

LIKED = TOPICS["domain-events"].events["post.liked"].examples[0]
VIEWED = TOPICS["page-views"].events["page.viewed"].examples[0]
SAMPLED = next(iter(TOPICS["performance-samples"].events.values())).examples[0]

Headers = Sequence[tuple[str, bytes]]
BINARY: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_type", b"post.liked"), ("ce_source", b"/api")]
BINARY_VIEW: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_type", b"page.viewed")]
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]


@dataclass
class Record:
    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    headers: Headers


def decode(
    topic: str,
    value: object,
    headers: Headers = (),
    timestamp: datetime | None = NOW,
    *,
    offset: int = 7,
    signer: ReplaySigner | None = None,
) -> Envelope[Event]:
    body = value if isinstance(value, bytes | None) else encoded(value)
    milliseconds = -1 if timestamp is None else int(timestamp.timestamp() * 1000)
    record = Record(topic, 0, offset, milliseconds, body, headers)
    return Decoder(TOPICS[topic], timedelta(hours=24), signer).decode(record)


def refusal(topic: str, value: object, headers: Headers = ()) -> tuple[str, str]:
    with pytest.raises(InvalidEvent) as error:
        decode(topic, value, headers)
    return error.value.reason, error.value.message


def test_binary_structured_and_plain_forms_are_the_same_event() -> None:
    time = "2026-01-31T11:59:00Z"
    data = {name: value for name, value in LIKED.items() if name != "timestamp"}
    binary = decode("domain-events", data, [*BINARY, ("ce_time", time.encode())])
    structured = decode(
        "domain-events",
        {"specversion": "1.0", "id": "e-1", "type": "post.liked", "source": "/api", "time": time, "data": data},
        STRUCTURED,
    )
    plain = decode("domain-events", {**data, "type": "post.liked", "eventId": "e-1", "timestamp": time})
    assert binary[:4] == structured[:4] == plain[:4]
    assert binary.id == "e-1"
    assert binary.time == datetime(2026, 1, 31, 11, 59, tzinfo=UTC)
    assert binary.data.model_dump(exclude={"timestamp"}) == plain.data.model_dump(exclude={"timestamp"})


def test_on_a_topic_with_one_type_the_body_need_not_say_it() -> None:
    assert decode("performance-samples", SAMPLED).type is TOPICS["performance-samples"].only_event


def test_without_an_id_the_position_is_the_id() -> None:
    assert decode("performance-samples", SAMPLED).id == POSITION


def test_without_a_time_of_its_own_an_event_has_its_kafka_timestamp() -> None:
    data = {name: value for name, value in SAMPLED.items() if name != "timestamp"}
    assert decode("performance-samples", data).time == NOW


def test_a_time_far_ahead_of_kafka_is_corrected_and_marked() -> None:
    future = NOW + timedelta(hours=25)
    event = decode("page-views", {**VIEWED, "type": "page.viewed", "timestamp": future.isoformat()})
    assert (event.time, event.reported_time) == (NOW, future)


def test_a_time_a_little_ahead_of_kafka_is_kept() -> None:
    soon = NOW + timedelta(hours=23)
    event = decode("page-views", {**VIEWED, "type": "page.viewed", "timestamp": soon.isoformat()})
    assert (event.time, event.reported_time) == (soon, None)


def test_a_record_without_kafka_timestamp_keeps_its_own_time() -> None:
    event = decode("page-views", {**VIEWED, "type": "page.viewed"}, timestamp=None)
    assert event.time.isoformat().startswith(VIEWED["timestamp"][:19])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not-json"),
        (b"", "not-json"),
        (b"hello", "not-json"),
        (b'{"postId": "7c9e', "not-json"),
        (b'{"postId": "\xff\xfe"}', "not-json"),
        (b'{"postId": "\\ud800"}', "not-json"),
        (b"[" * 5_000 + b"]" * 5_000, "not-json"),
        (b"[]", "schema"),
        (b"null", "schema"),
        (b'"text"', "schema"),
        (b"{}", "unknown-type"),
        (b'{"type": 7}', "schema"),
        (b'{"type": "page.invented"}', "unknown-type"),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(value: bytes | None, reason: str) -> None:
    assert refusal("page-views", value)[0] == reason


@pytest.mark.parametrize("value", [None, b"", b"hello", b'{"postId": "\xff"}', b"[" * 5_000])
def test_a_binary_event_with_a_bad_body_is_refused(value: bytes | None) -> None:
    assert refusal("domain-events", value, BINARY)[0] == "not-json"


def test_the_message_names_the_field_what_was_expected_and_what_came_but_no_value() -> None:
    reason, message = refusal("page-views", {**VIEWED, "type": "page.viewed", "ipAddress": 51_344, "sessionId": None})
    assert reason == "schema"
    assert "ipAddress: should be a valid string; came a number" in message
    assert "sessionId: null; required" in message
    assert "51344" not in message


def test_a_missing_field_is_named() -> None:
    body = {name: value for name, value in VIEWED.items() if name != "postId"}
    assert refusal("page-views", {**body, "type": "page.viewed"})[1] == "page.viewed: postId: missing"


def viewed(**changes: object) -> Envelope[Event]:
    return decode("page-views", {**VIEWED, "type": "page.viewed", **changes})


def refused(topic: str, name: str, **changes: object) -> str:
    [example, *_] = TOPICS[topic].events[name].examples
    reason, message = refusal(topic, {**example, "type": name, **changes})
    assert reason == "schema"
    return message


@pytest.mark.parametrize("field", ["scrollDepth", "timeSpent", "interacted", "source", "exitedAt", "url", "timestamp"])
@pytest.mark.parametrize("headers", [(), BINARY_VIEW], ids=["plain", "binary"])
def test_a_null_is_as_if_it_were_not_there(field: str, headers: Headers) -> None:
    body = {name: value for name, value in VIEWED.items() if name != field} | {"type": "page.viewed"}
    without = decode("page-views", body, headers)
    assert decode("page-views", {**body, field: None}, headers) == without
    assert not without.clamped


def test_an_error_may_come_with_a_stack_that_is_null_and_properties_too() -> None:
    [line, *_] = TOPICS["log-lines"].events["log.written"].examples
    logged = decode("log-lines", {**line, "error": {"name": "E", "message": "m", "stack": None}}).data
    assert isinstance(logged, LogLine)
    assert logged.error == LoggedError(name="E", message="m")
    [tracked] = TOPICS["analytics-events"].events["analytics.tracked"].examples
    assert decode("analytics-events", {**tracked, "properties": None}).data.model_dump()["properties"] == {}


def test_an_item_of_a_list_that_is_nothing_is_left_out() -> None:
    published = decode(
        "domain-events",
        {**TOPICS["domain-events"].events["post.published"].examples[0], "followerIds": ["a", None, "", "b", None]},
        [("ce_type", b"post.published")],
    )
    assert isinstance(published.data, PostPublished)
    assert published.data.follower_ids == ("a", "b")


def test_a_null_in_free_content_stays_what_it_is() -> None:
    [tracked] = TOPICS["analytics-events"].events["analytics.tracked"].examples
    kept = decode("analytics-events", {**tracked, "properties": {"a": None}, "userId": None}).data.model_dump()
    assert kept["properties"] == {"a": None}
    nested = decode("analytics-events", {**tracked, "properties": {"a": [None, {}]}, "userId": None}).data.model_dump()
    assert nested["properties"] == {"a": [None, {}]}


def test_an_empty_text_is_absence_where_a_field_may_not_be_empty() -> None:
    assert viewed(userId="") == viewed(userId=None)
    assert refused("page-views", "page.viewed", postId="") == "page.viewed: postId: empty; required"
    assert viewed(referrer="").data.model_dump()["referrer"] == ""


@pytest.mark.parametrize(
    ("field", "came", "kept"),
    [
        ("scrollDepth", 100.4, 100.0),
        ("scrollDepth", 101, 100.0),
        ("scrollDepth", 5_000, 100.0),
        ("scrollDepth", -0.3, 0.0),
        ("timeSpent", -1, 0.0),
        ("timeSpent", -1e300, 0.0),
    ],
)
def test_a_measurement_out_of_its_range_is_clamped_and_the_event_says_so(field: str, came: float, kept: float) -> None:
    event = viewed(**{field: came})
    assert event.clamped
    assert event.data == viewed(**{field: kept}).data
    assert not viewed(**{field: kept}).clamped


@pytest.mark.parametrize(
    ("topic", "name", "field", "value"),
    [
        ("performance-samples", "performance.sampled", "statusCode", True),
        ("performance-samples", "performance.sampled", "statusCode", "2_0_0"),
        ("performance-samples", "performance.sampled", "statusCode", 200.5),
        ("performance-samples", "performance.sampled", "statusCode", 1000),
        ("performance-samples", "performance.sampled", "duration", "1_000"),
        ("performance-samples", "performance.sampled", "duration", False),
        ("performance-samples", "performance.sampled", "timings", {"cache": " 5 "}),
        ("page-views", "page.viewed", "interacted", "yes"),
        ("page-views", "page.viewed", "interacted", 1),
        ("page-views", "page.viewed", "scrollDepth", "50"),
        ("page-views", "page.viewed", "userId", 42),
        ("page-views", "page.viewed", "timestamp", True),
        ("page-views", "page.viewed", "timestamp", "1769860800"),
        ("page-views", "page.viewed", "exitedAt", "2026"),
        ("page-views", "page.exited", "timeSpent", "0x10"),
        ("searches", "search.performed", "resultsCount", -1),
        ("searches", "search.performed", "resultsCount", "15"),
        ("searches", "search.performed", "filters", {"tags": "react"}),
        ("domain-events", "media.uploaded", "size", "184_320"),
        ("notifications", "notification.requested", "transactional", "on"),
        ("notifications", "notification.requested", "maxAttempts", "5"),
        ("notifications", "notification.requested", "channels", "email"),
    ],
)
def test_a_value_of_another_type_is_refused(topic: str, name: str, field: str, value: object) -> None:
    assert f"{name}: {field}" in refused(topic, name, **{field: value})


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400 + ".0"])
def test_a_number_that_can_not_be_held_never_becomes_infinity(number: str) -> None:
    message = refused("analytics-events", "analytics.tracked", properties={"n": Raw(number)})
    assert message.startswith("analytics.tracked: properties: should have numbers of up to 1.8e308: it holds one that ")
    assert "duration: should be a finite number" in refused(
        "performance-samples", "performance.sampled", duration=Raw(number)
    )


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_json_has_no_word_for_is_not_json(literal: bytes) -> None:
    value = orjson.dumps({**SAMPLED, "cpuUsage": "@"}).replace(b'"@"', literal)
    assert refusal("performance-samples", value)[0] == "not-json"


def test_of_a_name_that_comes_twice_the_last_value_counts() -> None:
    twice = b'{"sessionId":"first",' + orjson.dumps({**VIEWED, "sessionId": "last", "type": "page.viewed"})[1:]
    assert decode("page-views", twice) == viewed(sessionId="last")


@pytest.mark.parametrize(
    "field", ["source", "medium", "campaign", "url", "userAgent", "ipAddress", "postId", "exitedAt"]
)
def test_a_text_that_is_too_long_is_refused_without_being_repeated(field: str) -> None:
    message = refused("page-views", "page.viewed", **{field: "." * 400_000})
    assert f"{field}: " in message
    assert "came a string of 400000 characters" in message
    assert ".." not in message


@pytest.mark.parametrize(
    "time",
    [
        1_769_860_800,
        1_769_860_800_000,
        1_769_860_800.0,
        "2026-01-31T12:00:00Z",
        "2026-01-31 12:00:00+00:00",
        "2026-01-31T13:30:00.000+01:30",
    ],
)
def test_a_time_is_text_with_a_zone_or_a_number_of_seconds_or_milliseconds(time: object) -> None:
    assert viewed(timestamp=time).time == NOW


def test_an_unknown_type_is_answered_with_the_known_ones() -> None:
    reason, message = refusal("page-views", VIEWED, [("ce_type", b"page.scrolled"), ("ce_id", b"1")])
    assert reason == "unknown-type"
    assert "page.viewed, page.exited" in message


@pytest.mark.parametrize(
    "timestamp",
    [
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-01-31T12:00:00",
        "0001-01-01T00:00:00+14:00",
        "0001-01-10T23:59:59Z",
        "9999-12-21T00:00:01Z",
        1e300,
        {},
    ],
)
def test_an_absurd_time_is_refused(timestamp: object) -> None:
    assert refusal("page-views", {**VIEWED, "type": "page.viewed", "timestamp": timestamp})[0] == "schema"


@pytest.mark.parametrize("timestamp", [datetime(9999, 12, 21, 0, 0, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_an_event_without_a_time_is_refused_where_its_kafka_timestamp_is_absurd(timestamp: datetime) -> None:
    data = {name: value for name, value in SAMPLED.items() if name != "timestamp"}
    with pytest.raises(InvalidEvent, match="Kafka timestamp is no time"):
        decode("performance-samples", data, timestamp=timestamp)


@given(
    value=st.binary(max_size=200),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_specversion", "content-type", "replayed_from", "x"]),
            st.binary(max_size=40) | st.sampled_from([b"page.viewed", b"application/cloudevents+json", b"1.0"]),
        ),
        max_size=6,
    ),
)
def test_no_bytes_raise_anything_but_invalid_event(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    with suppress(InvalidEvent):
        decode("page-views", value, headers)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from([*VIEWED, "timeSpent", "scrollDepth", "exitedAt", "eventId"]), JSON))
def test_no_field_value_raises_anything_but_invalid_event(changes: dict[str, object]) -> None:
    with suppress(InvalidEvent):
        decode("page-views", {**VIEWED, **changes, "type": "page.viewed"})


@pytest.mark.parametrize("headers", [[*BINARY, ("ce_time", b"")], [*BINARY, ("ce_time", None)]])
def test_a_time_that_is_empty_is_absent_as_in_a_payload(headers: Headers) -> None:
    data = {name: value for name, value in LIKED.items() if name != "timestamp"}
    assert decode("domain-events", data, headers).time == NOW
    structured = {"specversion": "1.0", "id": "e-1", "type": "post.liked", "source": "/api", "time": "", "data": data}
    assert decode("domain-events", structured, STRUCTURED).time == NOW
    assert decode("domain-events", {**data, "type": "post.liked", "timestamp": ""}).time == NOW


@pytest.mark.parametrize("body", [LIKED, {**LIKED, "type": "post.liked"}, {**LIKED, "type": 5}])
@pytest.mark.parametrize("headers", [[("ce_id", b"e-1")], [("CE-ID", b"e-1")], [("ce_id", b"e-1"), ("ce_type", None)]])
def test_a_type_that_is_missing_in_binary_mode_is_told_to_be_a_header(body: object, headers: Headers) -> None:
    assert refusal("domain-events", body, headers) == (
        "unknown-type",
        "header ce_type: missing; in binary mode it names the event's type",
    )
