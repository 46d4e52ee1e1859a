"""Reads the rules of `notifications.yaml`, and makes notices of events by them.

Input: a domain event, or a service's request. Output: a notice for each person to notify; the same event always makes
the same notices. A mistake in the file stops the program with an error that has the line and what to write there.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, cast, get_args
from urllib.parse import quote

from jinja2 import TemplateError

from notifications.links import DEVELOPMENT_SITE, ForeignLink
from notifications.notice import ACTORS, SENT_AFTER, Gather, Notice, Recipient, digest, expiry
from notifications.rendering import NAME_LENGTH, TEXT_LENGTH, Sentence, people, phrase
from schemas.declarations import DeclarationError, Value
from schemas.domain import DomainEvent
from schemas.email_address import normalised
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.identity import of_producer, of_request
from schemas.nearest import suggestion
from schemas.notifications import Channel, NotificationRequested, Priority, RelatedEntity
from schemas.topics import EventType

_TYPE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
LONGEST_WINDOW = timedelta(days=7)
"""No notification may expire while others still join it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLE_TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)
_ACTORS = "actors"

_REQUIRED_KEYS = ("event", "tell", "actor", "channels", "priority", "title", "message")
_RULE_KEYS = (*_REQUIRED_KEYS, "action", "about", "gather", "transactional")
_ACTION_KEYS = ("text", "url")
_ABOUT_KEYS = ("type", "id")
_CHANNELS: tuple[Channel, ...] = get_args(Channel)
_PRIORITIES: tuple[Priority, ...] = get_args(Priority)


class _Doer(NamedTuple):
    """Who did it: the attributes of an event that tell of them."""

    id: str
    name: str
    avatar: str


class _Texts(NamedTuple):
    """What a rule says of one event, with `ACTORS` for who did it."""

    title: str
    message: str
    action_url: str | None
    action_text: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One type of notification, as `notifications.yaml` declares it.

    Attributes:
        type: Its name.
        event: The event that it answers.
        channels: How to tell.
        priority: How soon.
        gather: The window's length, where notices are gathered.
        transactional: Whether it passes preferences.
    """

    type: str
    event: EventType
    channels: tuple[Channel, ...]
    priority: Priority
    gather: timedelta | None
    transactional: bool
    _audience: tuple[str, ...]
    _actor: _Doer
    _about: tuple[str, str] | None
    _fields: Mapping[str, str]
    _title: Sentence
    _message: Sentence
    _action_text: Sentence | None
    _action_url: Sentence | None

    @property
    def told(self) -> tuple[str, ...]:
        """The attributes of the event that say whom to tell."""
        return self._audience

    @property
    def actor_field(self) -> str:
        """The attribute of the event that says who did it."""
        return self._actor.id

    def audience(self, data: DomainEvent) -> list[str]:
        """Return whom to tell of an event, each once, without whoever did it."""
        named: dict[str | None, None] = {}
        for attribute in self._audience:
            value: str | Sequence[str] | None = getattr(data, attribute)
            named |= dict.fromkeys([value] if isinstance(value, str) else value or ())
        # An editor who publishes for an author is no actor of the rule, and knows of it all the same.
        for doer in (getattr(data, self._actor.id), data.actor):
            named.pop(doer, None)
        return [user_id for user_id in named if user_id]

    def notices(self, event: Envelope[DomainEvent], audience: Iterable[str]) -> Iterator[Notice]:
        """Yield what to tell each of these people of an event."""
        texts = self.texts(event.data)
        actor_id: str = getattr(event.data, self._actor.id)
        actor_name = phrase(getattr(event.data, self._actor.name) or "", NAME_LENGTH) or None
        about = self._entity(event.data)
        who = people((actor_name,), 1)
        created_at = event.time.astimezone(UTC)
        # Of an event in parts, the notices are those of the first: who is named in two parts is notified once.
        event_id = event.id if event.data.continued is None else of_producer(event.data.continued)
        return (
            Notice(
                id=digest(event_id, user_id, self.type),
                user_id=user_id,
                type=self.type,
                title=texts.title.replace(ACTORS, who),
                message=texts.message.replace(ACTORS, who),
                action_url=texts.action_url,
                action_text=texts.action_text,
                related_entity=about,
                actor_id=actor_id,
                actor_name=actor_name,
                actor_avatar=getattr(event.data, self._actor.avatar),
                channels=self.channels,
                priority=self.priority,
                created_at=created_at,
                expires_at=expiry(created_at),
                gather=self._gathered(user_id, about, created_at, texts),
                transactional=self.transactional,
            )
            for user_id in audience
        )

    def texts(self, data: Event) -> _Texts:
        """Return what to say of an event, with `ACTORS` for who did it.

        Raises:
            TemplateError: A template can't be filled; `load` has tried.
        """
        values = {alias: getattr(data, attribute) for alias, attribute in self._fields.items()}
        words = {alias: "" if value is None else phrase(str(value), TEXT_LENGTH) for alias, value in values.items()}
        words[_ACTORS] = ACTORS
        url = self._url(values)
        return _Texts(
            title=" ".join(self._title.fill(words).split()),
            message=self._message.fill(words),
            action_url=url,
            action_text=self._action_text.fill(words) if self._action_text and url else None,
        )

    def _url(self, values: Mapping[str, object]) -> str | None:
        if self._action_url is None or any(values[alias] in (None, "") for alias in self._action_url.names):
            return None
        # What a slug holds must not become another part of the address.
        return self._action_url.fill({alias: quote(str(value), safe="") for alias, value in values.items()})

    def _entity(self, data: Event) -> RelatedEntity | None:
        if self._about is None:
            return None
        entity_type, attribute = self._about
        return RelatedEntity(id=getattr(data, attribute), type=entity_type)

    def _gathered(self, user_id: str, about: RelatedEntity | None, time: datetime, texts: _Texts) -> Gather | None:
        if self.gather is None:
            return None
        start = _EPOCH + (time - _EPOCH) // self.gather * self.gather
        entity = (about.type, about.id) if about else (None, None)
        group = digest(user_id, self.type, *entity, start.isoformat())
        return Gather(group, start, texts.title, texts.message, min(SENT_AFTER, self.gather))


class Rules:
    """All rules there are, in the order of the file."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._by_type = {rule.type: rule for rule in rules}
        self._by_event: dict[str, list[Rule]] = {}
        for rule in rules:
            self._by_event.setdefault(rule.event.name, []).append(rule)

    @property
    def by_type(self) -> Mapping[str, Rule]:
        """The rules by the type of notification that they make."""
        return self._by_type

    @property
    def events(self) -> Collection[str]:
        """The names of the events that become notifications."""
        return self._by_event.keys()

    def notices(self, event: Envelope[Event]) -> Iterator[Notice]:
        """Yield whom to tell what of an event: nobody twice, and nobody of what they did themselves.

        One after the other, as an event may name a hundred thousand people. A request is told as it asks, also to
        whoever did it: a service may confirm what somebody has done.
        """
        if isinstance(event.data, NotificationRequested):
            yield requested(cast("Envelope[NotificationRequested]", event))
        if not isinstance(event.data, DomainEvent):
            return
        told: set[str] = set()
        for rule in self._by_event.get(event.type.name, ()):
            audience = [user_id for user_id in rule.audience(event.data) if user_id not in told]
            told.update(audience)
            if audience:
                yield from rule.notices(cast("Envelope[DomainEvent]", event), audience)

    def example(self, name: str) -> Notice:
        """Return what the example of a type's event tells the first person it names.

        Raises:
            KeyError: There is no such type; the message names the nearest.
        """
        if name not in self._by_type:
            raise KeyError(f"unknown type {name}; {suggestion(name, self._by_type)}")
        return _example(self._by_type[name])


def load(path: Path, events: Mapping[str, EventType], *, window: timedelta | None = None) -> Rules:
    """Read and check all rules.

    Args:
        path: The file, `notifications.yaml`.
        events: The events that services write, by name, as `topics.yaml` declares them.
        window: Instead of the length in the file, for every rule that gathers.

    Raises:
        DeclarationError: The file is wrong, or missing.
    """
    root = Value.read(path)
    for key, value in root.mapping().items():
        if key != "rules" and "event" in value.keys:
            value.wrong(f"{key} looks like a rule: indent it, so that it stands under `rules:`")
    rules = root.fields(("rules",), required=("rules",))["rules"]
    declared = rules.mapping()
    if not declared:
        rules.wrong("rules should not be empty")
    return Rules([_rule(rule, events, window) for rule in declared.values()])


def _rule(declared: Value, events: Mapping[str, EventType], window: timedelta | None) -> Rule:
    name = declared.key
    if not _TYPE.fullmatch(name):
        declared.wrong(f"type {name!r} should be lower-case words joined by underscores, like comment_reply")
    values = declared.fields(_RULE_KEYS, _REQUIRED_KEYS)
    channels = [channel.one_of(_CHANNELS) for channel in values["channels"].items(like="[inApp, email]")]
    priority = values["priority"].one_of(_PRIORITIES)
    gather = values["gather"].duration(LONGEST_WINDOW) if "gather" in values else None
    event = _event(values["event"], events)
    fields = _Fields(event.schema)
    action, about = values.get("action"), values.get("about")
    action_text = action_url = entity = None
    if action is not None:
        texts = action.fields(_ACTION_KEYS, _ACTION_KEYS, like='{text: See the post, url: "/posts/{{ slug }}"}')
        action_text, action_url = fields.sentence(texts["text"]), fields.sentence(texts["url"])
        if _ACTORS in action_url.names:
            texts["url"].wrong(f"{_ACTORS} can't be part of a URL")
    if about is not None:
        parts = about.fields(_ABOUT_KEYS, _ABOUT_KEYS, like="{type: post, id: postId}")
        entity = (parts["type"].text(), fields.required(parts["id"]))
    rule = Rule(
        type=name,
        event=event,
        channels=cast("tuple[Channel, ...]", tuple(channels)),
        priority=cast("Priority", priority),
        gather=window if window and gather else gather,
        transactional=values["transactional"].flag() if "transactional" in values else False,
        _audience=tuple(fields.optional(field) for field in values["tell"].one_or_more()),
        _actor=fields.actor(values["actor"]),
        _about=entity,
        _title=fields.sentence(values["title"]),
        _message=fields.sentence(values["message"]),
        _action_text=action_text,
        _action_url=action_url,
        _fields=fields.used,
    )
    _try_out(declared, values, rule)
    return rule


def _event(declared: Value, events: Mapping[str, EventType]) -> EventType:
    name = declared.text()
    if name not in events:
        declared.wrong(f"unknown event {name}; {suggestion(name, events)}; topics.yaml declares events")
    event = events[name]
    if not issubclass(event.schema, DomainEvent):
        declared.wrong(
            f"event {name} is not a domain event, so its actor is unknown: make the class "
            f"{event.schema.__name__} a DomainEvent (schemas/domain.py)",
        )
    return event


def _try_out(declared: Value, values: Mapping[str, Value], rule: Rule) -> None:
    """Create a notice from the event's example, and texts from an event with nothing but its required fields."""
    schema = rule.event.schema
    aliases = [schema.model_fields[name].alias or name for name in rule.told]
    try:
        if set(rule.told) == {rule.actor_field}:
            values["tell"].wrong(
                f"{aliases[0]} is the actor, and nobody is notified of their own actions: "
                "name the field with another person's id",
            )
        if not rule.audience(_data_of_example(rule)):
            values["tell"].wrong(
                f"the example of class {schema.__name__} names nobody to notify except the actor: give it a value for "
                f"{' or '.join(aliases)} that is not the actor's",
            )
        if not _is_path(_example(rule).action_url):
            url = values["action"].mapping()["url"]
            url.wrong("url should be a path of the site, like /posts/{{ postSlug }}")
        required = {field.alias for field in schema.model_fields.values() if field.is_required()}
        least = {alias: value for alias, value in rule.event.examples[0].items() if alias in required}
        rule.texts(schema.model_validate(least))
    except DeclarationError:
        raise
    except (TemplateError, TypeError, ValueError) as error:
        declared.wrong(f"its texts can't be written: {error}")


def _is_path(url: str | None) -> bool:
    """Whether a URL is a page of the site, whichever host that has; also where there is no URL."""
    try:
        return url is None or DEVELOPMENT_SITE.stored(url).startswith("/")
    except ForeignLink:
        return False


class _Fields:
    """The fields of an event's class, as a rule names them.

    Attributes:
        used: The attribute of each field that the rule's texts use, by the field's name in the payload.
    """

    def __init__(self, schema: type[Event]) -> None:
        self._schema = schema
        self._attributes = {field.alias or name: name for name, field in schema.model_fields.items()}
        self.used: dict[str, str] = {}

    def optional(self, declared: Value) -> str:
        """Return the attribute of a field."""
        alias = declared.text()
        if alias not in self._attributes:
            nearest = suggestion(alias, self._attributes)
            declared.wrong(f"unknown field {alias} of class {self._schema.__name__}; {nearest}")
        return self._attributes[alias]

    def required(self, declared: Value) -> str:
        """Return the attribute of a field that every event of this class has."""
        attribute = self.optional(declared)
        if not self._schema.model_fields[attribute].is_required():
            declared.wrong(
                f"field {declared.text()} is optional in class {self._schema.__name__}, and every event needs it here: "
                "make it required in the class, or name another field",
            )
        return attribute

    def actor(self, declared: Value) -> _Doer:
        """Return the attributes that describe the actor."""
        attribute, alias = self.required(declared), declared.text()
        stem = alias.removesuffix("Id")
        if stem == alias:
            declared.wrong(f"{alias} should be the field with a person's id, like authorId")
        described = (f"{stem}Name", f"{stem}Avatar")
        if missing := [field for field in described if field not in self._attributes]:
            declared.wrong(
                f"actor {alias} needs {' and '.join(missing)} in class {self._schema.__name__}, for the name and the "
                f"picture of the actor: add {' and '.join(map(_optional_field, missing))}",
            )
        return _Doer(attribute, *(self._attributes[field] for field in described))

    def sentence(self, declared: Value) -> Sentence:
        """Read a template, and note the fields that it uses."""
        try:
            sentence = Sentence(declared.text())
        except TemplateError as error:
            declared.wrong(f"{declared.key} is not a valid Jinja template: {error}")
        for name in sorted(sentence.names - {_ACTORS}):
            if name not in self._attributes:
                nearest = suggestion(name, (_ACTORS, *self._attributes))
                declared.wrong(f"unknown variable {name} for class {self._schema.__name__}; {nearest}")
            self.used[name] = self._attributes[name]
        return sentence


def _optional_field(alias: str) -> str:
    """Return the declaration of a field that is for notifications alone."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", alias).lower()
    kind = "Link" if alias.endswith("Avatar") else "Label"
    return f"`{name}: {kind} | None = Field(None, exclude=True, repr=False)`"


def requested(event: Envelope[NotificationRequested]) -> Notice:
    """Return what a service asks for."""
    request = event.data
    email = normalised(request.email or "") or None
    is_addressed = email is not None or request.devices
    created_at = event.time.astimezone(UTC)
    return Notice(
        id=of_request(event.id),
        user_id=request.user_id,
        type=request.type,
        title=request.title,
        message=request.message,
        action_url=request.action_url,
        action_text=request.action_text,
        related_entity=request.related_entity,
        actor_id=request.actor_id,
        actor_name=request.actor_name,
        actor_avatar=request.actor_avatar,
        channels=tuple(dict.fromkeys(request.channels)),
        priority=request.priority,
        created_at=created_at,
        expires_at=request.expires_at.astimezone(UTC) if request.expires_at else expiry(created_at),
        transactional=request.transactional,
        recipient=Recipient(email, request.devices) if is_addressed else None,
        max_attempts=request.max_attempts,
    )


def _example(rule: Rule) -> Notice:
    event = Envelope("example", rule.event, _EXAMPLE_TIME, None, _data_of_example(rule))
    return next(rule.notices(event, rule.audience(event.data)[:1]))


def _data_of_example(rule: Rule) -> DomainEvent:
    data = rule.event.schema.model_validate(rule.event.examples[0])
    assert isinstance(data, DomainEvent)
    return data
