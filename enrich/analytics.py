"""Creates documents of `analyticsEvents` for events that are not analytics events themselves.

Input: the subject of an event. Output: one document in the common form. The payload of `analytics.tracked` already has
that form and is stored unchanged.
"""

from typing import Any

from enrich.documents import Document
from enrich.verbatim import head
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.fields import UNKNOWN

COLLECTION = "analyticsEvents"


def analytics_event(
    event: Envelope[Event],
    *,
    entity_id: str,
    entity_type: str,
    user_id: str | None,
    session_id: str | None,
    properties: dict[str, Any],
    context: dict[str, str] | None = None,
) -> Document:
    """Describe an event's document in `analyticsEvents`.

    Args:
        event: The event; its type gives `eventType` and `category`.
        entity_id: What it happened to.
        entity_type: What kind of thing that is: `post`, `search`.
        user_id: Who did it, where known.
        session_id: In which session, where known.
        properties: What else the event says.
        context: Where in the site it happened, from `page_context`.
    """
    body = head(event) | {
        "eventType": event.type.underscored,
        "category": event.type.category,
        "entityId": entity_id,
        "entityType": entity_type,
        "properties": properties,
    }
    if user_id is not None:
        body["userId"] = user_id
    if session_id is not None:
        body["sessionId"] = session_id
    if context is not None:
        body["context"] = context
    return Document(COLLECTION, body)


def page_context(page: str | None, referrer: str | None, user_agent: str | None) -> dict[str, str] | None:
    """Return `analyticsEvents.context`, always with `page` and `userAgent`; `None` where nothing at all is known."""
    if page is None and referrer is None and user_agent is None:
        return None
    context = {"page": page or UNKNOWN, "userAgent": user_agent or UNKNOWN}
    if referrer is not None:
        context["referrer"] = referrer
    return context
