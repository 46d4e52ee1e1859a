"""Reads `topics.yaml`: the topics, the events that each topic carries, and the destinations of each event.

A mistake in the file stops the program with an error that has the line and, for a misspelt name, the nearest valid one.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

import schemas
from schemas.declarations import Value
from schemas.domain import DomainEvent
from schemas.event import Event
from schemas.nearest import suggestion

_TOPIC_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_EVENT_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")

# Kafka allows 249 characters; the rest is for a namespace before the name and `.dead-letter` after it.
_LONGEST_NAME = 200
_MOST_PARTITIONS = 1000
_MOST_REPLICAS = 16

_FILE_KEYS = ("defaults", "topics", "derived")
_DEFAULTS_KEYS = ("partitions", "replication", "retention", "deadLetterRetention")
_TOPIC_KEYS = ("description", "key", "partitions", "replication", "retention", "deadLetterRetention", "events")
_EVENT_KEYS = ("class", "key", "collections", "updates", "category", "public", "activity")
_DERIVED_TOPIC_KEYS = (*_TOPIC_KEYS, "compacted")
_DERIVED_EVENT_KEYS = ("class", "key")


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event, as `topics.yaml` declares it.

    Attributes:
        name: What producers send as CloudEvents `type`: `post.published`.
        schema: The class of the payload.
        key: The payload's field whose value is the record's key in Kafka.
        collections: Where its documents are stored; empty if Inkstream writes it, or it updates documents.
        category: `analyticsEvents.category`; `None` if the event has its own category or does not go there.
        public: `userActivity.isPublic`: whether the public feed may show it.
        activity: `userActivity.activityType`; `None` to use the name with `_` in place of `.`.
        updates: The collections whose documents it changes, if it creates none; the topic then has an agent of its own.
    """

    name: str
    schema: type[Event]
    key: str
    collections: tuple[str, ...]
    category: str | None
    public: bool
    activity: str | None = None
    updates: tuple[str, ...] = ()

    @property
    def underscored(self) -> str:
        """The value of `analyticsEvents.eventType`: `post_published`."""
        return self.name.replace(".", "_")

    @property
    def action(self) -> str:
        """The last part of the name: `published`."""
        return self.name.rpartition(".")[2]

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Example payloads, from the class."""
        return _examples(self.schema)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, without the namespace that a deployment may put before its name.

    A compacted topic keeps the latest record of each key until its retention ends.
    """

    name: str
    description: str
    partitions: int
    replication: int
    retention: timedelta
    dead_letter_retention: timedelta
    compacted: bool
    events: Mapping[str, EventType]

    @property
    def dead_letter(self) -> str:
        """The topic for records that can't be processed."""
        return f"{self.name}.dead-letter"

    @property
    def only_event(self) -> EventType | None:
        """The topic's event type if it has only one; its records may then omit their type."""
        return next(iter(self.events.values())) if len(self.events) == 1 else None

    @property
    def collections(self) -> frozenset[str]:
        """The collections in which its events are stored; empty if they update documents."""
        return frozenset(name for event in self.events.values() for name in event.collections)


class Topics(NamedTuple):
    """All topics by name.

    Attributes:
        inbound: Topics that services write.
        derived: Topics that Inkstream writes.
    """

    inbound: Mapping[str, Topic]
    derived: Mapping[str, Topic]

    @property
    def all(self) -> dict[str, Topic]:
        """All topics, the inbound ones first."""
        return {**self.inbound, **self.derived}


def load(
    path: Path, collections: Collection[str], *, partitions: int | None = None, replication: int | None = None
) -> Topics:
    """Read and check the declarations of all topics.

    Args:
        path: The file, `topics.yaml`.
        collections: The names of all collections.
        partitions: Instead of the file's default.
        replication: Instead of the file's default.

    Raises:
        DeclarationError: The file is wrong, or missing.
    """
    return _File(collections).topics(Value.read(path), partitions, replication)


class _File:
    """Turns the values of the file into topics."""

    def __init__(self, collections: Collection[str]) -> None:
        self._collections = collections
        self._topic_of: dict[str, str] = {}

    def topics(self, root: Value, partitions: int | None, replication: int | None) -> Topics:
        file = root.fields(_FILE_KEYS, required=("defaults", "topics"))
        declared = file["defaults"].fields(_DEFAULTS_KEYS, required=_DEFAULTS_KEYS)
        # The defaults are checked even where a setting replaces them.
        defaults = _read_settings(declared)
        if partitions is not None:
            defaults["partitions"] = partitions
        if replication is not None:
            defaults["replication"] = replication
        inbound = file["topics"].mapping()
        if not inbound:
            file["topics"].wrong("topics should not be empty")
        derived = file["derived"].mapping() if "derived" in file else {}
        for name in inbound.keys() & derived.keys():
            derived[name].wrong(f"topic {name} is already declared in topics")
        return Topics(
            {name: self._topic(topic, defaults, is_derived=False) for name, topic in inbound.items()},
            {name: self._topic(topic, defaults, is_derived=True) for name, topic in derived.items()},
        )

    def _topic(self, topic: Value, defaults: Mapping[str, Any], *, is_derived: bool) -> Topic:
        name = topic.key
        if not _TOPIC_NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            topic.wrong(f"topic {name!r} should be lower-case words joined by hyphens, like page-views")
        keys = _DERIVED_TOPIC_KEYS if is_derived else _TOPIC_KEYS
        fields = topic.fields(keys, required=("description", "events"))
        if not fields["events"].keys:
            fields["events"].wrong(
                f"topic {name} has no events: write each as a line below `events:`, without a hyphen, such as "
                "`post.published: {class: posts.PostPublished, collections: [analyticsEvents]}`",
            )
        event_types = {
            event: self._event_type(name, declared, fields.get("key"), is_derived=is_derived)
            for event, declared in fields["events"].mapping().items()
        }
        if len({bool(event_type.updates) for event_type in event_types.values()}) > 1:
            fields["events"].wrong(f"topic {name} has one agent, so either all of its events have updates or none has")
        settings = {**defaults, **_read_settings(fields)}
        return Topic(
            name=name,
            description=fields["description"].text(),
            partitions=settings["partitions"],
            replication=settings["replication"],
            retention=settings["retention"],
            dead_letter_retention=settings["deadLetterRetention"],
            compacted=fields["compacted"].flag() if "compacted" in fields else False,
            events=MappingProxyType(event_types),
        )

    def _event_type(self, topic: str, event: Value, topic_key: Value | None, *, is_derived: bool) -> EventType:
        name = event.key
        if not _EVENT_NAME.fullmatch(name):
            event.wrong(f"event type {name!r} should be lower-case words joined by dots, like post.published")
        if name in self._topic_of:
            event.wrong(f"event type {name} is already declared in topic {self._topic_of[name]}")
        self._topic_of[name] = topic
        fields = event.fields(_DERIVED_EVENT_KEYS if is_derived else _EVENT_KEYS, ["class"])
        if not is_derived and ("collections" in fields) == ("updates" in fields):
            event.wrong(f"event type {name} needs either collections or updates, such as collections: [pageViews]")
        schema = _schema(fields["class"])
        key = fields.get("key", topic_key)
        if key is None:
            event.wrong(
                f"event type {name} has no key, and neither has its topic: add the field of the payload by which "
                "events stay in order, such as key: postId",
            )
        collections = self._destinations(fields.get("collections"))
        _check_effect(event, schema, fields, collections)
        return EventType(
            name=name,
            schema=schema,
            key=_key(key, schema),
            collections=collections,
            category=fields["category"].text() if "category" in fields else None,
            public=fields["public"].flag() if "public" in fields else False,
            activity=fields["activity"].text() if "activity" in fields else None,
            updates=self._destinations(fields.get("updates")),
        )

    def _destinations(self, declared: Value | None) -> tuple[str, ...]:
        if declared is None:
            return ()
        items = declared.items(like="[pageViews]")
        for item in items:
            if (name := item.text()) not in self._collections:
                item.wrong(
                    f"unknown collection {name}; {suggestion(name, self._collections)}; declare a new one in "
                    "sinks/collections.py"
                )
        return tuple(item.text() for item in items)


def _read_settings(fields: Mapping[str, Value]) -> dict[str, Any]:
    """Return the settings of a topic, or of all topics, that are declared."""
    read: Mapping[str, Callable[[Value], int | timedelta]] = {
        "partitions": lambda value: value.number(_MOST_PARTITIONS),
        "replication": lambda value: value.number(_MOST_REPLICAS),
        "retention": Value.duration,
        "deadLetterRetention": Value.duration,
    }
    return {key: reads(fields[key]) for key, reads in read.items() if key in fields}


def _check_effect(event: Value, schema: type[Event], fields: Mapping[str, Value], collections: Collection[str]) -> None:
    """Refuse keys that would have no effect, and a missing category."""
    for key, collection in (("category", "analyticsEvents"), ("public", "userActivity"), ("activity", "userActivity")):
        if key in fields and collection not in collections:
            fields[key].wrong(f"{key} has an effect in {collection} only, where {event.key} does not go")
    if "analyticsEvents" in collections and "category" not in fields and "category" not in schema.model_fields:
        event.wrong(f"event type {event.key} goes to analyticsEvents and needs a category, such as content")


def _schema(declared: Value) -> type[Event]:
    name = declared.text()
    known = event_classes()
    if name not in known:
        declared.wrong(f"unknown class {name}{_where_to_declare(name, known)}")
    schema = known[name]
    examples = _examples(schema)
    if not examples:
        declared.wrong(
            f"class {name} has no example in its model_config: add "
            'ConfigDict(json_schema_extra={"examples": [{…}]}) with a payload',
        )
    fields = [field.alias or field_name for field_name, field in schema.model_fields.items()]
    for example in examples:
        for key in example:
            if key not in fields:
                declared.wrong(
                    f"the example of class {name} has {key}, which is not a field of the class; "
                    f"{suggestion(key, fields)}",
                )
        try:
            schema.model_validate(example)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            declared.wrong(f"the example of class {name} is not valid: {field}: {first['msg']}")
    if issubclass(schema, DomainEvent):
        _check_domain_event(declared, name, schema)
    return schema


def _check_domain_event(declared: Value, name: str, schema: type[DomainEvent]) -> None:
    """Check that the class declares its entity and its actor: the first event would fail without."""
    for attribute, form in (
        ("entity_type", 'entity_type: ClassVar[str] = "post"'),
        ("entity_id_field", 'entity_id_field: ClassVar[str] = "post_id"'),
        ("actor_fields", 'actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)'),
    ):
        if not hasattr(schema, attribute):
            declared.wrong(f"class {name} is a DomainEvent without {attribute}: add `{form}`")
    if isinstance(schema.actor_fields, str):
        declared.wrong(
            f'class {name}: actor_fields is a string, not a tuple: write ("{schema.actor_fields}",), with a comma',
        )
    entity = schema.entity_id_field
    for field in (entity, *schema.actor_fields, *([schema.title_field] if schema.title_field else [])):
        if field not in schema.model_fields:
            nearest = suggestion(field, schema.model_fields)
            declared.wrong(f"class {name} names a field {field} that it does not have; {nearest}")
    if not schema.model_fields[entity].is_required():
        declared.wrong(f"class {name}: {entity} identifies the entity, so it has to be required")


def _key(declared: Value, schema: type[Event]) -> str:
    key = declared.text()
    required = {field.alias: field.is_required() for field in schema.model_fields.values() if field.alias}
    if key not in required:
        declared.wrong(f"unknown key field {key} of class {schema.__name__}; {suggestion(key, required)}")
    if not required[key]:
        declared.wrong(
            f"key field {key} is optional in class {schema.__name__}, and every record needs its key: make the "
            "field required, or name another one",
        )
    return key


@cache
def event_classes() -> Mapping[str, type[Event]]:
    """Return every event class under `schemas` by the name that `topics.yaml` uses: `posts.PostPublished`."""
    return MappingProxyType(
        {
            f"{module.name}.{name}": member
            for module in pkgutil.iter_modules(schemas.__path__)
            for name, member in vars(importlib.import_module(f"schemas.{module.name}")).items()
            if inspect.isclass(member)
            and issubclass(member, Event)
            and member.__module__ == f"schemas.{module.name}"
            and member is not Event
        }
    )


def _where_to_declare(name: str, known: Collection[str]) -> str:
    """Return what to do about an unknown class: correct its spelling, or write it."""
    if nearest := get_close_matches(name, known, n=1, cutoff=0.8):
        module, _, class_name = nearest[0].rpartition(".")
        new = name.rpartition(".")[2] if name.startswith(f"{module}.") else ""
        or_else = f" Otherwise add class {new} to schemas/{module}.py" if new and new != class_name else ""
        return f"; did you mean {nearest[0]}?{or_else}"
    module, dot, class_name = name.removeprefix("schemas.").rpartition(".")
    if f"{module}.{class_name}" in known:
        return f"; did you mean {module}.{class_name}?"
    if not dot or not module.isidentifier():
        return ": it should be a module of schemas/ and a class, like posts.PostPublished"
    if any(each.name == module for each in pkgutil.iter_modules(schemas.__path__)):
        return f": schemas/{module}.py has no class {class_name} that is an Event"
    return f": there is no schemas/{module}.py; write it, with class {class_name} in it"


def _examples(schema: type[Event]) -> list[dict[str, Any]]:
    extra = schema.model_config.get("json_schema_extra")
    examples = extra.get("examples", []) if isinstance(extra, dict) else []
    return [example for example in examples if isinstance(example, dict)] if isinstance(examples, list) else []
