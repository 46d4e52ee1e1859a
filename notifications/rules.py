"""Whom to tell what: reads `notifications.yaml`, and makes notices of events by it.

In comes a domain event or a service's request, out go notices, one for each person to tell. The same event makes the
same notices every time. A mistake in the file stops the program with the line that is wrong and what to write there.
"""

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn, cast
from urllib.parse import quote

import yaml
from jinja2 import TemplateError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError
from pydantic_core import ErrorDetails

from notifications.links import DEVELOPMENT_SITE, ForeignLink
from notifications.notice import ACTORS, SENT_AFTER, Gather, Notice, Recipient, digest, expiry
from notifications.rendering import NAME_LENGTH, TEXT_LENGTH, Sentence, people, phrase
from schemas.domain import DomainEvent
from schemas.email_address import normalised
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.identity import of_producer, of_request
from schemas.notifications import Channel, NotificationRequested, Priority, RelatedEntity
from schemas.topics import QUOTES, EventType, listed

_TYPE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_WINDOW = re.compile(r"([1-9][0-9]{0,3})(m|h|d)")
LONGEST_WINDOW = timedelta(days=7)
"""No notification may expire while others still join it."""
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLE_TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)
_ACTORS = "actors"


class RulesError(ValueError):
    """`notifications.yaml` is wrong; the message begins with file and line: `notifications.yaml:31: unknown ...`."""


def _window(value: object) -> timedelta:
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("should be a time in minutes, hours or days: 30m, 12h or 1d")
    window = int(match[1]) * _UNITS[match[2]]
    if window > LONGEST_WINDOW:
        raise ValueError(f"should be at most {LONGEST_WINDOW.days}d")
    return window


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Text = Annotated[str, Field(min_length=1)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Action(_Declared):
    text: _Text
    url: _Text


class _About(_Declared):
    type: _Text
    id: _Text


class _Rule(_Declared):
    event: _Text
    tell: Annotated[tuple[_Text, ...], Field(min_length=1), BeforeValidator(_listed)]
    actor: _Text
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]
    priority: Priority
    title: _Text
    message: _Text
    action: _Action | None = None
    about: _About | None = None
    gather: Annotated[timedelta, BeforeValidator(_window)] | None = None
    transactional: StrictBool = False


class _Table(_Declared):
    rules: Annotated[dict[str, _Rule], Field(min_length=1)]


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
            raise KeyError(f"unknown type {name}{_nearest(name, self._by_type)}")
        return _example(self._by_type[name])


def load(path: Path, events: Mapping[str, EventType], *, window: timedelta | None = None) -> Rules:
    """Read and check all rules.

    Args:
        path: The file, `notifications.yaml`.
        events: The events that services write, by name, as `topics.yaml` declares them.
        window: Instead of the length in the file, for every rule that gathers.

    Raises:
        RulesError: The file is wrong, or not there.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        content = None if root is None else loader.construct_document(root)
    except OSError as error:
        raise RulesError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RulesError(f"{path.name}: is not UTF-8: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RulesError(f"{path.name}:{line}: is not YAML: {error.problem}{QUOTES}") from error
    except yaml.YAMLError as error:
        raise RulesError(f"{path.name}: is not YAML: {error}") from error
    if root is None:
        raise RulesError(f"{path.name}:1: is empty")
    return _File(path.name, root, events).rules(content, window)


class _File:
    """Turns the content of the file into rules, and finds the line of what is wrong."""

    def __init__(self, name: str, root: yaml.Node, events: Mapping[str, EventType]) -> None:
        self._name = name
        self._root = root
        self._events = events

    def rules(self, content: object, window: timedelta | None) -> Rules:
        self._refuse_repetitions(self._root)
        try:
            table = _Table.model_validate(content)
        except ValidationError as error:
            # A key that is misspelt is missing as well: it is better to hear of the one that is there.
            first = min(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
            self._wrong(first["loc"], _problem(first))
        return Rules([self._rule(name, declared, window) for name, declared in table.rules.items()])

    def _rule(self, name: str, declared: _Rule, window: timedelta | None) -> Rule:
        at = ("rules", name)
        if not _TYPE.fullmatch(name):
            self._wrong(at, f"type {name!r} should be lower-case words joined by underscores, like comment_reply")
        if len(set(declared.channels)) < len(declared.channels):
            self._wrong((*at, "channels"), "a channel is listed twice")
        event = self._event((*at, "event"), declared.event)
        fields = _Fields(event.schema, lambda key, problem: self._wrong((*at, *key), problem))
        title, message = (fields.sentence((key,), getattr(declared, key)) for key in ("title", "message"))
        text, url = (
            fields.sentence(("action", key), getattr(declared.action, key)) if declared.action else None
            for key in ("text", "url")
        )
        if url and _ACTORS in url.names:
            self._wrong((*at, "action", "url"), f"{_ACTORS} are no part of an address")
        rule = Rule(
            type=name,
            event=event,
            channels=declared.channels,
            priority=declared.priority,
            gather=window if window and declared.gather else declared.gather,
            transactional=declared.transactional,
            _audience=tuple(fields.optional(("tell",), field) for field in declared.tell),
            _actor=fields.actor(("actor",), declared.actor),
            _about=(declared.about.type, fields.required(("about", "id"), declared.about.id))
            if declared.about
            else None,
            _fields=fields.used,
            _title=title,
            _message=message,
            _action_text=text,
            _action_url=url,
        )
        self._try_out(at, rule)
        return rule

    def _event(self, at: tuple[str, ...], name: str) -> EventType:
        if name not in self._events:
            self._wrong(at, f"unknown event {name}{_nearest(name, self._events)}; topics.yaml declares events")
        event = self._events[name]
        if not issubclass(event.schema, DomainEvent):
            self._wrong(
                at,
                f"event {name} is no domain event, so nobody is known to have done it: make the class "
                f"{event.schema.__name__} a DomainEvent (schemas/domain.py)",
            )
        return event

    def _try_out(self, at: tuple[str, ...], rule: Rule) -> None:
        """Make a notice of the event's example, and texts of an event that says no more than it must."""
        schema = rule.event.schema
        try:
            if set(rule.told) == {rule.actor_field}:
                self._wrong(
                    (*at, "tell"),
                    f"{self._aliases(schema, rule)[0]} is the actor, and nobody is notified of their own actions: "
                    "name the field with another person's id",
                )
            if not _audience_of_example(rule):
                self._wrong(
                    (*at, "tell"),
                    f"the example of class {schema.__name__} names nobody to tell but who did it: give it a value for "
                    f"{' or '.join(self._aliases(schema, rule))} that is not the actor's",
                )
            self._require_path((*at, "action", "url"), _example(rule).action_url)
            must = {field.alias for field in schema.model_fields.values() if field.is_required()}
            least = {alias: value for alias, value in rule.event.examples[0].items() if alias in must}
            rule.texts(schema.model_validate(least))
        except (TemplateError, TypeError, ValueError) as error:
            if isinstance(error, RulesError):
                raise
            self._wrong(at, f"its texts can't be written: {error}")

    def _aliases(self, schema: type[Event], rule: Rule) -> list[str]:
        return [schema.model_fields[name].alias or name for name in rule.told]

    def _require_path(self, at: tuple[str, ...], url: str | None) -> None:
        """See that a rule leads to a page of the site, whichever host that has."""
        try:
            is_path = url is None or DEVELOPMENT_SITE.stored(url).startswith("/")
        except ForeignLink:
            is_path = False
        if not is_path:
            self._wrong(at, "should be a path of the site, like /posts/{{ postSlug }}")

    def _refuse_repetitions(self, node: yaml.Node) -> None:
        """Turn away a key that is there twice: YAML would silently take the second."""
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    raise RulesError(f"{self._name}:{key.start_mark.line + 1}: {key.value} is declared twice")
                seen.add(key.value)
                self._refuse_repetitions(value)

    def _wrong(self, at: Sequence[Hashable], problem: str) -> NoReturn:
        raise RulesError(f"{self._name}:{self._line(at)}: {problem}")

    def _line(self, at: Sequence[Hashable]) -> int:
        """Return the line of a place, or of the nearest around it that the file has."""
        node = self._root
        line: int = node.start_mark.line
        for part in at:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == part), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line = node.start_mark.line
        return line + 1


class _Fields:
    """The fields of an event's class, as a rule names them.

    Attributes:
        used: The attribute of each field that the rule's texts use, by the field's name in the payload.
    """

    def __init__(self, schema: type[Event], wrong: Callable[[tuple[str, ...], str], NoReturn]) -> None:
        self._schema = schema
        self._wrong = wrong
        self._attributes = {field.alias or name: name for name, field in schema.model_fields.items()}
        self.used: dict[str, str] = {}

    def optional(self, at: tuple[str, ...], alias: str) -> str:
        """Return the attribute of a field."""
        if alias not in self._attributes:
            self._wrong(
                at, f"unknown field {alias} of class {self._schema.__name__}{_nearest(alias, self._attributes)}"
            )
        return self._attributes[alias]

    def required(self, at: tuple[str, ...], alias: str) -> str:
        """Return the attribute of a field that every event of this class has."""
        attribute = self.optional(at, alias)
        if not self._schema.model_fields[attribute].is_required():
            self._wrong(
                at,
                f"field {alias} is optional in class {self._schema.__name__}, and every event needs it here: make it "
                "required in the class, or name another field",
            )
        return attribute

    def actor(self, at: tuple[str, ...], alias: str) -> _Doer:
        """Return the attributes that tell of who did it."""
        attribute = self.required(at, alias)
        stem = alias.removesuffix("Id")
        if stem == alias:
            self._wrong(at, f"{alias} should be the field with a person's id, like authorId")
        described = (f"{stem}Name", f"{stem}Avatar")
        if missing := [field for field in described if field not in self._attributes]:
            self._wrong(
                at,
                f"actor {alias} needs {' and '.join(missing)} in class {self._schema.__name__}, for the name and the "
                f"picture of the actor: add {' and '.join(map(_optional_field, missing))}",
            )
        return _Doer(attribute, *(self._attributes[field] for field in described))

    def sentence(self, at: tuple[str, ...], source: str) -> Sentence:
        """Read a template, and note the fields that it uses."""
        try:
            sentence = Sentence(source)
        except TemplateError as error:
            self._wrong(at, f"{'.'.join(at)} is not a valid Jinja template: {error}")
        for name in sorted(sentence.names - {_ACTORS}):
            if name not in self._attributes:
                known = (_ACTORS, *self._attributes)
                self._wrong(at, f"unknown variable {name} for class {self._schema.__name__}{_nearest(name, known)}")
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


def _audience_of_example(rule: Rule) -> list[str]:
    return rule.audience(_data_of_example(rule))


def _example(rule: Rule) -> Notice:
    event = Envelope("example", rule.event, _EXAMPLE_TIME, None, _data_of_example(rule))
    return next(rule.notices(event, rule.audience(event.data)[:1]))


def _data_of_example(rule: Rule) -> DomainEvent:
    data = rule.event.schema.model_validate(rule.event.examples[0])
    assert isinstance(data, DomainEvent)
    return data


def _problem(detail: ErrorDetails) -> str:
    """Say what is wrong, in the words of the file."""
    place = [part for part in detail["loc"] if isinstance(part, str)]
    key = place[-1] if place else "the file"
    match detail["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            # By where it stands: beside `rules`, in a rule, or below that in `action` or `about`.
            parts: dict[str, type[_Declared]] = {"action": _Action, "about": _About}
            declared = _Table if len(place) == 1 else _Rule if len(place) == 3 else parts[place[-2]]
            if declared is _Table and isinstance(detail["input"], dict) and "event" in detail["input"]:
                return f"{key} looks like a rule: indent it, so that it stands under `rules:`"
            return f"unknown key {key}{_nearest(key, declared.model_fields)}"
        case "value_error" | "literal_error" | "bool_type":
            problem = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return f"{key}: {detail['input']} {problem}"
        case "too_short" | "string_too_short":
            return f"{key} should not be empty"
        case "tuple_type":
            return f"{key} should be a list, like [inApp, email]"
        case "string_type":
            return f"{key} should be a text"
        case _:
            like = {
                "action": ', like {text: See the post, url: "/posts/{{ slug }}"}',
                "about": ", like {type: post, id: postId}",
            }
            return f"{key} should be a mapping of keys to values{like.get(key, '')}"


def _nearest(name: str, known: Collection[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there are {listed(known)}"
