"""Reads `topics.yaml`: which topics there are, which events they carry, and where each event goes.

In comes the file, out come topics that are known to be right; a mistake in the file stops the program with the line
that is wrong and, where a name is misspelt, with the nearest right one.
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
from typing import Any, NamedTuple, NoReturn, TypeVar

import yaml
from pydantic import ValidationError

import schemas
from schemas.domain import DomainEvent
from schemas.event import Event

_TOPIC_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_EVENT_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_RETENTION = re.compile(r"([1-9][0-9]{0,3})(m|h|d)")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

# Kafka allows 249 characters; the rest is for a namespace before the name and `.dead-letter` after it.
_LONGEST_NAME = 200
_MOST_PARTITIONS = 1000
_MOST_REPLICAS = 16
_NAMES_SHOWN = 12

_FILE_KEYS = ("defaults", "topics", "derived")
_DEFAULTS_KEYS = ("partitions", "replication", "retention", "deadLetterRetention")
_TOPIC_KEYS = ("description", "key", "partitions", "replication", "retention", "deadLetterRetention", "events")
_EVENT_KEYS = ("class", "key", "collections", "updates", "category", "public", "activity")
_DERIVED_TOPIC_KEYS = (*_TOPIC_KEYS, "compacted")
_DERIVED_EVENT_KEYS = ("class", "key")

QUOTES = '; is the indentation right? A text that contains ": ", " #", { or [ needs double quotes'
"""What to check where a file is not YAML: PyYAML's own words say where it gave up, and not why."""

ValueT = TypeVar("ValueT")


class TopicsError(ValueError):
    """`topics.yaml` is wrong; the message begins with file and line: `topics.yaml:17: unknown class ...`."""


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event, as `topics.yaml` declares it.

    Attributes:
        name: What producers send as CloudEvents `type`: `post.published`.
        schema: The class of the payload.
        key: The payload's field whose value is the record's key in Kafka.
        collections: Where its documents go; empty for an event that Inkstream itself makes, or that updates documents.
        updates: The collections of documents that it changes, where it makes none: an agent of its topic's own does so.
        category: `analyticsEvents.category`; `None` where the event brings its own, or never goes there.
        public: `userActivity.isPublic`: whether the public feed may show it.
        activity: `userActivity.activityType`; `None` where it is the name with `_` for `.`.
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
        """The name as `analyticsEvents.eventType` has it: `post_published`."""
        return self.name.replace(".", "_")

    @property
    def action(self) -> str:
        """What was done: the last part of the name, `published`."""
        return self.name.rpartition(".")[2]

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Payloads as a producer would send them, from the class."""
        return _examples(self.schema)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, without the namespace that a deployment may put before its name.

    A compacted topic keeps the latest record of each key, for as long as its retention says.
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
        """The type of every event here, where there is only one: a record then needs not say its type."""
        return next(iter(self.events.values())) if len(self.events) == 1 else None

    @property
    def collections(self) -> frozenset[str]:
        """The collections that its events go to; none where they update documents."""
        return frozenset(name for event in self.events.values() for name in event.collections)


class Topics(NamedTuple):
    """All topics there are, by name.

    Attributes:
        inbound: What services write.
        derived: What Inkstream itself writes.
    """

    inbound: Mapping[str, Topic]
    derived: Mapping[str, Topic]

    @property
    def all(self) -> dict[str, Topic]:
        """Both, the inbound first."""
        return {**self.inbound, **self.derived}


def load(
    path: Path, collections: Collection[str], *, partitions: int | None = None, replication: int | None = None
) -> Topics:
    """Read and check the declarations of all topics.

    Args:
        path: The file, `topics.yaml`.
        collections: The names of the collections there are.
        partitions: Instead of the file's default.
        replication: Instead of the file's default.

    Raises:
        TopicsError: The file is wrong, or not there.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise TopicsError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TopicsError(f"{path.name}: is not UTF-8: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TopicsError(f"{path.name}:{line}: is not YAML: {error.problem}{QUOTES}") from error
    except yaml.YAMLError as error:
        raise TopicsError(f"{path.name}: is not YAML: {error}") from error
    if root is None:
        raise TopicsError(f"{path.name}:1: is empty")
    return _File(path.name, tuple(collections)).topics(root, partitions, replication)


class _File:
    """Turns the nodes of the file into topics, and remembers what an error message needs."""

    def __init__(self, name: str, collections: tuple[str, ...]) -> None:
        self._name = name
        self._collections = collections
        self._topic_of: dict[str, str] = {}

    def topics(self, root: yaml.Node, partitions: int | None, replication: int | None) -> Topics:
        file = self._mapping(root, _FILE_KEYS, required=("defaults", "topics"))
        defaults = self._mapping(file["defaults"], _DEFAULTS_KEYS, required=_DEFAULTS_KEYS)
        # The defaults are checked even where a setting replaces them.
        fallback: dict[str, Any] = {
            "partitions": self._count(defaults["partitions"], _MOST_PARTITIONS),
            "replication": self._count(defaults["replication"], _MOST_REPLICAS),
            "retention": self._retention(defaults["retention"]),
            "deadLetterRetention": self._retention(defaults["deadLetterRetention"]),
        }
        if partitions is not None:
            fallback["partitions"] = partitions
        if replication is not None:
            fallback["replication"] = replication
        inbound = self._mapping(file["topics"])
        if not inbound:
            self._wrong(file["topics"], "declares no topic")
        derived = self._mapping(file["derived"]) if "derived" in file else {}
        for name in inbound.keys() & derived.keys():
            self._wrong(derived[name], f"topic {name} is already declared among those that services write")
        return Topics(
            {name: self._topic(name, node, fallback, is_derived=False) for name, node in inbound.items()},
            {name: self._topic(name, node, fallback, is_derived=True) for name, node in derived.items()},
        )

    def _topic(self, name: str, node: yaml.Node, fallback: dict[str, Any], *, is_derived: bool) -> Topic:
        if not _TOPIC_NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            self._wrong(node, f"topic {name!r} should be lower-case words joined by hyphens, like page-views")
        keys = _DERIVED_TOPIC_KEYS if is_derived else _TOPIC_KEYS
        fields = self._mapping(node, keys, required=("description", "events"))

        def setting(key: str, read: Callable[[yaml.Node], ValueT]) -> ValueT:
            value: ValueT = read(fields[key]) if key in fields else fallback[key]
            return value

        if not isinstance(fields["events"], yaml.MappingNode) or not fields["events"].value:
            self._wrong(
                fields["events"],
                f"topic {name} has no events: write each as a line below `events:`, without a hyphen, such as "
                "`post.published: {class: posts.PostPublished, collections: [analyticsEvents]}`",
            )
        events = self._mapping(fields["events"])
        event_types = {
            event: self._event_type(name, event, declaration, fields.get("key"), is_derived=is_derived)
            for event, declaration in events.items()
        }
        if len({bool(event_type.updates) for event_type in event_types.values()}) > 1:
            self._wrong(fields["events"], f"topic {name} has one agent, so either all of its events update or none")
        return Topic(
            name=name,
            description=self._text(fields["description"]),
            partitions=setting("partitions", lambda value: self._count(value, _MOST_PARTITIONS)),
            replication=setting("replication", lambda value: self._count(value, _MOST_REPLICAS)),
            retention=setting("retention", self._retention),
            dead_letter_retention=setting("deadLetterRetention", self._retention),
            compacted=self._flag(fields["compacted"]) if "compacted" in fields else False,
            events=MappingProxyType(event_types),
        )

    def _event_type(
        self, topic: str, name: str, node: yaml.Node, topic_key: yaml.Node | None, *, is_derived: bool
    ) -> EventType:
        if not _EVENT_NAME.fullmatch(name):
            self._wrong(node, f"event type {name!r} should be lower-case words joined by dots, like post.published")
        if name in self._topic_of:
            self._wrong(node, f"event type {name} is already declared in topic {self._topic_of[name]}")
        self._topic_of[name] = topic
        fields = self._mapping(node, _DERIVED_EVENT_KEYS if is_derived else _EVENT_KEYS, ["class"])
        if not is_derived and ("collections" in fields) == ("updates" in fields):
            self._wrong(
                node, f"event type {name} needs either collections or updates, such as collections: [pageViews]"
            )
        schema = self._schema(fields["class"])
        key = fields.get("key", topic_key)
        if key is None:
            self._wrong(
                node,
                f"event type {name} has no key, and neither has its topic: add the field of the payload by which "
                "events stay in order, such as key: postId",
            )
        destinations = self._destinations(fields, "collections")
        self._check_relevance(node, name, schema, fields, destinations)
        return EventType(
            name=name,
            schema=schema,
            key=self._key(key, schema),
            collections=destinations,
            category=self._text(fields["category"]) if "category" in fields else None,
            public=self._flag(fields["public"]) if "public" in fields else False,
            activity=self._text(fields["activity"]) if "activity" in fields else None,
            updates=self._destinations(fields, "updates"),
        )

    def _check_relevance(
        self,
        node: yaml.Node,
        name: str,
        schema: type[Event],
        fields: dict[str, yaml.Node],
        destinations: tuple[str, ...],
    ) -> None:
        """Turn away what would have no effect, and ask for what `analyticsEvents` can't do without."""
        for key, collection in (
            ("category", "analyticsEvents"),
            ("public", "userActivity"),
            ("activity", "userActivity"),
        ):
            if key in fields and collection not in destinations:
                self._wrong(fields[key], f"{key} means something in {collection} only, where {name} does not go")
        if "analyticsEvents" in destinations and "category" not in fields and "category" not in schema.model_fields:
            self._wrong(node, f"event type {name} goes to analyticsEvents and needs a category, such as content")

    def _schema(self, node: yaml.Node) -> type[Event]:
        name = self._text(node)
        known = event_classes()
        if name not in known:
            self._wrong(node, f"unknown class {name}{_where_to_declare(name, known)}")
        schema = known[name]
        examples = _examples(schema)
        if not examples:
            self._wrong(
                node,
                f"class {name} has no example in its model_config: add "
                'ConfigDict(json_schema_extra={"examples": [{…}]}) with a payload',
            )
        fields = [field.alias or field_name for field_name, field in schema.model_fields.items()]
        for example in examples:
            for key in example:
                if key not in fields:
                    self._wrong(
                        node,
                        f"the example of class {name} has {key}, which is not a field of the class"
                        f"{_nearest(key, fields)}",
                    )
            try:
                schema.model_validate(example)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                self._wrong(node, f"the example of class {name} is not valid: {field}: {first['msg']}")
        if issubclass(schema, DomainEvent):
            self._check_domain_event(node, name, schema)
        return schema

    def _check_domain_event(self, node: yaml.Node, name: str, schema: type[DomainEvent]) -> None:
        """See that a domain event says what it is about and who does it: the first event would fail without."""
        for attribute, form in (
            ("entity_type", 'entity_type: ClassVar[str] = "post"'),
            ("entity_id_field", 'entity_id_field: ClassVar[str] = "post_id"'),
            ("actor_fields", 'actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)'),
        ):
            if not hasattr(schema, attribute):
                self._wrong(node, f"class {name} is a DomainEvent without {attribute}: add `{form}`")
        if isinstance(schema.actor_fields, str):
            self._wrong(
                node,
                f'class {name}: actor_fields is a string, not a tuple: write ("{schema.actor_fields}",), with a comma',
            )
        entity = schema.entity_id_field
        for field in (entity, *schema.actor_fields, *([schema.title_field] if schema.title_field else [])):
            if field not in schema.model_fields:
                nearest = _nearest(field, schema.model_fields)
                self._wrong(node, f"class {name} names a field {field} that it does not have{nearest}")
        if not schema.model_fields[entity].is_required():
            self._wrong(node, f"class {name}: {entity} says what the event is about, so it has to be required")

    def _key(self, node: yaml.Node, schema: type[Event]) -> str:
        key = self._text(node)
        required = {field.alias: field.is_required() for field in schema.model_fields.values() if field.alias}
        if key not in required:
            self._wrong(node, f"unknown key field {key} of class {schema.__name__}{_nearest(key, required)}")
        if not required[key]:
            self._wrong(
                node,
                f"key field {key} is optional in class {schema.__name__}, and every record needs its key: make the "
                "field required, or name another one",
            )
        return key

    def _destinations(self, fields: Mapping[str, yaml.Node], key: str) -> tuple[str, ...]:
        if key not in fields:
            return ()
        node = fields[key]
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._wrong(node, f"{key} should be a list of at least one collection")
        names = []
        for item in node.value:
            name = self._text(item)
            if name not in self._collections:
                nearest = _nearest(name, self._collections)
                self._wrong(item, f"unknown collection {name}{nearest}; declare a new one in sinks/collections.py")
            if name in names:
                self._wrong(item, f"collection {name} is listed twice")
            names.append(name)
        return tuple(names)

    def _mapping(
        self, node: yaml.Node, known: Collection[str] | None = None, required: Collection[str] = ()
    ) -> dict[str, yaml.Node]:
        """Return the values by key; the keys are free where `known` is `None`."""
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, "a mapping of keys to values was expected here")
        values: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = self._text(key_node)
            if key in values:
                self._wrong(key_node, f"{key} is declared twice")
            if known is not None and key not in known:
                self._wrong(key_node, f"unknown key {key}{_nearest(key, known)}")
            values[key] = value
        for key in required:
            if key not in values:
                self._wrong(node, f"{key} is missing")
        return values

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self._wrong(node, "a text was expected here")
        text: str = node.value.strip()
        return text

    def _count(self, node: yaml.Node, most: int) -> int:
        text = self._text(node)
        if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= most:
            self._wrong(node, f"{text} should be a whole number from 1 to {most}")
        return int(text)

    def _retention(self, node: yaml.Node) -> timedelta:
        text = self._text(node)
        match = _RETENTION.fullmatch(text)
        if not match:
            self._wrong(node, f"{text} should be a retention in minutes, hours or days: 30m, 12h or 7d")
        return int(match[1]) * _UNITS[match[2]]

    def _flag(self, node: yaml.Node) -> bool:
        text = self._text(node)
        if text not in ("true", "false"):
            self._wrong(node, f"{text} should be true or false")
        return text == "true"

    def _wrong(self, node: yaml.Node, problem: str) -> NoReturn:
        raise TopicsError(f"{self._name}:{node.start_mark.line + 1}: {problem}")


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
    """Return what to do about a class that is not known: a spelling to correct, or a file to write."""
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


def listed(names: Collection[str]) -> str:
    """Return names in their order, the first of many only."""
    shown = sorted(names)[:_NAMES_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _nearest(name: str, known: Collection[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there are {listed(known)}"
