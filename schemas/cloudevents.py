"""Decodes Kafka records to validated events, by the CloudEvents 1.0 Kafka binding or from a plain JSON body.

Input: a record's value, headers, timestamp and position. Output: an `Envelope`. A record that is not a valid event
raises `InvalidEvent`, which says what its producer has to change; the same record always has the same result.

Formats: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from schemas import identity, not_json
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import LATEST, Event, Moment
from schemas.identity import ReplaySigner
from schemas.nearest import suggestion
from schemas.repairs import NO_REPAIRS, Repairs, repair
from schemas.topics import EventType, Topic

_STRUCTURED = b"application/cloudevents+json"
_JSON = b"application/json"
_CLOUDEVENTS = "application/cloudevents"
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,60}", re.ASCII)
_VERSION = re.compile(r"[0-9]+\.[0-9]+", re.ASCII)
_NO_BATCH = "batch mode is not supported; send each event in a record of its own"
_LONGEST_NAME = 100
"""How many characters of a producer's name a message contains."""
_MOMENT = TypeAdapter(Moment)
_LATEST_MILLISECONDS = LATEST.timestamp() * 1000

_Headers = Mapping[str, bytes | None]
_Attributes = tuple[str | None, str | None, object, object]
"""The attributes of an event: type, id and time, each `None` if missing; and the payload."""


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
        signer: Verifies a replayed record's original position; without it, the header is ignored.
    """

    def __init__(self, topic: Topic, ahead_limit: timedelta, signer: ReplaySigner | None = None) -> None:
        self._events = topic.events
        self._only_event = topic.only_event
        self._ahead_limit_milliseconds = ahead_limit.total_seconds() * 1000
        self._signer = signer

    def decode(self, record: Record) -> Envelope[Event]:
        """Return the event in a record.

        Raises:
            InvalidEvent: The record is no valid event of this topic.
        """
        headers: _Headers = dict(record.headers) if record.headers else {}
        if not record.value:
            raise _no_value(record.value)
        try:
            value = _json(record.value)
        except InvalidEvent as error:
            raise _not_json(error, headers) from error
        name, own_id, time, payload = self._attributes(value, headers)
        try:
            event_type = self._event_type(name)
            data, repairs = _validated(event_type, payload)
        except InvalidEvent as error:
            raise _with_cause(error, payload) from error
        # Not of what it becomes: of an id with the form of ours that is longer.
        if own_id and len(own_id) > identity.MAX_LENGTH:
            message = f"id: should have at most {identity.MAX_LENGTH} characters; came {len(own_id)}"
            raise InvalidEvent("schema", message)
        event_id = identity.of_producer(own_id) if own_id else self._position(record, headers)
        happened, reported = self._times(data, time, record.timestamp)
        return Envelope(event_id, event_type, happened, reported, data, repairs.clamped)

    def _attributes(self, value: object, headers: _Headers) -> _Attributes:
        """Read an event's attributes from where its form has them."""
        if headers:
            content_type = headers.get("content-type")
            is_json = content_type is None or content_type == _JSON or content_type.startswith(_JSON)
            # Most records need not have the names of their headers read in any case.
            if not is_json or "ce_type" not in headers:
                if content_type is not None and content_type.startswith(_STRUCTURED):
                    return _structured(_object(value))
                headers = _canonical(headers)
                media_type = _media_type(headers)
                if media_type.startswith(_CLOUDEVENTS):
                    _check_format(media_type)
                    return _structured(_object(value))
            if "ce_type" in headers or "ce_id" in headers:
                # The binding lets structured mode have the headers of binary mode as well.
                if isinstance(value, dict) and "specversion" in value and _is_event(value, headers):
                    return _structured(value)
                if headers.get("ce_type") is None and self._only_event is None:
                    message = "header ce_type: missing; in binary mode it names the event's type"
                    raise InvalidEvent("unknown-type", message)
                return _binary(headers, value)
        body = _object(value)
        if "specversion" in body and _is_event(body, headers):
            return _structured(body)
        # On a topic with a single type, a field `type` is the payload's own.
        name = _text(body, "type") if self._only_event is None else None
        return name, _text(body, "eventId"), body.get("timestamp"), body

    def _position(self, record: Record, headers: _Headers) -> str:
        """Return the id of an event that has none of its own: its original position in Kafka."""
        if self._signer is not None and identity.REPLAY_SIGNATURE in headers:
            origin = self._signer.origin(identity.content(record.value, record.headers), headers)
            if origin is None:
                raise InvalidEvent(
                    "schema",
                    f"{identity.REPLAY_SIGNATURE}: was not made with this worker's INKSTREAM_IP_HASH_KEY; "
                    "replay with the same key, or send the event without this header",
                )
            return origin
        return identity.position(record.topic, record.partition, record.offset)

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
                f"type: {name[:_LONGEST_NAME]!r} is not declared for this topic; "
                + suggestion(name, self._events, "docs/topics.md"),
            )
        return event_type

    def _times(self, data: Event, time: object, kafka_timestamp: int) -> tuple[datetime, datetime | None]:
        """Return the event's time and, where that had to be corrected, the time that it claimed."""
        claimed: datetime | None = getattr(data, "timestamp", None)
        # Null and an empty text are absence, as in a payload.
        if claimed is None and time not in (None, ""):
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


def names_of(value: bytes | None, headers: Iterable[tuple[str, bytes | None]], topic: Topic) -> tuple[str, str]:
    """Return the type and the id that a producer gave to an event, valid or not; each empty if it can't be read.

    Args:
        value: The record's value.
        headers: The record's headers as they came to its topic.
        topic: The topic's declaration.
    """
    named = _canonical(dict(headers))
    try:
        read = _json(value or b"")
    except InvalidEvent:
        read = None
    body: Mapping[str, object] = read if isinstance(read, dict) else {}
    is_structured = "specversion" in body or _media_type(named).startswith(_CLOUDEVENTS)
    type_, event_id = (
        (named.get(header) or b"").decode(errors="replace") or (text if isinstance(text, str) else "")
        for header, text in (
            ("ce_type", body.get("type")),
            ("ce_id", body.get("id" if is_structured else "eventId")),
        )
    )
    if topic.only_event is not None and not (is_structured or named.get("ce_type")):
        type_ = topic.only_event.name  # a field `type` is the payload's own
    return type_, event_id


def _no_value(value: bytes | None) -> InvalidEvent:
    what = "the record has no value (a tombstone)" if value is None else "the value is empty"
    return InvalidEvent("not-json", f"{what}; expected a JSON object")


def _not_json(error: InvalidEvent, headers: _Headers) -> InvalidEvent:
    """Return the error of a value that is not JSON, with the format that its headers name."""
    media_type = _media_type(_canonical(headers))
    if media_type.startswith(_CLOUDEVENTS):
        _check_format(media_type)
    if not media_type or media_type.endswith(("/json", "+json")):
        return error
    return InvalidEvent("not-json", f"{error.message}; the header content-type says {media_type}")


def _canonical(headers: _Headers) -> _Headers:
    """Return headers by the names that the Kafka binding gives them.

    Names in capitals come from clients and bridges of other protocols, and so does `ce-`, which is HTTP's.
    """
    named = {}
    for name, value in headers.items():
        lowered = name.lower()
        known = "ce_" + lowered[3:] if lowered.startswith("ce-") else lowered
        if known == name or known not in headers:
            named[known] = value
    return named


def _media_type(headers: _Headers) -> str:
    """Return the media type in lower case, without its parameters; empty if there is none, or it can't be read."""
    text = (headers.get("content-type") or b"").decode(errors="replace").partition(";")[0].strip().lower()
    return text if _MEDIA_TYPE.fullmatch(text) else ""


def _check_format(media_type: str) -> None:
    """Refuse the formats of CloudEvents that are not read.

    Raises:
        InvalidEvent: It is one of these.
    """
    mode = media_type.removeprefix(_CLOUDEVENTS)
    if mode.startswith("-batch"):
        raise InvalidEvent("schema", f"the header content-type says {media_type}: {_NO_BATCH}")
    if mode not in ("", "+json"):
        raise InvalidEvent(
            "not-json", f"the header content-type says {media_type}: only {_CLOUDEVENTS}+json is read; send JSON"
        )


def _is_event(body: Mapping[str, object], headers: _Headers) -> bool:
    """Whether a body is a CloudEvent in structured mode, though no header says so.

    It has all attributes that a CloudEvent must have, and its data; and what headers say of it is the same.
    """
    return (
        ("data" in body or "data_base64" in body)
        and all(isinstance(body.get(name), str) for name in ("id", "source", "type"))
        and isinstance(body["specversion"], str)
        and _VERSION.fullmatch(body["specversion"]) is not None
        and all(_header(headers, f"ce_{name}") in (None, body[name]) for name in ("id", "type"))
    )


def _binary(headers: _Headers, value: object) -> _Attributes:
    """Read binary mode: attributes in headers, the value is the payload."""
    _check_version(_header(headers, "ce_specversion"))
    return _header(headers, "ce_type"), _header(headers, "ce_id"), _header(headers, "ce_time"), value


def _structured(event: Mapping[str, object]) -> _Attributes:
    """Read structured mode: the value holds attributes and payload."""
    _check_version(_text(event, "specversion"))
    return _text(event, "type"), _text(event, "id"), event.get("time"), _data(event)


def _data(event: Mapping[str, object]) -> object:
    """Return the payload of an event in structured mode.

    Raises:
        InvalidEvent: There is none, or it is not JSON.
    """
    encoded = event.get("data_base64")
    if encoded is None:
        if "data" not in event:
            raise InvalidEvent("schema", "data: missing; in structured mode it is the payload")
        data = event["data"]
        if isinstance(data, str) and not _is_json(event.get("datacontenttype")):
            raise InvalidEvent("schema", "datacontenttype: should be application/json; only JSON is read")
        return data
    if event.get("data") is not None:
        raise InvalidEvent("schema", "data_base64: should not be there beside data; came both")
    if not isinstance(encoded, str):
        raise InvalidEvent("schema", f"data_base64: should be a string of base64; came {_kind(encoded)}")
    try:
        decoded = b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidEvent(
            "schema", f"data_base64: should be base64 as in RFC 4648; came {_kind(encoded)} that is none"
        ) from error
    if not decoded:
        raise InvalidEvent("not-json", "data_base64: is empty; expected a JSON object")
    try:
        return _json(decoded, "what data_base64 stands for")
    except InvalidEvent as error:
        if _is_json(event.get("datacontenttype")):
            raise
        raise InvalidEvent(
            "not-json", f"{error.message}; datacontenttype should be application/json, as only JSON is read"
        ) from error


def _is_json(media_type: object) -> bool:
    """Whether a content type of data is JSON's, as it is where it is left out."""
    return media_type is None or "json" in str(media_type).lower()


def _json(value: bytes, what: str = "the value") -> object:
    try:
        read: object = from_json(value, cache_strings="keys", allow_inf_nan=False)  # hardly any value comes twice
    except ValueError as error:
        text, complaint = value.removeprefix(not_json.UTF8_BOM), str(error)
        if 0 < len(text) < len(value):
            # RFC 8259 lets a parser ignore one.
            try:
                read = from_json(text, cache_strings="keys", allow_inf_nan=False)
            except ValueError as other:
                complaint = str(other)
            else:
                return read
        raise InvalidEvent("not-json", f"{what} is not JSON: {not_json.cause(text or value, complaint)}") from error
    return read


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        error = InvalidEvent("schema", f"the value: should be an object; came {_kind(value)}")
        raise _with_cause(error, value)
    return value


def _with_cause(error: InvalidEvent, payload: object) -> InvalidEvent:
    """Return the error with its cause before it, where the payload shows one that the error does not tell."""
    cause = _cause(payload)
    return InvalidEvent(error.reason, f"{cause} ({error.message})") if cause else error


def _cause(payload: object) -> str | None:
    match payload:
        case str():
            return not_json.encoded_again(payload)
        case [dict(), *_]:
            return _NO_BATCH
        case {"specversion": _, **others}:
            missing = [name for name in ("id", "source", "type") if not isinstance(others.get(name), str)]
            lacking = f", which lacks {', '.join(missing)}" if missing else ""
            return (
                f"this looks like a CloudEvent in structured mode{lacking}; name it by the header "
                f"content-type: {_CLOUDEVENTS}+json, and have specversion, id, source, type and data in it"
            )
        case {"schema": _, "payload": _}:
            return "this is what Kafka Connect writes with schemas; set the converter's schemas.enable to false"
        case _:
            return None


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
        try:
            return validator.validate_python(payload), repairs
        except ValidationError as error:
            repairs = repair(payload, error.errors(include_url=False), repairs)
            return validator.validate_python(payload), repairs
    except ValidationError:
        try:
            # Once more, as JSON: then the errors speak of objects and arrays, as its producer does.
            return validator.validate_json(to_json(payload)), repairs
        except ValidationError as error:
            raise _invalid(error, event_type.name, repairs) from error


def _check_version(version: str | None) -> None:
    if version is not None and not version.startswith("1."):
        came = f"; came {version}" if len(version) < 8 and _VERSION.fullmatch(version) else ""
        raise InvalidEvent("schema", f"specversion: should be 1.0{came}")


def _header(headers: _Headers, name: str) -> str | None:
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
    path = ".".join(str(part)[:_LONGEST_NAME] for part in detail["loc"]) or "the value"
    if detail["type"] == "missing":
        came_as = repairs.absent.get(detail["loc"])
        return f"{path}: {came_as}; required" if came_as else f"{path}: missing"
    expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{path}: {expected[:1].lower()}{expected[1:]}; came {_kind(detail['input'])}"


def _kind(value: object) -> str:
    """Describe a value without its content, which may be personal."""
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
