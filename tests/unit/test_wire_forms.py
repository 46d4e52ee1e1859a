"""The forms that an event may have in Kafka: those that are read, and those whose dead letter says what to send."""

from base64 import b64encode

import orjson
import pytest

from schemas.envelope import Envelope
from schemas.event import Event
from tests.unit.test_cloudevents import BINARY, LIKED, Headers, decode, refusal

LIKE = {"postId": "post-1", "userId": "user-1", "authorId": "author-1"}
ENVELOPE = {"specversion": "1.0", "id": "a", "type": "post.liked", "source": "/x"}
EVENT = {**ENVELOPE, "data": LIKE}
MEDIA_TYPE = b"application/cloudevents+json"
TRACKED = {
    "eventType": "cta_clicked",
    "category": "engagement",
    "entityId": "post-1",
    "entityType": "post",
    "sessionId": "session-1",
    "context": {"page": "/", "userAgent": "Mozilla/5.0"},
}


def base64(value: object) -> str:
    return b64encode(orjson.dumps(value)).decode()


def is_the_like(event: Envelope[Event]) -> bool:
    return (event.id, event.type.name) == ("a", "post.liked") and event.data == event.type.schema.model_validate(LIKE)


# Structured mode --------------------------------------------------------------------------------------------


def test_data_in_base64_is_decoded_and_judged_as_json() -> None:
    event = {**ENVELOPE, "data_base64": base64(LIKE)}
    assert is_the_like(decode("domain-events", event, [("content-type", MEDIA_TYPE)]))
    reason, message = refusal("domain-events", {**ENVELOPE, "data_base64": "eyJwb3N0SWQiOiJwIn0="})
    assert (reason, message) == ("schema", "post.liked: userId: missing")


@pytest.mark.parametrize(
    "datacontenttype", [None, "application/json", "application/vnd.blog+json", "text/json; charset=utf-8"]
)
def test_data_in_base64_is_json_whatever_json_is_called(datacontenttype: str | None) -> None:
    event = {**ENVELOPE, "data_base64": base64(LIKE), "datacontenttype": datacontenttype, "data": None}
    assert is_the_like(decode("domain-events", event, [("content-type", MEDIA_TYPE)]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_base64": "eyJ!"}, "data_base64: should be base64 as in RFC 4648; came a string of 4 characters"),
        ({"data_base64": "eyJwb3N0SWQiOiJwIn0"}, "data_base64: should be base64"),
        ({"data_base64": "é"}, "data_base64: should be base64"),
        ({"data_base64": 7}, "data_base64: should be a string of base64; came a number"),
        ({"data_base64": LIKE}, "data_base64: should be a string of base64; came an object"),
        ({"data_base64": ""}, "data_base64: is empty"),
        ({"data_base64": base64(LIKE), "data": LIKE}, "data_base64: should not be there beside data"),
        ({"data_base64": b64encode(b"hello").decode()}, "what data_base64 stands for is not JSON: expected value"),
        ({"data_base64": b64encode(b"\x1f\x8b\x08").decode()}, "data_base64 stands for is not JSON: it is compressed"),
        (
            {"data_base64": b64encode(b"\x0a\x01a").decode(), "datacontenttype": "application/protobuf"},
            "datacontenttype should be application/json",
        ),
        ({"data": "<a/>", "datacontenttype": "application/xml"}, "datacontenttype: should be application/json"),
        ({"data": orjson.dumps(LIKE).decode()}, "this is JSON within a JSON string: it was encoded twice"),
        ({}, "data: missing; in structured mode it is the payload"),
    ],
)
def test_data_that_is_no_payload_is_refused_with_the_cause(changes: dict[str, object], message: str) -> None:
    assert message in refusal("domain-events", {**ENVELOPE, **changes}, [("content-type", MEDIA_TYPE)])[1]


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE", "content-Type"])
@pytest.mark.parametrize(
    "value",
    [
        MEDIA_TYPE,
        b"Application/CloudEvents+JSON; charset=UTF-8",
        b" APPLICATION/CLOUDEVENTS+JSON ",
        b"application/cloudevents+json;charset=utf-8",
        b"application/cloudevents",
    ],
)
def test_structured_mode_is_named_in_any_case(name: str, value: bytes) -> None:
    assert is_the_like(decode("domain-events", EVENT, [(name, value)]))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", b"application/json")],
        [("Content-Type", b"text/plain")],
        [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        [("content-type", None)],
        # The binding lets structured mode have the headers of binary mode too.
        [("ce_id", b"a"), ("ce_type", b"post.liked"), ("ce_specversion", b"1.0")],
        [("ce_id", b"a"), ("ce_type", b"post.liked"), ("content-type", MEDIA_TYPE)],
        [("ce_id", b"a"), ("ce_type", b"post.liked"), ("content-type", b"application/json")],
    ],
)
def test_structured_mode_is_known_by_its_body_where_no_header_says_so(headers: Headers) -> None:
    assert is_the_like(decode("domain-events", EVENT, headers))
    assert is_the_like(decode("domain-events", {**ENVELOPE, "data_base64": base64(LIKE)}, headers))


def test_structured_mode_is_known_by_its_body_on_a_topic_with_one_type_too() -> None:
    event = decode("analytics-events", {**ENVELOPE, "type": "analytics.tracked", "data": TRACKED})
    assert event.id == "a"


@pytest.mark.parametrize(
    "fields",
    [
        {"specversion": "1.0"},
        {"specversion": "1.0", "id": "x", "type": "y", "source": "newsletter"},
        {"specversion": "1.0", "type": "y", "source": "newsletter", "data": {}},
        {"specversion": "1.0", "id": 7, "type": "y", "source": "newsletter", "data": {}},
        {"specversion": 1.0, "id": "x", "type": "y", "source": "newsletter", "data": {}},
        {"specversion": "draft", "id": "x", "type": "y", "source": "newsletter", "data": {}},
    ],
)
def test_a_payload_with_fields_of_these_names_is_a_payload_still(fields: dict[str, object]) -> None:
    event = decode("analytics-events", {**TRACKED, **fields, "eventId": "mine"})
    assert (event.id, event.type.name) == ("mine", "analytics.tracked")


def test_a_binary_events_payload_that_looks_like_another_event_is_its_payload() -> None:
    body = {**TRACKED, **ENVELOPE, "id": "another", "data": {}}
    headers = [("ce_id", b"mine"), ("ce_type", b"analytics.tracked"), ("ce_specversion", b"1.0")]
    assert decode("analytics-events", body, headers).id == "mine"


@pytest.mark.parametrize(
    ("body", "lacking"),
    [
        ({**EVENT, "source": None}, "which lacks source"),
        ({name: value for name, value in EVENT.items() if name != "id"}, "which lacks id"),
        ({"specversion": "1.0", "type": "post.liked", "data": LIKE}, "which lacks id, source"),
        ({**EVENT, "specversion": 1.0}, "this looks like a CloudEvent in structured mode; name it by the header"),
    ],
)
def test_an_event_that_is_nearly_in_structured_mode_is_told_so(body: dict[str, object], lacking: str) -> None:
    message = refusal("domain-events", body)[1]
    assert lacking in message
    assert "content-type: application/cloudevents+json" in message


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0.3", "specversion: should be 1.0; came 0.3"),
        ("0.2", "specversion: should be 1.0; came 0.2"),
        ("2.0", "specversion: should be 1.0; came 2.0"),
        ("ada@example.org", "specversion: should be 1.0"),
    ],
)
def test_other_versions_of_the_specification_are_named(version: str, message: str) -> None:
    structured = {**EVENT, "specversion": version}
    assert refusal("domain-events", structured, [("content-type", MEDIA_TYPE)]) == ("schema", message)
    headers = [("ce_specversion", version.encode()), *BINARY[1:]]
    assert refusal("domain-events", LIKED, headers) == ("schema", message)


# Formats that are not read ----------------------------------------------------------------------------------

BATCH = "batch mode is not supported; send each event in a record of its own"


@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents-batch+json",
        b"Application/CloudEvents-Batch+JSON; charset=utf-8",
        b"application/cloudevents-batch+protobuf",
    ],
)
@pytest.mark.parametrize("value", [[EVENT], [], [EVENT, EVENT], EVENT, b"\x00\x01", b"[{"])
def test_batch_mode_is_told_to_be_no_mode_of_ours(name: str, content_type: bytes, value: object) -> None:
    reason, message = refusal("domain-events", value, [(name, content_type)])
    assert reason == "schema"
    assert BATCH in message


@pytest.mark.parametrize("headers", [[], BINARY, [("content-type", b"application/json")]])
def test_an_array_of_events_is_told_to_be_batch_mode(headers: Headers) -> None:
    for value in ([EVENT], [EVENT, EVENT], [{**LIKE, "type": "post.liked"}]):
        assert BATCH in refusal("domain-events", value, headers)[1]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+protobuf",
        "application/cloudevents+avro",
        "application/cloudevents+xml",
        "Application/CloudEvents+Avro; charset=binary",
    ],
)
@pytest.mark.parametrize("value", [b"\x0a\x01\x61\x12\x02/x", b"\x00\x00\x00\x00\x01", b"<event/>", EVENT])
def test_other_formats_of_cloudevents_are_told_to_be_sent_as_json(content_type: str, value: object) -> None:
    reason, message = refusal("domain-events", value, [("Content-Type", content_type.encode())])
    assert reason == "not-json"
    assert f"says {content_type.lower().partition(';')[0]}: only application/cloudevents+json is read" in message


@pytest.mark.parametrize("content_type", ["application/avro", "application/x-protobuf", "text/xml", "avro/binary+7"])
def test_a_binary_event_whose_data_is_not_json_is_told_its_content_type(content_type: str) -> None:
    headers = [*BINARY, ("content-type", content_type.encode())]
    message = refusal("domain-events", b"\x0a\x06post-1", headers)[1]
    assert message.endswith(f"the header content-type says {content_type}")


def test_a_binary_event_is_read_where_its_data_is_json_by_another_name() -> None:
    for content_type in (b"text/plain", b"application/octet-stream", b"application/vnd.blog+json", b""):
        assert decode("domain-events", LIKED, [*BINARY, ("content-type", content_type)]).id == "e-1"


def test_a_content_type_that_is_none_is_not_repeated() -> None:
    headers = [*BINARY, ("content-type", b"ada@example.org, " * 1_000)]
    assert "ada@" not in refusal("domain-events", b"\x0a\x06post-1", headers)[1]


# Names of headers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", [str.upper, str.title, lambda name: name.replace("_", "-")])
def test_attributes_are_read_from_headers_in_any_case_and_as_http_names_them(spelt: object) -> None:
    assert callable(spelt)
    headers = [(spelt(name), value) for name, value in BINARY]
    event = decode("domain-events", LIKED, [*headers, (spelt("ce_time"), b"2026-01-31T11:59:00Z")])
    assert (event.id, event.type.name) == ("e-1", "post.liked")
    assert event.time.isoformat() == "2026-01-31T11:59:00+00:00"


def test_of_two_spellings_the_kafka_bindings_own_counts() -> None:
    for headers in ([*BINARY, ("CE-ID", b"other")], [("CE_ID", b"other"), ("Ce-Type", b"post.unliked"), *BINARY]):
        event = decode("domain-events", LIKED, headers)
        assert (event.id, event.type.name) == ("e-1", "post.liked")


def test_a_value_is_what_it_is_as_percent_encoding_is_http_s() -> None:
    assert decode("domain-events", LIKED, [*BINARY, ("ce_id", b"a%20b")]).id == "a%20b"
