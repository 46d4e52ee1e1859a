"""What every event is made of: the payload a producer sends, and the envelope Inkstream reads it into.

In come nothing but types; out go two: `Event`, the base of every payload class, and `Envelope`, a validated payload
with its identity and its time. Nothing here touches a store or a clock.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Generic, NamedTuple, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from schemas.topics import EventType


# Ten days from either end of what can be stored: no time zone moves it out of range, and neither does what is computed
# with it, such as the window of up to a week in which notices are gathered.
_EARLIEST = datetime(1, 1, 11, tzinfo=UTC)
LATEST = datetime(9999, 12, 21, tzinfo=UTC)


def _no_digits_alone(value: object) -> object:
    # Read as a number, the year "2026" would be half an hour after the beginning of 1970.
    if type(value) is str and ":" not in value:
        raise PydanticCustomError("moment", "should be a time with a zone, as in 2026-01-31T12:00:00Z")
    return value


NO_DIGITS_ALONE = BeforeValidator(_no_digits_alone)
"""Belongs to every time: a text is ISO 8601, and a number comes as a number. Stands last in the annotation."""

Moment = Annotated[AwareDatetime, Field(ge=_EARLIEST, le=LATEST), NO_DIGITS_ALONE]
"""A moment with a time zone: `2026-01-31T12:00:00Z`, or as a number the seconds or milliseconds since 1970."""


class Event(BaseModel):
    """The payload of an event: a fact, in the past tense, with the camelCase field names that producers send.

    Unknown fields are ignored, so that a producer may be a release ahead of us.
    """

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")


EventT = TypeVar("EventT", bound=Event, covariant=True)


class Envelope(NamedTuple, Generic[EventT]):
    """A validated event, ready to become documents.

    Attributes:
        id: The event's identity, unique among all events; becomes the document's `_id`.
        type: The event's declaration in `topics.yaml`.
        time: When it happened; never far ahead of its Kafka timestamp.
        reported_time: What the producer claimed, where `time` had to be corrected; else `None`.
        data: The payload.
        clamped: Whether a measurement in it was out of its range, and became the nearest value within it.
    """

    id: str
    type: "EventType"
    time: datetime
    reported_time: datetime | None
    data: EventT
    clamped: bool = False


class InvalidEvent(ValueError):  # noqa: N818  # what a record is, not a fault of ours
    """A record that is no valid event, and never will be.

    Attributes:
        reason: The class of the reason, from a short closed list: `not-json`, `schema`, `unknown-type`, ...
        message: What the producer's developer has to change. Holds no value of a personal field.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
