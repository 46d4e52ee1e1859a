"""`inkstream topics`: lists topics and events in the terminal, or writes the page `docs/topics.md`.

Input: `topics.yaml` and the event classes. Output: text. Needs no server.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from faust.cli.base import option
from rich.console import Console
from rich.table import Table

from ops.commands.command import InkstreamCommand, declared_topics
from runtime.settings import ROOT, Settings
from schemas.topics import EventType, Topic, load
from schemas.topics import Topics as DeclaredTopics
from sinks.collections import NAMES

_JSON_TYPES = {
    "string": "string",
    "integer": "whole number",
    "number": "number",
    "boolean": "boolean",
    "object": "object",
    "null": "null",
}


_INTRODUCTION = """\
# Topics and events

<!-- Made by `inkstream topics --markdown > docs/topics.md`; a test fails when it is out of date. -->

What a service can send, and where it goes. An event is a [CloudEvent](https://cloudevents.io) in a Kafka record:

- binary mode: the payload is the record's value, and the attributes are headers: `ce_specversion`, `ce_id`, `ce_type`,
  `ce_source`, `ce_time`;
- structured mode: the header `content-type` is `application/cloudevents+json`, and the value holds both; the payload is
  in `data`, or in `data_base64`. Where no header says so, a value with `specversion`, `id`, `source` and `type` as
  strings, and with `data` or `data_base64`, is read so too;
- without any of these, the value is the payload, with `eventId`, `timestamp` and, where a topic has several types of
  event, `type` among its fields.

The value is JSON in UTF-8, with or without a byte order mark, nested at most 200 deep. Names of headers and media types
are read in any case, and `ce-id` as `ce_id`. CloudEvents' batch mode and its formats for Protobuf, Avro and XML are not
read, nor what a schema registry's serializer writes, nor version 0.3. Events as the CloudEvents SDKs for JavaScript,
Java, Python and Go write them are read, in both modes.

By its id an event that is sent twice is stored once: give each event one of its own (a UUID), and when you send it
again, send the same. An id has at most 256 characters. One with the form of those that Inkstream gives to events
without any, such as `page-views:3:17`, is stored as `id:page-views:3:17`
([why so](decisions/one-space-of-ids.md)). The headers `replayed_from`, `replay_attempt` and `replay_signature` are
Inkstream's: in a producer's record the first two have no effect, and the third makes an event without an id a dead
letter.

The record's key is the value of the field that is named below: events with the same key stay in order. Fields that are
not listed are ignored, except where it says so. What can't be read ends in the topic's dead-letter topic, with a
message that says what to change.

## What a field may hold

Types are JSON's, and nothing is converted without a word: `"5"` and `true` are no numbers, `1` and `"yes"` no booleans,
`42` no id. These are the exceptions, and there are no others:

- **`null` is absence.** An optional field that is `null`, at any depth, has its default, and an item of a list that is
  `null` is left out. The same holds for an empty text where a field may not be empty (an id, such as the `userId` of a
  visitor who is not signed in, a time, a word of a fixed set), and for an object of which all required fields are
  absent (`dateRange: {"from": null, "to": null}`). A required field is missing then. In free content (`properties`,
  `changes`, `metadata`, `context`) a `null` is kept.
- **A measurement out of its range becomes the nearest value within it**, and its document gets `clamped: true`: a page
  that bounces scrolls to 100.4 %, a clock that is set measures -0.3 s. Measurements are the fields of type "number".
  A "whole number" (a count, a position, a status code) out of its range makes a dead letter.
- **A whole number may be written with a point**: `5.0` is 5. `5.5` is none.
- **A time** is text as in RFC 3339 (`2026-01-31T12:00:00Z`, `2026-01-31T12:00:00.123+01:00`), or a number: seconds
  since 1970 up to 20,000,000,000, milliseconds above. Text of digits alone, a date alone, a time without a zone, and a
  leap second (`23:59:60`) are none. Of a fraction the first six digits count.
- **`ipAddress`** is read with or without a port, brackets, a zone and quotes (`81.2.69.160:51344`, `[::1]:443`,
  `fe80::1%eth0`), as Java writes it (`/81.2.69.160:51344`), from a header `Forwarded` (`for="[::1]:443"`), and from a
  list as in `X-Forwarded-For`: the first address counts. One that can't be read is stored as `unknown`; the event is
  not refused for it.

Every text, list and object has a limit, which is named below; what exceeds it makes a dead letter. "Free content" has
at most 10,000 fields and items, 64 levels, and 1,000,000 characters in its texts and names, in all. Its numbers are
kept as they came: one that can't be (`1e999`, a whole number beyond 64 bits) makes a dead letter. `NaN` and `Infinity`
are not JSON, and neither is half of a surrogate pair (`"\\ud83d"`), as it is left of an emoji that was cut. Of a name
that is twice in an object, the last value counts. [Why so](decisions/payloads.md).

## Topics

"""


class Field(NamedTuple):
    """One field of a payload; a field of an object within it has a dot in its name."""

    name: str
    kind: str
    limits: str
    is_required: bool
    default: str
    description: str


class Topics(InkstreamCommand):
    """List topics with their events, keys and collections."""

    options = [  # noqa: RUF012 - as Faust declares them
        option(
            "--markdown",
            is_flag=True,
            help="Print the page docs/topics.md, which describes every event.",
        ),
    ]

    async def run(self, *args: Any, markdown: bool) -> int:
        """Print the topics; return the exit code."""
        console = Console(highlight=False)
        if markdown:
            # The page is about the declarations, not about this environment's settings.
            console.print(page(load(ROOT / "topics.yaml", NAMES)), end="", markup=False, soft_wrap=True)
            return 0
        settings = Settings()
        topics = declared_topics(settings)
        table = Table("topic", "event", "key", "collections", box=None, pad_edge=False)
        for topic in topics.inbound.values():
            for number, event in enumerate(topic.events.values()):
                name = "" if number else settings.namespace + topic.name
                updates = [f"{collection} (updates)" for collection in event.updates]
                table.add_row(name, event.name, event.key, ", ".join([*event.collections, *updates]))
        console.print(table)
        return 0


def page(topics: DeclaredTopics) -> str:
    """Return the page `docs/topics.md`."""
    return "\n".join(_page_lines(topics)) + "\n"


def _page_lines(topics: DeclaredTopics) -> Iterator[str]:
    yield from _INTRODUCTION.splitlines()
    yield from _table_lines(topics.inbound.values())
    yield ""
    yield "Inkstream itself writes these; a service may read them, and writes none:"
    yield ""
    yield from _table_lines(topics.derived.values())
    for topic in topics.all.values():
        yield ""
        yield f"## {topic.name}"
        yield ""
        yield topic.description
        yield ""
        compacted = "; of each key, the latest record stays" if topic.compacted else ""
        yield f"- Kept for {_duration(topic.retention)}, in {topic.partitions} partitions by default{compacted}."
        yield f"- Dead letters: `{topic.dead_letter}`, kept for {_duration(topic.dead_letter_retention)}."
        for event in topic.events.values():
            yield from _event_lines(event)


def _table_lines(topics: Iterable[Topic]) -> Iterator[str]:
    yield "| topic | events | |"
    yield "|---|---|---|"
    for topic in topics:
        yield f"| [{topic.name}](#{topic.name}) | {len(topic.events)} | {topic.description} |"


def _event_lines(event: EventType) -> Iterator[str]:
    yield ""
    yield f"### {event.name}"
    yield ""
    yield from (event.schema.__doc__ or "").strip().replace("\n    ", "\n").splitlines()
    yield ""
    goes_to = f" Goes to {', '.join(f'`{name}`' for name in event.collections)}." if event.collections else ""
    updates = f" Updates {', '.join(f'`{name}`' for name in event.updates)}." if event.updates else ""
    yield f"Key: `{event.key}`.{goes_to}{updates}"
    yield ""
    yield "| field | type | | |"
    yield "|---|---|---|---|"
    for field in fields(event.schema.model_json_schema(by_alias=True)):
        need = "required" if field.is_required else f"default `{field.default}`" if field.default else "optional"
        notes = "; ".join(note for note in (field.description, field.limits) if note)
        yield f"| `{field.name}` | {field.kind} | {need} | {notes} |"
    for example in event.examples:
        yield ""
        yield "```json"
        yield json.dumps(example, indent=2, ensure_ascii=False)
        yield "```"


def fields(schema: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a payload, from its JSON Schema, with those of objects within it."""
    return list(_fields(schema, schema.get("$defs", {}), ""))


def _fields(schema: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, declared in schema.get("properties", {}).items():
        plain = _without_null(_resolved(declared, definitions), definitions)
        default = declared.get("default")
        yield Field(
            prefix + name,
            _kind(plain, definitions),
            _limits(plain),
            name in required,
            "" if default in (None, "", [], {}) else json.dumps(default, ensure_ascii=False),
            declared.get("description") or plain.get("description", "").partition("\n")[0],
        )
        items = _resolved(plain.get("items", {}), definitions)
        yield from _fields(plain, definitions, f"{prefix}{name}.")
        yield from _fields(items, definitions, f"{prefix}{name}[].")


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    target: Mapping[str, Any] = definitions[reference.rpartition("/")[2]]
    return target


def _without_null(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out that a field may be null: it says no more than that it may be left out."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    return _resolved(choices[0], definitions) if len(choices) == 1 else schema


def _kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    schema = _resolved(schema, definitions)
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(choice, definitions) for choice in schema["anyOf"]))
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), definitions)}"
    if schema.get("additionalProperties") is True and "properties" not in schema:
        return "free content"
    return _JSON_TYPES.get(schema.get("type", ""), "anything")


def _limits(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    words = []
    if schema.get("minLength"):
        words.append("not empty")
    if "maxLength" in schema:
        words.append(f"at most {schema['maxLength']} characters")
    if "maxItems" in schema:
        words.append(f"at most {schema['maxItems']} items")
    if least is not None and most is not None and most < 2**53:
        words.append(f"{least} to {most}")
    elif least is not None:
        words.append(f"at least {least}")
    return ", ".join(words)


def _duration(duration: timedelta) -> str:
    if duration % timedelta(days=1):
        return f"{duration // timedelta(hours=1)} hours" if not duration % timedelta(hours=1) else str(duration)
    return f"{duration.days} days"
