"""`Event`, the base of every payload class, and `Moment`, the type of every time in a payload."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

# Ten days from either end of what can be stored: neither a time zone nor a calculation moves it out of range, such as
# the window of up to a week in which notices are grouped.
_EARLIEST = datetime(1, 1, 11, tzinfo=UTC)
LATEST = datetime(9999, 12, 21, tzinfo=UTC)


def _no_digits_alone(value: object) -> object:
    # Read as a number, the year "2026" would be half an hour after the beginning of 1970.
    if type(value) is str and ":" not in value:
        raise PydanticCustomError("moment", "should be a time with a zone, as in 2026-01-31T12:00:00Z")
    return value


NO_DIGITS_ALONE = BeforeValidator(_no_digits_alone)
"""Required for every time: a text must be ISO 8601, and a number a JSON number. Last in the annotation."""

Moment = Annotated[AwareDatetime, Field(ge=_EARLIEST, le=LATEST), NO_DIGITS_ALONE]
"""A moment with a time zone: `2026-01-31T12:00:00Z`, or as a number the seconds or milliseconds since 1970."""


class Event(BaseModel):
    """The payload of an event: a fact, in the past tense, with the camelCase field names that producers send.

    Unknown fields are ignored, so that producers can be upgraded first.
    """

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")
