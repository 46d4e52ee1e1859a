"""`Envelope`: a validated event with its identity and its time; `InvalidEvent`: why a record is not one."""

from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from schemas.event import Event
from schemas.topics import EventType

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
    type: EventType
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
