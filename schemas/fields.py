"""The kinds of values that event classes share, and what is asked of each.

Limits are strict where a wrong value would spoil a document (an empty id, a negative duration), and generous
elsewhere: an event that is turned away is lost to the analyst.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Id = Annotated[str, Field(min_length=1, max_length=256)]
"""The id of something: a UUID from PostgreSQL, a session's id, an event's id."""

Name = Annotated[str, Field(min_length=1, max_length=256)]
"""A short name from a small set: a service, an action, a kind of entity."""

Link = Annotated[str, Field(max_length=8192)]
"""A URL or a path, as long as browsers and servers let it be."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A whole number, up to the largest that JavaScript counts exactly."""

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A measured amount in the unit that its field names: seconds, milliseconds, megabytes."""

Percentage = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""From 0 to 100."""

UNKNOWN = "unknown"
"""Stands in a text field that a document must have and that nobody could tell."""


class Value(BaseModel):
    """A part of a payload that has fields of its own; the same rules as for an `Event`."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")
