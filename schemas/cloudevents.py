"""From a Kafka record to a validated event, by the CloudEvents 1.0 Kafka binding or from a plain JSON body.

In come a record's value, headers, timestamp and position; out goes an `Envelope`. A record that is no valid event
raises `InvalidEvent` with what its producer has to change; the same record gives the same answer every time.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from schemas.event import Envelope, Event, InvalidEvent, UtcDatetime
from schemas.topics import EventType, Topic

STRUCTURED = b"application/cloudevents+json"
REPLAYED_FROM = "replayed_from"  # header of a replayed record: its first position, by which it is known
MAX_ID_LENGTH = 256
_moment = TypeAdapter(UtcDatetime).validate_python


class Decoder:
    """Decodes the records of one topic.

    Args:
        topic: The topic's declaration.
        ahead_limit: An event dated further than this ahead of its Kafka timestamp gets the Kafka timestamp.
    """

    def __init__(self, topic: Topic, ahead_limit: timedelta) -> None:
        self._events = topic.events
        self._only_event = topic.only_event
        self._ahead_limit = ahead_limit

    def decode(
        self, value: bytes | None, headers: Sequence[tuple[str, bytes]], kafka_timestamp: int, position: str
    ) -> Envelope[Event]:
        """Return the event in a record.

        Args:
            value: The record's value.
            headers: The record's headers.
            kafka_timestamp: The record's timestamp, in milliseconds since 1970; negative where it has none.
            position: `topic:partition:offset`, the identity of an event that has none of its own.

        Raises:
            InvalidEvent: The record is no valid event of this topic.
        """
        if not value:
            raise InvalidEvent("not-json", "the record has no value; expected a JSON object")
        named = dict(headers)
        attributes: Mapping[str, Any]
        if (named.get("content-type") or b"").startswith(STRUCTURED):
            attributes, body = _structured(value)
        elif "ce_type" in named or "ce_id" in named:
            attributes, body = {name[3:]: text for name, text in headers if name.startswith("ce_")}, None
        else:
            attributes, body = self._plain(value)

        version = _text(attributes, "specversion")
        if version is not None and not version.startswith("1."):
            raise InvalidEvent("schema", "specversion: should be 1.0")
        event_type = self._event_type(_text(attributes, "type"))
        try:
            if body is None:
                data = event_type.schema.__pydantic_validator__.validate_json(value)
            else:
                data = event_type.schema.__pydantic_validator__.validate_python(body)
        except ValidationError as error:
            raise _invalid(error, event_type) from error
        identity = _text(attributes, "id") or _text(named, REPLAYED_FROM) or position
        return self._envelope(event_type, identity, attributes.get("time"), data, kafka_timestamp)

    def _plain(self, value: bytes) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """Take an event's attributes from a body without any of CloudEvents'."""
        body = _json_object(value)
        attributes = {"id": body.get("eventId"), "time": body.get("timestamp")}
        if self._only_event is None:
            attributes["type"] = body.get("type")
        return attributes, body

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

    def _envelope(
        self, event_type: EventType, identity: str, time: object, data: Event, kafka_timestamp: int
    ) -> Envelope[Event]:
        if len(identity) > MAX_ID_LENGTH:
            raise InvalidEvent("schema", f"id: should have at most {MAX_ID_LENGTH} characters; came {len(identity)}")
        moment: datetime | None = getattr(data, "timestamp", None)
        if moment is None:
            moment = _time(time)
        if kafka_timestamp < 0:
            if moment is None:
                raise InvalidEvent("schema", "time: missing, and the record has no Kafka timestamp either")
            return Envelope(identity, event_type, moment, None, data)
        arrived = _from_milliseconds(kafka_timestamp)
        if moment is None:
            return Envelope(identity, event_type, arrived, None, data)
        if moment - arrived > self._ahead_limit:
            return Envelope(identity, event_type, arrived, moment, data)
        return Envelope(identity, event_type, moment, None, data)


def _structured(value: bytes) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Split a structured-mode event into its attributes and its payload."""
    attributes = _json_object(value)
    body = attributes.get("data")
    if not isinstance(body, dict):
        raise InvalidEvent("schema", f"data: should be an object; came {_kind(body)}")
    return attributes, body


def _json_object(value: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent("not-json", f"the value is not JSON: {error.msg} at byte {error.pos}") from error
    if not isinstance(body, dict):
        raise InvalidEvent("schema", f"the value should be a JSON object; came {_kind(body)}")
    return body


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    """Return an attribute as text; from headers it comes as bytes, from a body as JSON."""
    value = attributes.get(name)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InvalidEvent("schema", f"header of {name}: should be UTF-8") from error
    if value is None or isinstance(value, str):
        return value
    raise InvalidEvent("schema", f"{name}: should be a string; came {_kind(value)}")


def _time(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        return _moment(value)
    except ValidationError as error:
        raise InvalidEvent("schema", "time: should be a time with a zone, as in 2026-01-31T12:00:00Z") from error


def _from_milliseconds(timestamp: int) -> datetime:
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidEvent("schema", "the record's Kafka timestamp is no time that can be stored") from error


def _invalid(error: ValidationError, event_type: EventType) -> InvalidEvent:
    """Turn a validation error into what a producer's developer can act on, without any value that came."""
    details = error.errors(include_url=False, include_context=False)
    if details[0]["type"] == "json_invalid":
        return InvalidEvent("not-json", "the value is not JSON: " + details[0]["msg"].removeprefix("Invalid JSON: "))
    lines = [_complaint(detail) for detail in details[:5]]
    if len(details) > len(lines):
        lines.append(f"and {len(details) - len(lines)} more")
    return InvalidEvent("schema", f"{event_type.name}: " + "; ".join(lines))


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
