"""What a receipt changes in the log of an e-mail.

Receipts arrive in any order, late and more than once; the log ends the same.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from notifications.receipts.receipt import ARRIVED, Receipt, as_kept, earliest
from notifications.states import BOUNCED
from schemas.receipts import Kind

STATUSES: Final = ("queued", "sent", "failed", "delivered", "bounced")
"""How far an e-mail has come, the furthest last.

`failed` is before `delivered`, as an attempt that looked like a failure may have arrived after all; `bounced` is last,
as servers take messages and give them back later.
"""

KEPT_EVENTS: Final = 100
"""How many events of each type a log keeps, the earliest: scanners and previews open a mail thousands of times."""

_EVENT_TYPES: Mapping[Kind, str] = {
    "deferred": "queued",  # at the provider's
    "delivered": "delivered",
    "opened": "opened",
    "clicked": "clicked",
    "complained": "spam",
    "bounced": "bounced",
}


def applied(log: Mapping[str, Any], receipt: Receipt) -> dict[str, Any]:
    """Return what a receipt changes in an e-mail's log.

    Whatever the order of the receipts, and however often each comes, the log ends the same:
    `events` is a set by type, moment and the receipt's id, in the order of time, of each type the `KEPT_EVENTS`
    earliest; `status` is the furthest of `STATUSES`; `sentAt` and `deliveredAt` are the earliest moment at which it
    must have been so. `error` is the first bounce's; what arrived after all has none.

    `unsubscribed` and what is of a push message change nothing.

    Args:
        log: The document as it stands in `emailLogs`; its moments have a zone.
        receipt: What was reported of that e-mail.

    Returns:
        Fields and their new values; `None` if a field is to go. Empty where nothing changes.
    """
    report = receipt.data
    event_type = _EVENT_TYPES.get(report.kind)
    if event_type is None or report.channel != "email":
        return {}
    at = as_kept(report.timestamp)
    reached = "bounced" if report.kind == "bounced" else "delivered" if report.kind in ARRIVED else "sent"
    events = _bounded([*log.get("events", ()), _event(event_type, at, receipt)])
    status = max(log.get("status", STATUSES[0]), reached, key=STATUSES.index)
    after: dict[str, Any] = {"events": events, "status": status, "sentAt": earliest(log.get("sentAt"), at)}
    if report.kind in ARRIVED:
        after["deliveredAt"] = earliest(log.get("deliveredAt"), at)
    if status == "delivered":
        after["error"] = None
    elif bounce := next((event for event in events if event["type"] == "bounced"), None):
        after["error"] = _error(bounce)
    return {name: value for name, value in after.items() if value != log.get(name)}


def _event(event_type: str, at: datetime, receipt: Receipt) -> dict[str, Any]:
    report = receipt.data
    metadata = {
        "eventId": receipt.id,
        "provider": report.provider,
        "permanent": report.permanent if report.kind == "bounced" else None,
        "code": report.code,
        "message": report.message,
        "url": report.url,
    }
    known = {name: value for name, value in metadata.items() if value is not None}
    return {"type": event_type, "timestamp": at, "metadata": known}


def _bounded(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each event once, in order, and of each type the earliest alone."""
    first: dict[tuple[datetime, str, str], dict[str, Any]] = {}
    for event in events:
        first.setdefault((event["timestamp"], event["type"], _of(event, "eventId") or ""), dict(event))
    counts: dict[str, int] = {}
    kept = []
    for _, event in sorted(first.items(), key=lambda item: item[0]):
        counts[event["type"]] = counts.get(event["type"], 0) + 1
        if counts[event["type"]] <= KEPT_EVENTS:
            kept.append(event)
    return kept


def _error(bounce: Mapping[str, Any]) -> dict[str, str]:
    return {"code": _of(bounce, "code") or BOUNCED, "message": _of(bounce, "message") or ""}


def _of(event: Mapping[str, Any], name: str) -> str | None:
    """Return what an event's metadata says, where it is one of ours; others keep there what they like."""
    metadata = event.get("metadata")
    value = metadata.get(name) if isinstance(metadata, Mapping) else None
    return value if isinstance(value, str) else None
