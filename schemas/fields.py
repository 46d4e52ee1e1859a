"""The kinds of values that event classes share, and the limits of each.

Limits are strict where a wrong value would spoil a document (an empty id, a negative count), and generous elsewhere: an
event that is turned away is lost to the analyst. Every text, list and object has one, so that no event costs more than
its size explains. Types are JSON's: a text is no number, a number no boolean. `docs/topics.md` says so to producers.
"""

from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MOST_LEVELS = 64
"""How deep an object of free content may be nested: MongoDB documents 100 levels, and a document adds some."""

MOST_ENTRIES = 10_000
"""How many fields and items an object of free content may have, at all levels together."""

MOST_CHARACTERS = 1_000_000
"""How many characters its texts and names may have together: Kafka's default limit of a record is a megabyte."""


def _whole(value: object) -> object:
    # JSON has one kind of number: some encoders write 5 as 5.0.
    return int(value) if type(value) is float and value.is_integer() else value


def check_free_content(content: dict[str, Any]) -> dict[str, Any]:
    """Return an object of free content, as it was read from JSON, where it has no more than a document should hold.

    Raises:
        PydanticCustomError: It is too large or too deep, or holds a number that would become another one.
    """
    entries = characters = 0
    level: list[dict[str, Any] | list[Any]] = [content]
    for _ in range(MOST_LEVELS):
        below: list[dict[str, Any] | list[Any]] = []
        for holder in level:
            entries += len(holder)
            if entries > MOST_ENTRIES:
                raise _too_much(f"at most {MOST_ENTRIES:,} fields and items in all")
            values: Iterable[Any] = holder
            if type(holder) is dict:
                characters += len("".join(holder))
                values = holder.values()
            for value in values:
                kind = type(value)
                if kind is str:
                    characters += len(value)
                elif kind is dict or kind is list:
                    below.append(value)
                elif kind is float and not isfinite(value):
                    raise _too_much("numbers of up to 1.8e308: it holds one that no document can hold")
                elif kind is int and not -(2**63) <= value < 2**63:
                    raise _too_much("whole numbers of up to 64 bits: it holds one that no document can hold")
        if characters > MOST_CHARACTERS:
            raise _too_much(f"texts and names of at most {MOST_CHARACTERS:,} characters in all")
        if not below:
            return content
        level = below
    raise _too_much(f"at most {MOST_LEVELS} levels")


def _too_much(allowed: str) -> PydanticCustomError:
    return PydanticCustomError("free_content", "should have {allowed}", {"allowed": allowed})


Id = Annotated[str, Field(min_length=1, max_length=256)]
"""The id of something: a UUID from PostgreSQL, a session's id, an event's id."""

Name = Annotated[str, Field(min_length=1, max_length=256)]
"""A short name from a small set: a service, an action, a kind of entity."""

IpAddress = Annotated[str, Field(max_length=256)]
"""An IP address in the clear, in whatever form a server or a proxy wrote it; `enrich/ip_address.py` reads it."""

Label = Annotated[str, Field(max_length=1_024)]
"""A line of text for display: a title, a person's name, a file's name, a campaign."""

Prose = Annotated[str, Field(max_length=65_536)]
"""A text of some paragraphs: an excerpt, a message to a person, what a provider says of an e-mail."""

LogText = Annotated[str, Field(max_length=262_144)]
"""What a program wrote about itself: a log message, a stack trace."""

Link = Annotated[str, Field(max_length=8192)]
"""A URL or a path, as long as browsers and servers let it be."""

Flag = Annotated[bool, Strict()]
"""`true` or `false`."""

WHOLE = BeforeValidator(_whole)
"""Belongs to every whole number: `5.0` is 5, while `5.5`, `"5"` and `true` are none. Stands last in the annotation."""

Count = Annotated[int, Strict(), Field(ge=0, le=2**53), WHOLE]
"""A whole number, up to the largest that JavaScript counts exactly."""

Amount = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
"""A measured amount in the unit that its field names: seconds, milliseconds, megabytes. See `schemas/repairs.py`."""

Percentage = Annotated[float, Strict(), Field(ge=0, le=100, allow_inf_nan=False)]
"""A measurement from 0 to 100. See `schemas/repairs.py`."""

FreeContent = Annotated[dict[str, Any], Field(max_length=MOST_ENTRIES), AfterValidator(check_free_content)]
"""An object of whatever content its producer likes, within the limits above. A `null` in it is kept."""

UNKNOWN = "unknown"
"""Stands in a text field that a document must have and that nobody could tell."""


class Value(BaseModel):
    """A part of a payload that has fields of its own; the same rules as for an `Event`."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")
