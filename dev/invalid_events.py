"""Make invalid events: everything that a producer can do wrong, one kind after another.

Input: a fact as it should have been sent. Output: a record that can't become a document, with the reason that its dead
letter must give. Nothing here depends on chance.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from dev.encoding import Headers, binary, headers_of, plain, structured
from dev.scenarios import Fact
from schemas.topics import Topic


class InvalidEvent(NamedTuple):
    """A record that went wrong.

    Attributes:
        value: What was sent.
        headers: With which headers.
        reason: The class of the reason that its dead letter must give.
    """

    value: bytes | None
    headers: Headers
    reason: str


Spoil = Callable[[Fact, Topic], InvalidEvent | None]
"""Spoils a fact in one way; `None` where that way is not open to it."""

# Where an event has room for fields of the producer's own choosing.
_FREE_FIELDS = {"analytics.tracked": "properties", "log.written": "metadata", "audit.recorded": "changes"}


def _empty(fact: Fact, _: Topic) -> InvalidEvent:
    return InvalidEvent(b"", headers_of(fact), "not-json")


def _null(fact: Fact, _: Topic) -> InvalidEvent:
    return InvalidEvent(None, headers_of(fact), "not-json")


def _prose(fact: Fact, _: Topic) -> InvalidEvent:
    return InvalidEvent(b"It works on my machine.", headers_of(fact), "not-json")


def _truncated(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = binary(fact)
    return InvalidEvent(value[: len(value) // 2], headers, "not-json")


def _truncated_envelope(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = structured(fact)
    return InvalidEvent(value[:-3], headers, "not-json")


def _not_utf8(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = binary(fact)
    return InvalidEvent(value.replace(b'"', b'"caf\xe9', 1), headers, "not-json")


def _half_a_character(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = binary(fact)
    return InvalidEvent(value.replace(b'"', b'"\\ud83d', 1), headers, "not-json")


def _array(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = binary(fact)
    return InvalidEvent(b"[" + value + b"]", headers, "schema")


def _missing_field(fact: Fact, topic: Topic) -> InvalidEvent:
    key = topic.events[fact.type].key
    return _with_data(fact, {name: value for name, value in fact.data.items() if name != key}, "schema")


def _wrong_type(fact: Fact, topic: Topic) -> InvalidEvent:
    return _with_data(fact, {**fact.data, topic.events[fact.type].key: {"is": ["an", "object"]}}, "schema")


def _address_as_number(fact: Fact, _: Topic) -> InvalidEvent | None:
    if "ipAddress" not in fact.data:
        return None
    return _with_data(fact, {**fact.data, "ipAddress": 0x5102_45A0}, "schema")


def _amount_as_text(fact: Fact, _: Topic) -> InvalidEvent | None:
    for field in ("timeSpent", "duration", "executionTime"):
        if field in fact.data:
            return _with_data(fact, {**fact.data, field: "1_000"}, "schema")
    return None


def _unknown_type(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = binary(fact._replace(type="post.exploded"))
    return InvalidEvent(value, headers, "unknown-type")


def _no_type(fact: Fact, topic: Topic) -> InvalidEvent | None:
    if topic.only_event is not None:
        return None
    value, headers = plain(fact, with_type=False)
    return InvalidEvent(value, headers, "unknown-type")


def _endless_id(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = binary(fact._replace(id="0123456789" * 30))
    return InvalidEvent(value, headers, "schema")


def _time_without_zone(fact: Fact, _: Topic) -> InvalidEvent | None:
    if "timestamp" in fact.data:  # which is the event's time then, and not the header
        return None
    value, headers = binary(fact)
    return InvalidEvent(value, _changed(headers, "ce_time", b"2026-01-31 12:00:00"), "schema")


def _old_specification(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = binary(fact)
    return InvalidEvent(value, _changed(headers, "ce_specversion", b"0.3"), "schema")


def _envelope_without_data(fact: Fact, _: Topic) -> InvalidEvent:
    value, headers = structured(fact)
    return InvalidEvent(orjson.dumps({**orjson.loads(value), "data": None}), headers, "schema")


def _null_byte(fact: Fact, _: Topic) -> InvalidEvent | None:
    return _with_free_field(fact, b'{"a\\u0000b": 1}', "refused-by-store")


def _endless_integer(fact: Fact, _: Topic) -> InvalidEvent | None:
    return _with_free_field(fact, b'{"count": 123456789012345678901234567890}', "schema")


INVALID_EVENTS: tuple[Spoil, ...] = (
    _empty,
    _null_byte,
    _unknown_type,
    _truncated,
    _wrong_type,
    _endless_integer,
    _null,
    _missing_field,
    _address_as_number,
    _prose,
    _no_type,
    _not_utf8,
    _time_without_zone,
    _amount_as_text,
    _array,
    _half_a_character,
    _envelope_without_data,
    _endless_id,
    _truncated_envelope,
    _old_specification,
)
"""All kinds of invalid events."""


def _with_data(fact: Fact, data: Mapping[str, Any], reason: str) -> InvalidEvent:
    value, headers = binary(fact._replace(data=data))
    return InvalidEvent(value, headers, reason)


def _with_free_field(fact: Fact, content: bytes, reason: str) -> InvalidEvent | None:
    """Put JSON that MongoDB can't hold where anything is allowed, as text: no encoder would write it."""
    field = _FREE_FIELDS.get(fact.type)
    if field is None:
        return None
    value, headers = binary(fact._replace(data={**fact.data, field: "@"}))
    return InvalidEvent(value.replace(b'"@"', content), headers, reason)


def _changed(headers: Headers, name: str, value: bytes) -> Headers:
    return tuple((header, value if header == name else before) for header, before in headers)
