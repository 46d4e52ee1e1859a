"""From a Kafka record to a validated event, by the CloudEvents 1.0 Kafka binding or from a plain JSON body.

In come a record's value, headers, timestamp and position; out goes an `Envelope`. A record that is no valid event
raises `InvalidEvent` with what its producer has to change; the same record gives the same answer every time.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, Required

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, SchemaValidator
from typing_extensions import TypedDict

from schemas.event import Envelope, Event, InvalidEvent, Moment
from schemas.topics import EventType, Topic

STRUCTURED = b"application/cloudevents+json"
REPLAYED_FROM = "replayed_from"
"""Header of a replayed record: the position that it first had, `topic:partition:offset`, by which it is known."""
MAX_ID_LENGTH = 256
_MOMENT = TypeAdapter(Moment)
_NO_HEADERS: Mapping[str, bytes | None] = {}


class _WithoutType(TypedDict, total=False):
    eventId: str | None  # as producers send it
    timestamp: Any


class _Plain(_WithoutType, total=False):
    type: str | None


class _Structured(TypedDict, total=False):
    specversion: str | None
    type: str | None
    id: str | None
    time: Any
    data: Required[dict[str, Any]]


_PLAIN_WITHOUT_TYPE = SchemaValidator(TypeAdapter(_WithoutType).core_schema)
_PLAIN = SchemaValidator(TypeAdapter(_Plain).core_schema)
_STRUCTURED = SchemaValidator(TypeAdapter(_Structured).core_schema)


class Record(Protocol):
    """What a decoder needs of a Kafka record.

    Attributes:
        timestamp: Milliseconds since 1970; negative where the record has none.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Attributes(NamedTuple):
    """What CloudEvents says of an event besides its payload; `None` where it says nothing.

    `payload` is the decoded payload, or `None` where that is the record's whole value, still as bytes.
    """

    type: str | None
    id: str | None
    time: object
    payload: dict[str, Any] | None


class Decoder:
    """Decodes the records of one topic.

    Args:
        topic: The topic's declaration.
        ahead_limit: An event dated further than this ahead of its Kafka timestamp gets the Kafka timestamp.
    """

    def __init__(self, topic: Topic, ahead_limit: timedelta) -> None:
        self._events = topic.events
        self._only_event = topic.only_event
        self._ahead_limit_milliseconds = ahead_limit.total_seconds() * 1000

    def decode(self, record: Record) -> Envelope[Event]:
        """Return the event in a record.

        Raises:
            InvalidEvent: The record is no valid event of this topic.
        """
        value = record.value
        if not value:
            raise InvalidEvent("not-json", "the record has no value; expected a JSON object")
        attributes = self._attributes(value, dict(record.headers) if record.headers else _NO_HEADERS)
        event_type = self._event_type(attributes.type)
        validator = event_type.schema.__pydantic_validator__
        try:
            if attributes.payload is None:
                data = validator.validate_json(value)
            else:
                data = validator.validate_python(attributes.payload)
        except ValidationError as error:
            raise _invalid(error, event_type.name) from error
        identity = attributes.id or _position(record)
        if len(identity) > MAX_ID_LENGTH:
            raise InvalidEvent("schema", f"id: should have at most {MAX_ID_LENGTH} characters; came {len(identity)}")
        time, reported_time = self._times(data, attributes.time, record.timestamp)
        return Envelope(identity, event_type, time, reported_time, data)

    def _attributes(self, value: bytes, headers: Mapping[str, bytes | None]) -> Attributes:
        """Read an event's attributes from wherever its form has them."""
        if headers:
            if (headers.get("content-type") or b"").startswith(STRUCTURED):
                return _structured(value)
            if "ce_type" in headers or "ce_id" in headers:
                return _binary(headers)
        # On a topic with a single type, a field `type` is the payload's own.
        body = _read(_PLAIN if self._only_event is None else _PLAIN_WITHOUT_TYPE, value)
        return Attributes(body.get("type"), body.get("eventId"), body.get("timestamp"), None)

    def _event_type(self, name: str | None) -> EventType:
        if name is None:
            if self._only_event is not None:
                return self._only_event
            raise InvalidEvent(
                "unknown-type", "type: missing; name the event's type in the header ce_type or the body's field type"
            )
        event_type = self._events.get(name)
        if event_type is None:
            raise InvalidEvent(
                "unknown-type",
                f"type: {name[:100]!r} is not declared for this topic; expected one of {', '.join(self._events)}",
            )
        return event_type

    def _times(self, data: Event, time: object, kafka_timestamp: int) -> tuple[datetime, datetime | None]:
        """Return the event's time and, where that had to be corrected, the time that it claimed."""
        claimed: datetime | None = getattr(data, "timestamp", None)
        if claimed is None and time is not None:
            claimed = _moment(time)
        if kafka_timestamp < 0:
            if claimed is None:
                raise InvalidEvent("schema", "time: missing, and the record has no Kafka timestamp either")
            return claimed, None
        if claimed is None:
            return _from_milliseconds(kafka_timestamp), None
        if claimed.timestamp() * 1000 - kafka_timestamp > self._ahead_limit_milliseconds:
            return _from_milliseconds(kafka_timestamp), claimed
        return claimed, None


def _binary(headers: Mapping[str, bytes | None]) -> Attributes:
    """Read binary mode: attributes in headers, the value is the payload."""
    _check_version(_header(headers, "ce_specversion"))
    return Attributes(_header(headers, "ce_type"), _header(headers, "ce_id"), _header(headers, "ce_time"), None)


def _structured(value: bytes) -> Attributes:
    """Read structured mode: the value holds attributes and payload."""
    event = _read(_STRUCTURED, value)
    _check_version(event.get("specversion"))
    return Attributes(event.get("type"), event.get("id"), event.get("time"), event["data"])


def _read(body: SchemaValidator, value: bytes) -> dict[str, Any]:
    try:
        read: dict[str, Any] = body.validate_json(value)
    except ValidationError as error:
        raise _invalid(error, "the value") from error
    return read


def _check_version(version: str | None) -> None:
    if version is not None and not version.startswith("1."):
        raise InvalidEvent("schema", "specversion: should be 1.0")


def _position(record: Record) -> str:
    """Return the identity of an event that has none of its own: where it first stood in Kafka."""
    first = _header(dict(record.headers), REPLAYED_FROM)
    return first or f"{record.topic}:{record.partition}:{record.offset}"


def _header(headers: Mapping[str, bytes | None], name: str) -> str | None:
    value = headers.get(name)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent("schema", f"header {name}: should be UTF-8") from error


def _moment(value: object) -> datetime:
    try:
        return _MOMENT.validate_python(value)
    except ValidationError as error:
        raise InvalidEvent("schema", "time: should be a time with a zone, as in 2026-01-31T12:00:00Z") from error


def _from_milliseconds(timestamp: int) -> datetime:
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidEvent("schema", "the record's Kafka timestamp is no time that can be stored") from error


def _invalid(error: ValidationError, subject: str) -> InvalidEvent:
    """Turn a validation error into what a producer's developer can act on, without any value that came."""
    details = error.errors(include_url=False, include_context=False)
    if details[0]["type"] == "json_invalid":
        return InvalidEvent("not-json", "the value is not JSON: " + details[0]["msg"].removeprefix("Invalid JSON: "))
    lines = [_complaint(detail) for detail in details[:5]]
    if len(details) > len(lines):
        lines.append(f"and {len(details) - len(lines)} more")
    return InvalidEvent("schema", f"{subject}: " + "; ".join(lines))


def _complaint(detail: ErrorDetails) -> str:
    path = ".".join(str(part) for part in detail["loc"]) or "the value"
    if detail["type"] == "missing":
        return f"{path}: missing"
    expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{path}: {expected[:1].lower()}{expected[1:]}; came {_kind(detail['input'])}"


def _kind(value: object) -> str:
    """Describe a value without telling it: it may be personal."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
        case _:
            return "an object"
