"""What holds for every field of every event: null is absence, types are JSON's, and everything has a limit.

All of it goes through the decoder, and follows from the classes themselves: a field is tested when it is declared.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from math import inf
from typing import Any, NamedTuple

import pytest

from schemas.envelope import InvalidEvent
from schemas.event import Event
from schemas.topics import EventType, Topic
from tests.fuzz.edge import EVENTS, Passed, edge
from tests.fuzz.events import Raw, sent

NOON = "2026-01-31T12:00:00Z"
LONG = 400_000
KINDS: Mapping[str, tuple[object, ...]] = {
    "string": (5, True, ["a"], {"a": "b"}),
    "time": (True, "1769860800", "1769860800000", "2026", "2026-01-31", "2026-01-31T12:00:00", "noon", "." * LONG),
    "number": (True, False, "5", "1_000", " 5 ", "0x10", "5.0", "", "NaN", [5], {}, Raw("1e999"), Raw("-1e999")),
    "integer": (True, False, "5", "2_0_0", " 5 ", "0x10", 5.5, 2**70, [5], {}, Raw("1e999"), -1),
    "boolean": ("yes", "on", "true", "1", 1, 0, 1.0, [True], {}),
    "array": ("a", "a,b", 5, {"0": "a"}),
    "object": ("a", 5, True, ["a"], [["a", "b"]]),
}
"""Values that are not of a kind, though some readers would take them for it."""

every_event = pytest.mark.parametrize(("topic", "event"), EVENTS.values(), ids=EVENTS)

Path = tuple[str | int, ...]


class Field(NamedTuple):
    """A field, at any depth of a payload.

    Attributes:
        path: Where it is; of a list, within its first item.
        schema: Its JSON Schema, without null.
        required: Whether the object around it must have it.
    """

    path: Path
    schema: Mapping[str, Any]
    required: bool

    @property
    def kind(self) -> str:
        """What it is: a type of JSON, or `time`."""
        return "time" if self.schema.get("format") == "date-time" else str(self.schema["type"])

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))


@cache
def _json_schema(of: type[Event]) -> dict[str, Any]:
    return of.model_json_schema(by_alias=True)


class Schema:
    """The JSON Schema of an event's class."""

    def __init__(self, event: EventType) -> None:
        self._root = _json_schema(event.schema)

    def fields(self) -> Iterator[Field]:
        """Yield every field, those of nested objects after them."""
        yield from self._fields(self._root, ())

    def payload(self) -> dict[str, Any]:
        """Return a payload that has every field."""
        payload: dict[str, Any] = self._value(self._root)
        return payload

    def at(self, payload: Mapping[str, Any], path: Path) -> Any:
        """Return what a payload has at a path."""
        value: Any = payload
        for name in path:
            value = value[name]
        return value

    def _fields(self, schema: Mapping[str, Any], path: Path) -> Iterator[Field]:
        for name, declared in schema.get("properties", {}).items():
            field = Field((*path, name), self._plain(declared), name in schema.get("required", ()))
            yield field
            yield from self._fields(field.schema, field.path)
            if "items" in field.schema:
                item = Field((*field.path, 0), self._plain(field.schema["items"]), True)
                yield item
                yield from self._fields(item.schema, item.path)

    def _plain(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
        if choices:
            [schema] = choices
        reference = schema.get("$ref")
        return self._root["$defs"][reference.rpartition("/")[2]] if reference else schema

    def _value(self, schema: Mapping[str, Any]) -> Any:
        schema = self._plain(schema)
        if "enum" in schema:
            return schema["enum"][0]
        match schema["type"]:
            case "string":
                return NOON if schema.get("format") == "date-time" else "x"
            case "array":
                return [self._value(schema["items"])]
            case "object":
                return {name: self._value(part) for name, part in schema.get("properties", {}).items()} or {"a": 1}
            case kind:
                return {"integer": 7, "number": 7.5, "boolean": True}[kind]


def with_value(payload: Mapping[str, Any], path: Path, *value: object) -> dict[str, Any]:
    """Return the payload with another value at a path, or with none there."""
    changed: Any = deepcopy(payload)
    *way, name = path
    holder = changed
    for part in way:
        holder = holder[part]
    if value:
        [holder[name]] = value
    else:
        del holder[name]
    made: dict[str, Any] = changed
    return made


def take(topic: Topic, event: EventType, payload: Mapping[str, Any]) -> Passed | InvalidEvent:
    return edge(topic.name).take(sent("binary", event, payload, "event-1", NOON))


def passed(topic: Topic, event: EventType, payload: Mapping[str, Any]) -> Passed:
    taken = take(topic, event, payload)
    assert isinstance(taken, Passed), taken
    return taken


def refusal(topic: Topic, event: EventType, payload: Mapping[str, Any]) -> str:
    taken = take(topic, event, payload)
    assert isinstance(taken, InvalidEvent)
    assert taken.reason == "schema"
    return taken.message


@every_event
def test_an_optional_field_that_is_null_is_absent_at_any_depth(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for payload in (full, *event.examples):
        for field in Schema(event).fields():
            if not field.required and _is_there(payload, field.path):
                absent = passed(topic, event, with_value(payload, field.path))
                assert passed(topic, event, with_value(payload, field.path, None)) == absent, field.name


@every_event
def test_all_optional_fields_may_be_null_at_once(topic: Topic, event: EventType) -> None:
    optional = {str(field.path[0]) for field in Schema(event).fields() if len(field.path) == 1 and not field.required}
    without = {name: value for name, value in Schema(event).payload().items() if name not in optional}
    assert passed(topic, event, without | dict.fromkeys(optional)) == passed(topic, event, without)


@every_event
def test_a_required_field_that_is_null_is_refused_in_these_words(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        if field.required and isinstance(field.path[-1], str):
            assert f"{field.name}: null; required" in refusal(topic, event, with_value(full, field.path, None))
            assert f"{field.name}: missing" in refusal(topic, event, with_value(full, field.path))


@every_event
def test_a_value_of_another_type_is_refused_and_never_becomes_one_of_the_right(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        for value in KINDS[field.kind]:
            message = refusal(topic, event, with_value(full, field.path, value))
            assert field.name in message, (field.name, value)


@every_event
def test_an_item_of_a_list_that_is_null_is_left_out(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        if field.kind == "array":
            [item] = Schema(event).at(full, field.path)
            mixed = passed(topic, event, with_value(full, field.path, [None, item, None, None]))
            assert mixed.event.data == passed(topic, event, full).event.data, field.name


@every_event
def test_an_optional_object_without_its_required_fields_is_absent(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        inside = [other for other in Schema(event).fields() if other.path[:-1] == field.path]
        if field.kind == "object" and not field.required and any(other.required for other in inside):
            without = passed(topic, event, with_value(full, field.path)).event.data
            for nothing in ({}, {other.path[-1]: None for other in inside}, {other.path[-1]: "" for other in inside}):
                assert passed(topic, event, with_value(full, field.path, nothing)).event.data == without, field.name


@every_event
def test_an_object_that_needs_no_field_may_be_empty_in_any_form(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        inside = [other for other in Schema(event).fields() if other.path[:-1] == field.path]
        if field.kind == "object" and inside and not any(other.required for other in inside):
            empty = repr(passed(topic, event, with_value(full, field.path, {})))
            nulls = {other.path[-1]: None for other in inside}
            first = {inside[0].path[-1]: None}
            for nothing in (nulls, first):
                assert repr(passed(topic, event, with_value(full, field.path, nothing))) == empty, field.name


@every_event
def test_an_empty_text_is_absence_where_it_may_not_be_one(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        if field.kind == "time" or "enum" in field.schema:
            emptied = with_value(full, field.path, "")
            if not field.required:
                without = with_value(full, field.path)
                assert repr(passed(topic, event, emptied)) == repr(passed(topic, event, without)), field.name
            elif isinstance(field.path[-1], str):
                assert f"{field.name}: empty; required" in refusal(topic, event, emptied)


@every_event
def test_a_whole_number_may_be_written_with_a_point(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        if field.kind == "integer":
            with_point = passed(topic, event, with_value(full, field.path, 7.0))
            assert repr(with_point) == repr(passed(topic, event, full)), field.name


@every_event
def test_a_measurement_out_of_its_range_becomes_the_nearest_value_and_is_marked(topic: Topic, event: EventType) -> None:
    full = Schema(event).payload()
    assert not passed(topic, event, full).event.clamped
    for field in Schema(event).fields():
        if field.kind == "number":
            assert field.schema["minimum"] == 0
            highest = field.schema.get("maximum", inf)
            for value, nearest in ((-0.3, 0.0), (-50, 0.0), (highest + 0.4, highest), (highest * 50, highest)):
                if value < inf:
                    clamped = passed(topic, event, with_value(full, field.path, value))
                    inside = passed(topic, event, with_value(full, field.path, nearest))
                    assert clamped.event.data == inside.event.data, field.name
                    assert clamped.event.clamped


@every_event
def test_every_text_list_and_object_has_a_limit(topic: Topic, event: EventType) -> None:
    for field in Schema(event).fields():
        match field.kind:
            case "string":
                assert "enum" in field.schema or "maxLength" in field.schema, (
                    f"{field.name}: a text without a limit; use a type of schemas/fields.py, such as Label"
                )
            case "array":
                assert "maxItems" in field.schema, (
                    f"{field.name}: a list without a limit; write Annotated[list[…], Field(max_length=100)]"
                )
            case "object":
                assert "properties" in field.schema or "maxProperties" in field.schema, field.name


@every_event
def test_what_is_longer_than_its_limit_is_refused_with_its_length_and_without_itself(
    topic: Topic, event: EventType
) -> None:
    full = Schema(event).payload()
    for field in Schema(event).fields():
        if field.kind == "string" and "enum" not in field.schema:
            message = refusal(topic, event, with_value(full, field.path, "." * LONG))
            limit = field.schema["maxLength"]
            assert f"{field.name}: string should have at most {limit} characters; came a string of {LONG}" in message
            passed(topic, event, with_value(full, field.path, "." * limit))
        if field.kind == "array":
            items: tuple[object, ...] = ("x", {})
            for item in items:
                message = refusal(topic, event, with_value(full, field.path, [item] * 100_001))
                assert field.name in message
                # Of all those items, the first that is wrong is the last that is looked at.
                assert f"{field.name}.1" not in message


def nested(levels: int, inner: object = 1) -> Any:
    return Raw('{"a":' * (levels - 1) + "{" + f'"a":{inner}' + "}" * levels)


TOO_MUCH: Mapping[str, tuple[object, str]] = {
    "a number that becomes Infinity": ({"n": Raw("1e999")}, "numbers of up to 1.8e308"),
    "a number that becomes -Infinity": ({"n": [{"n": Raw("-1e400")}]}, "numbers of up to 1.8e308"),
    "a fraction of 310 digits": ({"n": Raw("9" * 310 + ".5")}, "numbers of up to 1.8e308"),
    "a whole number of 65 bits": ({"n": 2**63}, "whole numbers of up to 64 bits"),
    "a negative one": ({"n": [[-(2**63) - 1]]}, "whole numbers of up to 64 bits"),
    "a whole number of 310 digits": ({"n": Raw("9" * 310)}, "whole numbers of up to 64 bits"),
    "65 levels": (nested(65), "at most 64 levels"),
    "190 levels": (nested(190), "at most 64 levels"),
    "65 levels of lists": ({"n": Raw("[" * 64 + "]" * 64)}, "at most 64 levels"),
    "too many fields": ({str(number): 0 for number in range(10_001)}, "at most 10000"),
    "too many items": ({"n": [0] * 10_001}, "at most 10,000 fields and items"),
    "too many of both": ({"n": [[{}] * 5_000, [{}] * 5_000]}, "at most 10,000 fields and items"),
    "a long text": ({"n": "." * 1_000_001}, "at most 1,000,000 characters"),
    "many texts": ({"n": ["." * 1_000] * 1_001}, "at most 1,000,000 characters"),
    "a long name": ({"." * 1_000_001: 0}, "at most 1,000,000 characters"),
}
HELD: Mapping[str, object] = {
    "nothing": {},
    "null": {"a": None, "b": [None]},
    "the largest whole numbers": {"a": 2**63 - 1, "b": -(2**63)},
    "the largest numbers": {"a": 1.7976931348623157e308, "b": [-1.7976931348623157e308]},
    "the least number": {"a": 5e-324},
    "63 levels": nested(63),
    "many items": {"a": [0] * 9_990},
    "a long text": {"a": "." * 999_900},
}

FREE = [
    pytest.param(topic, event, field, id=f"{event.name}-{field.name}")
    for topic, event in EVENTS.values()
    for field in Schema(event).fields()
    if field.kind == "object" and field.schema.get("additionalProperties") is True
]
"""Every field that holds whatever its producer likes, alone or beside fields of its own."""

every_free_field = pytest.mark.parametrize(("topic", "event", "field"), FREE)


def with_content(event: EventType, field: Field, content: object) -> dict[str, Any]:
    """Return a payload with this content in a free field; where it has fields of its own, in another beside them."""
    full = Schema(event).payload()
    if "properties" in field.schema:
        return with_value(full, (*field.path, "ofItsOwn"), content)
    return with_value(full, field.path, content)


@every_free_field
def test_free_content_that_no_document_should_hold_is_refused(topic: Topic, event: EventType, field: Field) -> None:
    for kind, (content, words) in TOO_MUCH.items():
        message = refusal(topic, event, with_content(event, field, content))
        assert message.startswith(f"{event.name}: {field.name}: "), kind
        if "properties" not in field.schema or kind != "too many fields":
            assert words in message, kind
        assert ".." not in message


@every_free_field
def test_free_content_is_kept_as_it_came(topic: Topic, event: EventType, field: Field) -> None:
    for content in HELD.values():
        passed(topic, event, with_content(event, field, content))


def test_there_are_fields_of_free_content() -> None:
    assert {param.id for param in FREE} >= {
        "analytics.tracked-properties",
        "analytics.tracked-context",
        "log.written-metadata",
        "log.written-context",
        "audit.recorded-changes",
        "post.deleted-changes",
    }


def _is_there(payload: Any, path: Path) -> bool:
    for name in path:
        if isinstance(payload, dict) and name not in payload:
            return False
        payload = payload[name]
    return True
