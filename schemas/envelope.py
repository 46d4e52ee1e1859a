"""`Envelope`: a validated event with its id and its time; `InvalidEvent`: why a record is not a valid event."""

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
        reported_time: The producer's time if it had to be corrected; else `None`.
        data: The payload.
        clamped: Whether a measurement was out of its range, and was set to the nearest valid value.
    """

    id: str
    type: EventType
    time: datetime
    reported_time: datetime | None
    data: EventT
    clamped: bool = False


class InvalidEvent(ValueError):  # noqa: N818  # what a record is, not a fault of ours
    """A record that is not a valid event.

    Attributes:
        reason: The class of the reason, from a short closed list: `not-json`, `schema`, `unknown-type`, ...
        message: What the producer's developer has to change. Contains no value of a personal field.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
