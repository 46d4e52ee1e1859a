"""Events that become documents as they come, and what every document of an event begins with.

In comes an event, out goes one document for each of its collections, with the payload's fields under the names that the
producer sent, its id and its time.
"""

from functools import cache
from typing import Any

from pydantic import BaseModel

from enrich.context import Context
from enrich.documents import Document, Write
from schemas.event import Envelope, Event


def documents(event: Envelope[Event], _: Context) -> list[Write]:
    """Describe the event's documents: the event itself, once for each of its collections."""
    return [Document(collection, body(event)) for collection in event.type.collections]


def body(event: Envelope[Event]) -> dict[str, Any]:
    """Return the event as one document; what the producer did not say is left out."""
    return head(event) | payload(event.data)


def head(event: Envelope[Event]) -> dict[str, Any]:
    """Return what every document of an event begins with: `_id`, `timestamp`, and `reportedTimestamp` if it differs."""
    fields: dict[str, Any] = {"_id": event.id, "timestamp": event.time}
    if event.reported_time is not None:
        fields["reportedTimestamp"] = event.reported_time
    return fields


def payload(data: Event, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the payload's fields as the producer named them, but for its own idea of time and those in `without`.

    An optional object that holds nothing, such as `timings` whose keys are all unknown, is left out. What a field that
    every document has holds stays, and so do `null` and `{}` within free-form fields: there they are the producer's
    word.
    """
    body = data.model_dump(by_alias=True, exclude_none=True, exclude={"timestamp", *without})
    return _without_empty_objects(data, body)


def _without_empty_objects(value: BaseModel, dumped: dict[str, Any]) -> dict[str, Any]:
    """Remove the optional fields from what a model was dumped to that are objects and hold nothing, however deep."""
    for alias, inner in [item for item in dumped.items() if isinstance(item[1], dict)]:
        name, optional = _fields(type(value)).get(alias, (None, False))
        if name is not None and isinstance(model := getattr(value, name), BaseModel):
            _without_empty_objects(model, inner)
        if optional and not inner:
            del dumped[alias]
    return dumped


@cache
def _fields(schema: type[BaseModel]) -> dict[str, tuple[str, bool]]:
    """Return the fields of a class by what a producer calls them: the attribute, and whether it may be unknown."""
    return {field.alias or name: (name, field.default is None) for name, field in schema.model_fields.items()}
