"""Stores events unchanged, and creates the fields that every event's document begins with.

Input: an event. Output: one document for each of its collections, with the payload's fields under the producer's names,
the event's id and its time.
"""

from collections.abc import Iterator
from functools import cache
from types import GenericAlias, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from enrich.context import Context
from enrich.documents import Document, Write
from schemas.envelope import Envelope
from schemas.event import Event


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

    An optional object that holds nothing, such as `timings` whose keys are all unknown, is left out. What a field that
    every document has holds stays, and so do `null` and `{}` within free-form fields: there they are the producer's
    word.
    """
    body = data.model_dump(by_alias=True, exclude_none=True, exclude={"timestamp", *without})
    _leave_out_empty(type(data), body)
    return body


class _ObjectField(NamedTuple):
    """A field that may hold an object.

    Attributes:
        name: What a producer calls it.
        schema: The object's class; `None` where it is free-form.
        optional: Whether it may be unknown.
    """

    name: str
    schema: type[BaseModel] | None
    optional: bool


def _leave_out_empty(schema: type[BaseModel], body: dict[str, Any]) -> None:
    """Remove the optional objects that hold nothing from what an instance of a class was dumped to, however deep."""
    for field in _object_fields(schema):
        inner = body.get(field.name)
        if isinstance(inner, dict):
            if inner and field.schema is not None:
                _leave_out_empty(field.schema, inner)
            if field.optional and not inner:
                del body[field.name]


@cache
def _object_fields(schema: type[BaseModel]) -> tuple[_ObjectField, ...]:
    return tuple(
        _ObjectField(field.alias or name, kind if issubclass(kind, BaseModel) else None, field.default is None)
        for name, field in schema.model_fields.items()
        for kind in _kinds(field.annotation)
        if issubclass(kind, BaseModel | dict)
    )


def _kinds(annotation: object) -> Iterator[type]:
    """Yield the classes that an annotation names outside of lists: `dict` for `dict[str, Any] | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, GenericAlias):
        yield annotation
    elif isinstance(origin := get_origin(annotation), type) and issubclass(origin, dict):
        yield origin
    elif origin in (Annotated, Union, UnionType):
        for inner in get_args(annotation):
            yield from _kinds(inner)
