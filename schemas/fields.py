"""The kinds of values that event classes share, and the limits of each.

Limits are strict where a wrong value would corrupt a document (an empty id, a negative count), and generous elsewhere:
a refused event is missing in the analysis. Every text, list and object has a limit, so that the cost of an event is
bounded by its size. Types are JSON's: a text is not a number, a number not a boolean. `docs/topics.md` has the rules
for producers.
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
    # JSON has one type of number: some encoders write 5 as 5.0.
    return int(value) if type(value) is float and value.is_integer() else value


def check_free_content(content: dict[str, Any]) -> dict[str, Any]:
    """Return an object of free content, as it was read from JSON, if a document can hold it.

    Raises:
        PydanticCustomError: It is too large or too deep, or has a number that would be stored as another one.
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
"""An IP address, unhashed, in any form that servers and proxies write; `enrich/ip_address.py` reads it."""

Label = Annotated[str, Field(max_length=1_024)]
"""A line of text for display: a title, a person's name, a file's name, a campaign."""

Prose = Annotated[str, Field(max_length=65_536)]
"""A text of some paragraphs: an excerpt, a message to a person, a provider's message about an e-mail."""

LogText = Annotated[str, Field(max_length=262_144)]
"""A log message or a stack trace."""

Link = Annotated[str, Field(max_length=8192)]
"""A URL or a path, up to the length that browsers and servers accept."""

Flag = Annotated[bool, Strict()]
"""`true` or `false`."""

WHOLE = BeforeValidator(_whole)
"""Required for every whole number: `5.0` is 5; `5.5`, `"5"` and `true` are invalid. Last in the annotation."""

Count = Annotated[int, Strict(), Field(ge=0, le=2**53), WHOLE]
"""A whole number, up to the largest that JavaScript counts exactly."""

Amount = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
"""A measured amount in the unit that its field names: seconds, milliseconds, megabytes. See `schemas/repairs.py`."""

Percentage = Annotated[float, Strict(), Field(ge=0, le=100, allow_inf_nan=False)]
"""A measurement from 0 to 100. See `schemas/repairs.py`."""

FreeContent = Annotated[dict[str, Any], Field(max_length=MOST_ENTRIES), AfterValidator(check_free_content)]
"""An object with any content, within the limits above. A `null` in it is kept."""

UNKNOWN = "unknown"
"""The value of a required text field that is unknown."""


class Value(BaseModel):
    """An object within a payload; the rules are those of an `Event`."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")
