"""People's preferences: their channels, by type of notification, and their quiet hours.

Input: preferences as the platform's PostgreSQL or its cache stores them. Output: whether a channel is turned off. When
a message may be sent is decided elsewhere. A part that can't be read is never taken for its opposite: the channel
counts as turned off, the hours as night, and the part is recorded so that it can be reported. docs/recipients.md has
the rules.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from notifications.quiet_hours import understand
from schemas.notifications import Channel

ALL_OFF = frozenset({"email", "push"})
"""All channels that a person can turn off."""

_CHANNELS: Mapping[str, Channel] = {"email": "email", "push": "push", "inapp": "inApp"}
_EVERYTHING = {"all", "*"}
_YES = {"true", "yes", "1", "on", "off", "disabled", "muted", *_EVERYTHING}
_NO = {"false", "no", "0"}
_BETWEEN_NAMES = re.compile(r"[\s,;|]+")
_NOT_PERSONAL = re.compile(r"[A-Za-z0-9_+:/.-]{1,32}")
_MOST_UNREADABLE = 20


class UnreadablePart(NamedTuple):
    """A part of a person's preferences that can't be read.

    Attributes:
        part: Its name, such as `quietHours.timeZone`.
        shown: Its value if that can't be personal, otherwise its type.
    """

    part: str
    shown: str


def _as_text(value: object) -> str | None:
    """Return a text or a number of hours as a text; anything else becomes `?`, which can't be read.

    A number beyond 24 may count minutes, or have the hour in its first digits.
    """
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value <= 24 else "?"


_Text = Annotated[str | None, BeforeValidator(_as_text)]


class _Held(BaseModel):
    # What this release does not know, a later one may have stored.
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True, extra="ignore")


class QuietHours(_Held):
    """When a person does not want to be disturbed, every day; an `end` before `start` is on the next day.

    Attributes:
        start: Such as `22:00`, in the person's time zone.
        end: Such as `07:30`, likewise.
        time_zone: A name of the IANA database, such as `Europe/Berlin`.
    """

    start: _Text = None
    end: _Text = None
    time_zone: _Text = None


class Preferences(_Held):
    """One person's preferences; without any, everything is sent at any time.

    Attributes:
        channels_off: The channels that are turned off altogether.
        types_off: The channels that are turned off for a type of notification, by its name.
        quiet_hours: When only urgent messages are sent; `None` if there are no quiet hours.
        locale: The person's language, such as `en` or `pt-BR`.
        unreadable: The parts that could not be read.
    """

    channels_off: frozenset[str] = frozenset()
    types_off: Mapping[str, frozenset[str]] = Field(default_factory=dict)
    quiet_hours: QuietHours | None = None
    locale: str = "en"
    unreadable: tuple[UnreadablePart, ...] = ()

    def turns_off(self, channel: Channel, notification_type: str) -> bool:
        """Whether the channel is turned off for this type."""
        named = {_folded(notification_type), *_EVERYTHING}
        return channel in self.channels_off or any(
            channel in off for name, off in self.types_off.items() if _folded(name) in named
        )


DEFAULTS = Preferences()
"""The preferences of people without any."""


def read(stored: object) -> Preferences:
    """Read stored preferences: parsed JSON, or a text that contains JSON; never raises an error."""
    reading = _Reading()
    held = _object(stored)
    if held is None:
        reading.refuse("preferences", stored)
        return Preferences(channels_off=ALL_OFF, unreadable=reading.unreadable)
    fields = _by_name(held)
    off = reading.channels("channelsOff", fields.get("channelsoff"))
    off_of_types, types_off = reading.types("typesOff", fields.get("typesoff"))
    return Preferences(
        channels_off=off | off_of_types,
        types_off=types_off,
        quiet_hours=reading.quiet_hours("quietHours", fields.get("quiethours")),
        locale=reading.locale("locale", fields.get("locale")),
        unreadable=reading.unreadable,
    )


class _Reading:
    """Reads the parts of one person's preferences, and records unreadable ones."""

    def __init__(self) -> None:
        self._unreadable: dict[UnreadablePart, None] = {}

    @property
    def unreadable(self) -> tuple[UnreadablePart, ...]:
        return tuple(self._unreadable)[:_MOST_UNREADABLE]

    def refuse(self, part: str, value: object) -> None:
        self._unreadable[UnreadablePart(part, _shown(value))] = None

    def channels(self, part: str, value: object) -> frozenset[str]:
        """Return the channels that a value turns off; an unreadable value turns off all."""
        if _is_nothing(value):
            return frozenset()
        match value:
            case True:
                return ALL_OFF
            case str():
                return self._named(part, _BETWEEN_NAMES.split(value.strip()))
            case list():
                return self._named(part, value)
            case dict():
                return self._named(part, [name for name, is_off in value.items() if not _says_no(is_off)])
        self.refuse(part, value)
        return ALL_OFF

    def types(self, part: str, value: object) -> tuple[frozenset[str], dict[str, frozenset[str]]]:
        """Return the channels that are off for all types, if the types can't be read, and those off by type."""
        if _is_nothing(value):
            return frozenset(), {}
        if isinstance(value, dict):
            return frozenset(), {name: self.channels(part, off) for name, off in value.items()}
        if isinstance(value, str) and _folded(value) in _YES:
            return ALL_OFF, {}
        named = _BETWEEN_NAMES.split(value.strip()) if isinstance(value, str) else value
        if isinstance(named, list) and all(isinstance(name, str) for name in named):
            return frozenset(), dict.fromkeys(named, ALL_OFF)
        if value is not True:
            self.refuse(part, value)
        return ALL_OFF, {}

    def quiet_hours(self, part: str, value: object) -> QuietHours | None:
        """Return quiet hours; an unreadable value becomes hours without start, end and zone."""
        if _is_nothing(value):
            return None
        if not isinstance(value, dict):
            self.refuse(part, value)
            return QuietHours()
        fields = _by_name(value)
        if fields.get("enabled") is not None and _says_no(fields["enabled"]):
            return None
        if not fields.get("start") and not fields.get("end"):
            others = [other for name, other in fields.items() if name not in ("start", "end", "timezone")]
            if all(map(_is_nothing, others)) and fields.get("start") != 0 and fields.get("end") != 0:
                return None
        hours = QuietHours(start=fields.get("start"), end=fields.get("end"), time_zone=fields.get("timezone"))
        for name in understand(hours.start, hours.end, hours.time_zone).unreadable:
            self.refuse(f"{part}.{name}", fields.get(_folded(name)))
        return hours

    def locale(self, part: str, value: object) -> str:
        """Return a language; an unreadable value becomes the default."""
        if isinstance(value, str) and value.strip():
            return value.strip()
        if not _is_nothing(value):
            self.refuse(part, value)
        return DEFAULTS.locale

    def _named(self, part: str, names: Iterable[object]) -> frozenset[str]:
        off: set[str] = set()
        for name in names:
            if name is None or name == "":
                continue
            channels = _channels_named(name) if isinstance(name, str) else ALL_OFF
            if not isinstance(name, str) or not channels:
                self.refuse(part, name)
            off |= channels
        return frozenset(off)


def _channels_named(name: str) -> frozenset[str]:
    """Return the channels that a name means; empty for other channels, such as `sms`."""
    folded = _folded(name)
    if folded in _YES:
        return ALL_OFF
    for word, channel in (*_CHANNELS.items(), ("mail", "email")):
        if word in folded:
            return frozenset({channel})
    return frozenset(_CHANNELS[near] for near in get_close_matches(folded, _CHANNELS, n=1, cutoff=0.75))


def _object(stored: object) -> Mapping[str, Any] | None:
    """Return preferences as an object; `None` if they are not one. A text may contain the object as JSON."""
    if isinstance(stored, str) and stored.strip():
        try:
            stored = json.loads(stored)
        except (ValueError, RecursionError):
            return None
    if stored is None or stored in ("", []) or (isinstance(stored, str) and not stored.strip()):
        return {}
    return stored if isinstance(stored, dict) else None


def _by_name(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by normalised names; of several with the same name, one that is not empty."""
    fields: dict[str, Any] = {}
    for name, value in held.items():
        if _is_nothing(fields.get(_folded(name))):
            fields[_folded(name)] = value
    return fields


def _is_nothing(value: object) -> bool:
    """Whether a value means absence: null, false or empty."""
    return value is None or value is False or value in ("", [], {}) or (isinstance(value, str) and not value.strip())


def _says_no(value: object) -> bool:
    """Whether a value means no, or is empty; a form or a script may write it as a text."""
    return _is_nothing(value) or value == 0 or (isinstance(value, str) and _folded(value) in _NO)


def _folded(name: str) -> str:
    """Return a normalised name: `Time_Zone` and `timeZone` are the same."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case str():
            return value if _NOT_PERSONAL.fullmatch(value) else f"a text of {len(value):,} characters"
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
