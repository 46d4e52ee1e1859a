"""From a Kafka record to a validated event, by the CloudEvents 1.0 Kafka binding or from a plain JSON body.

In come a record's value, headers, timestamp and position; out goes an `Envelope`. A record that is no valid event
raises `InvalidEvent` with what its producer has to change; the same record gives the same answer every time.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from schemas.event import LATEST, Envelope, Event, InvalidEvent, Moment
from schemas.repairs import NO_REPAIRS, Repairs, repair
from schemas.topics import EventType, Topic

STRUCTURED = b"application/cloudevents+json"
REPLAYED_FROM = "replayed_from"
"""Header of a replayed record: the position that it first had, `topic:partition:offset`, by which it is known."""
MAX_ID_LENGTH = 256
_MOMENT = TypeAdapter(Moment)
_LATEST_MILLISECONDS = LATEST.timestamp() * 1000

_Attributes = tuple[str | None, str | None, object, object]
"""What CloudEvents says of an event: type, id and time, each `None` where it says nothing; and the payload."""


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
        if not record.value:
            raise InvalidEvent("not-json", "the record has no value; expected a JSON object")
        value = _json(record.value)
        name, identity, time, payload = self._attributes(value, dict(record.headers) if record.headers else None)
        event_type = self._event_type(name)
        data, repairs = _validated(event_type, payload)
        identity = identity or _position(record)
        if len(identity) > MAX_ID_LENGTH:
            raise InvalidEvent("schema", f"id: should have at most {MAX_ID_LENGTH} characters; came {len(identity)}")
        happened, reported = self._times(data, time, record.timestamp)
        return Envelope(identity, event_type, happened, reported, data, repairs.clamped)

    def _attributes(self, value: object, headers: Mapping[str, bytes | None] | None) -> _Attributes:
        """Read an event's attributes from wherever its form has them."""
        if headers:
            if (headers.get("content-type") or b"").startswith(STRUCTURED):
                return _structured(value)
            if "ce_type" in headers or "ce_id" in headers:
                return _binary(headers, value)
        body = _object(value)
        # On a topic with a single type, a field `type` is the payload's own.
        name = _text(body, "type") if self._only_event is None else None
        return name, _text(body, "eventId"), body.get("timestamp"), body

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
        if claimed is not None:
            # Also because pydantic's zones take ten times as long as Python's own to compute with.
            claimed = claimed.astimezone(UTC)
        if kafka_timestamp < 0:
            if claimed is None:
                raise InvalidEvent("schema", "time: missing, and the record has no Kafka timestamp either")
            return claimed, None
        if claimed is None:
            return _from_milliseconds(kafka_timestamp), None
        if claimed.timestamp() * 1000 - kafka_timestamp > self._ahead_limit_milliseconds:
            return _from_milliseconds(kafka_timestamp), claimed
        return claimed, None


def _binary(headers: Mapping[str, bytes | None], value: object) -> _Attributes:
    """Read binary mode: attributes in headers, the value is the payload."""
    _check_version(_header(headers, "ce_specversion"))
    return _header(headers, "ce_type"), _header(headers, "ce_id"), _header(headers, "ce_time"), value


def _structured(value: object) -> _Attributes:
    """Read structured mode: the value holds attributes and payload."""
    event = _object(value)
    _check_version(_text(event, "specversion"))
    if "data" not in event:
        raise InvalidEvent("schema", "data: missing")
    return _text(event, "type"), _text(event, "id"), event.get("time"), event["data"]


def _json(value: bytes) -> object:
    try:
        read: object = from_json(value, cache_strings="keys", allow_inf_nan=False)  # hardly any value comes twice
    except ValueError as error:
        raise InvalidEvent("not-json", f"the value is not JSON: {error}") from error
    return read


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidEvent("schema", f"the value: should be an object; came {_kind(value)}")
    return value


def _text(body: Mapping[str, object], name: str) -> str | None:
    text = body.get(name)
    if text is None or isinstance(text, str):
        return text
    raise InvalidEvent("schema", f"{name}: should be a valid string; came {_kind(text)}")


def _validated(event_type: EventType, payload: object) -> tuple[Event, Repairs]:
    """Return the event, and what had to be repaired in its payload, which is changed then."""
    validator = event_type.schema.__pydantic_validator__
    repairs = NO_REPAIRS
    try:
        try:
            return validator.validate_python(payload), repairs
        except ValidationError as error:
            repairs = repair(payload, error.errors(include_url=False))
            return validator.validate_python(payload), repairs
    except ValidationError:
        try:
            # Once more, as JSON: then the errors speak of objects and arrays, as its producer does.
            return validator.validate_json(to_json(payload)), repairs
        except ValidationError as error:
            raise _invalid(error, event_type.name, repairs) from error


def _check_version(version: str | None) -> None:
    if version is not None and not version.startswith("1."):
        raise InvalidEvent("schema", "specversion: should be 1.0")


def _position(record: Record) -> str:
    """Return the identity of an event that has none of its own: where it first stood in Kafka."""
    first = _header(dict(record.headers), REPLAYED_FROM) if record.headers else None
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
    if timestamp > _LATEST_MILLISECONDS:
        raise InvalidEvent("schema", "the record's Kafka timestamp is no time that can be stored")
    return datetime.fromtimestamp(timestamp / 1000, UTC)


def _invalid(error: ValidationError, subject: str, repairs: Repairs) -> InvalidEvent:
    """Turn a validation error into what a producer's developer can act on, without any value that came."""
    details = error.errors(include_url=False, include_context=False)
    lines = [_complaint(detail, repairs) for detail in details[:5]]
    if len(details) > len(lines):
        lines.append(f"and {len(details) - len(lines)} more")
    return InvalidEvent("schema", f"{subject}: " + "; ".join(lines))


def _complaint(detail: ErrorDetails, repairs: Repairs) -> str:
    path = ".".join(str(part) for part in detail["loc"]) or "the value"
    if detail["type"] == "missing":
        came_as = repairs.absent.get(detail["loc"])
        return f"{path}: {came_as}; required" if came_as else f"{path}: missing"
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
