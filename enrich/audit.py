"""Creates audit log entries, from `audit.recorded` and from domain events.

Input: an action, its actor and its request. Output: a document for `auditLogs`, with the IP address as a keyed hash.
"""

from typing import Any

from enrich.context import Context
from enrich.documents import Document, Write
from enrich.verbatim import head, payload
from schemas.audit import AuditRecorded
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.fields import UNKNOWN

COLLECTION = "auditLogs"


def documents(event: Envelope[AuditRecorded], context: Context) -> list[Write]:
    """Describe the entry that a service sent."""
    data = event.data
    said = payload(data)
    return [entry(event, said, ip_address=data.ip_address, user_agent=data.user_agent, context=context)]


def entry(
    event: Envelope[Event],
    said: dict[str, Any],
    *,
    ip_address: str | None,
    user_agent: str | None,
    context: Context,
) -> Document:
    """Describe one entry of the audit log.

    Args:
        event: The event that it tells of.
        said: The fields of the entry other than the two below, which win.
        ip_address: Where the request came from, in the clear; it is stored as its hash, or as `unknown`.
        user_agent: What the request came with, or `unknown`.
        context: Knows the hash.
    """
    origin = {
        "ipAddress": UNKNOWN if ip_address is None else context.address(ip_address).hash,
        "userAgent": UNKNOWN if user_agent is None else user_agent,
    }
    return Document(COLLECTION, head(event) | said | origin)
