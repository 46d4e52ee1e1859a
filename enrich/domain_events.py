"""Creates the documents of domain events, for analysts, the user's activity and auditors.

Input: a domain event. Output: one document for each collection that `topics.yaml` names: `analyticsEvents`,
`userActivity` (if the event names an actor) and `auditLogs`. The same rules hold for every class, so a new one needs no
code here:

- an event that **continues** another one only names more people to notify, and becomes no document here.
- **properties** are what the event says beyond identity, actor, time and request; `title`, `slug` and `name` are
  prefixed with the kind of entity, so `title` of a post becomes `postTitle`. A field that its class declares with
  `exclude=True` is in no document: names, followers and texts that only notifications use.
- **metadata** of an activity is the same, without the field that `targetTitle` already has.
- **activityType** is the event's name with `_` for `.`, unless `topics.yaml` says otherwise; **action** its last word.
"""

from functools import cache
from typing import Any

from enrich.analytics import analytics_event, page_context
from enrich.audit import entry
from enrich.context import Context
from enrich.documents import Document, Write
from enrich.verbatim import clamped, head, payload
from schemas.domain import DomainEvent
from schemas.envelope import Envelope

_OF_THE_AUDIT = frozenset({"ip_address", "user_email", "user_role", "method", "endpoint", "changes"})
"""Fields that are stored in `auditLogs` alone."""

_NAMES_OF_ENTITIES = frozenset({"title", "slug", "name"})


def documents(event: Envelope[DomainEvent], context: Context) -> list[Write]:
    """Describe the documents of a domain event, one for each of its collections; none if it continues another event."""
    if event.data.continued is not None:
        return []
    return [
        document
        for collection in event.type.collections
        if (document := _document(collection, event, context)) is not None
    ]


def _document(collection: str, event: Envelope[DomainEvent], context: Context) -> Document | None:
    if collection == "analyticsEvents":
        return _analytics_event(event)
    if collection == "userActivity":
        return _activity(event)
    if collection == "auditLogs":
        return _audit_entry(event, context)
    return Document(collection, head(event) | payload(event.data, without=_OF_THE_AUDIT) | clamped(event))


def _analytics_event(event: Envelope[DomainEvent]) -> Document:
    data = event.data
    return analytics_event(
        event,
        entity_id=data.entity,
        entity_type=data.entity_type,
        user_id=data.actor,
        session_id=data.session_id,
        properties=_properties(data),
        context=page_context(data.page, data.referrer, data.user_agent),
    )


def _activity(event: Envelope[DomainEvent]) -> Document | None:
    data = event.data
    if data.actor is None:
        return None
    activity = head(event) | {
        "userId": data.actor,
        "activityType": event.type.activity or event.type.underscored,
        "action": event.type.action,
        "targetId": data.entity,
        "targetType": data.entity_type,
        "metadata": _properties(data, without=data.title_field),
        "isPublic": event.type.public,
    }
    if data.title_field is not None and (title := getattr(data, data.title_field)) is not None:
        activity["targetTitle"] = title
    return Document("userActivity", activity)


def _audit_entry(event: Envelope[DomainEvent], context: Context) -> Document:
    data = event.data
    known = {
        "userId": data.actor,
        "userEmail": data.user_email,
        "userRole": data.user_role,
        "changes": data.audited_changes,
        "method": data.method,
        "endpoint": data.endpoint,
    }
    return entry(
        event,
        {
            "action": event.type.name,
            "resource": data.entity_type,
            "resourceId": data.entity,
            "status": "success",
            **{name: value for name, value in known.items() if value not in (None, {})},
        },
        ip_address=data.ip_address,
        user_agent=data.user_agent,
        context=context,
    )


def _properties(data: DomainEvent, without: str | None = None) -> dict[str, Any]:
    unwanted = (data.actor_field, without)
    return {
        property_name: value
        for field, property_name in _property_names(type(data))
        if field not in unwanted and (value := getattr(data, field)) is not None
    }


@cache
def _property_names(schema: type[DomainEvent]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a class that become properties, each with the property's name."""
    return tuple(
        (name, _property_name(schema.entity_type, field.alias or name))
        for name, field in schema.model_fields.items()
        if name not in DomainEvent.model_fields and name != schema.entity_id_field and not field.exclude
    )


def _property_name(entity_type: str, alias: str) -> str:
    return f"{entity_type}{alias.capitalize()}" if alias in _NAMES_OF_ENTITIES else alias
