"""Events that become documents as they come, and what every document of an event begins with.

In comes an event, out goes one document for each of its collections, with the payload's fields under the names that the
producer sent, its id and its time.
"""

from typing import Any

from enrich.context import Context
from enrich.documents import Document, Write
from schemas.event import Envelope, Event


def documents(event: Envelope[Event], _: Context) -> list[Write]:
    """Describe the event's documents: the event itself, once for each of its collections."""
    return [Document(collection, body(event)) for collection in event.type.collections]


def body(event: Envelope[Event]) -> dict[str, Any]:
    """Return the event as one document; what the producer did not say is left out."""
    return head(event) | payload(event.data) | clamped(event)


def head(event: Envelope[Event]) -> dict[str, Any]:
    """Return what every document of an event begins with: `_id`, `timestamp`, and `reportedTimestamp` if it differs."""
    fields: dict[str, Any] = {"_id": event.id, "timestamp": event.time}
    if event.reported_time is not None:
        fields["reportedTimestamp"] = event.reported_time
    return fields


def clamped(event: Envelope[Event]) -> dict[str, Any]:
    """Return the mark of a document with a measurement that was out of its range, `clamped: true`; or nothing."""
    return {"clamped": True} if event.clamped else {}


def payload(data: Event, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the payload's fields as the producer named them, but for its own idea of time and those in `without`.

    A `null` within free-form fields stays: there it is the producer's word.
    """
    return data.model_dump(by_alias=True, exclude_none=True, exclude={"timestamp", *without})
