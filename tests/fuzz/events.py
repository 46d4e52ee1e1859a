"""Unusual and invalid events.

Input: the declarations of a topic. Output: hypothesis' strategies for records: random bytes, JSON that is not an event,
and events of the topic's classes with every field at the limits of its values. All of it follows from the classes, so a
new topic, class or field is covered when it is declared.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from schemas.topics import EventType

T = TypeVar("T")
Headers = tuple[tuple[str, bytes], ...]
"""As a consumer declares them; the values of some are `None` all the same."""

Form = Literal["binary", "structured", "base64", "unnamed", "plain"]
FORMS: tuple[Form, ...] = ("binary", "structured", "base64", "unnamed", "plain")
"""The modes of CloudEvents, structured mode with its data in base64 and without the header that names it, and none."""

NOW = 1_769_860_800_000
"""The Kafka timestamp of most records, in milliseconds."""


@dataclass(slots=True)
class Record:
    """A record as a consumer gives it."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = NOW
    key: bytes | None = None
    topic: str = "fuzzed"
    partition: int = 0
    offset: int = 7


# JSON as text ---------------------------------------------------------------------------------------------


class Raw(NamedTuple):
    """JSON, or nearly, that stands in a body as it is: no encoder would write it."""

    text: str


class Pairs(NamedTuple):
    """An object whose keys may be there twice."""

    pairs: Sequence[tuple[str, Any]]


def written(value: object) -> str:
    """Write a value as JSON."""
    match value:
        case Raw(text):
            return text
        case Pairs(pairs):
            return _object(pairs)
        case Mapping():
            return _object(value.items())
        case list():
            return f"[{','.join(map(written, value))}]"
        case str():
            return _text(value)
        case _:
            return json.dumps(value)


def encoded(value: object) -> bytes:
    """Write a value as JSON in UTF-8; half a surrogate pair becomes a question mark."""
    return written(value).encode(errors="replace")


def _object(pairs: Iterable[tuple[str, Any]]) -> str:
    return "{" + ",".join(f"{_text(name)}:{written(value)}" for name, value in pairs) + "}"


def _text(text: str) -> str:
    # Some encoders escape all that is not ASCII, and others do not; half a pair can be written in the one way alone.
    return json.dumps(text, ensure_ascii=len(text) % 2 == 0 or len(text) < 4)


# Values ---------------------------------------------------------------------------------------------------

_STRINGS = (
    "",
    " ",
    "\0",
    "a\0b",
    "$",
    "$where",
    "$$ROOT",
    ".",
    "a.b",
    "_id",
    "__proto__",
    "null",
    "0",
    "-1",
    "true",
    "\n",
    "\r\nBcc: all@example.org",
    "\x7f\x1b[2J",
    "\ufeff",
    "\ufffe\uffff",
    "\U0010ffff",
    "\u202egnp.exe",
    "\u2067\u2066\u2068",
    "שלום עולם",
    "👩‍👩‍👧‍👦",
    "e" + "\u0301" * 400,
    "ﷺ" * 300,
    "İ" * 256,
    "ß",
    "\u2028",
    "{{ 7 * 7 }}",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "%s%n%00",
    "../../etc/passwd",
    "\ud800",
    "\udfff\ud800",
)
_NAMES = ("a", "b", "before", "after", "_id", "$set", "$$ROOT", "a.b", ".", "", "language", "page", "userAgent")
"""Of fields in objects that may hold anything; more would hide what else is odd about an event."""

_URLS = (
    "https://blog.example/posts/a?utm_source=Newsletter&utm_medium=EMAIL&utm_campaign=%20spring%00",
    "https://www.blog.example/?gclid=1&fbclid=2",
    "https://blog.example/?utm_source=chatgpt.com",
    "https://l.facebook.com./l.php?u=%F0%9F",
    "https://a.b.c.unknown.example/",
    "http://[::1",
    "http://[v1.x]/",
    "http://\u2100.example/",
    "https://exa mple/?utm_source=%ff&utm_medium=&utm_campaign=%00",
    "https://blog.example/?utm_source=" + "a" * 3_000,
    "https://blog.example/?" + "&" * 2_000,
    "https://user:pass@blog.example:99999999/",
    "android-app://com.google.android.gm/",
    "//",
    "javascript:alert(1)",
    "https://" + "a." * 1_000 + "com/",
)
_USER_AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/5.0 (Linux; Android 14; BRAVIA 4K) AppleWebKit/537.36 (KHTML, like Gecko)",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
    "Some program, complaints to ops@example.org",
    "curl/8.5.0",
    "Mozilla/" + "(" * 1_000,
    "Cubot " * 200,
)
_IP_ADDRESSES = (
    "81.2.69.160",
    "::ffff:1.2.3.4",
    "2001:DB8:0::1",
    "::",
    "0.0.0.0",
    "fe80::1%eth0",
    "1.2.3.4:80",
    "[::1]:443",
    "[2001:db8::1]",
    "[::ffff:1.2.3.4%1]:80",
    "1.2.3.4, 5.6.7.8",
    "unknown, 1.2.3.4",
)
_NO_IP_ADDRESSES = (
    "",
    "unknown",
    "fe80::1%",
    "[",
    "[]:1",
    "1.2.3.4:99999999",
    "01.2.3.4",
    "," * 256,
    "1.2.3.4:" * 32,
    "\uff11.\uff12.\uff13.\uff14",
    "1.2.3.4\0",
    "256.1.1.1",
)
_STACKS = (
    "TypeError: x\n    at new A.b [as c] (/app/src/posts/publish.ts:42:17)\n    at async /app/server.ts:1:5",
    "    at t.default (https://cdn.example/assets/index-BxK3_d9a.js?v=3:1:2345)\n    at eval (eval at <anonymous>:1:1)",
    "save@https://blog.example/js/editor.js:10:3\n@https://blog.example/js/editor.js:1:2\nsave@:1",
    "\tat com.example.Posts.publish(Posts.java:42)\n\tat java.lang.Thread.run(Thread.java:833)\n\tat x:1:1)",
    'Traceback\n  File "/run.py", line 3, in run\n  File "/app/site-packages/x.py", line 1\n  File "", line',
    "    at long (/app/src/tree.ts:5:1)\n" * 2_500,
)
_ERRORS = ("ValidationError", "NotFoundException", "Abort", "Error", "E" * 256)
_OF_FIELDS: Mapping[str, tuple[str, ...]] = {
    "url": _URLS,
    "page": _URLS,
    "referrer": _URLS,
    "actionUrl": _URLS,
    "source": (*_URLS, "chatgpt.com", "www.google.com", " "),
    "userAgent": _USER_AGENTS,
    "stack": _STACKS,
    "name": _ERRORS,
}
"""What some fields hold, beside anything: more of the code is reached than by chance."""

_LENGTHS = (1, 2, 255, 256, 257, 320, 321, 1_024, 1_025, 4_096, 8_191, 8_192, 8_193, 10_000, 10_001, 65_537, 70_000)
_LETTERS = ("a", " ", "é", "漢", "👍", "\0", ".", "1", "'", "@", "at x:1\n")

_SOUND_MOMENTS = (
    "2026-01-31T12:00:00Z",
    "2026-01-31t12:00:00.123456789z",
    "2026-01-31 12:00+05:30",
    "2026-01-31T12:00:00-00:00",
    "2026-01-31T12:00:00+23:59",
    "2024-02-29T12:00:00Z",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
    "1900-01-01T00:00:00+00:19",
    "0001-01-11T00:00:00Z",
    "0001-01-11T14:00:00+14:00",
    "9999-12-20T12:00:00-12:00",
    "9999-12-21T00:00:00Z",
)
_MOMENTS = (
    *_SOUND_MOMENTS,
    "2016-12-31T23:59:60Z",
    "2026-01-31T24:00:00Z",
    "2026-02-29T12:00:00Z",
    "2026-01-31T12:00:00+24:00",
    "2026-01-31T12:00:00",
    "2026-01-31",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-12:00",
    "0000-01-01T00:00:00Z",
    "+10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "1769860800",
    "1769860800000",
    "1769860800.5",
    "2026",
    "-62135510400",
    "nan",
    "",
)
_NUMBERS = tuple(
    map(
        Raw,
        (
            "0",
            "-0",
            "-0.0",
            "1e400",
            "-1e400",
            "1e-400",
            "5e-324",
            "1.7976931348623157e308",
            "NaN",
            "Infinity",
            "-Infinity",
            "9007199254740992",
            "9007199254740993",
            "9007199254740992.0",
            "2147483648",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "123456789012345678901234567890",
            "9" * 309,
            "9" * 4_300,
            "9" * 4_301,
            "1769860800",
            "1769860800000",
            "253402300799",
            "253402300800000",
            "-62135596800",
            "100.00000000000001",
            "1.0",
            "01",
            "0x1f",
            "1_000",
        ),
    )
)
_DEPTHS = (20, 99, 100, 170, 174, 176, 177, 178, 179, 180, 181, 190, 198, 199, 200, 201, 1_000, 100_000)


@cache
def strings() -> SearchStrategy[str]:
    """Return texts: any, of any length, and those that have made trouble somewhere."""
    return st.one_of(
        st.sampled_from(_STRINGS),
        st.text(max_size=12),
        st.sampled_from(_URLS + _USER_AGENTS + _IP_ADDRESSES + _NO_IP_ADDRESSES + _MOMENTS),
        st.builds(lambda letter, length: letter * length, st.sampled_from(_LETTERS), st.sampled_from(_LENGTHS)),
        st.builds(lambda word, text: word + text, st.sampled_from(_STRINGS), st.text(max_size=5)),
    )


@cache
def numbers() -> SearchStrategy[Any]:
    """Return numbers, some of them in a form that only some readers know."""
    return st.one_of(st.sampled_from(_NUMBERS), st.integers(), st.floats())


@cache
def texts_of_moments() -> SearchStrategy[str]:
    """Return moments as text, and what looks like one."""
    return st.one_of(
        st.sampled_from(_MOMENTS),
        st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    )


@cache
def sound_moments() -> SearchStrategy[Any]:
    """Return moments that are in order, however odd they look."""
    seconds = st.integers(-62_134_000_000, 253_401_000_000)
    texts = seconds.map(lambda since_1970: datetime.fromtimestamp(since_1970, UTC).isoformat())
    return st.one_of(st.sampled_from(_SOUND_MOMENTS), texts, st.integers(-(10**9), 10**10))


@cache
def moments() -> SearchStrategy[Any]:
    """Return moments, as text and as numbers, and what looks like one."""
    return st.one_of(texts_of_moments(), numbers())


@cache
def nested() -> SearchStrategy[Raw]:
    """Return JSON that is nested deeply: arrays, or objects."""

    def build(depth: int, is_array: bool) -> Raw:
        opening, closing = ("[", "]") if is_array else ('{"a":', "}")
        return Raw(opening * depth + "1" + closing * depth)

    return st.builds(build, st.sampled_from(_DEPTHS), st.booleans())


@cache
def values() -> SearchStrategy[Any]:
    """Return any JSON at all."""
    leaves = st.one_of(st.none(), st.booleans(), numbers(), strings(), nested(), moments())
    return st.recursive(leaves, _containers, max_leaves=6)


@cache
def objects() -> SearchStrategy[Any]:
    """Return objects with anything in them, under any name, perhaps under the same one twice."""
    return _objects_of(values())


def _containers(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=4), _objects_of(inner))


def _objects_of(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    names = st.one_of(st.sampled_from(_NAMES), st.sampled_from(_NAMES), strings())
    pairs = st.lists(st.tuples(names, inner), max_size=4)
    return st.one_of(pairs.map(Pairs), pairs.map(lambda some: Pairs((*some, *some))))


# Payloads -------------------------------------------------------------------------------------------------

ABSENT: Final = object()
"""Stands for a value that is not there."""


@cache
def payloads(event: EventType) -> SearchStrategy[dict[str, Any]]:
    """Return payloads of an event's class: each field as the class wants it, and odd within that."""
    return _Shapes(event).payloads()


@cache
def spoilt(event: EventType) -> SearchStrategy[dict[str, Any]]:
    """Return payloads of an event's class with some fields gone, of another type, or unknown."""
    names = [*event.schema.model_json_schema(by_alias=True)["properties"], "eventId", "type", "data", "_id", "$set", ""]
    changes = st.dictionaries(st.sampled_from(names), st.one_of(st.just(ABSENT), values()), min_size=1, max_size=3)
    return st.one_of(st.builds(_changed, payloads(event), changes), tampered(event.examples))


_LOOKALIKES: Mapping[str, tuple[Any, ...]] = {
    "string": (0, 42, 1.5, True, ["a"], {}),
    "time": (True, "1769860800", "2026", "2026-01-31", "now", [1_769_860_800], "1:" * 200_000),
    "number": (True, False, "5", "1_000", " 5 ", "0x10", "1e3", "\u0665", [5], Raw("1e999"), Raw("-1e999")),
    "integer": (True, "5", "2_0_0", " 5 ", "0x10", "5.0", 5.5, Raw("5e-1"), Raw("1e999"), Raw("1e300"), [5]),
    "boolean": ("yes", "on", "true", "True", "1", 1, 0, 1.0, "", [], [True]),
    "array": ("a", "a,b", "[]", 0, {}, {"0": "a"}),
    "object": ("a", "{}", 0, [], [["a", "b"]]),
}
"""Values that some readers take for one of another type."""


@cache
def coerced(event: EventType) -> SearchStrategy[dict[str, Any]]:
    """Return payloads of an event's class of which one field has a value of another type, that looks like the right."""
    properties = event.schema.model_json_schema(by_alias=True)["properties"].items()
    changes = [(name, value) for name, schema in properties for value in _LOOKALIKES.get(_kind(schema), ())]
    return st.builds(
        lambda payload, change: {**payload, change[0]: change[1]}, payloads(event), st.sampled_from(changes)
    )


def _kind(schema: Mapping[str, Any]) -> str:
    [*others] = (choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null")
    plain = others[0]
    if plain.get("format") == "date-time":
        return "time"
    return "object" if "$ref" in plain else str(plain.get("type"))


def _changed(payload: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return _present({**payload, **changes})


def _present(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if value is not ABSENT}


_Path = tuple[str | int, ...]


def tampered(examples: Iterable[Any], others: SearchStrategy[Any] | None = None) -> SearchStrategy[Any]:
    """Return examples in which up to three values, at any depth, became others or were taken out.

    Args:
        examples: JSON that is sound.
        others: What its values may become; any JSON where it is `None`.
    """
    return st.one_of(*(_tampered(example, values() if others is None else others) for example in examples))


def _tampered(example: Any, others: SearchStrategy[Any]) -> SearchStrategy[Any]:
    paths = list(_paths(example))
    changes = st.dictionaries(st.sampled_from(paths), st.one_of(st.just(ABSENT), others), min_size=1, max_size=3)
    return changes.map(lambda some: _with(example, some, ()))


def _paths(value: Any, path: _Path = ()) -> Iterator[_Path]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield (*path, name)
        yield from _paths(part, (*path, name))


def _with(value: Any, changes: Mapping[_Path, Any], path: _Path) -> Any:
    if path in changes:
        return changes[path]
    if isinstance(value, dict):
        parts = {name: _with(part, changes, (*path, name)) for name, part in value.items()}
        return _present(parts)
    if isinstance(value, list):
        items = [_with(part, changes, (*path, position)) for position, part in enumerate(value)]
        return [item for item in items if item is not ABSENT]
    return value


class _Shapes:
    """Strategies for the parts of a class, from its JSON schema."""

    def __init__(self, event: EventType) -> None:
        self._root = event.schema.model_json_schema(by_alias=True)
        self._definitions = self._root.get("$defs", {})

    def payloads(self) -> SearchStrategy[dict[str, Any]]:
        return self._object(self._root)

    def _object(self, schema: Mapping[str, Any]) -> SearchStrategy[dict[str, Any]]:
        fields = {name: self._field(name, field) for name, field in schema["properties"].items()}
        required = schema.get("required", ())
        nothing = st.sampled_from((ABSENT, None))
        optional = {name: _mostly(field, nothing) for name, field in fields.items() if name not in required}
        return st.fixed_dictionaries({**fields, **optional}).map(_present)

    def _field(self, name: str, schema: Mapping[str, Any]) -> SearchStrategy[Any]:
        if name == "ipAddress":
            sound = st.one_of(st.sampled_from(_IP_ADDRESSES), st.ip_addresses().map(str))
            return _mostly(sound, st.sampled_from(_NO_IP_ADDRESSES))
        if name in _OF_FIELDS:
            return _mostly(st.sampled_from(_OF_FIELDS[name]), self._value(schema))
        return self._value(schema)

    def _value(self, schema: Mapping[str, Any]) -> SearchStrategy[Any]:
        if "$ref" in schema:
            return self._value(self._definitions[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            *others, last = map(self._value, schema["anyOf"])
            return _mostly(st.one_of(*others), last)
        if "enum" in schema or "const" in schema:
            return st.sampled_from(schema.get("enum") or [schema["const"]])
        match schema.get("type"):
            case "string" if schema.get("format") == "date-time":
                return sound_moments()
            case "string":
                return _cut(schema.get("minLength", 0), schema.get("maxLength"))
            case "integer" | "number" as kind:
                return _within(kind, schema.get("minimum"), schema.get("maximum"))
            case "boolean":
                return st.booleans()
            case "array":
                most = min(5, schema.get("maxItems", 5))
                return st.lists(self._value(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
            case "object" if "properties" in schema:
                return self._object(schema)
            case "object":
                return objects()
            case "null":
                return st.none()
            case _:
                return values()


def _mostly(usual: SearchStrategy[Any], other: SearchStrategy[Any]) -> SearchStrategy[Any]:
    # What `usual` is made of would otherwise count one by one.
    return st.one_of(*[usual.map(_itself)] * 3, other.map(_itself))


def _itself(value: T) -> T:
    return value


def _cut(shortest: int, longest: int | None) -> SearchStrategy[str]:
    def cut(text: str) -> str:
        whole = text.encode(errors="ignore").decode()[:longest]
        return whole if len(whole) >= shortest else "x" * shortest

    return strings().map(cut)


def _within(kind: str, least: float | None, most: float | None) -> SearchStrategy[Any]:
    ends = [end for end in (least, most) if end is not None]
    if kind == "integer":
        return st.one_of(
            st.sampled_from([*map(int, ends), 1]),
            st.integers(min_value=None if least is None else int(least), max_value=None if most is None else int(most)),
        )
    return st.one_of(
        st.sampled_from([*ends, 1, Raw("-0.0"), Raw("1e-400")]),
        st.floats(min_value=least, max_value=most, allow_nan=False, allow_infinity=False),
        # Measurements may be out of their range.
        st.floats(allow_nan=False, allow_infinity=False),
    )


# Records --------------------------------------------------------------------------------------------------

_NAMES_OF_HEADERS = (
    "ce_id",
    "ce_type",
    "ce_time",
    "ce_specversion",
    "ce_source",
    "content-type",
    "Content-Type",
    "CE_ID",
    "ce-type",
    "replayed_from",
    "replay_attempt",
    "replay_signature",
    "dl_topic",
    "dl_replayed",
    "traceparent",
    "",
)
_VALUES_OF_HEADERS: tuple[bytes, ...] = (
    None,  # type: ignore[assignment]  # as Kafka has it
    b"",
    b"\xff\xfe",
    b"\0",
    b"1.0",
    b"1.",
    b"0.3",
    b"application/cloudevents+json",
    b"application/cloudevents+json; charset=latin-1",
    b"application/cloudevents-batch+json",
    b"Application/CloudEvents+JSON; charset=UTF-8",
    b"application/cloudevents+protobuf",
    b"application/cloudevents+avro",
    b"application/avro",
    b"application/json",
    b"2026-01-31T12:00:00Z",
    b"0001-01-01T00:00:00+14:00",
    b"domain-events:3:14",
    b"fuzzed:0:7",
    b"9" * 10_000,
)
_WIRE_FORMS: tuple[bytes, ...] = (
    b"",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0\0\xfe\xff",
    b"\0\0\0\0\x05",
    b"\x03\0" + bytes(16),
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"Obj\x01",
    b"{} {",
    b"[{",
    b"{'",
    b"a=",
    b"<",
    b'"{\\"a\\":1}"',
    b"eyJ",
)
"""How values begin that were written by other means than as JSON."""
_TIMESTAMPS = (-(2**63), -2, -1, 0, 1, 253_401_350_400_000, 253_402_300_799_999, 253_402_300_800_000, 2**63 - 1)
_ID_LENGTHS = (1, 36, 255, 256, 257, 10_000)


@cache
def timestamps() -> SearchStrategy[int]:
    """Return Kafka timestamps: mostly of today."""
    return st.one_of(st.just(NOW), st.just(NOW), st.sampled_from(_TIMESTAMPS), st.integers(-(2**63), 2**63 - 1))


@cache
def headers(types: tuple[str, ...]) -> SearchStrategy[Headers]:
    """Return headers that may contradict each other, or be none; some name one of the types."""
    names = st.one_of(st.sampled_from(_NAMES_OF_HEADERS), st.text(max_size=5))
    known = (*_VALUES_OF_HEADERS, *(name.encode() for name in types))
    any_value = st.one_of(st.sampled_from(known), st.binary(max_size=20))
    return st.lists(st.tuples(names, any_value), max_size=5).map(tuple)


@cache
def ids() -> SearchStrategy[str | None]:
    """Return ids: none, empty, odd, of up to 10,000 characters, and such as Inkstream makes up."""
    return _mostly(st.binary(min_size=16, max_size=16).map(bytes.hex), st.one_of(_odd_ids(), imitations()))


@cache
def imitations() -> SearchStrategy[str]:
    """Return ids that a producer takes for its own, and that have the form of those that Inkstream makes up."""
    places = st.builds(
        lambda topic, partition, offset: f"{topic}:{partition}:{offset}",
        st.sampled_from(("fuzzed", "page-views", "staging.searches", "id", "A_b.c-d", "next-year")),
        st.integers(0, 12),
        st.one_of(st.just(7), st.integers(0, 2**63 - 1)),
    )
    digests = st.builds(
        lambda digest, generation: digest.hex() + generation,
        st.binary(min_size=16, max_size=16),
        st.sampled_from(("", "-1", "-2", "-x", "-")),
    )
    return st.builds(lambda times, name: "id:" * times + name, st.integers(0, 2), st.one_of(places, digests))


def _odd_ids() -> SearchStrategy[str | None]:
    return st.one_of(
        strings().map(lambda text: text.encode(errors="ignore").decode()[:256]),
        st.builds(lambda letter, length: letter * length, st.sampled_from(_LETTERS), st.sampled_from(_ID_LENGTHS)),
        st.none(),
    )


def sent(form: Form, event: EventType, payload: Mapping[str, Any], id: str | None, time: object) -> Record:  # noqa: A002
    """Return a record that holds an event in one of the forms.

    Args:
        form: How.
        event: Its type.
        payload: Its payload.
        id: Its id, where it has one.
        time: When it happened; `ABSENT` where it does not say.
    """
    match form:
        case "binary":
            attributes = {"ce_specversion": "1.0", "ce_type": event.name, "ce_source": "/fuzz"}
            attributes |= {} if id is None else {"ce_id": id}
            attributes |= {"ce_time": time} if isinstance(time, str) else {}
            named = tuple((name, value.encode(errors="replace")) for name, value in attributes.items())
            return Record(encoded(payload), named)
        case "structured" | "base64" | "unnamed":
            in_base64 = {"data_base64": b64encode(encoded(payload)).decode()}
            body: dict[str, Any] = {"specversion": "1.0", "type": event.name, "source": "/fuzz"}
            body |= in_base64 if form == "base64" else {"data": payload}
            body |= {} if id is None else {"id": id}
            body |= {} if time is ABSENT else {"time": time}
            # Without an id a body does not tell by itself that it is a CloudEvent.
            is_named = form != "unnamed" or id is None
            return Record(encoded(body), (("content-type", b"application/cloudevents+json"),) if is_named else ())
        case "plain":
            body = dict(payload)
            body |= {} if "type" in payload else {"type": event.name}
            body |= {} if id is None else {"eventId": id}
            body |= {} if time is ABSENT or payload.get("timestamp") is not None else {"timestamp": time}
            return Record(encoded(body))


@cache
def noise(types: tuple[str, ...]) -> SearchStrategy[Record]:
    """Return records of bytes that are nothing, for a topic with events of these types."""
    return st.builds(
        Record,
        value=st.one_of(
            st.none(),
            st.builds(lambda beginning, rest: beginning + rest, st.sampled_from(_WIRE_FORMS), st.binary(max_size=64)),
        ),
        headers=headers(types),
        timestamp=timestamps(),
        key=st.one_of(st.none(), st.binary(max_size=8)),
    )


@cache
def json_records(types: tuple[str, ...]) -> SearchStrategy[Record]:
    """Return records of JSON that is no event, but may look like one of these types."""
    bodies = st.one_of(
        values(),
        objects(),
        st.fixed_dictionaries(
            {},
            optional={
                "specversion": st.one_of(st.just("1.0"), values()),
                "type": st.one_of(st.sampled_from(types), values()),
                "source": st.one_of(st.just("/fuzz"), values()),
                "id": st.one_of(imitations(), values()),
                "eventId": st.one_of(imitations(), values()),
                "datacontenttype": st.one_of(st.just("application/json"), values()),
                "time": st.one_of(moments(), values()),
                "timestamp": st.one_of(moments(), values()),
                "data": values(),
                "data_base64": values(),
            },
        ),
    )
    return st.builds(
        lambda body, some, timestamp: Record(encoded(body), some, timestamp),
        bodies,
        headers(types),
        timestamps(),
    )


@cache
def events(event: EventType) -> SearchStrategy[Record]:
    """Return records with odd events of one type, all of whose fields are as its class wants them."""
    return _records(event, payloads(event), sound_moments(), extra=st.just(()))


@cache
def spoilt_events(event: EventType) -> SearchStrategy[Record]:
    """Return records with events of one type that went wrong somewhere, also in their headers."""
    return _records(event, spoilt(event), moments(), extra=st.one_of(st.just(()), headers((event.name,))))


def _records(
    event: EventType,
    bodies: SearchStrategy[dict[str, Any]],
    times: SearchStrategy[Any],
    extra: SearchStrategy[Headers],
) -> SearchStrategy[Record]:
    def build(
        form: Form, payload: dict[str, Any], identity: str | None, time: object, timestamp: int, more: Headers
    ) -> Record:
        record = sent(form, event, payload, identity, time)
        return replace(record, headers=(*record.headers, *more), timestamp=timestamp)

    some_time = st.one_of(st.just(ABSENT), times)
    return st.builds(build, st.sampled_from(FORMS), bodies, ids(), some_time, timestamps(), extra)
